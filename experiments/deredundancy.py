"""How much of a large labeled set can be done without (ESOINN-DP, Table 2).

    python experiments/deredundancy.py configs/deredundancy_cpu.yaml
    python experiments/deredundancy.py configs/deredundancy_long.yaml --data ani_gdb_s04.h5

Organic molecules labeled with PM6: made on the spot (`organic_conformations.py`), or taken from
files of ANI-1 and labeled anew. Parts of the set are kept by four strategies: at random, by their
spectra alone (`alj reduce`), by D-optimal design, and by the loop of Table 2 (`alj reduce CONFIG`).
On each part the same network is trained with the same number of updates, and tested on structures
that nothing has seen and on what was left out of the set. The first two need no label of what they
drop, D-optimal design and the loop need none either, but train networks to choose.

All of it resumes; tables and figures go to `experiments/results/<name of the file>`.

M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP).
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import deredundancy_page
import jax
import numpy as np
from organic_conformations import conformations, labeled_anew
from variants import read

from alj import registry
from alj.analysis.errors import mae, rmse
from alj.campaign import covering, datasets, evidence, models, reducing, replay
from alj.campaign.evaluate import predict
from alj.campaign.parts import fit_on
from alj.campaign.store import FolderStore, claim
from alj.cli.environment import prepare
from alj.cli.replay import workers
from alj.selection import SELECTORS
from alj.training import TRAINERS

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("loop", "d_optimal", "random", "spectra", "everything")
"""In the order in which they are begun: the longest first."""


def main() -> int:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (runs/<name of the file>)")
    parser.add_argument("--data", type=Path, help="file or folder of ANI-1, instead of made data")
    parser.add_argument("--collect", action="store_true", help="only write the results again")
    given = parser.parse_args()
    prepare()
    out = given.out or Path("runs") / given.config.stem
    plan = read(given.config)
    run(plan, out, given.data, collect=given.collect)
    deredundancy_page.collect(plan, found_in(plan, out), out, RESULTS / given.config.stem)
    return 0


def run(plan: Mapping[str, Any], out: Path, data: Path | None, *, collect: bool = False) -> None:
    """All strategies that are not finished, as many at once as there are cores."""
    if collect:
        return
    with FolderStore(out):
        claim(out, {**plan, "file": data.name if data else None}, extendable=("strategies",))
    prepared(plan, out, data)
    asked = [name for name in STRATEGIES if name in plan["strategies"]]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers(), len(asked)), mp_context=spawned) as pool:
        running = {name: pool.submit(followed, dict(plan), name, str(out)) for name in asked}
        for name, done in running.items():
            done.result()
            print(f"== {name}: done", flush=True)


def prepared(plan: Mapping[str, Any], out: Path, data: Path | None) -> None:
    """`pool.extxyz` and `test.extxyz`, where they are not there yet."""
    settings = dict(plan["data"])
    tested = settings.pop("test")
    if (out / "pool.extxyz").exists():
        return
    print("== data", flush=True)
    began = time.monotonic()
    with FolderStore(out / "data.work") as store:
        whole = (
            conformations(store, **settings)
            if data is None
            else labeled_anew(store, data, settings["molecules"] * settings["each"])
        )
        order = np.random.default_rng(0).permutation(datasets.count(whole))
        datasets.write(out / "test.extxyz", datasets.select(whole, np.sort(order[:tested])))
        datasets.write(out / "pool.extxyz", datasets.select(whole, np.sort(order[tested:])))
        store.replace("seconds", time.monotonic() - began)


def followed(plan: dict, name: str, out: str) -> None:
    """One strategy in a process of its own: its parts of the pool, and a network on each."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    prepare()
    folder = Path(out) / name
    made = replay_plan(plan, Path(out))
    total = datasets.count(made.pool)
    sizes = sorted({max(round(share * total), 2) for share in plan["shares"]})
    with FolderStore(folder) as store:
        for seed in plan["seeds"]:
            began = time.monotonic()
            if name == "everything":
                store.remember(
                    f"{seed}/{total}", lambda: judged(made, plan, np.arange(total), seed)
                )
                continue
            if name == "d_optimal":
                grown_by_design(store, made, plan, sizes, seed)
                continue
            chosen = ORDERS[name]
            order = store.remember(
                f"{seed}/order", lambda: chosen(plan, made, Path(out), sizes[-1], seed)
            )
            store.remember(f"{seed}/seconds", lambda: time.monotonic() - began)
            for size in sizes:
                if size <= len(order):
                    store.remember(
                        f"{seed}/{size}", lambda n=size: judged(made, plan, order[:n], seed)
                    )


def by_chance(plan, made, out: Path, most: int, seed: int) -> np.ndarray:
    """Random places, in order of choice."""
    return np.random.default_rng([seed, 2]).permutation(datasets.count(made.pool))[:most]


def by_spectra(plan, made, out: Path, most: int, seed: int) -> np.ndarray:
    """What `alj reduce` keeps."""
    target = out / "spectra" / f"kept-{seed}.extxyz"
    request = reducing.Request(
        str(out / "pool.extxyz"), str(target), count=most, settings=plan["esoinn"], seed=seed
    )
    return reducing.reduce(request, say=print).places


