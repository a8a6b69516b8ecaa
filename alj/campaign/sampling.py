"""`alj sample`: any sampler with any potential from any start, resumable to the bit.

Structures of one size walk together as a batch, batches one after another. After every block of
frames the files are forced to disk and then the checkpoint is, in one rename: the state of the
stepper, and how far each file was. Keys are folded in by step number, so what was cut off anywhere
goes on as if nothing had happened. A run that is made longer keeps the program (ramps,
equilibration) of its first settings and holds what that ended with.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj import registry
from alj.arrays import split_named
from alj.campaign import datasets, trees
from alj.campaign.config import difference, dump, read
from alj.campaign.frames import Recorder, clock_of, masses_in
from alj.campaign.store import FolderStore, write_file
from alj.campaign.subjects import Subject, subject_of
from alj.campaign.trajectories import H5md, Writer, extxyz, table
from alj.sampling import SAMPLERS
from alj.stepping import batched, run
from alj.types import BadInput, Context, Structure

LENGTHS = ("steps", "cycles", "frames")
"""Settings that may grow when a finished run is made longer."""

LONG = 3_000_000
"""Rows (frames times atoms) beyond which `automatic` writes H5MD."""

_BLOCK_ROWS = 200_000


class Request(NamedTuple):
    """What is to be sampled. `settings` are `KEY=VALUE` of potential or labeler of the model."""

    model: str
    start: str
    sampler: dict[str, Any]
    out: str
    seed: int = 0
    copies: int = 1
    format: str = "automatic"
    settings: Sequence[str] = ()


class Progress(NamedTuple):
    """How far a run is, in frames of all walks; `resumed` is where this process began."""

    done: int
    total: int
    resumed: int


class Sampled(NamedTuple):
    """What came out: the folder's config, the file of the trajectory, and walks that froze.

    `frozen` maps a walk to the reason it gives; `resumed` says that there was something before, and
    `extended` which settings grew.
    """

    folder: Path
    trajectory: Path
    config: dict[str, Any]
    atoms: list[int]
    frozen: dict[int, str]
    resumed: bool
    extended: list[str]


class Group(NamedTuple):
    """Starts of one size: their first walk's number and the padded batch, copies included."""

    first: int
    structures: Structure

    @property
    def walks(self) -> int:
        return len(self.structures.species)

    @property
    def atoms(self) -> int:
        return int(self.structures.species.shape[1])


