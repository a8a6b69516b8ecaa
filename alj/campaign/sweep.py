"""Sweeps: one configuration with many settings, by a grid or by Optuna, with several seeds each.

Every trial is a run folder of its own, started as a command of its own by an executor, which bounds
its time and memory and says what it died of. What is finished is remembered; what was cut off goes
on in its folder, so that running a sweep again ends it. T. Akiba et al., KDD 2019,
doi:10.1145/3292500.3330701.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from alj import registry
from alj.campaign import plan as campaigns
from alj.campaign import supervised
from alj.campaign.config import dump, override_one, read
from alj.campaign.executors import EXECUTORS, Executor
from alj.campaign.store import write_file
from alj.campaign.trials import Trial, TrialRunner, failed, placeholder
from alj.labeling.install import needed
from alj.types import BadInput, LabelingFailed

KEYS = (
    "config", "set", "command", "grid", "search", "seeds", "objective", "judged_on", "direction",
    "executor",
)  # fmt: skip


class Sweep(NamedTuple):
    """All that a sweep needs, checked; `config` is resolved.

    `base` is the configuration under all trials, `grid` its points (empty for a search).
    """

    config: dict[str, Any]
    base: dict[str, Any]
    grid: list[dict[str, Any]]


class Row(NamedTuple):
    """One trial in the table; `value` is NaN and `reason` says why where there is none."""

    number: int
    seed: int
    parameters: dict[str, Any]
    value: float
    seconds: float
    labels: int
    reason: str


def sweep_settings(
    *,
    command: Literal["run", "train"] = "run",
    seeds: tuple[int, ...] = (1,),
    objective: Literal[
        "energy_mae_meV_per_atom",
        "energy_rmse_meV_per_atom",
        "force_mae_eV_per_A",
        "force_rmse_eV_per_A",
        "labels",
    ] = "energy_mae_meV_per_atom",
    judged_on: Literal["test", "validation", "train"] = "test",
    direction: Literal["minimize", "maximize"] = "minimize",
) -> tuple:
    """What is done with every trial, and what is wanted of it.

    Args:
        command: campaigns (run) or trainings on given data (train).
        seeds: every setting is tried with each of these; a search sees the mean.
        objective: an error of the last model, or the number of labels.
        judged_on: structures that the error is of.
        direction: whether it is to be small or large.
    """
    return command, seeds, objective, judged_on, direction


def search_settings(
    *, parameters: dict = {}, trials: int = 20, together: int = 1, seed: int = 0,  # noqa: B006
) -> tuple:  # fmt: skip
    """A search by Optuna's tree-structured Parzen estimator.

    Args:
        parameters: for each path {low, high}, with log or step where wanted, or {choices: […]}.
        trials: settings that are tried, at most.
        together: settings that are asked for before the first answer of them is known.
        seed: of the sampler.
    """
    return parameters, trials, together, seed


def make_sweep(path: str | Path) -> Sweep:
    """The sweep that a file describes. Raises BadInput for whatever is wrong, in any trial."""
    given = read(path)
    for key in given:
        if key not in KEYS:
            raise BadInput(f"{key}: unknown key{registry.suggest(key, KEYS)}")
    base = given.get("config")
    if base is None:
        raise BadInput("config: expected the configuration of a run (a file, or a mapping)")
    base = read(Path(path).parent / base) if isinstance(base, str) else dict(base)
    if bool(given.get("grid")) == bool(given.get("search")):
        raise BadInput("expected one of grid and search, found both or none")
    names = [setting.name for setting in registry.schema(sweep_settings)]
    top = registry.filled(sweep_settings, {k: given[k] for k in names if k in given})
    for key, value in (given.get("set") or {}).items():
        base = changed(base, {key: value})
    executor = registry.resolve(EXECUTORS, _unhurried(given.get("executor") or "local"), "executor")
    config = {"config": base, **top, "executor": executor}
    if given.get("search"):
        search = registry.filled(search_settings, given["search"], "search")
        config["search"] = search
        points = list(_corners(search["parameters"]))
        grid: list[dict[str, Any]] = []
    else:
        grid = points = _points(given["grid"])
        config["grid"] = given["grid"]
    resolve = campaigns.resolve if top["command"] == "run" else supervised.resolve
    for point in points:
        here = changed(base, point)
        try:
            resolve(here)
        except BadInput as error:
            told = ", ".join(f"{k}={v}" for k, v in point.items())
            raise BadInput(f"{error} (with {told})") from None
    return Sweep(config, base, grid)


def changed(config: dict, parameters: Mapping[str, Any]) -> dict:
    """The configuration with values at other paths. Raises BadInput."""
    for path, value in parameters.items():
        config = override_one(config, f"{path}={json.dumps(value)}")
    return config


def run_sweep(
    sweep: Sweep,
    folder: Path,
    on_row: Callable[[Row], None] | None = None,
    *,
    again: bool = False,
) -> list[Row]:
    """Try everything that has not been tried; the whole table. Raises BadInput.

    `again` tries what has failed once more.
    """
    write_file(folder / "sweep.yaml", dump(sweep.config).encode())
    executor = registry.build(EXECUTORS, sweep.config["executor"], where="executor")
    rows: dict[tuple[int, int], Row] = {}

    def told(row: Row) -> None:
        rows[row.number, row.seed] = row
        write_file(folder / "trials.csv", table(list(rows.values())).encode())
        if on_row is not None:
            on_row(row)

    try:
        if sweep.grid:
            _tried(sweep, folder, executor, dict(enumerate(sweep.grid)), told, again)
        else:
            _searched(sweep, folder, executor, told, again)
    finally:
        executor.close()
    return sorted(rows.values(), key=lambda row: (row.number, row.seed))


def summary(rows: list[Row], direction: str = "minimize") -> list[tuple[dict, float, float, int]]:
    """Of every setting: parameters, mean, standard deviation over seeds, failures; best first."""
    found = []
    for number in sorted({row.number for row in rows}):
        mine = [row for row in rows if row.number == number]
        values = np.array([row.value for row in mine])
        good = values[np.isfinite(values)]
        mean = float(good.mean()) if len(good) else math.nan
        spread = float(good.std(ddof=1)) if len(good) > 1 else math.nan
        found.append((mine[0].parameters, mean, spread, int(len(mine) - len(good))))
    sign = 1 if direction == "minimize" else -1
    return sorted(found, key=lambda one: sign * one[1] if np.isfinite(one[1]) else math.inf)


def table(rows: list[Row]) -> str:
    """All trials as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row.parameters))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "seed", *names, "value", "labels", "seconds", "reason"])
    for row in sorted(rows, key=lambda row: (row.number, row.seed)):
        values = [json.dumps(row.parameters.get(name)) for name in names]
        value = "" if math.isnan(row.value) else repr(row.value)
        writer.writerow(
            [row.number, row.seed, *values, value, row.labels, f"{row.seconds:.1f}", row.reason]
        )
    return stream.getvalue()


