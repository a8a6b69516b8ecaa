"""ANI symmetry functions: Gaussians of distances, and of angles with mean distances.

A neighbor j at distance r_j enters through f_c(r) = [cos(πr/Rc) + 1]/2 below a cutoff Rc, a pair of
neighbors through the angle θ_jk between them; the angular functions have a smaller cutoff:

    R_m  = ¼ Σ_j exp[-η (r_j - R_m)²] f_c(r_j)
    A_ms = 2^(1-ζ) Σ_{j<k} [1 + cos(θ'_jk - θ_s)]^ζ exp[-η ((r_j + r_k)/2 - R_m)²] f_c(r_j) f_c(r_k)

with cosθ' = 0.95 cosθ. There is a block of radial functions for each species of neighbor, and a
block of angular functions for each unordered pair of species. The ¼ and the 0.95 are those of the
published networks; the latter keeps θ' off 0 and π, where its gradient diverges. No angle is ever
computed: cos(θ' - θ_s) = cosθ' cosθ_s + sinθ' sinθ_s.

J. S. Smith, O. Isayev and A. E. Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A;
C. Devereux et al., J. Chem. Theory Comput. 16, 4192 (2020), doi 10.1021/acs.jctc.0c00121 (ANI-2x).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from alj.arrays import safe_norm
from alj.potentials.blocks import by_blocks
from alj.potentials.elements import largest
from alj.potentials.symmetry_functions import Descriptor, check_species, fade
from alj.types import BadInput, Environment


class Grid(NamedTuple):
    """Where the functions sit: η in Å⁻², shifts in Å, evenly spaced up to the cutoff (excluded)."""

    radial_eta: float = 19.7
    radial_shifts: int = 16
    angular_eta: float = 12.5
    zeta: float = 14.1
    angular_shifts: int = 8
    sections: int = 4
    first_shift: float = 0.8


ANI_2X = Grid()
"""The functions of ANI-2x."""


def ani_functions(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 5.1,
    angular_cutoff_A: float = 3.5,
    grid: Grid = ANI_2X,
) -> Descriptor:
    """The ANI descriptor: radial blocks by species, then angular blocks by pair of species.

    Within an angular block the section runs faster than the shift, as in TorchANI. Neighbors that
    are padded, of another species, or beyond the cutoff contribute exactly 0.

    Only neighbors within the angular cutoff form pairs. They are moved to the front of a shorter
    list, whose length is chosen among a few while the program runs: the smallest that holds the
    most crowded atom, and at most the whole list, so that none can be lost.

    Raises BadInput for settings out of range.
    """
    _check(species, cutoff_A, angular_cutoff_A, grid)

    def function(env: Environment):
        near = _nearby(env, species, cutoff_A)
        inside = near.distances < angular_cutoff_A
        radial = _radial(near, cutoff_A, grid)
        angular = _angular(
            near._replace(kinds=near.kinds & inside[:, None]), angular_cutoff_A, grid
        )
        return jnp.concatenate([radial, angular], axis=1)

    pairs = len(species) * (len(species) + 1) // 2
    width = len(species) * grid.radial_shifts + pairs * grid.angular_shifts * grid.sections
    return Descriptor(width, by_blocks(function), cutoff_A)


class _Nearby(NamedTuple):
    """Neighbors last, so that all loops run over vector lanes full of neighbors or pairs."""

    units: Float[Array, "atoms 3 neighbors"]
    distances: Float[Array, "atoms neighbors"]
    kinds: Bool[Array, "atoms species neighbors"]


def _check(species, cutoff, angular_cutoff, grid):
    check_species(species)
    if not (math.isfinite(cutoff) and 0 < grid.first_shift < angular_cutoff <= cutoff):
        raise BadInput(
            f"expected {grid.first_shift} < angular_cutoff_A <= cutoff_A, in Å; found "
            f"{angular_cutoff} and {cutoff}"
        )


def _nearby(env, species, cutoff):
    """Unit vectors (0 for a neighbor on top of its atom), distances, and who is within the cutoff.

    What is not within the cutoff has a distance that no gradient flows through.
    """
    vectors = jnp.swapaxes(env.vectors, 1, 2)
    of = env.neighbor_species
    inside = jnp.sum(vectors * vectors, axis=1) < cutoff**2
    kinds = jnp.stack([inside & (of == z) for z in species], axis=1)
    real = jnp.any(kinds, axis=1)
    far = jnp.asarray([cutoff, 0.0, 0.0], vectors.dtype)
    vectors = jnp.where(real[:, None], vectors, far[None, :, None])
    distances = safe_norm(jnp.swapaxes(vectors, 1, 2))
    overlap = distances == 0
    inverse = jnp.where(overlap, 0.0, 1.0 / jnp.where(overlap, 1.0, distances))
    return _Nearby(vectors * inverse[:, None], distances, kinds)


def _radial(near, cutoff, grid):
    """R of all species, (atoms, functions)."""
    r = near.distances
    shells = 0.25 * _gaussians(r, grid.radial_eta, _shifts(grid.radial_shifts, cutoff, grid))
    found = jnp.einsum("azn,amn->azm", _weights(near, cutoff), shells, precision=_EXACT)
    return found.reshape(r.shape[0], -1)


def _angular(near, cutoff, grid):
    """A of all pairs of species, (atoms, functions), from lists as short as the data allow."""
    columns = near.distances.shape[1]
    weights = _weights(near, cutoff)
    inside = jnp.any(near.kinds, axis=1)
    distances = jnp.where(inside, near.distances, 0.0)[:, None]
    entries = jnp.concatenate([near.units, distances, weights], axis=1)
    sizes = sorted({-(-columns * share // 6) for share in _SIXTHS})
    if len(sizes) == 1:
        return _pair_sums(sizes[0], cutoff, grid, entries, inside)
    # Each branch recomputes in the backward pass: what it would keep for it, all the others
    # would have to fill with zeros.
    branches = [jax.checkpoint(partial(_pair_sums, size, cutoff, grid)) for size in sizes]
    most = largest(jnp.sum(inside, axis=1, dtype=jnp.int32))
    chosen = jnp.sum(most > jnp.asarray(sizes[:-1], jnp.int32), dtype=jnp.int32)
    return jax.lax.switch(chosen, branches, entries, inside)


_SIXTHS = (2, 3, 4, 6)


def _pair_sums(size, cutoff, grid, entries, inside):
    """The angular functions from the first `size` neighbors that are inside, (atoms, functions).

    `entries` are unit vector, distance and a weight for each species. They are moved, and spread
    over the pairs j < k, by products with matrices of zeros and ones: several times faster on CPUs
    than gathers, whose backward pass is a scatter.
    """
    atoms, _, columns = entries.shape
    dtype = entries.dtype
    if size < columns:
        place = jnp.cumsum(inside, axis=1) - 1
        wanted = jnp.arange(size)[None, None]
        move = ((place[:, :, None] == wanted) & inside[:, :, None]).astype(dtype)
        entries = jnp.einsum("aqn,anc->aqc", entries, move, precision=_EXACT)
    one, two = (_spread(entries, side) for side in np.triu_indices(size, 1))
    angles = _sections(jnp.sum(one[:, :3] * two[:, :3], axis=1), grid)
    means = 0.5 * (one[:, 3] + two[:, 3])
    shells = _gaussians(means, grid.angular_eta, _shifts(grid.angular_shifts, cutoff, grid))
    kinds = _pair_weights(one[:, 4:], two[:, 4:])
    found = jnp.einsum("axp,amp->axm", _products(kinds, angles), shells, precision=_EXACT)
    blocks = found.reshape(atoms, kinds.shape[1], grid.sections, grid.angular_shifts)
    return jnp.swapaxes(blocks, 2, 3).reshape(atoms, -1)


def _spread(values, columns):
    """`values[..., columns]` for columns known beforehand."""
    matrix = jnp.asarray(np.eye(values.shape[-1])[:, columns], values.dtype)
    return jnp.einsum("aqc,cp->aqp", values, matrix, precision=_EXACT)


def _sections(cosines, grid):
    """2 {[1 + cos(θ' - θ_s)]/2}^ζ of all sections; the base is never less than 0.02."""
    cosines = 0.95 * cosines
    # Rounding may take the product of two unit vectors a little beyond 1, but 0.95 times it not.
    sines = jnp.sqrt(1.0 - cosines * cosines)
    turns = [(k + 0.5) * math.pi / grid.sections for k in range(grid.sections)]
    bases = [0.5 + 0.5 * (math.cos(t) * cosines + math.sin(t) * sines) for t in turns]
    return 2.0 * jnp.exp(grid.zeta * jnp.log(jnp.stack(bases, axis=1)))


def _pair_weights(one, two):
    """f_c f_c of pairs, for each unordered pair of species."""
    kinds = range(one.shape[1])
    return jnp.stack(
        [
            one[:, a] * two[:, b] + (one[:, b] * two[:, a] if a != b else 0.0)
            for a in kinds
            for b in kinds[a:]
        ],
        axis=1,
    )


@jax.custom_jvp
def _products(kinds, angles):
    """Every row of `kinds` times every row of `angles`, (atoms, rows, pairs).

    Its derivative is a concatenation, whose transpose adds slices: on CPUs several times faster
    than the sum that is the transpose of a broadcast. The concatenation itself is the slower in the
    forward pass, where XLA would compute the angles anew for each part of it.
    """
    products = kinds[:, :, None] * angles[:, None]
    return products.reshape(products.shape[0], -1, products.shape[-1])


@_products.defjvp
def _products_jvp(at, moves):
    (kinds, angles), (by_kinds, by_angles) = at, moves
    change = [
        by_kinds[:, t, None] * angles + kinds[:, t, None] * by_angles for t in range(kinds.shape[1])
    ]
    return _products(kinds, angles), jnp.concatenate(change, axis=1)


def _weights(near, cutoff):
    """f_c of every neighbor in the row of its species, 0 elsewhere."""
    real = jnp.any(near.kinds, axis=1)
    fades = fade(jnp.where(real, near.distances, cutoff) ** 2, cutoff)
    return jnp.where(near.kinds, fades[:, None], 0.0)


def _gaussians(r, eta, shifts):
    return jnp.exp(-eta * (r[:, None] - jnp.asarray(shifts, r.dtype)[None, :, None]) ** 2)


def _shifts(count, cutoff, grid):
    return grid.first_shift + (cutoff - grid.first_shift) / count * np.arange(count)


_EXACT = jax.lax.Precision.HIGHEST
"""Products with zeros and ones move numbers: they must not be rounded to fewer bits."""
