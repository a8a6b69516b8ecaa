"""Coulomb potentials of point charges: Ewald sums in periodic cells, direct sums in open space.

    φ_i = k Σ_j q_j erfc(α r_ij)/r_ij + φ'_i - 2 α k q_i/√π,   φ' = k Σ_j q_j erf(α r_ij)/r_ij

with k = e²/4πε0. The first sum, over the images within a cutoff, is a neighbor table's; the
second one is smooth, over all images and the charge itself. In a periodic cell it is a sum over
reciprocal vectors of the structure factor S (the surrounding is a conductor),

    φ'_i = (4πk/V) Σ_{0<|k|≤K} exp(-k²/4α²)/k² Re[S(k)* exp(ik·r_i)],   S(k) = Σ_j q_j exp(ik·r_j)

by products of phases (`reciprocal_sums`), or on a mesh (`particle_mesh`) where ions are many. In
open space, where no direction repeats, it is the sum over all pairs. Neither φ nor what is derived
from it depends on α, up to the accuracy asked for.

The charges of a periodic cell must add up to zero, and it must repeat along all three directions:
`refusal` says so on the host, compiled code answers NaN. Derivatives are explicit, once: to
positions, charges and cell; there are no second ones.

P. P. Ewald, Ann. Phys. 369, 253 (1921), doi 10.1002/andp.19213690304; errors: J. Kolafa,
J. W. Perram, Mol. Simul. 9, 351 (1992), doi 10.1080/08927029208049126.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.geometry.periodic import periodic_axes, reciprocal
from alj.potentials.particle_mesh import on_mesh
from alj.potentials.reciprocal_sums import Field, over_pairs, over_vectors
from alj.potentials.short_range import COULOMB
from alj.types import BadInput, Neighbors, Structure

CROWDED = 0.05
"""Σq²/V in e²/Å^3 for which accuracies are stated: solid rock salt has 0.045."""


class Splitting(NamedTuple):
    """How the sum is divided: α in 1/Å, the cutoffs of both halves in Å and 1/Å.

    `mesh` points along the lattice vectors with B-splines of an `order`, or None without a mesh.
    """

    alpha: float
    cutoff: float
    largest: float
    mesh: tuple[int, int, int] | None = None
    order: int = 6


def split(
    cutoff_A: float, accuracy: float, *, mesh: tuple[int, int, int] | None = None, order: int = 6
) -> Splitting:
    """The splitting for a real-space cutoff and an accuracy of forces (rms, eV/Å, of unit charges).

    With α = s/r_c and K = 2αs both halves err by the same amount (Kolafa and Perram),

        ΔF = 2k √(Σq²/V r_c) exp(-s²)

    which is solved for s at Σq²/V = 0.05 e²/Å^3; it changes with the root of the density only.
    A mesh errs by as much again where it is at least as fine as `suitable_mesh` says.

    Raises BadInput for settings out of range.
    """
    if not (math.isfinite(cutoff_A) and cutoff_A > 0):
        raise BadInput(f"cutoff_A must be a positive length in Å, found {cutoff_A}")
    largest = 2 * COULOMB * math.sqrt(CROWDED / cutoff_A)
    if not 1e-13 <= accuracy <= 0.1 * largest:
        raise BadInput(
            f"accuracy: expected 1e-13 to {0.1 * largest:.2g} eV/Å at this cutoff, found {accuracy}"
        )
    if not 5 <= order <= 10:
        raise BadInput(f"order of the B-splines: expected 5 to 10, found {order}")
    if mesh is not None and (len(mesh) != 3 or min(mesh) < order):
        raise BadInput(f"mesh: expected three numbers of points >= {order}, found {mesh}")
    s = math.sqrt(math.log(largest / accuracy))
    return Splitting(s / cutoff_A, cutoff_A, 2 * s * s / cutoff_A, mesh, order)


def suitable_mesh(
    cell: np.ndarray, cutoff_A: float, accuracy: float, order: int = 6
) -> tuple[int, int, int]:
    """Points of a mesh of the given accuracy (host): products of 2, 3 and 5, even.

    A spacing h errs by about ΔF (0.55 α h)^p relative to the forces 2k √(Σq²/V r_c) themselves
    (fitted to random and molten salts, orders 5 to 8).
    """
    alpha = split(cutoff_A, accuracy).alpha
    relative = accuracy / (2 * COULOMB * math.sqrt(CROWDED / cutoff_A))
    spacing = relative ** (1 / order) / (0.55 * alpha)
    lengths = np.linalg.norm(np.reshape(cell, (3, 3)), axis=1)
    first, second, third = (_smooth_number(max(length / spacing, order)) for length in lengths)
    return first, second, third


def refusal(charges: np.ndarray, cell: np.ndarray) -> str | None:
    """Why these charges in this cell have no Coulomb energy here, or None (host)."""
    periodic = np.any(np.asarray(cell) != 0, axis=-1)
    if not periodic.any():
        return None
    if not periodic.all():
        return (
            f"Coulomb sums repeat along all directions or none, found {periodic.sum()} lattice "
            "vectors: give a slab or wire a cell with vacuum"
        )
    total = float(np.sum(charges))
    if abs(total) > NEUTRAL:
        return (
            f"a periodic cell must be neutral, found ions with a total charge of {total:+g} e: "
            "add the missing ions, or take the cell away"
        )
    return None


NEUTRAL = 1e-6
"""Total charge in e that counts as none."""


def coulomb_potentials(
    charges: Float[Array, " atoms"], structure: Structure, neighbors: Neighbors, how: Splitting
) -> Float[Array, " atoms"]:
    """φ of every charge in eV/e; the energy is ½ Σ q_i φ_i.

    The table must reach the cutoff of the splitting. NaN where `refusal` would refuse.
    """
    env = environment(structure, neighbors, how.cutoff)
    squares = jnp.sum(env.vectors * env.vectors, axis=-1)
    inside = (env.neighbor_species > 0) & (squares < how.cutoff**2)
    r = jnp.sqrt(jnp.where(inside, squares, 1.0))
    there = charges.at[neighbors.indices].get(mode="fill", fill_value=0.0)
    near = jnp.where(inside, there * screened(how, r), 0.0)
    return jnp.sum(near, axis=-1) + far_potentials(charges, structure, how)


def screened(how: Splitting, r: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """k erfc(α r)/r in eV/e²."""
    return COULOMB * jax.lax.erfc(how.alpha * r) / r


def far_potentials(
    charges: Float[Array, " atoms"], structure: Structure, how: Splitting
) -> Float[Array, " atoms"]:
    """The smooth part of φ without each charge itself, in eV/e; in float64 where x64 is on."""
    precise = jnp.result_type(float)
    q, positions, cell = (
        leaf.astype(precise) for leaf in (charges, structure.positions, structure.cell)
    )
    smooth: Array = _smooth(how, q, positions, cell)  # pyright: ignore[reportAssignmentType]
    periodic = periodic_axes(cell)
    neutral = jnp.abs(jnp.sum(q)) <= NEUTRAL
    known = (jnp.all(periodic) & neutral) | ~jnp.any(periodic)
    own = 2.0 * how.alpha / math.sqrt(math.pi) * q
    return jnp.where(known, COULOMB * (smooth - own), jnp.nan).astype(charges.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _smooth(how, charges, positions, cell):
    """φ'/k. Loops of a length that depends on the cell have no derivative, so it is given."""
    return _field(how, charges, positions, cell, True).potential


