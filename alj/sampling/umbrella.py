"""Umbrella sampling and targeted dynamics: a spring that holds a collective variable, or leads it.

    U(s, t) = ½ k [s - c(t)]²,   c(t) linear over the steps, or at rest

Windows at rest, whose distributions overlap, give the free energy along s; a center that moves
leads from one state to another. The work done by moving it is W = Σ U(s, c + Δc) - U(s, c).

G. M. Torrie, J. P. Valleau, J. Comput. Phys. 23, 187 (1977), doi:10.1016/0021-9991(77)90121-8;
J. Schlitter, M. Engels, P. Krüger, J. Mol. Graphics 12, 84 (1994),
doi:10.1016/0263-7855(94)80072-3.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.sampling.biasing import Dynamics, biased, chosen, each_its_own, setting_of
from alj.sampling.dynamics_settings import Ramp, positive, ramp
from alj.sampling.variables import (
    OneVariable,
    apart,
    check_atoms,
    values_of,
    variable_of,
)
from alj.types import BadInput, Bias, Potential, Sampler, Structure


class Held(NamedTuple):
    """The state of the spring: centers at the first and last step, steps done, work in eV.

    `start` is the structure in which the walk began, None where the variable does not need it.
    """

    ends: Float[Array, "*batch 2"]
    done: Int[Array, "*batch"]
    work: Float[Array, "*batch"]
    start: Structure | None


class Holding(NamedTuple):
    """What a frame shows: `value` of the variable and `anchor`, the center, in the variable's unit.

    `bias_energy` of the spring and `work` done on the system in eV.
    """

    value: Float[Array, "*batch"]
    anchor: Float[Array, "*batch"]
    bias_energy: Float[Array, "*batch"]
    work: Float[Array, "*batch"]


def umbrella(
    potential: Potential,
    *,
    variable: OneVariable,
    center: Ramp | None = None,
    windows: tuple[float, ...] = (),
    stiffness_eV_per_A2: float = 10.0,
    dynamics: Dynamics = "nvt_langevin",
) -> Sampler:
    """Dynamics with a spring on a collective variable: umbrella sampling, or targeted dynamics.

    Args:
        variable: What is held: a collective variable such as {name: distance, atoms: [0, 5]}.
        center: Where it is held, in its unit, or [first, last], linear over the steps.
        windows: Instead, several centers at rest, which the walks take in turn.
        stiffness_eV_per_A2: Spring constant (of an angle: eV/rad²).
        dynamics: The dynamics that is held, with its settings.

    Raises:
        BadInput: a setting is out of range, or (by `place`) the variable names absent atoms.
    """
    held = variable_of(variable)
    positive(stiffness_eV_per_A2=stiffness_eV_per_A2)
    centers = _centers(center, windows)
    dynamics = chosen(dynamics)
    steps = setting_of(dynamics, "steps")

    def spring(state, anchor, structure):
        values = values_of((held,), structure, state.start)
        return values[0], 0.5 * stiffness_eV_per_A2 * apart(held, values[0], anchor) ** 2

    def init(context, structure):
        dtype = structure.positions.dtype
        start = structure if held.from_start else None
        ends = jnp.asarray(centers[0], dtype)
        if len(centers) > 1:  # a walk's own window comes after: no force of another one before
            ends = jnp.full_like(ends, held.function(structure, structure))
        return Held(ends, jnp.zeros((), jnp.int32), jnp.zeros((), dtype), start)

    def energy(context, state, structure, neighbors):
        return spring(state, _anchor(state, steps), structure)[1]

    def update(context, state, structure, neighbors):
        after = state._replace(done=state.done + 1)
        _, before = spring(state, _anchor(state, steps), structure)
        _, now = spring(state, _anchor(after, steps), structure)
        return after._replace(work=state.work + (now - before))

    def observe(context, state, structure, neighbors):
        anchor = _anchor(state, steps)
        value, stored = spring(state, anchor, structure)
        return Holding(value, anchor, stored, state.work)

    def own(structures: Structure) -> dict:
        check_atoms(held, structures)
        taken = np.resize(centers, (structures.species.shape[0], 2))
        return {"ends": jnp.asarray(taken, structures.positions.dtype)}

    return each_its_own(biased(potential, Bias(init, energy, update), dynamics, observe), own)


def _anchor(state: Held, steps: int):
    share = jnp.minimum(state.done / steps, 1.0).astype(state.ends.dtype)
    return state.ends[0] + share * (state.ends[1] - state.ends[0])


def _centers(center, windows) -> np.ndarray:
    """First and last center of each window. Raises BadInput."""
    if (center is None) == (not windows):
        found = "neither" if center is None else "both"
        raise BadInput(f"center: expected either a center or windows, found {found}")
    if windows and not all(map(math.isfinite, windows)):
        raise BadInput(f"windows: expected finite numbers, found {list(windows)}")
    return np.array([(c, c) for c in windows] if windows else [ramp("center", center)])
