"""What a trained ESOINN says of patterns, for millions of them: winners, classes, where they lie.

Relative to the winners s1, s2 with thresholds T (the rules of `alj.selection.esoinn`) a pattern is

    far       d1 > 2 T1 or d2 > 2 T2                        ("unimportant" in ESOINN-DP)
    inside    s1, s2 of one class, d1 ≤ T1 and d2 ≤ T2      ("normal")
    boundary  otherwise                                     ("candidate")

Chunks of patterns are shared among threads. The network is not changed.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from alj.selection.esoinn import ClassNetwork, classes, densities, fitting
from alj.types import BadInput

INSIDE, BOUNDARY, FAR = 0, 1, 2

CHUNK = 16384
"""Patterns that a thread works on at once."""


class Found(NamedTuple):
    """Of every pattern: its two winners and their distances (in the network's scale), the class and
    the density of the nearer one, and the region, INSIDE, BOUNDARY or FAR."""

    winners: Int[np.ndarray, "n 2"]
    distances: Float[np.ndarray, "n 2"]
    classes: Int[np.ndarray, " n"]
    densities: Float[np.ndarray, " n"]
    regions: Int[np.ndarray, " n"]


def find(
    network: ClassNetwork,
    patterns: Float[np.ndarray, "n features"],
    *,
    threads: int | None = None,
) -> Found:
    """Where patterns lie; `threads` None: one for each core.

    Raises:
        BadInput: patterns are of another length, or not finite.
    """
    from alj.selection import esoinn_search  # imports numba

    count = int(network.count)
    winners = np.empty((len(patterns), 2), np.int64)
    distances = np.empty((len(patterns), 2))
    search = esoinn_search.search_in(network.weights, count)

    def work(rows: slice):
        chunk = fitting(network, patterns[rows])
        own = esoinn_search.private(search)
        esoinn_search.two_winners(
            chunk, network.weights, count, own, winners[rows], distances[rows]
        )

    _shared(work, len(patterns), threads)
    labels, limits = classes(network), np.empty(count)
    esoinn_search.thresholds(network, search, limits)
    one = labels[winners[:, 0]] == labels[winners[:, 1]]
    inside = one & np.all(distances <= limits[winners], axis=1)
    far = np.any(distances > 2.0 * limits[winners], axis=1)
    regions = np.where(far, FAR, np.where(inside, INSIDE, BOUNDARY)).astype(np.int8)
    nearer = winners[:, 0]
    return Found(winners, distances, labels[nearer], densities(network)[nearer], regions)


def nearest_classes(
    network: ClassNetwork,
    patterns: Float[np.ndarray, "n features"],
    count: int,
    *,
    threads: int | None = None,
) -> tuple[Int[np.ndarray, "n count"], Float[np.ndarray, "n count"]]:
    """The nearest classes of every pattern and their distances, in the network's scale.

    The distance of a class is that of its nearest node; of equals the lower class comes first.
    Where there are fewer classes, -1 and infinity pad.

    Raises:
        BadInput: patterns are of another length, or not finite; the count is not positive.
    """
    from alj.selection import esoinn_search  # imports numba

    if count < 1:
        raise BadInput(f"nearest classes: expected a positive count, found {count}")
    labels = classes(network)
    weights = np.ascontiguousarray(network.weights[: len(labels)].T)
    chosen = np.full((len(patterns), count), -1)
    distances = np.full((len(patterns), count), np.inf)

    def work(rows: slice):
        chunk, room = fitting(network, patterns[rows]), np.empty(np.max(labels) + 1)
        esoinn_search.class_distances(chunk, weights, labels, room, chosen[rows], distances[rows])

    _shared(work, len(patterns), threads)
    return chosen, distances


def _shared(work: Callable[[slice], None], count: int, threads: int | None) -> None:
    """Call `work` for all chunks of the rows, in threads."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    chunks = [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ThreadPoolExecutor(threads or len(usable(0))) as pool:
        list(pool.map(work, chunks))
