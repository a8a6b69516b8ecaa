"""The campaign: rounds of propose, label, absorb in a folder that remembers everything.

The only loop with effects. Whatever was finished before a crash is read back, so running again
resumes, and ends as an undisturbed run would have ended.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from alj.arrays import split_named
from alj.campaign import datasets, events, evidence, models
from alj.campaign.cutoffs import check_cutoff
from alj.campaign.evaluate import evaluate, parity, predict
from alj.campaign.labels import content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.campaign.plan import Plan, make_plan
from alj.campaign.reference_test import reference_test
from alj.campaign.rounds import Proposal, RoundState, absorb, initial, propose, verdict
from alj.campaign.store import FolderStore, claim, write_file
from alj.campaign.tables import save_arrays
from alj.types import BadInput, LabelingFailed

PAUSED, DONE = 4, 0


class Outcome(NamedTuple):
    """How a campaign ended: why, and the exit code of the command."""

    reason: str
    exit_code: int


class Run(NamedTuple):
    """What the stages of one run share."""

    plan: Plan
    folder: Path
    store: FolderStore
    ledger: Ledger
    emit: Callable[[dict], None]


def run_campaign(
    config: dict, folder: str | Path, on_event: Callable[[dict], None] | None = None
) -> Outcome:
    """Run or resume the campaign of `config` in `folder`.

    Raises BadInput for whatever is wrong with the input or the folder, DiskFull without space.
    """
    plan, folder = make_plan(config), Path(folder)

    def emit(event: dict) -> None:
        events.append(folder, event)
        if on_event is not None:
            on_event({"time": time.time(), **event})

    with FolderStore(folder) as store:
        claim(folder, plan.config)
        with Ledger(folder) as ledger:
            return _rounds(Run(plan, folder, store, ledger, emit))


def _rounds(run: Run) -> Outcome:
    plan, store = run.plan, run.store
    begin, test_key = split_named(plan.key, "begin", "test")
    resumed = store.knows("000/state")
    state = store.remember("000/state", lambda: _initial(run, begin))
    run.emit(
        {
            "event": "campaign", "round": _finished(store), "rounds": plan.rounds,
            "resumed": resumed, "run": str(run.folder), "labeler": plan.labeler.name,
            "atoms": len(state.start.species),
        }
    )  # fmt: skip
    test = store.remember("test", lambda: _test_set(run, test_key, state))
    reason = f"all {plan.rounds} rounds done"
    for index in range(plan.rounds):
        state, paused = _round(run, index, state, test)
        if paused:
            run.emit({"event": "paused", "round": index, "reason": paused})
            return Outcome(paused, PAUSED)
        ended = verdict(plan, state, run.ledger.counts()["labeled"])
        if ended:
            reason = ended
            break
    _finish(run, state, test)
    run.emit({"event": "finished", "reason": reason, "exit": DONE})
    return Outcome(reason, DONE)


def _round(run: Run, index: int, state: RoundState, test) -> tuple[RoundState, str | None]:
    """One round; the next state, or the reason for a pause."""
    plan, store = run.plan, run.store
    ask, learn = split_named(jax.random.fold_in(plan.key, index), "ask", "learn")
    watch = _Watch(run, index)

    def ask_for() -> Proposal:
        watch.stage("explore")
        return propose(ask, state, plan, watch.walking)

    chosen = store.remember(f"{index:03d}/chosen", ask_for)
    answers = _label(run, index, chosen, watch)
    failures = [a for a in answers if isinstance(a, LabelingFailed)]
    if run.ledger.counts()["failed"] > plan.stop.failed_labels:
        kinds = run.ledger.counts()["failures"]
        return state, f"{sum(kinds.values())} labels failed ({kinds}); see alj status --failures"
    labels = [None if isinstance(a, LabelingFailed) else a for a in answers]

    def learn_from() -> tuple[RoundState, dict]:
        watch.stage("train")
        return absorb(learn, state, chosen, labels, plan, {"on_block": watch.training})

    after, judged = store.remember(f"{index + 1:03d}/state", learn_from)
    known = store.knows(f"{index:03d}/report")
    report = store.remember(
        f"{index:03d}/report", lambda: _report(run, index, chosen, judged, after, test, watch)
    )
    if not known:
        _record(run, index, chosen, answers, judged)
        run.emit({"event": "round", **report, "failed_now": len(failures)})
    return after, None


def _initial(run: Run, key) -> RoundState:
    run.emit({"event": "stage", "round": 0, "stage": "start"})
    data = datasets.empty()
    if run.plan.data.initial is not None:
        data, taken = datasets.read(run.plan.data.initial, species=run.plan.species)
        run.emit({"event": "note", "text": f"{run.plan.data.initial}: {taken}"})
    return initial(run.plan, key, data)


def _test_set(run: Run, key, state: RoundState):
    plan = run.plan
    if plan.data.test is not None:
        data, taken = datasets.read(plan.data.test, species=plan.species)
        run.emit({"event": "note", "text": f"{plan.data.test}: {taken}"})
        return data
    if not plan.config["data"]["reference_test"]:
        return datasets.empty()
    run.emit({"event": "stage", "round": 0, "stage": "test set"})
    return reference_test(key, plan.config["data"]["reference_test"], plan.labeler, state.start)


def _label(run: Run, index: int, chosen: Proposal, watch) -> list:
    watch.stage("label")
    structures = datasets.structures(chosen.chosen)
    return label_all(run.plan.executor, run.plan.labeler, structures, run.ledger)


def _record(run: Run, index: int, chosen: Proposal, answers: list, judged: dict) -> None:
    """Files first, ledger row after."""
    structures = datasets.structures(chosen.chosen)
    good = [i for i, a in enumerate(answers) if not isinstance(a, LabelingFailed)]
    labeled = datasets.append(
        datasets.empty(),
        [structures[i] for i in good],
        [answers[i] for i in good],
        [chosen.chosen.info[i] for i in good],
    )
    datasets.write(run.folder / "rounds" / f"{index:03d}" / "labeled.extxyz", labeled)
    kept = np.asarray(judged["kept_mask"], bool)
    run.ledger.record(
        index,
        [content_hash(run.plan.labeler, s) for s in structures],
        origins=[info["origin"] for info in chosen.chosen.info],
        scores=np.abs(judged["errors"]).tolist(),  # NaN (nothing predicted, or no label) is NULL
        model=f"{index:03d}",
        kept=kept.tolist(),
        why=["kept" if k else "failed or predicted well" for k in kept],
    )


def _report(run, index, chosen, judged, after, test, watch) -> dict:
    """What the monitor shows of a round; also writes the model and the test's predictions."""
    watch.stage("test")
    counts = run.ledger.counts()
    error = _tested(run, after, test)
    _save_model(run, after)
    fitted = after.memory.get("fit", {})
    atoms = datasets.sizes(chosen.chosen)
    known = chosen.report
    return {
        "round": index,
        "labels": counts["labeled"],
        "failed": counts["failed"],
        "failures": counts["failures"],
        "kept": datasets.count(after.data),
        "start_labels": after.memory["start_labels"],
        **{k: v for k, v in judged.items() if k.endswith("_per_atom")},
        **{k: v for k, v in fitted.items() if k.endswith("_per_atom")},
        "test_mae_meV_per_atom": error,
        "acceptance": known["acceptance"],
        "ladder": known["ladder"],
        "stopped_walks": known["stopped"],
        "chosen_energy_eV_per_atom": (chosen.predicted / np.maximum(atoms, 1)).tolist(),
        "seconds": watch.seconds(),
    }


