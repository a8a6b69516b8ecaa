"""A breaking bond learned by steered molecular dynamics (published system 3).

    python experiments/steered_md.py configs/steered_md_cpu.yaml

The reference engine pulls first: five pulls of hexane, the relaxed barrier, other chains, other
speeds. Then every variant with every seed that the file names runs as a campaign in a folder of its
own, and the network of each of its rounds is pulled from the same positions and velocities as the
engine was. All of it resumes. Table and figures go to `experiments/results/<name of the file>`;
`--collect` only writes them again.

The system: Digital Discovery 3, 514 (2024), doi 10.1039/d3dd00216k; its potential: C. Devereux et
al., J. Chem. Theory Comput. 16, 4192 (2020), doi 10.1021/acs.jctc.0c00121.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import steered_page
import steered_pulls
from tqdm import tqdm
from variants import campaigns, merged, read

from alj.campaign import config as configuration
from alj.campaign import datasets
from alj.campaign.references import KEY, convention_of
from alj.campaign.store import FolderStore
from alj.cli.environment import cores
from alj.cli.runs import run_campaign
from alj.labeling import build_labeler
from alj.types import Labels, Structure

RESULTS = Path(__file__).parent / "results"
RELAXED = {"name": "nvt_berendsen", "temperature_K": 10.0, "timestep_fs": 0.5}
ENGINE_FRAMES = {**RELAXED, "temperature_K": 500.0}


def main() -> int:
    """Run what is missing, then collect; the exit code of the first campaign that did not end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the file>)")
    parser.add_argument("--collect", action="store_true", help="only write the results again")
    given = parser.parse_args()
    plan = read(given.config)
    out = given.out or Path("runs") / given.config.stem
    out.mkdir(parents=True, exist_ok=True)
    code, found = 0, campaigns(plan)
    with FolderStore(out / "measured") as store:
        if not given.collect:
            starts(plan, store)
            write_data(plan, store, out)
            pulls(plan, store)
            for name, campaign in found.items():
                code = code or one_campaign(name, campaign, out)
                if code == 0:
                    measure(plan, store, out, name, campaign)
            if code == 0:
                studies(plan, store, out, found)
        steered_page.collect(plan, store, out, found, RESULTS / given.config.stem, given.config)
    return code


