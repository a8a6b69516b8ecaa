"""Coarse-grained water from one structure, by nested-ensemble Monte Carlo (published system 1).

    python experiments/coarse_grained_water.py configs/coarse_grained_water_cpu.yaml

Runs every variant with every seed that the file names, each a campaign in a folder of its own that
resumes, and writes a table of published and obtained numbers with figures to
`experiments/results/<name of the file>`. `--collect` only writes the table again.

T. D. Loeffler, T. K. Patra, H. Chan, M. Cherukara, S. K. R. S. Sankaranarayanan, Mol. Syst. Des.
Eng. 5 (2020), doi 10.1039/c9me00184k; the reference is ML-BOP water, doi
10.1038/s41467-018-08222-6.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from variants import campaigns, machine, read

from alj.campaign import config as configuration
from alj.campaign import events
from alj.campaign.store import read_claim
from alj.cli.runs import run_campaign
from alj.monitor.summary import duration, summarize


class Target(NamedTuple):
    """A quantity of the paper: what it printed, what must be reached, what is aimed at."""

    name: str
    unit: str
    published: str
    limit: float
    aim: float | None
    of: str = "energies only"


TARGETS = (
    Target("labels computed, start and anchor included", "", "about 1000", 1000, 100, "all"),
    Target("structures kept", "", "275-280", 300, None),
    Target("structures kept, forces trained on", "", "-", 30, None, "forces"),
    Target("energy MAE, broad", "meV/bead", "1.2-2", 2.0, 1.0, "all"),
    Target("force MAE, broad", "meV/Å", "40 (unstated mix)", 90.0, None),
    Target("force MAE, thermal third", "meV/Å", "40 (unstated mix)", 60.0, 40.0),
    Target("force MAE, broad, forces trained on", "meV/Å", "-", 40.0, 20.0, "forces"),
    Target("force MAE, thermal third, forces trained on", "meV/Å", "-", 27.0, 20.0, "forces"),
    Target("density - reference's, less 2 standard errors", "g/cm³", "0.01", 0.01, None, "all"),
    Target("1 - overlap of g(r) with the reference's", "", "peaks agree", 0.03, None, "all"),
    Target("1 - overlap of the angles' distribution", "", "peaks agree", 0.03, None, "all"),
)
"""Every limit is an upper one. Overlap: the area under the lower of two curves over that under
their mean; diffusion waits for molecular dynamics."""

RESULTS = Path(__file__).parent / "results"
FIGURES = ("learning_curve", "energy_parity_test", "radial_0", "angular_0", "density")


def main() -> int:
    """Run what is missing, then collect; the exit code of the first run that did not finish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the file>)")
    parser.add_argument("--collect", action="store_true", help="only write the table again")
    given = parser.parse_args()
    plan = read(given.config)
    out = given.out or Path("runs") / given.config.stem
    found = campaigns(plan)
    code = 0
    for name, campaign in found.items():
        if not given.collect and code == 0:
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"{name}.yaml"
            path.write_text(configuration.dump(campaign))
            print(f"== {name}", flush=True)
            code = run_campaign(str(path), str(out / name), [], quiet=not sys.stdout.isatty())
    collect(out, list(found), RESULTS / given.config.stem, given.config)
    return code


def collect(out: Path, names: list[str], target: Path, config: Path) -> None:
    """Numbers of all finished runs, a table beside the published ones, and the figures."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    numbers = {name: obtained(out / name) for name in names}
    finished = {name: found for name, found in numbers.items() if found is not None}
    content = json.dumps({"runs": finished, "machine": machine()}, indent=1, sort_keys=True)
    (target / "numbers.json").write_text(content + "\n")
    (target / "README.md").write_text(page(numbers, config))
    for name in finished:
        for figure in FIGURES:
            drawn = out / name / "figures" / f"{figure}.png"
            if drawn.exists():
                shutil.copy(drawn, target / f"{name}_{figure}.png")
    print(f"{len(finished)} of {len(names)} runs finished; see {target / 'README.md'}")


def obtained(folder: Path) -> dict[str, Any] | None:
    """What a finished run says of the targets; None where it has not finished."""
    told = events.read(folder)
    if not told or told[-1]["event"] != "finished":
        return None
    summary = summarize(folder)
    test = _json(folder, "test")
    anchor, properties = _json(folder, "anchor"), _json(folder, "properties") or []
    last = summary.rounds[-1]
    kinds = test["by_config_type"]
    anchored = anchor["labels"] if anchor else 0
    computed = last["labels"] + last["start_labels"] + anchored
    found: dict[str, Any] = {
        "variant": folder.name.rsplit("-", 1)[0],
        "ended": summary.reason,
        "rounds": len(summary.rounds),
        "seconds": round(summary.seconds),
        "seed": read_claim(folder)["config"]["seed"],
        "versions": read_claim(folder)["versions"],
        "labels computed": {
            "by the rounds": last["labels"],
            "to minimize the start": last["start_labels"],
            "to anchor": anchored,
            "in all": computed,
        },
        "structures kept": last["kept"],
        "errors": {"broad": test["all"], **kinds},
        "anchor": anchor,
        "properties": properties,
        "learning": [[r["labels"], r["kept"], r["test_mae_meV_per_atom"]] for r in summary.rounds],
    }
    force = {name: 1000 * one["force_mae_eV_per_A"] for name, one in found["errors"].items()}
    quantities = {
        "labels computed, start and anchor included": computed,
        "structures kept": last["kept"],
        "structures kept, forces trained on": last["kept"],
        "energy MAE, broad": test["all"]["energy_mae_meV_per_atom"],
        "force MAE, thermal third": force["thermal"],
        "force MAE, thermal third, forces trained on": force["thermal"],
        "force MAE, broad": force["broad"],
        "force MAE, broad, forces trained on": force["broad"],
        **compared(folder, properties),
    }
    return {**found, "quantities": quantities}


def compared(folder: Path, properties: list[dict]) -> dict[str, float]:
    """Network against reference: the worst over all entries."""
    worst: dict[str, float] = {}
    pairs: dict[int, dict[str, dict]] = {}
    for row in properties:
        pairs.setdefault(row["entry"], {})[row["of"]] = row
    for entry, pair in pairs.items():
        if len(pair) < 2:
            continue
        with np.load(folder / "results" / "properties.npz") as arrays:
            shared = {
                kind: overlap(*(arrays[f"{of}:{entry}:{kind}"] for of in ("reference", "network")))
                for kind in ("rdf", "adf")
            }
        reference, network = pair["reference"], pair["network"]
        error = float(np.hypot(reference["density_error"], network["density_error"]))
        apart = abs(network["density"] - reference["density"]) - 2.0 * error
        for name, value in (
            ("density - reference's, less 2 standard errors", max(apart, 0.0)),
            ("1 - overlap of g(r) with the reference's", 1.0 - shared["rdf"]),
            ("1 - overlap of the angles' distribution", 1.0 - shared["adf"]),
        ):
            worst[name] = max(worst.get(name, 0.0), value)
    return worst


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The area under the lower of two curves over that under their mean; 1 for equal curves."""
    return float(np.minimum(first, second).sum() / (0.5 * (first + second)).sum())


