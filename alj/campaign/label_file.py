"""Labels for the structures of a file: their order is kept, what is finished is never repeated.

Work lies in `OUT.work/`, with the lock and the ledger of a run, until every structure has its
labels. A structure that cannot be labeled is written with `label_failure=KIND` and without labels.
Every label says where it comes from: `reference` and `label_…` in the info of its structure.
"""

import shutil
from collections.abc import Callable, Collection
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.io
import numpy as np

from alj.campaign import datasets
from alj.campaign.attempts import PROVENANCE
from alj.campaign.built import to_atoms
from alj.campaign.executors import Executor
from alj.campaign.isolated import isolated_atoms
from alj.campaign.labels import Progress, content_hash, label_all
from alj.campaign.ledger import Ledger
from alj.campaign.reading import FIELDS, Frame, empty_labels, read_atoms, read_frame
from alj.campaign.references import KEY
from alj.campaign.store import FolderStore, write_file
from alj.types import BadInput, Labeler, LabelingFailed


class Labeled(NamedTuple):
    """How many structures there were, and why each one that has no labels has none."""

    count: int
    failures: dict[int, LabelingFailed]


def label_file(
    data: str | Path,
    out: str | Path,
    labeler: Labeler,
    executor: Executor,
    on_label: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    *,
    again: Collection[str] = (),
    mixed: bool = False,
    isolated: bool = False,
) -> Labeled:
    """Label every structure in `data` and write `out` (extxyz, `REF_` keys).

    Failures are keyed by the structure's place, counted from 0; those of the kinds in `again` are
    tried again. `mixed` allows `out` to hold labels of several references. `isolated` adds each
    element of `data` as a free atom at the end. Raises BadInput for an unreadable file, or an `out`
    that is in use or was not written by this function.
    """
    data, out = Path(data), Path(out)
    work = out.with_name(out.name + ".work")
    _check_target(data, out, work)
    frames = read_atoms(data)
    if isolated:
        frames += _free_atoms(frames)
    if _is_done(out, work, frames, labeler):
        return Labeled(len(frames), {})
    read = [_read(atoms) for atoms in frames]
    good = [i for i, frame in enumerate(read) if isinstance(frame, Frame)]
    with FolderStore(work), Ledger(work, mixed=mixed) as ledger:
        structures = [frame.structure for frame in read if isinstance(frame, Frame)]
        answers = label_all(executor, labeler, structures, ledger, on_label, on_note, again=again)
        hashes = [content_hash(labeler, structure) for structure in structures]
        origin = ledger.provenance(hashes)
        failures = {i: frame for i, frame in enumerate(read) if isinstance(frame, LabelingFailed)}
        kept, info = [], []
        for i, hash_, answer in zip(good, hashes, answers, strict=True):
            frame = read[i]
            assert isinstance(frame, Frame)
            about = {k: v for k, v in frame.info.items() if not _of_a_label(k)}
            about |= _told(origin[hash_], hash_) if hash_ in origin else {}
            if isinstance(answer, LabelingFailed):
                failures[i] = answer
                about["label_failure"] = answer.kind
                answer = empty_labels(len(frame.structure.species))
            kept.append(answer)
            info.append(about)
        dataset = datasets.append(datasets.empty(), structures, kept, info)
        datasets.write(work / "labeled.extxyz", dataset)
        written = dict(zip(good, _frames_in(work / "labeled.extxyz"), strict=True))
        texts = [written[i] if i in written else _bare(frames[i]) for i in range(len(frames))]
        write_file(out, "".join(texts).encode())
    if not failures:
        shutil.rmtree(work)
    return Labeled(len(frames), dict(sorted(failures.items())))


def _free_atoms(frames: list[ase.Atoms]) -> list[ase.Atoms]:
    """Each element of the structures alone, in its ground state."""
    species = sorted({int(number) for atoms in frames for number in atoms.numbers})
    found = []
    for built in isolated_atoms(species):
        atoms = to_atoms(built)
        atoms.info |= built.info
        found.append(atoms)
    return found


_HASH = "label_hash"
_WRITTEN = {
    KEY,
    _HASH,
    *(f"label_{key}" for key in PROVENANCE),
    "label_failure",
}
"""Keys of a structure's info that are written here, and left behind when it is labeled anew."""


def _of_a_label(key: str) -> bool:
    return key in _WRITTEN


def _told(provenance: dict[str, Any], hash_: str) -> dict[str, Any]:
    """Provenance as keys of a structure's info."""
    told = {k if k == KEY else f"label_{k}": v for k, v in provenance.items()}
    return {**told, _HASH: hash_}


def _is_done(out: Path, work: Path, frames: list[ase.Atoms], labeler: Labeler) -> bool:
    """Whether `out` holds these structures with labels of this labeler, and no work is left."""
    if not out.exists() or work.exists():
        return False
    try:
        written = read_atoms(out)
    except BadInput:
        written = []
    read = [_read(atoms) for atoms in frames]
    wanted = [
        content_hash(labeler, frame.structure) if isinstance(frame, Frame) else "" for frame in read
    ]
    same = [atoms.info.get(_HASH) for atoms in written] == wanted
    if not same:
        raise BadInput(f"{out} exists already, from elsewhere; remove it or choose another --out")
    return True


def _check_target(data: Path, out: Path, work: Path) -> None:
    if out.is_dir():
        raise BadInput(f"{out}: expected a file to write, found a folder")
    if out.exists() and data.exists() and out.samefile(data):
        raise BadInput(f"{out}: the labeled structures cannot replace the file they are read from")


def _read(atoms: ase.Atoms) -> Frame | LabelingFailed:
    try:
        return read_frame(atoms, known=(), with_labels=False)
    except BadInput as error:
        return LabelingFailed("bad_input", str(error))


def _frames_in(path: Path) -> list[str]:
    """The text of an extxyz file, cut into its frames."""
    lines, frames, start = path.read_text(encoding="utf-8").splitlines(keepends=True), [], 0
    while start < len(lines):
        stop = start + int(lines[start]) + 2
        frames.append("".join(lines[start:stop]))
        start = stop
    return frames


def _bare(atoms: ase.Atoms) -> str:
    """A structure that is none, as far as it goes: what stood there, without labels."""
    known: dict[str, Any] = {
        key: value
        for key, value in atoms.info.items()
        if isinstance(value, (str, bool, int, float, np.number))
        and not (key.startswith("REF_") or _of_a_label(key))
        and key not in (*FIELDS, "virial")
    }
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info = {**known, "label_failure": "bad_input"}
    stream = StringIO()
    ase.io.write(stream, bare, format="extxyz")
    return stream.getvalue()