def by_what_is_unknown(plan, made, out: Path, most: int, seed: int) -> np.ndarray:
    """What the loop of Table 2 keeps, in the order in which it was added."""
    total = datasets.count(made.pool)
    loop = dict(plan["loop"])
    trainer = {**plan["trainer"], **loop.pop("trainer")}
    for name in ("start", "add"):
        loop[name] = round(loop.pop(f"{name}_share") * total)
    config = {
        "seed": seed, "data": data_of(out), "potential": plan["potential"], "trainer": trainer,
        "esoinn": plan["esoinn"], "reduce": {**loop, "most": most},
    }  # fmt: skip
    found = covering.cover(covering.make_plan(config), out / "loop" / f"run-{seed}", say=print)
    kept, _ = datasets.read(found.kept)
    return np.array([info["pool_index"] for info in kept.info])


ORDERS = {"random": by_chance, "spectra": by_spectra, "loop": by_what_is_unknown}


def grown_by_design(store: FolderStore, made, plan, sizes: list[int], seed: int) -> None:
    """D-optimal design: from a random part to the next size, by the network of the last size."""
    selector = registry.build(SELECTORS, "d_optimal")
    places = by_chance(plan, made, Path(), sizes[0], seed)
    for size, after in zip(sizes, [*sizes[1:], None], strict=True):
        params = store.remember(
            f"{seed}/{size}-params", lambda n=size, p=places: trained(made, plan, p, seed)
        )
        store.remember(
            f"{seed}/{size}", lambda p=places, q=params: measured(made, plan, p, q, seed)
        )
        if after is None:
            return

        def choose(places=places, params=params, wanted=after - size) -> np.ndarray:
            rest = np.setdiff1d(np.arange(datasets.count(made.pool)), places)
            pool, known = datasets.select(made.pool, rest), datasets.select(made.pool, places)
            given = {"samplers": np.zeros(len(rest), int), "walks": np.zeros(len(rest), int),
                     "spacing": np.arange(len(rest), dtype=float)}  # fmt: skip
            found = evidence.gather(made.potential, params, pool, known, selector.needs, **given)
            picks = np.asarray(selector.choose(jax.random.key(seed), found, wanted))
            return np.concatenate([places, rest[picks[picks >= 0]]])

        places = store.remember(f"{seed}/{after}-places", choose)


def data_of(out: Path) -> dict[str, str]:
    """The section `data` of a replay or a loop."""
    return {"pool": str(out / "pool.extxyz"), "test": str(out / "test.extxyz")}


def replay_plan(plan: Mapping[str, Any], out: Path):
    """A plan of `alj replay`, for its data, its potential and its training."""
    return replay.make_plan(
        {
            "data": data_of(out), "potential": plan["potential"], "trainer": plan["trainer"],
            "selectors": ["random"], "replay": {"start": 1, "until": 1, "validation": 0},
        }
    )  # fmt: skip


def judged(made, plan, places: np.ndarray, seed: int) -> dict[str, float]:
    """Errors of a network trained on these places of the pool."""
    return measured(made, plan, places, trained(made, plan, places, seed), seed)


def trained(made, plan, places: np.ndarray, seed: int):
    """A network trained on these places, with as many updates for a large part as for a small."""
    spec = dict(plan["trainer"])
    learned = len(places) * (1.0 - spec.get("validation_fraction", 0.1))
    spec["epochs"] = max(round(plan["updates"] * spec["batch_size"] / learned), 1)
    trainer = registry.build(TRAINERS, spec, made.potential, where="trainer")
    return fit_on(made, trainer, jax.random.key(seed), places, np.zeros(0, int)).params


def measured(made, plan, places: np.ndarray, params, seed: int) -> dict[str, float]:
    """Errors on the test set and on a random part of what was left out."""
    rest = np.setdiff1d(np.arange(datasets.count(made.pool)), places)
    some = np.random.default_rng([seed, 3]).permutation(rest)[: datasets.count(made.test)]
    found: dict[str, float] = {"kept": float(len(places))}
    for name, data in (("test", made.test), ("rest", datasets.select(made.pool, some))):
        if datasets.count(data):
            answer = predict(models.model_of(made.potential, params, {"members": 1}), data)
            forces = (answer.forces - data.forces).reshape(-1)
            energy = 1000.0 * (answer.energy - data.energy) / datasets.sizes(data)
            found |= {
                f"{name}_force_rmse_eV_per_A": rmse(forces),
                f"{name}_force_mae_eV_per_A": mae(forces),
                f"{name}_force_max_eV_per_A": float(np.max(np.abs(forces))),
                f"{name}_energy_rmse_meV_per_atom": rmse(energy),
            }
    return found


def found_in(plan: Mapping[str, Any], out: Path) -> dict[str, dict[int, dict[int, dict]]]:
    """What has finished: errors by strategy, seed and number of structures kept."""
    found: dict[str, dict[int, dict[int, dict]]] = {}
    for name in STRATEGIES:
        if not (out / name).is_dir():
            continue
        with FolderStore(out / name) as store:
            for seed in plan["seeds"]:
                folder = store.path(f"{seed}/x").parent
                sizes = sorted(int(p.stem) for p in folder.glob("*.tree") if p.stem.isdigit())
                one = {size: store.recall(f"{seed}/{size}") for size in sizes}
                if one:
                    found.setdefault(name, {})[seed] = one
    return found


if __name__ == "__main__":
    sys.exit(main())
