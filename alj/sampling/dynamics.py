"""What every molecular dynamics shares: its state, its forces, its tables, its gates, its frames.

A `Scheme` says how one time step goes (`molecular_dynamics` has them); `stepper_of` makes a
Stepper of it, one step of which is `record_every` time steps in an inner scan. Positions are never
wrapped; the neighbor table is carried, so a time step costs one evaluation of the forces.

Internal units: Å, eV, amu, τ = Å (amu/eV)^½; fs, K and bar at the door.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.arrays import split_named
from alj.geometry.periodic import volume
from alj.potentials import combine
from alj.sampling.bonds import all_hold
from alj.sampling.carried_tables import larger, refreshed
from alj.sampling.gates import Gates, agrees, doubted, passes
from alj.sampling.single_moves import floor_energy
from alj.sampling.thermostats import kinetic_energy, maxwell, without_drift
from alj.sampling.walks import First, Motion, Start, Walk
from alj.types import Bias, Context, Key, Potential, Stepper
from alj.units import BOLTZMANN, EV_PER_A3_IN_BAR, FEMTOSECOND


class Biased(NamedTuple):
    """A potential with a bias: may stand wherever a dynamics takes a potential.

    `observe(context, bias_state, structure, neighbors)` goes into the frames.
    """

    potential: Potential
    bias: Bias
    observe: Callable | None = None


class Now(NamedTuple):
    """The time step (τ), the bath at this moment (kT in eV, pressure in eV/Å^3), and the drift."""

    dt: float | Float[Array, ""]
    kT: Float[Array, ""]
    pressure: Float[Array, ""]
    drift: str


class Scheme(NamedTuple):
    """How one time step goes.

    advance: `(key, walk, now, force) -> walk`; `force(walk)` renews table, energy and forces.
    begin: `(key, walk, now) -> extra`.
    held: `(walk, now) -> eV` that chains and pistons hold.
    stress: whether `force` is to give the virial.
    still: a minimization: it begins at rest, and all masses are 1.
    volume_factor: by how much the volume may change before a walk is frozen.
    """

    advance: Callable[[Key, Walk, Now, Callable], Walk]
    temperature_K: tuple[float, float]
    ensemble: str | None
    pressure_bar: tuple[float, float] = (0.0, 0.0)
    begin: Callable[[Key, Walk, Now], Any] = lambda key, walk, now: ()
    held: Callable[[Walk, Now], Any] = lambda walk, now: 0.0
    stress: bool = False
    still: bool = False
    volume_factor: float = float("inf")


class Mechanics(NamedTuple):
    """What a compiled step closes over: a scheme, energies and constants, no parameters."""

    scheme: Scheme
    potential: Potential
    bias: Bias | None
    observe: Callable | None
    dt: float
    steps: int
    record_every: int
    drift: str
    skin: float
    wall: tuple[float, float] | None
    initial_temperature_K: float | None
    gates: Gates
    restarts: int


def stepper_of(mechanics: Mechanics) -> Stepper:
    """The stepper of a dynamics; its tables grow when they overflow."""

    def init(key: Key, start: Start, context: Context) -> Walk:
        return _begun(mechanics, key, start, context)

    def step(key: Key, walk: Walk, context: Context) -> tuple[Walk, Motion]:
        def advance(walk, number):
            return _advanced(mechanics, jax.random.fold_in(key, number), walk, context), None

        if mechanics.restarts:
            walk = _again(mechanics, jax.random.fold_in(key, mechanics.record_every), walk, context)
        before = walk
        walk, _ = jax.lax.scan(advance, walk, jnp.arange(mechanics.record_every))
        if doubted(mechanics.gates):
            walk = _trusted(mechanics, before, walk, context)
        return walk, _frame(mechanics, walk, context)

    radius = mechanics.potential.cutoff + mechanics.skin
    return Stepper(
        init,
        step,
        overflowed=lambda walk: walk.table.neighbors.overflow,
        grow=lambda walk: walk._replace(table=larger(walk.table, walk.structure, radius)),
    )


def evaluated(mechanics: Mechanics, context: Context, walk: Walk) -> Walk:
    """The walk with the table, energies, forces and virial of its present structure."""
    cutoff, structure = mechanics.potential.cutoff, walk.structure
    table = refreshed(walk.table, structure, cutoff, mechanics.skin)
    given = (mechanics.potential, context.params, structure, table.neighbors)
    virial = jnp.zeros_like(walk.virial)
    if mechanics.scheme.stress:
        energy, forces, stress = combine.energy_forces_stress(*given)
        virial = stress * volume(structure.cell)
    else:
        energy, forces = combine.energy_and_forces(*given)
    external, pull = jnp.zeros_like(walk.external), jnp.zeros_like(walk.pull)
    strain = jnp.zeros_like(walk.strain)
    if mechanics.bias is not None or mechanics.wall is not None:
        external, pull, strain = _external(mechanics, context, walk, table.neighbors)
        forces, virial = forces + pull, virial + strain
    forces = jnp.where(walk.bodies.free[:, None], forces, 0.0)
    dtype = walk.energy.dtype
    return walk._replace(
        table=table,
        energy=energy.astype(dtype),
        external=external.astype(dtype),
        forces=forces.astype(walk.forces.dtype),
        pull=pull.astype(walk.pull.dtype),
        strain=strain.astype(walk.strain.dtype),
        virial=virial.astype(walk.virial.dtype),
    )


def now_of(mechanics: Mechanics, walk: Walk) -> Now:
    """The bath at the walk's present step, linear in the steps between its two ends."""
    share = jnp.minimum(walk.done / max(mechanics.steps, 1), 1.0).astype(walk.momenta.dtype)

    def between(ends):
        return ends[0] + share * (ends[1] - ends[0])

    kT = BOLTZMANN * between(walk.bath.temperature_K)
    pressure = between(walk.bath.pressure_bar) / EV_PER_A3_IN_BAR
    return Now(mechanics.dt, kT, pressure, mechanics.drift)


