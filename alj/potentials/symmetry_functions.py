"""Behler's atom-centered symmetry functions G2, G4 and G5 on dense environments, for any species.

A neighbor j at distance r_j enters through f_c(r) = [cos(πr/Rc) + 1]/2 below the cutoff Rc, a pair
of neighbors through the angle θ_jk between them:

    G2 = Σ_j exp(-η r_j²) f_c(r_j)
    G4 = 2^(1-ζ) Σ_{j<k} (1 + λ cosθ_jk)^ζ exp[-η (r_j² + r_k² + r_jk²)] f_c(r_j) f_c(r_k) f_c(r_jk)
    G5 = 2^(1-ζ) Σ_{j<k} (1 + λ cosθ_jk)^ζ exp[-η (r_j² + r_k²)] f_c(r_j) f_c(r_k)

There is a block of radial functions for each species of neighbor, and a block of angular functions
for each unordered pair of species.

J. Behler and M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007), doi 10.1103/PhysRevLett.98.146401;
J. Behler, J. Chem. Phys. 134, 074106 (2011), doi 10.1063/1.3553717.
"""

import math
from collections.abc import Callable
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.potentials.blocks import by_blocks
from alj.types import BadInput, Environment


class Descriptor(NamedTuple):
    """A fixed-length description of an environment that no parameter touches.

    `function` maps an environment to (atoms, width) numbers that vanish smoothly with every
    neighbor that reaches `cutoff` (Å).
    """

    width: int
    function: Callable[[Environment], Float[Array, "atoms width"]]
    cutoff: float


class Angular(NamedTuple):
    """One angular function: η in Å⁻², integer ζ ≥ 1, λ = ±1."""

    eta: float
    zeta: int
    sign: int


# fmt: off
RADIAL_ETAS = (
    0.00417, 0.00543, 0.00706, 0.00917, 0.01193, 0.01551, 0.02016, 0.02621, 0.03408, 0.04430,
    0.05760, 0.07488, 0.09734, 0.12654, 0.16451, 0.21386, 0.27802, 0.36143, 0.46986, 0.61082,
    0.79406, 1.03229, 1.34197, 1.74456, 2.26790,
)
"""η of 25 radial functions in Å⁻²: T. D. Loeffler et al., doi 10.1039/c9me00184k."""
# fmt: on


