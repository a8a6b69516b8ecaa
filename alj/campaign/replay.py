"""Active learning replayed on a pool that is labeled already: learning curves of selectors.

Every selector with every seed follows a path of its own, from the same start for the same seed:
fit, choose a share of what is known so far, add it, fit again. A selector chooses with a briefly
trained network; errors on the test set are those of a network that `judge` trains, for all
selectors alike. Paths are independent of each other; each remembers its rounds, so that running
again goes on.
"""

import json
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from alj import registry
from alj.analysis import errors as measures
from alj.annotations import plain
from alj.arrays import split_named
from alj.campaign import datasets, evidence, models
from alj.campaign.datasets import Dataset
from alj.campaign.evaluate import predict
from alj.campaign.parts import fit_on
from alj.campaign.programs import forget_when_many
from alj.campaign.store import FolderStore
from alj.campaign.values import walks_of
from alj.potentials import build_potential, resolve_potential
from alj.selection import SELECTORS
from alj.training import TRAINERS
from alj.training.fitting import NotFinite
from alj.types import BadInput, Params, Potential, Selector, Trainer

KEYS = ("seeds", "precision", "data", "potential", "trainer", "judge", "selectors", "replay")

QUANTITIES = {
    "force_mae": "force MAE (meV/Å)",
    "force_rmse": "force RMSE (meV/Å)",
    "force_max": "largest force error (meV/Å)",
    "energy_mae": "energy MAE (meV/atom)",
    "energy_rmse": "energy RMSE (meV/atom)",
    "energy_max": "largest energy error (meV/atom)",
}
"""What is measured on the test set, with its unit."""


class Settings(NamedTuple):
    """How a replay goes, see `replay_settings`."""

    start: int
    until: int
    share: float
    validation: int
    judged_at: tuple[int, ...]
    reference: str


class Plan(NamedTuple):
    """All that a replay needs, built and checked; `config` is resolved."""

    config: dict
    seeds: tuple[int, ...]
    selectors: dict[str, Selector]
    trainers: dict[str, Trainer]
    judge: Trainer | None
    potential: Potential
    settings: Settings
    pool: Dataset
    test: Dataset
    notes: list[str]


def replay_settings(
    *,
    start: int = 100,
    until: int = 400,
    share: float = 0.25,
    validation: int = 200,
    judged_at: tuple[int, ...] = (),
    reference: str = "random",
) -> Settings:
    """How the training set grows.

    Args:
        start: Structures of the first training set, random ones, the same for all selectors.
        until: Structures of the last training set.
        share: Structures added in a round, as a share of those trained on so far.
        validation: Structures that stop the training, drawn anew each round from the pool and still
            there to be chosen.
        judged_at: Sizes of the training set; errors are measured in the first round that reaches
            one, and in the last. Empty for every round.
        reference: The selector beside which labels are counted.
    """
    if not (0 < start <= until and share > 0 and validation >= 0):
        raise BadInput(
            "replay: expected 0 < start <= until, share > 0 and validation >= 0; found "
            f"{start}, {until}, {share} and {validation}"
        )
    return Settings(start, until, share, validation, tuple(judged_at), reference)


def data_settings(
    *,
    pool: str,
    test: str | None = None,
    test_count: int = 1000,
    keep: int | None = None,
    digest: str | None = None,
) -> tuple:
    """The labeled structures.

    Args:
        pool: File of labeled structures that the learner chooses from.
        test: File that errors are measured on.
        test_count: Structures of `pool` to test on where there is no file `test`, random ones,
            the same for all selectors and seeds.
        keep: Use only so many structures of `pool`, random ones; null for all.
        digest: What tells these structures and labels from others, as `run.yaml` says it; null:
            whatever the files hold.
    """
    return pool, test, test_count, keep, digest