def _tried(
    sweep: Sweep, folder: Path, executor: Executor, points: dict[int, dict], told, again: bool
) -> dict[int, float]:
    """Every point with every seed; the mean objective of each, NaN where a seed has failed."""
    config, trials = sweep.config, []
    for number, parameters in points.items():
        for seed in config["seeds"]:
            here = {**changed(sweep.base, parameters), "seed": seed}
            # named by what it is: a grid may grow in its midst
            name = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()[:12]
            place = str((folder / "trials" / name).resolve())
            trials.append(Trial(number, seed, parameters, place, here))
    values: dict[int, list[float]] = {number: [] for number in points}

    def keep(trial: Trial, answer) -> None:
        row = _row(trial, answer)
        values[trial.number].append(row.value)
        told(row)

    runner: Any = TrialRunner(
        tuple(trials), config["command"], config["objective"], config["judged_on"]
    )
    missing = []
    for trial in trials:
        known = runner.known(trial, again=again)
        missing += [trial] if known is None else []
        if known is not None:
            keep(trial, known)
    runner = runner._replace(trials=tuple(missing))
    structures = [placeholder(i) for i in range(len(missing))]
    for finished in executor.run(runner, structures) if missing else ():
        for i, answer in finished:
            failure = answer.result if isinstance(answer.result, LabelingFailed) else None
            result = runner.known(missing[i], again=True)
            if result is None or failure is not None:
                result = failed(missing[i], failure, answer.seconds)
            keep(missing[i], result)
    return {number: float(np.mean(each)) for number, each in values.items()}


