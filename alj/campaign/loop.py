"""The campaign: rounds of propose, label, absorb in a folder that remembers everything.

The only loop with effects. Whatever was finished before a crash is read back, so running again
resumes, and ends as an undisturbed run would have ended.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from alj.arrays import split_named
from alj.campaign import datasets, evidence, told, trees, widths
from alj.campaign.ahead import Ahead
from alj.campaign.checkpoints import Checkpoint
from alj.campaign.cutoffs import check_cutoff
from alj.campaign.draws import reference_test
from alj.campaign.finishing import finish, save_model
from alj.campaign.folder import Run, run_folder
from alj.campaign.labels import Progress, content_hash
from alj.campaign.ledger import Ledger
from alj.campaign.plan import make_plan, resolve
from alj.campaign.programs import forget_when_many
from alj.campaign.references import check_references, convention_of
from alj.campaign.relabel import joining
from alj.campaign.rounds import (
    Proposal,
    RoundState,
    absorb,
    initial,
    propose,
    verdict,
    with_late,
)
from alj.campaign.store import FolderStore
from alj.campaign.trial import try_engine
from alj.types import BadInput, LabelingFailed

PAUSED, DONE = 4, 0

_TELL_SECONDS = 1.0
"""Labels of milliseconds are not worth an event each."""


class Outcome(NamedTuple):
    """How a campaign ended: why, and the exit code of the command."""

    reason: str
    exit_code: int


def run_campaign(
    config: dict, folder: str | Path, on_event: Callable[[dict], None] | None = None
) -> Outcome:
    """Run or resume the campaign of `config` in `folder`.

    Raises BadInput for whatever is wrong with the input or the folder, DiskFull without space.
    """
    plan = make_plan(config)
    widths.check(plan)
    mixed = plan.data.mixed_engines
    with (
        contextlib.closing(plan.executor),
        run_folder(folder, plan.config, on_event, resolve=resolve) as own,
        Ledger(own.path, mixed=mixed) as ledger,
    ):
        return _rounds(Run(plan, own.path, own.store, ledger, own.emit, own.told))


def _rounds(run: Run) -> Outcome:
    plan, store = run.plan, run.store
    begin, test_key = split_named(plan.key, "begin", "test")
    resumed = store.knows("000/state")
    state = store.remember("000/state", lambda: _initial(run, begin))
    store.remember("self_test", lambda: try_engine(run, state.start))
    run.emit(
        {
            "event": "campaign", "round": _finished(store), "rounds": plan.rounds,
            "resumed": resumed, "run": str(run.folder), "labeler": plan.labeler.name,
            "atoms": len(state.start.species),
        }
    )  # fmt: skip
    test = store.remember("test", lambda: _test_set(run, test_key, state))
    reason, labels = f"all {plan.rounds} rounds done", 0
    for index in range(plan.rounds):
        state, labels, paused = _round(run, index, state, test, labels)
        if paused:
            run.emit({"event": "paused", "round": index, "reason": paused})
            return Outcome(paused, PAUSED)
        ended = verdict(plan, state, labels)
        if ended:
            reason = ended
            break
    finish(widths.current(run, state), state, test)
    run.emit({"event": "finished", "reason": reason, "exit": DONE})
    return Outcome(reason, DONE)


def _round(
    run: Run, index: int, state: RoundState, test, before: int
) -> tuple[RoundState, int, str | None]:
    """One round: the next state, the labels computed until then, and the reason for a pause.

    Counted are the labels of the rounds, `before` this one and in it, not those of an anchor.
    Each stage begins where its result is not remembered. What is remembered last, the report, says
    that files and ledger hold the round; its event is the only thing that may still be missing.
    """
    run = widths.current(run, state)
    plan, store = run.plan, run.store
    ask, learn, search = split_named(jax.random.fold_in(plan.key, index), "ask", "learn", "search")
    watch = _Watch(run, index)

    ahead = Ahead(plan.executor, plan.labeler, run.ledger)

    def ask_for() -> Proposal:
        watch.stage("explore")
        return propose(ask, state, plan, watch.walking, ahead.take)

    chosen = store.remember(f"{index:03d}/chosen", ask_for)
    learned = store.knows(f"{index + 1:03d}/state")
    answers = _known(run, chosen) if learned else _label(run, chosen, watch, ahead)
    if not learned and run.ledger.counts()["failed"] > plan.stop.failed_labels:
        kinds = run.ledger.counts()["failures"]
        failed = f"{sum(kinds.values())} labels failed ({kinds}); see alj status --failures"
        return state, before, failed
    labels = [None if isinstance(a, LabelingFailed) else a for a in answers]
    late = [] if learned else joining(run.ledger, state.memory.get("late", ()))
    checkpoint = _checkpoint(run, index, [*labels, *(one.labels for one in late)])

    def learn_from() -> tuple[RoundState, dict]:
        watch.stage("train")
        fitting = {"on_block": watch.training(checkpoint), "resume": checkpoint.resume()}
        return absorb(learn, state, chosen, labels, plan, fitting, late)

    after, judged = store.remember(f"{index + 1:03d}/state", learn_from)
    checkpoint.forget()
    after = widths.searched(run, search, after, watch.stage)
    run = widths.current(run, after)
    late = _late(run, state, after)
    computed = before + sum(label is not None for label in labels) + len(late)

    def report_on() -> dict:
        report = _report(run, index, chosen, judged, after, test, watch)
        _record(run, index, chosen, answers, judged, late)
        return {**report, "labels": computed, "failed_now": labels.count(None)}

    report = store.remember(f"{index:03d}/report", report_on)
    if index not in run.told:
        if judged.get("drift"):
            run.emit({"event": "note", "text": f"round {index}, energies: {judged['drift']}"})
        run.emit({"event": "round", **report})
    forget_when_many()
    return after, computed, None


def _known(run: Run, chosen: Proposal) -> list:
    """The answers that a remembered state was made from; nothing is labeled again."""
    hashes = _hashes(run, chosen)
    found = run.ledger.find(hashes)
    missing = LabelingFailed("crash", "the ledger does not hold this label any more")
    return [found.get(hash_, missing) for hash_ in hashes]


def _hashes(run: Run, chosen: Proposal) -> list[str]:
    return [content_hash(run.plan.labeler, s) for s in datasets.structures(chosen.chosen)]


def _checkpoint(run: Run, index: int, labels: list) -> Checkpoint:
    """The checkpoint of a round's training: good for these labels only."""
    about = hashlib.sha256(trees.encode(labels)).hexdigest()
    steps = run.plan.trainer.steps
    return Checkpoint(run.store, f"{index:03d}/training", steps=steps, about=about)


