"""What follows the last round: a thorough training, the zero of energy, errors, properties."""

import hashlib
import json
import time

import jax
import numpy as np

from alj.arrays import split_named
from alj.campaign import datasets, models, told, trees
from alj.campaign.anchoring import Anchoring, anchoring
from alj.campaign.checkpoints import Checkpoint
from alj.campaign.datasets import Dataset
from alj.campaign.draws import drawn
from alj.campaign.evaluate import evaluate, parity, predict
from alj.campaign.evidence import member_energies
from alj.campaign.folder import Run
from alj.campaign.labels import content_hash
from alj.campaign.models import Model
from alj.campaign.plan import make_walks, reference_potential
from alj.campaign.properties import Subject, measure
from alj.campaign.rounds import RoundState, trained
from alj.campaign.store import write_file
from alj.campaign.tables import save_arrays
from alj.types import BadInput, Key, LabelingFailed, Trainer


def finish(run: Run, state: RoundState, test: Dataset) -> None:
    """Train anew, anchor, save the model, judge it on test set and data, measure properties."""
    refit_key, anchor_key, property_key = split_named(
        jax.random.fold_in(run.plan.key, _AFTER_THE_LAST), "refit", "anchor", "properties"
    )
    if run.plan.refit is not None:
        state = _refitted(run, refit_key, state, run.plan.refit)
    offset = 0.0
    if run.plan.anchor is not None:
        run.emit({"event": "stage", "round": state.round, "stage": "anchor"})
        name = f"{state.round:03d}/anchor-{_digest(state.params)}"
        found = run.store.remember(name, lambda: _anchored(run, anchor_key, state))
        _write_json(run, "anchor", found._asdict())
        offset = found.offset
    save_model(run, state, offset)
    model = models.load(run.folder / "model")
    for name, data in (("test", test), ("train", state.data)):
        if datasets.count(data):
            predicted = predict(model, data)
            save_arrays(run.folder / "results" / f"{name}.npz", parity(model, data, predicted))
            _write_json(run, name, evaluate(model, data, predicted))
    if run.plan.properties:
        _properties(run, property_key, state, model)


def _refitted(run: Run, key: Key, state: RoundState, trainer: Trainer) -> RoundState:
    """The state with a committee trained from scratch, stalled members left out."""
    run.emit({"event": "stage", "round": state.round, "stage": "refit"})
    prefix = f"{state.round:03d}/"
    checkpoint = Checkpoint(run.store, prefix + "refitting", steps=trainer.steps)

    def on_block(done: int, inner, info) -> None:
        checkpoint.on_block(done, inner, info)
        run.emit(
            {
                "event": "progress", "round": state.round, "stage": "refit", "done": int(done),
                "total": trainer.steps, "note": f"{trainer.members} members",
                "curves": told.training(done, info),
            }
        )  # fmt: skip

    def train() -> RoundState:
        going = {"on_block": on_block, "resume": checkpoint.resume()}
        return trained(key, state, run.plan, None, trainer, **going)

    after, stalled = without_stalled(run.store.remember(prefix + "refit", train))
    checkpoint.forget()
    if stalled:
        text = f"refit: {stalled} of {trainer.members} members stalled and were left out"
        run.emit({"event": "note", "text": text})
    return after


