"""The candidates of a round: frames that walks offer, and which of them are asked about."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from alj.campaign import datasets, evidence, told
from alj.campaign.datasets import Dataset
from alj.campaign.plan import Plan, Walks
from alj.campaign.references import KEY, convention_of
from alj.selection.shares import evenly_spaced
from alj.types import Key

MOST_STOPPED = 4
"""Structures labeled in a round because a walk was stopped in a hole, at most."""


class Pool(NamedTuple):
    """Candidates of a round, and the stopped ones among them."""

    structures: list
    energies: list
    samplers: list
    names: list
    walks: list
    spacing: list
    variable: list
    stopped: list

    @classmethod
    def empty(cls) -> "Pool":
        """Without candidates."""
        return cls(*([] for _ in cls._fields))


class Asked(NamedTuple):
    """Who chooses: the committee that a round begins with, what it has learned from, and labels
    that it never learns from."""

    round: int
    params: Any
    data: Dataset
    network: Any = None
    held_out: Dataset | None = None


def add_frames(pool: Pool, frames, walks: Walks, number: int, report: dict) -> None:
    """Add the evenly spaced frames of every walk to the pool, and the stopped ones."""
    steps, count = frames.energy.shape
    report["acceptance"][walks.name] = float(np.mean(frames.acceptance))
    if pulls := told.work(frames):
        report["work"] = [*report.get("work", []), *pulls]
    atoms = np.sum(frames.structure.species[0] > 0, axis=-1)
    for walk in range(count):
        if walks.sampler.spacing == "energy":
            coordinate = frames.energy[:, walk]
            report["ladder"].append((frames.ceiling[:, walk] / atoms[walk]).tolist())
        else:
            coordinate = np.arange(steps, dtype=float)
        stopped = np.flatnonzero(frames.stopped[:, walk])[:1]
        fine = np.flatnonzero(~frames.stopped[:, walk] & _sane(frames, walk))
        if len(fine):
            fine = fine[evenly_spaced(coordinate[fine], walks.settings.candidates)]
        for step in (*fine, *stopped):
            pool.structures.append(jax.tree.map(lambda x: x[step, walk], frames.structure))
            pool.energies.append(float(frames.energy[step, walk]))
            pool.samplers.append(number)
            pool.names.append(walks.name)
            pool.walks.append(100 * number + walk)
            pool.spacing.append(float(coordinate[step]))
            pool.variable.append(_pulled(frames, int(step), walk))
            pool.stopped.append(bool(frames.stopped[step, walk]))


def _sane(frames, walk: int) -> np.ndarray:
    """Finite frames; a sampler that knows no energy (perturbation) has NaN in all of them."""
    positions = np.isfinite(frames.structure.positions[:, walk]).all(axis=(1, 2))
    energies = frames.energy[:, walk]
    return positions & (np.isfinite(energies) | np.isnan(energies).all())


def _pulled(frames, step: int, walk: int) -> float:
    """The variable that a bias pulls, NaN where none does (yet)."""
    seen: Any = getattr(frames, "observed", None)
    if not hasattr(seen, "anchor") or np.isnan(seen.anchor[step, walk]):
        return float("nan")
    return float(seen.value[step, walk])


def candidates(pool: Pool, plan: Plan, round_: int, members: Sequence[int]) -> Dataset:
    """Structures of the pool, with who proposed them."""
    whose = convention_of(plan.labeler)
    info = [
        {"round": round_, "origin": pool.names[i], "walk": int(pool.walks[i]), KEY: whose}
        for i in members
    ]
    return datasets.append(datasets.empty(), [pool.structures[i] for i in members], info=info)


def holes(pool: Pool) -> list[int]:
    """The stopped frames that are labeled whatever else is."""
    return np.flatnonzero(pool.stopped)[:MOST_STOPPED].tolist()


def choose(
    key: Key, asked: Asked, plan: Plan, pool: Pool, members: np.ndarray, count: int, report
) -> np.ndarray:
    """Of `members`: stopped frames (a few), then what the selector takes among the others."""
    halted = np.asarray(pool.stopped)[members]
    if plan.selector.judges_stopped:
        halted = np.zeros_like(halted)
    stopped, open_ = members[halted][:MOST_STOPPED], members[~halted]
    known = evidence.gather(
        plan.potential,
        asked.params,
        candidates(pool, plan, asked.round, open_.tolist()),
        asked.data,
        plan.selector.needs,
        network=asked.network,
        held_out=asked.held_out,
        energies=np.asarray(pool.energies)[open_],
        samplers=np.asarray(pool.samplers)[open_],
        walks=np.asarray(pool.walks)[open_],
        spacing=np.asarray(pool.spacing)[open_],
        variable=np.asarray(pool.variable)[open_],
    )
    if plan.selector.report is not None and len(open_):
        report["selection"] = plan.selector.report(known)
    if len(open_) and (seen := told.uncertainty(known, report.get("selection"))):
        report["uncertainty"] = seen
    wanted = max(count - len(stopped), 0)
    picks = np.asarray(plan.selector.choose(key, known, wanted)) if len(open_) else np.zeros(0, int)
    return np.concatenate([stopped, open_[picks[picks >= 0].astype(int)]]).astype(int)
