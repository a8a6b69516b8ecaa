"""Features of a pool and of the training set, read in chunks: what several selectors measure in.

Bayesian linear regression on features g has the information matrix A = Σ g gᵀ + λ I of the training
set. With A = L Lᵀ the posterior covariance of two structures is wᵀ w′ of their whitened features
w = L⁻¹ g, and q = ‖w‖² is the posterior variance. C. E. Rasmussen, C. K. I. Williams, Gaussian
Processes for Machine Learning, MIT Press (2006), chapter 2.1.

A pool may be a `numpy.memmap` of millions of rows: only chunks of it are ever held in float64.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from alj.types import BadInput, Evidence

Features = Literal["last_layer", "gradient", "descriptors"]
"""Gradients of the energy per atom: with respect to the last weights, or to all, projected; or
descriptors, means over the atoms."""

CHUNK = 2048
"""Rows held in float64 at once."""


def fields(features: Features) -> tuple[str, str]:
    """The fields of `Evidence` that hold these features of the pool and of the training set."""
    named = {"last_layer": "features", "gradient": "gradient_features"}
    name = named.get(features, features)
    return name, f"known_{name}"


def fetch(evidence: Evidence, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) of the pool as they are, and (m, d) of the training set in float64.

    Raises:
        BadInput: a feature of the training set is not a finite number.
    """
    of_pool, of_known = fields(features)
    pool = np.asarray(getattr(evidence, of_pool))
    known = np.asarray(getattr(evidence, of_known), float).reshape(-1, pool.shape[1])
    if not np.all(np.isfinite(known)):
        bad = int(np.sum(~np.all(np.isfinite(known), axis=1)))
        raise BadInput(
            f"{of_known}: expected finite numbers, found others in {bad} of {len(known)} training "
            "structures: the training has diverged; lower its learning rate or look at its data"
        )
    return pool, known


def chunks(pool: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of a pool in float64, chunk by chunk, with the slice where they stand."""
    for start in range(0, len(pool), CHUNK):
        rows = slice(start, min(start + CHUNK, len(pool)))
        yield rows, pool[rows].astype(np.float64)


def squared_norms(pool: np.ndarray) -> Float[np.ndarray, " n"]:
    """‖g‖² of every row; not finite where one of its features is not."""
    norms = np.empty(len(pool))
    for rows, chunk in chunks(pool):
        norms[rows] = np.einsum("nd,nd->n", chunk, chunk)
    return norms


def information(
    known: Float[np.ndarray, "m d"], norms: Float[np.ndarray, " n"], prior: float
) -> Float[np.ndarray, "d d"]:
    """A = Σ g gᵀ + λ I over the training set; `norms` are the candidates' ‖g‖².

    λ is `prior` times the mean diagonal of Σ g gᵀ over training set and candidates, those apart
    that are not finite: a few labels alone say little of how large features are.
    """
    total = np.sum(known**2) + np.sum(norms[np.isfinite(norms)])
    size = known.shape[1]
    return known.T @ known + prior * max(total / max(size, 1), 1e-300) * np.eye(size)


def factor(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """L of A = L Lᵀ, lower triangular."""
    return scipy.linalg.cholesky(matrix, lower=True, check_finite=False)


def whiten(
    lower: Float[np.ndarray, "d d"], rows: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n d"]:
    """w = L⁻¹ g of every row, by a triangular solve; may overwrite `rows`."""
    return scipy.linalg.solve_triangular(
        lower, rows.T, lower=True, overwrite_b=True, check_finite=False
    ).T


def variances(
    lower: Float[np.ndarray, "d d"], rows: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """q = gᵀ A⁻¹ g = ‖L⁻¹ g‖² of every row; may overwrite `rows`."""
    whitened = whiten(lower, rows)
    return np.einsum("nd,nd->n", whitened, whitened)


def with_the_rest(chosen: list[int], measurable: Bool[np.ndarray, " n"], count: int) -> list[int]:
    """What was chosen, and then in their order those whose features are not finite numbers."""
    rest = np.flatnonzero(~measurable)
    return [*chosen, *rest[: max(count - len(chosen), 0)].tolist()]