def _tested(run: Run, state: RoundState, test) -> float | None:
    """Mean absolute error in meV/atom on the test set."""
    if not datasets.count(test):
        return None
    energies = evidence.member_energies(run.plan.potential, state.params, test).mean(axis=1)
    errors = (energies - test.energy) / datasets.sizes(test)
    return float(1000 * np.mean(np.abs(errors)))


def _save_model(run: Run, state: RoundState) -> None:
    models.save(
        run.folder / "model",
        potential_config=run.plan.config["potential"],
        species=run.plan.species,
        params=state.params,
        precision=run.plan.config["precision"],
        provenance={"round": state.round, "structures": datasets.count(state.data)},
    )


def _finish(run: Run, state: RoundState, test) -> None:
    """The model, its errors on the test set and on its training data, once all rounds are done."""
    _save_model(run, state)
    model = models.load(run.folder / "model")
    for name, data in (("test", test), ("train", state.data)):
        if datasets.count(data):
            predicted = predict(model, data)
            arrays, errors = parity(model, data, predicted), evaluate(model, data, predicted)
            save_arrays(run.folder / "results" / f"{name}.npz", arrays)
            text = json.dumps(errors, indent=1) + "\n"
            write_file(run.folder / "results" / f"{name}.json", text.encode())


def _finished(store: FolderStore) -> int:
    """The number of rounds already behind."""
    index = 0
    while store.knows(f"{index + 1:03d}/state"):
        index += 1
    return index


