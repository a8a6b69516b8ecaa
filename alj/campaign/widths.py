"""The search of network widths inside the rounds of a campaign: after a fit, before walks go on.

Each round that has labels makes one round of the search (`training.architecture_search`) on the
data as they are. Where other widths win, the committee is trained anew with them; potential,
trainer and walks of the plan follow what the state remembers.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from alj import registry
from alj.annotations import plain
from alj.arrays import split_named
from alj.campaign import datasets
from alj.campaign.folder import Run
from alj.campaign.plan import Plan, make_walks
from alj.campaign.rounds import FEW_STRUCTURES, RoundState, trained
from alj.potentials import build_potential
from alj.potentials.combine import committee
from alj.training import TRAINERS
from alj.training.architecture_search import (
    Search,
    Widths,
    search_round,
    search_settings,
)
from alj.types import BadInput, Key, Potential


def widths_of(potential: Mapping[str, Any]) -> Widths:
    """The hidden widths of a potential's section. Raises BadInput where they cannot be searched."""
    hidden = _bearer(potential)["hidden"]
    rows = [hidden] if isinstance(hidden, list | tuple) else list(hidden.values())
    if not rows or any(tuple(row) != tuple(rows[0]) for row in rows):
        raise BadInput("widths: expected the same `potential.hidden` for all elements")
    return tuple(int(width) for width in rows[0])


def check(plan: Plan) -> None:
    """Raises BadInput now for what would else be found after the first fit."""
    if plan.config.get("widths") is None:
        return
    widths_of(plan.config["potential"])
    if "forces" not in plan.trainer.quantities:
        raise BadInput(
            "widths: the search looks at force errors; expected a trainer with force_weight above 0"
        )


def current(run: Run, state: RoundState) -> Run:
    """The run with the plan of the widths that the state has."""
    found = state.memory.get("widths")
    return run if found is None else run._replace(plan=_with_widths(run.plan, found["hidden"]))


def searched(run: Run, key: Key, state: RoundState, on_stage: Callable[[str], Any]) -> RoundState:
    """The state after a round of the search, remembered; the same where none is wanted or needed.

    `run` has the plan of the state's widths.
    """
    spec = run.plan.config.get("widths")
    if spec is None or state.params is None:
        return state
    settings = registry.call(search_settings, spec, where="widths")
    before = state.memory.get("widths") or {"settled": False, "rounds": 0}
    few = datasets.count(state.data) < settings.least_structures
    if few or before["settled"] or before["rounds"] >= settings.rounds:
        return state

    def look() -> RoundState:
        on_stage("widths")
        return _searched(run, key, state, settings, before)

    return run.store.remember(f"{state.round:03d}/widths", look)


def told(state: RoundState) -> dict[str, Any]:
    """What an event says of the widths."""
    found = state.memory.get("widths")
    return {} if found is None else {f"widths_{name}": value for name, value in found.items()}


def _searched(run: Run, key: Key, state: RoundState, settings, before) -> RoundState:
    plan, config = run.plan, run.plan.config
    look, learn = split_named(key, "look", "learn")
    widths = widths_of(config["potential"])
    begun = (settings.widths or widths) if before["rounds"] == 0 else widths

    def build(widths: Widths) -> Potential:
        own = _bearer(config["potential"])
        return build_potential(_replaced(own, own, widths, plan.species), plan.species)

    batches = datasets.batches(
        state.data, plan.potential.cutoff, dtype=plan.dtype, at_least=FEW_STRUCTURES,
        table=datasets.roomy(state.data),
    )  # fmt: skip
    found = search_round(
        look, Search(begun), settings, build, lambda p: _trainer(config["trainer"], p), batches,
        datasets.count(state.data),
    )  # fmt: skip
    tried = [
        {**one._asdict(), "widths": list(one.widths), "error_eV_per_A": _finite(one.error_eV_per_A)}
        for one in found.rounds[-1]
    ]
    memory = {
        "hidden": list(found.widths),
        "settled": found.settled,
        "rounds": before["rounds"] + 1,
        "weights": next(c.weights for c in found.rounds[-1] if c.widths == found.widths),
        "tried": tried,
    }
    after = state._replace(memory={**state.memory, "widths": memory})
    if found.widths == widths:
        return after
    return trained(learn, after, _with_widths(plan, list(found.widths)), None)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _trainer(spec: Mapping[str, Any], potential: Potential):
    return registry.build(TRAINERS, spec, potential, where="trainer")


def _bearer(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section that has `hidden`: the potential's, or that of the networks it is made of."""
    if spec.get("hidden"):
        return spec
    for inner in spec.values():
        if isinstance(inner, Mapping) and inner.get("hidden"):
            return inner
    raise BadInput(
        f"widths: expected a potential with `hidden` given, found {spec.get('name')} without it"
    )


def _replaced(spec: Mapping, bearer: Mapping, widths, species: tuple[int, ...]) -> dict[str, Any]:
    """The potential's section with other widths."""
    if spec is not bearer:
        inner = {k: _replaced(v, bearer, widths, species) for k, v in spec.items() if v is bearer}
        return {**spec, **inner}
    by_element = isinstance(spec["hidden"], Mapping)
    hidden = {str(z): list(widths) for z in species} if by_element else list(widths)
    return {**spec, "hidden": hidden}


def _with_widths(plan: Plan, hidden: list[int]) -> Plan:
    """The plan with potential, trainers and walks of these widths."""
    spec = plan.config["potential"]
    own = _replaced(spec, _bearer(spec), hidden, plan.species)
    config = {**plan.config, "potential": own}
    return plan._replace(config=config, **_parts(json.dumps(plain(config)), plan.species))


@lru_cache(maxsize=8)
def _parts(text: str, species: tuple[int, ...]) -> dict[str, Any]:
    """What of a plan hangs on the potential; the same objects for the same configuration, so that
    nothing is compiled again."""
    config = json.loads(text)
    potential = build_potential(config["potential"], species)
    mean = committee(potential)
    networks = getattr(potential, "networks", None)  # which are trained one by one
    taught = potential if networks is None else networks.body
    return {
        "potential": potential,
        "mean": mean,
        "trainer": _trainer(config["trainer"], taught),
        "boot": make_walks(config["data"]["boot"], mean, "data.boot"),
        "walks": tuple(
            make_walks(one, mean, f"sampler[{i}]") for i, one in enumerate(config["sampler"])
        ),
        "refit": None if config["refit"] is None else _trainer(config["refit"], taught),
    }
