"""Structure of liquids: radial and angular distributions of batches of configurations.

    g(r) = <n(r)> / (ρ 4πr² dr)      P(θ) = <angles j-i-k at θ, r_ij and r_ik < R> / dθ, to area 1

Every image within the range counts, so that the range may exceed half a small box. Cells may vary
from frame to frame (constant pressure): each frame is normalized by its own density. All real atoms
count alike, whatever their species, unless a pair of elements is asked for.

M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, 2nd ed., Oxford (2017), ch. 8.2.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.geometry.neighbors import neighbor_table, table_size
from alj.types import BadInput, Structure


class Histogram(NamedTuple):
    """Centers of the bins (Å, or degrees), and the distribution of every frame there."""

    centers: Float[np.ndarray, " bins"]
    values: Float[np.ndarray, "frames bins"]


class Peak(NamedTuple):
    """Where a curve has an extremum, and its value there."""

    position: float
    height: float


def radial_distribution(
    frames: Structure,
    *,
    range_A: float = 7.0,
    width_A: float = 0.05,
    pair: tuple[int, int] | None = None,
) -> Histogram:
    """g(r) of every frame, in bins of `width_A` up to `range_A`; frames have a leading axis.

    `pair` names two elements (or one twice) by their atomic numbers: the partial distribution
    g_ab = <n_b(r) around a> / (ρ_b 4πr² dr).

    Raises BadInput for cells that do not repeat in three directions: there is no density.
    """
    volumes = np.abs(np.linalg.det(np.asarray(frames.cell)))
    if not np.all(volumes > 0):
        raise BadInput("radial_distribution: expected three periodic directions in every frame")
    edges = np.arange(round(range_A / width_A) + 1) * width_A
    counts = _counted(_distances_of(pair), frames, float(edges[-1]), tuple(edges))
    species = np.asarray(frames.species)
    first, second = (
        np.sum(species > 0 if pair is None else species == pair[place], axis=1)
        for place in range(2)
    )
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    ideal = np.maximum(first * second / volumes, 1e-300)[:, None] * shells[None]
    return Histogram((edges[1:] + edges[:-1]) / 2, counts / ideal)


def angle_distribution(
    frames: Structure, *, radius_A: float = 4.0, width_degrees: float = 2.0
) -> Histogram:
    """P(θ) in 1/degree of the angles between any two neighbors within `radius_A`, by frame."""
    edges = np.linspace(0.0, 180.0, round(180.0 / width_degrees) + 1)
    counts = _counted(_angles, frames, radius_A, tuple(edges))
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return Histogram((edges[1:] + edges[:-1]) / 2, counts / total / np.diff(edges))


def coordination(frames: Structure, *, radius_A: float) -> Float[np.ndarray, " frames"]:
    """The mean number of neighbors within a radius, by frame."""
    counts = _counted(_distances_of(None), frames, radius_A, (0.0, radius_A))
    return counts[:, 0] / np.sum(np.asarray(frames.species) > 0, axis=1)


def highest(
    centers: Float[np.ndarray, " bins"],
    values: Float[np.ndarray, " bins"],
    low: float,
    high: float,
    *,
    lowest: bool = False,
) -> Peak:
    """The maximum (or minimum) of a curve between two positions, refined by a parabola.

    NaN where the curve has no point between them.
    """
    inside = np.flatnonzero((centers >= low) & (centers <= high))
    if not len(inside):
        return Peak(float("nan"), float("nan"))
    signed = -values if lowest else values
    at = int(inside[np.argmax(signed[inside])])
    if not 0 < at < len(centers) - 1:
        return Peak(float(centers[at]), float(values[at]))
    before, here, after = (float(values[i]) for i in (at - 1, at, at + 1))
    bend = before - 2.0 * here + after
    shift = 0.5 * (before - after) / bend if bend else 0.0
    shift = float(np.clip(shift, -0.5, 0.5))
    height = here - 0.25 * (before - after) * shift
    return Peak(float(centers[at] + shift * (centers[1] - centers[0])), height)


def _counted(count, frames: Structure, radius: float, edges: tuple) -> np.ndarray:
    size = table_size(frames, radius)
    return np.asarray(_over_frames(count, frames, radius, size, edges), float)


@partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _over_frames(count, frames, radius, size, edges):
    def one(frame: Structure):
        table = neighbor_table(frame, radius, size)
        return count(environment(frame, table, radius), radius, jnp.asarray(edges))

    return jax.lax.map(one, frames)


@cache
def _distances_of(pair: tuple[int, int] | None):
    """A function that counts distances between these elements; one object each, to compile once."""

    def distances(env, radius, edges):
        lengths = jnp.sqrt(jnp.sum(env.vectors**2, axis=-1))
        there = env.neighbor_species > 0
        if pair is not None:
            there = (env.species == pair[0])[:, None] & (env.neighbor_species == pair[1])
        return _histogram(lengths, there, edges)

    return distances


def _angles(env, radius, edges):
    lengths = jnp.sqrt(jnp.sum(env.vectors**2, axis=-1))
    there = (env.neighbor_species > 0) & (lengths < radius)
    units = env.vectors / jnp.where(there, lengths, 1.0)[..., None]
    cosines = jnp.clip(jnp.einsum("aic,ajc->aij", units, units), -1.0, 1.0)
    once = jnp.triu(jnp.ones((units.shape[1], units.shape[1]), bool), 1)[None]
    return _histogram(
        jnp.degrees(jnp.arccos(cosines)), there[:, :, None] & there[:, None, :] & once, edges
    )


def _histogram(values: Array, mask: Array, edges: Array) -> Array:
    """Counts between the edges; the last edge belongs to the last bin."""
    inside = mask & (values >= edges[0]) & (values <= edges[-1])
    places = jnp.clip(jnp.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    # What does not count goes to a bin of its own, which is cut off.
    places = jnp.where(inside, places, len(edges) - 1)
    return jnp.bincount(places.ravel(), length=len(edges))[:-1]