def sample(
    request: Request,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Sampled:
    """Run or resume a sampling. Raises BadInput, DiskFull."""
    tell = on_note or (lambda text: None)
    dataset, digest = _start(request.start)
    known = tuple(int(number) for number in np.unique(dataset.species))
    subject = subject_of(request.model, request.settings, known)
    if subject.species:
        datasets.read(request.start, labels="ignored", species=subject.species)
    spec = registry.resolve(SAMPLERS, request.sampler, "sampler")
    wanted = registry.build(SAMPLERS, request.sampler, subject.potential, where="sampler")
    if request.copies < 1:
        raise BadInput(f"--copies: expected 1 or more, found {request.copies}")
    groups = _groups(dataset, request.copies, subject.dtype)
    for group in groups:
        wanted.place(jax.tree.map(jnp.asarray, group.structures))  # what is unfit is refused here
    config = {
        "model": subject.config,
        "start": {"structures": datasets.count(dataset), "sha256": digest},
        "sampler": spec,
        "seed": request.seed,
        "copies": request.copies,
        "format": _format(request.format, groups, wanted.steps),
    }
    with FolderStore(request.out):
        given = {"model": request.model, "start": request.start}
        schedule, extended = _claim(Path(request.out), config, given)
        sampler = wanted
        if schedule != spec:
            sampler = registry.build(SAMPLERS, schedule, subject.potential, where="sampler")
        course = _Course(
            Path(request.out), config, schedule, subject, sampler, wanted.steps, groups
        )
        tell(f"{subject.name}, {spec['name']}: {_walks(groups)}, {wanted.steps} frames each")
        if course.resumed:
            tell(f"{request.out}: goes on after {sum(course.done)} of {course.total} frames")
        course.run(on_progress)
        return Sampled(
            Path(request.out),
            course.writers["trajectory"].path,
            config,
            [group.atoms for group in groups for _ in range(group.walks)],
            dict(sorted(course.recorder.frozen.items())),
            course.resumed,
            extended,
        )


class _Course:
    """One folder's walks, files and checkpoint."""

    def __init__(self, folder: Path, config, schedule, subject: Subject, sampler, frames, groups):
        self.folder, self.subject, self.sampler = folder, subject, sampler
        self.config, self.frames, self.groups = config, int(frames), groups
        self.stepper = batched(sampler.stepper)
        kept = self._read()
        self.resumed = kept is not None
        kept = kept or {"done": [], "leaves": [], "files": {}, "recorder": {}}
        self.done = [*kept["done"], *[0] * (len(groups) - len(kept["done"]))]
        self.leaves = [*kept["leaves"], *[None] * (len(groups) - len(kept["leaves"]))]
        self.recorder = Recorder(subject, clock_of(schedule), masses_in(schedule), kept["recorder"])
        self.writers: dict[str, Any] = {"trajectory": self._trajectory()}
        if self.recorder.columns is not None:
            self.writers["observables"] = self._table()
        for name, writer in self.writers.items():
            writer.rewind(int(kept["files"].get(name, 0)))

    @property
    def total(self) -> int:
        """Frames of all walks."""
        return self.frames * sum(group.walks for group in self.groups)

    def run(self, on_progress: Callable[[Progress], None] | None) -> None:
        """All groups to their ends."""
        before = self._so_far()
        try:
            for index, group in enumerate(self.groups):
                self._group(index, group, before, on_progress)
        finally:
            # what an interrupt leaves behind the checkpoint would not fit the next run
            files = (self._read() or {"files": {}})["files"]
            for name, writer in self.writers.items():
                writer.rewind(int(files.get(name, 0)))
                writer.finish()

    def _group(self, index: int, group: Group, before: int, on_progress) -> None:
        place, go = split_named(
            jax.random.fold_in(jax.random.key(self.config["seed"]), index), "place", "go"
        )
        context = Context(params=self.subject.params)
        state = self._begun(index, group, place, context)
        block = _block_of(self.subject, group, self.frames)

        def on_block(done: int, state, infos) -> bool:
            if self.subject.log is not None:
                self.subject.log.check()
            over = self._kept(index, group, done, state, infos)
            if on_progress is not None:
                on_progress(Progress(self._so_far(), self.total, before))
            return over

        left = self.frames - self.done[index]
        if left > 0 and not self.recorder.all_frozen(group.first, group.walks):
            run(
                self.stepper, go, state, context,
                steps=left, start=self.done[index], block=block, on_block=on_block,
            )  # fmt: skip

    def _begun(self, index: int, group: Group, key, context):
        """The first state of a group, or the one in the checkpoint. Raises BadInput."""
        host, log = self.stepper.host, self.subject.log
        if log is not None:
            log.failures.clear()
        placed = self.sampler.place(jax.tree.map(jnp.asarray, group.structures))
        begin = self.stepper.init if host else jax.jit(self.stepper.init)
        if self.leaves[index] is not None:
            like = (
                begin(key, placed, context) if host else jax.eval_shape(begin, key, placed, context)
            )
            return jax.tree.unflatten(jax.tree.structure(like), self.leaves[index])
        state = jax.block_until_ready(begin(key, placed, context))
        if log is not None:
            log.check()
        _check_begun(self.subject, group, state)
        return state

    def _kept(self, index: int, group: Group, done: int, state, infos) -> bool:
        """Write a block and its checkpoint; whether all walks of the group are frozen."""
        segments = self.recorder.segments(group.first, done, state, infos)
        if "observables" not in self.writers:
            self.writers["observables"] = self._table()
            self.writers["observables"].rewind(0)
        for writer in self.writers.values():
            writer.append(segments)
        self.done[index] = done
        self.leaves[index] = jax.tree.leaves(jax.device_get(state))
        content = {
            "done": self.done,
            "leaves": self.leaves,
            "files": {name: writer.position() for name, writer in self.writers.items()},
            "recorder": self.recorder.kept(),
        }
        write_file(self.folder / "checkpoint.tree", trees.encode(content))
        for writer in self.writers.values():
            writer.settle()
        return self.recorder.all_frozen(group.first, group.walks)

    def _so_far(self) -> int:
        pairs = zip(self.done, self.groups, strict=True)
        return sum(done * group.walks for done, group in pairs)

    def _trajectory(self) -> Writer:
        if self.config["format"] == "h5md":
            return H5md(self.folder / "trajectory.h5", version("alj"))
        return extxyz(self.folder / "trajectory.extxyz")

    def _table(self) -> Writer:
        return table(self.folder / "observables.csv", self.recorder.columns or [])

    def _read(self) -> dict[str, Any] | None:
        path = self.folder / "checkpoint.tree"
        if not path.exists():
            return None
        try:
            return trees.decode(path.read_bytes(), str(path))
        except BadInput as error:
            raise BadInput(f"{error}; choose another folder, or restore it from a copy") from None


def _check_begun(subject: Subject, group: Group, state) -> None:
    """Raise BadInput where a start has no energy, or a stress is asked of one who gives none."""
    if subject.log is not None and subject.log.failures:
        place, reason = subject.log.first_failure(group.walks)
        raise BadInput(f"walk {group.first + place}: {subject.name} failed at its start: {reason}")
    stopped = np.asarray(getattr(state, "stopped", False))
    if stopped.any():
        walk = group.first + int(np.argmax(stopped.reshape(-1)))
        raise BadInput(
            f"walk {walk}: the energy or a force of its start is not finite; are its atoms too "
            "close, or its units not Å?"
        )
    virial = np.asarray(getattr(state, "virial", 0.0))
    if np.isnan(virial).any():
        raise BadInput(
            f"{subject.name} gives no stress for these structures, and this sampler changes the "
            "cell; use a dynamics at constant volume"
        )


def _start(path: str) -> tuple[datasets.Dataset, str]:
    """The structures of a file, and what tells them from others. Raises BadInput."""
    dataset, _ = datasets.read(path, labels="ignored")
    digest = hashlib.sha256()
    for structure in datasets.structures(dataset):
        for field in structure:
            digest.update(np.ascontiguousarray(field).tobytes())
    return dataset, digest.hexdigest()


def _groups(dataset: datasets.Dataset, copies: int, dtype) -> list[Group]:
    """Starts by size, in the order of the first of each; walks are numbered in that order."""
    sizes, groups, first = datasets.sizes(dataset), [], 0
    for atoms in dict.fromkeys(sizes.tolist()):
        rows = []
        for index in np.flatnonzero(sizes == atoms):
            one = datasets.structure(dataset, int(index))
            positions = datasets.near_origin(np.asarray(one.positions), np.asarray(one.cell))
            one = one._replace(
                positions=positions.astype(dtype), cell=np.asarray(one.cell).astype(dtype)
            )
            rows += [one] * copies
        columns: list[Any] = [np.stack(column) for column in zip(*rows, strict=True)]
        stacked = Structure(*columns)
        groups.append(Group(first, stacked))
        first += len(rows)
    return groups


def _format(asked: str, groups: Sequence[Group], frames: int) -> str:
    if asked != "automatic":
        return asked
    rows = sum(frames * group.walks * group.atoms for group in groups)
    return "h5md" if rows > LONG else "extxyz"


def _block_of(subject: Subject, group: Group, frames: int) -> int:
    """Frames between two checkpoints: one with an engine, else a twentieth, of bounded memory."""
    if subject.log is not None:
        return 1
    most = max(_BLOCK_ROWS // (group.walks * group.atoms), 1)
    return max(min(-(-frames // 20), most), 1)


def _walks(groups: Sequence[Group]) -> str:
    parts = [f"{g.walks} walk{'s' * (g.walks > 1)} of {g.atoms} atoms" for g in groups]
    return " and ".join(parts)


def _claim(folder: Path, config: dict, given: dict) -> tuple[dict[str, Any], list[str]]:
    """Make the folder belong to `config`; the sampler as it was first, and what has grown.

    A folder in which no frame has been written may change hands. Raises BadInput with the
    differences where it belongs to another sampling.
    """
    path = folder / "sample.yaml"
    packages = ("alj", "jax", "jaxlib", "numpy", "ase")
    about: dict[str, Any] = {"versions": {package: version(package) for package in packages}}
    if not (path.exists() and (folder / "checkpoint.tree").exists()):
        about |= {"given": given, "schedule": config["sampler"], "created": time.time()}
        content = {**config, **about}
        write_file(path, dump(content).encode())
        return config["sampler"], []
    owner = read(path)
    if "schedule" not in owner:
        raise BadInput(f"{path} is damaged (it holds no schedule); restore it from a copy")
    # a finished run that is made longer stays in the format that it has
    config["format"] = owner.get("format", config["format"])
    old = {key: owner.get(key) for key in config}
    lines = difference(old, config)
    refused = [line for line in lines if not _grows(line)]
    if refused:
        raise BadInput(
            f"{folder} belongs to another sampling ({'; '.join(refused)}); choose another --out, "
            f"or change only {', '.join(LENGTHS)}, which may grow"
        )
    if lines:
        write_file(path, dump({**owner, **config}).encode())
    return owner["schedule"], lines


def _grows(line: str) -> bool:
    """Whether a difference is a length of the sampler that grows."""
    names = "|".join(LENGTHS)
    found = re.fullmatch(rf"sampler\.(?:\w+\.)*(?:{names}): (\d+) -> (\d+)", line)
    return found is not None and int(found.group(2)) > int(found.group(1))
