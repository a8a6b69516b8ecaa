"""Choice of structures that differ from one another and from the training set, by distances only.

All three start from the training set as centers, and what is chosen becomes a center. With d(x) the
distance of a candidate from its nearest center c(x):

    farthest point:                   argmax d(x)
    largest cluster maximum distance: argmax d(x) in the cluster with the largest Σ d(x)²
    k-means++:                        drawn with probability d(x)² / Σ d²

The second looks for the outskirts of where candidates are many, the first for outliers, the third
lies between. D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, J. Mach. Learn. Res. 24, 164
(2023), arXiv:2203.09410, section 5.2 ("TP" modes, in which the training set counts). Farthest
points: T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985), doi:10.1016/0304-3975(85)90224-5;
k-means++: D. Arthur, S. Vassilvitskii, SODA 2007, 1027.
"""

from functools import cache
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from alj.selection import feature_space
from alj.selection.feature_space import Features
from alj.selection.lazy_greedy import first_of_largest
from alj.selection.shares import padded
from alj.types import BadInput, Evidence, Key, Selector

Space = Literal["plain", "posterior"]
"""Distances between features as they are, the paper's choice where the training set counts, or
between whitened ones w = L⁻¹ g, in which directions known from the training set are short."""

CENTERS = 1024
"""Centers of the training set that a chunk of candidates is compared with at once."""


def max_dist(
    *,
    count: int = 10,
    features: Features = "last_layer",
    space: Space = "plain",
    prior: float = 1e-6,
) -> Selector:
    """Farthest points: always the candidate farthest from the training set and all chosen so far.

    Without a training set the first is the longest vector of features. Of equal ones the first is
    taken; candidates whose features are not finite numbers come last.

    Args:
        count: Structures chosen in a round.
        features: Gradients of the energy per atom with respect to the weights of the
            "last_layer", or of all layers ("gradient", projected at random); or "descriptors".
        space: Distances between features as they are, "plain", or whitened by the "posterior".
        prior: λ of the posterior, as in `d_optimal`; without effect in plain space.

    Raises:
        BadInput: the prior is not positive; training features are not finite (when choosing).
    """
    return _by_distance(_farthest, np.copy, count, features, space, prior)


def lcmd(
    *,
    count: int = 10,
    features: Features = "last_layer",
    space: Space = "plain",
    prior: float = 1e-6,
) -> Selector:
    """Largest cluster maximum distance: the outermost candidate of the largest cluster.

    Every candidate belongs to its nearest center, of the training set or chosen; the size of a
    cluster is the sum of its squared distances. Without a training set the first is the longest
    vector of features. Of equal ones the first is taken; candidates whose features are not finite
    numbers come last.

    Args:
        count: Structures chosen in a round.
        features: Gradients of the energy per atom with respect to the weights of the
            "last_layer", or of all layers ("gradient", projected at random); or "descriptors".
        space: Distances between features as they are, "plain", or whitened by the "posterior".
        prior: λ of the posterior, as in `d_optimal`; without effect in plain space.

    Raises:
        BadInput: the prior is not positive; training features are not finite (when choosing).
    """
    return _by_distance(_in_largest_cluster, np.copy, count, features, space, prior)


def kmeans_pp(
    *,
    count: int = 10,
    features: Features = "last_layer",
    space: Space = "plain",
    prior: float = 1e-6,
) -> Selector:
    """Drawn at random in proportion to the squared distance from the nearest center.

    Centers are the training set and what was drawn; without a training set the first is drawn
    evenly. Candidates whose features are not finite numbers come last.

    Args:
        count: Structures chosen in a round.
        features: Gradients of the energy per atom with respect to the weights of the
            "last_layer", or of all layers ("gradient", projected at random); or "descriptors".
        space: Distances between features as they are, "plain", or whitened by the "posterior".
        prior: λ of the posterior, as in `d_optimal`; without effect in plain space.

    Raises:
        BadInput: the prior is not positive; training features are not finite (when choosing).
    """
    return _by_distance(_drawn, np.ones_like, count, features, space, prior)


class Clusters(NamedTuple):
    """Of every candidate the squared distance from its nearest center, and which center that is.

    Centers are counted through those of the training set and then those chosen. The distance of
    what cannot be chosen (any more) is 0.
    """

    squares: Float[np.ndarray, " n"]
    nearest: Int[np.ndarray, " n"]


def _farthest(clusters: Clusters, draw: float) -> int:
    return first_of_largest(clusters.squares)


