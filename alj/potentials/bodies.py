"""Networks of which other potentials are made: their settings are given before the species."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from alj import registry
from alj.potentials.ani import ani
from alj.potentials.atomistic import behler_parrinello
from alj.potentials.equivariant import equivariant
from alj.potentials.gaussian_moments import gaussian_moments
from alj.potentials.schnet import schnet
from alj.types import Potential


def later(builder: Callable) -> Callable:
    """The builder with its settings given now and its species later."""

    @functools.wraps(builder)
    def settled(*_, **settings):
        return partial(builder, **settings)

    return settled


BODIES = tuple(map(later, (ani, behler_parrinello, gaussian_moments, schnet, equivariant)))
"""Networks that are made of nothing else."""


def made_later(
    bodies: Sequence[Callable], body: Any, *, where: str
) -> Callable[[tuple[int, ...]], Potential]:
    """What a name, or a mapping with `name`, stands for among these. Raises BadInput."""
    return body if isinstance(body, partial) else registry.build(bodies, body, where=where)
