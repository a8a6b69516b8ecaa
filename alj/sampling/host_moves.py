"""Single-atom moves as compiled host code, for CPUs.

XLA's CPU loops cost tens of microseconds per move whatever they do; a plain loop over the
neighbors that are really there costs a few, and compiles in no time. It reads the random numbers
that JAX drew, so both engines walk the same path; chains run in threads, the interpreter unlocked.
"""

import jax
import numpy as np

from alj.types import Params, Potential, Structure

_CAPACITY = 64
"""Neighbors per atom to begin with; doubled where they do not fit."""


def host_energies(potential: Potential, params: Params, structure: Structure, radius: float):
    """Atomic energies of one structure, in eV."""
    from alj.sampling.sweep_kernel import energies

    atomic = np.zeros(len(structure.species))
    run = _runner(potential, params, structure, radius)
    run(energies, lambda arrays: (*arrays, atomic), ())
    return atomic.astype(structure.positions.dtype)


def host_sweeps(
    potential: Potential,
    params: Params,
    structure: Structure,
    atomic,
    proposals,
    limits,
    radius: float,
):
    """Structure, atomic energies, energies after every move and acceptances of some cycles.

    Works in float64 and returns the dtype that came in. `radius` is the cutoff plus the skin, in Å.
    """
    from alj.sampling.sweep_kernel import sweep

    dtype = structure.positions.dtype
    written: dict = {}

    def fresh(arrays):
        positions, *fixed = arrays
        accepted[:] = False  # neighbors may outgrow the capacity only after some moves
        written["positions"] = positions.copy()
        written["atomic"] = np.array(atomic, np.float64)
        return (written["positions"], *fixed, written["atomic"])

    rest, totals, accepted = _moves(proposals, limits)
    _runner(potential, params, structure, radius)(sweep, fresh, rest)
    positions = written["positions"].astype(dtype)
    return (
        structure._replace(positions=positions),
        written["atomic"].astype(dtype),
        totals.astype(dtype),
        accepted,
    )


def host_isobaric_sweeps(
    potential: Potential,
    params: Params,
    structure: Structure,
    atomic,
    proposals,
    limits,
    radius: float,
    stretches,
):
    """`host_sweeps` with a volume move after every cycle; also returns which were accepted."""
    from alj.sampling.volume_kernel import isobaric

    dtype = structure.positions.dtype
    written: dict = {}

    def fresh(arrays):
        positions, species, *box = arrays
        written.update(positions=positions.copy(), atomic=np.array(atomic, np.float64))
        cell, inverse, images = (array.copy() for array in box)
        written.update(cell=cell)
        # A box may outgrow the capacity only after some moves: they are made again.
        accepted[:], stretched[:] = False, False
        return (written["positions"], species, cell, inverse, images, written["atomic"])

    rest, totals, accepted = _moves(proposals, limits)
    drawn = tuple(np.ascontiguousarray(part, np.float64) for part in stretches)
    stretched = np.zeros(len(stretches.changes), np.bool_)
    _runner(potential, params, structure, radius)(isobaric, fresh, (*rest, *drawn, stretched))
    return (
        structure._replace(
            positions=written["positions"].astype(dtype), cell=written["cell"].astype(dtype)
        ),
        written["atomic"].astype(dtype),
        totals.astype(dtype),
        accepted,
        stretched,
    )


def _moves(proposals, limits):
    """What a kernel reads and writes of single-atom moves; and what it writes, apart."""
    order, moves, dice = proposals
    totals, accepted = np.empty(order.shape), np.zeros(order.shape, np.bool_)
    arrays = (
        np.ascontiguousarray(order, np.int64),
        np.ascontiguousarray(moves, np.float64),
        np.ascontiguousarray(dice, np.float64),
        *(float(limit) for limit in limits),
        totals,
        accepted,
    )
    return arrays, totals, accepted


def _runner(potential: Potential, params: Params, structure: Structure, radius: float):
    """Calls a kernel with ever larger capacities until the neighbors fit."""
    kernel, arrays = _kernel(potential, params)
    cell = np.ascontiguousarray(structure.cell, np.float64)
    periodic = np.any(cell != 0, axis=1)
    # Fractional coordinates of directions that do not repeat are 0: no image is ever taken.
    inverse = np.linalg.pinv(np.where(periodic[:, None], cell, 0.0)) if periodic.any() else 0 * cell
    # As geometry.periodic.images_needed; inverse heights are the lengths of the inverse's columns.
    images = np.ceil(radius * np.linalg.norm(inverse, axis=0) - 0.5).astype(np.int64)
    given = (
        np.ascontiguousarray(structure.positions, np.float64),
        np.ascontiguousarray(structure.species, np.int64),
        cell,
        np.ascontiguousarray(inverse),
        np.maximum(images, 0),
    )

    def run(function, fresh, rest):
        capacity = _CAPACITY
        while True:
            scratch = np.empty(kernel.scratch(capacity))
            head = (kernel.energy, arrays, scratch, capacity, potential.cutoff, radius)
            if function(*head, *fresh(given), *rest):
                return
            capacity *= 2

    return run


_recent: list = [(None, None, None, None)]


def _kernel(potential: Potential, params: Params):
    """The potential's kernel with its arrays, kept for the params that were used last."""
    owner, given, kernel, arrays = _recent[0]
    if kernel is None or owner is not potential.kernel or given is not params:
        assert potential.kernel is not None
        kernel = potential.kernel()
        arrays = kernel.arrays(jax.tree.map(np.asarray, params))
        _recent[0] = (potential.kernel, params, kernel, arrays)
    return kernel, arrays
