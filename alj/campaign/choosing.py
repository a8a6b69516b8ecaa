"""`alj select`: which structures of a pool to label next, for a model that is there already.

What selectors look at is computed in slabs of the pool and kept in files beside the output, so that
pools of millions stay out of memory and a run that was stopped goes on where it was.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from alj import registry
from alj.annotations import plain
from alj.arrays import pad_axis
from alj.campaign import datasets, evidence, models, scores
from alj.campaign.datasets import Dataset
from alj.campaign.store import FolderStore, write_file
from alj.campaign.values import VALUES, of_data, walks_of
from alj.selection import SELECTORS
from alj.types import BadInput, Evidence, Selector

SLAB = 8192
"""Structures between two points from which a run can go on."""

_OF_POOL = (
    "features", "gradient_features", *scores.SCORES, "energies", "energy_spread", "force_spread",
    "descriptors", "energies_per_atom", "atomic_energies", "force_magnitudes",
)  # fmt: skip
_OF_ATOMS = ("atomic_qs1", "force_spread", "atomic_energies", "force_magnitudes")
_GIVEN = ("samplers", "walks", "spacing")


class Request(NamedTuple):
    """What is asked for; `train` is the file that the model was trained on."""

    model: str
    pool: str
    selector: dict
    count: int
    out: str
    train: str | None = None
    scores: str | None = None
    seed: int = 0


class Chosen(NamedTuple):
    """The places in the pool that were chosen, in order of choice, and how the pool was judged."""

    places: np.ndarray
    pool: int
    report: dict[str, Any]


def select(
    request: Request,
    on_structures: Callable[[int, int], Any] | None = None,
    say: Callable[[str], Any] | None = None,
) -> Chosen:
    """Choose structures and write them; `on_structures(done, total)` is told of the progress.

    Raises BadInput for species that the model does not know, for fewer candidates than asked for,
    and for a selector that the model or the data cannot serve.
    """
    say = say or (lambda text: None)
    selector: Selector = registry.build(SELECTORS, request.selector, where="selector")
    model = models.load(request.model)
    pool, taken = datasets.read(request.pool, labels="optional", species=model.species)
    say(f"{request.pool}: {taken}")
    known = _known(request, selector, model, say)
    candidates = datasets.count(pool)
    if candidates < request.count:
        raise BadInput(
            f"--count: asked for {request.count} structures, {request.pool} has {candidates}; "
            "ask for fewer or give a larger pool"
        )
    for path in (request.pool, request.train):
        if path is not None and Path(path).resolve() == Path(request.out).resolve():
            raise BadInput(f"--out: expected a file of its own, found {path}, which is read")
    folder = Path(f"{request.out}.work") / _identity(selector, model, pool, known)
    with FolderStore(folder):
        found = _evidence(folder, selector, model, pool, known, on_structures, say)
    report = selector.report(found) if selector.report is not None else {}
    picks = np.asarray(selector.choose(jax.random.key(request.seed), found, request.count))
    places = picks[picks >= 0]
    _write(request, pool, places)
    if request.scores is not None:
        write_file(Path(request.scores), _table(pool, found, places).encode())
    return Chosen(places, candidates, report)


def _known(request, selector: Selector, model, say) -> Dataset:
    needed = [name for name in selector.needs if name in scores.SCORES or name.startswith("known")]
    if request.train is None:
        if needed:
            raise BadInput(
                f"--train: {request.selector['name']} counts what is known already; expected the "
                "labeled structures that the model was trained on"
            )
        return datasets.empty()
    known, taken = datasets.read(request.train, species=model.species)
    say(f"{request.train}: {taken}")
    return known


def _identity(selector: Selector, model, pool: Dataset, known: Dataset) -> str:
    """A name for all that the evidence depends on, and for which of it is wanted."""
    about = {"model": model.config, "needs": selector.needs, "alj": version("alj")}
    text = json.dumps([plain(about), datasets.digest(pool, known)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _evidence(folder, selector, model, pool, known, on_structures, say) -> Evidence:
    missing = [
        name
        for name in selector.needs
        if name not in (*_OF_POOL, *_GIVEN, *VALUES) and not name.startswith("known_")
    ]
    if missing:
        raise BadInput(
            f"selector: it looks at {', '.join(missing)}, which only a campaign knows; choose "
            "another one"
        )
    total = datasets.count(pool)
    of_pool = tuple(name for name in _OF_POOL if name in selector.needs)
    of_known = tuple(name for name in selector.needs if name.startswith("known_"))
    potential, params = model.potential, model.params
    about = evidence.information_for(potential, params, known, selector.needs)
    for kind, ranks in (about.ranks if about is not None else {}).items():
        width = np.shape(getattr(about, kind))[-1]
        if min(ranks) < width:
            say(
                f"the labels say something in {min(ranks)} of {width} directions of the last "
                f"weights ({kind}); in the others the ranking rests on the prior"
            )
    fields: dict[str, Any] = {
        "samplers": np.zeros(total, int),
        "walks": walks_of(pool),
        "spacing": np.arange(total, dtype=float),
        **of_data(pool, set(selector.needs) & set(VALUES)),
    }
    if of_known:
        seen = evidence.gather(potential, params, known, known, of_known, information=about)
        fields |= {name: getattr(seen, name) for name in of_known}
    if of_pool:
        fields |= _slabs(folder, of_pool, model, pool, known, about, on_structures)
    return Evidence(**fields)


def _slabs(folder, names, model, pool, known, about, on_structures) -> dict[str, np.ndarray]:
    """Fields of the whole pool as files mapped into memory, slab by slab where still missing."""
    folder.mkdir(parents=True, exist_ok=True)
    total, largest = datasets.count(pool), int(np.max(datasets.sizes(pool)))
    marker = folder / "done"
    done = int(marker.read_text()) if marker.is_file() else 0
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names if done}
    for start in range(done, total, SLAB):
        stop = min(start + SLAB, total)
        part = datasets.select(pool, np.arange(start, stop))
        found = evidence.gather(
            model.potential, model.params, part, known, names, information=about
        )
        for name in names:
            values = _wide(np.asarray(getattr(found, name)), name, largest)
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", np.float64, (total, *values.shape[1:])
                )
            arrays[name][start:stop] = values
            arrays[name].flush()  # pyright: ignore[reportAttributeAccessIssue]
        # Only now is the slab there to go on from.
        write_file(marker, str(stop).encode())
        if on_structures is not None:
            on_structures(stop, total)
    return arrays


def _wide(values: np.ndarray, name: str, atoms: int) -> np.ndarray:
    """Per-atom fields padded, or cut, to the largest structure of the pool."""
    if name not in _OF_ATOMS:
        return values
    missing = 0.0 if name in ("atomic_qs1", "force_spread") else np.nan
    return pad_axis(values[:, :atoms], atoms, missing, axis=1)


def _write(request: Request, pool: Dataset, places: np.ndarray) -> None:
    chosen = datasets.select(pool, places)
    info = tuple(
        {**about, "pool_index": int(place)}
        for about, place in zip(chosen.info, places, strict=True)
    )
    datasets.write(request.out, chosen._replace(info=info))


def _table(pool: Dataset, found: Evidence, places: np.ndarray) -> str:
    """One line for each structure of the pool: its scores, and when it was chosen (from 0)."""
    total = datasets.count(pool)
    rank = np.full(total, -1)
    rank[places] = np.arange(len(places))
    columns: dict[str, np.ndarray] = {"atoms": datasets.sizes(pool)}
    for name in _OF_POOL:
        values = getattr(found, name)
        if values is not None and np.ndim(values) == 1:
            columns[name] = np.asarray(values)
        elif values is not None and name in _OF_ATOMS:
            columns[f"largest_{name}"] = np.nanmax(np.asarray(values), axis=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pool_index", "chosen", *columns])
    for place in range(total):
        chosen = int(rank[place]) if rank[place] >= 0 else ""
        writer.writerow([place, chosen, *(f"{values[place]:.9g}" for values in columns.values())])
    return text.getvalue()
