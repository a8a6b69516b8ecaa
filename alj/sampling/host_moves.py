"""The same single-atom moves as compiled host code, for CPUs, behind the same step.

XLA's CPU loops cost tens of microseconds per move whatever they do; a plain loop over the
neighbors that are really there costs a few. The numba code below reads the random numbers that
JAX drew, so both engines walk the same path; chains run in threads, the interpreter unlocked.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from alj.geometry.periodic import completed_cell


def host_sweeps(potential, params, walker, proposals, limits, radius: float):
    """Positions, atomic energies, energies after every move and acceptances of some cycles.

    Batches under `vmap` by threads. `radius` is the cutoff plus the skin, in Å.
    """
    structure = walker.structure
    dtype = structure.positions.dtype
    cycles, atoms = proposals.order.shape[-2:]
    shapes = (
        jax.ShapeDtypeStruct((atoms, 3), dtype),
        jax.ShapeDtypeStruct((atoms,), dtype),
        jax.ShapeDtypeStruct((cycles, atoms), dtype),
        jax.ShapeDtypeStruct((cycles, atoms), jnp.bool_),
    )
    inverse = jnp.linalg.inv(completed_cell(structure.cell))
    periodic = jnp.any(structure.cell != 0, axis=-1)

    def call(params, *arguments):
        return _all_chains(potential.kernel(), potential.cutoff, radius, params, arguments)

    return jax.pure_callback(
        call,
        shapes,
        params,
        structure.positions,
        structure.species,
        structure.cell,
        inverse,
        periodic,
        walker.atomic,
        *proposals,
        *limits,
        vmap_method="expand_dims",
    )


def _all_chains(kernel, cutoff, radius, params, arguments):
    arguments = [np.asarray(a) for a in arguments]
    ranks = (2, 1, 2, 2, 1, 1, 2, 3, 2, 0, 0, 0, 0)
    single = all(a.ndim == rank for a, rank in zip(arguments, ranks, strict=True))
    params = jax.tree.map(np.asarray, params)
    if single:
        return _chain(kernel, cutoff, radius, kernel.arrays(params), arguments)
    count = max(a.shape[0] for a in arguments)
    shared = jax.tree.map(lambda leaf: leaf[0], params)
    if any(leaf.shape[0] != 1 for leaf in jax.tree.leaves(params)):
        arrays = [
            kernel.arrays(jax.tree.map(lambda x: x[i % x.shape[0]], params)) for i in range(count)
        ]
    else:
        arrays = [kernel.arrays(shared)] * count
    each = [[a[i % a.shape[0]] for a in arguments] for i in range(count)]
    with ThreadPoolExecutor(max_workers=min(count, _cores())) as pool:
        results = list(
            pool.map(lambda i: _chain(kernel, cutoff, radius, arrays[i], each[i]), range(count))
        )
    return tuple(np.stack(parts) for parts in zip(*results, strict=True))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chain(kernel, cutoff, radius, arrays, arguments):
    positions, species, cell, inverse, periodic, atomic, order, moves, dice, *limits = arguments
    dtype = positions.dtype
    cycles, atoms = order.shape
    positions = np.array(positions, np.float64, order="C")
    atomic = np.array(atomic, np.float64)
    energies = np.empty((cycles, atoms))
    accepted = np.zeros((cycles, atoms), np.bool_)
    _sweeper()(
        kernel.energy, arrays, kernel.scratch(atoms), cutoff, radius,
        positions, np.ascontiguousarray(species, np.int64),
        np.ascontiguousarray(cell, np.float64), np.ascontiguousarray(inverse, np.float64),
        np.ascontiguousarray(periodic, np.float64), atomic,
        np.ascontiguousarray(order, np.int64), np.ascontiguousarray(moves, np.float64),
        np.ascontiguousarray(dice, np.float64), *(float(x) for x in limits),
        energies, accepted,
    )  # fmt: skip
    return positions.astype(dtype), atomic.astype(dtype), energies.astype(dtype), accepted


@cache
def _sweeper():
    """Compiled on first use, so that importing the package never imports numba."""
    import numba

    @numba.njit(nogil=True, error_model="numpy")
    def listed(positions, species, cell, inverse, periodic, radius, count, indices, images):
        """Every atom's neighbors within the radius, in the order of their indices."""
        atoms = positions.shape[0]
        square = radius * radius
        count[:] = 0
        for i in range(atoms):
            if species[i] == 0:
                continue
            for j in range(i + 1, atoms):
                if species[j] == 0:
                    continue
                x = positions[j, 0] - positions[i, 0]
                y = positions[j, 1] - positions[i, 1]
                z = positions[j, 2] - positions[i, 2]
                a = (
                    -np.rint(x * inverse[0, 0] + y * inverse[1, 0] + z * inverse[2, 0])
                    * periodic[0]
                )
                b = (
                    -np.rint(x * inverse[0, 1] + y * inverse[1, 1] + z * inverse[2, 1])
                    * periodic[1]
                )
                c = (
                    -np.rint(x * inverse[0, 2] + y * inverse[1, 2] + z * inverse[2, 2])
                    * periodic[2]
                )
                u = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                v = a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                w = a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                x, y, z = x + u, y + v, z + w
                if x * x + y * y + z * z < square:
                    ni, nj = count[i], count[j]
                    if ni >= indices.shape[1] or nj >= indices.shape[1]:
                        return False
                    indices[i, ni] = j
                    images[i, ni, 0], images[i, ni, 1], images[i, ni, 2] = u, v, w
                    indices[j, nj] = i
                    images[j, nj, 0], images[j, nj, 1], images[j, nj, 2] = -u, -v, -w
                    count[i] += 1
                    count[j] += 1
        return True

    @numba.njit(nogil=True, error_model="numpy")
    def sweep(
        energy, arrays, size, cutoff, radius,
        positions, species, cell, inverse, periodic, atomic,
        order, moves, dice, inverse_temperature, ceiling, floor, closest,
        energies, accepted,
    ):  # fmt: skip
        cycles, atoms = order.shape
        scratch = np.empty(size)
        capacity = min(atoms, 64)
        count = np.zeros(atoms, np.int64)
        indices = np.empty((atoms, capacity), np.int64)
        images = np.empty((atoms, capacity, 3))
        origin = positions.copy()
        stale = True
        affected = np.empty(atoms, np.int64)
        fresh = np.empty(atoms)
        vectors = np.empty((atoms, 3))
        kinds = np.empty(atoms, np.int64)
        reach = cutoff * cutoff
        skin = radius - cutoff
        for cycle in range(cycles):
            longest = 0.0
            for m in range(atoms):
                x, y, z = moves[cycle, m, 0], moves[cycle, m, 1], moves[cycle, m, 2]
                longest = max(longest, x * x + y * y + z * z)
            drift = 0.0
            for i in range(atoms):
                x = positions[i, 0] - origin[i, 0]
                y = positions[i, 1] - origin[i, 1]
                z = positions[i, 2] - origin[i, 2]
                drift = max(drift, x * x + y * y + z * z)
            # A table stays valid while no atom can come further than half the skin in this cycle.
            if stale or 2.0 * (np.sqrt(drift) + np.sqrt(longest)) > skin:
                while not listed(
                    positions, species, cell, inverse, periodic, radius, count, indices, images
                ):
                    capacity = min(atoms, 2 * capacity)
                    indices = np.empty((atoms, capacity), np.int64)
                    images = np.empty((atoms, capacity, 3))
                origin[:] = positions
                stale = False
            total = atomic.sum()
            for m in range(atoms):
                i = order[cycle, m]
                ok = species[i] != 0 and total >= floor
                if ok:
                    x0, y0, z0 = positions[i, 0], positions[i, 1], positions[i, 2]
                    x1 = x0 + moves[cycle, m, 0]
                    y1 = y0 + moves[cycle, m, 1]
                    z1 = z0 + moves[cycle, m, 2]
                    number = 1
                    affected[0] = i
                    nearest_old = np.inf
                    nearest_new = np.inf
                    for n in range(count[i]):
                        j = indices[i, n]
                        x = positions[j, 0] + images[i, n, 0]
                        y = positions[j, 1] + images[i, n, 1]
                        z = positions[j, 2] + images[i, n, 2]
                        old = (x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2
                        new = (x - x1) ** 2 + (y - y1) ** 2 + (z - z1) ** 2
                        nearest_old = min(nearest_old, old)
                        nearest_new = min(nearest_new, new)
                        if old < reach or new < reach:
                            affected[number] = j
                            number += 1
                    ok = nearest_new >= min(closest * closest, nearest_old)
                if ok:
                    positions[i, 0], positions[i, 1], positions[i, 2] = x1, y1, z1
                    change = 0.0
                    for p in range(number):
                        a = affected[p]
                        near = 0
                        for n in range(count[a]):
                            j = indices[a, n]
                            x = positions[j, 0] + images[a, n, 0] - positions[a, 0]
                            y = positions[j, 1] + images[a, n, 1] - positions[a, 1]
                            z = positions[j, 2] + images[a, n, 2] - positions[a, 2]
                            if x * x + y * y + z * z < reach:
                                vectors[near, 0], vectors[near, 1], vectors[near, 2] = x, y, z
                                kinds[near] = species[j]
                                near += 1
                        fresh[p] = energy(vectors, kinds, near, species[a], arrays, scratch)
                        change += fresh[p] - atomic[a]
                    ok = dice[cycle, m] <= -inverse_temperature * change and total + change <= max(
                        total, ceiling
                    )
                    if ok:
                        total += change
                        for p in range(number):
                            atomic[affected[p]] = fresh[p]
                        accepted[cycle, m] = True
                    else:
                        positions[i, 0], positions[i, 1], positions[i, 2] = x0, y0, z0
                energies[cycle, m] = total

    return sweep
