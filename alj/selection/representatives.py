"""Representatives of a set: one for each node of a network of classes, then wherever gaps are wide.

A node's cell is all patterns that are nearest to it. Of each cell the pattern nearest to its node
is kept first. After that, again and again, the pattern that is farthest from everything kept *of
its own cell* is kept, whichever cell it is of: farthest points (T. F. Gonzalez, Theor. Comput. Sci.
38, 293, 1985, doi:10.1016/0304-3975(85)90224-5), for millions of patterns, because a cell is all
that one choice looks at. So the order of choice is one of importance: a part of the first ones is a
good smaller set.
"""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

NODE, GAP = 0, 1
"""Why a pattern is kept: it is the nearest to a node, or it lay far from all that was kept."""


class Kept(NamedTuple):
    """Which patterns are kept, in order of choice, why (NODE or GAP), and how far each lay from
    what was kept of its cell before (infinite for the first of a cell); and of every pattern how
    far it lies from what was kept of its cell, in the units of the patterns."""

    places: Int[np.ndarray, " kept"]
    reasons: Int[np.ndarray, " kept"]
    gaps: Float[np.ndarray, " kept"]
    distances: Float[np.ndarray, " n"]


def representatives(
    patterns: Float[np.ndarray, "n features"],
    cells: Int[np.ndarray, " n"],
    to_node: Float[np.ndarray, " n"],
    count: int,
    *,
    within: float = 0.0,
    known: Int[np.ndarray, " known"] | None = None,
) -> Kept:
    """At most `count` representatives; no further ones where nothing lies beyond `within`.

    `cells` are the nearest nodes of the patterns, -1 for what must not be kept, and `to_node` the
    distances from them. Patterns `known` are kept already: they are not chosen, and fill gaps. Of
    equals the first is kept. Patterns may be a `numpy.memmap`; one cell at a time is in memory.

    >>> line = np.array([[0.0], [0.1], [1.0], [5.0], [5.2]])
    >>> kept = representatives(line, np.array([0, 0, 0, 1, 1]), np.zeros(5), 3)
    >>> kept.places.tolist(), kept.gaps.tolist()
    ([0, 3, 2], [inf, inf, 1.0])
    """
    order = np.argsort(cells, kind="stable")
    order = order[cells[order] >= 0]
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    members = np.split(order, starts[1:]) if len(order) else []
    distances = np.full(len(cells), np.inf)
    taken = np.zeros(len(cells), bool)
    if known is not None:
        taken[known] = True
    heap, firsts = [], []
    for number, cell in enumerate(members):
        already = cell[taken[cell]]
        for place in already:
            _add(patterns, cell, place, distances)
        if len(already):
            heapq.heappush(heap, _widest(number, cell, distances))
        else:
            firsts.append(number)
    # The largest cells first: where there is not room for all, most patterns are near one kept.
    firsts.sort(key=lambda number: -len(members[number]))
    places, reasons, gaps = [], [], []
    for number in firsts[:count]:
        cell = members[number]
        place = cell[np.argmin(to_node[cell])]
        places.append(int(place))
        reasons.append(NODE)
        gaps.append(np.inf)
        _add(patterns, cell, place, distances)
        heapq.heappush(heap, _widest(number, cell, distances))
    while heap and len(places) < count and -heap[0][0] > within:
        gap, place, number = heapq.heappop(heap)
        places.append(place)
        reasons.append(GAP)
        gaps.append(-gap)
        _add(patterns, members[number], place, distances)
        heapq.heappush(heap, _widest(number, members[number], distances))
    return Kept(np.array(places, int), np.array(reasons, int), np.array(gaps, float), distances)


def _add(patterns, cell, place, distances) -> None:
    """Distances of a cell's patterns, now that one of them is kept."""
    change = np.asarray(patterns[cell], np.float64) - np.asarray(patterns[place], np.float64)
    distances[cell] = np.minimum(distances[cell], np.sqrt(np.einsum("nd,nd->n", change, change)))


def _widest(number: int, cell, distances) -> tuple[float, int, int]:
    """The widest gap of a cell, negative for a heap; of equals the first pattern."""
    place = int(cell[np.argmax(distances[cell])])
    return -float(distances[place]), place, number
