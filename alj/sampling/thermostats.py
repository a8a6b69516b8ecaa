"""Momenta and what a heat bath does to them: pure functions, one structure at a time.

Momenta are in amu Å/τ with the time unit τ = Å (amu/eV)^½ = 10.18 fs; kT in eV.

*Nosé–Hoover chains*: Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992),
doi:10.1063/1.463940, integrated as in Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117
(1996), doi:10.1080/00268979600100761. (That of jax-md keeps the degrees of freedom as a static
number, which a batch of structures of different sizes does not have.)
*Stochastic velocity rescaling*: Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007),
doi:10.1063/1.2408420. (That of jax-md draws both of its noises from one key.)
*Collisions*: Andersen, J. Chem. Phys. 72, 2384 (1980), doi:10.1063/1.439486.
*Weak coupling*: Berendsen, Postma, van Gunsteren, DiNola, Haak, J. Chem. Phys. 81, 3684 (1984),
doi:10.1063/1.448118; it samples no known ensemble.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alj.arrays import split_named
from alj.types import Key

CHAIN_LENGTH = 3
SUZUKI_YOSHIDA = (1.3512071919596578, -1.7024143839193153, 1.3512071919596578)
"""Weights of the fourth-order splitting of a chain's step."""


class Bodies(NamedTuple):
    """What moves: masses in amu, which atoms are free, and their number of degrees of freedom.

    Padded atoms have mass 1 and are not free.
    """

    masses: Float[Array, "*batch atoms"]
    free: Bool[Array, "*batch atoms"]
    freedoms: Float[Array, "*batch"]


class Chain(NamedTuple):
    """A Nosé–Hoover chain: its positions, and momenta in eV τ."""

    positions: Float[Array, "*batch links"]
    momenta: Float[Array, "*batch links"]


def kinetic_energy(momenta: Float[Array, "atoms 3"], bodies: Bodies) -> Float[Array, ""]:
    """½ Σ p²/m in eV."""
    return 0.5 * jnp.sum(momenta**2 / bodies.masses[:, None])


def maxwell(key: Key, bodies: Bodies, kT) -> Float[Array, "atoms 3"]:
    """Momenta of the Maxwell–Boltzmann distribution; 0 for atoms that are not free."""
    shape = (*bodies.masses.shape, 3)
    normal = jax.random.normal(key, shape, bodies.masses.dtype)
    return jnp.where(bodies.free[:, None], jnp.sqrt(bodies.masses * kT)[:, None] * normal, 0.0)


def without_drift(momenta, positions, bodies: Bodies, drift: str) -> Float[Array, "atoms 3"]:
    """Momenta without motion of the center of mass ("translation") or of the whole ("rotation").

    "keep" changes nothing. Projections in the metric of the masses: the canonical distribution
    stays canonical on what is left.
    """
    if drift == "keep":
        return momenta
    weights = jnp.where(bodies.free, bodies.masses, 0.0)[:, None]
    total = jnp.sum(weights)
    momenta = momenta - weights * jnp.sum(momenta, axis=0, keepdims=True) / total
    if drift == "translation":
        return momenta
    arms = positions - jnp.sum(weights * positions, axis=0, keepdims=True) / total
    moment = jnp.sum(weights * arms**2) * jnp.eye(3, dtype=arms.dtype)
    moment = moment - (weights * arms).T @ arms
    # A linear molecule has no moment about its axis and no angular momentum either. What this
    # guard leaves behind, the root of the precision, the second pass takes.
    guard = jnp.sqrt(jnp.finfo(arms.dtype).eps) * jnp.trace(moment)
    moment = moment + guard * jnp.eye(3, dtype=arms.dtype)
    for _ in range(2):
        angular = jnp.sum(jnp.where(weights > 0, jnp.cross(arms, momenta), 0.0), axis=0)
        momenta = momenta - weights * jnp.cross(_solved(moment, angular)[None], arms)
    return momenta


def chain_at(key: Key, freedoms, kT, time) -> Chain:
    """A chain of relaxation time `time` (τ), its momenta drawn from their own distribution."""
    width = jnp.sqrt(_inertia(freedoms, kT, time) * kT)
    momenta = width * jax.random.normal(key, width.shape, width.dtype)
    return Chain(jnp.zeros_like(momenta), momenta)


def chain_energy(chain: Chain, freedoms, kT, time) -> Float[Array, ""]:
    """The energy in eV that a chain holds."""
    held = jnp.sum(chain.momenta**2 / (2.0 * _inertia(freedoms, kT, time)))
    return held + kT * (freedoms * chain.positions[0] + jnp.sum(chain.positions[1:]))


