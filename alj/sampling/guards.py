"""Guards of Monte Carlo walks on young potentials: holes end a walk, and it starts again.

A network that was never shown a configuration may put it far below anything real. A walk that
falls below `context.targets["floor_eV_per_atom"]` is frozen; its last structure is the one worth
labeling, since its label fills the hole. Without that target nothing is guarded.
"""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

from alj.sampling.single_moves import Walker


class Guard(NamedTuple):
    """Where a walk began, its atomic energies there in eV, and how often it was sent back."""

    origin: Float[Array, "*batch atoms 3"]
    atomic: Float[Array, "*batch atoms"]
    restarts: Int[Array, "*batch"]


def guard(xp, walker: Walker) -> Guard:
    """The guard of a walk that begins with an evaluated walker; `xp` is numpy or jax.numpy."""
    return Guard(walker.structure.positions, walker.atomic, xp.asarray(0))


def restarted(xp, walker: Walker, guard: Guard, stopped, allowed) -> tuple[Walker, Guard]:
    """The walker, put back to its origin where it was stopped and restarts are left."""
    again = stopped & (guard.restarts < allowed)
    positions = xp.where(again, guard.origin, walker.structure.positions)
    walker = walker._replace(
        structure=walker.structure._replace(positions=positions),
        atomic=xp.where(again, guard.atomic, walker.atomic),
    )
    return walker, guard._replace(restarts=guard.restarts + again)