def top_settings(*, seeds: tuple[int, ...] = (1,), precision: str = "float32") -> tuple:
    """Settings at the top level.

    Args:
        seeds: Paths of every selector; each decides on start, weights and batches.
        precision: Floating-point type of networks, float32 or float64.
    """
    return seeds, precision


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every default filled in. Raises BadInput."""
    for key in config:
        if key not in KEYS:
            raise BadInput(f"{key}: unknown key{registry.suggest(key, KEYS)}")
    for key in ("data", "selectors", "trainer"):
        if not config.get(key):
            raise BadInput(f"{key}: expected this section in the configuration, found none")
    top = {key: config[key] for key in ("seeds", "precision") if key in config}
    return {
        **registry.filled(top_settings, top),
        "data": registry.filled(data_settings, config["data"], "data"),
        "potential": resolve_potential(config.get("potential") or "gaussian_moments"),
        "trainer": registry.resolve(TRAINERS, config["trainer"], "trainer"),
        "judge": config.get("judge") and registry.resolve(TRAINERS, config["judge"], "judge"),
        "selectors": dict(_selectors(config["selectors"])),
        "replay": registry.filled(replay_settings, config.get("replay") or {}, "replay"),
    }


def make_plan(config: Mapping[str, Any]) -> Plan:
    """The plan of a replay. Raises BadInput for whatever is wrong with the configuration."""
    resolved = resolve(config)
    if not resolved["seeds"] or len(set(resolved["seeds"])) < len(resolved["seeds"]):
        raise BadInput(f"seeds: expected different numbers, found {list(resolved['seeds'])}")
    settings = registry.call(replay_settings, resolved["replay"], where="replay")
    if settings.reference not in resolved["selectors"]:
        known = ", ".join(resolved["selectors"])
        raise BadInput(f"replay.reference: {settings.reference} is none of: {known}")
    pool, test, notes = _read(resolved["data"], settings)
    species = tuple(sorted({int(z) for z in [*pool.species, *test.species]}))
    found, wanted = datasets.digest(pool, test), resolved["data"]["digest"]
    if wanted not in (None, found):
        raise BadInput(f"data.digest: the files hold other data, found {found}, not {wanted}")
    resolved["data"]["digest"] = found
    potential = build_potential(resolved["potential"], species)
    if potential.networks is not None:
        raise BadInput(
            "potential: meta_networks are trained class by class, in campaigns only; expected "
            "another potential"
        )
    trainers, selectors = {}, {}
    for name, spec in resolved["selectors"].items():
        own = {**resolved["trainer"], **spec.get("trainer", {})}
        trainers[name] = registry.build(TRAINERS, own, potential, where=f"selectors.{name}.trainer")
        bare = {key: value for key, value in spec.items() if key != "trainer"}
        selectors[name] = registry.build(SELECTORS, bare, where=f"selectors.{name}")
    judge = resolved["judge"] and registry.build(
        TRAINERS, resolved["judge"], potential, where="judge"
    )
    return Plan(
        resolved, tuple(resolved["seeds"]), selectors, trainers, judge, potential, settings, pool,
        test, notes,
    )  # fmt: skip


def rounds_of(settings: Settings) -> list[int]:
    """The sizes of the training set, round by round.

    >>> rounds_of(Settings(100, 160, 0.25, 0, (), "random"))
    [100, 125, 156, 160]
    """
    sizes = [settings.start]
    while sizes[-1] < settings.until:
        more = max(round(settings.share * sizes[-1]), 1)
        sizes.append(min(sizes[-1] + more, settings.until))
    return sizes


def follow(plan: Plan, name: str, seed: int, store: FolderStore) -> list[dict]:
    """One path, or what is left of it: a report for every round.

    Raises BadInput where the folder holds the path of another selector of that name.
    """
    own = [plain(plan.config["selectors"][name]), seed]
    spec, *rest = json.loads(store.remember("selector", lambda: json.dumps(own)))
    if [plain(dict(_selectors({name: spec}))[name]), *rest] != own:
        raise BadInput(
            f"selectors.{name}: its settings have changed since this path was begun; give it "
            "another name, or choose another folder (--out)"
        )
    (begin,) = split_named(jax.random.key(seed), "begin")
    order = np.asarray(jax.random.permutation(begin, datasets.count(plan.pool)))
    train, reports = order[: plan.settings.start], []
    sizes = rounds_of(plan.settings)
    for index, (size, after) in enumerate(pairwise([*sizes, sizes[-1]])):
        wanted = after - size

        def compute(index=index, train=train, wanted=wanted):
            try:
                return _round(plan, name, seed, index, train, wanted)
            except NotFinite as error:
                raise BadInput(f"{name}, seed {seed}, {len(train)} labels: {error}") from None

        found = store.remember(f"round-{index:03d}", compute)
        reports.append(found)
        train = np.concatenate([train, found["chosen"]])
        forget_when_many()
    return reports


def _round(plan: Plan, name, seed, index, train, wanted) -> dict[str, Any]:
    """Fit, judge, choose; with how well the scores told where the network was wrong."""
    key = jax.random.fold_in(jax.random.key(seed), index)
    draw, brief, long, choose = split_named(key, "draw", "brief", "long", "choose")
    rest = np.setdiff1d(np.arange(datasets.count(plan.pool)), train)
    validation = rest[np.asarray(jax.random.permutation(draw, len(rest)))]
    validation = validation[: plan.settings.validation]
    selector, trainer = plan.selectors[name], plan.trainers[name]
    report: dict[str, Any] = {"labels": len(train), "chosen": np.zeros(0, int), "seconds": {}}
    judged = _judged(plan.settings, len(train), wanted)
    params = None
    if (wanted and selector.needs) or (judged and plan.judge is None):
        began = time.monotonic()
        params = fitted(plan, trainer, brief, train, validation)
        report["seconds"]["train"] = time.monotonic() - began
    if wanted:
        began = time.monotonic()
        report |= _chosen(plan, selector, choose, params, train, rest, wanted)
        report["seconds"]["choose"] = time.monotonic() - began
    if judged:
        began = time.monotonic()
        final = params if plan.judge is None else fitted(plan, plan.judge, long, train, validation)
        report["errors"] = _errors(plan, final)
        report["seconds"]["judge"] = time.monotonic() - began
    return report


def _judged(settings: Settings, size: int, wanted: int) -> bool:
    """Whether errors are measured at this size: the first at or above each of `judged_at`."""
    if not settings.judged_at or not wanted:
        return True
    reached = [min(s for s in rounds_of(settings) if s >= at) for at in settings.judged_at
               if at <= settings.until]  # fmt: skip
    return size in reached


def fitted(plan: Plan, trainer: Trainer, key, train, validation) -> Params:
    """A committee trained on some places of the pool, others stopping it."""
    return fit_on(plan, trainer, key, train, validation).params


def _chosen(plan, selector, key, params, train, rest, wanted) -> dict[str, Any]:
    """Places in the pool, and the correlation of each score with the errors of the candidates.

    Where fewer qualify than a path must add, to be compared at equal sizes, `filled` random ones
    make up for them.
    """
    pool, known = datasets.select(plan.pool, rest), datasets.select(plan.pool, train)
    given = {"samplers": np.zeros(len(rest), int), "walks": walks_of(pool),
             "spacing": np.arange(len(rest), dtype=float)}  # fmt: skip
    found = evidence.gather(plan.potential, params, pool, known, selector.needs, **given)
    pick, fill = split_named(key, "pick", "fill")
    picks = np.asarray(selector.choose(pick, found, wanted))
    picks = picks[picks >= 0]
    others = np.setdiff1d(np.arange(len(rest)), picks)
    more = np.asarray(jax.random.permutation(fill, len(others)))[: wanted - len(picks)]
    return {
        "chosen": rest[np.concatenate([picks, others[more]])],
        "filled": len(more),
        "correlation": _correlations(plan, params, pool, found),
    }


def _correlations(plan, params, pool, found) -> dict[str, dict[str, float]]:
    """Pearson and Spearman of every score with the mean absolute force error and energy error."""
    scores = {
        name: np.asarray(value)
        for name, value in found._asdict().items()
        if name in ("qs1", "qs2", "qs2_sketched") and value is not None
    }
    atoms = datasets.sizes(pool)
    if found.energy_spread is not None:
        scores["energy_spread"] = atoms * np.asarray(found.energy_spread)
    if found.force_spread is not None:
        scores["force_spread"] = np.sum(np.asarray(found.force_spread), axis=1) / atoms
    if not scores:
        return {}
    forces, energies = per_structure(plan, params, pool)
    result = {}
    for name, score in scores.items():
        result[name] = {
            f"{kind}_{against}{suffix}": float(
                measure(*_known(form(np.maximum(score, 0.0)), wrong))
            )
            for against, wrong in (("forces", forces), ("energy", energies))
            for kind, measure in (("pearson", measures.pearson), ("spearman", measures.spearman))
            for suffix, form in (("", np.asarray), ("_root", np.sqrt))
            if not (kind == "spearman" and suffix)
        }
    return result


def _known(score: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fine = np.isfinite(score) & np.isfinite(wrong)
    return score[fine], wrong[fine]


def _model(plan: Plan, params: Params):
    return models.model_of(plan.potential, params, {})


def per_structure(plan, params, data) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute force error (eV/Å) and absolute error of the whole energy (eV), one each."""
    found = predict(_model(plan, params), data)
    wrong = np.abs(found.forces - data.forces).mean(axis=1)
    forces = np.add.reduceat(wrong, data.offsets[:-1]) / datasets.sizes(data)
    return forces, np.abs(found.energy - data.energy)


