"""The water clusters of `esoinn_dp.py`: from one structure of each size to a finished potential.

Clusters are packed at random and relaxed by the engine; one campaign runs from these; then the
finished model walks with clusters of every size, and the engine says how large its errors are where
it went.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import esoinn_page
import jax
import jax.numpy as jnp
import numpy as np

from alj import registry
from alj.campaign import build, datasets, models
from alj.campaign import config as configuration
from alj.campaign.references import KEY, convention_of
from alj.cli.runs import run_campaign
from alj.labeling import build_labeler
from alj.potentials.combine import energy_and_forces, member_energies_and_forces
from alj.potentials.disagreement import largest_deviation
from alj.sampling import SAMPLERS
from alj.stepping import batched
from alj.stepping import run as drive
from alj.types import BadInput, Context, LabelingFailed, Structure

NAME = "campaign"


def run(plan: Mapping, store, out: Path) -> int:
    """Everything that is missing; 0, or the exit code of a campaign that paused."""
    began = time.monotonic()
    write_starts(plan, store, out)
    code = campaign(plan, out)
    if code:
        return code
    for group in esoinn_page.groups(plan):
        name = esoinn_page.walk_name(group)
        frames = store.remember(name, lambda group=group: walked(plan, out, group))
        store.remember(f"judged-{name}", lambda frames=frames: judged(plan, out, frames))
    store.remember("held-out", lambda: held_out(out))
    spent = store.recall("seconds") if store.knows("seconds") else 0.0
    store.replace("seconds", spent + time.monotonic() - began)
    return 0


def collect(plan: Mapping, store, out: Path, target: Path) -> list[str]:
    """The section of the page; its figures and numbers are written beside it."""
    return esoinn_page.section(plan, store, out, target)


def write_starts(plan: Mapping, store, out: Path) -> None:
    """One relaxed and labeled cluster of each size, as the file with which the campaign begins."""
    path = out / "initial.extxyz"
    if path.exists():
        return
    labeler, data = build_labeler(plan["campaign"]["labeler"]), datasets.empty()
    for size in plan["water"]["sizes"]:
        start = store.remember(f"start-{size}", lambda size=size: relaxed(plan, labeler, size))
        info = [{"config_type": f"water{size}", "origin": "start", KEY: convention_of(labeler)}]
        data = datasets.append(data, [start], [labeler.label(start)], info)
    datasets.write(path, data)


def relaxed(plan: Mapping, labeler, size: int) -> Structure:
    """A cluster of that many molecules, packed at random and relaxed by the engine."""
    spec: dict = {"name": "molecule", "molecule": "water"}
    if size > 1:
        spec |= {"name": "box", "copies": size, "shape": "droplet"}
        spec |= {"density_g_per_cc": 0.5, "minimum_distance_A": 2.3}
    for attempt in range(20):
        generator = np.random.default_rng((plan["seed"], size, attempt))
        built = build.build_structures(spec, generator)[0].structure
        try:
            found, calls = build.minimized(built, labeler, plan["water"]["relaxation_steps"])
        except BadInput:
            # hydrogens of two molecules may lie too close for the engine
            continue
        print(f"== (H2O){size}: relaxed with {calls} calls", flush=True)
        return found
    raise BadInput(f"(H2O){size}: no random cluster could be relaxed; change the seed")


def campaign(plan: Mapping, out: Path) -> int:
    """Run or resume the campaign; its exit code."""
    path, files = out / f"{NAME}.yaml", str(out / "initial.extxyz")
    settings = {**plan["campaign"], "seed": plan["seed"]}
    settings["data"] = {**settings.get("data", {}), "initial": files}
    path.write_text(configuration.dump(settings))
    print(f"== {NAME}", flush=True)
    return run_campaign(str(path), str(out / NAME), [], quiet=not sys.stdout.isatty())


def walked(plan: Mapping, out: Path, sizes: list[int]) -> dict:
    """Independent trajectories of clusters of these sizes with the finished model."""
    about, model = plan["water"]["trajectories"], models.load(out / NAME)
    dynamics = esoinn_page.dynamics(plan)
    sampler = registry.build(
        SAMPLERS,
        {
            "name": "temperature_parallel", "lowest_K": 300.0, "highest_K": 300.0,
            "limit_eV_per_A": None,
            "dynamics": dynamics,
        },
        model.mean,
    )  # fmt: skip
    known, _ = datasets.read(out / "initial.extxyz")
    most = 3 * max(sizes)
    starts = [
        datasets.structure(known, i)
        for i in range(datasets.count(known))
        if datasets.sizes(known)[i] // 3 in sizes
        for _ in range(about["of_each_size"])
    ]
    stepper, context = batched(sampler.stepper), Context(params=model.params)
    begin, go = jax.random.split(jax.random.key(plan["seed"] + max(sizes)))
    began = time.monotonic()
    state = jax.jit(stepper.init)(begin, sampler.place(padded(starts, most, model.dtype)), context)
    _, frames = drive(stepper, go, state, context, steps=sampler.steps, block=sampler.steps)
    seconds = time.monotonic() - began
    print(f"== walked with {sizes} waters in {seconds:.0f} s", flush=True)
    return {
        "positions": np.asarray(frames.structure.positions),
        "species": np.asarray(frames.structure.species[0]),
        "indicator": np.asarray(frames.observed.indicator),
        "flips": np.asarray(frames.observed.flips[-1]),
        "stopped": np.asarray(frames.stopped),
        "temperature": np.asarray(frames.temperature_K),
        "seconds": seconds,
    }


def padded(structures: list[Structure], atoms: int, dtype) -> Structure:
    """The structures as one batch."""
    positions = np.zeros((len(structures), atoms, 3))
    species = np.zeros((len(structures), atoms), np.int32)
    for i, one in enumerate(structures):
        positions[i, : len(one.species)], species[i, : len(one.species)] = (
            one.positions,
            one.species,
        )
    none = jnp.zeros(len(structures), jnp.int32)
    cells = jnp.zeros((len(structures), 3, 3), dtype)
    return Structure(jnp.asarray(positions, dtype), jnp.asarray(species), cells, none, none)


def judged(plan: Mapping, out: Path, frames: Mapping) -> dict:
    """What the engine says of the frames: the model's errors and its indicator, frame by frame."""
    steps, walks = frames["indicator"].shape
    alive = ~frames["stopped"] & np.isfinite(frames["indicator"])
    data = datasets.empty()
    places = [(step, walk) for walk in range(walks) for step in range(steps) if alive[step, walk]]
    structures = [
        Structure(
            frames["positions"][step, walk], frames["species"][walk], np.zeros((3, 3)),
            np.int32(0), np.int32(0),
        )
        for step, walk in places
    ]  # fmt: skip
    data = datasets.append(data, structures)
    answers = labeled(plan, datasets.structures(data))
    good = [i for i, answer in enumerate(answers) if not isinstance(answer, LabelingFailed)]
    kept = [datasets.structure(data, i) for i in good]
    truth = datasets.append(datasets.empty(), kept, [answers[i] for i in good])
    found = errors(models.load(out / NAME), truth)
    step, walk = np.array([places[i] for i in good]).reshape(-1, 2).T
    return {**found, "step": step, "walk": walk, "failed": len(answers) - len(good)}


