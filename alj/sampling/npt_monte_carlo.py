"""Monte Carlo at constant pressure and temperature: single-atom moves and isotropic volume moves.

A cycle attempts one move of every atom and then one change of ln V that scales atoms and cell
together (`volume_moves`): the walk samples positions and volume with probability density

    V^N exp[-β (E + p V)]

in scaled coordinates. W. W. Wood, J. Chem. Phys. 48, 415 (1968), doi:10.1063/1.1667938;
I. R. McDonald, Mol. Phys. 23, 41 (1972), doi:10.1080/00268977200100031. The cell keeps its shape,
so stresses of a crystal other than the pressure do not relax. One step is a few cycles, one Frame;
the cell is part of its structure, the acceptance that of single-atom moves.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from alj.sampling import single_moves
from alj.sampling.guards import Guard, guard, restarted
from alj.sampling.single_moves import Limits, Rules, Swept, Walker, adapted, check_moves
from alj.sampling.volume_moves import Barostat
from alj.types import BadInput, Frame, Potential, Sampler, Structure
from alj.units import BOLTZMANN, EV_PER_A3_IN_BAR


class IsobaricState(NamedTuple):
    """A walker, its steps in Å and in ln V, the steps done, its guard and the cell it began in."""

    walker: Walker
    step_length: Float[Array, "*batch"]
    volume_step: Float[Array, "*batch"]
    done: Int[Array, "*batch"]
    guard: Guard
    cell: Float[Array, "*batch 3 3"]


class Settings(NamedTuple):
    """Numbers of the rules, the pressure in eV/Å^3: data, so that all pressures share a program."""

    inverse_temperature: float
    pressure: float
    minimum_distance: float
    longest: float
    longest_stretch: float
    target: float
    adapting: int
    restarts: int


def npt_mc(
    potential: Potential,
    *,
    cycles: int = 2000,
    cycles_per_frame: int = 10,
    temperature_K: float = 300.0,
    pressure_bar: float = 1.0,
    step_A: float = 0.3,
    volume_step: float = 0.02,
    target_acceptance: float = 0.5,
    equilibration: float = 0.2,
    minimum_distance_A: float = 0.0,
    restarts: int = 6,
    engine: Literal["automatic", "jax", "host"] = "automatic",
) -> Sampler:
    """Monte Carlo at constant pressure and temperature; all three directions are periodic.

    A potential that jumps at its cutoff is sampled with the jump, whose attraction molecular
    dynamics does not feel: compare densities with its shifted form.

    Args:
        cycles: Cycles in all; a cycle attempts one move of every atom and one of the volume.
        cycles_per_frame: Cycles between two frames.
        temperature_K: Temperature.
        pressure_bar: Pressure.
        step_A: Longest step along each axis, and the one it starts with.
        volume_step: Longest step in the logarithm of the volume, and the one it starts with.
        target_acceptance: Share of accepted moves to which both steps adapt.
        equilibration: Share of the cycles in which they adapt; they stay fixed afterwards.
        minimum_distance_A: No move may bring two atoms closer than this.
        restarts: How often a walk that fell below the floor starts again, in its first cell too;
            then it stays frozen.
        engine: "host" is compiled code for CPUs, "jax" runs anywhere; both walk the same path.

    Raises:
        BadInput: a setting is out of range, or (by `place`) a direction is not periodic.
    """
    check_moves(cycles, cycles_per_frame, step_A, target_acceptance)
    _check(temperature_K, pressure_bar, volume_step, equilibration)
    steps = max(cycles // cycles_per_frame, 1)
    settings = Settings(
        inverse_temperature=1.0 / (BOLTZMANN * temperature_K),
        pressure=pressure_bar / EV_PER_A3_IN_BAR,
        minimum_distance=minimum_distance_A,
        longest=step_A,
        longest_stretch=volume_step,
        target=target_acceptance,
        adapting=int(equilibration * steps),
        restarts=restarts,
    )
    stepper, place = single_moves.moves(
        potential,
        RULES,
        settings,
        cycles=cycles_per_frame,
        longest_step_A=step_A,
        engine=engine,
    )

    def place_periodic(structures: Structure) -> Walker:
        periodic = np.any(np.asarray(structures.cell) != 0, axis=-1).sum(axis=-1)
        if np.any(periodic < 3):
            raise BadInput(
                "npt_mc: expected three periodic directions, "
                f"found {periodic.min()}; use metropolis_mc at constant volume instead"
            )
        return place(structures)

    return Sampler(stepper, place_periodic, steps=steps, spacing="time", ensemble="NPT")


def _check(temperature_K, pressure_bar, volume_step, equilibration):
    if not (temperature_K > 0 and math.isfinite(temperature_K)):
        raise BadInput(f"temperature_K: expected a positive temperature, found {temperature_K}")
    if not (pressure_bar >= 0 and math.isfinite(pressure_bar)):
        raise BadInput(
            f"pressure_bar: expected a finite pressure of at least 0, found {pressure_bar}; "
            "under tension every walk evaporates at last"
        )
    if not 0 < volume_step <= 1:
        raise BadInput(
            "volume_step: expected a step in ln V between 0 and 1, "
            f"found {volume_step}; 0.02 is 2 % of the volume"
        )
    if not 0 <= equilibration <= 1:
        raise BadInput(
            f"equilibration: expected a share of the cycles from 0 to 1, found {equilibration}"
        )


def _begin(xp, settings: Settings, walker: Walker) -> IsobaricState:
    dtype = walker.atomic.dtype
    length = xp.asarray(settings.longest, dtype)
    stretch = xp.asarray(settings.longest_stretch, dtype)
    cell = walker.structure.cell
    return IsobaricState(walker, length, stretch, xp.asarray(0), guard(xp, walker), cell)


def _limits(xp, settings: Settings, state: IsobaricState, floor) -> Limits:
    dtype = state.walker.atomic.dtype
    return Limits(
        inverse_temperature=xp.asarray(settings.inverse_temperature, dtype),
        ceiling=xp.asarray(xp.inf, dtype),
        floor=floor,
        minimum_distance=xp.asarray(settings.minimum_distance, dtype),
    )


def _barostat(xp, settings: Settings, state: IsobaricState) -> Barostat:
    return Barostat(xp.asarray(settings.pressure, state.volume_step.dtype), state.volume_step)


def _settle(xp, settings: Settings, state: IsobaricState, swept: Swept, limits: Limits):
    energy = xp.sum(swept.walker.atomic)
    stopped = energy < limits.floor
    nothing = xp.full_like(energy, xp.nan)
    frame = Frame(swept.walker.structure, energy, swept.acceptance, nothing, stopped)
    adapting, target = state.done < settings.adapting, settings.target
    length = adapted(xp, state.step_length, swept.acceptance, target, settings.longest)
    length = xp.where(adapting, length, state.step_length)
    stretch = adapted(
        xp, state.volume_step, swept.stretch_acceptance, target, settings.longest_stretch
    )
    stretch = xp.where(adapting, stretch, state.volume_step)
    walker, watched = restarted(xp, swept.walker, state.guard, stopped, settings.restarts)
    again = watched.restarts > state.guard.restarts
    cell = xp.where(again, state.cell, walker.structure.cell)
    walker = walker._replace(structure=walker.structure._replace(cell=cell))
    after = IsobaricState(walker, length, stretch, state.done + 1, watched, state.cell)
    return after, frame


RULES = Rules(_begin, _limits, _settle, _barostat)
