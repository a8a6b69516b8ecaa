"""Replica exchange: copies at several temperatures that trade places, so that the cold ones cross.

Neighbors i and j on the ladder of temperatures, taken in turn as even and odd pairs, trade places
with probability

    min(1, exp Δ),   Δ = (β_i - β_j) (H_i - H_j),   H = E + p V

(E with wall, without kinetic energy). What moves is the configuration, its momenta scaled by the
root of the ratio of temperatures; baths stay on their rung, and with them chains and pistons. That
is exact also for the deterministic baths: in their stationary distribution, that of a product, the
momenta of chains and pistons depend on the temperature but not on the configuration, so they cancel
from Δ, and the scaled momenta do as they would for any thermostat. A frozen replica trades with
nobody.

Y. Sugita, Y. Okamoto, Chem. Phys. Lett. 314, 141 (1999), doi:10.1016/S0009-2614(99)01123-9; at
constant pressure T. Okabe, M. Kawata, Y. Okamoto, M. Mikami, Chem. Phys. Lett. 335, 435 (2001),
doi:10.1016/S0009-2614(01)00055-0; scaled momenta and Nosé-Hoover chains Y. Mori, Y. Okamoto, J.
Phys. Soc. Jpn. 79, 074003 (2010), doi:10.1143/JPSJ.79.074003.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from alj.arrays import split_named
from alj.geometry.periodic import volume
from alj.sampling.biasing import Dynamics, setting_of, with_settings
from alj.sampling.thermostats import kinetic_energy
from alj.sampling.walks import Motion, Start, Walk
from alj.types import BadInput, Context, Key, Potential, Sampler, Stepper, Structure
from alj.units import BOLTZMANN, EV_PER_A3_IN_BAR


class Ladder(NamedTuple):
    """The state: walks with a leading axis of rungs, the coldest first.

    `walkers` says which of the first copies stands on each rung now; `attempted` and `accepted`
    count the exchanges of each pair of neighbors; `done` time steps.
    """

    replicas: Walk
    walkers: Int[Array, "*batch rungs"]
    attempted: Int[Array, "*batch pairs"]
    accepted: Int[Array, "*batch pairs"]
    done: Int[Array, "*batch"]


class Rungs(NamedTuple):
    """What a frame shows of all rungs, before the exchange that may follow.

    Temperatures of the baths, energies of the potential in eV, which copy stands where, which have
    been frozen; `acceptance` of each pair of neighbors so far (NaN before the first attempt);
    `shown` is the rung whose structure is the frame's.
    """

    temperatures_K: Float[Array, "*batch rungs"]
    energies: Float[Array, "*batch rungs"]
    walkers: Int[Array, "*batch rungs"]
    stopped: Bool[Array, "*batch rungs"]
    acceptance: Float[Array, "*batch pairs"]
    shown: Int[Array, "*batch"]


def replica_exchange(
    potential: Potential,
    *,
    temperatures_K: tuple[float, ...] = (300.0, 345.0, 397.0, 456.0),
    exchange_every: int = 100,
    frames: Literal["coldest", "all"] = "coldest",
    dynamics: Dynamics = "nvt_langevin",
) -> Sampler:
    """Replica exchange between temperatures: each walk is a whole ladder of replicas.

    Args:
        temperatures_K: The rungs, rising; neighbors close enough that a fifth or more of the
            exchanges are accepted.
        exchange_every: Time steps between two attempts.
        frames: Whose structure a frame has: that of the "coldest" replica, or those of "all" in
            turn. A replica that is frozen by a gate is shown once whatever this says.
        dynamics: The dynamics of the replicas, with its settings; its temperature is not used. It
            must sample an ensemble: nve and nvt_berendsen do not.

    Raises:
        BadInput: a setting is out of range, or (by `place`) a start is unfit.
    """
    rungs = len(temperatures_K)
    _check(temperatures_K, exchange_every)
    steps = setting_of(dynamics, "steps")
    record_every = min(setting_of(dynamics, "record_every"), steps)
    stride = math.gcd(record_every, exchange_every)
    inner = with_settings(dynamics, record_every=stride)(potential)
    if inner.ensemble is None:
        raise BadInput("dynamics: expected one that samples an ensemble, such as nvt_langevin")
    if inner.ensemble == "NPT" and np.ptp(setting_of(dynamics, "pressure_bar")) > 0:
        raise BadInput("dynamics.pressure_bar: expected one pressure, found two")
    every = _flat_batches(inner.stepper.step)

    def place(structures: Structure) -> Start:
        start = inner.place(structures)
        start = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], rungs, axis=1), start)
        baths = start.bath.temperature_K
        ladder = jnp.asarray(temperatures_K, baths.dtype)[None, :, None]
        return start._replace(
            bath=start.bath._replace(temperature_K=jnp.broadcast_to(ladder, baths.shape))
        )

    def init(key: Key, start: Start, context: Context) -> Ladder:
        keys = jax.random.split(key, rungs)
        replicas = jax.vmap(inner.stepper.init, (0, 0, None))(keys, start, context)
        none = jnp.zeros(rungs - 1, jnp.int32)
        return Ladder(replicas, jnp.arange(rungs), none, none, jnp.zeros((), jnp.int32))

    def step(key: Key, ladder: Ladder, context: Context) -> tuple[Ladder, Motion]:
        def advance(ladder, number):
            move, swap = split_named(jax.random.fold_in(key, number), "move", "swap")
            keys = jax.random.split(move, rungs)
            replicas, motions = every(keys, ladder.replicas, context)
            after = ladder._replace(replicas=replicas, done=ladder.done + stride)
            shown = motions, after.walkers
            return _exchanged(swap, after, exchange_every), shown

        parts = jnp.arange(record_every // stride)
        after, (motions, walkers) = jax.lax.scan(advance, ladder, parts)
        motions, walkers = jax.tree.map(lambda leaf: leaf[-1], (motions, walkers))
        turn = (after.done // record_every) % rungs if frames == "all" else 0
        fallen = motions.stopped & ~ladder.replicas.stopped
        shown = jnp.where(jnp.any(fallen), jnp.argmax(fallen), turn)
        return after, _frame(after, motions, walkers, shown)

    grow, overflowed = inner.stepper.grow, inner.stepper.overflowed
    assert grow is not None
    assert overflowed is not None
    stepper = Stepper(
        init,
        step,
        overflowed=lambda ladder: jnp.any(overflowed(ladder.replicas)),
        grow=lambda ladder: ladder._replace(replicas=grow(ladder.replicas)),
    )
    ensemble = inner.ensemble if frames == "coldest" else None
    return inner._replace(
        stepper=stepper, place=place, steps=max(steps // record_every, 1), ensemble=ensemble
    )


def _exchanged(key: Key, ladder: Ladder, exchange_every: int) -> Ladder:
    """The ladder after an attempt to exchange every other pair of neighbors, if it is time."""
    walk = ladder.replicas
    temperatures = walk.bath.temperature_K[:, 0]
    pressures = walk.bath.pressure_bar[:, 0] / EV_PER_A3_IN_BAR
    volumes = jax.vmap(volume)(walk.structure.cell)
    beta, enthalpies = 1.0 / (BOLTZMANN * temperatures), walk.energy + walk.external
    enthalpies = enthalpies + pressures * volumes
    exponents = (beta[:-1] - beta[1:]) * (enthalpies[:-1] - enthalpies[1:])
    pairs = jnp.arange(len(exponents))
    attempt, left = jnp.divmod(ladder.done, exchange_every)
    turn = attempt % min(len(exponents), 2)
    asked = (left == 0) & (pairs % 2 == turn) & ~(walk.stopped[:-1] | walk.stopped[1:])
    trades = asked & (jnp.log(jax.random.uniform(key, exponents.shape)) < exponents)
    nobody = jnp.zeros(1, bool)
    up, down = jnp.append(trades, nobody), jnp.append(nobody, trades)
    partners = jnp.arange(len(up)) + up - down
    return ladder._replace(
        replicas=_traded(walk, partners, volumes),
        walkers=ladder.walkers[partners],
        attempted=ladder.attempted + asked,
        accepted=ladder.accepted + trades,
    )


def _traded(walk: Walk, partners, volumes) -> Walk:
    """Each rung with the configuration of its partner; its bath pays for what this changes."""
    temperatures, pressures = walk.bath.temperature_K[:, 0], walk.bath.pressure_bar[:, 0]
    scale = jnp.sqrt(temperatures / temperatures[partners])[:, None, None]
    names = ("structure", "forces", "energy", "external", "virial", "table", "origin")
    names += ("origin_volume",)
    own = {name: getattr(walk, name) for name in names}
    moved = jax.tree.map(lambda leaf: leaf[partners], own)
    after = walk._replace(momenta=scale * walk.momenta[partners], **moved)

    def books(walk, volumes):
        """What the books of a dynamics hold of configuration and momenta (`piston_energy`)."""
        kinetic = jax.vmap(kinetic_energy)(walk.momenta, walk.bodies)
        held = pressures / EV_PER_A3_IN_BAR * volumes - BOLTZMANN * temperatures * jnp.log(volumes)
        return walk.energy + walk.external + kinetic + held

    paid = books(after, volumes[partners]) - books(walk, volumes)
    return after._replace(reservoir=walk.reservoir + paid.astype(walk.reservoir.dtype))


def _frame(ladder: Ladder, motions: Motion, walkers, shown) -> Motion:
    tried = ladder.attempted > 0
    share = ladder.accepted / jnp.where(tried, ladder.attempted, 1)
    total = jnp.sum(ladder.attempted)
    mean = jnp.sum(ladder.accepted) / jnp.maximum(total, 1)
    motion = jax.tree.map(lambda leaf: leaf[shown], motions)
    dtype = motion.acceptance.dtype
    return motion._replace(
        acceptance=jnp.where(total > 0, mean, 1.0).astype(dtype),
        observed=Rungs(
            ladder.replicas.bath.temperature_K[:, 0],
            motions.energy,
            walkers,
            motions.stopped,
            jnp.where(tried, share, jnp.nan).astype(dtype),
            shown,
        ),
    )


def _flat_batches(step: Callable) -> Callable:
    """`step` for all replicas; several ladders are one longer batch, not a batch of batches.

    The tables of a batch are made anew when one of them needs it, a condition that under a second
    `vmap` would hold at every step.
    """

    @custom_vmap
    def every(keys, walks, context):
        return jax.vmap(step, (0, 0, None))(keys, walks, context)

    @every.def_vmap
    def _of_many(size, batched, keys, walks, context):
        def full(leaf, has):
            leaf = leaf if has else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return jnp.reshape(leaf, (size * leaf.shape[1], *leaf.shape[2:]))

        def apart(leaf):
            return jnp.reshape(leaf, (size, leaf.shape[0] // size, *leaf.shape[1:]))

        if any(jax.tree.leaves(batched[2])):
            raise NotImplementedError("replica exchange: expected one context for all walks")
        keys, walks = jax.tree.map(full, (keys, walks), tuple(batched[:2]))
        done = jax.tree.map(apart, every(keys, walks, context))
        return done, jax.tree.map(lambda _: True, done)

    return every


def _check(temperatures_K, exchange_every: int) -> None:
    if len(temperatures_K) < 2 or not np.all(np.diff([0.0, *temperatures_K]) > 0):
        raise BadInput(
            "temperatures_K: expected two or more positive temperatures that rise, found "
            f"{list(temperatures_K)}"
        )
    if exchange_every < 1:
        raise BadInput(f"exchange_every: expected at least 1, found {exchange_every}")
