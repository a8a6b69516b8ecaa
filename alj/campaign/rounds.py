"""One round: `propose` and `absorb`, pure functions around one effect, the labels.

    state ──propose──▶ structures worth a label ──(label)──▶ labels ──absorb──▶ state

`propose` walks with the committee from structures of the data, and lets the selector
choose among evenly spaced frames; the last frame of a walk that fell into a hole of the potential
is always taken. `absorb` judges the prediction, keeps what the plan keeps, and trains.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import split_named
from alj.campaign import class_training, classes, datasets, drifting, evidence, scores
from alj.campaign.attempts import Replacement
from alj.campaign.augmentation import noisy_copies
from alj.campaign.cutoffs import check_cutoff
from alj.campaign.datasets import Dataset
from alj.campaign.exploring import explore
from alj.campaign.plan import Plan, Walks
from alj.campaign.pool import Asked, Pool, add_frames, candidates, holes
from alj.campaign.pool import choose as pick
from alj.campaign.references import KEY
from alj.campaign.trees import storable
from alj.training import Fitted, fit
from alj.types import Key, Structure, Trainer

FEW_STRUCTURES = 32
"""Smaller training sets are padded to so many: a set that grows compiles the fewer programs."""


@storable
class RoundState(NamedTuple):
    """What a round begins with. `memory` belongs to the plan's rules."""

    round: int
    params: Any
    data: Dataset
    start: Structure
    memory: dict


@storable
class Proposal(NamedTuple):
    """Structures to label, predicted energies (NaN at first), and how the walks went; the spread
    of the committee in eV/atom (NaN where nothing follows from it)."""

    chosen: Dataset
    predicted: np.ndarray
    report: dict
    spread: np.ndarray


def initial(plan: Plan, key: Key, data: Dataset) -> RoundState:
    """The state before the first round; trains at once where labeled data are given."""
    start, calls = plan.start()
    check_cutoff([start], plan.potential.cutoff)
    memory = {"start_labels": calls, "scatter": [], "without_news": 0}
    state = RoundState(0, None, data, start, memory)
    return trained(key, state, plan, None) if datasets.count(data) else state


def propose(
    key: Key,
    state: RoundState,
    plan: Plan,
    on_progress=None,
    on_certain: Callable[[list[Structure]], None] | None = None,
) -> Proposal:
    """The structures of this round.

    `on_certain` is told, after each sampler, of structures that are sure to be among them.
    """
    walk, choose = split_named(key, "walk", "choose")
    entries = (plan.boot,) if state.params is None else plan.walks
    params = _walking(state, plan)
    pool, count = Pool.empty(), _count(plan, state.data)
    held_out = state.memory.get("held_out", datasets.empty())
    asked = Asked(state.round, state.params, state.data, state.memory.get("classes"), held_out)
    report: dict = {"acceptance": {}, "ladder": []}
    chosen: list[int] = []
    for number, walks in enumerate(entries):
        seed, first = jax.random.fold_in(walk, number), len(pool.structures)
        targets = _targets(state, plan, walks, params)
        frames = explore(
            seed, walks, params, state.data, state.start, targets, on_progress, state.memory
        )
        add_frames(pool, frames, walks, number, report)
        own = np.arange(first, len(pool.structures))
        if state.params is None:
            chosen += own.tolist()
        elif plan.choose_from == "each":
            share = count // len(entries) + (number < count % len(entries))
            picking = jax.random.fold_in(choose, number)
            chosen += pick(picking, asked, plan, pool, own, share, {}).tolist()
        if on_certain is not None:
            sure = chosen if plan.choose_from == "each" or state.params is None else holes(pool)
            sure = [] if plan.selector.judges_stopped else sure
            on_certain(datasets.structures(candidates(pool, plan, state.round, sure)))
    if state.params is not None and plan.choose_from == "all":
        everything = np.arange(len(pool.structures))
        chosen = pick(choose, asked, plan, pool, everything, count, report).tolist()
    predicted = np.asarray([pool.energies[i] for i in chosen])
    report["stopped"] = int(np.sum([pool.stopped[i] for i in chosen]))
    found = candidates(pool, plan, state.round, chosen)
    if state.params is not None and plan.augmentation.copies:
        noise = jax.random.fold_in(choose, len(entries))
        copies = noisy_copies(noise, plan.augmentation, found)
        energies = evidence.member_energies(plan.potential, params, copies).mean(axis=1)
        found = datasets.append(found, datasets.structures(copies), info=list(copies.info))
        predicted = np.concatenate([predicted, energies])
    spread = drifting.spreads(plan.potential, state.params, found)
    return Proposal(found, predicted, report, spread)


def _count(plan: Plan, data: Dataset) -> int:
    """How many structures a round chooses."""
    return max(plan.selector.count, round(plan.grow_by * datasets.count(data)))


