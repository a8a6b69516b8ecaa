"""`alj reduce CONFIG`: the part of a labeled set that networks need to know all of it (Table 2).

Networks are trained on what is kept and predict a part of the rest. Where they disagree too much,
χ > 2δ, a structure is unknown: some of these are kept too, chosen by where they lie among the
classes of what is kept already (`selection.esoinn_queries`), and so on, until hardly anything is
unknown. M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP), with a committee of any potential in place of
networks of classes. The labels of the rest are looked at for the reported errors only.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from alj import registry
from alj.analysis.reduction_figures import covering_figure
from alj.arrays import split_named
from alj.campaign import datasets, evidence, models, patterns, replay
from alj.campaign.evaluate import Prediction, predict
from alj.campaign.parts import fit_on
from alj.campaign.reducing import Progress, rules_of
from alj.campaign.store import FolderStore, claim, write_file
from alj.potentials.combine import members
from alj.potentials.disagreement import fewest_held_out, held_out_limit
from alj.selection import esoinn_queries
from alj.selection.esoinn import begin, learn
from alj.selection.esoinn_queries import BOUNDARY, FAR, INSIDE
from alj.selection.esoinn_quota import quotas
from alj.selection.representatives import representatives
from alj.training.fitting import NotFinite
from alj.types import BadInput, Params
from alj.uncertainty.error_indicator import (
    NAMES,
    QUESTIONABLE,
    UNKNOWN,
    accuracy_limit,
    judged,
    size_aware_limit,
)

SHARED = ("data", "potential", "trainer")
KEYS = ("seed", "precision", *SHARED, "esoinn", "reduce")

REGIONS = {INSIDE: "inside", BOUNDARY: "boundary", FAR: "far"}


class Settings(NamedTuple):
    """See `reduce_settings`."""

    start: int
    add: int
    most: int
    unknown_fraction: float
    accuracy: float | None
    force_rmse: float | None
    predicted: int
    shares: tuple[float, float, float]
    limit: str = "accuracy"
    tolerance: float = 0.5
    coverage: float = 0.9


class Plan(NamedTuple):
    """All that a reduction needs: a replay's plan without its selectors, and how it goes."""

    config: dict
    replay: replay.Plan
    settings: Settings
    notes: list[str]


class Covered(NamedTuple):
    """The rows of the table, why it ended, and the file of what was kept."""

    rows: list[dict[str, Any]]
    reason: str
    kept: Path


def reduce_settings(
    *,
    start: int = 500,
    add: int = 500,
    most: int = 10_000,
    unknown_fraction: float = 0.01,
    accuracy_eV_per_A: float | None = 0.13,
    force_rmse_eV_per_A: float | None = None,
    predicted: int = 20_000,
    shares: tuple[float, float, float] = (1.0, 3.0, 1.0),
    limit: Literal["accuracy", "size_aware", "held_out"] = "accuracy",
    tolerance_eV_per_A: float = 0.5,
    coverage: float = 0.9,
) -> Settings:
    """How the kept part grows.

    Args:
        start: Structures kept at first, random ones.
        add: Structures added in a round, at most: unknown ones, then questionable ones.
        most: Structures kept at most.
        unknown_fraction: It ends where less of what is predicted is unknown.
        accuracy_eV_per_A: Force error a that every member is to reach; δ = a √members. null takes
            the errors that the members have on what they leave out of their own training.
        force_rmse_eV_per_A: It ends only where the mean of the members is as good as this, too;
            null: as good as it gets.
        predicted: Structures of the rest that are predicted in a round, random ones.
        shares: Of unknown structures inside the classes of what is kept, on their boundaries, and
            far from them, where there are more than can be added.
        limit: How δ is found: from the "accuracy", as published; "size_aware" takes what χ of so
            many atoms stays below with 95 % at that accuracy; "held_out" the largest of which the
            labels of what is predicted, and not trained on, say that what is known is right.
        tolerance_eV_per_A: For held_out, the largest force error of a structure that is right.
        coverage: For held_out, the share of the known structures that are to be right.
    """
    if not (0 < start <= most and add > 0 and predicted > 0):
        raise BadInput(
            "expected 0 < start <= most, add > 0 and predicted > 0; found "
            f"{start}, {most}, {add} and {predicted}"
        )
    if min(shares) < 0 or sum(shares) == 0:
        raise BadInput(f"shares: expected three numbers, not all 0, found {list(shares)}")
    if accuracy_eV_per_A is not None and accuracy_eV_per_A <= 0:
        raise BadInput(f"accuracy_eV_per_A: expected more than 0, found {accuracy_eV_per_A:g}")
    if not tolerance_eV_per_A > 0:
        raise BadInput(f"tolerance_eV_per_A: expected more than 0, found {tolerance_eV_per_A:g}")
    fewest_held_out(coverage)
    return Settings(
        start, add, most, unknown_fraction, accuracy_eV_per_A, force_rmse_eV_per_A, predicted,
        shares, limit, tolerance_eV_per_A, coverage,
    )  # fmt: skip


