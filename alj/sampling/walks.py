"""Where a trajectory begins, where it is, and what its frames show: the types of all dynamics.

Inside a walk the units are Å, eV, amu, τ = Å (amu/eV)^½; in a start and in a frame fs, K and bar.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from alj.sampling.bonds import Bonds
from alj.sampling.carried_tables import Table
from alj.sampling.thermostats import Bodies
from alj.types import Structure


class Bath(NamedTuple):
    """Temperature in K and pressure in bar at the first and from the last step on: data of a walk.

    Replicas of one batch may have different ones.
    """

    temperature_K: Float[Array, "*batch 2"]
    pressure_bar: Float[Array, "*batch 2"]


class Start(NamedTuple):
    """Where a trajectory begins. `velocities` in Å/fs; NaN: drawn from the key."""

    structure: Structure
    velocities: Float[Array, "*batch atoms 3"]
    bodies: Bodies
    bath: Bath
    table: Table
    bonds: Bonds | None = None


class First(NamedTuple):
    """Where a walk may begin again, with the state of its bias there, and how often still."""

    positions: Float[Array, "*batch atoms 3"]
    cell: Float[Array, "*batch 3 3"]
    bias: Any
    left: Int[Array, "*batch"]


class Walk(NamedTuple):
    """The state of a trajectory.

    `momenta` amu Å/τ; `forces` eV/Å; `energy` of the potential and `external` of bias and wall in
    eV; `pull` and `strain` the shares of these in forces and virial; `virial` dE/dstrain in eV
    where the scheme asks for it, else 0; `reservoir` the energy in eV that a stochastic bath and
    a changing bias have given so far; `done` time steps; `extra` is the scheme's own; `bias` the
    bias's state; `origin` the center of the wall and `origin_volume`; `first` is None where a
    frozen walk stays frozen; `bonds` must hold, None where they may break.
    """

    structure: Structure
    momenta: Float[Array, "*batch atoms 3"]
    forces: Float[Array, "*batch atoms 3"]
    energy: Float[Array, "*batch"]
    external: Float[Array, "*batch"]
    pull: Float[Array, "*batch atoms 3"]
    strain: Float[Array, "*batch 3 3"]
    virial: Float[Array, "*batch 3 3"]
    reservoir: Float[Array, "*batch"]
    table: Table
    bodies: Bodies
    bath: Bath
    done: Int[Array, "*batch"]
    extra: Any
    bias: Any
    origin: Float[Array, "*batch 3"]
    origin_volume: Float[Array, "*batch"]
    stopped: Bool[Array, "*batch"]
    first: First | None
    bonds: Bonds | None


class Motion(NamedTuple):
    """The Info of a dynamics: the fields of `types.Frame`, and what has momenta besides.

    `energy` eV is that of the potential, without bias or wall (`external_energy`); `velocities`
    Å/fs; `temperature_K` kinetic; `conserved` eV is what the equations of motion keep (with a bath:
    minus what it gave); `pressure_bar` is NaN where the scheme needs no stress; `largest_force`
    eV/Å; `observed` what a bias wants to be seen.
    """

    structure: Structure
    energy: Float[Array, "*batch"]
    acceptance: Float[Array, "*batch"]
    ceiling: Float[Array, "*batch"]
    stopped: Bool[Array, "*batch"]
    velocities: Float[Array, "*batch atoms 3"]
    temperature_K: Float[Array, "*batch"]
    kinetic: Float[Array, "*batch"]
    external_energy: Float[Array, "*batch"]
    conserved: Float[Array, "*batch"]
    volume: Float[Array, "*batch"]
    pressure_bar: Float[Array, "*batch"]
    largest_force: Float[Array, "*batch"]
    observed: Any
