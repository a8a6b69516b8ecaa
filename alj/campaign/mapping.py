"""The map of a run's data, computed once and stored for the monitor: `map.npz` (`map_file`).

What is near in the plane is alike in the eyes of the network: the projected features are those of
its last layer, mean over the atoms of a structure, all members side by side. Principal components
are of all structures; t-SNE (van der Maaten, Hinton, JMLR 9, 2579 (2008)) and UMAP (McInnes, Healy,
Melville, doi 10.48550/arXiv.1802.03426) of at most 10^4 landmarks, where scikit-learn or umap-learn
are installed. A campaign's folder is only read: a map changes nothing that resumes.
"""

import hashlib
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alj.campaign import class_map, datasets, evidence, map_file, models, trees
from alj.campaign.datasets import Dataset
from alj.campaign.evaluate import predict
from alj.campaign.labels import host_structure
from alj.campaign.ledger import Ledger
from alj.campaign.models import Model
from alj.campaign.rounds import RoundState
from alj.campaign.store import read_claim, write_file
from alj.types import BadInput, LabelingFailed, Labels, Structure

MOST = 100_000
"""Structures on a map, at most; of more, evenly spaced ones."""

LANDMARKS = 10_000
"""Structures that t-SNE and UMAP place, at most: beyond, they take hours."""

COMPONENTS = 50
"""Principal components that t-SNE and UMAP begin with."""


class Shown(NamedTuple):
    """What a map shows: labeled structures, and of each whence it comes and what became of it."""

    data: Dataset
    rounds: np.ndarray
    sources: list[str]
    fates: list[str]
    hashes: list[str]
    classes: Any = None


def write_map(folder: str | Path, *, landmarks: bool = True) -> bool:
    """Write the map of a run; False where there is no model or nothing to show yet.

    `landmarks` also computes t-SNE and UMAP. Raises BadInput for a folder that is no run's.
    """
    folder = Path(folder)
    claim = read_claim(folder)
    if not (folder / "model").is_dir():
        return False
    mark = _mark(folder)
    if _is_current(folder, mark, landmarks):
        return True
    model, shown = models.load(folder / "model"), _shown(folder, claim["config"])
    if shown is None or datasets.count(shown.data) < 3:
        return False
    shown = _spaced(shown)
    known = evidence.gather(
        model.potential, model.params, shown.data, datasets.empty(), ("features",)
    )
    features = np.asarray(known.features, float)
    if features.ndim != 2 or not features.shape[1]:
        return False
    projections, titles = projected(features, landmarks=landmarks)
    columns, about = _columns(model, shown)
    about |= {"projections": titles, "mark": mark, "landmarks": landmarks, "written": time.time()}
    about["features"] = "last layer of the network, mean over atoms"
    data = shown.data
    geometries = {name: getattr(data, name) for name in ("species", "positions", "cell", "offsets")}
    drawn = _classes(shown, projections, columns, about)
    content = map_file.encode(about, projections, columns, geometries, shown.hashes, **drawn)
    write_file(folder / map_file.NAME, content)
    return True


def _classes(shown: Shown, projections: dict, columns: dict, about: dict) -> dict[str, Any]:
    """Adds what a network of classes says of the structures; its nodes, for the file."""
    try:
        found = None if shown.classes is None else class_map.layer(shown.classes, shown.data)
    except BadInput:  # a structure of more atoms than the network knows
        found = None
    if found is None:
        return {}
    projections[class_map.NAME] = found.places
    about["projections"][class_map.NAME] = found.axes
    columns["class"] = found.classes
    about["columns"]["class"] = {"title": "class", "unit": "", "log": False}
    nodes = {class_map.NAME: found.nodes}
    return {"nodes": nodes, "node_class": found.node_class, "edges": found.edges}


