"""Energies, forces and stresses by CP2K for the structures of an extxyz file.

    python3 cp2k_label.py TEMPLATE INPUT OUTPUT CP2K...

TEMPLATE is an input of CP2K with @CELL@, @COORD@, @CHARGE@ and @MULTIPLICITY@ in it; CP2K... is how
the program is started, `mpirun -n 16 cp2k.psmp` say. A structure that fails is written with
`label_failure`; CP2K goes on and exits with 0 where its electrons have not settled, so that is
looked for in the output. Needs nothing but Python 3.8: it may run where this package is not.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

HARTREE_eV, BOHR_A, GPA_eV_per_A3 = 27.211386245988, 0.529177210903, 0.006241509074460763


def main(template, source, target, program):
    """Label all structures, each written as soon as it is finished."""
    if shutil.which(program[0]) is None:
        sys.stderr.write(f"there is no program {program[0]} on PATH\n")
        sys.exit(127)
    text = Path(template).read_text()
    with open(target, "w") as output:
        for number, structure in enumerate(read(source)):
            output.write(labeled(structure, text, f"label-{number}", program))
            output.flush()


def read(source):
    """(comment line, lines of atoms) of each structure."""
    lines = Path(source).read_text().splitlines()
    while lines and lines[0].strip():
        count = int(lines[0])
        yield lines[1], lines[2 : 2 + count]
        lines = lines[2 + count :]


def labeled(structure, template, name, program):
    """One structure in extxyz, with its labels or with `label_failure`."""
    comment, atoms = structure
    Path(name + ".inp").write_text(filled(template, comment, atoms))
    done = subprocess.run([*program, "-i", name + ".inp", "-o", name + ".out"])
    said = Path(name + ".out").read_text(errors="replace") if Path(name + ".out").exists() else ""
    try:
        if re.search("SCF run NOT converged|outer SCF loop FAILED to converge", said):
            raise Failure("not_converged", "SCF run NOT converged")
        if done.returncode:
            abort = re.search(r"\[ABORT\](.*?)\n", said)
            raise Failure("crash", abort.group(1) if abort else f"exit {done.returncode}")
        energy, forces, stress = results(said, len(atoms))
    except Failure as failure:
        sys.stderr.write(f"{name}: {failure}\n{said[-1500:]}\n")
        words = re.sub('["\\\\]', "", failure.message.strip(" *\\/|_"))
        told = f'{comment} label_failure={failure.kind} label_message="{words}"'
        return "\n".join([str(len(atoms)), told, *atoms, ""])
    comment = comment.replace("pos:R:3", "pos:R:3:REF_forces:R:3")
    comment += f" REF_energy={energy:.12f}"
    if stress:
        comment += f' REF_stress="{" ".join(map(repr, stress))}"'
    rows = [f"{a} {' '.join(map(repr, force))}" for a, force in zip(atoms, forces)]  # noqa: B905
    return "\n".join([str(len(atoms)), comment, *rows, ""])


class Failure(Exception):
    """A structure that has no labels: kind and message."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message


def filled(template, comment, atoms):
    """The input of CP2K for one structure."""
    lattice = re.search('Lattice="([^"]*)"', comment)
    flags = re.search('pbc="([^"]*)"', comment).group(1).split()
    if lattice:
        numbers = lattice.group(1).split()
        rows = {"A": numbers[:3], "B": numbers[3:6], "C": numbers[6:]}
        cell = [f"{axis} [angstrom] {' '.join(row)}" for axis, row in rows.items()]
        cell.append("PERIODIC " + "".join("XYZ"[i] for i in range(3) if flags[i] == "T"))
    else:
        cell = box(atoms)
    charge = re.search(r"charge=(-?\d+)", comment)
    multiplicity = re.search(r"multiplicity=(\d+)", comment)
    values = {
        "@CELL@": "\n".join(cell),
        "@COORD@": "\n".join(atoms),
        "@CHARGE@": charge.group(1) if charge else "0",
        "@MULTIPLICITY@": multiplicity.group(1) if multiplicity else "0",
    }
    for key, value in values.items():
        template = template.replace(key, value)
    return template


def box(atoms):
    """A cube around a molecule, twice as long, and 8 Å more: the MT Poisson solver wants that."""
    positions = [[float(x) for x in atom.split()[1:4]] for atom in atoms]
    widths = [max(p[i] for p in positions) - min(p[i] for p in positions) for i in range(3)]
    side = f"{2 * max(widths) + 8.0:.6f}"
    return [f"ABC [angstrom] {side} {side} {side}", "PERIODIC NONE"]


def results(said, count):
    """Energy (eV), forces (eV/Å), stress (eV/Å^3, tension positive; () without) in an output."""
    energies = re.findall(r"ENERGY\| Total FORCE_EVAL.*?(-?\d+\.\d+)\s*$", said, re.M)
    three = r"\s+(-?\d+\.\d+(?:[ED][-+]?\d+)?)" * 3
    # "1 1 H x y z" before version 2024, "FORCES| 1 x y z" since
    forces = re.findall(rf"^\s+\d+\s+\d+\s+[A-Z]\S*{three}\s*$", said, re.M)
    forces = forces or re.findall(rf"^ FORCES\|\s+\d+{three}", said, re.M)
    stress = re.findall(rf"^ STRESS\|\s+[xyz]{three}\s*$", said, re.M)[:3]
    if "PROGRAM ENDED" not in said or not energies or len(forces) != count:
        found = f"{len(energies)} energies and {len(forces)} forces for {count} atoms"
        raise Failure("parse", f"the output of CP2K has {found}")
    scale = HARTREE_eV / BOHR_A
    return (
        float(energies[-1]) * HARTREE_eV,
        [[float(value) * scale for value in force] for force in forces],
        [-float(value) * GPA_eV_per_A3 for row in stress for value in row],
    )


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