def without_stalled(state: RoundState) -> tuple[RoundState, int]:
    """The committee without members whose loss is above `STALLED` times the best, and how many.

    Least squares ends in a poor minimum now and then; such a member spoils the mean. The better
    half stays in any case.
    """
    losses = np.asarray(state.memory["fit"]["losses"])
    half = np.sort(losses)[(len(losses) - 1) // 2]
    good = np.flatnonzero(losses <= max(STALLED * losses.min(), half))
    params = jax.tree.map(lambda leaf: leaf[good], state.params)
    return state._replace(params=params), len(losses) - len(good)


STALLED = 5.0
"""Seen: members that ended well within a factor of three, those in poor minima six and more."""


def save_model(run: Run, state: RoundState, offset_eV_per_atom: float = 0.0) -> None:
    """Write the model folder; an offset becomes a constant prior of the potential."""
    config = dict(run.plan.config["potential"])
    if offset_eV_per_atom:
        anchor = {"name": "constant", "energy_eV": float(offset_eV_per_atom)}
        config["prior"] = [*config.get("prior", ()), anchor]
    models.save(
        run.folder / "model",
        potential_config=config,
        species=run.plan.species,
        params=state.params,
        precision=run.plan.config["precision"],
        provenance={"round": state.round, "structures": datasets.count(state.data)},
    )


def _anchored(run: Run, key: Key, state: RoundState) -> Anchoring:
    """Draw frames, have them labeled as all others are, and find the constant."""
    plan = run.plan
    spec = dict(plan.anchor or {})
    ensemble = spec.pop("ensemble")
    potential, params = plan.mean, state.params
    if ensemble == "reference":
        potential, params = reference_potential(plan.labeler, "anchor.ensemble: reference")
    walks = make_walks(spec, potential, "anchor")
    frames = drawn(key, walks, params, state.start)
    answers = run.labels(frames)
    hashes = [content_hash(plan.labeler, frame) for frame in frames]
    pairs = zip(frames, answers, strict=True)
    good = [(f, a) for f, a in pairs if not isinstance(a, LabelingFailed)]
    info = [{"origin": "anchor"}] * len(good)
    data = datasets.append(datasets.empty(), [f for f, _ in good], [a for _, a in good], info)
    predicted = member_energies(plan.potential, state.params, data).mean(axis=1)
    datasets.write(run.folder / "rounds" / f"{state.round:03d}" / "anchor.extxyz", data)
    run.ledger.record(
        -state.round,  # of no round: a later one must not take its place
        hashes,
        origins=["anchor"] * len(frames),
        scores=[float("nan")] * len(frames),
        model=f"{state.round:03d}",
        kept=[False] * len(frames),
        why=["anchors the zero of energy"] * len(frames),
    )
    return anchoring(
        predicted, data.energy, datasets.sizes(data),
        ensemble=ensemble, temperature_K=spec["temperature_K"],
    )  # fmt: skip


def _properties(run: Run, key: Key, state: RoundState, model: Model) -> None:
    """All entries for the network, and for the reference where that can be simulated."""
    subjects = [Subject("network", model.mean, model.params)]
    try:
        subjects.insert(0, Subject("reference", *reference_potential(run.plan.labeler, "")))
    except BadInput:
        text = f"properties: {run.plan.labeler.name} is no potential of this package; network only"
        run.emit({"event": "note", "text": text})
    table: list[dict] = []
    arrays: dict[str, np.ndarray] = {}
    for index, spec in enumerate(run.plan.properties):
        for subject in subjects:
            stage = f"properties of the {subject.name}"
            run.emit({"event": "stage", "round": state.round, "stage": stage})

            def told(done, total, stage=stage, spec=spec):
                run.emit(
                    {
                        "event": "progress", "round": state.round, "stage": stage, "done": done,
                        "total": total, "note": _title(spec),
                    }
                )  # fmt: skip

            # The reference depends on no network, so later rounds need not repeat it.
            mark = _digest(spec)
            owner = "reference" if subject.name == "reference" else _digest(state.params)
            began = time.monotonic()
            found = measure(
                jax.random.fold_in(key, int(mark[:7], 16)), spec, subject, state.start, run.store,
                f"properties/{owner}-{mark}", told,
            )  # fmt: skip
            row = {"of": subject.name, "entry": index, "title": _title(spec), **found["numbers"]}
            conditions = ("temperature_K", "pressure_bar")
            row |= {name: spec[name] for name in conditions if name in spec}
            table.append({**row, "seconds": round(time.monotonic() - began, 1)})
            for kind, values in {**found["curves"], **found["series"]}.items():
                arrays[f"{subject.name}:{index}:{kind}"] = np.asarray(values)
    for name in ("of", "entry", "title", "temperature_K", "density", "density_error"):
        arrays[name] = np.asarray([row.get(name, np.nan) for row in table])
    _write_json(run, "properties", table)
    save_arrays(run.folder / "results" / "properties.npz", arrays)


def _digest(tree) -> str:
    """A mark of params or settings: what is remembered of others is not taken for theirs."""
    return hashlib.sha256(trees.encode(tree)).hexdigest()[:12]


def _title(spec: dict) -> str:
    parts = [f"{spec[k]:g} {unit}" for k, unit in _UNITS.items() if spec.get(k) is not None]
    return ", ".join(parts) or str(spec["name"])


_AFTER_THE_LAST = 1_000_000
"""Folded into the key where no round is."""

_UNITS = {"temperature_K": "K", "pressure_bar": "bar"}


def _write_json(run: Run, name: str, content) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_file(run.folder / "results" / f"{name}.json", text.encode())