def absorb(
    key: Key,
    state: RoundState,
    proposal: Proposal,
    labels: list,
    plan: Plan,
    fitting: dict,
    late: Sequence[Replacement] = (),
) -> tuple[RoundState, dict]:
    """The next state, and what the labels said of the prediction.

    `labels` holds Labels, or None where labeling failed. `late` are labels that replace failures
    of earlier rounds, with their hashes; they join the data. `fitting` goes on to `training.fit`.
    """
    good = [i for i, label in enumerate(labels) if label is not None]
    errors = np.full(len(labels), np.nan)
    atoms = datasets.sizes(proposal.chosen)
    for i in good:
        errors[i] = (proposal.predicted[i] - float(labels[i].energy)) / atoms[i]
    tolerance = plan.data.keep_error_above_meV_per_atom
    worth = [i for i in good if tolerance is None or not abs(errors[i]) <= tolerance / 1000]
    if plan.stop.kept is not None:
        worth = _worst(worth, errors, plan.stop.kept - datasets.count(state.data))
    (divide,) = split_named(key, "held_out")
    worth, apart = _held_out(divide, worth, plan.data.held_out_fraction)
    data = with_late(_joined(state.data, proposal, labels, worth), late, state.round)
    judged = judge(errors, [info["walk"] for info in proposal.chosen.info])
    memory = dict(state.memory)
    memory["without_news"] = 0 if worth or late else memory["without_news"] + 1
    memory["late"] = [*memory.get("late", ()), *(one.hash for one in late)]
    if state.params is not None:
        memory["scatter"] = [*memory["scatter"], judged["candidate_scatter_meV_per_atom"]]
    if plan.data.held_out_fraction:
        known = memory.get("held_out", datasets.empty())
        memory["held_out"] = _joined(known, proposal, labels, apart)
    memory["ratios"], drift = drifting.compared(errors, proposal.spread, memory.get("ratios"))
    memory["length"] = _length(proposal.report, memory.get("length", 1), plan)
    after = RoundState(state.round + 1, state.params, data, state.start, memory)
    kept = np.zeros(len(labels), bool)
    kept[worth] = True
    if worth or late or state.params is None:
        after = trained(key, after, plan, state.params, **fitting)
    return after, {**judged, "errors": errors, "kept_mask": kept, "drift": drift}


def with_late(data: Dataset, late: Sequence[Replacement], round_: int) -> Dataset:
    """The data with labels that replace failures."""
    info = [{"round": round_, "origin": "relabeled", KEY: one.convention} for one in late]
    structures, labels = [one.structure for one in late], [one.labels for one in late]
    return datasets.append(data, structures, labels, info) if late else data


def _joined(data: Dataset, proposal: Proposal, labels: list, places: list[int]) -> Dataset:
    """The data with some of the proposed structures."""
    chosen = datasets.select(proposal.chosen, places)
    given = [labels[i] for i in places]
    return datasets.append(data, datasets.structures(chosen), given, list(chosen.info))


def _held_out(key: Key, worth: list[int], fraction: float) -> tuple[list[int], list[int]]:
    """What is trained on and what is held out of these, each in order."""
    seed = np.asarray(jax.random.key_data(key), np.uint32)
    apart = set(np.random.default_rng(seed).permutation(worth)[: round(fraction * len(worth))])
    return [i for i in worth if i not in apart], [i for i in worth if i in apart]


def _length(report: dict, length: int, plan: Plan) -> int:
    """How many times as long as at first the next walks are; 0 where full length found nothing."""
    unknown = (report.get("selection") or {}).get("unknown")
    longest = max(walks.settings.longest for walks in plan.walks)
    if unknown is None or plan.stop.unknown_fraction is None:
        return length
    if unknown > plan.stop.unknown_fraction:
        return length
    return 0 if length >= longest else min(2 * length, longest)


def _worst(worth: list[int], errors: np.ndarray, room: int) -> list[int]:
    """Those of the largest error where there is not room for all, in their order."""
    sizes = np.where(np.isnan(errors), np.inf, np.abs(errors))  # nothing predicted: no small error
    return sorted(sorted(worth, key=lambda i: -sizes[i])[: max(room, 0)])


def judge(errors: np.ndarray, walks: list) -> dict:
    """Mean absolute error, bias, and scatter after removing the mean of each walk, in meV/atom."""
    known = np.isfinite(errors)
    if not known.any():
        nothing = float("nan")
        return dict.fromkeys(_JUDGED, nothing)
    errors, origin = 1000 * errors[known], np.asarray(walks)[known]
    centered = errors.copy()
    for walk in np.unique(origin):
        centered[origin == walk] -= errors[origin == walk].mean()
    free = max(len(errors) - len(np.unique(origin)), 1)
    values = (np.abs(errors).mean(), errors.mean(), np.sqrt(np.sum(centered**2) / free))
    return dict(zip(_JUDGED, map(float, values), strict=True))


