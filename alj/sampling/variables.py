"""Collective variables: smooth numbers of a structure along which it is steered, biased or read.

A builder's settings make a `Variable`; `variable: {name: distance, atoms: [0, 5]}` is how a
configuration names one. Lengths in Å, angles in radians. In a cell every vector is taken to the
nearest image, which is exact below half of the smallest height of the cell.

*Coordination*: M. Iannuzzi, A. Laio, M. Parrinello, Phys. Rev. Lett. 90, 238302 (2003),
doi:10.1103/PhysRevLett.90.238302. Distances from given shapes are in `shapes`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj import registry
from alj.annotations import show
from alj.arrays import safe_norm
from alj.geometry.periodic import minimum_image, reciprocal
from alj.sampling.shapes import interpolated, mean_square, progress, rotated_distance
from alj.sampling.spectra import spectrum_progress
from alj.types import BadInput, Structure

Triple = tuple[float, float, float]


class Variable(NamedTuple):
    """A collective variable.

    function: `(structure, start) -> scalar` of one structure, differentiable; `start` is the
        structure in which the walk began and may be left out unless `from_start`.
    unit: "Å", "rad", or "" for a pure number. period: in that unit, None where there is none.
    atoms: the indices it needs. from_start: it measures from the start of the walk.
    """

    function: Callable[..., Float[Array, ""]]
    name: str
    unit: str
    period: float | None = None
    atoms: tuple[int, ...] = ()
    from_start: bool = False


def distance(*, atoms: tuple[int, int]) -> Variable:
    """The distance of two atoms in Å.

    Args:
        atoms: Indices of the two atoms.
    """
    first, second = _distinct("atoms", atoms)

    def length(structure: Structure, start=None) -> Float[Array, ""]:
        return safe_norm(_vector(structure, first, second))

    return Variable(length, "distance", "Å", atoms=(first, second))


def angle(*, atoms: tuple[int, int, int]) -> Variable:
    """The angle between the bonds of the second atom to the first and to the third, 0 to π.

    Args:
        atoms: Indices of the three atoms, the corner in the middle.
    """
    first, corner, last = _distinct("atoms", atoms)

    def between(structure: Structure, start=None) -> Float[Array, ""]:
        u, v = _vector(structure, corner, first), _vector(structure, corner, last)
        # of tangent and not of cosine: no root of 0 where the three atoms lie on a line
        return jnp.arctan2(safe_norm(jnp.cross(u, v)), jnp.dot(u, v))

    return Variable(between, "angle", "rad", atoms=(first, corner, last))


def torsion(*, atoms: tuple[int, int, int, int]) -> Variable:
    """The torsion about the bond of the second and third of four atoms, -π to π (0 is cis).

    Args:
        atoms: Indices of the four atoms along the chain.
    """
    a, b, c, d = _distinct("atoms", atoms)

    def turned(structure: Structure, start=None) -> Float[Array, ""]:
        first, axis, last = (_vector(structure, *pair) for pair in ((a, b), (b, c), (c, d)))
        normal = jnp.cross(axis, last)
        sine = safe_norm(axis) * jnp.dot(first, normal)
        cosine = jnp.dot(jnp.cross(first, axis), normal)
        undefined = (sine == 0) & (cosine == 0)
        return jnp.arctan2(sine, jnp.where(undefined, 1.0, cosine))

    return Variable(turned, "torsion", "rad", period=2.0 * math.pi, atoms=(a, b, c, d))


def coordination(
    *,
    first: tuple[int, ...],
    second: tuple[int, ...],
    radius_A: float,
    exponents: tuple[int, int] = (6, 12),
) -> Variable:
    """How many atoms of one group lie near those of another: a smooth count of pairs.

    Σ_i Σ_j (1 - x^n)/(1 - x^m) with x = r_ij/radius; an atom makes no pair with itself.

    Args:
        first: Indices of one group.
        second: Indices of the other group.
        radius_A: Distance at which a pair counts n/m.
        exponents: n and m.
    """
    n, m = exponents
    if not 0 < n < m:
        raise BadInput(f"exponents: expected 0 < n < m, found [{n}, {m}]")
    if not radius_A > 0:
        raise BadInput(f"radius_A: expected a positive number, found {radius_A}")
    ones, others = (
        np.array(_distinct(name, group)) for name, group in (("first", first), ("second", second))
    )
    pairs = ones[:, None] != others[None, :]
    if not pairs.any():
        raise BadInput("second: expected an atom that is not the only one of first, found none")

    def count(structure: Structure, start=None) -> Float[Array, ""]:
        places = structure.positions
        vectors = _nearest(structure, places[others][None, :] - places[ones][:, None])
        x = safe_norm(vectors) / radius_A
        near = 1.0 / (1.0 + x**n) if m == 2 * n else _partial(x, n) / _partial(x, m)
        return jnp.sum(jnp.where(pairs, near, 0.0))

    together = tuple(sorted({int(index) for index in (*ones, *others)}))
    return Variable(count, "coordination", "", atoms=together)


def rmsd(
    *, reference: tuple[Triple, ...] | None = None, atoms: tuple[int, ...] | None = None
) -> Variable:
    """Root mean square distance in Å from a shape, after the best rotation and shift onto it.

    Args:
        reference: Positions of the atoms in Å, one [x, y, z] each; null measures from the
            structure in which the walk began.
        atoms: Indices of the atoms that count, in the order of the reference; null takes as many
            as the reference has, or all that the start has.
    """
    chosen = _shape_atoms(atoms, reference)
    shape = None if reference is None else _points("reference", reference, len(chosen or ()))

    def away(structure: Structure, start: Structure | None = None) -> Float[Array, ""]:
        if shape is None and start is None:
            raise ValueError("rmsd without a reference needs the start of the walk")
        weights = _weights(structure, chosen)
        points = _whole(structure, chosen)
        target = _whole(start, chosen) if shape is None else jnp.asarray(shape, points.dtype)  # pyright: ignore
        return rotated_distance(points, target, weights)

    return Variable(away, "rmsd", "Å", atoms=chosen or (), from_start=shape is None)


def path_progress(
    *, nodes: tuple[tuple[Triple, ...], ...], atoms: tuple[int, ...] | None = None, between: int = 0
) -> Variable:
    """How far along a path of shapes a structure is: 0 at the first, 1 at the last.

    s = Σ_i (i/(P-1)) exp(-λ d_i²) / Σ_i exp(-λ d_i²); d_i² is the mean square distance from node i
    after the best rotation, λ is 2.3 over the mean of d² between neighboring nodes.

    Args:
        nodes: The shapes, each a list of positions [x, y, z] in Å; at least two.
        atoms: Indices of the atoms, in the order of the nodes; null takes the first ones.
        between: Nodes put between each two by straight lines.
    """
    chosen, shapes, sharpness = _path(nodes, atoms, between)

    def along(structure: Structure, start=None) -> Float[Array, ""]:
        points = _whole(structure, chosen)
        return progress(points, jnp.asarray(shapes, points.dtype), sharpness)[0]

    return Variable(along, "path_progress", "", atoms=chosen)


def path_distance(
    *, nodes: tuple[tuple[Triple, ...], ...], atoms: tuple[int, ...] | None = None, between: int = 0
) -> Variable:
    """How far from a path of shapes a structure is: a mean square distance in Å^2.

    z = -(1/λ) ln Σ_i exp(-λ d_i²); near the path it may be somewhat below 0.

    Args:
        nodes: The shapes, each a list of positions [x, y, z] in Å; at least two.
        atoms: Indices of the atoms, in the order of the nodes; null takes the first ones.
        between: Nodes put between each two by straight lines.
    """
    chosen, shapes, sharpness = _path(nodes, atoms, between)

    def beside(structure: Structure, start=None) -> Float[Array, ""]:
        points = _whole(structure, chosen)
        return progress(points, jnp.asarray(shapes, points.dtype), sharpness)[1]

    return Variable(beside, "path_distance", "Å^2", atoms=chosen)


def function(
    *,
    function: str,
    settings: dict[str, Any] | None = None,
    unit: str = "",
    period: float | None = None,
    atoms: tuple[int, ...] = (),
) -> Variable:
    """Any function of a structure that JAX can differentiate, by its import path.

    Args:
        function: "module:name" of a function that takes an `alj.types.Structure` first and returns
            a number.
        settings: Its keyword arguments.
        unit: Unit of the number.
        period: Period of the number; null for none.
        atoms: Indices that it needs.
    """
    if period is not None and not period > 0:
        raise BadInput(f"period: expected a positive number, found {period}")
    chosen = _distinct("atoms", atoms, least=0)
    given, called = settings or {}, registry.imported(function, "function")

    def valued(structure: Structure, start=None) -> Float[Array, ""]:
        return jnp.asarray(called(structure, **given))

    return Variable(valued, function.rpartition(":")[2], unit, period, chosen)


def class_difference(*, first: tuple[float, ...], second: tuple[float, ...]) -> Variable:
    """From one class of molecules (0) to another (1), by the spectra of their Coulomb matrices.

    Args:
        first: Eigenvalues of the prototype of one class, by falling size.
        second: Those of the other one.
    """
    progress = spectrum_progress(np.asarray(first, float), np.asarray(second, float))
    return Variable(progress, "class difference", "")


VARIABLES = (
    distance, angle, torsion, coordination, rmsd, path_progress, path_distance, class_difference,
    function,
)  # fmt: skip
"""What a variable may be, by name."""


def _setting(builder: Callable) -> Callable:
    """The builder for a nested section: it does not look at the potential."""

    @functools.wraps(builder)
    def made(*_, **settings):
        return builder(**settings)

    return made


SECTIONS = tuple(_setting(builder) for builder in VARIABLES)
OneVariable = Annotated[Any, registry.Nested(lambda: SECTIONS)]
"""The annotation of a setting that names a variable; a list of them is `tuple[OneVariable, ...]`,
whose entries the builder passes through `variable_of`."""


def variable_of(spec: Any, where: str = "variable") -> Variable:
    """The variable that a section describes, or the variable itself. Raises BadInput.

    >>> variable_of({"name": "distance", "atoms": [0, 5]}).unit
    'Å'
    """
    return spec if isinstance(spec, Variable) else registry.build(VARIABLES, spec, where=where)


def values_of(
    variables: Sequence[Variable], structure: Structure, start: Structure | None = None
) -> Float[Array, " variables"]:
    """The values of several variables in one structure, each in its unit."""
    dtype = structure.positions.dtype
    return jnp.stack([each.function(structure, start).astype(dtype) for each in variables])


def differences(
    variables: Sequence[Variable], values: Float[Array, "*n variables"], others
) -> Float[Array, "*n variables"]:
    """`values` minus `others`, the shorter way round where a variable is periodic."""
    has = np.array([each.period is not None for each in variables])
    periods = jnp.asarray([each.period or 1.0 for each in variables], values.dtype)
    change = values - others
    periods = jnp.broadcast_to(periods, change.shape)
    turns = jnp.where(jnp.broadcast_to(has, change.shape), jnp.round(change / periods), 0.0)
    return change - periods * turns


def apart(variable: Variable, value, other) -> Float[Array, ""]:
    """`differences` of one variable."""
    return differences((variable,), jnp.reshape(value, (1,)), jnp.reshape(other, (1,)))[0]


def check_atoms(variable: Variable, structures: Structure, where: str = "variable") -> None:
    """Raises BadInput where a batch of structures (host) lacks an atom that the variable names."""
    species = np.atleast_2d(np.asarray(structures.species))
    for index in variable.atoms:
        if index >= species.shape[1] or np.any(species[:, index] == 0):
            fewest = int((species > 0).sum(axis=1).min())
            raise BadInput(
                f"{where}: {variable.name} names atom {index}: expected indices from 0 to "
                f"{fewest - 1}, as a start has {fewest} atoms"
            )


def _vector(structure: Structure, first: int, second: int) -> Float[Array, " 3"]:
    return _nearest(structure, structure.positions[second] - structure.positions[first])


def _nearest(structure: Structure, vectors):
    return minimum_image(vectors, structure.cell, reciprocal(structure.cell))[0]


def _whole(structure: Structure, chosen: tuple[int, ...] | None):
    """Positions of the atoms, those of one molecule that a cell may have torn apart."""
    places = structure.positions
    places = places if chosen is None else places[np.array(chosen)]
    return places[:1] + _nearest(structure, places - places[:1])


def _weights(structure: Structure, chosen: tuple[int, ...] | None):
    species = structure.species if chosen is None else structure.species[np.array(chosen)]
    return jnp.where(species > 0, 1.0, 0.0).astype(structure.positions.dtype)


def _partial(x, count: int):
    """(1 - x^count)/(1 - x) as a sum: nothing to divide at x = 1."""
    total = jnp.ones_like(x)
    for _ in range(count - 1):
        total = 1.0 + x * total
    return total


def _distinct(name: str, atoms, least: int = 1) -> tuple[int, ...]:
    indices = tuple(int(index) for index in atoms)
    if len(indices) < least or len(set(indices)) < len(indices) or min(indices, default=0) < 0:
        raise BadInput(
            f"{name}: expected different indices of atoms, counted from 0, found {show(indices)}"
        )
    return indices


def _shape_atoms(atoms, reference) -> tuple[int, ...] | None:
    if atoms is not None:
        return _distinct("atoms", atoms, least=2)
    return None if reference is None else tuple(range(len(reference)))


def _points(name: str, points, count: int) -> np.ndarray:
    shape = np.asarray(points, float).reshape(-1, 3)
    if len(shape) != count or count < 2:
        raise BadInput(f"{name}: expected {max(count, 2)} positions, as atoms, found {len(shape)}")
    if not np.isfinite(shape).all():
        raise BadInput(f"{name}: expected finite positions, found others")
    return shape


def _path(nodes, atoms, between: int):
    """Atoms, shapes and sharpness of a path. Raises BadInput."""
    if len(nodes) < 2 or between < 0:
        raise BadInput(
            f"nodes: expected at least 2 shapes and none or more between, found {len(nodes)} "
            f"with between: {between}"
        )
    chosen = _shape_atoms(atoms, nodes[0]) or ()
    shapes = np.stack([_points(f"nodes[{i}]", n, len(chosen)) for i, n in enumerate(nodes)])
    shapes = interpolated(shapes, between)
    steps = [mean_square(a, b) for a, b in itertools.pairwise(shapes)]
    if min(steps) < 1e-12:
        raise BadInput("nodes: expected neighboring shapes that differ, found two that do not")
    return chosen, shapes, 2.3 / float(np.mean(steps))
