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
from alj.types import BadInput, Bias, Potential, Sampler


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
    return chosen(dynamics)(Biased(potential, bias, observe))


def chosen(dynamics: Any) -> partial:
    """The builder that `dynamics`, a section or what the registry has made of it, names.

    Its settings are given already; called with a potential it is a sampler. Raises BadInput.
    """
    if isinstance(dynamics, partial):
        return dynamics
    return registry.build(LATER, dynamics, where="dynamics")


def setting_of(dynamics: Any, name: str) -> Any:
    """One of its settings, the default where it is not given. Raises BadInput where it has none.

    >>> setting_of({"name": "nvt_langevin", "steps": 50}, "steps")
    50
    """
    made = chosen(dynamics)
    known = inspect.signature(made.func).parameters
    if name not in known:
        raise BadInput(f"dynamics: expected one with a {name}, found {made.func.__name__}")
    return made.keywords.get(name, known[name].default)


def with_settings(dynamics: Any, **changes: Any) -> partial:
    """The same dynamics with other settings."""
    made = chosen(dynamics)
    return partial(made.func, **{**made.keywords, **changes})
