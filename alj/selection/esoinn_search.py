"""The nearest nodes of a pattern as compiled host code, for learning and for millions of queries.

The search runs in float32 over weights stored by feature, and every node within the bound of its
rounding errors is measured again in float64, so that it finds what a search in float64 would.
Everything else is exact: `exact` compiles without reordered sums and fused products, `compiled`
with them. Importing this module imports numba.
"""

import inspect
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from alj.potentials.host_code import compiled

_ROUNDING = 2.0**-24
"""Largest relative error of rounding to float32,"""
_LOST = 1e-18
"""and what the smallest numbers may lose beyond that, at most."""

_BLOCK = 512
"""Nodes whose squared distances stay in the nearest cache while the features are summed."""


class Search(NamedTuple):
    """What a search works on: weights in float32 by feature, and room for one pattern.

    `longest` is an upper bound of the length of any weight or pattern so far.
    """

    columns: Any
    squares: Any
    single: Any
    longest: Any


def search_in(weights: np.ndarray, count: int) -> Search:
    """A search among the first `count` weights; none of their entries may exceed 1e15."""
    columns = np.zeros(weights.shape[::-1], np.float32)
    columns[:, :count] = weights[:count].T
    longest = np.sqrt(np.max(np.sum(weights[:count] ** 2, axis=1), initial=0.0))
    room = np.zeros(len(weights), np.float32), np.zeros(weights.shape[1], np.float32)
    return Search(columns, *room, np.array([longest]))


def private(search: Search) -> Search:
    """The same search with room of its own, for another thread."""
    return Search(search.columns, *(np.copy(part) for part in search[1:]))


def exact(function) -> Any:
    """`host_code.compiled`, but sums keep their order and products their rounding."""
    function = inspect.unwrap(function)
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(function, **options)


@compiled
def single_squares(single, columns, count, squares):
    """Squared distances in float32, sums in any order."""
    features = columns.shape[0]
    whole = features - features % 4
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        out = squares[start:stop]
        out[:] = np.float32(0.0)
        for d in range(0, whole, 4):
            p, q, r, s = single[d], single[d + 1], single[d + 2], single[d + 3]
            first, second = columns[d][start:stop], columns[d + 1][start:stop]
            third, fourth = columns[d + 2][start:stop], columns[d + 3][start:stop]
            for i in range(out.shape[0]):
                t, u, v, w = p - first[i], q - second[i], r - third[i], s - fourth[i]
                out[i] += (t * t + u * u) + (v * v + w * w)
        for d in range(whole, features):
            p, first = single[d], columns[d][start:stop]
            for i in range(out.shape[0]):
                t = p - first[i]
                out[i] += t * t


@exact
def square(x, y):
    """‖x - y‖², summed from first to last."""
    total = 0.0
    for d in range(x.shape[0]):
        apart = x[d] - y[d]
        total += apart * apart
    return total


@exact
def nearest_two(x, weights, count, search):
    """The nearest and the second nearest node, and their squared distances; R1."""
    length = 0.0
    for d in range(x.shape[0]):
        search.single[d] = x[d]
        length += x[d] * x[d]
    search.longest[0] = max(search.longest[0], np.sqrt(length))
    single_squares(search.single, search.columns, count, search.squares)
    low, next_low = np.float32(np.inf), np.float32(np.inf)
    for i in range(count):
        value = search.squares[i]
        if value < next_low:
            if value < low:
                low, next_low = value, low
            else:
                next_low = value
    # x and W are each rounded once, differences once, sums of squares once for each feature.
    absolute = 2.2 * _ROUNDING * search.longest[0] + _LOST
    relative = (x.shape[0] + 8) * _ROUNDING
    limit = (np.sqrt(np.float64(next_low)) * (1.0 + relative) + 2.0 * absolute) / (1.0 - relative)
    limit *= limit * (1.0 + 4.0 * _ROUNDING)
    a, b = -1, -1
    nearest, second = np.inf, np.inf
    for i in range(count):
        if search.squares[i] <= limit:
            value = square(x, weights[i])
            if value < nearest:
                a, b, nearest, second = i, a, value, nearest
            elif value < second:
                b, second = i, value
    return a, b, nearest, second


@exact
def threshold(net, i, search):
    """R2."""
    largest = -1.0
    for k in range(net.degrees[i]):
        largest = max(largest, square(net.weights[i], net.weights[net.neighbors[i, k]]))
    if largest < 0.0:
        a, _, nearest, second = nearest_two(net.weights[i], net.weights, net.count[()], search)
        largest = second if a == i else nearest
    return np.sqrt(largest)


@exact
def thresholds(net, search, found):
    """R2 of all nodes."""
    for i in range(net.count[()]):
        found[i] = threshold(net, i, search)


@exact
def two_winners(patterns, weights, count, search, winners, distances):
    """R1 for many patterns."""
    for row in range(patterns.shape[0]):
        a, b, nearest, second = nearest_two(patterns[row], weights, count, search)
        winners[row, 0], winners[row, 1] = a, b
        distances[row, 0], distances[row, 1] = np.sqrt(nearest), np.sqrt(second)


@exact
def class_distances(patterns, weights, classes, nearest, chosen, distances):
    """The nearest classes of many patterns, by their nearest nodes; `nearest` is workspace.

    `weights` are by feature; of equally near classes the lower one comes first.
    """
    features, count = weights.shape
    squares = np.empty(count)
    for row in range(patterns.shape[0]):
        for start in range(0, count, _BLOCK):
            out = squares[start : start + _BLOCK]
            out[:] = 0.0
            for d in range(features):
                value, column = patterns[row, d], weights[d][start : start + _BLOCK]
                for i in range(out.shape[0]):
                    apart = value - column[i]
                    out[i] += apart * apart
        nearest[:] = np.inf
        for i in range(count):
            nearest[classes[i]] = min(nearest[classes[i]], squares[i])
        for place in range(chosen.shape[1]):
            best = -1
            for label in range(nearest.shape[0]):
                if nearest[label] < np.inf and (best < 0 or nearest[label] < nearest[best]):
                    best = label
            if best < 0:
                break
            chosen[row, place], distances[row, place] = best, np.sqrt(nearest[best])
            nearest[best] = np.inf