def pull(plan: Mapping, carbons: int, speed: float) -> dict:
    """The sampler of one pull: as far as a chain of that length needs to break."""
    far = (1.45 + 0.3 * carbons) * plan["reference"].get("pulled_share", 1.0)
    steps = round(far / speed / (RELAXED["timestep_fs"] * 1e-3))
    every = max(1, round(10 / speed))
    return {
        "name": "steered", "variable": {"name": "distance", "atoms": [0, carbons - 1]},
        "speed_A_per_ps": speed, "stiffness_eV_per_A2": 10.0,
        "dynamics": {**RELAXED, "steps": steps // every * every, "record_every": every},
    }  # fmt: skip


def starts(plan: Mapping, store: FolderStore) -> None:
    """What the engine begins with: relaxed chains, starts of pulls, frames to learn from."""
    about, engine = plan["reference"], plan["reference"]["engine"]
    chains = sorted({about["carbons"], *plan["studies"]["chains"]})
    together(
        store, {f"chain{n}": (steered_pulls.relaxed, engine, n) for n in chains}, "relaxed chains"
    )
    chain = {n: store.recall(f"chain{n}") for n in chains}
    hexane = chain[about["carbons"]]
    start, species = hexane["positions"], hexane["species"]
    jobs: dict[str, tuple] = {
        f"settled-{seed}": (steered_pulls.settled, engine, species, start, settling(plan), seed)
        for seed in range(about["pulls"])
    }
    md = {**ENGINE_FRAMES, "steps": about["initial_steps"], "record_every": 10}
    md["initial_temperature_K"] = 1000.0  # of a start at rest, half of it goes into the bonds
    jobs["initial"] = (
        steered_pulls.frames_of, plan["campaign"]["labeler"], engine, species, start,
        about["initial_frames"], md, 0,
    )  # fmt: skip
    for n in chains:
        jobs[f"settled-chain{n}"] = (
            steered_pulls.settled, engine, chain[n]["species"], chain[n]["positions"],
            settling(plan), 100 + n,
        )  # fmt: skip
    together(store, jobs, "starts of the engine")


def pulls(plan: Mapping, store: FolderStore) -> None:
    """The engine's pulls of hexane, of other chains and at other speeds, and its barrier."""
    about, model = plan["reference"], {"labeler": plan["reference"]["engine"]}
    chain = {n: store.recall(f"chain{n}") for n in {about["carbons"], *plan["studies"]["chains"]}}
    species, start = (chain[about["carbons"]][name] for name in ("species", "positions"))
    jobs: dict[str, tuple] = {}
    for seed in range(about["pulls"]):
        begun = store.recall(f"settled-{seed}")
        jobs[f"pull-{seed}"] = _pulling(plan, model, species, [begun], about["carbons"], 1.0)
    for n in plan["studies"]["chains"]:
        begun = store.recall(f"settled-chain{n}")
        jobs[f"pull-chain{n}"] = _pulling(plan, model, chain[n]["species"], [begun], n, 1.0)
    for speed in plan["studies"]["speeds_A_per_ps"]:
        begun = store.recall("settled-0")
        jobs[f"pull-speed{_text(speed)}"] = _pulling(
            plan, model, species, [begun], about["carbons"], speed
        )
    jobs["barrier"] = (steered_pulls.barrier, model, species, start, *_scan(plan))
    together(store, jobs, "pulls of the engine")


def settling(plan: Mapping) -> dict:
    """The sampler that relaxes a start."""
    steps = plan["reference"]["relaxation_steps"]
    return {**RELAXED, "steps": steps, "record_every": steps}


def write_data(plan: Mapping, store: FolderStore, out: Path) -> None:
    """The start and the initial labels as files, for campaigns to begin with."""
    labeler = build_labeler(plan["campaign"]["labeler"])
    chain, frames = store.recall(f"chain{plan['reference']['carbons']}"), store.recall("initial")

    def structure(positions):
        return Structure(positions, chain["species"], np.zeros((3, 3)), np.int32(0), np.int32(0))

    def labels(energy, forces):
        nothing, atoms = np.full((3, 3), np.nan), np.full(len(chain["species"]), np.nan)
        return Labels(energy, forces, nothing, nothing[0], atoms, atoms)

    start = datasets.append(datasets.empty(), [structure(chain["positions"])])
    initial = datasets.append(
        datasets.empty(),
        [structure(positions) for positions in frames["positions"]],
        [labels(e, f) for e, f in zip(frames["energy"], frames["forces"], strict=True)],
        [{"origin": "500 K", KEY: convention_of(labeler)}] * len(frames["energy"]),
    )
    for name, data in (("start", start), ("initial", initial)):
        if not (out / f"{name}.extxyz").exists():
            datasets.write(out / f"{name}.extxyz", data)


def one_campaign(name: str, campaign: dict, out: Path) -> int:
    """Run or resume one campaign; its exit code."""
    files = {"start": str(out / "start.extxyz"), "initial": str(out / "initial.extxyz")}
    campaign = merged(campaign, {"data": files})
    path = out / f"{name}.yaml"
    path.write_text(configuration.dump(campaign))
    print(f"== {name}", flush=True)
    return run_campaign(str(path), str(out / name), [], quiet=not sys.stdout.isatty())


def measure(plan: Mapping, store: FolderStore, out: Path, name: str, campaign: dict) -> None:
    """The engine's pulls with the best network of every round, the barrier with the last three."""
    about = plan["reference"]
    chain = store.recall(f"chain{about['carbons']}")
    starts = [store.recall(f"settled-{seed}") for seed in range(about["pulls"])]
    jobs, indices = {}, rounds_of(out / name)
    for index in indices:
        model = network(out / name, index, campaign, "best_forces")
        jobs[f"{name}/pull-{index:03d}"] = _pulling(
            plan, model, chain["species"], starts, about["carbons"], 1.0
        )
        if index in indices[-3:]:
            jobs[f"{name}/barrier-{index:03d}"] = (
                steered_pulls.barrier, model, chain["species"], chain["positions"], *_scan(plan),
            )  # fmt: skip
    together(store, jobs, f"pulls of {name}")


def studies(plan: Mapping, store: FolderStore, out: Path, found: Mapping[str, dict]) -> None:
    """Other chains and other speeds with every member of the last committee of a run."""
    name = plan["studies"]["of"]
    if name not in found:
        return
    about = plan["reference"]
    model = network(out / name, rounds_of(out / name)[-1], found[name], "each")
    members = found[name]["trainer"]["members"]
    jobs = {}
    for n in plan["studies"]["chains"]:
        species, begun = store.recall(f"chain{n}")["species"], store.recall(f"settled-chain{n}")
        jobs[f"{name}/chain{n}"] = _pulling(plan, model, species, [begun] * members, n, 1.0)
    species, begun = store.recall(f"chain{about['carbons']}")["species"], store.recall("settled-0")
    for speed in plan["studies"]["speeds_A_per_ps"]:
        jobs[f"{name}/speed{_text(speed)}"] = _pulling(
            plan, model, species, [begun] * members, about["carbons"], speed
        )
    together(store, jobs, "other chains and speeds")


def network(folder: Path, index: int, campaign: dict, members: str) -> dict:
    """The networks that a round began with, as `steered_pulls.walked` takes them."""
    path = folder / "rounds" / f"{index:03d}" / "state.tree"
    precision = campaign.get("precision", "float32")
    config = campaign["potential"]
    return {"state": str(path), "config": config, "members": members, "precision": precision}


def rounds_of(folder: Path) -> list[int]:
    """The states that a campaign has reached, its first training included."""
    return sorted(int(path.parent.name) for path in folder.glob("rounds/*/state.tree"))


def together(store: FolderStore, jobs: Mapping[str, tuple], what: str) -> None:
    """Compute what is not remembered yet, a process for each core; each result is kept at once."""
    missing = {name: job for name, job in jobs.items() if not store.knows(name)}
    if not missing:
        return
    spawned = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(cores(), len(missing)), mp_context=spawned) as pool,
        tqdm(total=len(missing), desc=what, unit="job") as bar,
    ):
        running = {pool.submit(timed, *job): name for name, job in missing.items()}
        for done in as_completed(running):
            seconds, result = done.result()
            store.replace(f"{running[done]}-seconds", seconds)
            store.replace(running[done], result)
            bar.update()


def timed(function, *arguments) -> tuple[float, dict]:
    """The seconds that a job took, and its result."""
    began = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - began, result


def _pulling(plan, model, species, starts, carbons, speed) -> tuple:
    positions = np.stack([start["positions"] for start in starts])
    velocities = np.stack([start["velocities"] for start in starts])
    sampler = pull(plan, carbons, speed)
    return steered_pulls.walked, model, sampler, species, positions, velocities


def _scan(plan) -> tuple:
    """The variable and the distances of the relaxed barrier."""
    carbons = plan["reference"]["carbons"]
    parts = [np.linspace(*part) for part in plan["reference"]["barrier_A"]]
    return {"name": "distance", "atoms": [0, carbons - 1]}, np.concatenate(parts)


def _text(speed: float) -> str:
    return f"{1000 * speed:.0f}"


if __name__ == "__main__":
    sys.exit(main())