def labeled(plan: Mapping, structures: list[Structure]) -> list:
    """Labels of structures by the engine of the campaign, in processes of this machine."""
    labeler = build_labeler(plan["campaign"]["labeler"])
    answers = []
    for structure in structures:
        try:
            answers.append(labeler.label(structure))
        except LabelingFailed as failure:
            answers.append(failure)
    return answers


def held_out(out: Path) -> dict:
    """The finished model's errors on the labels that nothing was trained on."""
    state = esoinn_page.states(out / NAME)[-1]
    return errors(models.load(out / NAME), state.memory["held_out"])


def errors(model, data) -> dict:
    """Of every structure: atoms, error of the energy (eV), squared errors and the largest error of
    the forces (eV/Å), and the indicator."""

    @jax.jit
    def answer(params, structures, neighbors):
        def one(pair):
            energy, forces = energy_and_forces(model.mean, params, *pair)
            _, each = member_energies_and_forces(model.potential, params, *pair)
            return energy, forces, largest_deviation(each)

        return jax.lax.map(one, (structures, neighbors), batch_size=4)

    count = datasets.count(data)
    names = ("energy_error", "force_square", "largest_error", "indicator")
    found = {name: np.full(count, np.nan) for name in names}
    for batch in datasets.stream(
        data, model.potential.cutoff, dtype=model.dtype, at_most=64, at_least=64,
        table=datasets.roomy(data, 26),
    ):  # fmt: skip
        energy, forces, chi = jax.device_get(
            answer(model.params, batch.structures, batch.neighbors)
        )
        wrong = np.where(np.isnan(batch.labels.forces), 0.0, forces - batch.labels.forces)
        lengths = np.sum(np.asarray(wrong, float) ** 2, axis=-1)
        rows = np.asarray(batch.index)
        real = rows >= 0
        found["energy_error"][rows[real]] = (energy - np.asarray(batch.labels.energy))[real]
        found["force_square"][rows[real]] = lengths.sum(axis=1)[real]
        found["largest_error"][rows[real]] = np.sqrt(lengths.max(axis=1))[real]
        found["indicator"][rows[real]] = chi[real]
    return {**found, "atoms": datasets.sizes(data)}
