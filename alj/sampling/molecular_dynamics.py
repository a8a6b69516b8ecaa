"""Molecular dynamics and minimization: every way in which a time step may go.

The kicks, drifts and the stochastic step of Langevin dynamics are those of jax-md, whose simulators
this file alone imports. The other thermostats and the pressure are our own (`thermostats` and
`barostat` say why), and so is FIRE: that of jax-md keeps its constants in half precision, adds to
the norm of the forces and gives no energy. A step splits the Liouville operator into kicks B,
drifts A and bath O:

    NVE  B A B        Langevin  B A O A B        others  bath, B A B (Nosé–Hoover: half before and
    half after)

L. Verlet, Phys. Rev. 159, 98 (1967), doi:10.1103/PhysRev.159.98; B. Leimkuhler, C. Matthews, Appl.
Math. Res. Express 2013, 34 (2013), doi:10.1093/amrx/abs010; E. Bitzek, P. Koskinen, F. Gähler, M.
Moseler, P. Gumbsch, Phys. Rev. Lett. 97, 170201 (2006), doi:10.1103/PhysRevLett.97.170201.

Settings common to all are in `dynamics_settings.Common`. A start may bring velocities, and a batch
temperatures and pressures of its own: replace them in what `place` returns.
"""

import functools
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alj.sampling.barostat import Coupling, piston_at, piston_energy, piston_step
from alj.sampling.dynamics import Now, Scheme
from alj.sampling.dynamics_settings import Ramp, dynamics, positive, ramp
from alj.sampling.thermostats import (
    chain_at,
    chain_energy,
    chain_half_step,
    collided,
    kinetic_energy,
    rescaling,
    weak_coupling,
    without_drift,
)
from alj.sampling.walks import Walk
from alj.types import BadInput
from alj.units import FEMTOSECOND


@dynamics
def nve(*, temperature_K: float = 300.0) -> Scheme:
    """Molecular dynamics at constant energy: velocity Verlet.

    Args:
        temperature_K: Temperature of the velocities drawn at the start.
    """
    ends = ramp("temperature_K", temperature_K)
    return Scheme(lambda key, walk, now, force: _verlet(walk, now, force), ends, ensemble=None)


@dynamics
def nvt_langevin(*, temperature_K: Ramp = 300.0, friction_time_fs: float = 100.0) -> Scheme:
    """Langevin dynamics at constant temperature (BAOAB: exact positions in a harmonic well).

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        friction_time_fs: Time in which the bath forgets a velocity.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(friction_time_fs=friction_time_fs)
    return Scheme(partial(_langevin, 1.0 / (friction_time_fs * FEMTOSECOND)), ends, "NVT")


@dynamics
def nvt_nose_hoover(*, temperature_K: Ramp = 300.0, coupling_time_fs: float = 100.0) -> Scheme:
    """Dynamics at constant temperature by a Nosé–Hoover chain of three: deterministic.

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        coupling_time_fs: Period of the chain; near that of the slower vibrations.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(coupling_time_fs=coupling_time_fs)
    time = coupling_time_fs * FEMTOSECOND

    def begin(key, walk, now):
        return chain_at(key, walk.bodies.freedoms, now.kT, time)

    def held(walk, now):
        return chain_energy(walk.extra, walk.bodies.freedoms, now.kT, time)

    return Scheme(partial(_nose_hoover, time), ends, "NVT", begin=begin, held=held)


@dynamics
def nvt_berendsen(*, temperature_K: Ramp = 300.0, coupling_time_fs: float = 100.0) -> Scheme:
    """Weak coupling to a temperature: brings a system there, but samples no known ensemble.

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        coupling_time_fs: Time in which the temperature relaxes; at least a time step.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(coupling_time_fs=coupling_time_fs)

    def factor(key, walk, now):
        share = jnp.minimum(now.dt / (coupling_time_fs * FEMTOSECOND), 1.0)
        return weak_coupling(_kinetic(walk), walk.bodies.freedoms, now.kT, share)

    return Scheme(partial(_scaled, factor), ends, ensemble=None)


@dynamics
def nvt_csvr(*, temperature_K: Ramp = 300.0, coupling_time_fs: float = 100.0) -> Scheme:
    """Dynamics at constant temperature by stochastic velocity rescaling (Bussi).

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        coupling_time_fs: Time in which the kinetic energy relaxes.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(coupling_time_fs=coupling_time_fs)

    def factor(key, walk, now):
        decay = jnp.exp(-jnp.asarray(now.dt / (coupling_time_fs * FEMTOSECOND), now.kT.dtype))
        return rescaling(key, _kinetic(walk), walk.bodies.freedoms, now.kT, decay)

    return Scheme(partial(_scaled, factor), ends, "NVT")


