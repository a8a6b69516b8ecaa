"""Greedy choice whose values only fall as more is chosen: few of them need be computed again.

The variance left by D-optimal design never grows when a structure is added, so that a value
computed earlier is an upper bound of today's. Those with the largest bounds are brought up to date
until none that is out of date could still be the best. M. Minoux, Accelerated greedy algorithms for
maximizing submodular set functions, Lect. Notes Control Inf. Sci. 7, 234 (1978),
doi:10.1007/BFb0006528.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

TIE = 1e-10
"""Values closer than this (relative) count as equal: rounding must not decide between them."""

FRONT = 16384
"""How many of the largest bounds are looked at in every pick, ties apart."""

BLOCK = 512
"""How many values are brought up to date at once."""


def lazy_greedy(
    bounds: Float[np.ndarray, " n"],
    refresh: Callable[[Int[np.ndarray, " rows"]], Float[np.ndarray, " rows"]],
    add: Callable[[int], None],
    groups: Int[np.ndarray, " n"],
    shares: list[int],
) -> list[int]:
    """The same picks as computing all values before each: the largest, the lowest index of equals.

    Args:
        bounds: Values before anything is chosen, -inf for what must not be; overwritten.
        refresh: Values of these rows, given all that was added so far.
        add: Tells `refresh` of a pick.
        groups: The group of every row,
        shares: and how many may be chosen of each.
    """
    left, chosen = np.array(shares, int), []
    updated = np.full(len(bounds), -1)
    for group in np.flatnonzero(left == 0):
        bounds[groups == group] = -np.inf
    front, cut = np.zeros(0, int), np.inf
    for step in range(int(np.sum(left))):
        updated[front[bounds[front] <= 0]] = step  # a variance that is gone does not come back
        front, cut = _up_to_date(bounds, updated, step, refresh, front, cut)
        pick = int(front[first_of_largest(bounds[front])])
        chosen.append(pick)
        bounds[pick] = -np.inf
        left[groups[pick]] -= 1
        if left[groups[pick]] == 0:
            bounds[groups == groups[pick]] = -np.inf
        add(pick)
    return chosen


def first_of_largest(values: Float[np.ndarray, " n"]) -> int:
    """The lowest index among the values that equal the largest up to rounding.

    >>> first_of_largest(np.array([0.0, 1.0, 1.0 + 1e-15]))
    1
    """
    return int(np.argmax(values >= _line(np.max(values))))


def _up_to_date(bounds, updated, step, refresh, front, cut):
    """`front`, in order all rows with a bound of at least `cut`, widened until it holds the best.

    On return all rows whose bounds equal the best value or exceed it are in front and up to date.
    """
    best = -np.inf
    while True:
        values, current = bounds[front], updated[front] == step
        best = max(best, np.max(values[current], initial=-np.inf))
        stale = np.flatnonzero(~current & (values >= _line(best)) & (values > -np.inf))
        if len(stale):
            first = stale
            if len(stale) > BLOCK:
                first = stale[np.argpartition(values[stale], -BLOCK)[-BLOCK:]]
            rows = np.sort(front[first])
            bounds[rows], updated[rows] = refresh(rows), step
        elif cut == -np.inf or (best > -np.inf and _line(best) >= cut):
            return front, cut
        else:
            at = max(len(bounds) - FRONT, 0)
            cut = np.partition(bounds, at)[at]
            cut = min(cut, _line(best)) if best > -np.inf else cut
            front = np.flatnonzero((bounds >= cut) & (bounds > -np.inf))


def _line(best):
    """What counts as equal to the best."""
    return best - TIE * abs(best) if best > -np.inf else -np.inf