def angular_table(*, regular: bool = False) -> tuple[Angular, ...]:
    """The 25 angular functions of T. D. Loeffler et al. (2020), doi 10.1039/c9me00184k.

    The twelfth is printed with λ = +1; `regular` gives it the −1 that the pattern asks for.
    """

    def one(k):
        sign = 1 if k == 25 or (k - 1) % 6 < 3 else -1
        sign = 1 if k == 12 and not regular else sign
        return Angular(round(0.0004 + 0.005 * (k - 1), 4), 2 + (k - 1) // 6, sign)

    return tuple(one(k) for k in range(1, 26))


def symmetry_functions(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 3.5,
    radial: tuple[float, ...] = RADIAL_ETAS,
    angular: tuple[Angular, ...] = angular_table(),
    form: str = "G5",
) -> Descriptor:
    """The descriptor of G2 functions `radial` (η in Å⁻²) and G4 or G5 functions `angular`.

    Blocks follow one another in the order of `species`: G2 by neighbor, then angular by pair.
    Neighbors that are padded, of another species, or beyond the cutoff contribute exactly 0.
    Raises BadInput for settings out of range.
    """
    _check(species, cutoff_A, radial, angular, form)

    def function(env: Environment):
        # Atoms last: on CPUs every sum below then runs over vector lanes full of atoms.
        vectors = jnp.transpose(env.vectors, (2, 1, 0))
        of = jnp.transpose(env.neighbor_species)
        squares = jnp.sum(vectors * vectors, axis=0)
        masks = [(of == z) & (squares < cutoff_A**2) for z in species]
        inside = reduce(jnp.logical_or, masks)
        squares = jnp.where(inside, squares, 1.0)
        fades = jnp.where(inside, fade(squares, cutoff_A), 0.0)
        # With one species the mask is already in the cutoff function.
        kinds = masks if len(species) > 1 else [None]
        blocks = [_radial(squares, fades, radial, mask) for mask in kinds if radial]
        if angular:
            blocks += _angular(vectors, squares, fades, kinds, angular, form, cutoff_A)
        return jnp.concatenate(blocks).T

    pairs = len(species) * (len(species) + 1) // 2
    return Descriptor(
        len(species) * len(radial) + pairs * len(angular), by_blocks(function), cutoff_A
    )


def check_species(species: tuple[int, ...]) -> None:
    """Raises BadInput unless these are distinct atomic numbers."""
    if not species or len(set(species)) != len(species) or min(species) < 1:
        raise BadInput(f"species must be distinct atomic numbers, at least one; found {species}")


def fade(squares: Float[Array, "*shape"], cutoff: float) -> Float[Array, "*shape"]:
    """f_c = [cos(πr/Rc) + 1]/2 = cos²(πr/2Rc) of squared distances r² ≤ Rc², in Å².

    A polynomial in r², exact to the last bit of float64: no root whose derivative could diverge,
    and it vectorizes where the library's cosine does not.
    """
    argument = squares * (math.pi / (2 * cutoff)) ** 2
    cosine = jnp.full_like(argument, FADE_COEFFICIENTS[-1])
    for coefficient in FADE_COEFFICIENTS[-2::-1]:
        cosine = cosine * argument + coefficient
    return cosine * cosine


FADE_COEFFICIENTS = tuple((-1) ** n / math.factorial(2 * n) for n in range(12))
"""cos(√y) = Σ_n (-1)^n y^n / (2n)! for y ≤ (π/2)²."""


def _check(species, cutoff, radial, angular, form):
    check_species(species)
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise BadInput(f"cutoff_A must be a positive length in Å, found {cutoff}")
    if form not in ("G4", "G5"):
        raise BadInput(f"angular functions must be 'G4' or 'G5', found {form!r}")
    if not radial and not angular:
        raise BadInput("expected at least one radial or angular function, found none")
    if any(not (math.isfinite(eta) and eta >= 0) for eta in (*radial, *(f.eta for f in angular))):
        raise BadInput("every eta must be a finite number of at least 0, in Å⁻²")
    if any(f.zeta != int(f.zeta) or f.zeta < 1 or f.sign not in (1, -1) for f in angular):
        raise BadInput("angular functions need an integer zeta of at least 1 and a sign of 1 or -1")


def _radial(squares, fades, etas, mask):
    """G2 of one species of neighbor: (functions, atoms)."""
    eta = jnp.asarray(etas, squares.dtype)[:, None, None]
    weights = fades if mask is None else jnp.where(mask, fades, 0.0)
    return jnp.sum(jnp.exp(-eta * squares[None]) * weights[None], axis=1)


def _angular(vectors, squares, fades, kinds, functions, form, cutoff):
    """The angular blocks of all pairs of species, each (functions, atoms).

    G5 is the quadratic form ½ Σ_jk g_j P_jk g_k with g_j = exp(-η r_j²) f_c(r_j), and P the power
    of 1 + λ cosθ with an empty diagonal, shared by all functions of equal (ζ, λ). On the dense
    block that is faster than a list of pairs, whose backward pass is a scatter.
    """
    capacity = squares.shape[0]
    overlap = squares == 0
    lengths = jnp.sqrt(jnp.where(overlap, 1.0, squares))
    units = vectors * jnp.where(overlap | (fades == 0), 0.0, 1.0 / lengths)[None]
    cosines = jnp.sum(units[:, :, None] * units[:, None, :], axis=0)
    distinct = ~jnp.eye(capacity, dtype=bool)[:, :, None]
    powers, blocks = {}, {(a, b): [] for a in range(len(kinds)) for b in range(a, len(kinds))}
    bridge = _bridge(vectors, fades, distinct, cutoff) if form == "G4" else None
    for (zeta, sign), etas in _runs(functions):
        eta = jnp.asarray(etas, squares.dtype)[:, None, None]
        shells = jnp.exp(-eta * squares[None]) * fades[None]
        forms = _power(powers, cosines, distinct, zeta, sign)[None]
        if bridge is not None:
            forms = forms * jnp.exp(-eta[..., None] * bridge[0][None]) * bridge[1][None]
        each = [shells if m is None else jnp.where(m[None], shells, 0.0) for m in kinds]
        sums = [jnp.sum(forms * g[:, None], axis=2) for g in each]
        for (a, b), block in blocks.items():
            scale = 2.0 ** (1 - zeta) * (0.5 if a == b else 1.0)
            block.append(scale * jnp.sum(each[a] * sums[b], axis=1))
    return [jnp.concatenate(block) for block in blocks.values()]


def _power(cache, cosines, distinct, zeta, sign):
    """(1 + λ cosθ)^ζ with an empty diagonal, by multiplication; lower powers are reused."""
    if (zeta, sign) not in cache:
        first = (1, sign)
        if first not in cache:
            cache[first] = jnp.where(distinct, 1.0 + sign * cosines, 0.0)
        lower = _power(cache, cosines, distinct, zeta - 1, sign) if zeta > 1 else 1.0
        cache[zeta, sign] = lower * cache[first]
    return cache[zeta, sign]


def _bridge(vectors, fades, distinct, cutoff):
    """Squared distances between neighbors, and their cutoff function; 0 for what is no pair."""
    between = vectors[:, :, None] - vectors[:, None, :]
    squares = jnp.sum(between * between, axis=0)
    real = (fades > 0)[:, None] & (fades > 0)[None, :] & distinct & (squares < cutoff**2)
    squares = jnp.where(real, squares, 1.0)
    return squares, jnp.where(real, fade(squares, cutoff), 0.0)


def _runs(functions):
    """Consecutive functions of equal (ζ, λ), with their η."""
    runs = groupby(functions, key=lambda f: (int(f.zeta), int(f.sign)))
    return [(key, [f.eta for f in run]) for key, run in runs]
