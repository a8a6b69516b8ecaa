"""Any command that reads an extxyz and writes one: here, or on a cluster through ssh.

The command gets `input.extxyz` in a folder of its own and leaves `output.extxyz`: the same atoms in
the same order, with energy (eV), forces (eV/Å) and what else it knows. A structure that it cannot
label, it writes with `label_failure=KIND` (`not_converged`, say) and perhaps `label_message`.
"""

import hashlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import ase.io
import numpy as np
from ase.data import chemical_symbols

from alj.labeling.ase import numbers_of
from alj.labeling.atoms import labels_from
from alj.labeling.engine import Limits
from alj.labeling.output import kind_of
from alj.labeling.ssh import INPUT, OUTPUT, Place, Ran, fetched, place_of, settle
from alj.types import FAILURE_KINDS, BadInput, LabelingFailed, Labels, Structure

SAME_A = 1e-6
"""An answer is for a structure whose atoms are nearer than this to those that were asked for."""


def command(
    *,
    command: str,
    method: str,
    structures_per_call: int = 1,
    elements: tuple[str, ...] = (),
    periodic: bool = True,
    electrons: bool = True,
    host: str = "",
    submit: str = "",
    job_header: tuple[str, ...] = (),
    remote_folder: str = "alj-labels",
    clean_up: Literal["finished", "never"] = "finished",
    ssh: str = "ssh",
) -> "Command":
    """Any command that reads an extxyz file and writes one; also through ssh and a scheduler.

    Args:
        command: Shell command; `{input}` and `{output}` become the names of the files in the
            folder where it runs. Programs and scripts by absolute path, or on PATH.
        method: Program, version, functional, basis in words: the convention of its energies.
        structures_per_call: Structures that one call gets, in one file: many for small labels.
        elements: Chemical symbols that it knows; none for any.
        periodic: Whether it takes cells.
        electrons: Whether charge and multiplicity mean anything to it.
        host: Destination for ssh; nothing for this machine.
        submit: How a job script is submitted, such that it waits for the end of the job:
            `sbatch --wait {script}`, `qsub -sync y {script}`, `qsub -W block=true {script}`,
            `bsub -K < {script}`. Nothing runs the command without a scheduler.
        job_header: Lines at the head of the job script: `#SBATCH …`, `module load …`.
        remote_folder: Where jobs have their folders, on the host; `$SCRATCH/alj`, for example.
        clean_up: Whether folders of finished jobs are removed once their labels are here.
        ssh: The program that opens the connection, with options: `ssh -p 2222`.
    """
    if structures_per_call < 1:
        raise BadInput(f"structures_per_call: expected 1 or more, found {structures_per_call}")
    if not command.strip() or not method.strip():
        raise BadInput("command and method: expected texts, found an empty one")
    place = place_of(host, submit, job_header, remote_folder, clean_up, ssh)
    return Command(
        command, method, structures_per_call, numbers_of(elements), periodic, electrons, place
    )