def temperature_of(walk: Walk) -> Float[Array, ""]:
    """Kinetic temperature in K."""
    return 2.0 * kinetic_energy(walk.momenta, walk.bodies) / (walk.bodies.freedoms * BOLTZMANN)


def _begun(mechanics, key, start, context):
    structure, bodies = start.structure, start.bodies
    dtype = structure.positions.dtype
    zero = jnp.zeros((), jnp.promote_types(dtype, jnp.result_type(float)))
    blank, flat = jnp.zeros_like(structure.positions), jnp.zeros((3, 3), dtype)
    real = jnp.where(structure.species > 0, 1.0, 0.0).astype(dtype)
    center = real @ structure.positions / jnp.sum(real)
    walk = Walk(
        structure, blank, blank, zero, zero, blank, flat, flat, zero,
        start.table, bodies, start.bath, jnp.zeros((), jnp.int32), (), None,
        center, volume(structure.cell), jnp.zeros((), bool), None, start.bonds,
    )  # fmt: skip
    if mechanics.bias is not None:
        walk = walk._replace(bias=mechanics.bias.init(context, structure))
    if mechanics.restarts:
        left = jnp.asarray(mechanics.restarts, jnp.int32)
        first = First(structure.positions, structure.cell, walk.bias, left)
        walk = walk._replace(first=first)
    return _moving(mechanics, key, walk, start.velocities, context)


def _moving(mechanics, key, walk, velocities, context):
    """The walk where it stands with given velocities in Å/fs, or drawn ones where they are NaN."""
    scheme, bodies, blank = mechanics.scheme, walk.bodies, jnp.zeros_like(walk.momenta)
    chance, inner = split_named(key, "velocities", "inner")
    kT = now_of(mechanics, walk).kT
    if mechanics.initial_temperature_K is not None:
        kT = jnp.full_like(kT, BOLTZMANN * mechanics.initial_temperature_K)
    drawn = blank if scheme.still else maxwell(chance, bodies, kT)
    drawn = without_drift(drawn, walk.structure.positions, bodies, mechanics.drift)
    given = velocities * bodies.masses[:, None] / FEMTOSECOND
    given = jnp.where(bodies.free[:, None], given, 0.0)
    walk = walk._replace(momenta=jnp.where(jnp.isnan(velocities), drawn, given))
    walk = evaluated(mechanics, context, walk)
    sound = jnp.isfinite(walk.energy + walk.external) & jnp.all(jnp.isfinite(walk.forces))
    walk = walk._replace(extra=scheme.begin(inner, walk, now_of(mechanics, walk)))
    return walk._replace(stopped=~sound)


def _again(mechanics, key, walk, context):
    """A frozen walk back where it began, with new velocities, while restarts are left.

    Its bias begins again too, its time goes on.
    """
    assert walk.first is not None
    # a sampler may have given the bias its numbers after `init`
    bias = _chosen(walk.done == 0, walk.bias, walk.first.bias)
    back = walk.stopped & (walk.first.left > 0)
    placed = walk._replace(
        structure=walk.structure._replace(
            positions=jnp.where(back, walk.first.positions, walk.structure.positions),
            cell=jnp.where(back, walk.first.cell, walk.structure.cell),
        ),
        bias=_chosen(back, bias, walk.bias),
    )
    fresh = _moving(mechanics, key, placed, jnp.full_like(walk.momenta, jnp.nan), context)
    walk = _chosen(back, fresh._replace(table=()), walk._replace(table=()))
    first = walk.first._replace(bias=bias, left=walk.first.left - back)
    return walk._replace(table=fresh.table, first=first)


def _trusted(mechanics, before, walk, context):
    """The walk, or its frame before, frozen, where the committee disagrees beyond the gates."""
    neighbors = walk.table.neighbors
    given = (mechanics.potential.member, context.params, walk.structure, neighbors)
    fine = walk.stopped | agrees(mechanics.gates, *given)
    kept = _chosen(fine, walk._replace(table=()), before._replace(table=()))
    return kept._replace(table=walk.table, done=walk.done, stopped=kept.stopped | ~fine)


