"""Stand-ins for Slurm, PBS, Torque and LSF: they really run the job scripts, on this machine.

`install(folder)` puts executables of their names into `folder/bin`; each is this file, which acts
by the name that it is called with. Jobs are processes whose numbers lie in `folder/jobs`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

NAMES = ("sbatch", "squeue", "scancel", "qsub", "qstat", "qdel", "bsub", "bjobs", "bkill")


def install(folder: Path) -> Path:
    """Executables in `folder/bin`, for PATH."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    for name in NAMES:
        script = f"#!/bin/sh\nexec '{sys.executable}' '{__file__}' {name} '{folder}' \"$@\"\n"
        (bin_ / name).write_text(script)
        (bin_ / name).chmod(0o755)
    return bin_


def main(name: str, folder: Path, arguments: list[str]) -> None:
    """One call of one of the programs."""
    jobs = folder / "jobs"
    jobs.mkdir(exist_ok=True)
    (folder / "calls.txt").open("a").write(f"{name} {' '.join(arguments)}\n")
    if name in ("sbatch", "qsub", "bsub"):
        number = _submit(Path(arguments[-1]), jobs)
        said = {
            "sbatch": f"Submitted batch job {number}",
            "qsub": f"{number}.standin",
            "bsub": f"Job <{number}> is submitted to queue <normal>.",
        }
        sys.stdout.write(said[name] + "\n")
    elif name in ("scancel", "qdel", "bkill"):
        for number in re.findall(r"\d+", " ".join(arguments)):
            if (jobs / number).exists():
                os.killpg(int((jobs / number).read_text()), signal.SIGTERM)
    else:
        _tell(
            name, [n for n in re.findall(r"\d+", " ".join(arguments)) if (jobs / n).exists()], jobs
        )


def _tell(name: str, numbers: list[str], jobs: Path) -> None:
    running = {n: _alive(int((jobs / n).read_text())) for n in numbers}
    if name == "squeue":
        lines = [f"{n} {'R' if on else 'CD'}" for n, on in running.items()]
    elif name == "bjobs":
        lines = [f"{n} {'RUN' if on else 'DONE'}" for n, on in running.items()]
    else:
        states = {f"{n}.standin": {"job_state": "R" if on else "F"} for n, on in running.items()}
        lines = [json.dumps({"Jobs": states})]
    sys.stdout.write("\n".join(lines) + "\n")


def _submit(script: Path, jobs: Path) -> int:
    """Run a job script in a session of its own, with the output files that it asks for."""
    text = script.read_text()
    out = re.search(r"^#(?:SBATCH --output=|PBS -o |BSUB -o )(\S+)", text, re.MULTILINE)
    err = re.search(r"^#(?:SBATCH --error=|PBS -e |BSUB -e )(\S+)", text, re.MULTILINE)
    with (
        open(out.group(1) if out else os.devnull, "w") as stdout,
        open(err.group(1) if err else os.devnull, "w") as stderr,
    ):
        process = subprocess.Popen(
            ["bash", str(script)], stdout=stdout, stderr=stderr, start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    number = len(list(jobs.iterdir())) + 101
    (jobs / str(number)).write_text(str(process.pid))
    return number


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
