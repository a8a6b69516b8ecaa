"""Metadynamics: hills that fill up the free energy along a few collective variables.

Every so many steps a Gaussian is laid where the walk is,

    V(s) = Σ_k h_k exp(-Σ_a (s_a - s_ka)²/2σ_a²)

Plain hills all have the height h, and V becomes -F(s), up to a constant, with an error that stays.
Well-tempered ones have h exp(-V(s)/kΔT), ΔT = (γ-1) T: they shrink as 1/t, V becomes -(1-1/γ) F,
and s is distributed as at temperature γT.

A. Laio, M. Parrinello, Proc. Natl. Acad. Sci. 99, 12562 (2002), doi:10.1073/pnas.202427399;
A. Barducci, G. Bussi, M. Parrinello, Phys. Rev. Lett. 100, 020603 (2008),
doi:10.1103/PhysRevLett.100.020603.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alj.sampling.biasing import Dynamics, biased, chosen, setting_of
from alj.sampling.variables import (
    OneVariable,
    Variable,
    check_atoms,
    differences,
    values_of,
    variable_of,
)
from alj.types import BadInput, Bias, Potential, Sampler, Structure
from alj.units import BOLTZMANN


class Hills(NamedTuple):
    """The state of the bias: hills laid so far, `count` of them; the rest have height 0 eV.

    `done` time steps; `start` is the structure in which the walk began, None where no variable
    needs it.
    """

    centers: Float[Array, "*batch hills variables"]
    heights: Float[Array, "*batch hills"]
    count: Int[Array, "*batch"]
    done: Int[Array, "*batch"]
    start: Structure | None


class Filling(NamedTuple):
    """What a frame shows: values of the variables, the bias in eV, the number of hills."""

    values: Float[Array, "*batch variables"]
    bias_energy: Float[Array, "*batch"]
    hills: Int[Array, "*batch"]


def metadynamics(
    potential: Potential,
    *,
    variables: tuple[OneVariable, ...],
    widths: tuple[float, ...],
    height_eV: float = 0.05,
    deposit_every: int = 100,
    bias_factor: float | None = 10.0,
    dynamics: Dynamics = "nvt_langevin",
) -> Sampler:
    """Metadynamics, plain or well-tempered, on any dynamics.

    Args:
        variables: Collective variables to explore, such as [{name: distance, atoms: [0, 5]}].
        widths: Widths σ of the hills, one for each variable in its unit; a third of its
            fluctuation in a basin, or less.
        height_eV: Height of the first hill.
        deposit_every: Time steps between two hills.
        bias_factor: γ of well-tempered hills, above 1: barriers of up to about γ kT are crossed;
            null for plain metadynamics.
        dynamics: The dynamics that the hills push, with its settings; beyond its steps no more
            hills are laid.

    Raises:
        BadInput: a setting is out of range, or (by `place`) a variable names absent atoms.
    """
    explored = tuple(variable_of(spec, f"variables[{i}]") for i, spec in enumerate(variables))
    _check(explored, widths, height_eV, deposit_every, bias_factor)
    dynamics = chosen(dynamics)
    most = max(setting_of(dynamics, "steps") // deposit_every, 1)
    soft = math.inf if bias_factor is None else _extra_thermal(dynamics, bias_factor)
    remembers = any(each.from_start for each in explored)

    def here(hills, structure):
        return values_of(explored, structure, hills.start)

    def height(hills, values):
        return bias_energy(explored, widths, hills, values)

    def init(context, structure):
        dtype, zero = structure.positions.dtype, jnp.zeros((), jnp.int32)
        blank = jnp.zeros((most, len(explored)), dtype)
        start = structure if remembers else None
        return Hills(blank, jnp.zeros(most, dtype), zero, zero, start)

    def energy(context, hills, structure, neighbors):
        return height(hills, here(hills, structure))

    def update(context, hills, structure, neighbors):
        values = here(hills, structure)
        hill = height_eV * jnp.exp(-height(hills, values) / soft)
        return _laid(hills, values, hill, deposit_every)

    def observe(context, hills, structure, neighbors):
        values = here(hills, structure)
        return Filling(values, height(hills, values), hills.count)

    sampler = biased(potential, Bias(init, energy, update), dynamics, observe)

    def place(structures: Structure) -> Any:
        for index, each in enumerate(explored):
            check_atoms(each, structures, f"variables[{index}]")
        return sampler.place(structures)

    return sampler._replace(place=place, ensemble=None)


def bias_energy(
    variables: Sequence[Variable], widths: Sequence[float], hills: Hills, values
) -> Float[Array, ""]:
    """V in eV at values (variables,) of the variables; of many, `vmap` over the last argument."""
    there = jnp.broadcast_to(values, hills.centers.shape)
    apart = differences(variables, there, hills.centers)
    apart = apart / jnp.broadcast_to(jnp.asarray(widths, apart.dtype), apart.shape)
    # a hill that does not exist has height 0 and a center at 0, where any value is finite
    return jnp.sum(hills.heights * jnp.exp(-0.5 * jnp.sum(apart**2, axis=-1)))


def free_energy(
    variables: Sequence[Variable],
    widths: Sequence[float],
    bias_factor: float | None,
    hills: Hills,
    points: Float[Array, "points variables"],
) -> Float[Array, " points"]:
    """The estimate of F in eV that the hills of one walk make, lowest at 0: -V γ/(γ-1)."""
    scale = 1.0 if bias_factor is None else bias_factor / (bias_factor - 1.0)
    every = jax.vmap(lambda values: bias_energy(variables, widths, hills, values))
    filled = -scale * every(points)
    return filled - jnp.min(filled)


def _laid(hills: Hills, values, hill, deposit_every: int) -> Hills:
    """One time step on, with a hill if it is time for one."""
    done = hills.done + 1
    most = hills.heights.shape[0]
    due = (done % deposit_every == 0) & (hills.count < most)
    place = jnp.where(due, hills.count, most)
    return hills._replace(
        centers=hills.centers.at[place].set(values, mode="drop"),
        heights=hills.heights.at[place].set(hill, mode="drop"),
        count=hills.count + due,
        done=done,
    )


def _extra_thermal(dynamics, bias_factor: float) -> float:
    """kΔT in eV. Raises BadInput."""
    given = setting_of(dynamics, "temperature_K")
    ends = given if isinstance(given, (tuple, list)) else (given, given)
    if ends[0] != ends[1] or not ends[0] > 0:
        raise BadInput(
            f"bias_factor: expected a dynamics at one temperature, found {given} K; "
            "use bias_factor: null"
        )
    return BOLTZMANN * ends[0] * (bias_factor - 1.0)


def _check(variables, widths, height_eV, deposit_every, bias_factor) -> None:
    if not variables:
        raise BadInput("variables: expected at least one, found none")
    if len(widths) != len(variables) or not all(w > 0 and math.isfinite(w) for w in widths):
        raise BadInput(
            f"widths: expected a positive number for each of {len(variables)} variables, "
            f"found {list(widths)}"
        )
    if not height_eV > 0:
        raise BadInput(f"height_eV: expected a positive number, found {height_eV}")
    if deposit_every < 1:
        raise BadInput(f"deposit_every: expected at least 1, found {deposit_every}")
    if bias_factor is not None and not bias_factor > 1:
        raise BadInput(f"bias_factor: expected a number above 1, found {bias_factor}")