@dataclass(frozen=True)
class Command:
    """See `command`."""

    command: str
    method: str
    structures_per_call: int
    elements: tuple[int, ...]
    periodic: bool
    electrons: bool
    place: Place

    name: ClassVar[str] = "command"
    limits: ClassVar[Limits] = Limits()

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers: where it runs, and how many together, does not."""
        return {"command": self.command, "method": self.method, "electrons": self.electrons}

    @property
    def waits(self) -> bool:
        """Whether a call may stand in a queue: nobody knows for how long."""
        return bool(self.place.host or self.place.submit)

    @property
    def convention(self) -> str:
        """What its energies are."""
        return self.method

    def version(self) -> str:
        """The command's programs, with a fingerprint of those that are files on this machine.

        Raises BadInput where the first of them is not found here.
        """
        words = shlex.split(self.command)
        if self.place.host:
            return f"{words[0]} on {self.place.host}"
        if shutil.which(words[0]) is None and not any(c in words[0] for c in "$~=("):
            raise BadInput(f"command: there is no program `{words[0]}` on PATH")
        found = [Path(shutil.which(word) or word) for word in words]
        scripts = [path for path in found if path.is_file() and path.stat().st_size < _SCRIPT]
        prints = [f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()[:12]}" for p in scripts]
        return ", ".join(prints) or words[0]

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One call for one structure. Raises LabelingFailed, BadInput."""
        (answer,) = self._called([_Asked(structure, multiplicity)])
        if isinstance(answer, LabelingFailed):
            raise answer
        return answer

    def calculate_many(
        self, structures: Sequence[Structure], multiplicities: Sequence[int]
    ) -> list[Labels | LabelingFailed]:
        """`structures_per_call` to a call; a failure is one structure's own. Raises BadInput."""
        asked = [_Asked(*pair) for pair in zip(structures, multiplicities, strict=True)]
        size = self.structures_per_call
        parts = [asked[start : start + size] for start in range(0, len(asked), size)]
        return [answer for part in parts for answer in self._called(part)]

    def _called(self, asked: list["_Asked"]) -> list[Labels | LabelingFailed]:
        """Answers for one block; whoever spoils it is called alone, those after him once more."""
        answers: list[Labels | LabelingFailed | None] = [None] * len(asked)
        waiting = [list(range(len(asked)))]
        while waiting:
            part = waiting.pop(0)
            try:
                found = self._once([asked[i] for i in part])
            except LabelingFailed as failure:
                found = [failure] * len(part)
            for i, answer in zip(part, found, strict=True):
                answers[i] = answer
            missing = [i for i in part if answers[i] is None]
            waiting += [again for again in (missing[:1], missing[1:]) if again]
        return [answer for answer in answers if answer is not None]

    def _once(self, asked: list["_Asked"]) -> list[Labels | LabelingFailed | None]:
        """One call; None where a block left no answer. Raises LabelingFailed for all of them."""
        text = "".join(written(one, i) for i, one in enumerate(asked))
        line = self.command.replace("{input}", INPUT).replace("{output}", OUTPUT)
        ran = _run_here(line, text) if self.place.here else fetched(self.place, line, text)
        if ran.status in (126, 127):
            settle(self.place, ran, good=False)
            last = (ran.log.strip().splitlines() or ["no message"])[-1]
            raise BadInput(f"command: it, or a program that it calls, is not there: {last[:300]}")
        answers = _answers(ran, asked)
        spoiled = any(
            isinstance(a, LabelingFailed) and a.kind in ("parse", "crash") for a in answers
        )
        settle(self.place, ran, good=ran.status == 0 and not spoiled and None not in answers)
        return answers


class _Asked(NamedTuple):
    """One structure to label; `multiplicity` 0 where it is not known."""

    structure: Structure
    multiplicity: int


_SCRIPT = 1_000_000
"""Bytes; larger files are programs, which are not read for a fingerprint."""


def written(asked: _Asked, index: int) -> str:
    """One structure in extxyz, Å, to the last digit (ASE's own writer rounds to 1e-8 Å)."""
    structure = asked.structure
    positions = np.asarray(structure.positions, np.float64)
    cell = np.asarray(structure.cell, np.float64)
    info = [f"charge={int(structure.charge)}", f"structure={index}"]
    if asked.multiplicity:
        info.append(f"multiplicity={asked.multiplicity}")
    if cell.any():
        info.append(f'Lattice="{" ".join(map(repr, cell.ravel().tolist()))}"')
    flags = " ".join("T" if row.any() else "F" for row in cell)
    head = f'Properties=species:S:1:pos:R:3 pbc="{flags}" {" ".join(info)}'
    rows = [
        f"{chemical_symbols[int(z)]} {' '.join(map(repr, row.tolist()))}"
        for z, row in zip(structure.species, positions, strict=True)
    ]
    return "\n".join([str(len(rows)), head, *rows, ""])