def _row(trial: Trial, answer: dict[str, Any]) -> Row:
    value = answer.get("value", math.nan)
    return Row(
        trial.number, trial.seed, dict(trial.parameters), float(value),
        float(answer.get("seconds", 0.0)), int(answer.get("labels", 0)), answer.get("reason", ""),
    )  # fmt: skip


def _searched(sweep: Sweep, folder: Path, executor: Executor, told, again: bool) -> None:
    optuna = needed("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search, states = sweep.config["search"], optuna.trial.TrialState
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="sweep", load_if_exists=True,
        direction=sweep.config["direction"],
        sampler=optuna.samplers.TPESampler(seed=search["seed"] + _asked(backend, optuna)),
    )  # fmt: skip
    paths = set(search["parameters"])
    done, open_trials = {}, {}
    for trial in study.trials:
        if set(trial.params) != paths:  # it was cut off while it was asked for
            if trial.state == states.RUNNING:
                study.tell(trial.number, state=states.FAIL)
        elif trial.state == states.RUNNING:
            open_trials[trial.number] = dict(trial.params)
        else:
            done[trial.number] = _spoken(trial.params)
    _tried(sweep, folder, executor, done, told, again)
    while len(study.trials) < search["trials"] or open_trials:
        wanted = min(search["together"], search["trials"] - len(study.trials))
        for _ in range(max(0, wanted) if not open_trials else 0):
            trial = study.ask()
            for path, spec in search["parameters"].items():
                _suggested(trial, path, spec)
            open_trials[trial.number] = dict(trial.params)
        points = {number: _spoken(params) for number, params in open_trials.items()}
        for number, value in _tried(sweep, folder, executor, points, told, again).items():
            bad = math.isnan(value)
            study.tell(number, None if bad else value, state=states.FAIL if bad else None)
        open_trials = {}


def _asked(backend, optuna) -> int:
    """Settings asked for so far: a search that goes on must not draw the first ones again."""
    storage = optuna.storages.JournalStorage(backend)
    return sum(study.n_trials for study in optuna.get_all_study_summaries(storage))


def _suggested(trial, path: str, spec: dict) -> None:
    if "choices" in spec:
        # Optuna knows plain values only
        trial.suggest_categorical(path, [json.dumps(choice) for choice in spec["choices"]])
    elif all(isinstance(spec[end], int) for end in ("low", "high")):
        options = {"step": spec.get("step", 1), "log": bool(spec.get("log"))}
        trial.suggest_int(path, spec["low"], spec["high"], **options)
    else:
        options = {"step": spec.get("step"), "log": bool(spec.get("log"))}
        trial.suggest_float(path, float(spec["low"]), float(spec["high"]), **options)


def _spoken(params: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in params.items()}


def _points(grid: Any) -> list[dict[str, Any]]:
    if not isinstance(grid, Mapping) or not all(isinstance(v, list) and v for v in grid.values()):
        raise BadInput(
            "grid: expected lists of values under paths, such as trainer.members: [2, 4]"
        )
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def _corners(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings that say whether every path and value of a search is one."""
    first = {}
    for path, spec in parameters.items():
        where = f"search.parameters.{path}"
        if not isinstance(spec, Mapping) or not (
            {"low", "high"} <= set(spec) or spec.get("choices")
        ):
            raise BadInput(f"{where}: expected {{low, high}} or {{choices}}, found {spec!r}")
        known = ("low", "high", "log", "step", "choices")
        for key in spec:
            if key not in known:
                raise BadInput(f"{where}.{key}: unknown key{registry.suggest(key, known)}")
        values = spec.get("choices") or [spec["low"], spec["high"]]
        first[path] = values[0]
    if not first:
        raise BadInput(
            "search.parameters: expected at least one path with {low, high} or {choices}"
        )
    for path, spec in parameters.items():
        for value in spec.get("choices") or [spec["low"], spec["high"]]:
            yield {**first, path: value}


def _unhurried(spec: Any) -> dict[str, Any]:
    """A run takes longer than a label: one at a time for each worker, without a time limit."""
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    builder = registry.find(EXECUTORS, spec.get("name", ""), "executor")
    takes = {setting.name for setting in registry.schema(builder)}
    usual = {"labels_per_task": 1, "timeout_seconds": None}
    return {**{key: value for key, value in usual.items() if key in takes}, **spec}
