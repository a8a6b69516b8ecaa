"""Optimal experimental design with Gaussian-moment networks (published system 2).

    python experiments/optimal_design.py configs/optimal_design_cpu.yaml
    python experiments/optimal_design.py configs/optimal_design_cpu.yaml --data rmd17=FILE.extxyz.gz

On each data set active learning is replayed: every strategy with every seed chooses from
structures that are labeled already. Beside it are studies of one training set: how well the scores
tell errors, whether a short training ranks as a long one and one initialization as another. Sets
whose file is not given are made on the spot (`stand_in_data.py`), those that have no stand-in are
left out. All of it resumes; tables and figures go to `experiments/results/<name of the file>`.

V. Zaverkin and J. Kästner, Mach. Learn.: Sci. Technol. 2, 035009 (2021),
doi 10.1088/2632-2153/abe294.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import design_page
import jax
import jax.numpy as jnp
import numpy as np
from stand_in_data import KINDS
from variants import merged, read

from alj.campaign import config as configuration
from alj.campaign import datasets, evidence, scores
from alj.campaign.replay import fitted, make_plan, per_structure, resolve
from alj.campaign.replay_results import write
from alj.campaign.store import FolderStore, claim
from alj.cli.environment import prepare
from alj.cli.replay import follow_all, reports_of
from alj.registry import build
from alj.training import TRAINERS
from alj.uncertainty import calibration, fisher

RESULTS = Path(__file__).parent / "results"
CEILING_SAMPLE = 300
"""Structures on which the variance of every force component is computed."""


def main() -> int:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the file>)")
    parser.add_argument("--data", action="append", default=[], metavar="SET=FILE")
    parser.add_argument("--collect", action="store_true", help="only write the results again")
    given = parser.parse_args()
    prepare()
    plan = read(given.config)
    out = given.out or Path("runs") / given.config.stem
    files = dict(one.split("=", 1) for one in given.data)
    found = {}
    for name, about in plan["sets"].items():
        if about is None:
            continue
        given_file = files.get(name) or about.get("file")
        path = given_file or stand_in(name, about, out, given.collect)
        if path is None:
            print(f"== {name}: no data; give --data {name}=FILE", flush=True)
            continue
        found[name] = one_set(name, about, plan, Path(path), out, given.collect)
        found[name]["file"] = Path(given_file).name if given_file else None
    design_page.collect(found, RESULTS / given.config.stem, given.config)
    return 0


def stand_in(name: str, about: Mapping, out: Path, collect: bool) -> Path | None:
    """The data made on the spot for a set, where it has any."""
    made = about.get("stand_in")
    if made is None:
        return None
    path = out / f"{name}.extxyz"
    if not path.exists() and not collect:
        print(f"== {name}: making {made['count']} structures", flush=True)
        with FolderStore(out / f"{name}.work") as store:
            began = time.monotonic()
            data = KINDS[made["kind"]](store, made["count"], made.get("seed", 1))
            datasets.write(path, data)
            store.replace("seconds", time.monotonic() - began)
    return path if path.exists() else None


def one_set(
    name: str, about: Mapping, plan: Mapping, path: Path, out: Path, collect: bool
) -> dict[str, Any]:
    """Replays and studies of one data set, or what there is of them."""
    config = merged(merged(plan["replay"], about.get("replay", {})), {"data": {"pool": str(path)}})
    config["selectors"] = {key: spec for key, spec in config["selectors"].items() if spec}
    folder = out / name
    made = make_plan(config)
    if not collect:
        print(f"== {name}: replay", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.yaml").write_text(configuration.dump(config))
        follow_all(config, made, folder, quiet=not sys.stdout.isatty())
    reports = reports_of(made, folder)
    if reports and not collect:
        write(made, folder, reports)
    with FolderStore(folder / "studies") as store:
        studied = None
        labels = about.get("study_labels", plan["study"]["labels"])
        claim(folder / "studies", {"study": {**plan["study"], "labels": labels}, **made.config},
              extendable=("seeds", "selectors", "replay"), resolve=resolved)  # fmt: skip
        if not collect:
            print(f"== {name}: studies", flush=True)
            studied = store.remember("study", lambda: study(made, plan["study"], about))
        elif store.knows("study"):
            studied = store.recall("study")
    return {"plan": made, "reports": reports, "study": studied, "about": about, "folder": folder}


def resolved(config: dict) -> dict:
    """The configuration of a study with the defaults of today."""
    rest = {key: value for key, value in config.items() if key != "study"}
    return {"study": config["study"], **resolve(rest)}


def study(plan, settings: Mapping, about: Mapping) -> dict[str, Any]:
    """Scores from a short and a long training and from two initializations, and the true errors."""
    began = time.monotonic()
    order = np.random.default_rng(7).permutation(datasets.count(plan.pool))
    size = about.get("study_labels", settings["labels"])
    unseen = size + plan.settings.validation
    train, validation = order[:size], order[size:unseen]
    pool = datasets.select(plan.pool, order[unseen : unseen + settings["pool"]])
    known = datasets.select(plan.pool, train)
    brief = next(iter(plan.trainers.values()))
    forces = brief.quantities != ("energy",)
    names = ("qs1", "qs2", "qs2_sketched") if forces else ("qs1",)
    found: dict[str, Any] = {}
    for label, trainer, seed in (
        ("short", brief, 1), ("other", brief, 2), ("long", plan.judge or brief, 1),
    ):  # fmt: skip
        params = fitted(plan, trainer, jax.random.key(seed), train, validation)
        scored = evidence.gather(plan.potential, params, pool, known, names)
        for score in names:
            found[f"{label}_{score}"] = np.asarray(getattr(scored, score))
        wrong_forces, wrong_energy = per_structure(plan, params, pool)
        found |= {f"{label}_force_error": wrong_forces, f"{label}_energy_error": wrong_energy}
        if label == "long":
            found["ceiling"] = tuple(_ceiling(plan, params, known, pool)) if forces else None
            found["calibration"] = _calibrated(plan, params, known, pool, forces)
    if settings.get("committee"):
        spec = {**plan.config["trainer"], "members": settings["committee"]}
        trainer = build(TRAINERS, spec, plan.potential, where="trainer")
        params = fitted(plan, trainer, jax.random.key(3), train, validation)
        needs = ("energy_spread", "force_spread") if forces else ("energy_spread",)
        scored = evidence.gather(plan.potential, params, pool, known, needs)
        found["committee_energy_spread"] = datasets.sizes(pool) * np.asarray(scored.energy_spread)
        if forces:
            spread = np.asarray(scored.force_spread)
            found["committee_force_spread"] = spread.sum(axis=1) / datasets.sizes(pool)
        wrong_forces, wrong_energy = per_structure(plan, params, pool)
        found |= {"committee_force_error": wrong_forces, "committee_energy_error": wrong_energy}
    found["atoms"] = datasets.sizes(pool)
    found["classes"] = [str(info.get("config_type", "")) for info in pool.info]
    found["labels"], found["seconds"] = size, time.monotonic() - began
    return found


def _ceiling(plan, params, known, pool) -> calibration.Correlation:
    """What QS2 could reach, were errors drawn from its own variances (eq. 23 of the paper)."""
    about = scores.information(plan.potential, params, known, energy=False, forces=True)
    some = datasets.select(pool, np.arange(min(CEILING_SAMPLE, datasets.count(pool))))
    one = jax.tree.map(lambda leaf: leaf[0], params)

    @jax.jit
    def variances(structure, neighbors):
        rows = fisher.force_rows(plan.potential, one, structure, neighbors)
        q = fisher.variances(jnp.asarray(about.forces[0]), rows)
        real = jnp.repeat(structure.species > 0, 3)
        return jnp.where(real, about.force_noise[0] * q / (1.0 + q), jnp.nan)

    rows = []
    largest = 3 * int(datasets.sizes(some).max())
    for batch in datasets.stream(some, plan.potential.cutoff, at_most=64):
        for place in np.flatnonzero(np.asarray(batch.index) >= 0):
            pair = jax.tree.map(lambda leaf, i=place: leaf[i], (batch.structures, batch.neighbors))
            found = np.asarray(variances(*pair))[:largest]
            rows.append(np.pad(found, (0, largest - len(found)), constant_values=np.nan))
    return calibration.ceiling(np.stack(rows), np.random.default_rng(0))


def _calibrated(plan, params, known, pool, forces: bool) -> dict[str, Any]:
    """Scales from half of the pool, and the coverage that they reach on the other half."""
    name = "qs2" if forces else "qs1"
    scored = evidence.gather(plan.potential, params, pool, known, (name,))
    widths = np.sqrt(np.asarray(getattr(scored, name)))
    wrong_forces, wrong_energy = per_structure(plan, params, pool)
    wrong = wrong_forces if forces else wrong_energy
    order = np.random.default_rng(0).permutation(len(wrong))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    scale = calibration.conformal_scale(wrong[half], widths[half], coverage=0.9)
    inside = float(np.mean(wrong[rest] <= scale * widths[rest]))
    return {"score": name, "scale": float(scale), "asked": 0.9, "reached": inside}


if __name__ == "__main__":
    sys.exit(main())
