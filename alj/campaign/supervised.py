"""`alj train`: fit a potential to labeled structures in files, without a campaign.

The same folder, lock, events and write-once store as a campaign, so that running again resumes. The
data are divided once, by files of their own or by fractions, and the division is remembered.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj import registry
from alj.arrays import split_named
from alj.campaign import datasets, models, told
from alj.campaign.checkpoints import Checkpoint
from alj.campaign.config import KEYS
from alj.campaign.cutoffs import check_cutoff
from alj.campaign.datasets import Dataset
from alj.campaign.evaluate import parity
from alj.campaign.folder import RunFolder, run_folder
from alj.campaign.loop import Outcome
from alj.campaign.references import check_references
from alj.campaign.store import FolderStore
from alj.campaign.tables import save_arrays
from alj.potentials import POTENTIALS
from alj.training import TRAINERS
from alj.training.fitting import FEW, Fitted, NotFinite, fit
from alj.types import BadInput, Potential, Trainer

CHECKPOINT = "training"


class DataSettings(NamedTuple):
    """Where the labeled structures come from, see `data_settings`."""

    train: str
    validation: str | None
    test: str | None
    train_fraction: float | None
    validation_fraction: float | None
    test_fraction: float
    mixed_engines: bool


class Sets(NamedTuple):
    """The data of a training; `validation` is None where the trainer's own split decides."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None


class Plan(NamedTuple):
    """All that a training needs, built and checked; `config` is resolved."""

    config: dict
    potential: Potential
    trainer: Trainer
    sets: Sets
    species: tuple[int, ...]
    notes: list[str]


def data_settings(
    *,
    train: str,
    validation: str | None = None,
    test: str | None = None,
    train_fraction: float | None = None,
    validation_fraction: float | None = None,
    test_fraction: float = 0.1,
    mixed_engines: bool = False,
) -> DataSettings:
    """The labeled structures to train, validate and test on.

    Args:
        train: File of labeled structures, in any format that ASE reads, or a published archive:
            QM9 (dsgdb9nsd.xyz.tar.bz2), or padded arrays such as N-ASW (.npz).
        validation: File that only validates, for all members of a committee alike.
        test: File that is only tested on.
        train_fraction: Share of `train` to train on; null for all that the other shares leave.
        validation_fraction: Share of `train` that validates, for all members alike; null leaves it
            to the trainer's own split (another part for each member).
        test_fraction: Share of `train` that is only tested on, where there is no file `test`.
        mixed_engines: Allow labels of several reference engines or methods in these files.
    """
    if validation is not None and validation_fraction is not None:
        raise BadInput("expected validation (a file) or validation_fraction, found both")
    shares = (train_fraction, validation_fraction, None if test else test_fraction)
    if sum(share or 0.0 for share in shares) > 1.0 or test_fraction >= 1.0:
        raise BadInput(f"expected fractions that add up to at most 1, found {list(shares)}")
    return DataSettings(
        train, validation, test, train_fraction, validation_fraction, test_fraction, mixed_engines
    )  # fmt: skip


def top_settings(
    *, seed: int = 0, precision: Literal["float32", "float64"] = "float32"
) -> tuple[int, str]:
    """Settings at the top level of a training's configuration.

    Args:
        seed: Everything random derives from it: divisions, initial weights, batches.
        precision: Floating-point type of networks.
    """
    return seed, precision


def resolve(config: dict) -> dict:
    """The configuration with every default filled in; keys of campaigns only are left out.

    Raises BadInput.
    """
    for key in config:
        if key not in KEYS:
            raise BadInput(f"{key}: unknown key{registry.suggest(key, KEYS)}")
    top = {key: config[key] for key in ("seed", "precision") if key in config}
    if config.get("data") is None:
        raise BadInput("data: missing; expected a mapping with `train: FILE.extxyz`")
    trainer_spec = config.get("trainer") or "levenberg_marquardt"
    return {
        **registry.filled(top_settings, top),
        "data": registry.filled(data_settings, config["data"], "data"),
        "potential": registry.resolve(
            POTENTIALS, config.get("potential") or "behler_parrinello", "potential"
        ),
        "trainer": registry.resolve(TRAINERS, trainer_spec, "trainer"),
    }


def make_plan(config: dict) -> Plan:
    """The plan of a training; keys that only a campaign has are ignored. Raises BadInput."""
    resolved = resolve(config)
    settings = registry.call(data_settings, config["data"], where="data")
    sets, notes = _read(settings, resolved["seed"])
    species = tuple(sorted({int(number) for number in sets.train.species}))
    potential = registry.build(POTENTIALS, resolved["potential"], species, where="potential")
    if potential.networks is not None:
        raise BadInput(
            "potential: meta_networks are trained class by class, in campaigns only; expected "
            "another potential, or alj run with data.initial"
        )
    check_cutoff(datasets.structures(sets.train), potential.cutoff)
    trainer = registry.build(TRAINERS, resolved["trainer"], potential, where="trainer")
    return Plan(resolved, potential, trainer, sets, species, notes)


