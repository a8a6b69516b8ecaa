"""`alj reduce`: what a set of molecules can do without, by ESOINN on Coulomb spectra.

Four stages, each remembered beside the output: spectra of all structures (`patterns`), a network of
classes that has seen every one of them once in a random order (`selection.esoinn`), the node that
each belongs to, and the representatives of all nodes (`selection.representatives`). Sets of
millions stay on the disk. M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP).
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
from alj.analysis.reduction_figures import reduction_map
from alj.campaign.patterns import Patterns, atoms_at, patterns_of
from alj.campaign.reading import choose_labels, read_frame
from alj.campaign.store import FolderStore, write_file
from alj.campaign.writing import frame_text
from alj.selection import esoinn_queries
from alj.selection.esoinn import (
    ClassNetwork,
    begin,
    classes,
    esoinn,
    period_is_short,
    trimmed,
)
from alj.selection.esoinn_queries import Found
from alj.selection.esoinn_rules import Rules
from alj.selection.representatives import NODE, Kept, representatives
from alj.types import BadInput, Context

CHUNK = 65536
"""Patterns learned between two points from which a run can go on."""

WRITTEN = 4096
"""Structures written at once."""

Progress = Callable[[str, int, int | None], Any]


class Request(NamedTuple):
    """What is asked for: `count`, `share` of the pool, or both None and only the `distance` (in
    root mean square distances of spectra from their mean) beyond which nothing kept may lie."""

    pool: str
    out: str
    count: int | None = None
    share: float | None = None
    distance: float = 0.0
    settings: dict = {}  # noqa: RUF012 (never changed)
    closest_fraction: float = 0.5
    seed: int = 0


class Reduced(NamedTuple):
    """What was kept: places in the pool in order of choice; and the report, as it was written."""

    places: np.ndarray
    report: dict[str, Any]


def reduce(
    request: Request,
    on_progress: Progress | None = None,
    say: Callable[[str], Any] | None = None,
) -> Reduced:
    """Choose, write the kept structures, a report, a table of classes and a figure.

    Raises BadInput for files that cannot be read, periodic structures, and settings out of range.
    """
    say = say or (lambda text: None)
    tell = on_progress or (lambda *_: None)
    if Path(request.pool).resolve() == Path(request.out).resolve():
        raise BadInput(f"--out: expected a file of its own, found {request.pool}, which is read")
    if request.count is not None and request.share is not None:
        raise BadInput("give --count or --share, not both")
    rules = rules_of(request.settings)
    folder = Path(f"{request.out}.work") / _identity(request.pool, request.closest_fraction)
    with FolderStore(folder) as store:
        patterns = patterns_of(
            request.pool,
            store,
            closest_fraction=request.closest_fraction,
            on_structures=lambda done: tell("spectra", done, None),
        )
        fine = np.flatnonzero(~patterns.aside)
        wanted = _wanted(request, len(patterns.atoms), len(fine))
        name = _hash([list(rules), request.seed])
        network = learned(store, name, patterns, fine, rules, request.seed, tell)
        if period_is_short(network, rules):
            say(
                f"period: {rules.period} patterns are few for {_count(network)} classes, small "
                "ones may have been lost as noise; try --set period=2000 or more"
            )
        whole = patterns.spectra if len(fine) == len(patterns.atoms) else patterns.spectra[fine]
        found = esoinn_queries.find(network, whole)
        scale = float(network.scale)
        kept = representatives(
            whole,
            found.winners[:, 0],
            found.distances[:, 0],
            wanted,
            within=request.distance * scale,
        )
    _write(request, fine, kept, found, scale, tell)
    report = _report(request, network, patterns, found, kept)
    _write_about(request, whole, found, kept, report)
    return Reduced(fine[kept.places], report)


def rules_of(settings: dict) -> Rules:
    """The rules of a network from settings of `esoinn`. Raises BadInput."""
    registry.call(esoinn, settings)  # checks them
    period, oldest, two, one, length = registry.filled(esoinn, settings).values()
    return Rules(int(period), int(oldest), float(two), float(one), float(length))


def learned(
    store: FolderStore, name: str, patterns: Patterns, fine, rules: Rules, seed: int, tell: Progress
) -> ClassNetwork:
    """A network that was shown all patterns once, chunk by chunk, or what is left of that."""
    stepper = esoinn(
        period=rules.period,
        oldest_connection=rules.oldest,
        noise_two_neighbors=rules.two,
        noise_one_neighbor=rules.one,
        length=rules.length,
    )
    key = jax.random.key(seed)
    order = fine[np.random.default_rng([seed, 1]).permutation(len(fine))]
    kept = store.recall(f"{name}/network")
    done = 0
    if kept is None:
        some = np.sort(order[:CHUNK])
        network = begin(jax.random.fold_in(key, 0), patterns.spectra[some])
    else:
        done, network = int(kept["done"]), ClassNetwork(**kept["network"])
    while done < len(order):
        rows = np.sort(order[done : done + CHUNK])
        context = Context(params=None, data=patterns.spectra[rows])
        network, _ = stepper.step(jax.random.fold_in(key, 1 + done), network, context)
        done = min(done + CHUNK, len(order))
        store.replace(
            f"{name}/network", {"done": np.asarray(done), "network": trimmed(network)._asdict()}
        )
        tell("classes", done, len(order))
    return network


def _wanted(request: Request, total: int, fine: int) -> int:
    """How many structures at most. Raises BadInput for what nothing can be reduced to."""
    if fine < 2:
        raise BadInput(
            f"{request.pool}: expected at least two structures whose atoms lie apart, found {fine} "
            f"of {total}"
        )
    if request.share is not None:
        return max(round(request.share * total), 1)
    return min(request.count if request.count is not None else fine, fine)


def _write(request: Request, fine, kept: Kept, found: Found, scale: float, tell: Progress) -> None:
    """The kept structures in the order of the pool, with all labels; atomically."""
    target = Path(request.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".writing-{target.name}")
    rank = {int(fine[place]): k for k, place in enumerate(kept.places)}
    places = np.array(sorted(rank))

    def about(place: int) -> dict[str, Any]:
        k = rank[place]
        own = int(kept.places[k])
        gap = {"gap": float(kept.gaps[k] / scale)} if np.isfinite(kept.gaps[k]) else {}
        why = "nearest to its node" if kept.reasons[k] == NODE else "far from what was kept"
        return {
            "pool_index": place, "kept_rank": k, "kept_because": why, **gap,
            "esoinn_node": int(found.winners[own, 0]), "esoinn_class": int(found.classes[own]),
        }  # fmt: skip

    with temporary.open("w", encoding="utf-8") as file:
        waiting, done = [], 0
        for place, atoms in atoms_at(request.pool, places):
            try:
                frame = read_frame(atoms, known=(), with_labels=True)
            except BadInput as error:
                raise BadInput(f"{request.pool}: structure {place}: {error}") from None
            waiting.append(frame._replace(info={**frame.info, **about(place)}))
            if len(waiting) == WRITTEN:
                done += _write_frames(file, request.pool, waiting)
                tell("writing", done, len(places))
                waiting = []
        _write_frames(file, request.pool, waiting)
    temporary.replace(target)
    tell("writing", len(places), len(places))


def _write_frames(file, pool: str, frames: list) -> int:
    labels, _ = choose_labels(frames, lambda i: f"{pool}: {frames[i].info['pool_index']}")
    for frame, label in zip(frames, labels, strict=True):
        file.write(frame_text(frame.structure, label, frame.info))
    return len(frames)


def _report(
    request: Request, network: ClassNetwork, patterns: Patterns, found: Found, kept: Kept
) -> dict[str, Any]:
    """What was kept and why, in numbers."""
    total, count, scale = len(patterns.atoms), len(kept.places), float(network.scale)
    left = kept.distances[np.isfinite(kept.distances)] / scale
    return {
        "pool": request.pool,
        "structures": total,
        "set_aside": int(patterns.aside.sum()),
        "kept": count,
        "kept_share": count / total,
        "kept_as_nearest_to_a_node": int(np.sum(kept.reasons == NODE)),
        "kept_to_fill_a_gap": int(np.sum(kept.reasons != NODE)),
        "nodes": int(network.count),
        "classes": _count(network),
        "scale": scale,
        "farthest_dropped": float(np.max(left, initial=0.0)),
        "mean_distance_of_dropped": float(np.mean(left)) if len(left) else 0.0,
        "cells_without_a_representative": int(
            len(np.unique(found.winners[:, 0])) - np.sum(kept.reasons == NODE)
        ),
        "seed": request.seed,
        "esoinn": registry.filled(esoinn, request.settings),
    }


def _write_about(request: Request, spectra, found: Found, kept: Kept, report: dict) -> None:
    """Beside the kept structures: the report, a table of classes, and the map."""
    stem = Path(request.out).with_suffix("")
    write_file(stem.with_suffix(".json"), (json.dumps(report, indent=1) + "\n").encode())
    number = int(np.max(found.classes)) + 1
    all_of = np.bincount(found.classes, minlength=number)
    kept_of = np.bincount(found.classes[kept.places], minlength=number)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "structures", "kept", "kept_share"])
    for number in np.argsort(-all_of, kind="stable").tolist():
        if all_of[number]:
            share = kept_of[number] / all_of[number]
            writer.writerow([number, all_of[number], kept_of[number], f"{share:.4g}"])
    write_file(stem.with_suffix(".classes.csv"), text.getvalue().encode())
    figure = reduction_map(*mapped(spectra, kept.places), all_of, kept_of)
    image = io.BytesIO()
    figure.savefig(image, dpi=150, format="png")
    write_file(stem.with_suffix(".png"), image.getvalue())


def mapped(spectra, kept, most: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (n, 2) of some structures along the two principal axes of their spectra, which of
    them are kept, and the share of the variance along each axis."""
    is_kept = np.zeros(len(spectra), bool)
    is_kept[kept] = True
    some = np.sort(np.random.default_rng(0).permutation(len(spectra))[:most])
    rows = np.asarray(spectra[some], np.float64)
    centered = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centered, full_matrices=False)
    planar = np.zeros((len(rows), 2))
    planar[:, : len(axes[:2])] = centered @ axes[:2].T
    shares = np.zeros(2)
    shares[: len(values[:2])] = values[:2] ** 2 / max(float(np.sum(values**2)), 1e-300)
    return planar, is_kept[some], shares


def _count(network: ClassNetwork) -> int:
    return int(np.max(classes(network))) + 1


def _identity(pool: str, closest_fraction: float) -> str:
    """A name for all that spectra depend on: the file, by its size and what it begins and ends
    with, for a file of gigabytes is not read to the end twice."""
    paths = sorted(Path(pool).iterdir()) if Path(pool).is_dir() else [Path(pool)]
    about: list[Any] = [closest_fraction, version("alj")]
    for path in paths:
        if not path.is_file():
            if path == Path(pool):
                raise BadInput(f"{pool}: no such file; check the path")
            continue
        with path.open("rb") as file:
            head = file.read(_ENDS)
            file.seek(max(path.stat().st_size - _ENDS, 0))
            ends = hashlib.sha256(head + file.read(_ENDS)).hexdigest()
        about.append([path.name, path.stat().st_size, ends])
    return _hash(about)


_ENDS = 1 << 20


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