def chain_half_step(chain: Chain, kinetic, freedoms, kT, time, dt) -> tuple[Chain, Array]:
    """The chain after half a step dt, and the factor by which the momenta shrink.

    `kinetic` is the energy (eV) of the `freedoms` that the chain is coupled to.
    """
    inertia, (xi, p) = _inertia(freedoms, kT, time), chain
    p, last = [*p], CHAIN_LENGTH - 1
    factor = jnp.ones_like(kinetic)

    def push(link, twice):
        """The force on a link, from twice the kinetic energy of what it is coupled to."""
        return twice - (freedoms if link == 0 else 1.0) * kT

    def twice_of(link):
        return 2.0 * kinetic * factor**2 if link == 0 else p[link - 1] ** 2 / inertia[link - 1]

    for weight in SUZUKI_YOSHIDA:
        quarter, eighth = 0.25 * weight * dt, 0.125 * weight * dt
        for link in range(last, -1, -1):
            drag = 1.0 if link == last else jnp.exp(-eighth * p[link + 1] / inertia[link + 1])
            p[link] = drag * (drag * p[link] + quarter * push(link, twice_of(link)))
        factor = factor * jnp.exp(-2.0 * quarter * p[0] / inertia[0])
        xi = xi + 2.0 * quarter * jnp.stack(p) / inertia
        for link in range(last + 1):
            drag = 1.0 if link == last else jnp.exp(-eighth * p[link + 1] / inertia[link + 1])
            p[link] = drag * (drag * p[link] + quarter * push(link, twice_of(link)))
    return Chain(xi, jnp.stack(p)), factor


def rescaling(key: Key, kinetic, freedoms, kT, decay) -> Float[Array, ""]:
    """The random factor of stochastic velocity rescaling (eq. A7, with the sign of eq. A8).

    α² = c + (1-c) (K̄/N K) (R² + S) + 2 R [c (1-c) K̄/(N K)]^½,  K̄ = N kT/2, c = `decay`,
    R normal and S a sum of N-1 squares of normals.
    """
    single, others = split_named(key, "single", "others")
    normal = jax.random.normal(single, (), kinetic.dtype)
    several = freedoms > 1
    shape = jnp.where(several, 0.5 * (freedoms - 1.0), 1.0)
    squares = jnp.where(several, 2.0 * jax.random.gamma(others, shape, dtype=kinetic.dtype), 0.0)
    moving = kinetic > 0
    ratio = 0.5 * kT / jnp.where(moving, kinetic, 1.0)
    cross = jnp.sqrt((1.0 - decay) * ratio)
    root = jnp.sqrt(decay)
    square = (root + cross * normal) ** 2 + cross**2 * squares
    sign = jnp.where(root + cross * normal < 0, -1.0, 1.0)
    return jnp.where(moving, sign * jnp.sqrt(square), 1.0)


def weak_coupling(kinetic, freedoms, kT, share) -> Float[Array, ""]:
    """Berendsen's factor (1 + (Δt/τ) (T₀/T - 1))^½; `share` is Δt/τ, at most 1."""
    moving = kinetic > 0
    ratio = 0.5 * freedoms * kT / jnp.where(moving, kinetic, 1.0)
    return jnp.where(moving, jnp.sqrt(1.0 + share * (ratio - 1.0)), 1.0)


def collided(key: Key, momenta, positions, bodies: Bodies, kT, chance, drift: str):
    """Momenta after each atom has met the bath with probability `chance`.

    Where a drift is removed it is drawn anew before and projected out after the collisions: this,
    and not the projection alone, leaves the distribution without drift invariant.
    """
    whom, fresh, whole = split_named(key, "whom", "fresh", "whole")
    if drift != "keep":
        drawn = maxwell(whole, bodies, kT)
        momenta = momenta + drawn - without_drift(drawn, positions, bodies, drift)
    hit = jax.random.uniform(whom, bodies.masses.shape, momenta.dtype) < chance
    momenta = jnp.where(hit[:, None], maxwell(fresh, bodies, kT), momenta)
    return without_drift(momenta, positions, bodies, drift)


def _inertia(freedoms, kT, time):
    """Masses of the links: N kT τ², kT τ², …"""
    ones = jnp.ones(CHAIN_LENGTH, jnp.result_type(kT))
    return kT * time**2 * ones.at[0].set(freedoms)


def _solved(matrix, vector):
    """matrix⁻¹ · vector by cofactors: a LAPACK call would be slow to compile, and slower to run."""
    a, b, c = matrix
    columns = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)
    return columns @ vector / jnp.dot(a, jnp.cross(b, c))
