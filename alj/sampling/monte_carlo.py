"""Metropolis Monte Carlo in the canonical ensemble, by single-atom moves.

Metropolis, Rosenbluth, Rosenbluth, Teller, Teller, J. Chem. Phys. 21, 1087 (1953),
doi:10.1063/1.1699114. One step is a few cycles (a cycle attempts one move per atom), one Frame.
"""

from typing import Literal, NamedTuple

from jaxtyping import Array, Float, Int

from alj.sampling import single_moves
from alj.sampling.guards import Guard, guard, restarted
from alj.sampling.single_moves import Limits, Rules, Swept, Walker, adapted, check_moves
from alj.types import BadInput, Frame, Potential, Sampler
from alj.units import BOLTZMANN


class MonteCarloState(NamedTuple):
    """A walker, its step length in Å, the steps done, and what its guard remembers."""

    walker: Walker
    step_length: Float[Array, "*batch"]
    done: Int[Array, "*batch"]
    guard: Guard


class Settings(NamedTuple):
    """Numbers of the rules: they travel as data, so that all temperatures share one program."""

    inverse_temperature: float
    minimum_distance: float
    longest: float
    target: float
    adapting: int
    restarts: int


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
    settings = Settings(
        inverse_temperature=1.0 / (BOLTZMANN * temperature_K),
        minimum_distance=minimum_distance_A,
        longest=step_A,
        target=target_acceptance,
        adapting=int(equilibration * steps),
        restarts=restarts,
    )
    return Sampler(
        *single_moves.moves(
            potential,
            RULES,
            settings,
            cycles=cycles_per_frame,
            longest_step_A=step_A,
            engine=engine,
        ),
        steps=steps,
        spacing="time",
        ensemble="NVT",
    )


def _begin(xp, settings: Settings, walker: Walker) -> MonteCarloState:
    length = xp.asarray(settings.longest, walker.atomic.dtype)
    return MonteCarloState(walker, length, xp.asarray(0), guard(xp, walker))


def _limits(xp, settings: Settings, state: MonteCarloState, floor) -> Limits:
    dtype = state.walker.atomic.dtype
    return Limits(
        inverse_temperature=xp.asarray(settings.inverse_temperature, dtype),
        ceiling=xp.asarray(xp.inf, dtype),
        floor=floor,
        minimum_distance=xp.asarray(settings.minimum_distance, dtype),
    )


def _settle(xp, settings: Settings, state: MonteCarloState, swept: Swept, limits: Limits):
    energy = xp.sum(swept.walker.atomic)
    stopped = energy < limits.floor
    nothing = xp.full_like(energy, xp.nan)
    frame = Frame(swept.walker.structure, energy, swept.acceptance, nothing, stopped)
    length = adapted(xp, state.step_length, swept.acceptance, settings.target, settings.longest)
    length = xp.where(state.done < settings.adapting, length, state.step_length)
    walker, watched = restarted(xp, swept.walker, state.guard, stopped, settings.restarts)
    return MonteCarloState(walker, length, state.done + 1, watched), frame


RULES = Rules(_begin, _limits, _settle)