def run_training(
    config: dict, folder: str | Path, on_event: Callable[[dict], None] | None = None
) -> Outcome:
    """Train, or resume training, in `folder`; leaves the model, its predictions and its history.

    Raises BadInput for whatever is wrong with the input or the folder, DiskFull without space.
    """
    plan = make_plan(config)
    with run_folder(folder, plan.config, on_event, extendable=(), resolve=resolve) as run:
        resumed = run.store.knows("training") or run.store.knows("fitted")
        _check_unchanged(plan.sets, run.store, run.path)
        run.emit({"event": "training", "round": 0, "run": str(folder), "resumed": resumed})
        for note in plan.notes:
            run.emit({"event": "note", "text": note})
        return _stages(plan, run)


def _stages(plan: Plan, run: RunFolder) -> Outcome:
    """Train, then test."""
    began = time.monotonic()
    run.emit({"event": "stage", "round": 0, "stage": "train"})
    result = run.store.remember("fitted", lambda: _fit(plan, run.store, run.emit))
    run.store.forget(CHECKPOINT)
    trained = time.monotonic()
    run.emit({"event": "stage", "round": 0, "stage": "test"})
    judged = _write(plan, run.path, result)
    seconds = {"train": trained - began, "test": time.monotonic() - trained}
    if 0 not in run.told:
        run.emit({"event": "round", "round": 0, **judged, "seconds": seconds})
    reason = f"trained {result['steps']} of at most {plan.trainer.steps} steps"
    run.emit({"event": "finished", "reason": reason, "exit": 0})
    return Outcome(reason, 0)


def _check_unchanged(sets: Sets, store: FolderStore, folder: Path) -> None:
    """A resumed training must see the data that it began with."""
    digest = hashlib.sha256()
    for part in sets:
        for name in ("positions", "species", "cell", "offsets", "energy", "forces", "stress"):
            digest.update(np.ascontiguousarray(getattr(part, name)).tobytes() if part else b"-")
    if store.remember("data", digest.hexdigest) != digest.hexdigest():
        raise BadInput(
            f"the data files have changed since {folder} was begun; choose another folder (--out)"
        )


def _read(settings: DataSettings, seed: int) -> tuple[Sets, list[str]]:
    """The three sets, and a line about each file that was read."""
    every, taken = datasets.read(settings.train)
    notes = [f"{settings.train}: {taken}"]
    mixed = settings.mixed_engines
    whose = check_references(every, settings.train, mixed=mixed)
    species = tuple(sorted({int(number) for number in every.species}))
    given: dict[str, Dataset | None] = {}
    for name in ("validation", "test"):
        path = getattr(settings, name)
        given[name] = None
        if path is not None:
            other, taken = datasets.read(path, species=species)
            check_references(other, path, whose, mixed=mixed)
            given[name] = other
            notes.append(f"{path}: {taken}")
    parts = _divided(datasets.count(every), settings, seed)
    if not len(parts["train"]):
        raise BadInput(
            f"data: {settings.train} has {datasets.count(every)} structures; none is left to train "
            "on, give more of them or smaller fractions"
        )
    for name in ("validation", "test"):
        if given[name] is None and len(parts[name]):
            given[name] = datasets.select(every, parts[name])
    train = datasets.select(every, parts["train"])
    sets = Sets(train, given["validation"], given["test"])
    sizes = {name: datasets.count(part) for name, part in sets._asdict().items() if part}
    notes.append(", ".join(f"{number} structures to {name}" for name, number in sizes.items()))
    return sets, notes


def _divided(count: int, settings: DataSettings, seed: int) -> dict[str, np.ndarray]:
    """Indices of each part, in the order of the file; a part that is asked for is not empty."""
    order = np.random.default_rng((seed, count)).permutation(count)
    wanted = {
        "test": 0.0 if settings.test is not None else settings.test_fraction,
        "validation": settings.validation_fraction or 0.0,
    }
    parts, start = {}, 0
    for name, share in wanted.items():
        size = max(round(share * count), 1) if share > 0 and count > 1 else 0
        parts[name] = np.sort(order[start : start + size])
        start += size
    stop = count
    if settings.train_fraction is not None:
        stop = min(count, start + max(round(settings.train_fraction * count), 1))
    parts["train"] = np.sort(order[start:stop])
    return parts