@dynamics
def nvt_andersen(*, temperature_K: Ramp = 300.0, collision_time_fs: float = 500.0) -> Scheme:
    """Dynamics at constant temperature by collisions with a bath (Andersen).

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        collision_time_fs: Mean time between two collisions of an atom.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(collision_time_fs=collision_time_fs)
    return Scheme(partial(_andersen, 1.0 / (collision_time_fs * FEMTOSECOND)), ends, "NVT")


@dynamics
def npt_nose_hoover(
    *,
    temperature_K: Ramp = 300.0,
    pressure_bar: Ramp = 1.0,
    coupling_time_fs: float = 100.0,
    pressure_time_fs: float = 1000.0,
    cell: Literal["isotropic", "full"] = "isotropic",
    volume_factor: float = 3.0,
) -> Scheme:
    """Dynamics at constant pressure and temperature: Nosé–Hoover chains and a piston.

    A potential that jumps at its cutoff moves without the jump's attraction (Monte Carlo feels it):
    compare densities with its shifted form. A liquid has no shear modulus: let its cell keep its
    shape.

    Args:
        temperature_K: Temperature, or [first, last], linear over the steps.
        pressure_bar: Pressure, or [first, last], linear over the steps.
        coupling_time_fs: Period of the chain on the atoms.
        pressure_time_fs: Period of the piston and of its chain.
        cell: "isotropic" scales the cell, "full" changes lengths and angles.
        volume_factor: A volume that has grown or shrunk by more than this freezes the walk.
    """
    ends = ramp("temperature_K", temperature_K, positive=True)
    positive(coupling_time_fs=coupling_time_fs, pressure_time_fs=pressure_time_fs)
    if not volume_factor > 1:
        raise BadInput(f"volume_factor: expected a factor above 1, found {volume_factor}")
    coupling = Coupling(
        coupling_time_fs * FEMTOSECOND, pressure_time_fs * FEMTOSECOND, cell == "isotropic"
    )
    return Scheme(
        lambda key, walk, now, force: piston_step(coupling, walk, now, force),
        ends,
        "NPT",
        pressure_bar=ramp("pressure_bar", pressure_bar),
        begin=partial(piston_at, coupling),
        held=partial(piston_energy, coupling),
        stress=True,
        volume_factor=volume_factor,
    )


@dynamics
def fire(
    *, timestep_fs: float = 1.0, force_tolerance_eV_per_A: float = 1e-3, reach_A: float = 0.1
) -> Scheme:
    """Minimization by the fast inertial relaxation engine, with all masses 1 amu; the cell stays.

    Args:
        timestep_fs: Time step that it begins with; it grows up to tenfold.
        force_tolerance_eV_per_A: Below this largest force on an atom nothing moves any more.
        reach_A: No atom moves further than this in one step.
    """
    positive(force_tolerance_eV_per_A=force_tolerance_eV_per_A, reach_A=reach_A)
    return Scheme(
        partial(_fire, force_tolerance_eV_per_A, reach_A),
        (0.0, 0.0),
        ensemble=None,
        begin=_fire_begin,
        still=True,
    )


DYNAMICS = (
    nve,
    nvt_langevin,
    nvt_nose_hoover,
    nvt_berendsen,
    nvt_csvr,
    nvt_andersen,
    npt_nose_hoover,
    fire,
)
"""What a bias may be added to."""


def _shift(positions, change, **_):
    return positions + change


def _verlet(walk: Walk, now: Now, force, shift=_shift) -> Walk:
    simulate = _simulators()
    state = simulate.NVEState(
        walk.structure.positions,  # pyright: ignore
        walk.momenta,
        walk.forces,
        walk.bodies.masses[:, None],
    )
    state = simulate.momentum_step(state, 0.5 * now.dt)
    state = simulate.position_step(state, shift, now.dt)
    walk = force(_placed_at(walk, state.position))
    state = simulate.momentum_step(state.set(force=walk.forces), 0.5 * now.dt)
    return walk._replace(momenta=state.momentum)


def _langevin(friction, key, walk: Walk, now: Now, force) -> Walk:
    simulate = _simulators()
    free = walk.bodies.free[:, None]
    state = simulate.NVTLangevinState(
        walk.structure.positions,  # pyright: ignore
        walk.momenta,
        walk.forces,
        walk.bodies.masses[:, None],
        key,
    )
    state = simulate.momentum_step(state, 0.5 * now.dt)
    state = simulate.position_step(state, _shift, 0.5 * now.dt)
    before = state.momentum
    state = simulate.stochastic_step(state, now.dt, now.kT, friction)
    momenta = jnp.where(free, state.momentum, 0.0)
    momenta = without_drift(momenta, state.position, walk.bodies, now.drift)
    walk = _paid(walk, before, momenta)
    state = simulate.position_step(state.set(momentum=momenta), _shift, 0.5 * now.dt)
    walk = force(_placed_at(walk, state.position))
    state = simulate.momentum_step(state.set(force=walk.forces), 0.5 * now.dt)
    return walk._replace(momenta=state.momentum)


def _andersen(rate, key, walk: Walk, now: Now, force) -> Walk:
    chance = -jnp.expm1(-jnp.asarray(now.dt * rate, now.kT.dtype))
    momenta = collided(
        key, walk.momenta, walk.structure.positions, walk.bodies, now.kT, chance, now.drift
    )
    return _verlet(_paid(walk, walk.momenta, momenta), now, force)


def _scaled(factor, key, walk: Walk, now: Now, force) -> Walk:
    momenta = factor(key, walk, now) * walk.momenta
    return _verlet(_paid(walk, walk.momenta, momenta), now, force)


def _nose_hoover(time, key, walk: Walk, now: Now, force) -> Walk:
    def half(walk):
        freedoms = walk.bodies.freedoms
        chain, factor = chain_half_step(walk.extra, _kinetic(walk), freedoms, now.kT, time, now.dt)
        return walk._replace(momenta=factor * walk.momenta, extra=chain)

    return half(_verlet(half(walk), now, force))


class Descent(NamedTuple):
    """FIRE's time step (τ), mixing of velocities and forces, and steps downhill."""

    dt: Float[Array, "*batch"]
    mixing: Float[Array, "*batch"]
    downhill: Int[Array, "*batch"]


