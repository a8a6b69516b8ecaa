"""Nested-ensemble Monte Carlo: from a hot start to the ground state through halved ensembles.

Each stage samples configurations uniformly below an energy ceiling; the median of the energies it
met becomes the next ceiling, so the accessible volume halves stage by stage and every energy
scale is visited, without a temperature. Loeffler et al., Mol. Syst. Des. Eng. 5 (2020),
doi:10.1039/c9me00184k; Nielsen, J. Chem. Phys. 139, 124104 (2013), doi:10.1063/1.4821761.
"""

import math
from typing import Literal, NamedTuple

from jaxtyping import Array, Float, Int

from alj.sampling import single_moves
from alj.sampling.guards import Guard, guard, restarted
from alj.sampling.single_moves import Limits, Rules, Swept, Walker, adapted, check_moves
from alj.types import BadInput, Frame, Potential, Sampler


class NestedState(NamedTuple):
    """A walker, its step length in Å, the ceiling in eV, stages below the first one, its guard."""

    walker: Walker
    step_length: Float[Array, "*batch"]
    ceiling: Float[Array, "*batch"]
    stages: Int[Array, "*batch"]
    guard: Guard


class Settings(NamedTuple):
    """Numbers of the rules; `highest` is the first ceiling, eV per atom, for `free` stages."""

    highest: float
    free: int
    minimum_distance: float
    longest: float
    target: float
    restarts: int


def nested_mc(
    potential: Potential,
    *,
    cycles: int = 2000,
    cycles_per_stage: int = 4,
    step_A: float = 0.3,
    target_acceptance: float = 0.5,
    initial_ceiling_eV_per_atom: float | None = 0.02,
    free_stages: int = 0,
    minimum_distance_A: float = 0.0,
    restarts: int = 6,
    engine: Literal["automatic", "jax", "host"] = "automatic",
) -> Sampler:
    """Nested-ensemble Monte Carlo at constant volume: one step is one stage, one Frame.

    While a configuration lies above a new ceiling, moves are accepted that do not raise its
    energy, so the walk descends instead of freezing.

    Args:
        cycles: Cycles in all; a cycle attempts one move of every atom.
        cycles_per_stage: Cycles between two halvings.
        step_A: Longest step along each axis, and the one it starts with.
        target_acceptance: Share of accepted moves to which the step adapts after every stage.
        initial_ceiling_eV_per_atom: First ceiling; null starts with a free walk.
        free_stages: Stages at the first ceiling before it falls: a walk that starts in a cold
            structure needs some to climb, or its first median is already low.
        minimum_distance_A: No move may bring two atoms closer than this.
        restarts: How often a walk that fell below the floor starts again; then it stays frozen.
        engine: "host" is compiled code for CPUs, "jax" runs anywhere; both walk the same path.

    Raises:
        BadInput: a setting is out of range.
    """
    check_moves(cycles, cycles_per_stage, step_A, target_acceptance)
    if free_stages < 0:
        raise BadInput(f"free_stages: expected 0 or more, found {free_stages}")
    settings = Settings(
        highest=math.inf if initial_ceiling_eV_per_atom is None else initial_ceiling_eV_per_atom,
        free=free_stages,
        minimum_distance=minimum_distance_A,
        longest=step_A,
        target=target_acceptance,
        restarts=restarts,
    )
    return Sampler(
        *single_moves.moves(
            potential,
            RULES,
            settings,
            cycles=cycles_per_stage,
            longest_step_A=step_A,
            engine=engine,
        ),
        steps=max(cycles // cycles_per_stage, 1),
        spacing="energy",
        ensemble="nested",
    )


def _first_ceiling(xp, settings: Settings, walker: Walker):
    atoms = xp.sum(walker.structure.species > 0)
    return (settings.highest * atoms).astype(walker.atomic.dtype)


def _begin(xp, settings: Settings, walker: Walker) -> NestedState:
    length = xp.asarray(settings.longest, walker.atomic.dtype)
    ceiling = _first_ceiling(xp, settings, walker)
    return NestedState(walker, length, ceiling, xp.asarray(0), guard(xp, walker))


def _limits(xp, settings: Settings, state: NestedState, floor) -> Limits:
    dtype = state.walker.atomic.dtype
    return Limits(
        inverse_temperature=xp.asarray(0.0, dtype),
        ceiling=state.ceiling,
        floor=floor,
        minimum_distance=xp.asarray(settings.minimum_distance, dtype),
    )


def _settle(xp, settings: Settings, state: NestedState, swept: Swept, limits: Limits):
    energy = xp.sum(swept.walker.atomic)
    stopped = energy < limits.floor
    frame = Frame(swept.walker.structure, energy, swept.acceptance, state.ceiling, stopped)
    length = adapted(xp, state.step_length, swept.acceptance, settings.target, settings.longest)
    lower = xp.minimum(state.ceiling, xp.median(swept.energies))
    ceiling = xp.where(state.stages < settings.free, state.ceiling, lower)
    walker, watched = restarted(xp, swept.walker, state.guard, stopped, settings.restarts)
    again = watched.restarts > state.guard.restarts
    ceiling = xp.where(again, _first_ceiling(xp, settings, walker), ceiling)
    length = xp.where(again, xp.asarray(settings.longest, length.dtype), length)
    stages = xp.where(again, xp.asarray(0), state.stages + 1)
    return NestedState(walker, length, ceiling, stages, watched), frame


RULES = Rules(_begin, _limits, _settle)
