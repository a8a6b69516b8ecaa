"""The plan of a campaign: a configuration turned into potentials, samplers and rules, all checked.

Sections without a registry (`data`, `stop`, what is common to all walks) are in `sections`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj import registry
from alj.campaign import build, datasets, properties
from alj.campaign.anchoring import anchor_settings
from alj.campaign.classes import ClassSettings, class_settings
from alj.campaign.config import KEYS
from alj.campaign.executors import EXECUTORS, default_executor
from alj.campaign.sections import (
    Augmentation,
    DataSettings,
    StopSettings,
    WalkSettings,
    augmentation_settings,
    data_settings,
    stop_settings,
    top_settings,
    walk_settings,
)
from alj.labeling import build_labeler, resolve_labeler
from alj.potentials import build_potential, resolve_potential
from alj.potentials.combine import committee
from alj.sampling import SAMPLERS
from alj.selection import SELECTORS
from alj.stepping import batched
from alj.training import TRAINERS
from alj.training.architecture_search import search_settings
from alj.types import (
    BadInput,
    Key,
    Labeler,
    Params,
    Potential,
    Sampler,
    Selector,
    Stepper,
    Structure,
    Trainer,
)  # fmt: skip


class Walks(NamedTuple):
    """One entry of `sampler`: a sampler on one potential, batched over its walks."""

    name: str
    sampler: Sampler
    stepper: Stepper
    settings: WalkSettings


class Plan(NamedTuple):
    """All that a campaign needs, built and checked; `config` is resolved: no default left out."""

    config: dict
    key: Key
    rounds: int
    potential: Potential
    mean: Potential
    trainer: Trainer
    boot: Walks
    walks: tuple[Walks, ...]
    selector: Selector
    classes: ClassSettings | None
    labeler: Labeler
    executor: Any
    data: DataSettings
    augmentation: Augmentation
    stop: StopSettings
    explore_with: str
    choose_from: str
    grow_by: float
    refit: Trainer | None
    anchor: dict | None
    properties: tuple[dict, ...]
    dtype: Any
    start: Callable[[], tuple[Structure, int]]
    species: tuple[int, ...]


def resolve(config: dict) -> dict:
    """The configuration with every default filled in. Raises BadInput for whatever is wrong."""
    for key in config:
        if key not in KEYS:
            raise BadInput(f"{key}: unknown key{registry.suggest(key, KEYS)}")
    for key in ("labeler", "data"):
        if config.get(key) is None:
            raise BadInput(f"{key}: expected this section in the configuration, found none")
    samplers = config.get("sampler", "metropolis_mc")
    samplers = samplers if isinstance(samplers, list) else [samplers]
    data = registry.filled(data_settings, config["data"], "data")
    if isinstance(data["start"], dict):
        data["start"] = build.resolve_start(data["start"], "data.start")
    data["boot"] = _resolved_walks(
        data["boot"] or {"name": "perturbation", "walks": 1}, "data.boot"
    )
    data["reference_test"] = [
        _resolved_walks(spec, f"data.reference_test[{i}]")
        for i, spec in enumerate(data["reference_test"] or ())
    ]
    names = [setting.name for setting in registry.schema(top_settings)]
    top = registry.filled(top_settings, {name: config[name] for name in names if name in config})
    labeler = resolve_labeler(config["labeler"])
    usual = default_executor(build_labeler(labeler))
    return {
        **top,
        "data": data,
        "potential": resolve_potential(config.get("potential", "behler_parrinello")),
        "widths": None
        if config.get("widths") is None
        else registry.filled(search_settings, config["widths"], "widths"),
        "trainer": registry.resolve(
            TRAINERS, config.get("trainer", "levenberg_marquardt"), "trainer"
        ),
        "sampler": [_resolved_walks(s, f"sampler[{i}]") for i, s in enumerate(samplers)],
        "selector": registry.resolve(SELECTORS, config.get("selector", "spaced"), "selector"),
        "classes": registry.filled(class_settings, config.get("classes") or {}, "classes"),
        "labeler": labeler,
        "executor": registry.resolve(EXECUTORS, config.get("executor") or usual, "executor"),
        "augmentation": registry.filled(
            augmentation_settings, config.get("augmentation") or {}, "augmentation"
        ),
        "stop": registry.filled(stop_settings, config.get("stop") or {}, "stop"),
        "refit": None
        if config.get("refit") is None
        else registry.resolve(TRAINERS, config["refit"], "refit"),
        "anchor": _resolved_anchor(config.get("anchor")),
        "properties": [
            properties.resolved(spec, f"properties[{i}]")
            for i, spec in enumerate(config.get("properties") or ())
        ],
    }


def make_plan(config: dict) -> Plan:
    """The plan of a configuration. Raises BadInput for whatever is wrong in it."""
    config = resolve(config)
    key = jax.random.key(config["seed"])
    data = registry.call(data_settings, config["data"], where="data")
    labeler = build_labeler(config["labeler"])
    start, species = _start(data, labeler, key)
    potential = build_potential(config["potential"], species)
    mean = committee(potential)
    # Meta-networks are trained one by one.
    taught = potential if potential.networks is None else potential.networks.body
    for i, spec in enumerate(config["properties"]):
        properties.sampler_of(spec, mean, f"properties[{i}]")
    if config["anchor"] is not None:
        _check_anchor(config["anchor"], mean, labeler)
    walks = tuple(
        make_walks(spec, mean, f"sampler[{i}]") for i, spec in enumerate(config["sampler"])
    )
    selector = registry.build(SELECTORS, config["selector"], where="selector")
    if "held_out_error" in selector.needs and not data.held_out_fraction:
        raise BadInput(
            "selector.limit: held_out asks labels that nothing is trained on, and there are none; "
            "set data.held_out_fraction, such as 0.2"
        )
    return Plan(
        config=config,
        key=key,
        rounds=config["rounds"],
        potential=potential,
        mean=mean,
        trainer=registry.build(TRAINERS, config["trainer"], taught, where="trainer"),
        boot=make_walks(config["data"]["boot"], mean, "data.boot"),
        walks=walks,
        selector=selector,
        classes=_classes(config, potential, walks, selector),
        labeler=labeler,
        executor=registry.build(EXECUTORS, config["executor"], where="executor"),
        data=data,
        augmentation=registry.call(
            augmentation_settings, config["augmentation"], where="augmentation"
        ),
        stop=registry.call(stop_settings, config["stop"], where="stop"),
        explore_with=config["explore_with"],
        choose_from=config["choose_from"],
        grow_by=config["grow_by"],
        refit=None
        if config["refit"] is None
        else registry.build(TRAINERS, config["refit"], taught, where="refit"),
        anchor=config["anchor"],
        properties=tuple(config["properties"]),
        dtype=jnp.dtype(config["precision"]),
        start=start,
        species=species,
    )


def _classes(config: dict, potential: Potential, walks, selector: Selector):
    """The settings of a network of classes, where something in the campaign uses one."""
    settings = registry.call(class_settings, config["classes"], where="classes")
    if potential.networks is not None:
        if config["explore_with"] != "mean":
            raise BadInput(
                "explore_with: meta_networks answer together, expected mean, found "
                f"{config['explore_with']}"
            )
        return settings._replace(atoms=potential.networks.atoms)
    sparse = any(each.settings.starts == "sparse" for each in walks)
    looked_at = {"spectra", "regions", "nodes"} & set(selector.needs)
    return settings if sparse or looked_at else None


def make_walks(spec: dict, potential: Potential, where: str) -> Walks:
    """One entry of `sampler` on a potential."""
    common, own = registry.divided(SAMPLERS, spec, walk_settings, where)
    sampler = registry.build(SAMPLERS, own, potential, where=where)
    settings = registry.call(walk_settings, common, where=where)
    return Walks(own["name"], sampler, batched(sampler.stepper), settings)


def reference_potential(labeler: Labeler, what: str) -> tuple[Potential, Params]:
    """The potential behind a labeler, with its params; `what` needs it.

    Raises BadInput where the labeler is an engine outside of this package.
    """
    potential: Potential | None = getattr(labeler, "potential", None)
    if potential is None:
        raise BadInput(
            f"{what}: expected a labeler that is a potential of this package, found "
            f"{labeler.name}; give labeled files instead"
        )
    return potential, potential.init(jax.random.key(0))


def _check_anchor(spec: dict, mean: Potential, labeler: Labeler) -> None:
    """Raises BadInput now for what would else be found after the last round."""
    walk = {name: value for name, value in spec.items() if name != "ensemble"}
    if "temperature_K" not in walk:
        raise BadInput(
            f"anchor.name: expected a sampler with a temperature_K, found {walk['name']}; "
            "use metropolis_mc"
        )
    make_walks(walk, mean, "anchor")
    if spec["ensemble"] == "reference":
        reference_potential(labeler, "anchor.ensemble: reference")


def _resolved_walks(spec, where: str) -> dict:
    common, own = registry.divided(SAMPLERS, spec, walk_settings, where)
    return {
        **registry.resolve(SAMPLERS, own, where),
        **registry.filled(walk_settings, common, where),
    }


def _resolved_anchor(spec: Any) -> dict | None:
    """The section `anchor`: a sampler with its walks, and whose ensemble it samples."""
    if spec is None:
        return None
    if not isinstance(spec, dict):
        raise BadInput(f"anchor: expected a mapping with a sampler's settings, found {spec!r}")
    own = {k: spec[k] for k in ("ensemble",) if k in spec}
    walk = {"name": "metropolis_mc", **{k: v for k, v in spec.items() if k not in own}}
    return {
        **registry.filled(anchor_settings, own, "anchor"),
        **_resolved_walks(walk, "anchor"),
    }


def _start(data: DataSettings, labeler: Labeler, key: Key):
    """How to get the start (minimizing waits until it is asked for), and the species it has."""
    if data.random_start is not None:
        settings = registry.filled(build.random_start, data.random_start, "data.random_start")
        seed = jax.random.fold_in(key, 0)
        unminimized, _ = registry.call(
            build.random_start, {**settings, "minimization_steps": 0}, labeler, seed,
            where="data.random_start",
        )  # fmt: skip
        species = tuple(sorted({int(z) for z in np.asarray(unminimized.species)}))
        return lambda: build.random_start(labeler, seed, **settings), species
    if isinstance(data.start, dict):
        begin, structure = build.start_from(
            data.start, jax.random.fold_in(key, 0), labeler, "data.start"
        )
        return begin, tuple(sorted({int(z) for z in np.asarray(structure.species)}))
    path = data.start or data.initial or ""
    given, _ = datasets.read(path, labels="ignored")
    species = tuple(sorted({int(z) for z in given.species}))
    return lambda: (datasets.structure(given, 0), 0), species