def _chosen(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _advanced(mechanics, key, walk, context):
    force = partial(evaluated, mechanics, context)
    after = mechanics.scheme.advance(key, walk, now_of(mechanics, walk), force)
    if mechanics.bias is not None:
        after = _updated(mechanics, context, after)
    fine = passes(
        mechanics.gates,
        walk.structure,
        after.structure,
        after.table.neighbors,
        walk.origin_volume,
        temperature_of(after),
        after.energy - walk.energy,
    )
    if walk.bonds is not None:
        fine = fine & all_hold(walk.bonds, after.structure)
    fine = fine & jnp.isfinite(after.energy + after.external)
    fine = fine & jnp.all(jnp.isfinite(after.forces)) & jnp.all(jnp.isfinite(after.momenta))
    floor = floor_energy(jnp, context.targets, walk.structure.species, after.energy.dtype)
    fallen = after.energy < floor
    keep, table = walk.stopped | ~fine, after.table
    # The table is large and stays true to the positions that it was made for: never select it.
    kept = _chosen(keep, walk._replace(table=()), after._replace(table=()))
    return kept._replace(table=table, done=walk.done + 1, stopped=keep | fallen)


def _updated(mechanics, context, walk):
    """The walk with a bias moved on; what that costs at rest is the work that the bias has done."""
    neighbors = walk.table.neighbors
    state = mechanics.bias.update(context, walk.bias, walk.structure, neighbors)
    if state is walk.bias:
        return walk
    walk = walk._replace(bias=state)
    external, pull, strain = _external(mechanics, context, walk, neighbors)
    external = external.astype(walk.external.dtype)
    change = jnp.where(walk.bodies.free[:, None], pull - walk.pull, 0.0)
    return walk._replace(
        external=external,
        forces=walk.forces + change.astype(walk.forces.dtype),
        pull=pull.astype(walk.pull.dtype),
        virial=walk.virial + (strain - walk.strain).astype(walk.virial.dtype),
        strain=strain.astype(walk.strain.dtype),
        reservoir=walk.reservoir + external - walk.external,
    )


def _external(mechanics, context, walk, neighbors):
    """Energy of bias and wall, its forces, and its derivative with respect to strain."""

    def total(positions, strain):
        deform = jnp.eye(3, dtype=positions.dtype) + 0.5 * (strain + strain.T)
        cell = walk.structure.cell @ deform
        structure = walk.structure._replace(positions=positions @ deform, cell=cell)
        energy = jnp.zeros((), walk.energy.dtype)
        if mechanics.bias is not None:
            energy = energy + mechanics.bias.energy(context, walk.bias, structure, neighbors)
        if mechanics.wall is not None:
            radius, stiffness = mechanics.wall
            squares = jnp.sum((structure.positions - walk.origin[None]) ** 2, axis=-1)
            beyond = (squares > radius**2) & (structure.species > 0)
            depth = jnp.sqrt(jnp.where(beyond, squares, radius**2)) - radius
            energy = energy + 0.5 * stiffness * jnp.sum(jnp.where(beyond, depth**2, 0.0))
        return energy

    strain = jnp.zeros((3, 3), walk.momenta.dtype)
    slopes = jax.value_and_grad(total, (0, 1))
    energy, (gradient, virial) = slopes(walk.structure.positions, strain)
    return energy, -gradient, virial


def _frame(mechanics, walk, context):
    kinetic = kinetic_energy(walk.momenta, walk.bodies)
    size = volume(walk.structure.cell)
    held = mechanics.scheme.held(walk, now_of(mechanics, walk))
    total = walk.energy + walk.external + kinetic - walk.reservoir + held
    nothing = jnp.asarray(jnp.nan, walk.energy.dtype)
    pressure = jnp.full_like(size, jnp.nan)
    if mechanics.scheme.stress:
        pressure = (2.0 * kinetic - jnp.trace(walk.virial)) / (3.0 * size) * EV_PER_A3_IN_BAR
    observed = None
    if mechanics.observe is not None:
        # the table of a frozen walk may be that of the step it did not take
        cutoff = mechanics.potential.cutoff
        table = refreshed(walk.table, walk.structure, cutoff, mechanics.skin)
        observed = mechanics.observe(context, walk.bias, walk.structure, table.neighbors)
    return Motion(
        structure=walk.structure,
        energy=walk.energy,
        acceptance=jnp.ones_like(walk.energy),
        ceiling=nothing,
        stopped=walk.stopped,
        velocities=walk.momenta / walk.bodies.masses[:, None] * FEMTOSECOND,
        temperature_K=temperature_of(walk),
        kinetic=kinetic,
        external_energy=walk.external,
        conserved=total,
        volume=size,
        pressure_bar=pressure,
        largest_force=jnp.sqrt(jnp.max(jnp.sum(walk.forces**2, axis=-1))),
        observed=observed,
    )