def _initial(run: Run, key) -> RoundState:
    run.emit({"event": "stage", "round": 0, "stage": "start"})
    data = datasets.empty()
    if run.plan.data.initial is not None:
        data = _read(run, run.plan.data.initial)
    return initial(run.plan, key, data)


def _read(run: Run, path: str) -> datasets.Dataset:
    """Labeled structures of the same reference."""
    data, taken = datasets.read(path, species=run.plan.species)
    whose = convention_of(run.plan.labeler)
    check_references(data, path, whose, mixed=run.plan.data.mixed_engines)
    run.note(f"{path}: {taken}")
    return data


def _test_set(run: Run, key, state: RoundState):
    plan = run.plan
    if plan.data.test is not None:
        return _read(run, plan.data.test)
    if not plan.config["data"]["reference_test"]:
        return datasets.empty()
    run.emit({"event": "stage", "round": 0, "stage": "test set"})
    return reference_test(key, plan.config["data"]["reference_test"], plan.labeler, state.start)


def _label(run: Run, chosen: Proposal, watch, ahead: Ahead) -> list:
    watch.stage("label")
    ahead.wait()
    return run.labels(datasets.structures(chosen.chosen), watch.labeling)


def _late(run: Run, before: RoundState, after: RoundState) -> list:
    """What joined the data in a round although an earlier one had asked for it."""
    joined = set(after.memory.get("late", ())) - set(before.memory.get("late", ()))
    return [each for each in run.ledger.replacements() if each.hash in joined]


def _record(
    run: Run, index: int, chosen: Proposal, answers: list, judged: dict, late: list
) -> None:
    """Files first, ledger row after."""
    structures = datasets.structures(chosen.chosen)
    good = [i for i, a in enumerate(answers) if not isinstance(a, LabelingFailed)]
    labeled = datasets.append(
        datasets.empty(),
        [structures[i] for i in good],
        [answers[i] for i in good],
        [chosen.chosen.info[i] for i in good],
    )
    labeled = with_late(labeled, late, index)
    datasets.write(run.folder / "rounds" / f"{index:03d}" / "labeled.extxyz", labeled)
    kept, more = np.asarray(judged["kept_mask"], bool).tolist(), len(late)
    scores = np.abs(judged["errors"]).tolist()  # NaN (nothing predicted, or no label) is NULL
    run.ledger.record(
        index,
        [*_hashes(run, chosen), *(one.hash for one in late)],
        origins=[*(info["origin"] for info in chosen.chosen.info), *["relabeled"] * more],
        scores=[*scores, *[float("nan")] * more],
        model=f"{index:03d}",
        kept=[*kept, *[True] * more],
        why=[*("kept" if k else "failed or predicted well" for k in kept), *["kept"] * more],
    )


def _report(run, index, chosen, judged, after, test, watch) -> dict:
    """What the monitor shows of a round; also writes the model and the test's predictions."""
    watch.stage("test")
    counts = run.ledger.counts()
    error = _tested(run, after, test)
    save_model(run, after)
    fitted = after.memory.get("fit", {})
    atoms = datasets.sizes(chosen.chosen)
    known = chosen.report
    return {
        "round": index,
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
        "selection": known.get("selection"),
        **{name: known[name] for name in ("uncertainty", "work") if name in known},
        **widths.told(after),
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
        self.since, self.told = time.monotonic(), 0.0

    def stage(self, name: str) -> None:
        self._close()
        self.name = name
        self.run.emit({"event": "stage", "round": self.index, "stage": name})

    def seconds(self) -> dict[str, float]:
        self._close()
        return {name: round(value, 3) for name, value in self.spent.items()}

    def walking(self, name: str, done: int, total: int) -> None:
        self._progress(done, total, name)

    def labeling(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.told > _TELL_SECONDS or progress.done == progress.total:
            self.told = now
            self._progress(progress.done, progress.total, progress.note)

    def training(self, checkpoint: Checkpoint) -> Callable[[int, Any, Any], None]:
        """The `on_block` of a training: its checkpoint, then its progress."""

        def on_block(done: int, state: Any, info: Any) -> None:
            checkpoint.on_block(done, state, info)
            error = 1000 * float(np.mean(np.asarray(info.train_error.energy)[-1]))
            note = f"energy RMSE {error:.2f} meV/atom"
            self._progress(
                done, self.run.plan.trainer.steps, note, curves=told.training(done, info)
            )

        return on_block

    def _progress(self, done: int, total: int | None, note: str, **more: Any) -> None:
        self.run.emit(
            {
                "event": "progress", "round": self.index, "stage": self.name,
                "done": done, "total": total, "note": note, **more,
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
    widths.check(plan)
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