def _smooth_forward(how, charges, positions, cell):
    field = _field(how, charges, positions, cell, True)
    return field.potential, (charges, positions, cell, field)


def _smooth_backward(how, residuals, weights):
    """With φ' = G q, the derivative of w·Gq follows from the fields of q and of w.

    That of the energy asks for w proportional to q, and G(cq) = cGq costs nothing. What remains of
    w has its own field; the strain derivative B(w, q) of the bilinear form is that of squares,
    2B(w, q) = B(w + q, w + q) - B(w, w) - B(q, q).
    """
    charges, positions, cell, field = residuals
    squares = jnp.sum(charges * charges)
    scale = jnp.sum(weights * charges) / jnp.where(squares > 0, squares, 1.0)
    rest = weights - scale * charges
    others = jnp.max(jnp.abs(rest)) > 1e-13 * jnp.max(jnp.abs(weights))
    rest = jnp.where(others, rest, 0.0)
    alone = _field(how, rest, positions, cell, others)
    both = _field(how, rest + charges, positions, cell, others)
    slopes = weights[:, None] * field.slopes + charges[:, None] * (
        scale * field.slopes + alone.slopes
    )
    mixed = jnp.where(others, both.strain - alone.strain - field.strain, 0.0)
    strain = 2.0 * scale * field.strain + mixed
    # To strain the cell is to move the atoms with it, and then to move them back.
    by_cell = reciprocal(cell).T @ (strain - positions.T @ slopes)
    return scale * field.potential + alone.potential, slopes, by_cell


_smooth.defvjp(_smooth_forward, _smooth_backward)


def _field(how: Splitting, charges, positions, cell, active) -> Field:
    """φ'/k and derivatives, in a periodic cell or in open space; zeros unless `active`.

    Loops of length zero, rather than branches: a batch of cells then costs nothing of pairs.
    """
    periodic = jnp.any(periodic_axes(cell))
    by_pairs = over_pairs(how.alpha, charges, positions, active & ~periodic)
    if how.mesh is None:
        sums = over_vectors(how.alpha, how.largest, charges, positions, cell, active & periodic)
    else:
        sums = on_mesh(how.alpha, how.mesh, how.order, charges, positions, cell, active & periodic)
    return Field(*(one + other for one, other in zip(by_pairs, sums, strict=True)))


def _smooth_number(smallest: float) -> int:
    """The next even product of 2, 3 and 5."""
    number = 2 * math.ceil(smallest / 2)
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 2