def top_settings(*, seed: int = 1, precision: str = "float32") -> tuple:
    """Settings at the top level.

    Args:
        seed: Of all that is random.
        precision: Floating-point type of networks, float32 or float64.
    """
    return seed, precision


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every default filled in. Raises BadInput."""
    for key in config:
        if key not in KEYS:
            raise BadInput(f"{key}: unknown key{registry.suggest(key, KEYS)}")
    top = registry.filled(
        top_settings, {k: config[k] for k in ("seed", "precision") if k in config}
    )
    given = registry.filled(reduce_settings, config.get("reduce") or {}, "reduce")
    shared = {key: config[key] for key in SHARED if key in config}
    learned = replay.resolve({**shared, "selectors": ["random"]})
    shared = {key: learned[key] for key in SHARED}
    return {**shared, **top, "reduce": given, "esoinn": config.get("esoinn") or {}}


def make_plan(config: Mapping[str, Any]) -> Plan:
    """The plan of a reduction. Raises BadInput for whatever is wrong with the configuration."""
    resolved = resolve(config)
    settings = registry.call(reduce_settings, resolved["reduce"], where="reduce")
    rules_of(resolved["esoinn"])
    made = replay.make_plan(
        {
            **{key: resolved[key] for key in SHARED},
            "seeds": [resolved["seed"]],
            "precision": resolved["precision"],
            "selectors": ["random"],
            "replay": {"start": settings.start, "until": settings.start, "validation": 0},
        }
    )
    members = made.trainers["random"].members
    if members < 2:
        raise BadInput(
            f"trainer.members: networks must be able to disagree; expected at least 2, found "
            f"{members}"
        )
    return Plan({**resolved, "data": made.config["data"]}, made, settings, made.notes)


def cover(
    plan: Plan,
    folder: str | Path,
    on_progress: Progress | None = None,
    say: Callable[[str], Any] | None = None,
) -> Covered:
    """Grow the kept part until hardly anything is unknown; running again goes on.

    Raises BadInput where a training fails, and for a folder of another configuration.
    """
    say, tell, folder = say or (lambda _: None), on_progress or (lambda *_: None), Path(folder)
    pool, settings = plan.replay.pool, plan.settings
    with FolderStore(folder) as store:
        claim(folder, plan.config, extendable=("reduce",), resolve=resolve)
        spectra = store.remember("spectra", lambda: patterns.spectra_of(datasets.structures(pool)))
        (begin_key,) = split_named(jax.random.key(plan.config["seed"]), "begin")
        order = np.asarray(jax.random.permutation(begin_key, datasets.count(pool)))
        kept, rows, rounds = order[: settings.start], [], []
        while True:
            index = len(rows)
            tell("rounds", index, None)

            def compute(index=index, kept=kept):
                try:
                    return _round(plan, index, kept, spectra, folder)
                except NotFinite as error:
                    raise BadInput(f"round {index}, {len(kept)} structures: {error}") from None

            found = store.remember(f"round-{index:03d}", compute)
            rows.append(found["row"])
            say(lines(rows)[-1])
            rounds.append(np.full(len(kept) - sum(map(len, rounds)), index))
            reason = _ended(settings, found["row"], len(found["chosen"]))
            if reason:
                break
            kept = np.concatenate([kept, found["chosen"][: settings.most - len(kept)]])
    target = _write(plan, folder, kept, np.concatenate(rounds), rows)
    return Covered(rows, reason, target)


def _ended(settings: Settings, row: Mapping[str, Any], chosen: int) -> str | None:
    """Why it ends here, or None."""
    good = settings.force_rmse is None or row["force_rmse_eV_per_A"] <= settings.force_rmse
    if row["unknown"] + row["broken"] < settings.unknown_fraction and good:
        return f"less than {100 * settings.unknown_fraction:g} % is unknown"
    if row["kept"] >= settings.most:
        return f"{row['kept']} structures kept (limit {settings.most})"
    return None if chosen else "nothing that is left is unknown or questionable"


def _round(plan: Plan, index: int, kept: np.ndarray, spectra, folder: Path) -> dict[str, Any]:
    """Train, predict a part of the rest, choose what is added."""
    made, settings = plan.replay, plan.settings
    key = jax.random.fold_in(jax.random.key(plan.config["seed"]), index)
    train, draw, learning = split_named(key, "train", "draw", "learning")
    trainer = made.trainers["random"]
    fitted = fit_on(made, trainer, train, kept, np.zeros(0, int))
    rest = np.setdiff1d(np.arange(datasets.count(made.pool)), kept)
    some = np.sort(rest[np.asarray(jax.random.permutation(draw, len(rest)))[: settings.predicted]])
    data = datasets.select(made.pool, some)
    chi = indicators(made.potential, fitted.params, data)
    model = models.model_of(made.potential, fitted.params, {"members": members(fitted.params)})
    said = predict(model, data)
    wrong = evidence.largest_errors(said.forces, data)
    delta = _limits(settings, fitted, datasets.sizes(data), chi, wrong)
    level = judged(chi, delta)
    row: dict[str, Any] = {"round": index, "kept": len(kept), "predicted": len(some)}
    row["delta_eV_per_A"] = float(np.median(delta)) if len(delta) else 0.0
    for part, name in enumerate(NAMES):
        row[name] = float(np.mean(level == part)) if len(level) else 0.0
    row["between_2_and_3_delta"] = float(np.mean((chi > 2 * delta) & (chi <= 3 * delta)))
    row |= _errors(said, data, chi)
    regions, chosen = _chosen(plan, learning, spectra, kept, some, chi, level)
    row |= regions
    provenance = {"kept": len(kept), "round": index}
    models.save(
        folder / "model", potential_config=plan.config["potential"], species=made.potential.species,
        params=fitted.params, precision=plan.config["precision"], provenance=provenance,
    )  # fmt: skip
    return {"row": row, "chosen": chosen}


def indicators(potential, params: Params, data: datasets.Dataset) -> np.ndarray:
    """χ of every structure, eV/Å."""
    needs = ("force_deviation",)
    return evidence.gather(potential, params, data, datasets.empty(), needs).force_deviation


def _limits(settings: Settings, fitted, atoms, chi, wrong) -> np.ndarray:
    """δ in eV/Å of every structure: √(Σ a_i²), with the target or with what each member has
    reached; what χ stays below at that accuracy; or what the labels say, of largest errors `wrong`.
    """
    if settings.limit == "held_out":
        known = np.isfinite(wrong)
        if not len(chi):
            return np.zeros(0)
        if not known.any():
            raise BadInput("reduce.limit: held_out asks labeled forces, found none; set accuracy")
        found = held_out_limit(chi[known], wrong[known], settings.tolerance, settings.coverage)
        return np.full(len(chi), found)
    accuracies = _accuracies(settings, fitted)
    if settings.limit == "size_aware":
        mean = accuracy_limit(accuracies) / len(accuracies) ** 0.5
        return size_aware_limit(mean, atoms, len(accuracies))
    return np.full(len(chi), accuracy_limit(accuracies))


def _accuracies(settings: Settings, fitted) -> list[float]:
    """Force errors in eV/Å of the members: the target, or what each has reached."""
    if settings.accuracy is not None:
        return [settings.accuracy] * len(fitted.loss)
    reached = np.asarray(fitted.error.forces, float)
    if not np.isfinite(reached).all():
        raise BadInput(
            "reduce.accuracy_eV_per_A: null takes the force errors of the members, but they train "
            "on no forces; give a number, or trainer.force_weight"
        )
    return reached.tolist()


def _errors(found: Prediction, data: datasets.Dataset, chi: np.ndarray) -> dict[str, float]:
    """Errors of the mean on what was predicted, and how often χ is above the force error."""
    wrong = np.sum((found.forces - data.forces) ** 2, axis=1) / 3.0
    each = np.sqrt(np.add.reduceat(wrong, data.offsets[:-1]) / datasets.sizes(data))
    energy = (found.energy - data.energy) / datasets.sizes(data)
    fine = np.isfinite(each)
    return {
        "force_rmse_eV_per_A": _rms(np.sqrt(wrong)),
        "energy_rmse_meV_per_atom": 1000.0 * _rms(energy),
        "indicator_above_error": float(np.mean(chi[fine] >= each[fine])) if fine.any() else 0.0,
    }


def _rms(values: np.ndarray) -> float:
    """Of what is labeled; infinite where a prediction is not a number."""
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def _chosen(plan: Plan, key, spectra, kept, some, chi, level) -> tuple[dict[str, int], np.ndarray]:
    """Places of the pool to add, and where the unknown ones lie among the classes of what is kept.

    Unknown ones are shared among the regions, the farthest of each node first; places left go to
    questionable ones, the most doubtful first.
    """
    settings, begin_key, show = plan.settings, *jax.random.split(key)
    rules = rules_of(plan.config["esoinn"])
    order = np.random.default_rng(np.asarray(jax.random.key_data(show))).permutation(kept)
    network = learn(begin(begin_key, spectra[kept]), spectra[order], rules)
    found = esoinn_queries.find(network, spectra[some])
    unknown = np.flatnonzero(level == UNKNOWN)
    bins = [unknown[found.regions[unknown] == region] for region in REGIONS]
    inside, boundary, far = map(len, bins)
    picked = []
    shares = quotas((inside, boundary, far), settings.add, settings.shares)
    for own, quota in zip(bins, shares, strict=True):
        nodes, away = found.winners[own, 0], found.distances[own, 0]
        picked.append(own[representatives(spectra[some[own]], nodes, away, quota).places])
    chosen = np.concatenate(picked)
    doubtful = np.flatnonzero(level == QUESTIONABLE)
    doubtful = doubtful[np.argsort(-chi[doubtful], kind="stable")]
    chosen = np.concatenate([chosen, doubtful[: max(settings.add - len(chosen), 0)]])
    counts = {f"unknown_{name}": len(own) for name, own in zip(REGIONS.values(), bins, strict=True)}
    return {**counts, "nodes": int(network.count)}, some[chosen.astype(int)]


_COLUMNS = {
    "round": ("round", "{}"),
    "kept": ("kept", "{}"),
    "predicted": ("predicted", "{}"),
    "delta_eV_per_A": ("δ (eV/Å)", "{:.3f}"),
    "known": ("χ < δ", "{:.2%}"),
    "questionable": ("δ < χ < 2δ", "{:.2%}"),
    "between_2_and_3_delta": ("2δ < χ < 3δ", "{:.2%}"),
    "unknown": ("χ > 2δ", "{:.2%}"),
    "force_rmse_eV_per_A": ("force RMSE (eV/Å)", "{:.3f}"),
    "energy_rmse_meV_per_atom": ("energy RMSE (meV/atom)", "{:.2f}"),
}
"""What the table shows of a row, under which heading; as Table 2 of the paper, and more."""


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table as text."""
    cells = [[heading for heading, _ in _COLUMNS.values()]]
    cells += [[form.format(row[name]) for name, (_, form) in _COLUMNS.items()] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]


def _write(plan: Plan, folder: Path, kept: np.ndarray, rounds: np.ndarray, rows) -> Path:
    """The kept structures with the round of each, the table and the figure."""
    data = datasets.select(plan.replay.pool, kept)
    info = tuple(
        {**about, "pool_index": int(place), "kept_round": int(round_)}
        for about, place, round_ in zip(data.info, kept, rounds, strict=True)
    )
    target = folder / "kept.extxyz"
    datasets.write(target, data._replace(info=info))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    write_file(folder / "rounds.csv", text.getvalue().encode())
    image = io.BytesIO()
    covering_figure(rows, datasets.count(plan.replay.pool)).savefig(image, dpi=150, format="png")
    write_file(folder / "rounds.png", image.getvalue())
    return target
