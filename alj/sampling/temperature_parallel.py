"""Independent walkers on a ladder of temperatures that stop where the committee does not know.

    T_w = T_low (T_high / T_low)^(w / (W - 1)),   w = 0 … W - 1

All walkers of a round go in one program, each in a bath of its own ("temperature parallel" in
ESOINN-DP); unlike in replica exchange they never trade places. At every frame the error indicator χ
(`potentials.disagreement`) is taken; after k frames in a row with χ > 2δ a walker is frozen: its
last frames are what is worth a label. Broken geometries freeze it by the gates of its dynamics.

Frames show χ, and, for meta-networks, which classes answer and how often other ones have come in
from one frame to the next so far (a change within the time between two frames and back is not seen,
one of their order changes nothing): there the energy jumps. With hysteresis d(c) counts (1 - η)
times for the classes c that answered at the last frame, so that a walk at the boundary of classes
does not flip at every turn; the frames' own networks are those that it walked with.

M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP).
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.potentials.combine import member_energies_and_forces, members
from alj.potentials.disagreement import expected_largest, largest_deviation
from alj.potentials.meta_networks import holding, nearest_classes
from alj.sampling.biasing import Dynamics, chosen
from alj.sampling.dynamics_settings import positive
from alj.sampling.walks import Motion, Start, Walk
from alj.types import BadInput, Context, Key, Potential, Sampler, Stepper, Structure


class Watched(NamedTuple):
    """The state: a walk, for how many frames it has been unknown, the classes that answer there,
    nearest first, and how often others have come in."""

    walk: Walk
    unknown: Int[Array, "*batch"]
    classes: Int[Array, "*batch nearest"]
    flips: Int[Array, "*batch"]


class Indicated(NamedTuple):
    """What a frame shows: χ in eV/Å, the temperature of the bath in K, changes of classes so far,
    and the classes that answer, nearest first (none for a committee without classes)."""

    indicator: Float[Array, "*batch"]
    bath_K: Float[Array, "*batch"]
    flips: Int[Array, "*batch"]
    classes: Int[Array, "*batch nearest"]


def temperature_parallel(
    potential: Potential,
    *,
    lowest_K: float = 300.0,
    highest_K: float = 600.0,
    limit_eV_per_A: float | None = 0.18,
    limit: Literal["given", "size_aware"] = "given",
    accuracy_eV_per_A: float = 0.13,
    unknown_frames: int = 3,
    hysteresis: float = 0.0,
    dynamics: Dynamics = "nvt_andersen",
) -> Sampler:
    """Walkers at rising temperatures that stop where the members of a committee disagree.

    Args:
        lowest_K: Temperature of the first walker.
        highest_K: Temperature of the last one; those between follow a geometric series.
        limit_eV_per_A: The limit δ of the error indicator: frames above twice as much are unknown;
            null watches without stopping.
        limit: "given" takes that for all sizes, as published; "size_aware" what χ of so many atoms
            stays below with 95 % where networks are as accurate as they should be.
        accuracy_eV_per_A: What size_aware takes as the accuracy of the force components.
        unknown_frames: Unknown frames in a row after which a walker stops.
        hysteresis: Of meta-networks: those that answer go on until other classes are nearer by this
            share of the distance; 0 asks the nearest ones each time.
        dynamics: The dynamics of the walkers, with its settings; its temperature is not used.

    Raises:
        BadInput: a setting is out of range, the potential is not the mean of a committee, or (by
            the first step) the committee has a single member.
    """
    positive(lowest_K=lowest_K, highest_K=highest_K)
    if limit_eV_per_A is not None:
        positive(limit_eV_per_A=limit_eV_per_A)
    if highest_K < lowest_K or unknown_frames < 1:
        raise BadInput(
            "temperature_parallel: expected lowest_K <= highest_K and at least one of "
            f"unknown_frames, found {lowest_K}, {highest_K} and {unknown_frames}"
        )
    member = potential.member
    if member is None:
        raise BadInput(
            "temperature_parallel: expected the mean of a committee, found one potential"
        )
    if not 0 <= hysteresis < 1 or (hysteresis and member.networks is None):
        raise BadInput(
            "temperature_parallel: hysteresis is of meta_networks, at least 0 and below 1; found "
            f"{hysteresis}" + (" without meta_networks" if member.networks is None else "")
        )
    inner = chosen(dynamics)(potential)
    expected_largest(accuracy_eV_per_A, 3, 2)

    def ceiling(params, species):
        """Above which χ is unknown, eV/Å."""
        if limit_eV_per_A is None:
            return jnp.inf
        if limit == "given":
            return 2.0 * limit_eV_per_A
        known = expected_largest(accuracy_eV_per_A, np.arange(len(species) + 1), members(params))
        return 2.0 * jnp.asarray(known)[jnp.sum(species > 0)]

    def place(structures: Structure) -> Start:
        start = inner.place(structures)
        count = len(structures.species)
        ladder = np.geomspace(lowest_K, highest_K, count) if count > 1 else np.array([lowest_K])
        baths = start.bath.temperature_K
        ladder = jnp.asarray(ladder, baths.dtype)[:, None]
        return start._replace(
            bath=start.bath._replace(temperature_K=jnp.broadcast_to(ladder, baths.shape))
        )

    def init(key: Key, start: Start, context: Context) -> Watched:
        walk = inner.stepper.init(key, start, context)
        none = jnp.zeros((), jnp.int32)
        return Watched(walk, none, _answering(member, context, walk), none)

    def step(key: Key, state: Watched, context: Context) -> tuple[Watched, Motion]:
        if hysteresis:
            kept = holding(context.params, state.classes, hysteresis)
            context = context._replace(params=kept)
        walk, motion = inner.stepper.step(key, state.walk, context)
        given = (member, context.params, walk.structure, walk.table.neighbors)
        indicator = largest_deviation(member_energies_and_forces(*given)[1])
        classes = _answering(member, context, walk)
        flips = state.flips + jnp.any(jnp.sort(classes) != jnp.sort(state.classes))
        # Not a number counts as unknown.
        most = ceiling(context.params, walk.structure.species)
        count = jnp.where(indicator <= most, 0, state.unknown + 1).astype(jnp.int32)
        stopped = walk.stopped | (count >= unknown_frames)
        after = Watched(walk._replace(stopped=stopped), count, classes, flips.astype(jnp.int32))
        seen = Indicated(indicator, walk.bath.temperature_K[0], after.flips, classes)
        return after, motion._replace(stopped=stopped, observed=seen)

    return inner._replace(stepper=_around(inner.stepper, init, step), place=place, ensemble=None)


def _answering(member: Potential, context: Context, walk: Walk) -> Int[Array, " nearest"]:
    """The classes whose networks answer; none where there are none."""
    if member.networks is None:
        if members(context.params) < 2:
            raise BadInput(
                "temperature_parallel: expected a committee of at least 2 members, found one; use "
                "explore_with: mean and members: 2 or more"
            )
        return jnp.zeros(0, jnp.int32)
    return nearest_classes(member, context.params, walk.structure).astype(jnp.int32)


def _around(inner: Stepper, init: Any, step: Any) -> Stepper:
    """The stepper of watched walks, whose tables are those of the walks."""
    overflowed, grow = inner.overflowed, inner.grow
    assert overflowed is not None
    assert grow is not None
    return Stepper(
        init,
        step,
        overflowed=lambda state: overflowed(state.walk),
        grow=lambda state: state._replace(walk=grow(state.walk)),
    )
