"""Reference engines behind one Protocol: `label(structure)` in eV and Å, or LabelingFailed."""

from collections.abc import Mapping
from typing import Any

from alj import registry
from alj.annotations import join, named
from alj.labeling.ase import ase
from alj.labeling.command import command
from alj.labeling.dftbplus import dftbplus
from alj.labeling.engine import Blocks, Reference, check_settings
from alj.labeling.in_jax import lennard_jones, ml_bop_water, nacl_tosi_fumi
from alj.labeling.mopac import mopac
from alj.labeling.pyscf import pyscf
from alj.labeling.sparrow import sparrow
from alj.labeling.tblite import tblite
from alj.labeling.two_level import two_level
from alj.types import BadInput, Labeler

IN_JAX = (ml_bop_water, lennard_jones, nacl_tosi_fumi)
"""Potentials of this package: references that cost milliseconds."""

ENGINES = (tblite, sparrow, mopac, pyscf, dftbplus, ase, command, two_level)
"""Programs outside of this package; each also takes the settings of `check_settings`."""

LABELERS = (*IN_JAX, *ENGINES)


def build_labeler(config: Mapping[str, Any] | str, where: str = "labeler") -> Labeler:
    """The labeler of a `labeler` section. Raises BadInput.

    >>> build_labeler({"name": "tblite", "multiplicities": [1, 3]}).settings["multiplicities"]
    [1, 3]
    >>> build_labeler({"name": "lennard_jones", "multiplicities": [1, 3]})
    Traceback (most recent call last):
    alj.types.BadInput: labeler.multiplicities: unknown key; lennard_jones takes: epsilon_eV, \
sigma_A, cutoff_A, shift
    """
    common, own = _divided(config, where)
    built = registry.build(LABELERS, own, where=where)
    if common is None:
        return built
    checks = registry.call(check_settings, common, where=where)
    engines = [built]
    for index, changes in enumerate(checks["fallbacks"]):
        path = f"{join(where, 'fallbacks')}[{index}]"
        if not isinstance(changes, Mapping) or not changes:
            raise BadInput(f"{path}: expected settings of {own['name']}, found {changes!r}")
        engines.append(registry.build(ENGINES, {**own, **changes}, where=path))
    limits = built.limits._replace(**checks["limits"])
    kind = Blocks if hasattr(built, "calculate_many") else Reference
    return kind(engines, checks["multiplicities"], limits)


def resolve_labeler(config: Mapping[str, Any] | str, where: str = "labeler") -> dict:
    """The section with every default filled in. Raises BadInput.

    >>> resolve_labeler("lennard_jones")["cutoff_A"]
    8.5
    """
    common, own = _divided(config, where)
    resolved = registry.resolve(LABELERS, own, where)
    if resolved["name"] == two_level.__name__:
        levels = ("high", "low")
        resolved |= {level: resolve_labeler(own[level], join(where, level)) for level in levels}
    if common is None:
        return resolved
    return {**resolved, **registry.filled(check_settings, common, where)}


def _divided(config, where):
    """The settings common to all engines (None where it is none), and its own, with the name."""
    name, settings = named(config, where)
    # What is imported (module:function) is an engine.
    if ":" not in name and name not in {engine.__name__ for engine in ENGINES}:
        return None, {"name": name, **settings}
    return registry.divided(ENGINES, config, check_settings, where)