def _errors(plan: Plan, params) -> dict[str, float]:
    found = predict(_model(plan, params), plan.test)
    test, atoms = plan.test, datasets.sizes(plan.test)
    parts = {
        "force": 1000.0 * (found.forces - test.forces)[np.isfinite(test.forces)],
        "energy": 1000.0 * ((found.energy - test.energy) / atoms)[np.isfinite(test.energy)],
    }
    kinds = {"mae": measures.mae, "rmse": measures.rmse, "max": measures.largest}
    # What is not a number here is a prediction: the network has diverged.
    return {
        f"{name}_{kind}": f(part) if np.isfinite(part).all() else float("inf")
        for name, part in parts.items()
        for kind, f in kinds.items()
    }


def _selectors(given: Any):
    """Named specifications; a list of names, or a mapping of names of one's own."""
    entries = given.items() if isinstance(given, Mapping) else [(_name(one), one) for one in given]
    entries = list(entries)
    names = [name for name, _ in entries]
    if len(set(names)) < len(names):
        raise BadInput(
            f"selectors: {', '.join(names)} are not all different; give them names of your own "
            "(a mapping)"
        )
    for name, spec in entries:
        spec = {"name": spec} if isinstance(spec, str) else dict(spec)
        bare = {key: value for key, value in spec.items() if key != "trainer"}
        full = registry.resolve(SELECTORS, bare, f"selectors.{name}")
        yield name, {**full, **({"trainer": spec["trainer"]} if "trainer" in spec else {})}


def _name(spec) -> str:
    return spec if isinstance(spec, str) else str(spec.get("name"))


def _read(data: dict, settings: Settings) -> tuple[Dataset, Dataset, list[str]]:
    pool, taken = datasets.read(data["pool"])
    notes = [f"{data['pool']}: {taken}"]
    order = np.random.default_rng(0).permutation(datasets.count(pool))
    if data["test"] is not None:
        test, taken = datasets.read(data["test"])
        notes.append(f"{data['test']}: {taken}")
    else:
        test = datasets.select(pool, np.sort(order[: data["test_count"]]))
        order = order[data["test_count"] :]
    pool = datasets.select(pool, np.sort(order[: data["keep"]]))
    needed = settings.until + settings.validation
    if datasets.count(pool) < needed or not datasets.count(test):
        raise BadInput(
            f"data: {data['pool']} leaves {datasets.count(pool)} structures to choose from and "
            f"{datasets.count(test)} to test on; expected at least {needed} and 1"
        )
    return pool, test, notes