def projected(
    features: np.ndarray, *, landmarks: bool
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, str]]]:
    """Projections (n, 2) of features (n, d) by name, and their titles and axes.

    The largest component of each principal axis is positive, so that a map does not flip from one
    round to the next.
    """
    scores, shares = _principal(features)
    axes = [
        f"principal component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in (0, 1)
    ]
    found = {"pca": scores[:, :2]}
    titles = {"pca": {"title": "principal components", "x": axes[0], "y": axes[1]}}
    if not landmarks or len(features) < 8:
        return found, titles
    rows = np.linspace(0, len(features) - 1, min(len(features), LANDMARKS)).astype(int)
    for name, title, place in (("tsne", "t-SNE", _tsne), ("umap", "UMAP", _umap)):
        placed = place(scores[rows])
        if placed is not None:
            found[name] = np.full((len(features), 2), np.nan)
            found[name][rows] = placed
            few = f", {len(rows)} landmarks" if len(rows) < len(features) else ""
            titles[name] = {"title": title + few, "x": f"{title} 1", "y": f"{title} 2"}
    return found, titles


def _principal(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the leading principal axes, and the share of the variance of each."""
    centered = features - features.mean(axis=0)
    spread = centered.std(axis=0)
    centered = centered / np.where(spread > 1e-12 * max(spread.max(), 1e-300), spread, np.inf)
    values, axes = np.linalg.eigh(centered.T @ centered / len(centered))
    order = np.argsort(-values)[: max(2, min(COMPONENTS, len(values)))]
    axes = axes[:, order]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores = centered @ axes
    if scores.shape[1] == 1:
        scores = np.hstack([scores, np.zeros_like(scores)])
    total = max(values.sum(), 1e-300)
    return scores, np.append(values[order] / total, 0.0)


def _installed(name: str) -> bool:
    """Whether a package is there; a folder that an uninstallation left behind is not one."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _tsne(scores: np.ndarray) -> np.ndarray | None:
    if not _installed("sklearn"):
        return None
    tsne = import_module("sklearn.manifold").TSNE
    perplexity = min(30.0, (len(scores) - 1) / 3)
    return tsne(init="pca", perplexity=perplexity, random_state=0).fit_transform(scores)


def _umap(scores: np.ndarray) -> np.ndarray | None:
    if not _installed("umap"):
        return None
    umap, near = import_module("umap").UMAP, min(15, len(scores) - 1)
    return np.asarray(umap(n_neighbors=near, random_state=0, n_jobs=1).fit_transform(scores))


def _columns(model: Model, shown: Shown) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What points are colored by: where they come from, and how well the model knows them now."""
    data, said = shown.data, predict(model, shown.data)
    atoms = np.maximum(datasets.sizes(data), 1)
    owner = np.repeat(np.arange(len(atoms)), datasets.sizes(data))

    def worst(values: np.ndarray) -> np.ndarray:
        largest = np.zeros(len(atoms))
        np.maximum.at(largest, owner, np.linalg.norm(values, axis=1))
        return largest

    columns: dict[str, np.ndarray] = {"round": shown.rounds}
    titles: dict[str, dict[str, Any]] = {"round": {"title": "round", "unit": "", "log": False}}
    categories: dict[str, list[str]] = {}
    types = [str(info.get("config_type") or "") for info in data.info]
    for name, words in (("source", shown.sources), ("fate", shown.fates), ("config_type", types)):
        names = sorted(set(words))
        if name == "config_type" and names == [""]:
            continue
        categories[name] = names
        columns[name] = np.array([names.index(word) for word in words])
        titles[name] = {"title": name.replace("_", " "), "unit": "", "log": False}
    wrong = 1000 * np.abs(said.energy - data.energy) / atoms
    measured = {"error": ("|energy error|", "meV/atom", True, wrong)}
    if model.members > 1:
        spread = 1000 * said.energy_spread / atoms
        measured["uncertainty"] = ("energy spread of the committee", "meV/atom", True, spread)
        forces = worst(said.forces_spread)
        measured["force_uncertainty"] = ("largest force spread", "eV/Å", True, forces)
    if np.isfinite(data.forces).any():
        off = worst(said.forces - data.forces)
        measured["force_error"] = ("largest force error", "eV/Å", True, off)
    measured["energy"] = ("energy of the reference", "eV/atom", False, data.energy / atoms)
    measured["atoms"] = ("atoms", "", False, datasets.sizes(data))
    for name, (title, unit, log, values) in measured.items():
        columns[name] = values
        titles[name] = {"title": title, "unit": unit, "log": log}
    return columns, {"columns": titles, "categories": categories}


def _shown(folder: Path, config: dict) -> Shown | None:
    """A campaign's last data with what was proposed and not kept; or those of a training."""
    states = sorted(folder.glob("rounds/[0-9][0-9][0-9]/state.tree"))
    if not states:
        return _of_training(config)
    state = trees.decode(states[-1].read_bytes(), str(states[-1]))
    state = state if isinstance(state, RoundState) else state[0]
    data, places = state.data, _Places(folder)
    keys = [_key(structure) for structure in datasets.structures(data)]
    known = [places.hashes.get(key, "") for key in keys]
    there = set(known)
    more, labels, info = [], [], []
    for row in places.rows.values():
        if row["hash"] in places.labels and row["hash"] not in there:
            structure, label = places.labels[row["hash"]]
            more.append(structure)
            labels.append(label)
            info.append({"round": row["round"], "origin": row["origin"], "hash": row["hash"]})
    both = datasets.append(data, more, labels, info)
    return Shown(
        both,
        np.array([int(about.get("round", -1)) for about in both.info]),
        [str(about.get("origin") or "given") for about in both.info],
        ["kept"] * len(known) + ["not kept"] * len(more),
        [*known, *(str(about["hash"]) for about in info)],
        state.memory.get("classes"),
    )


class _Places:
    """The ledger by structure: hashes by key, labels and the last row of each proposed one."""

    def __init__(self, folder: Path):
        self.hashes: dict[str, str] = {}
        self.labels: dict[str, tuple[Structure, Labels]] = {}
        self.rows: dict[str, dict] = {}
        if not (folder / "ledger.sqlite").exists():
            return
        with Ledger(folder, read_only=True) as ledger:
            self.rows = {row["hash"]: row for row in ledger.structures() if row["round"] >= 0}
            for hash_, structure, answer in ledger.answers():
                self.hashes[_key(structure)] = hash_
                if not isinstance(answer, LabelingFailed):
                    self.labels[hash_] = structure, answer


def _key(structure: Structure) -> str:
    """What two structures share that are the same to the last bit."""
    digest = hashlib.sha256()
    for array in host_structure(structure):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _of_training(config: dict) -> Shown | None:
    """The sets of `alj train`, read again; None where their files are gone."""
    from alj.campaign.supervised import make_plan

    try:
        sets = make_plan(config).sets
    except (BadInput, OSError, TypeError, KeyError):
        return None
    parts = {name: part for name, part in sets._asdict().items() if part is not None}
    data = datasets.empty()
    for part in parts.values():
        labels = [datasets.labels(part, i) for i in range(datasets.count(part))]
        data = datasets.append(data, datasets.structures(part), labels, list(part.info))
    sources = [name for name, part in parts.items() for _ in range(datasets.count(part))]
    count = len(sources)
    return Shown(data, np.full(count, -1), sources, ["kept"] * count, [""] * count)


def _spaced(shown: Shown) -> Shown:
    count = datasets.count(shown.data)
    if count <= MOST:
        return shown
    rows = np.linspace(0, count - 1, MOST).astype(int)
    pick: Callable[[list[str]], list[str]] = lambda words: [words[i] for i in rows]  # noqa: E731
    return Shown(
        datasets.select(shown.data, rows),
        shown.rounds[rows],
        pick(shown.sources),
        pick(shown.fates),
        pick(shown.hashes),
        shown.classes,
    )


def _mark(folder: Path) -> str:
    """What a map depends on: the model, and how much there is in the ledger."""
    named = (folder / "model" / "model.yaml").read_bytes()
    rows = ""
    if (folder / "ledger.sqlite").exists():
        with Ledger(folder, read_only=True) as ledger:
            counts = ledger.counts()
            rows = f"{counts['proposed']} {counts['attempts']}"
    return hashlib.sha256(named + rows.encode()).hexdigest()[:16]


def _is_current(folder: Path, mark: str, landmarks: bool) -> bool:
    try:
        known = map_file.read(folder)
    except ValueError:
        return False
    return (
        known is not None
        and known.about.get("mark") == mark
        and (not landmarks or bool(known.about.get("landmarks")))
    )
