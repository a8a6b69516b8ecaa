"""Isotropic volume moves between the cycles of single-atom moves: the piston of constant pressure.

A move changes ln V by δ, uniform within ± the step, and scales atoms and cell together by exp(δ/3).
With probability min(1, a) it is accepted,

    a = exp[-β (ΔE + p ΔV) + (N + 1) δ],   ΔV = V (exp δ - 1),

so that V is distributed as V^N exp[-β (p V + E)]: one power of V for every atom's scaled
coordinates, and one more because steps are uniform in ln V instead of V. W. W. Wood, J. Chem.
Phys. 48, 415 (1968), doi:10.1063/1.1667938; I. R. McDonald, Mol. Phys. 23, 41 (1972),
doi:10.1080/00268977200100031; D. Frenkel and B. Smit, Understanding Molecular Simulation, 2nd ed.
(Academic Press, 2002), section 5.4.2.

A scaled box may need more neighbors, or more images, than its table holds: that sets the table's
overflow flag, rejected or not, and the driver replays the block with a larger one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alj.arrays import split_named
from alj.geometry.neighbors import grown, image_offsets
from alj.geometry.periodic import images_needed, volume
from alj.types import Key, Structure


class Barostat(NamedTuple):
    """The pressure in eV/Å^3 and the longest step in ln V."""

    pressure: Float[Array, ""]
    step: Float[Array, ""]


class Stretches(NamedTuple):
    """The random numbers of some volume moves, and the pressure that they work against.

    `changes` of ln V, the logarithm of the dice, and eV/Å^3.
    """

    changes: Float[Array, " cycles"]
    log_uniforms: Float[Array, " cycles"]
    pressures: Float[Array, " cycles"]


def propose_stretches(key: Key, cycles: int, barostat: Barostat) -> Stretches:
    """One volume move after each cycle; the keys are apart from those of the single-atom moves."""
    stretch, dice = split_named(key, "stretch", "stretch_dice")
    step = jnp.asarray(barostat.step)
    changes = step * jax.random.uniform(stretch, (cycles,), step.dtype, -1.0, 1.0)
    uniforms = jax.random.uniform(dice, (cycles,), step.dtype)
    pressures = jnp.full((cycles,), barostat.pressure, step.dtype)
    return Stretches(changes, jnp.log(uniforms), pressures)


def stretched(walker, stretch: Stretches, limits, evaluate: Callable[[Any], Any]):
    """The walker after one volume move, and whether it was accepted; the twin of `volume_kernel`.

    `evaluate` renews the table and the atomic energies of a walker; `stretch` is one row.
    """
    structure = walker.structure
    scale = jnp.exp(stretch.changes / 3.0)
    trial = evaluate(
        walker._replace(
            structure=structure._replace(
                positions=scale * structure.positions, cell=scale * structure.cell
            )
        )
    )
    total, atoms = jnp.sum(walker.atomic), jnp.sum(structure.species > 0)
    gain = jnp.expm1(stretch.changes) * volume(structure.cell)
    work = jnp.sum(trial.atomic) - total + stretch.pressures * gain
    exponent = (atoms + 1) * stretch.changes - limits.inverse_temperature * work
    # All distances scale alike: only a shrinking box can bring the closest two too close.
    apart = _closest_square(trial) >= limits.minimum_distance**2
    accept = (
        (stretch.log_uniforms <= exponent)
        & (total >= limits.floor)
        & ((stretch.changes >= 0) | apart)
    )
    kept = jax.tree.map(
        lambda new, old: jnp.where(accept, new, old),
        (trial.structure, trial.atomic),
        (structure, walker.atomic),
    )
    # The next cycle makes its own table; that this one was too small must not be forgotten.
    table = walker.table._replace(overflow=trial.table.overflow)
    return walker._replace(structure=kept[0], atomic=kept[1], table=table), accept


def _closest_square(walker):
    """The square of the shortest distance in the walker's table, images of itself included."""
    positions, table = walker.structure.positions, walker.table
    there = positions.at[table.indices].get(mode="fill", fill_value=jnp.inf)
    vectors = there + table.shifts.astype(positions.dtype) @ walker.structure.cell
    return jnp.min(jnp.sum((vectors - positions[:, None]) ** 2, axis=-1), initial=jnp.inf)


ROOM = 0.93
"""How much shorter than at the start a box may become before tables have to grow: volume -20 %."""


def shrunk(structures: Structure, scale: float = ROOM) -> Structure:
    """The structures as they would be in smaller boxes (host)."""
    return structures._replace(positions=scale * structures.positions, cell=scale * structures.cell)


def grown_walker(walker, radius: float):
    """Walkers with tables of twice the capacity, and images to match (host).

    Why a table was too small is not known here, so the images are those of boxes as dense as it
    takes to fill the rows of the new table, evenly, within `radius` Å.
    """
    table = grown(walker.table)
    cells = np.asarray(walker.structure.cell, np.float64)
    atoms = np.sum(np.asarray(walker.structure.species) > 0, axis=-1)
    density = table.indices.shape[-1] / (4.0 / 3.0 * np.pi * radius**3)
    scale = np.minimum(np.cbrt(atoms / density / np.abs(np.linalg.det(cells))), 1.0)
    before = np.reshape(np.asarray(walker.offsets), (-1, 3)).max(axis=0)
    needed = np.maximum(images_needed(cells * scale[..., None, None], radius), before)
    first, second, third = (int(n) for n in needed)
    offsets = image_offsets((first, second, third))
    batch = walker.offsets.shape[:-2]
    return walker._replace(
        table=table, offsets=jnp.array(np.broadcast_to(offsets, (*batch, *offsets.shape)))
    )
