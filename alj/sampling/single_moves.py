"""Sweeps of single-atom Monte Carlo moves that cost a *local* energy difference.

A move of atom i changes only the atomic energies of i and of the atoms whose cutoff sphere it
leaves or enters. `sweeps` evaluates just these, either as a JAX loop (any device, any potential
with `environment_energies`) or, on CPUs, in compiled host code for potentials with a `kernel`;
both take the same random numbers and walk the same path.

A cycle visits every atom once in random order (each visit leaves the distribution invariant, so
their sequence does). No atom then moves further than √3 times the step length within a cycle, which
makes a neighbor table with that skin valid throughout.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.arrays import split_named
from alj.geometry.environment import environment, environment_rows
from alj.geometry.neighbors import (
    TableSize,
    grown,
    image_offsets,
    table_from_offsets,
    table_size,
)
from alj.sampling.host_moves import host_energies, host_isobaric_sweeps, host_sweeps
from alj.sampling.volume_moves import (
    Barostat,
    Stretches,
    grown_walker,
    propose_stretches,
    shrunk,
    stretched,
)
from alj.types import BadInput, Context, Key, Neighbors, Params, Potential, Stepper, Structure


class Walker(NamedTuple):
    """One Monte Carlo walker. `table` sizes the neighbor table, `offsets` its images."""

    structure: Structure
    table: Neighbors
    offsets: Int[Array, "*batch offsets 3"]
    atomic: Float[Array, "*batch atoms"]


class Proposals(NamedTuple):
    """The random numbers of some cycles: who moves, where to, and the logarithm of the dice."""

    order: Int[Array, "cycles atoms"]
    displacements: Float[Array, "cycles atoms 3"]
    log_uniforms: Float[Array, "cycles atoms"]


class Limits(NamedTuple):
    """What is accepted: exp(-β ΔE), no energy above the ceiling or before, no close atoms.

    `inverse_temperature` 1/eV (0: every move); `ceiling` eV; below `floor` eV the walker is frozen;
    `minimum_distance` Å (or the distance before).
    """

    inverse_temperature: Float[Array, ""]
    ceiling: Float[Array, ""]
    floor: Float[Array, ""]
    minimum_distance: Float[Array, ""]


class Swept(NamedTuple):
    """What a number of cycles did. `energies` after every attempted move, in eV.

    `stretch_acceptance` is that of the volume moves, where there are any.
    """

    walker: Walker
    energies: Float[Array, " moves"]
    acceptance: Float[Array, ""]
    stretch_acceptance: Float[Array, ""] | None = None


class Rules(NamedTuple):
    """What distinguishes one Monte Carlo sampler from another, as pure functions of its settings.

    Their first argument is jax.numpy within a compiled step, numpy around host code.

    begin: `(xp, settings, walker) -> state`; a state has a `walker` and a `step_length`.
    limits: `(xp, settings, state, floor) -> Limits`.
    settle: `(xp, settings, state, swept, limits) -> (state, Frame)`.
    barostat: `(xp, settings, state) -> Barostat` where a volume move follows every cycle.
    """

    begin: Callable[..., Any]
    limits: Callable[..., Limits]
    settle: Callable[..., tuple[Any, Any]]
    barostat: Callable[..., Barostat] | None = None


def moves(
    potential: Potential,
    rules: Rules,
    settings: Any,
    *,
    cycles: int,
    longest_step_A: float,
    engine: str,
) -> tuple[Stepper, Callable[[Structure], Walker]]:
    """The stepper of a Monte Carlo sampler, a step being some cycles, and its `place`.

    `engine` is "jax", "host" (compiled host code, CPU only) or "automatic": host where the
    potential has a kernel and the default device is a CPU. Raises BadInput where it cannot be.
    """
    if potential.environment_energies is None:
        raise BadInput(
            "single-atom Monte Carlo needs a local potential (hops = 1): expected one with "
            f"environment energies, found hops = {potential.hops}; use molecular dynamics instead"
        )
    if engine == "host" and potential.kernel is None:
        raise BadInput("engine: expected jax or automatic, found host; there is no host kernel")
    on_cpu = jax.default_backend() == "cpu"
    if engine == "host" or (engine == "automatic" and potential.kernel is not None and on_cpu):
        return _host_moves(potential, rules, settings, cycles, longest_step_A)

    radius, elastic = table_radius(potential, longest_step_A), rules.barostat is not None

    def init(key: Key, start: Walker, context: Context):
        walker = evaluated(potential, context.params, start, longest_step_A)
        return rules.begin(jnp, settings, walker)

    def step(key: Key, state, context: Context):
        species = state.walker.structure.species
        proposals = propose(key, species, cycles, state.step_length)
        floor = floor_energy(jnp, context.targets, species, state.walker.atomic.dtype)
        limits = rules.limits(jnp, settings, state, floor)
        drawn = None
        if rules.barostat is not None:
            drawn = propose_stretches(key, cycles, rules.barostat(jnp, settings, state))
        walker, params = state.walker, context.params
        swept = sweeps(potential, params, walker, proposals, limits, longest_step_A, drawn)
        return rules.settle(jnp, settings, state, swept, limits)

    def overflowed(state):
        return state.walker.table.overflow

    def grow(state):
        walker = state.walker
        if elastic:
            return state._replace(walker=grown_walker(walker, radius))
        return state._replace(walker=walker._replace(table=grown(walker.table)))

    def place(structures: Structure) -> Walker:
        smallest = shrunk(structures) if elastic else structures
        return _placed(structures, table_size(smallest, radius, slack=1.3))

    return Stepper(init, step, overflowed, grow), place


def _host_moves(potential, rules, settings, cycles, longest_step_A):
    """The same as host code: only the random numbers are drawn by a compiled program."""
    radius = table_radius(potential, longest_step_A)

    def init(key: Key, start: Walker, context: Context):
        start = jax.tree.map(np.asarray, start)
        atomic = host_energies(potential, context.params, start.structure, radius)
        return rules.begin(np, settings, start._replace(atomic=atomic))

    def step(key: Key, state, context: Context):
        walker = state.walker
        species = walker.structure.species
        proposals = jax.device_get(_proposed(key, species, cycles, state.step_length))
        floor = floor_energy(np, context.targets, species, walker.atomic.dtype)
        limits = rules.limits(np, settings, state, floor)
        given = (potential, context.params, walker.structure, walker.atomic, proposals, limits)
        volume_moves = None
        if rules.barostat is None:
            structure, atomic, energies, accepted = host_sweeps(*given, radius)
        else:
            barostat = rules.barostat(np, settings, state)
            stretches = jax.device_get(_stretches(key, cycles, barostat))
            structure, atomic, energies, accepted, volume_moves = host_isobaric_sweeps(
                *given, radius, stretches
            )
        walker = walker._replace(structure=structure, atomic=atomic)
        swept = _swept(walker, energies, accepted, volume_moves)
        return rules.settle(np, settings, state, swept, limits)

    def place(structures: Structure) -> Walker:
        return _placed(structures, TableSize(1, (0, 0, 0)))

    return Stepper(init, step, host=True), place


def _placed(structures: Structure, size: TableSize) -> Walker:
    """Walkers for a batch of structures, in float64 where that is switched on."""
    count, atoms = structures.species.shape
    table = Neighbors(
        jnp.full((count, atoms, size.capacity), atoms, jnp.int32),
        jnp.zeros((count, atoms, size.capacity, 3), jnp.int32),
        jnp.zeros(count, bool),
    )
    offsets = jnp.tile(image_offsets(size.images)[None], (count, 1, 1))
    return Walker(structures, table, offsets, jnp.zeros((count, atoms), structures.positions.dtype))


def floor_energy(xp, targets, species, dtype):
    """The energy in eV below which a walk is frozen, from `context.targets`; else -inf."""
    if targets is None or "floor_eV_per_atom" not in targets:
        return xp.asarray(-xp.inf, dtype)
    return xp.asarray(targets["floor_eV_per_atom"] * xp.sum(species > 0), dtype)


def adapted(xp, length, acceptance, target, longest):
    """The step length moved toward the target acceptance, within [longest/100, longest]."""
    factor = xp.clip(acceptance / target, 0.5, 1.5)
    return xp.clip(length * factor, longest / 100, longest).astype(length.dtype)


def check_moves(cycles: int, cycles_per_frame: int, step_A: float, target_acceptance: float):
    """Raises BadInput where the settings of single-atom moves make no sense."""
    if cycles < 1 or cycles_per_frame < 1:
        raise BadInput(f"cycles: expected positive counts, found {cycles} and {cycles_per_frame}")
    if not step_A > 0:
        raise BadInput(f"step_A: expected a positive length in Å, found {step_A}")
    if not 0 < target_acceptance < 1:
        raise BadInput(
            f"target_acceptance: expected a share between 0 and 1, found {target_acceptance}"
        )


def evaluated(
    potential: Potential, params: Params, walker: Walker, longest_step_A: float
) -> Walker:
    """The walker with its table and atomic energies computed (at the start, or after a jump)."""
    assert potential.environment_energies is not None
    table = _table(potential, walker, longest_step_A)
    rows = environment(walker.structure, table, potential.cutoff)
    energies = potential.environment_energies(params, rows)
    return walker._replace(table=table, atomic=energies.astype(walker.atomic.dtype))


def propose(key: Key, species: Int[Array, " atoms"], cycles: int, length) -> Proposals:
    """Random orders, displacements uniform in a cube of half-width `length` Å, and dice.

    Padded atoms are proposed too and never move.
    """
    atoms = species.shape[0]
    order, move, dice = split_named(key, "order", "move", "dice")
    orders = jax.vmap(lambda k: jax.random.permutation(k, atoms))(jax.random.split(order, cycles))
    length = jnp.asarray(length)
    cube = jax.random.uniform(move, (cycles, atoms, 3), length.dtype, -1.0, 1.0)
    uniforms = jax.random.uniform(dice, (cycles, atoms), length.dtype)
    return Proposals(orders.astype(jnp.int32), length * cube, jnp.log(uniforms))


_proposed = partial(jax.jit, static_argnums=2)(propose)
_stretches = partial(jax.jit, static_argnums=1)(propose_stretches)


def sweeps(
    potential: Potential,
    params: Params,
    walker: Walker,
    proposals: Proposals,
    limits: Limits,
    longest_step_A: float,
    stretches: Stretches | None = None,
) -> Swept:
    """Some cycles of attempted single-atom moves, each with its volume move, as a JAX loop."""

    def cycle(walker, drawn):
        proposal, stretch = drawn
        walker, made = _cycle(potential, params, walker, proposal, limits, longest_step_A)
        if stretch is None:
            return walker, (*made, None)
        renew = partial(evaluated, potential, params, longest_step_A=longest_step_A)
        walker, accepted = stretched(walker, stretch, limits, renew)
        return walker, (*made, accepted)

    walker, made = jax.lax.scan(cycle, walker, (proposals, stretches))
    return _swept(walker, *made)


def _swept(walker, energies, accepted, stretches=None) -> Swept:
    attempts = (walker.structure.species > 0).sum() * accepted.shape[0]
    volume_moves = None if stretches is None else stretches.sum() / stretches.shape[0]
    return Swept(walker, energies.reshape(-1), accepted.sum() / attempts, volume_moves)


def table_radius(potential: Potential, longest_step_A: float) -> float:
    """Cutoff plus the skin that keeps a table valid for one cycle, in Å."""
    return potential.cutoff + 2.0 * np.sqrt(3.0) * longest_step_A


def _table(potential, walker, longest_step_A):
    capacity = walker.table.indices.shape[-1]
    radius = table_radius(potential, longest_step_A)
    table = table_from_offsets(walker.structure, radius, capacity, walker.offsets)
    return table._replace(overflow=table.overflow | walker.table.overflow)


def _cycle(potential, params, walker, proposals, limits, longest_step_A):
    table = _table(potential, walker, longest_step_A)
    assert potential.environment_energies is not None
    capacity = table.indices.shape[-1]
    structure, atoms = walker.structure, walker.structure.species.shape[0]
    cell, cutoff = structure.cell, potential.cutoff

    def distances(positions, where, index):
        row = table.indices[index]
        there = positions.at[row].get(mode="fill", fill_value=jnp.inf)
        other = row != index
        shifted = there + table.shifts[index].astype(cell.dtype) @ cell - where[None]
        squares = jnp.sum(shifted**2, axis=-1)
        return jnp.where(other, squares, jnp.inf), row

    def move(carry, proposal):
        positions, atomic, total, overflow = carry
        index, displacement, log_uniform = proposal
        here = positions[index]
        there = here + displacement
        before, row = distances(positions, here, index)
        after, _ = distances(positions, there, index)
        near = (before < cutoff**2) | (after < cutoff**2)
        # An atom met through several images is one atom: count it once.
        again = jnp.any(jnp.tril(row[:, None] == row[None, :], -1) & near[None, :], axis=1)
        rows, full = _chosen(near & ~again, row, atoms, _affected(capacity))
        rows = jnp.concatenate([index[None], rows])

        moved = structure._replace(positions=positions.at[index].set(there))
        local = environment_rows(moved, table, cutoff, rows)
        new = potential.environment_energies(params, local).astype(atomic.dtype)
        old = atomic.at[rows].get(mode="fill", fill_value=0.0)
        change = jnp.sum(jnp.where(rows < atoms, new - old, 0.0))

        limit = jnp.minimum(limits.minimum_distance**2, jnp.min(before))
        accept = (
            (log_uniform <= -limits.inverse_temperature * change)
            & (total + change <= jnp.maximum(total, limits.ceiling))
            & (jnp.min(after) >= limit)
            & (total >= limits.floor)
            & (structure.species[index] > 0)
        )
        positions = positions.at[index].set(jnp.where(accept, there, here))
        atomic = atomic.at[rows].set(jnp.where(accept, new, old), mode="drop")
        total = total + jnp.where(accept, change, 0.0)
        return (positions, atomic, total, overflow | full), (total, accept)

    carry = (structure.positions, walker.atomic, jnp.sum(walker.atomic), table.overflow)
    (positions, atomic, _, overflow), (energies, accepted) = jax.lax.scan(move, carry, proposals)
    walker = Walker(
        structure._replace(positions=positions),
        table._replace(overflow=overflow),
        walker.offsets,
        atomic,
    )
    return walker, (energies, accepted)


def _affected(capacity: int) -> int:
    """Rows evaluated per move: the table has a skin, fewer atoms lie within the cutoff."""
    return max(capacity - capacity // 4, 1)


def _chosen(mask, row, atoms, capacity):
    """The entries of `row` under the mask, padded with `atoms`; and whether they did not fit."""
    running = jnp.cumsum(mask)
    columns = jnp.searchsorted(running, jnp.arange(1, capacity + 1), method="scan_unrolled")
    return row.at[columns].get(mode="fill", fill_value=atoms), running[-1] > capacity
