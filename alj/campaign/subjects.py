"""What may move atoms: a model of ours, a classical potential, a reference engine, by its name.

`MODEL` on the command line is a run folder or model folder, the name of a classical potential or of
a labeler, or a YAML file that holds one of these with its settings: a mapping with `name`, or with
a section `potential` or `labeler`, such as those in configs/engines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from alj.annotations import named
from alj.campaign import config as configuration
from alj.campaign import models
from alj.campaign.elsewhere import beside
from alj.campaign.host_potential import HostLog, host_potential
from alj.campaign.models import Model
from alj.labeling import LABELERS, build_labeler, resolve_labeler
from alj.labeling.in_jax import InJax
from alj.potentials import CLASSICAL, POTENTIALS, build_potential, resolve_potential
from alj.registry import suggest
from alj.types import BadInput, Params, Potential


class Subject(NamedTuple):
    """A potential that is ready to walk, and what is known of it.

    `config` says which it is, resolved; `species` are the atomic numbers it knows, () for any;
    `model` predicts forces and spreads, None for an engine, which has a `log` instead.
    """

    name: str
    config: dict[str, Any]
    potential: Potential
    params: Params
    species: tuple[int, ...]
    dtype: np.dtype
    model: Model | None
    log: HostLog | None


def subject_of(model: str, settings: Sequence[str], species: tuple[int, ...]) -> Subject:
    """The subject that `model` names, for structures of these atomic numbers.

    `settings` are `potential.KEY=VALUE` or `labeler.KEY=VALUE`. Raises BadInput.
    """
    path = Path(model)
    if path.is_dir():
        if settings:
            raise BadInput(f"--set {settings[0]}: {model} is a trained model; it has no settings")
        return _trained(model)
    kind, section = _section(model)
    given: dict = {kind: section}
    for setting in settings:
        if not setting.startswith(f"{kind}."):
            raise BadInput(f"--set {setting}: {model} is a {kind}; expected {kind}.KEY=VALUE")
        given = configuration.override_one(given, setting)
    return (_classical if kind == "potential" else _engine)(given[kind], species)


def model_of_name(model: str, settings: Sequence[str] = ()) -> Model:
    """The model that `model` names: one that was trained, or a classical potential.

    Raises BadInput, also for an engine.
    """
    subject = subject_of(model, settings, ())
    if subject.model is None:
        raise BadInput(
            f"{model} is an engine; expected the folder of a trained model or a classical potential"
        )
    return subject.model


def _section(model: str) -> tuple[str, Any]:
    """`potential` or `labeler`, and its section."""
    path = Path(model)
    if path.suffix in (".yaml", ".yml"):
        read = configuration.read(path)
        for kind in ("potential", "labeler"):
            if kind in read:
                return kind, read[kind]
        return _kind_of(named(read, str(path))[0], str(path)), read
    if path.exists():
        raise BadInput(f"{model}: expected a model folder, a name or a YAML file, found a file")
    if path.suffix or len(path.parts) > 1:
        raise BadInput(f"{model}: no such model; expected a run folder, a name or a YAML file")
    return _kind_of(model, "MODEL"), model


def _kind_of(name: str, where: str) -> str:
    classical = [builder.__name__ for builder in CLASSICAL]
    labelers = [builder.__name__ for builder in LABELERS]
    if name in classical:
        return "potential"
    if name in labelers:
        return "labeler"
    if name in {builder.__name__ for builder in POTENTIALS}:
        raise BadInput(f"{where}: {name} has to be trained; expected the folder of a model of it")
    known = list(dict.fromkeys([*classical, *labelers]))
    raise BadInput(f"{where}: no folder and no name: {name}{suggest(name, known)}")


def _trained(model: str) -> Subject:
    loaded = models.load(model)
    about = {key: loaded.config[key] for key in ("potential", "species", "members", "params")}
    return Subject(
        f"{model} ({loaded.members} member{'s' * (loaded.members > 1)})",
        {"model": model, **about},
        loaded.mean,
        loaded.params,
        loaded.species,
        loaded.dtype,
        loaded,
        None,
    )


def _classical(section: Any, species: tuple[int, ...]) -> Subject:
    resolved = resolve_potential(section)
    return _in_jax(resolved["name"], {"potential": resolved}, build_potential(resolved, species))


def _in_jax(name: str, config: dict, potential: Potential) -> Subject:
    params = potential.init(jax.random.key(0))
    model = models.model_of(potential, params, {"members": 1})
    known = potential.species
    return Subject(name, config, potential, params, known, np.dtype("float64"), model, None)


def _engine(section: Any, species: tuple[int, ...]) -> Subject:
    labeler, resolved = build_labeler(section), resolve_labeler(section)
    config = {"labeler": resolved}
    if isinstance(labeler, InJax):
        return _in_jax(labeler.name, config, labeler.potential)
    host = host_potential(beside(labeler))
    return Subject(
        labeler.name,
        config,
        host.potential,
        host.potential.init(jax.random.key(0)),
        (),
        np.dtype("float64"),
        None,
        host.log,
    )
