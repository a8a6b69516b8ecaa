"""From what a stepper says of a block to frames on paper: units in names, forces, spreads, freezes.

A walk that a gate has frozen repeats its last good structure; the first of these frames is kept,
those behind it are not.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from alj.arrays import take_tree
from alj.campaign import datasets
from alj.campaign.evaluate import predict
from alj.campaign.subjects import Subject
from alj.campaign.trajectories import Segment
from alj.sampling.masses import masses_of
from alj.types import Structure

NAMES = {
    "energy": "energy_eV",
    "kinetic": "kinetic_eV",
    "external_energy": "external_energy_eV",
    "conserved": "conserved_eV",
    "ceiling": "ceiling_eV",
    "volume": "volume_A3",
    "largest_force": "largest_force_eV_per_A",
    "work": "work_eV",
    "bias_energy": "bias_energy_eV",
    "energies": "energies_eV",
}
"""What observables are called on paper; others keep their names."""

_WIDEST = 64
"""An observed array with more components than this in a frame is not a column each."""


class Recorder:
    """Turns the infos of blocks into segments, and remembers what a later block must know.

    `columns` are the observables, fixed by the first block; `frozen` maps walks to reasons.
    """

    def __init__(self, subject: Subject, clock: float | None, masses, kept: Mapping[str, Any]):
        self.subject, self.clock, self.masses = subject, clock, masses
        self.columns: list[str] | None = kept.get("columns")
        self.frozen: dict[int, str] = {int(k): v for k, v in kept.get("frozen", {}).items()}

    def kept(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {
            "columns": self.columns,
            "frozen": {str(walk): reason for walk, reason in self.frozen.items()},
        }

    def all_frozen(self, first: int, walks: int) -> bool:
        """Whether no walk of a group moves any more."""
        return all(first + walk in self.frozen for walk in range(walks))

    def segments(self, first: int, done: int, state: Any, infos: Any) -> list[Segment]:
        """The frames of a block that ends after `done` frames of the walks from number `first`."""
        lead = infos.structure.positions.shape[:-2]
        length, walks = lead[0], int(np.prod(lead[1:]))
        infos = jax.tree.map(lambda leaf: _by_walk(np.asarray(leaf), lead), infos)
        stopped = np.asarray(infos.stopped, bool)
        scalars, halted = _observables(infos), _halted(state, stopped)
        found = []
        for walk in range(walks):
            if first + walk in self.frozen:
                continue
            end = length
            if halted[walk]:
                moving = np.flatnonzero(~stopped[:, walk])
                end = min(int(moving[-1]) + 2 if len(moving) else 1, length)
            part = slice(0, end)
            step = np.arange(done - length + 1, done - length + 1 + end)
            segment = self._segment(first + walk, step, infos, (part, walk), scalars)
            found.append(segment)
            if halted[walk]:
                self.frozen[first + walk] = self._reason(walk, walks, segment)
        if self.columns is None:
            self.columns = list(
                dict.fromkeys(
                    name
                    for segment in found
                    for name, values in segment.observables.items()
                    if np.isfinite(values).any()
                )
            )
        return [self._trimmed(segment) for segment in found]

    def _segment(self, walk: int, step, infos, where, scalars) -> Segment:
        structure = take_tree(infos.structure, where)
        species = np.asarray(structure.species[0])
        velocities = getattr(infos, "velocities", None)
        forces, told = self._answers(structure)
        observables = {name: values[where].astype(float) for name, values in scalars.items()}
        energies = told.pop("energy_eV", None)
        if energies is not None and np.isnan(observables["energy_eV"]).all():
            observables["energy_eV"] = energies
        return Segment(
            walk=walk,
            step=step,
            time_fs=step * (np.nan if self.clock is None else self.clock),
            positions=np.asarray(structure.positions, np.float64),
            cell=np.asarray(structure.cell, np.float64),
            species=species,
            masses=masses_of(species, self.masses),
            velocities=None if velocities is None else np.asarray(velocities[where], np.float64),
            forces=forces,
            observables={**observables, **told},
        )

    def _answers(self, structures: Structure) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """Forces of frames, and of a committee the spreads of the energy and of the worst force."""
        frames = [take_tree(structures, i) for i in range(len(structures.species))]
        if self.subject.log is not None:
            labels = [self.subject.log.known(frame) for frame in frames]
            missing = np.full(frames[0].positions.shape, np.nan)
            return np.stack([missing if one is None else one.forces for one in labels]), {}
        model = self.subject.model
        if model is None:
            return None, {}
        dataset = datasets.append(datasets.empty(), frames)
        answer = predict(model, dataset)
        shape = (len(frames), -1, 3)
        told = {"energy_eV": answer.energy}
        if model.members > 1:
            spread = np.linalg.norm(answer.forces_spread.reshape(shape), axis=-1)
            told["energy_spread_eV"] = answer.energy_spread
            told["largest_force_spread_eV_per_A"] = spread.max(axis=1)
        return answer.forces.reshape(shape), told

    def _trimmed(self, segment: Segment) -> Segment:
        columns = self.columns or []
        kept = {name: v for name, v in segment.observables.items() if name in columns}
        return segment._replace(observables=kept)

    def _reason(self, place: int, walks: int, segment: Segment) -> str:
        """Why a walk froze, in words, and which frame of it was kept."""
        log = self.subject.log
        kept = f"frame {segment.step[-1]} is its last good one"
        if np.isfinite(segment.time_fs[-1]):
            kept += f" (by {segment.time_fs[-1]:g} fs)"
        failure = log.failure_of(place, walks) if log is not None else None
        if failure is not None:
            return f"{failure}; {kept}"
        largest = segment.observables.get("largest_force_eV_per_A", np.array([np.nan]))[-1]
        force = f", where the largest force is {largest:.3g} eV/Å" if np.isfinite(largest) else ""
        return (
            "its next step went beyond a gate (longest_step_A, hottest_K, minimum_distance_A, or a "
            f"number that is not finite); {kept}{force}"
        )


def clock_of(spec: Mapping[str, Any]) -> float | None:
    """Time in fs between two frames of a sampler's resolved section; None where it has none."""
    section = _dynamics_in(spec)
    if section is None or spec["name"] == "fire":
        return None
    return section["timestep_fs"] * min(section["record_every"], section["steps"])


