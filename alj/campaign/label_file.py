"""Labels for the structures of a file: their order is kept, what is finished is never repeated.

Work lies in `OUT.work/`, with the lock and the ledger of a run. A structure that cannot be labeled
is written with `label_failure=KIND` and without labels.
"""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.io
import numpy as np

from alj.campaign import datasets
from alj.campaign.executors import Executor
from alj.campaign.labels import label_all
from alj.campaign.ledger import Ledger
from alj.campaign.reading import FIELDS, Frame, empty_labels, read_atoms, read_frame
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
    on_label: Callable[[int, int], None] | None = None,
) -> Labeled:
    """Label every structure in `data` and write `out` (extxyz, `REF_` keys).

    Failures are keyed by the structure's place, counted from 0. Raises BadInput for an unreadable
    file, or an `out` that is in use or was not written by this function.
    """
    data, out = Path(data), Path(out)
    work = out.with_name(out.name + ".work")
    _check_target(data, out, work)
    frames = read_atoms(data)
    read = [_read(atoms) for atoms in frames]
    good = [i for i, frame in enumerate(read) if isinstance(frame, Frame)]
    with FolderStore(work), Ledger(work) as ledger:
        structures = [frame.structure for frame in read if isinstance(frame, Frame)]
        answers = label_all(executor, labeler, structures, ledger, on_label)
        failures = {i: frame for i, frame in enumerate(read) if isinstance(frame, LabelingFailed)}
        kept, info = [], []
        for i, frame, answer in zip(good, map(read.__getitem__, good), answers, strict=True):
            assert isinstance(frame, Frame)
            about = {k: v for k, v in frame.info.items() if k != "label_failure"}
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
    return Labeled(len(frames), dict(sorted(failures.items())))


def _check_target(data: Path, out: Path, work: Path) -> None:
    if out.is_dir():
        raise BadInput(f"{out}: expected a file to write, found a folder")
    if out.exists() and data.exists() and out.samefile(data):
        raise BadInput(f"{out}: the labeled structures cannot replace the file they are read from")
    if out.exists() and not work.is_dir():
        raise BadInput(f"{out} exists already, from elsewhere; remove it or choose another --out")


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
        and not key.startswith("REF_")
        and key not in (*FIELDS, "virial")
    }
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info = {**known, "label_failure": "bad_input"}
    stream = StringIO()
    ase.io.write(stream, bare, format="extxyz")
    return stream.getvalue()
