"""ESOINN-DP: an incremental network of classes decides what is new (published system 4).

    python experiments/esoinn_dp.py configs/esoinn_dp_cpu.yaml

Each part of the experiment is a module of its own with `run(plan, store, out)`, which resumes, and
`collect(plan, store, out, target)`, which writes figures and gives the lines of its section. Page,
numbers and figures go to `experiments/results/<name of the file>`; `--collect` only writes them
again, `--part NAME` runs one part alone.

M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP).
"""

import argparse
import sys
from pathlib import Path

import esoinn_water
from variants import machine, read

from alj.campaign.store import FolderStore
from alj.cli.environment import prepare

RESULTS = Path(__file__).parent / "results"
PARTS = {"water": esoinn_water}
"""By the section of the configuration that each reads; a section that is missing is left out."""


def main() -> int:
    """Run what is missing, then collect; the exit code of the first part that did not end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the file>)")
    parser.add_argument("--collect", action="store_true", help="only write the results again")
    parser.add_argument("--part", choices=sorted(PARTS), help="only this part")
    given = parser.parse_args()
    prepare()
    plan = read(given.config)
    out = given.out or Path("runs") / given.config.stem
    out.mkdir(parents=True, exist_ok=True)
    parts = {name: PARTS[name] for name in PARTS if plan.get(name) is not None}
    code = 0
    with FolderStore(out / "measured") as store:
        for name, part in parts.items():
            if not given.collect and given.part in (None, name):
                code = code or part.run(plan, store, out)
        collect(plan, store, out, parts, given.config)
    return code


def collect(plan, store, out: Path, parts, config: Path) -> None:
    """Write the page with the section of every part."""
    target = RESULTS / config.stem
    target.mkdir(parents=True, exist_ok=True)
    lines = [
        f"# ESOINN-DP: `{config.name}`", "",
        f"`python experiments/esoinn_dp.py {config}` on {machine()}, seed {plan['seed']}.", "",
    ]  # fmt: skip
    for part in parts.values():
        lines += part.collect(plan, store, out, target)
    (target / "README.md").write_text("\n".join(lines).rstrip() + "\n")
    print(f"see {target / 'README.md'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
