"""What programs leave behind when they fail: their last words, and what these mean."""

from pathlib import Path

NOT_CONVERGED = (
    "SCF run NOT converged",  # CP2K
    "convergence NOT achieved",  # Quantum ESPRESSO
    "SCF NOT CONVERGED",  # ORCA
    "not fully converged",  # ORCA
    "EDIFF was not reached",  # VASP 6
    "electronic self-consistency was not achieved",  # VASP 6
    "SCC is NOT converged",  # DFTB+
    "Self-consistency cycle not converged",  # FHI-aims
    "was not enough SCF cycles to converge",  # ABINIT
    "Calculation failed to converge",  # NWChem
    "Could not converge SCF",  # Psi4
    "SCF failed to converge",  # Q-Chem
    "Convergence failure",  # Gaussian
    "UNABLE TO ACHIEVE SELF-CONSISTENCE",  # MOPAC
)
"""What programs print when the electrons do not settle, whatever they do next."""

OUT_OF_MEMORY = ("oom-kill", "out of memory", "cannot allocate memory", "std::bad_alloc")

_READ = 4_000_000
"""Bytes at the end of a file that are looked at."""


def unconverged(folder: Path) -> str:
    """The line of a program's output that says that it has not converged; "" for none."""
    wanted = [text.lower() for text in NOT_CONVERGED]
    for path in _files(folder):
        text = _end(path, _READ)
        lower = text.lower()
        for words in wanted:
            place = lower.find(words)
            if place >= 0:
                begin = text.rfind("\n", 0, place) + 1
                line = text[begin:].partition("\n")[0]
                return f"{path.name}: {' '.join(line.split()).strip('*! ')[:200]}"
    return ""


def newest_text(folder: Path, characters: int = 2000) -> str:
    """The end of the two text files that were written last, with their names."""
    tails = []
    for path in _files(folder)[-2:]:
        text = _end(path, characters)
        if text:
            tails.append(f"--- {path.name}\n{text}")
    return "\n".join(tails)


def kind_of(log: str) -> str:
    """The failure kind of a program that ended badly with these last words."""
    if any(words in log.lower() for words in OUT_OF_MEMORY):
        return "out_of_memory"
    if any(words.lower() in log.lower() for words in NOT_CONVERGED):
        return "not_converged"
    return "crash"


def _files(folder: Path) -> list[Path]:
    """The files of a folder that are not empty, the oldest first."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _end(path: Path, size: int) -> str:
    """The end of a text file; "" for a binary one."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        data = file.read()
    return "" if b"\0" in data else data.decode(errors="replace")
