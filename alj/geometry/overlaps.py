"""Which atoms sit on top of each other: a host search that every door uses on what comes in."""

import numpy as np
from scipy.spatial import KDTree


def closest_below(
    positions: np.ndarray, species: np.ndarray, cell: np.ndarray, distance_A: float = 1e-3
) -> tuple[int, int, float] | None:
    """The closest pair of atoms nearer than `distance_A` as (i, j, distance in Å), or None.

    Periodic images count; `distance_A` must be less than half the smallest height of the cell.
    Rows of `cell` that are zero do not repeat; padded atoms (species 0) are ignored. The search is
    a tree in coordinates scaled to the heights of the cell, where no pair is farther than in space.

    >>> closest_below(np.zeros((2, 3)), np.ones(2, int), np.zeros((3, 3)))
    (0, 1, 0.0)
    """
    real = np.flatnonzero(np.asarray(species) > 0)
    positions, cell = np.asarray(positions, np.float64)[real], np.asarray(cell, np.float64)
    periodic = np.any(cell != 0, axis=1)
    completed, tall = cell.copy(), np.ones(3)
    if not periodic.all():
        # any basis of the directions that do not repeat will do: distances are checked below
        completed[~periodic] = np.linalg.svd(cell)[2][periodic.sum() :]
    inverse = np.linalg.inv(completed)
    tall[periodic] = 1.0 / np.linalg.norm(inverse, axis=0)[periodic]
    fractional = positions @ inverse
    fractional[:, periodic] -= np.floor(fractional[:, periodic])
    fractional[:, periodic] %= 1.0  # floor of a tiny negative number leaves exactly 1
    tree = KDTree(fractional * tall, boxsize=np.where(periodic, tall, 0.0))
    pairs = tree.query_pairs(distance_A, p=np.inf, output_type="ndarray")
    if len(pairs) == 0:
        return None
    difference = fractional[pairs[:, 1]] - fractional[pairs[:, 0]]
    difference[:, periodic] -= np.round(difference[:, periodic])
    lengths = np.linalg.norm(difference @ completed, axis=1)
    best = int(np.argmin(lengths))
    if lengths[best] >= distance_A:
        return None
    i, j = sorted(int(real[k]) for k in pairs[best])
    return i, j, float(lengths[best])


def flat_cell(cell: np.ndarray, height_A: float = 0.1) -> bool:
    """Whether lattice vectors are dependent, or span a cell with a height below `height_A`."""
    cell = np.asarray(cell, np.float64)
    rows = cell[np.any(cell != 0, axis=1)]
    if len(rows) == 0:
        return False
    values = np.linalg.svd(rows, compute_uv=False)
    if values[-1] <= 1e-12 * values[0]:
        return True
    return bool(1.0 / np.linalg.norm(np.linalg.pinv(rows), axis=0).max() < height_A)