def masses_in(spec: Mapping[str, Any]) -> Mapping | None:
    """The masses that a sampler's resolved section gives, by atomic number."""
    section = _dynamics_in(spec)
    return None if section is None else section.get("masses_amu")


def _dynamics_in(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if {"timestep_fs", "record_every", "steps"} <= set(spec):
        return spec
    nested = [value for value in spec.values() if isinstance(value, Mapping) and "name" in value]
    return next((found for each in nested if (found := _dynamics_in(each)) is not None), None)


def _halted(state: Any, stopped: np.ndarray) -> Any:
    """Which walks will not move again: what the state says, of a ladder where no rung moves."""
    walks = stopped.shape[1]
    of_rungs = getattr(state, "replicas", None)
    flags = getattr(state if of_rungs is None else of_rungs, "stopped", None)
    if flags is None:
        return np.zeros(walks, bool)  # Monte Carlo without a floor never stops
    return np.all(np.asarray(flags, bool).reshape(walks, -1), axis=1)


def _by_walk(leaf: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """Axes (steps, walks, …), whatever the batch consists of; what walks share is repeated."""
    own = 0
    while own < min(len(lead), leaf.ndim) and leaf.shape[own] == lead[own]:
        own += 1
    for axis in range(own, len(lead)):
        leaf = np.repeat(np.expand_dims(leaf, axis), lead[axis], axis=axis)
    return leaf.reshape(lead[0], int(np.prod(lead[1:])), *leaf.shape[len(lead) :])


def _observables(infos: Any) -> dict[str, np.ndarray]:
    """Every number of a frame under its name, (steps, walks) each."""
    found: dict[str, np.ndarray] = {}
    for field, value in infos._asdict().items():
        if field in ("structure", "velocities") or value is None:
            continue
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            parts = [
                str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", "")))) for p in path
            ]
            # what a bias observes has units in its own names
            name = "_".join(parts) if parts else field
            name = NAMES.get(name, name)
            name = name if name not in found else f"{field}_{name}"
            flat = np.asarray(leaf).reshape(*leaf.shape[:2], -1)
            if flat.shape[-1] > _WIDEST or flat.dtype.kind not in "biuf":
                continue
            for component in range(flat.shape[-1]):
                mark = f"_{component}" if leaf.ndim > 2 else ""
                found[f"{name}{mark}"] = flat[..., component]
    return found
