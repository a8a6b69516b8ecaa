"""The dynamics that a setting names, before it has a potential: to read and change its settings."""

import inspect
from functools import partial
from typing import Any

from alj import registry
from alj.sampling.biasing import LATER
from alj.types import BadInput


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
