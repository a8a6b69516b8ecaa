"""Training data chosen by properties of atoms: molten sodium chloride (published system 5).

    python experiments/data_selection.py configs/data_selection_cpu.yaml

A pool is walked over temperatures and pressures (`salt_pool.py`); structures are chosen from it by
each method with each seed, potentials are trained on them and tested on structures that every
method draws, in equal parts, from later parts of the walks. Then 1000 ions move by some of the
potentials, and by the reference. Tasks are independent processes, each remembers what it found, and
running again goes on. Tables and figures go to `experiments/results/<name of the file>`.

S. Tovey et al., "Efficient data selection methods for the development of machine learned
potentials"; see `selection/property_uniform.py`.
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

RESULTS = Path(__file__).parent / "results"
SPECIES = (11, 17)


def main() -> int:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the run (runs/<name of the file>)")
    parser.add_argument("--collect", action="store_true", help="only write the results again")
    given = parser.parse_args()
    prepared()
    import selection_page
    from salt_pool import pool
    from variants import read

    from alj.campaign.store import FolderStore, claim

    plan = read(given.config)
    out = given.out or Path("runs") / given.config.stem
    out.mkdir(parents=True, exist_ok=True)
    claim(out, plan, extendable=("seeds", "methods", "models", "dynamics", "workers"))
    if not given.collect:
        with FolderStore(out / "pool") as store:
            print("== pool", flush=True)
            pool(store, plan["pool"], out / "pool.extxyz")
        print("== trainings", flush=True)
        together(plan, out, [("fit", *one) for one in fits(plan)])
        print("== dynamics", flush=True)
        together(plan, out, [("move", "reference", "reference")])
        together(plan, out, [("move", *one) for one in moves(plan)])
    selection_page.collect(plan, out, RESULTS / given.config.stem, given.config)
    return 0


def prepared() -> None:
    """One thread for each process: tasks share the cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from alj.cli.environment import prepare

    prepare()
    import jax

    jax.config.update("jax_enable_x64", True)


def fits(plan: Mapping) -> list[tuple[str, str, int]]:
    """Model, method and seed of every training."""
    return [
        (model, method, seed)
        for model, about in plan["models"].items()
        if about is not None
        for seed in plan["seeds"]
        for method in plan["methods"]
    ]


def moves(plan: Mapping) -> list[tuple[str, str]]:
    """Model and method of every dynamics; of the first seed."""
    return [
        (model, method)
        for model in plan["dynamics"]["models"]
        if plan["models"].get(model) is not None
        for method in plan["dynamics"]["methods"]
    ]


def together(plan: Mapping, out: Path, tasks: list[tuple]) -> None:
    """All tasks in as many processes as the plan allows."""
    left = [task for task in tasks if result(out, *task) is None]
    if not left:
        return
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    workers = min(plan["workers"], len(left))
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=prepared) as executor:
        for done, task in enumerate(executor.map(work, [(plan, out, task) for task in left])):
            print(
                f"   {' '.join(map(str, task))}  ({done + 1} of {len(left)}, "
                f"{time.monotonic() - began:.0f} s)", flush=True,
            )  # fmt: skip


def work(given: tuple) -> tuple:
    """One task, in a process of its own."""
    plan, out, task = given
    kind, model, method, *seed = task
    from alj.campaign.store import FolderStore

    with FolderStore(folder_of(out, *task)) as store:
        if kind == "fit":
            store.remember("result", lambda: fitted(plan, out, model, method, seed[0]))
        else:
            import salt_dynamics

            store.remember("result", lambda: salt_dynamics.moved(plan, out, model, method, store))
    return task


def folder_of(out: Path, *task) -> Path:
    """Where a task keeps what it found."""
    return out / "tasks" / "-".join(str(part).replace(" ", "_") for part in task)


def result(out: Path, *task) -> Any:
    """What a task found, None where it has not finished."""
    from alj.campaign.store import FolderStore

    # Not entered: another process may be at work in that folder, or reading it too.
    store = FolderStore(folder_of(out, *task))
    return store.recall("result") if store.knows("result") else None


