"""A thousand ions at constant volume, by the reference or by a potential that was trained on it.

The reference melts a disordered lattice and settles; every other walk begins where it has settled,
so that what differs is the potential. A walk that leaves physics is frozen by a gate and says when.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import data_selection
import jax
import jax.numpy as jnp
import numpy as np
from salt_pool import CHLORINE, SODIUM, salt_box

from alj.analysis.structure import radial_distribution
from alj.campaign.store import FolderStore
from alj.potentials import build_potential
from alj.potentials.tosi_fumi import nacl_tosi_fumi
from alj.sampling.molecular_dynamics import nvt_nose_hoover
from alj.stepping import run
from alj.types import Context, Structure

PAIRS = {"Na-Na": (SODIUM, SODIUM), "Na-Cl": (SODIUM, CHLORINE), "Cl-Cl": (CHLORINE, CHLORINE)}


def moved(plan: Mapping, out: Path, model: str, method: str, store: FolderStore) -> dict[str, Any]:
    """Partial radial distributions by frame, and how the walk went."""
    settings = plan["dynamics"]
    kinds = (SODIUM, CHLORINE)
    if model == "reference":
        potential = nacl_tosi_fumi(kinds, accuracy=settings["accuracy"])
        params = potential.init(jax.random.key(0))
        start = salt_box(settings["ions"], settings["edge_A"], 0)
        hot = [settings["melting_K"], settings["temperature_K"]]
        found = walked(store, "settling", potential, params, start, settings, hot,
                       settings["settle"])  # fmt: skip
        start = start._replace(positions=found["positions"][-1])
    else:
        about = plan["models"][model]
        potential = build_potential(about["potential"], kinds)
        made = data_selection.result(out, "fit", model, method, plan["seeds"][0])
        if "failed" in made:
            return {"failed": made["failed"]}
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), made["params"])
        before = data_selection.result(out, "move", "reference", "reference")
        start = salt_box(settings["ions"], settings["edge_A"], 0)._replace(
            positions=before["start"]
        )
    fixed = [settings["temperature_K"]] * 2
    began = np.array(start.positions)
    found = walked(store, "walk", potential, params, start, settings, fixed, settings["steps"])
    going = ~found["stopped"]
    frames = going.sum() if going.all() else int(np.argmin(going))
    late = np.arange(frames) * settings["record_every"] >= settings["skip"]
    kept = found["positions"][:frames][late]
    several = Structure(
        jnp.asarray(kept), *(jnp.asarray(np.broadcast_to(x, (len(kept), *np.shape(x))))
                             for x in start[1:]),
    )  # fmt: skip
    curves: dict[str, Any] = {}
    for name, pair in PAIRS.items() if len(kept) else ():
        g = radial_distribution(several, range_A=10.0, width_A=0.05, pair=pair)
        curves[name] = g.values
        curves["r"] = g.centers
    return {
        "curves": curves,
        "start": began,
        "frames": int(frames),
        "asked": len(going),
        "temperature_K": found["temperature_K"][:frames],
        "seconds": float(found["seconds"]),
        "steps": int(frames) * settings["record_every"],
    }


def walked(store, name, potential, params, start, settings, temperature, steps) -> dict[str, Any]:
    """Positions, temperatures and whether it froze, frame by frame, kept block by block."""
    every = settings["record_every"]
    sampler = nvt_nose_hoover(
        potential, temperature_K=tuple(temperature), timestep_fs=settings["timestep_fs"],
        steps=steps, record_every=every, coupling_time_fs=100.0,
        hottest_K=5.0 * settings["melting_K"],
    )  # fmt: skip
    context = Context(params=params)
    begin, go = jax.random.split(jax.random.key(settings["seed"]))
    placed = sampler.place(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start))
    placed = jax.tree.map(lambda leaf: leaf[0], placed)
    shape = jax.tree.structure(jax.eval_shape(sampler.stepper.init, begin, placed, context))
    leaves, parts = None, []
    block = settings["block"] // every
    for index in range(-(-steps // every) // block):

        def advance(leaves=leaves, index=index):
            state = (
                jax.jit(sampler.stepper.init)(begin, placed, context)
                if leaves is None
                else jax.tree.unflatten(shape, leaves)
            )
            clock = time.monotonic()
            state, infos = run(
                sampler.stepper, go, state, context, steps=block, start=index * block
            )
            return {
                "leaves": jax.tree.leaves(jax.device_get(state)),
                "positions": np.asarray(infos.structure.positions),
                "temperature_K": np.asarray(infos.temperature_K),
                "stopped": np.asarray(infos.stopped),
                "seconds": time.monotonic() - clock,
            }

        kept = store.remember(f"{name}-{index:03d}", advance)
        leaves = kept.pop("leaves")
        parts.append(kept)
        if kept["stopped"][-1]:
            break
    joined = {
        key: np.concatenate([part[key] for part in parts])
        for key in ("positions", "temperature_K", "stopped")
    }
    return {**joined, "seconds": sum(part["seconds"] for part in parts)}