def _run_here(line: str, text: str) -> Ran:
    """Run the command in a temporary folder of this machine."""
    with tempfile.TemporaryDirectory(prefix="alj-command-") as name:
        folder = Path(name)
        (folder / INPUT).write_text(text)
        with (folder / "log").open("wb") as log:
            status = subprocess.run(
                line, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode
        output = folder / OUTPUT
        found = output.read_text(errors="replace") if output.exists() else None
        return Ran(status, found, (folder / "log").read_text(errors="replace")[-4000:])


def _answers(ran: Ran, asked: list[_Asked]) -> list[Labels | LabelingFailed | None]:
    """What a call says of each structure that it was asked for.

    Of a block whose command failed, the frames before the last are good; the last was perhaps not
    finished. A command that fails on one structure alone has failed on it.
    """
    frames = _frames(ran.output or "")
    answers: list[Labels | LabelingFailed | None] = [None] * len(asked)
    for i, (frame, one) in enumerate(zip(frames, asked, strict=False)):
        answer = _answer(frame, one.structure)
        told = isinstance(answer, LabelingFailed) and answer.kind != "parse"
        if ran.status == 0 or told or i + 1 < len(frames):
            answers[i] = _with_log(answer, ran.log)
    if len(frames) > len(asked):
        message = f"{len(frames)} structures in {OUTPUT}, expected {len(asked)}"
        return [LabelingFailed("parse", message, ran.log) for _ in asked]
    if len(asked) == 1 and answers[0] is None:
        answers[0] = _missing(ran)
    return answers


def _missing(ran: Ran) -> LabelingFailed:
    """Why the only structure of a call has no answer."""
    if ran.status != 0:
        what = (
            f"was killed by signal {-ran.status}" if ran.status < 0 else f"ended with {ran.status}"
        )
        return LabelingFailed(kind_of(ran.log), f"the command {what}", ran.log)
    what = f"wrote no {OUTPUT}" if ran.output is None else f"wrote an empty {OUTPUT}"
    return LabelingFailed("parse", f"the command {what}", ran.log)


def _with_log(answer: Labels | LabelingFailed, log: str) -> Labels | LabelingFailed:
    if isinstance(answer, LabelingFailed):
        return LabelingFailed(answer.kind, answer.message, log)
    return answer


def _frames(text: str) -> list[str]:
    """The structures of an extxyz file, each by itself: one that is broken spoils no other."""
    lines = text.splitlines()
    frames, start = [], 0
    while start < len(lines) and lines[start].strip():
        first = lines[start].strip()
        size = int(first) + 2 if first.isdecimal() else len(lines)
        frames.append("\n".join(lines[start : start + size]) + "\n")
        start += size
    return frames


def _answer(frame: str, structure: Structure) -> Labels | LabelingFailed:
    """Labels in one structure of the output, or the failure that it tells of."""
    try:
        if len(frame.splitlines()) != len(structure.species) + 2:
            expected = f"{len(structure.species)} atoms"
            raise ValueError(f"expected {expected}, found {len(frame.splitlines()) - 2} lines")
        atoms: Any = ase.io.read(StringIO(frame), format="extxyz", index=0)
        kind = str(atoms.info.get("label_failure", ""))
        if kind:
            message = str(atoms.info.get("label_message", f"the command says {kind}"))
            known = kind in FAILURE_KINDS
            return LabelingFailed(kind if known else "parse", message)
        _check_same(atoms, structure)
        given = {**atoms.info, **atoms.arrays, **(atoms.calc.results if atoms.calc else {})}
        return labels_from(_results(given, structure), structure)
    except KeyError as error:
        message = f"no {error.args[0]} in {OUTPUT}; expected REF_{error.args[0]}"
    except Exception as error:  # ASE's reader raises whatever it stumbles on
        message = f"{OUTPUT} cannot be used: {' '.join(str(error).split())[:200]}"
    return LabelingFailed("parse", message)


def _check_same(atoms: Any, structure: Structure) -> None:
    """Raise ValueError where an answer is for other atoms than those that were asked for."""
    if not np.array_equal(atoms.numbers, structure.species):
        raise ValueError("the atoms are not the same, in the same order, as in the input")
    apart = np.abs(atoms.positions - np.asarray(structure.positions)).max()
    if not apart <= SAME_A:
        raise ValueError(f"an atom is {apart:.2g} Å from where it was in the input")
    cell = np.asarray(structure.cell)
    if cell.any() and not np.abs(atoms.cell.array - cell).max() <= SAME_A:
        raise ValueError("the cell is not the one of the input")


_NAMES = {
    "energy": ("REF_energy", "free_energy", "energy"),
    "forces": ("REF_forces", "forces", "force"),
    "stress": ("REF_stress", "stress"),
    "virial": ("REF_virial", "virial"),
    "dipole": ("REF_dipole", "dipole"),
    "charges": ("REF_charges", "charges"),
}
"""Keys of an answer, the best first; `free_energy` is the one that ASE's forces belong to."""


def _results(given: dict[str, Any], structure: Structure) -> dict[str, Any]:
    """Energy, forces and so on by their plain names; stress from a virial where there is none."""
    found: dict[str, Any] = {}
    for name, keys in _NAMES.items():
        there = [given[key] for key in keys if given.get(key) is not None]
        found |= {name: there[0]} if there else {}
    virial = found.pop("virial", None)
    if "stress" not in found and virial is not None and np.asarray(structure.cell).any():
        volume = abs(np.linalg.det(np.asarray(structure.cell)))
        found["stress"] = -np.reshape(virial, (3, 3)) / volume
    elif "stress" in found and np.size(found["stress"]) == 9:
        found["stress"] = np.reshape(found["stress"], (3, 3))
    return found
