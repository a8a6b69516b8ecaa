"""A cell that breathes: the equations of Martyna, Tuckerman, Tobias and Klein, in Cartesian space.

With the rate of strain A (symmetric, 1/τ), N degrees of freedom and h the rows of the cell

    ṙ = p/m + r A        ṗ = F - p A - (Tr A/N) p        ḣ = h A
    W Ȧ = Σ p p/m - dE/dstrain - p V + (1/N) Σ p²/m + kT,     W = (N + 3) kT τ²/3

and one Nosé–Hoover chain each for atoms and cell. An isotropic piston keeps only the trace of Ȧ.
Each half of a step solves its linear equations exactly, by the matrix functions exp and
φ(X) = (exp X - 1)/X. The last term, kT, is there because the center of mass rests: without it the
volume would be distributed as if there were one particle less.

Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996), doi:10.1080/00268979600100761;
Tuckerman, Alejandre, López-Rendón, Jochim, Martyna, J. Phys. A 39, 5629 (2006),
doi:10.1088/0305-4470/39/19/S18. jax-md has the isotropic one only, for fractional coordinates,
and with two evaluations of the energy in a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.arrays import split_named
from alj.geometry.periodic import volume
from alj.sampling.dynamics import Now
from alj.sampling.thermostats import (
    Chain,
    chain_at,
    chain_energy,
    chain_half_step,
    kinetic_energy,
)
from alj.sampling.walks import Walk
from alj.types import Key


class Piston(NamedTuple):
    """The rate of strain in 1/τ and the chains of atoms and cell."""

    rate: Float[Array, "*batch 3 3"]
    atoms: Chain
    cell: Chain


class Coupling(NamedTuple):
    """Relaxation times of both in τ, and whether the cell keeps its shape."""

    temperature_time: float
    pressure_time: float
    isotropic: bool


def piston_at(coupling: Coupling, key: Key, walk: Walk, now: Now) -> Piston:
    """A piston with the distribution of its velocity in equilibrium."""
    rate, atoms, cell = split_named(key, "rate", "atoms", "cell")
    freedoms, dtype = walk.bodies.freedoms, walk.momenta.dtype
    drawn = jax.random.normal(rate, (3, 3), dtype)
    drawn = drawn * jnp.sqrt(now.kT / _inertia(coupling, walk, now))
    shaped = _shaped(coupling, drawn)
    return Piston(
        # the mean of three normals has a third of their variance, as a single mode should
        shaped,
        chain_at(atoms, freedoms, now.kT, coupling.temperature_time),
        chain_at(cell, _cell_freedoms(coupling, dtype), now.kT, coupling.pressure_time),
    )


def piston_step(coupling: Coupling, walk: Walk, now: Now, force: Callable[[Walk], Walk]) -> Walk:
    """One time step at constant pressure: symmetric in time, one evaluation of the forces."""
    walk = _bathed(coupling, walk, now)
    walk = _pushed(coupling, walk, now)
    walk = _kicked(walk, now)
    rate, structure = walk.extra.rate, walk.structure
    velocities = walk.momenta / walk.bodies.masses[:, None]
    grow, mean = _exponential(now.dt * rate), _mean_exponential(now.dt * rate)
    structure = structure._replace(
        positions=structure.positions @ grow + now.dt * velocities @ mean,
        cell=structure.cell @ grow,
    )
    walk = force(walk._replace(structure=structure))
    walk = _kicked(walk, now)
    walk = _pushed(coupling, walk, now)
    return _bathed(coupling, walk, now)


def piston_energy(coupling: Coupling, walk: Walk, now: Now) -> Float[Array, ""]:
    """What piston, chains and volume hold, in eV: a constant together with E and K."""
    piston, size = walk.extra, volume(walk.structure.cell)
    cell_freedoms = _cell_freedoms(coupling, walk.momenta.dtype)
    return (
        _piston_kinetic(coupling, walk, now)
        + chain_energy(piston.atoms, walk.bodies.freedoms, now.kT, coupling.temperature_time)
        + chain_energy(piston.cell, cell_freedoms, now.kT, coupling.pressure_time)
        + now.pressure * size
        - now.kT * jnp.log(size)
    )


def _bathed(coupling, walk, now):
    """Half a step of both chains."""
    piston, freedoms = walk.extra, walk.bodies.freedoms
    atoms, slow = chain_half_step(
        piston.atoms,
        kinetic_energy(walk.momenta, walk.bodies),
        freedoms,
        now.kT,
        coupling.temperature_time,
        now.dt,
    )
    cell, calm = chain_half_step(
        piston.cell,
        _piston_kinetic(coupling, walk, now),
        _cell_freedoms(coupling, walk.momenta.dtype),
        now.kT,
        coupling.pressure_time,
        now.dt,
    )
    return walk._replace(momenta=slow * walk.momenta, extra=Piston(calm * piston.rate, atoms, cell))


def _pushed(coupling, walk, now):
    """Half a step of the rate of strain."""
    eye = jnp.eye(3, dtype=walk.momenta.dtype)
    pull = walk.momenta.T @ (walk.momenta / walk.bodies.masses[:, None])
    constant = jnp.trace(pull) / walk.bodies.freedoms + now.kT
    constant = constant - now.pressure * volume(walk.structure.cell)
    drive = _shaped(coupling, pull - walk.virial + constant * eye)
    rate = walk.extra.rate + 0.5 * now.dt * drive / _inertia(coupling, walk, now)
    return walk._replace(extra=walk.extra._replace(rate=rate))


def _kicked(walk, now):
    """Half a step of the momenta, under the forces and the drag of the strain."""
    rate, half = walk.extra.rate, 0.5 * now.dt
    drag = rate + jnp.trace(rate) / walk.bodies.freedoms * jnp.eye(3, dtype=rate.dtype)
    momenta = walk.momenta @ _exponential(-half * drag)
    return walk._replace(momenta=momenta + half * walk.forces @ _mean_exponential(-half * drag))


def _inertia(coupling, walk, now):
    return (walk.bodies.freedoms + 3.0) / 3.0 * now.kT * coupling.pressure_time**2


def _piston_kinetic(coupling, walk, now):
    return 0.5 * _inertia(coupling, walk, now) * jnp.sum(walk.extra.rate**2)


def _cell_freedoms(coupling, dtype):
    return jnp.asarray(1.0 if coupling.isotropic else 6.0, dtype)


def _shaped(coupling, matrix):
    """The part of a drive that the piston follows: a symmetric matrix leaves no rotation."""
    if coupling.isotropic:
        return jnp.trace(matrix) / 3.0 * jnp.eye(3, dtype=matrix.dtype)
    return 0.5 * (matrix + matrix.T)


_TERMS = 10
"""Of the series: strains per step are far below 0.1, where they are exact to rounding."""


def _exponential(matrix):
    """exp X, by its series: an eigenvalue decomposition would go through LAPACK."""
    return jnp.eye(3, dtype=matrix.dtype) + matrix @ _mean_exponential(matrix)


def _mean_exponential(matrix):
    """(exp X - 1)/X = 1 + X/2! + X²/3! + …"""
    eye = jnp.eye(3, dtype=matrix.dtype)
    total = eye
    for order in range(_TERMS, 1, -1):
        total = eye + matrix @ total / order
    return total