def _in_largest_cluster(clusters: Clusters, draw: float) -> int:
    sizes = np.bincount(clusters.nearest, weights=clusters.squares)
    inside = np.flatnonzero(clusters.nearest == first_of_largest(sizes))
    return int(inside[first_of_largest(clusters.squares[inside])])


def _drawn(clusters: Clusters, draw: float) -> int:
    summed = np.cumsum(clusters.squares)
    # Right of equal sums: what has no distance cannot be drawn.
    return int(np.searchsorted(summed, draw * summed[-1], side="right"))


def _by_distance(rule, first, count, features: Features, space: Space, prior: float) -> Selector:
    """A selector of `rule(clusters, draw) -> candidate`, one after the other.

    Where there is no center yet, `first` turns squared norms into what the rule takes as squared
    distances.
    """
    if not prior > 0:
        raise BadInput(f"prior: expected a positive number, found {prior}")

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        pool, known = feature_space.fetch(evidence, features)
        norms = feature_space.squared_norms(pool)
        open_ = np.isfinite(norms)
        measurable = open_.copy()
        if space == "posterior":
            pool, known = _whitened(pool, known, norms, prior)
            norms = norms if len(known) else feature_space.squared_norms(pool)
        clusters = _assigned(pool, known, open_)
        squares = clusters.squares if len(known) else first(norms)
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
        chosen: list[int] = []
        for draw in generator.random(min(count, int(np.sum(open_)))):
            squares = np.where(open_, squares, 0.0)
            apart = np.any(squares > 0)
            pick = rule(clusters._replace(squares=squares), draw) if apart else np.argmax(open_)
            center = len(known) + len(chosen)
            chosen.append(int(pick))
            open_[pick] = False
            _sweep()(pool, pool[pick].astype(np.float64), *clusters, center)
            squares = clusters.squares
        return padded(feature_space.with_the_rest(chosen, measurable, count), count)

    def report(evidence: Evidence) -> dict:
        pool, _ = feature_space.fetch(evidence, features)
        norms = feature_space.squared_norms(pool)
        return {"not_finite": float(np.sum(~np.isfinite(norms)))}

    return Selector(choose, feature_space.fields(features), count, report)


def _assigned(pool, known, measurable) -> Clusters:
    """Every candidate with the nearest one of `known`; infinitely far where there is none."""
    clusters = Clusters(np.full(len(pool), np.inf), np.zeros(len(pool), np.int64))
    if not len(known):
        return clusters
    # The first of equal centers stands for all: else rounding would share their cluster out.
    places = np.sort(np.unique(known, axis=0, return_index=True)[1])
    centers = known[places] - known.mean(axis=0)  # far from 0, products would cancel
    halves = 0.5 * np.einsum("md,md->m", centers, centers)
    for rows, chunk in feature_space.chunks(pool):
        chunk[~measurable[rows]] = 0.0
        shifted = chunk - known.mean(axis=0)
        best = np.full(len(chunk), np.inf)
        nearest = np.zeros(len(chunk), np.int64)
        for start in range(0, len(centers), CENTERS):
            block = slice(start, start + CENTERS)
            far = halves[block] - shifted @ centers[block].T
            closest = np.argmin(far, axis=1)
            least = far[np.arange(len(chunk)), closest]
            nearest = np.where(least < best, start + closest, nearest)
            best = np.fmin(least, best)
        clusters.nearest[rows] = places[nearest]
        apart = chunk - known[clusters.nearest[rows]]
        clusters.squares[rows] = np.einsum("nd,nd->n", apart, apart)
    return clusters


def _whitened(pool, known, norms, prior):
    """w = L⁻¹ g of both, the pool in its own precision: one more copy of it."""
    lower = feature_space.factor(feature_space.information(known, norms, prior))
    whitened = np.empty(pool.shape, pool.dtype)
    for rows, chunk in feature_space.chunks(pool):
        whitened[rows] = feature_space.whiten(lower, chunk)
    return whitened, feature_space.whiten(lower, known.copy())


@cache
def _sweep():
    """One pass over the pool, compiled: a new center takes those that are nearer to it."""
    from alj.potentials.host_code import compiled  # imports numba

    def sweep(pool, center, squares, nearest, number):
        for row in range(pool.shape[0]):
            square = 0.0
            for place in range(pool.shape[1]):
                apart = np.float64(pool[row, place]) - center[place]
                square += apart * apart
            if square < squares[row]:
                squares[row] = square
                nearest[row] = number

    return compiled(sweep)