def _fit(plan: Plan, store: FolderStore, emit: Callable[[dict], None]) -> dict[str, Any]:
    """The trained committee and its history, as a tree that the store remembers."""
    sets, trainer = plan.sets, plan.trainer
    data, count = sets.train, datasets.count(sets.train)
    if sets.validation is not None:
        both = count + datasets.count(sets.validation)
        if both < FEW:
            emit({"event": "note", "text": f"fewer than {FEW} structures: nothing validates"})
        else:
            data = _joined(sets.train, sets.validation)
            trainer = trainer._replace(split=fixed_split(count))
            count = both
    dtype = jnp.dtype(plan.config["precision"])
    batches = datasets.batches(data, plan.potential.cutoff, dtype=dtype)
    key = split_named(jax.random.key(plan.config["seed"]), "training")[0]
    checkpoint = Checkpoint(store, CHECKPOINT, steps=trainer.steps, summarize=_history)

    def on_block(done, state, info):
        checkpoint.on_block(done, state, info)
        note = _note(checkpoint.history[-1])
        progress = {"done": int(done), "total": trainer.steps, "note": note}
        progress["curves"] = told.training(int(done), info)
        emit({"event": "progress", "round": 0, "stage": "train", **progress})

    try:
        fitted = fit(
            key, trainer, plan.potential, None, batches, count,
            on_block=on_block, resume=checkpoint.resume(),
        )  # fmt: skip
    except NotFinite as error:
        raise BadInput(str(error)) from None
    return _result(fitted, checkpoint.history)


def _history(info) -> dict[str, Any]:
    """Errors of one block by step and member: of energies where there are any, else the loss."""
    train, validation = np.asarray(info.train_error.energy), info.validation_error.energy
    if np.isfinite(train).any():
        quantity, scale = "energy RMSE (meV/atom)", 1000.0
    else:
        train, validation, quantity, scale = info.train_loss, info.validation_loss, "loss", 1.0
    return {
        "quantity": quantity,
        "train": scale * np.asarray(train, float),
        "validation": scale * np.asarray(validation, float),
    }


def _note(block: dict[str, Any]) -> str:
    """How well the members do at the end of a block, followed by the number of the step."""
    now = block["train"][-1]
    now = now[np.isfinite(now)]
    return f"{block['quantity']} {np.mean(now):.3g} at" if len(now) else "step"


def _result(fitted: Fitted, past: list[dict]) -> dict[str, Any]:
    return {
        "params": jax.device_get(fitted.params),
        "steps": int(fitted.steps),
        "energy_error": np.asarray(fitted.error.energy),
        "validated": not bool(np.all(fitted.train)),
        "finite": np.asarray(fitted.finite),
        "past": past,
    }


def _write(plan: Plan, folder: Path, result: dict) -> dict[str, Any]:
    """The model and its predictions on every set; what the report shows of them."""
    models.save(
        folder / "model",
        potential_config=plan.config["potential"],
        species=plan.species,
        params=result["params"],
        precision=plan.config["precision"],
        provenance={"structures": datasets.count(plan.sets.train), "data": plan.config["data"]},
    )
    model = models.load(folder / "model")
    found = {}
    for name, part in plan.sets._asdict().items():
        if part is not None:
            arrays = parity(model, part)
            save_arrays(folder / "results" / f"{name}.npz", arrays)
            errors = 1000 * np.asarray(arrays["energy"] - arrays["energy_reference"])
            found[name] = errors[np.isfinite(errors)]
    _write_history(folder, result["past"])
    of_members = 1000 * float(np.mean(result["energy_error"]))
    validation = of_members if result["validated"] and np.isfinite(of_members) else None
    if "validation" in found:
        validation = _root_mean_square(found["validation"])
    return {
        "labels": sum(datasets.count(part) for part in plan.sets if part is not None),
        "kept": datasets.count(plan.sets.train),
        "failed": 0,
        "train_rmse_meV_per_atom": _root_mean_square(found["train"]),
        "validation_rmse_meV_per_atom": validation,
        "test_mae_meV_per_atom": float(np.mean(np.abs(found["test"])))
        if len(found.get("test", ()))
        else None,
    }


def _write_history(folder: Path, past: list[dict]) -> None:
    if past:
        train = np.concatenate([block["train"] for block in past])
        arrays = {
            "steps": np.arange(1.0, len(train) + 1.0),
            "train": train,
            "validation": np.concatenate([block["validation"] for block in past]),
            "quantity": np.array(past[0]["quantity"]),
        }
        save_arrays(folder / "results" / "training.npz", arrays)


def _root_mean_square(errors: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(errors**2))) if len(errors) else None


def _joined(first: Dataset, second: Dataset) -> Dataset:
    """Both, one after the other."""
    labels = [datasets.labels(second, i) for i in range(datasets.count(second))]
    return datasets.append(first, datasets.structures(second), labels, list(second.info))


def fixed_split(train: int):
    """The first `train` structures train every member, the others validate."""
    return lambda key, count, members, before=None: np.tile(np.arange(count) < train, (members, 1))
