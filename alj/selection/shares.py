"""How a batch is shared among sources, and what evenly spaced means, for several selectors."""

import numpy as np


def even_shares(count: int, available: np.ndarray) -> list[int]:
    """`count` split as evenly as the numbers available allow, earlier sources first.

    >>> even_shares(10, np.array([100, 2, 100]))
    [4, 2, 4]
    """
    shares = np.zeros(len(available), int)
    for _ in range(min(count, int(np.sum(available)))):
        open_ = np.flatnonzero(shares < available)
        shares[open_[np.argmin(shares[open_])]] += 1
    return shares.tolist()


def evenly_spaced(coordinate: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` distinct points that lie most evenly along a coordinate.

    Each of `count` equidistant targets, the ends included, takes the nearest point that is left.

    >>> evenly_spaced(np.array([0.0, 0.1, 0.2, 9.0, 10.0]), 3).tolist()
    [0, 3, 4]
    """
    count = min(count, len(coordinate))
    targets = np.linspace(np.min(coordinate), np.max(coordinate), count) if count else []
    if count == 1:
        targets = [np.max(coordinate)]
    distance = np.abs(np.asarray(targets)[:, None] - coordinate[None, :])
    chosen: list[int] = []
    # The ends are served first, so that the middle cannot take them away.
    for place in sorted(range(count), key=lambda i: min(i, count - 1 - i)):
        distance[place, chosen] = np.inf
        chosen.append(int(np.argmin(distance[place])))
    return np.sort(np.asarray(chosen, int))


def padded(chosen, count: int) -> np.ndarray:
    """Indices padded with -1 to `count`."""
    chosen = np.asarray(chosen, int)[:count]
    return np.concatenate([chosen, np.full(count - len(chosen), -1)])
