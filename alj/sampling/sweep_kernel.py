"""The loops of single-atom Monte Carlo as compiled host code, for any compiled atomic energy.

Importing this module imports numba, so it is imported only where moves are made on the host.
"""

import numpy as np

from alj.potentials.host_code import compiled, with_kernel


@compiled
def listed(positions, species, cell, inverse, images, radius, count, indices, shifts):
    """Every atom's neighbors within the radius, images included; False where a row is full."""
    atoms = positions.shape[0]
    square = radius * radius
    for i in range(atoms):
        count[i] = 0
    for i in range(atoms):
        if species[i] == 0:
            continue
        for j in range(i, atoms):
            if species[j] == 0:
                continue
            x = positions[j, 0] - positions[i, 0]
            y = positions[j, 1] - positions[i, 1]
            z = positions[j, 2] - positions[i, 2]
            a = -np.rint(x * inverse[0, 0] + y * inverse[1, 0] + z * inverse[2, 0])
            b = -np.rint(x * inverse[0, 1] + y * inverse[1, 1] + z * inverse[2, 1])
            c = -np.rint(x * inverse[0, 2] + y * inverse[1, 2] + z * inverse[2, 2])
            for p in range(-images[0], images[0] + 1):
                for q in range(-images[1], images[1] + 1):
                    for r in range(-images[2], images[2] + 1):
                        # An atom's own image and its opposite are found as two of its neighbors.
                        if i == j and p == 0 and q == 0 and r == 0:
                            continue
                        u = (a + p) * cell[0, 0] + (b + q) * cell[1, 0] + (c + r) * cell[2, 0]
                        v = (a + p) * cell[0, 1] + (b + q) * cell[1, 1] + (c + r) * cell[2, 1]
                        w = (a + p) * cell[0, 2] + (b + q) * cell[1, 2] + (c + r) * cell[2, 2]
                        if (x + u) ** 2 + (y + v) ** 2 + (z + w) ** 2 >= square:
                            continue
                        if count[i] >= indices.shape[1] or count[j] >= indices.shape[1]:
                            return False
                        n = count[i]
                        indices[i, n] = j
                        shifts[i, n, 0], shifts[i, n, 1], shifts[i, n, 2] = u, v, w
                        count[i] = n + 1
                        if i != j:
                            n = count[j]
                            indices[j, n] = i
                            shifts[j, n, 0], shifts[j, n, 1], shifts[j, n, 2] = -u, -v, -w
                            count[j] = n + 1
    return True


@with_kernel
def atomic_energy(
    energy, arrays, scratch, a, positions, species, reach, count, indices, shifts, vectors, kinds
):
    """The energy of atom a from its row of the list."""
    near = 0
    for n in range(count[a]):
        j = indices[a, n]
        x = positions[j, 0] + shifts[a, n, 0] - positions[a, 0]
        y = positions[j, 1] + shifts[a, n, 1] - positions[a, 1]
        z = positions[j, 2] + shifts[a, n, 2] - positions[a, 2]
        if x * x + y * y + z * z < reach:
            vectors[near, 0], vectors[near, 1], vectors[near, 2] = x, y, z
            kinds[near] = species[j]
            near += 1
    return energy(vectors, kinds, near, species[a], arrays, scratch)


@with_kernel
def energies(
    energy, arrays, scratch, capacity, cutoff, radius,
    positions, species, cell, inverse, images, atomic,
):  # fmt: skip
    """All atomic energies into `atomic`; False where the capacity is too small."""
    atoms = positions.shape[0]
    count = np.zeros(atoms, np.int64)
    indices = np.empty((atoms, capacity), np.int64)
    shifts = np.empty((atoms, capacity, 3))
    vectors = np.empty((capacity, 3))
    kinds = np.empty(capacity, np.int64)
    if not listed(positions, species, cell, inverse, images, radius, count, indices, shifts):
        return False
    for a in range(atoms):
        atomic[a] = 0.0
        if species[a] != 0:
            atomic[a] = atomic_energy(
                energy, arrays, scratch, a, positions, species, cutoff * cutoff,
                count, indices, shifts, vectors, kinds,
            )  # fmt: skip
    return True