def divided(plan: Mapping, data) -> tuple[Any, Any]:
    """What may be chosen, and what is held out: the later part of every walk, after a gap."""
    import numpy as np

    from alj.campaign import datasets

    times = np.array([about["time_ps"] for about in data.info])
    until, gap = plan["held_out"]["after_ps"], plan["held_out"]["gap_ps"]
    return (
        datasets.select(data, np.flatnonzero(times <= until)),
        datasets.select(data, np.flatnonzero(times > until + gap)),
    )


def chosen(plan: Mapping, data, method: str, seed: int, count: int):
    """Places of `count` structures. Each seed sees its own random share of the candidates."""
    import jax
    import numpy as np

    from alj import registry
    from alj.campaign import datasets
    from alj.campaign.values import VALUES, of_data, walks_of
    from alj.selection import SELECTORS
    from alj.types import Evidence

    total = datasets.count(data)
    seen, choose = jax.random.split(jax.random.key(seed))
    order = np.asarray(jax.random.permutation(seen, total))
    some = np.sort(order[: max(round(plan["share"] * total), count)])
    candidates = datasets.select(data, some)
    evidence = Evidence(
        energies=candidates.energy, walks=walks_of(candidates), spacing=some.astype(float),
        **of_data(candidates, set(VALUES)),
    )  # fmt: skip
    selector = registry.build(SELECTORS, plan["methods"][method], where=f"methods.{method}")
    picks = np.asarray(selector.choose(choose, evidence, count))
    return some[picks[picks >= 0]]


def tested_on(plan: Mapping, held) -> dict[str, Any]:
    """Places of the test structures that each method draws, equally many; none of them twice."""
    import numpy as np

    share = plan["test_count"] // len(plan["methods"])
    left, parts = np.arange(len(held.energy)), {}
    from alj.campaign import datasets

    for method in plan["methods"]:
        some = datasets.select(held, left)
        picks = chosen({**plan, "share": 1.0}, some, method, 1000, min(share, len(left)))
        parts[method] = left[picks]
        left = np.setdiff1d(left, parts[method])
    return parts


def fitted(plan: Mapping, out: Path, model: str, method: str, seed: int) -> dict[str, Any]:
    """Parameters, and errors on the part of the test that each method drew."""
    import jax
    import numpy as np

    from alj import registry
    from alj.campaign import datasets, models
    from alj.campaign.evaluate import predict
    from alj.potentials import build_potential
    from alj.training import TRAINERS, NotFinite, fit

    data, _ = datasets.read(out / "pool.extxyz")
    candidates, held = divided(plan, data)
    about = plan["models"][model]
    potential = build_potential(about["potential"], SPECIES)
    trainer = registry.build(TRAINERS, about["trainer"], potential, where=f"models.{model}.trainer")
    train = datasets.select(candidates, chosen(plan, candidates, method, seed, about["count"]))
    began = time.monotonic()
    batches = datasets.batches(train, potential.cutoff, table=datasets.roomy(train))
    count = datasets.count(train)
    try:
        made = fit(jax.random.key(seed), trainer, potential, None, batches, count)
    except NotFinite as error:
        return {"failed": str(error), "count": count}
    seconds = time.monotonic() - began
    params = jax.device_get(made.params)
    trained = models.model_of(potential, params, {})
    errors, everything = {}, []
    for name, places in tested_on(plan, held).items():
        test = datasets.select(held, places)
        found = predict(trained, test)
        wrong = found.forces - test.forces
        everything.append(wrong)
        errors[name] = {**measured(wrong),
                        "energy": float(np.sqrt(np.mean((found.energy - test.energy) ** 2)
                                                ) / 100)}  # fmt: skip
    errors["all"] = measured(np.concatenate(everything))
    return {"params": params, "errors": errors, "seconds": seconds, "count": count,
            "ions": int(np.sum(datasets.sizes(train)))}  # fmt: skip


def measured(wrong) -> dict[str, float]:
    """Largest, root-mean-square and mean absolute error of force components, eV/Å."""
    import numpy as np

    if not np.isfinite(wrong).all():
        return {"max": float("inf"), "rmse": float("inf"), "mae": float("inf")}
    return {
        "max": float(np.abs(wrong).max()),
        "rmse": float(np.sqrt(np.mean(wrong**2))),
        "mae": float(np.abs(wrong).mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