def page(numbers: Mapping[str, dict | None], config: Path) -> str:
    """The results as a page: targets, errors by kind, properties, and what did not run."""
    lines = [
        f"# {config.stem}",
        "",
        f"`python experiments/coarse_grained_water.py {config}` on {machine()}. Every figure below "
        "comes from runs that finished; `numbers.json` has them all.",
        "",
        "| run | seed | labels computed (rounds + start + anchor) | kept | rounds | ended | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in numbers.items():
        if found is None:
            lines.append(f"| {name} | | *not run* | | | | |")
            continue
        spent = found["labels computed"]
        parts = " + ".join(str(spent[k]) for k in list(spent)[:3])
        lines.append(
            f"| {name} | {found['seed']} | {spent['in all']} = {parts} | "
            f"{found['structures kept']} | {found['rounds']} | {found['ended']} | "
            f"{duration(found['seconds'])} |"
        )
    finished = {name: found for name, found in numbers.items() if found is not None}
    for title, block in (
        ("Targets", _targets(finished)),
        ("Errors on the independent test set", _errors(finished)),
        ("Properties by the same code", _properties(finished)),
    ):
        lines += ["", f"## {title}", "", *block]
    return "\n".join(lines) + "\n"


def _targets(finished: Mapping[str, dict]) -> list[str]:
    lines = [
        "| quantity | paper | must reach | aim | " + " | ".join(finished) + " |",
        "|---|---|---|---|" + "---|" * len(finished),
    ]
    for target in TARGETS:
        cells = []
        for found in finished.values():
            value = found["quantities"].get(target.name)
            trained_on = "forces" if found["variant"] == "forces" else "energies only"
            if value is None or target.of not in ("all", trained_on):
                cells.append("")
                continue
            mark = "reached" if value <= target.limit else "**missed**"
            if target.aim is not None and value <= target.aim:
                mark = "aim reached"
            cells.append(f"{value:.3g} {mark}")
        unit = f" ({target.unit})" if target.unit else ""
        aim = "" if target.aim is None else f"≤ {target.aim:g}"
        row = [target.name + unit, target.published, f"≤ {target.limit:g}", aim, *cells]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _errors(finished: Mapping[str, dict]) -> list[str]:
    lines = [
        "| run | structures | energy MAE | bias | scatter (meV/bead) | force MAE (meV/Å) |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in finished.items():
        for kind, one in found["errors"].items():
            energies = " | ".join(
                f"{one[f'energy_{k}_meV_per_atom']:.2f}" for k in ("mae", "bias", "scatter")
            )
            force = 1000 * one["force_mae_eV_per_A"]
            lines.append(f"| {name} | {kind} ({one['structures']}) | {energies} | {force:.0f} |")
        anchor = found["anchor"]
        if anchor:
            lines.append(
                f"| {name} | *before anchoring by {anchor['labels']} labels* | | "
                f"{1000 * anchor['bias']:+.2f} | {1000 * anchor['scatter']:.2f} | |"
            )
    return lines


def _properties(finished: Mapping[str, dict]) -> list[str]:
    lines = [
        "| run | conditions | of | density (g/cm³) | g(r): maxima, minimum (Å) | first height | "
        "coordination | angle maxima (°) | energy (eV/bead) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in finished.items():
        for row in found["properties"]:
            lines.append(
                f"| {name} | {row['title']} | {row['of']} | "
                f"{row['density']:.4f} ± {row['density_error']:.4f} | "
                f"{row['rdf_first_maximum_A']:.3f}, {row['rdf_second_maximum_A']:.3f}, "
                f"{row['rdf_first_minimum_A']:.3f} | {row['rdf_first_height']:.3f} | "
                f"{row['coordination']:.2f} | {row['adf_small_maximum_degrees']:.1f}, "
                f"{row['adf_large_maximum_degrees']:.1f} | {row['energy']:.4f} |"
            )
    return lines


def _json(folder: Path, name: str) -> Any:
    path = folder / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