@with_kernel
def sweep(
    energy, arrays, scratch, capacity, cutoff, radius,
    positions, species, cell, inverse, images, atomic,
    order, moves, dice, inverse_temperature, ceiling, floor, closest,
    totals, accepted,
):  # fmt: skip
    """Cycles of moves; `positions`, `atomic`, `totals`, `accepted` are written.

    False where the capacity is too small: call again with a larger one and fresh arrays.
    """
    cycles, atoms = order.shape
    count = np.zeros(atoms, np.int64)
    indices = np.empty((atoms, capacity), np.int64)
    shifts = np.empty((atoms, capacity, 3))
    vectors = np.empty((capacity, 3))
    kinds = np.empty(capacity, np.int64)
    affected = np.empty(atoms, np.int64)
    fresh = np.empty(atoms)
    seen = np.full(atoms, -1, np.int64)
    origin = positions.copy()
    reach, skin = cutoff * cutoff, radius - cutoff
    stale = True
    for cycle in range(cycles):
        longest, drift = 0.0, 0.0
        for i in range(atoms):
            x, y, z = moves[cycle, i, 0], moves[cycle, i, 1], moves[cycle, i, 2]
            longest = max(longest, x * x + y * y + z * z)
            x = positions[i, 0] - origin[i, 0]
            y = positions[i, 1] - origin[i, 1]
            z = positions[i, 2] - origin[i, 2]
            drift = max(drift, x * x + y * y + z * z)
        # A list stays valid while no atom can have come further than half the skin by the
        # end of this cycle, in which each moves once.
        if stale or 2.0 * (np.sqrt(drift) + np.sqrt(longest)) > skin:
            if not listed(
                positions, species, cell, inverse, images, radius, count, indices, shifts
            ):
                return False
            origin[:] = positions
            stale = False
        total = 0.0
        for i in range(atoms):
            total += atomic[i]
        for m in range(atoms):
            i = order[cycle, m]
            totals[cycle, m] = total
            if species[i] == 0 or not total >= floor:
                continue
            x0, y0, z0 = positions[i, 0], positions[i, 1], positions[i, 2]
            x1 = x0 + moves[cycle, m, 0]
            y1 = y0 + moves[cycle, m, 1]
            z1 = z0 + moves[cycle, m, 2]
            affected[0] = i
            number = 1
            seen[i] = cycle * atoms + m
            nearest_old, nearest_new = np.inf, np.inf
            for n in range(count[i]):
                j = indices[i, n]
                if j == i:
                    continue
                x = positions[j, 0] + shifts[i, n, 0]
                y = positions[j, 1] + shifts[i, n, 1]
                z = positions[j, 2] + shifts[i, n, 2]
                old = (x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2
                new = (x - x1) ** 2 + (y - y1) ** 2 + (z - z1) ** 2
                nearest_old = min(nearest_old, old)
                nearest_new = min(nearest_new, new)
                if (old < reach or new < reach) and seen[j] != cycle * atoms + m:
                    seen[j] = cycle * atoms + m
                    affected[number] = j
                    number += 1
            if not nearest_new >= min(closest * closest, nearest_old):
                continue
            positions[i, 0], positions[i, 1], positions[i, 2] = x1, y1, z1
            change = 0.0
            for p in range(number):
                fresh[p] = atomic_energy(
                    energy, arrays, scratch, affected[p], positions, species, reach,
                    count, indices, shifts, vectors, kinds,
                )  # fmt: skip
                change += fresh[p] - atomic[affected[p]]
            if dice[cycle, m] <= -inverse_temperature * change and total + change <= max(
                total, ceiling
            ):
                total += change
                for p in range(number):
                    atomic[affected[p]] = fresh[p]
                accepted[cycle, m] = True
                totals[cycle, m] = total
            else:
                positions[i, 0], positions[i, 1], positions[i, 2] = x0, y0, z0
    return True