def verdict(plan: Plan, state: RoundState, computed: int) -> str | None:
    """Why the campaign ends here, or None."""
    stop, kept = plan.stop, datasets.count(state.data)
    scatter = [x for x in state.memory["scatter"][-3:] if np.isfinite(x)]
    if stop.kept is not None and kept >= stop.kept:
        return f"{kept} structures kept (limit {stop.kept})"
    if stop.labels is not None and computed >= stop.labels:
        return f"{computed} labels computed (limit {stop.labels})"
    if kept < stop.least_kept:
        return None
    if stop.unknown_fraction is not None and state.memory.get("length") == 0:
        return "walks of full length found nothing unknown"
    if stop.rounds_without_news and state.memory["without_news"] >= stop.rounds_without_news:
        return f"nothing new in {state.memory['without_news']} rounds"
    limit = stop.scatter_meV_per_atom
    if limit is not None and len(scatter) == 3 and np.median(scatter) < limit:
        return f"scatter of new labels {np.median(scatter):.2f} meV/atom (limit {limit})"
    return None


def _walking(state: RoundState, plan: Plan):
    """The params that explore: all members, whose mean walks, or the best one alone."""
    if state.params is None or plan.explore_with == "mean":
        return state.params
    best = state.memory["fit"][plan.explore_with]
    return jax.tree.map(lambda leaf: leaf[best : best + 1], state.params)


def _targets(state: RoundState, plan: Plan, walks: Walks, params) -> dict:
    """The energy below which a walk is in a hole, from the lowest label so far; and what the labels
    say of the last weights, for samplers that ask."""
    found = {}
    if "information" in walks.sampler.targets:
        about = scores.information(plan.potential, params, state.data)
        # The variance that the labels leave is L q; what one more would take away has L/N.
        noise = about.labeled["energy"] * about.energy_noise
        found["information"] = (jnp.asarray(about.energy), jnp.asarray(noise))
    energies = np.asarray(state.data.energy) / np.maximum(datasets.sizes(state.data), 1)
    lowest = np.min(energies[np.isfinite(energies)], initial=np.inf)
    floor = lowest - plan.data.floor_below_lowest_eV_per_atom
    return {**found, "floor_eV_per_atom": jnp.asarray(floor if np.isfinite(floor) else -np.inf)}


def trained(
    key: Key, state: RoundState, plan: Plan, params, trainer: Trainer | None = None, **fitting
) -> RoundState:
    """The state with a committee trained on its data, from `params` or from scratch (None).

    A network of classes has seen the data before; meta-networks are trained class by class.
    """
    memory = dict(state.memory)
    if plan.classes is not None:
        (grow,) = split_named(key, "classes")
        memory["classes"] = classes.grown(grow, memory.get("classes"), state.data, plan.classes)
    if plan.potential.networks is not None:
        return _class_by_class(key, state._replace(memory=memory), plan, params, trainer)
    batches = datasets.batches(
        state.data,
        plan.potential.cutoff,
        dtype=plan.dtype,
        at_least=FEW_STRUCTURES,
        table=datasets.roomy(state.data),
    )
    fitted = fit(
        key,
        trainer or plan.trainer,
        plan.potential,
        params,
        batches,
        datasets.count(state.data),
        before=state.memory.get("split"),
        **fitting,
    )
    summary = _summary(fitted)
    split = fitted.train[summary[_LEADER[plan.explore_with]]]
    memory |= {"fit": summary, "split": split}
    return state._replace(params=fitted.params, memory=memory)


def _class_by_class(key: Key, state: RoundState, plan: Plan, params, trainer) -> RoundState:
    """The state with meta-networks trained, each on the structures of its own classes."""
    assert plan.classes is not None
    fitted, now = class_training.taught(
        key, plan.potential.networks, trainer or plan.trainer, state.memory["classes"], state.data,
        params, state.memory.get("taught"), plan.classes, plan.dtype,
    )  # fmt: skip
    memory = {**state.memory, "fit": _summary(fitted), "taught": now}
    return state._replace(params=fitted.params, memory=memory)


def _summary(fitted: Fitted) -> dict:
    """How a training ended: losses of the members, and errors averaged over them."""
    losses = [float(loss) for loss in fitted.loss]
    summary = {
        "steps": fitted.steps,
        "best": fitted.best,
        "best_forces": _best_forces(fitted),
        "losses": losses,
    }
    if fitted.history is not None:
        last = jax.tree.map(lambda x: 1000 * float(np.mean(x[-1])), fitted.history)
        summary["train_rmse_meV_per_atom"] = last.train_error.energy
        summary["validation_rmse_meV_per_atom"] = last.validation_error.energy
    return summary


def _best_forces(fitted: Fitted) -> int:
    """The member with the lowest mean force error on all data; the best one without forces."""
    errors = np.asarray(fitted.force_mae)
    return int(np.nanargmin(errors)) if np.isfinite(errors).any() else fitted.best


_LEADER = {"mean": "best", "best": "best", "best_forces": "best_forces"}
"""Whose split is inherited."""

_JUDGED = (
    "candidate_mae_meV_per_atom",
    "candidate_bias_meV_per_atom",
    "candidate_scatter_meV_per_atom",
)
