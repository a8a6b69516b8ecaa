"""Metropolis Monte Carlo in the canonical ensemble, by single-atom moves.

Metropolis, Rosenbluth, Rosenbluth, Teller, Teller, J. Chem. Phys. 21, 1087 (1953),
doi:10.1063/1.1699114. One step is a few cycles (a cycle attempts one move per atom), one Frame.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alj.arrays import split_named
from alj.sampling import single_moves
from alj.sampling.guards import Guard, floor_energy, guard, restarted
from alj.sampling.single_moves import Limits, Walker, sweeps
from alj.types import BadInput, Context, Frame, Key, Potential, Sampler, Stepper
from alj.units import BOLTZMANN


class MonteCarloState(NamedTuple):
    """A walker, its step length in Å, the steps done, and what its guard remembers."""

    walker: Walker
    step_length: Float[Array, "*batch"]
    done: Int[Array, "*batch"]
    guard: Guard


def metropolis_mc(
    potential: Potential,
    *,
    cycles: int = 2000,
    cycles_per_frame: int = 10,
    temperature_K: float = 300.0,
    step_A: float = 0.3,
    target_acceptance: float = 0.5,
    equilibration: float = 0.2,
    minimum_distance_A: float = 0.0,
    restarts: int = 6,
    engine: Literal["automatic", "jax", "host"] = "automatic",
) -> Sampler:
    """Metropolis Monte Carlo at constant volume and temperature.

    Args:
        cycles: Cycles in all; a cycle attempts one move of every atom.
        cycles_per_frame: Cycles between two frames.
        temperature_K: Temperature.
        step_A: Longest step along each axis, and the one it starts with.
        target_acceptance: Share of accepted moves to which the step adapts.
        equilibration: Share of the cycles in which it adapts; it stays fixed afterwards.
        minimum_distance_A: No move may bring two atoms closer than this.
        restarts: How often a walk that fell below the floor starts again; then it stays frozen.
        engine: "host" is compiled code for CPUs, "jax" runs anywhere; both walk the same path.

    Raises:
        BadInput: a setting is out of range.
    """
    check_moves(cycles, cycles_per_frame, step_A, target_acceptance)
    if not temperature_K > 0:
        raise BadInput(f"temperature_K: expected a positive temperature, found {temperature_K}")
    steps = max(cycles // cycles_per_frame, 1)
    adapting = int(equilibration * steps)

    def init(key: Key, start: Walker, context: Context) -> MonteCarloState:
        walker = single_moves.evaluated(potential, context.params, start, step_A)
        length = jnp.asarray(step_A, walker.atomic.dtype)
        return MonteCarloState(walker, length, jnp.asarray(0), guard(walker))

    def step(key: Key, state: MonteCarloState, context: Context):
        walker = state.walker
        dtype = walker.atomic.dtype
        (key,) = split_named(key, "moves")
        proposals = single_moves.propose(
            key, walker.structure.species, cycles_per_frame, state.step_length
        )
        limits = Limits(
            inverse_temperature=jnp.asarray(1.0 / (BOLTZMANN * temperature_K), dtype),
            ceiling=jnp.asarray(jnp.inf, dtype),
            floor=floor_energy(context, walker.structure.species, dtype),
            minimum_distance=jnp.asarray(minimum_distance_A, dtype),
        )
        swept = sweeps(
            potential, context.params, walker, proposals, limits,
            longest_step_A=step_A, engine=engine,
        )  # fmt: skip
        length = adapted(state.step_length, swept.acceptance, target_acceptance, step_A)
        length = jnp.where(state.done < adapting, length, state.step_length)
        energy = jnp.sum(swept.walker.atomic)
        stopped = energy < limits.floor
        frame = Frame(
            swept.walker.structure, energy, swept.acceptance, jnp.asarray(jnp.nan, dtype), stopped
        )
        walker, watched = restarted(swept.walker, state.guard, stopped, restarts)
        return MonteCarloState(walker, length, state.done + 1, watched), frame

    stepper = Stepper(init, step, overflowed, enlarged)
    return Sampler(
        stepper,
        place=lambda structures: single_moves.place(potential, structures, step_A),
        steps=steps,
        spacing="time",
        ensemble="NVT",
    )


def overflowed(state) -> jax.Array:
    """Whether the walker's table was too small."""
    return single_moves.overflowed(state.walker)


def enlarged(state):
    """The state with a larger table."""
    return state._replace(walker=single_moves.enlarged(state.walker))


def adapted(length, acceptance, target: float, longest: float):
    """The step length moved toward the target acceptance, within [longest/100, longest]."""
    factor = jnp.clip(acceptance / target, 0.5, 1.5)
    return jnp.clip(length * factor, longest / 100, longest).astype(length.dtype)


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
