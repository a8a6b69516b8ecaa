"""Cycles of single-atom moves with a volume move after each, as compiled host code.

Importing this module imports numba, so it is imported only where moves are made on the host.
"""

import numpy as np

from alj.potentials.host_code import compiled, with_kernel
from alj.sampling.sweep_kernel import atomic_energy, listed, sweep


@with_kernel
def rescaled(
    energy, arrays, scratch, capacity, cutoff, closest,
    positions, species, cell, inverse, images, atomic,
):  # fmt: skip
    """All atomic energies into `atomic`, unless two atoms are closer than `closest`.

    The square of the shortest distance within the cutoff; -1 where the capacity is too small.
    """
    atoms = positions.shape[0]
    count = np.zeros(atoms, np.int64)
    indices = np.empty((atoms, capacity), np.int64)
    shifts = np.empty((atoms, capacity, 3))
    vectors = np.empty((capacity, 3))
    kinds = np.empty(capacity, np.int64)
    radius = max(cutoff, closest)
    if not listed(positions, species, cell, inverse, images, radius, count, indices, shifts):
        return -1.0
    shortest = np.inf
    for a in range(atoms):
        for n in range(count[a]):
            j = indices[a, n]
            x = positions[j, 0] + shifts[a, n, 0] - positions[a, 0]
            y = positions[j, 1] + shifts[a, n, 1] - positions[a, 1]
            z = positions[j, 2] + shifts[a, n, 2] - positions[a, 2]
            shortest = min(shortest, x * x + y * y + z * z)
    if shortest < closest * closest:
        return shortest
    for a in range(atoms):
        atomic[a] = 0.0
        if species[a] != 0:
            atomic[a] = atomic_energy(
                energy, arrays, scratch, a, positions, species, cutoff * cutoff,
                count, indices, shifts, vectors, kinds,
            )  # fmt: skip
    return shortest


@compiled
def searched(inverse, radius, images):
    """The images to search on either side, as geometry.periodic.images_needed, into `images`."""
    for k in range(3):
        steepness = np.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
        images[k] = max(int(np.ceil(radius * steepness - 0.5)), 0)


@compiled
def scaled(factor, source, target):
    """`target = factor * source` of rows of three; a loop compiles faster than array code."""
    for i in range(source.shape[0]):
        for k in range(3):
            target[i, k] = factor * source[i, k]


@compiled
def energy_sum(atomic):
    """The sum of atomic energies."""
    total = 0.0
    for one in atomic:
        total += one
    return total


@compiled
def volume(cell):
    """The volume of a periodic box in Å^3."""
    x = cell[1, 1] * cell[2, 2] - cell[1, 2] * cell[2, 1]
    y = cell[1, 2] * cell[2, 0] - cell[1, 0] * cell[2, 2]
    z = cell[1, 0] * cell[2, 1] - cell[1, 1] * cell[2, 0]
    return abs(cell[0, 0] * x + cell[0, 1] * y + cell[0, 2] * z)


@with_kernel
def isobaric(
    energy, arrays, scratch, capacity, cutoff, radius,
    positions, species, cell, inverse, images, atomic,
    order, moves, dice, inverse_temperature, ceiling, floor, closest,
    totals, accepted, changes, stretch_dice, pressures, stretched,
):  # fmt: skip
    """`sweep` with a volume move after every cycle; the cell, its inverse, images are written too.

    A cycle makes one neighbor list for its moves and one, of the cutoff only, for the volume move:
    rejected or not, nothing is left behind that the next cycle would have to mend.
    """
    trial_positions, trial_cell = np.empty_like(positions), np.empty_like(cell)
    trial_inverse, trial_images = np.empty_like(inverse), np.empty_like(images)
    trial_atomic = np.empty_like(atomic)
    cycles, atoms = order.shape
    real = 0
    for kind in species:
        real += kind != 0
    for c in range(cycles):
        if not sweep(
            energy, arrays, scratch, capacity, cutoff, radius,
            positions, species, cell, inverse, images, atomic,
            order[c : c + 1], moves[c : c + 1], dice[c : c + 1],
            inverse_temperature, ceiling, floor, closest,
            totals[c : c + 1], accepted[c : c + 1],
        ):  # fmt: skip
            return False
        total = energy_sum(atomic)
        if not total >= floor:
            continue
        scale = np.exp(changes[c] / 3.0)
        scaled(scale, positions, trial_positions)
        scaled(scale, cell, trial_cell)
        scaled(1.0 / scale, inverse, trial_inverse)
        searched(trial_inverse, radius, trial_images)
        limit = min(closest, radius) if changes[c] < 0.0 else 0.0
        shortest = rescaled(
            energy, arrays, scratch, capacity, cutoff, limit,
            trial_positions, species, trial_cell, trial_inverse, trial_images, trial_atomic,
        )  # fmt: skip
        if shortest < 0.0:
            return False
        if shortest < limit * limit:
            continue
        gain = np.expm1(changes[c]) * volume(cell)
        work = energy_sum(trial_atomic) - total + pressures[c] * gain
        if stretch_dice[c] <= (real + 1) * changes[c] - inverse_temperature * work:
            scaled(1.0, trial_positions, positions)
            scaled(1.0, trial_cell, cell)
            scaled(1.0, trial_inverse, inverse)
            for k in range(3):
                images[k] = trial_images[k]
            for a in range(atoms):
                atomic[a] = trial_atomic[a]
            stretched[c] = True
    return True
