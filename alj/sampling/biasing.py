"""A bias around a dynamics: how every enhanced sampler is put together.

An enhanced sampler takes a setting `dynamics`, a section like any other (`{name: nvt_langevin,
temperature_K: 500}`), adds its bias to the potential, and builds that dynamics on the sum.
"""

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from jaxtyping import Array

from alj import registry
from alj.sampling.dynamics import Biased
from alj.sampling.molecular_dynamics import DYNAMICS
from alj.types import BadInput, Bias, Context, Key, Potential, Sampler, Structure


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


class Given(NamedTuple):
    """Where a biased walk begins: the dynamics' own start, and fields of its bias's state."""

    start: Any
    fields: dict[str, Array]


def each_its_own(sampler: Sampler, fields_of: Callable[[Structure], dict[str, Array]]) -> Sampler:
    """The sampler of walks whose biases differ: `fields_of` (host) gives fields of their states.

    It samples no ensemble that a test could know.
    """
    stepper = sampler.stepper

    def place(structures: Structure) -> Given:
        return Given(sampler.place(structures), fields_of(structures))

    def init(key: Key, start: Given, context: Context):
        walk = stepper.init(key, start.start, context)
        return walk._replace(bias=walk.bias._replace(**start.fields))

    return sampler._replace(stepper=stepper._replace(init=init), place=place, ensemble=None)


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
