"""A bias around a dynamics: how every enhanced sampler is put together.

An enhanced sampler takes a setting `dynamics`, a section like any other (`{name: nvt_langevin,
temperature_K: 500}`), adds its bias to the potential, and builds that dynamics on the sum.
"""

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from alj import registry
from alj.sampling.dynamics import Biased
from alj.sampling.molecular_dynamics import DYNAMICS
from alj.types import Bias, Potential, Sampler


def _later(builder: Callable) -> Callable:
    """The builder with its settings given now and its potential later."""

    @functools.wraps(builder)
    def settled(*_, **settings):
        return partial(builder, **settings)

    return settled


LATER = tuple(_later(builder) for builder in DYNAMICS)
"""What a bias may be added to, as functions of a potential."""

Dynamics = Annotated[Any, registry.Nested(lambda: LATER)]
"""The annotation of a setting that names a dynamics."""


def biased(
    potential: Potential, bias: Bias, dynamics: Any, observe: Callable | None = None
) -> Sampler:
    """The sampler of a dynamics on the sum of a potential and a bias.

    `dynamics` is a section, or what the registry has made of it. Raises BadInput.
    """
    return _made(dynamics)(Biased(potential, bias, observe))


def timestep_of(dynamics: Any) -> float:
    """The time step in fs of a dynamics that is to be built."""
    made = _made(dynamics)
    default = inspect.signature(made.func).parameters["timestep_fs"].default
    return made.keywords.get("timestep_fs", default)


def _made(dynamics) -> partial:
    if isinstance(dynamics, partial):
        return dynamics
    return registry.build(LATER, dynamics, where="dynamics")