MIXING, FADING, FASTER, SLOWER, PATIENCE, FASTEST = 0.1, 0.99, 1.1, 0.5, 5, 10.0
"""The constants of the paper."""


def _fire_begin(key, walk: Walk, now: Now) -> Descent:
    dtype = walk.momenta.dtype
    return Descent(jnp.asarray(now.dt, dtype), jnp.asarray(MIXING, dtype), jnp.zeros((), jnp.int32))


def _fire(tolerance, reach, key, walk: Walk, now: Now, force) -> Walk:
    """One step downhill; masses are 1, so momenta are velocities."""
    state = walk.extra

    def bounded(positions, change, **_):
        longest = jnp.sqrt(jnp.max(jnp.sum(change**2, axis=-1)))
        return positions + change * jnp.minimum(1.0, reach / jnp.where(longest > 0, longest, 1.0))

    after = _verlet(walk, now._replace(dt=state.dt), force, bounded)
    power = jnp.sum(after.forces * after.momenta)
    strength, speed = jnp.sum(after.forces**2), jnp.sum(after.momenta**2)
    along = after.forces * jnp.sqrt(speed / jnp.where(strength > 0, strength, 1.0))
    down, patient = power > 0, state.downhill >= PATIENCE
    momenta = jnp.where(down, after.momenta + state.mixing * (along - after.momenta), 0.0)
    dt = jnp.minimum(state.dt * jnp.where(patient, FASTER, 1.0), FASTEST * now.dt)
    after = after._replace(
        momenta=momenta,
        extra=Descent(
            jnp.where(down, dt, SLOWER * state.dt),
            jnp.where(down, state.mixing * jnp.where(patient, FADING, 1.0), MIXING),
            jnp.where(down, state.downhill + 1, 0),
        ),
    )
    found = jnp.max(jnp.sum(walk.forces**2, axis=-1)) < tolerance**2
    bare, before = after._replace(table=()), walk._replace(table=())
    kept = jax.tree.map(lambda new, old: jnp.where(found, old, new), bare, before)
    return kept._replace(table=after.table)


def _placed_at(walk: Walk, positions) -> Walk:
    return walk._replace(structure=walk.structure._replace(positions=positions))


def _kinetic(walk: Walk) -> Float[Array, ""]:
    return kinetic_energy(walk.momenta, walk.bodies)


def _paid(walk: Walk, before, after) -> Walk:
    """The walk with other momenta, the kinetic energy it was given in its books."""
    given = kinetic_energy(after, walk.bodies) - kinetic_energy(before, walk.bodies)
    reservoir = walk.reservoir + given.astype(walk.reservoir.dtype)
    return walk._replace(momenta=after, reservoir=reservoir)


@functools.cache
def _simulators():
    """jax-md's, late: it takes seconds to import, and makes arrays while it does."""
    with jax.ensure_compile_time_eval():
        from jax_md import simulate
    return simulate