class _Watch:
    """Times the stages of a round and turns their progress into events and checkpoints."""

    def __init__(self, run: Run, index: int):
        self.run, self.index = run, index
        self.spent: dict[str, float] = {}
        self.name: str | None = None
        self.since = time.monotonic()

    def stage(self, name: str) -> None:
        self._close()
        self.name = name
        self.run.emit({"event": "stage", "round": self.index, "stage": name})

    def seconds(self) -> dict[str, float]:
        self._close()
        return {name: round(value, 3) for name, value in self.spent.items()}

    def walking(self, name: str, done: int, total: int) -> None:
        self._progress(done, total, name)

    def training(self, done: int, state: Any, info: Any) -> None:
        error = 1000 * float(np.mean(np.asarray(info.train_error.energy)[-1]))
        self._progress(done, self.run.plan.trainer.steps, f"energy RMSE {error:.2f} meV/atom")

    def _progress(self, done: int, total: int | None, note: str) -> None:
        self.run.emit(
            {
                "event": "progress", "round": self.index, "stage": self.name,
                "done": done, "total": total, "note": note,
            }
        )  # fmt: skip

    def _close(self) -> None:
        now = time.monotonic()
        if self.name is not None:
            self.spent[self.name] = self.spent.get(self.name, 0.0) + now - self.since
        self.since = now


def check(config: dict) -> list[str]:
    """Build everything, label the start, and forecast: lines for `alj check`. Raises BadInput."""
    plan = make_plan(config)
    start, calls = plan.start()
    check_cutoff([start], plan.potential.cutoff)
    began = time.monotonic()
    try:
        labels = plan.labeler.label(start)
    except LabelingFailed as failure:
        raise BadInput(f"labeler: the start could not be labeled: {failure}") from None
    seconds = time.monotonic() - began
    atoms = len(start.species)
    per_round = plan.selector.count
    structures = min(plan.stop.kept or 10**9, per_round * plan.rounds)
    moves = sum(w.settings.walks * w.sampler.steps for w in plan.walks)
    return [
        f"start: {atoms} atoms, {float(labels.energy) / atoms:.4f} eV/atom by {plan.labeler.name} "
        f"({calls} calls to build it)",
        f"potential: {plan.config['potential']['name']}, cutoff {plan.potential.cutoff} Å, "
        f"{plan.trainer.members} members",
        f"exploration: {moves} steps a round in {sum(w.settings.walks for w in plan.walks)} walks",
        f"labels: at most {structures} of {seconds:.3f} s each (the first includes compiling)",
        f"data: about {structures * atoms * 8 * 64 / 1e6:.0f} MB in memory at the end",
    ]
