"""Steered molecular dynamics: a spring between a collective variable and an anchor that moves.

    U(x, λ) = ½ k [s(x) - λ]²,   λ(t) = s₀ + v t

The work done on the system is W = Σ U(x, λ + Δλ) - U(x, λ) over the moves of the anchor, the
discrete form of ∫ k (λ - s) dλ. It contains the elastic energy that the spring holds. Of many
pulls it gives the free energy: <exp(-W/kT)> = exp(-ΔF/kT).

S. Izrailev et al. in Computational Molecular Dynamics, Springer (1999),
doi:10.1007/978-3-642-58360-5_2; C. Jarzynski, Phys. Rev. Lett. 78, 2690 (1997),
doi:10.1103/PhysRevLett.78.2690.
"""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.sampling.biasing import Dynamics, biased, each_its_own, setting_of
from alj.sampling.variables import OneVariable, apart, check_atoms, variable_of
from alj.types import BadInput, Bias, Potential, Sampler, Structure


class Pull(NamedTuple):
    """The state of a pull: anchor and its move per time step, work in eV, steps left at rest.

    `start` is kept for variables that measure from it, else None.
    """

    anchor: Float[Array, "*batch"]
    move: Float[Array, "*batch"]
    work: Float[Array, "*batch"]
    waiting: Int[Array, "*batch"]
    start: Structure | None


class Pulled(NamedTuple):
    """What a frame shows of a pull; anchor and work are NaN until it begins.

    `value` of the variable and `anchor` in its unit (Å), `work` in eV, `force` of the spring on
    the variable in eV/Å.
    """

    value: Float[Array, "*batch"]
    anchor: Float[Array, "*batch"]
    work: Float[Array, "*batch"]
    force: Float[Array, "*batch"]


def steered(
    potential: Potential,
    *,
    variable: OneVariable,
    speed_A_per_ps: float | tuple[float, ...] = 1.0,
    stiffness_eV_per_A2: float = 10.0,
    relaxation_steps: int = 0,
    anchor_A: float | None = None,
    dynamics: Dynamics = "nvt_berendsen",
) -> Sampler:
    """Steered molecular dynamics: a spring pulls a collective variable at constant speed.

    Args:
        variable: What is pulled: a collective variable such as {name: distance, atoms: [0, 5]}.
        speed_A_per_ps: Speed of the anchor (of an angle: rad/ps); several: the walks take them in
            turn.
        stiffness_eV_per_A2: Spring constant (of an angle: eV/rad²).
        relaxation_steps: Time steps before the pull begins; they count among the steps of the
            dynamics.
        anchor_A: Where the anchor rests until then, holding the system, as free energies from
            many pulls need it; null: no spring acts before the pull, which then begins at the
            distance reached.
        dynamics: The dynamics that is steered, with its settings.

    Raises:
        BadInput: a setting is out of range, or (by `place`) the variable names absent atoms.
    """
    speeds = speed_A_per_ps if isinstance(speed_A_per_ps, tuple) else (speed_A_per_ps,)
    if not speeds or not all(map(math.isfinite, speeds)):
        raise BadInput(f"speed_A_per_ps: expected finite numbers, found {speed_A_per_ps}")
    if not stiffness_eV_per_A2 > 0:
        raise BadInput(
            f"stiffness_eV_per_A2: expected a positive number, found {stiffness_eV_per_A2}"
        )
    if relaxation_steps < 0:
        raise BadInput(f"relaxation_steps: expected at least 0, found {relaxation_steps}")
    pulled = variable_of(variable)
    held = anchor_A is not None
    spring = partial(_spring, stiffness_eV_per_A2, held, pulled)

    def init(context, structure):
        value = pulled.function(structure, structure)
        nothing = jnp.zeros_like(value)
        anchor = value if anchor_A is None else jnp.full_like(value, anchor_A)
        start = structure if pulled.from_start else None
        return Pull(anchor, nothing, nothing, jnp.asarray(relaxation_steps, jnp.int32), start)

    def energy(context, pull, structure, neighbors):
        return spring(pull, pulled.function(structure, pull.start))

    def update(context, pull, structure, neighbors):
        return _moved(spring, held, pull, pulled.function(structure, pull.start))

    def observe(context, pull, structure, neighbors):
        return _seen(stiffness_eV_per_A2, pulled, pull, pulled.function(structure, pull.start))

    sampler = biased(potential, Bias(init, energy, update), dynamics, observe)
    moves = [speed * 1e-3 * setting_of(dynamics, "timestep_fs") for speed in speeds]

    def own(structures: Structure) -> dict:
        check_atoms(pulled, structures)
        taken = np.resize(moves, structures.species.shape[0])
        return {"move": jnp.asarray(taken, structures.positions.dtype)}

    return each_its_own(sampler, own)


def _spring(stiffness, held, variable, pull: Pull, value):
    energy = 0.5 * stiffness * apart(variable, value, pull.anchor) ** 2
    return energy if held else jnp.where(pull.waiting > 0, 0.0, energy)


def _moved(spring, held, pull: Pull, value) -> Pull:
    """The pull one time step on; an anchor that is not held follows until the waiting is over."""
    resting = pull.waiting > 0
    rest = pull.anchor if held else value
    ahead = pull._replace(anchor=jnp.where(resting, rest, pull.anchor + pull.move))
    work = jnp.where(resting, 0.0, spring(ahead, value) - spring(pull, value))
    return ahead._replace(work=pull.work + work, waiting=jnp.maximum(pull.waiting - 1, 0))


def _seen(stiffness, variable, pull: Pull, value) -> Pulled:
    resting = pull.waiting > 0
    return Pulled(
        value,
        jnp.where(resting, jnp.nan, pull.anchor),
        jnp.where(resting, jnp.nan, pull.work),
        stiffness * apart(variable, pull.anchor, value),
    )
