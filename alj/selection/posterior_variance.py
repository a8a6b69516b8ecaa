"""Greedy choice of the largest posterior variance, by Bayesian linear regression on the last layer.

With last-layer features g and A = λ I + Σ g gᵀ over the training set, the posterior variance of a
candidate is proportional to q = gᵀ A⁻¹ g. After each choice A gains g*g*ᵀ, so that by the
Sherman–Morrison formula q ← q − (gᵀ A⁻¹ g*)² / (1 + q*): near-duplicates of what was just chosen
lose their variance. The greedy rule of D-optimal design; Fedorov, Theory of Optimal Experiments,
Academic Press (1972).
"""

import numpy as np
import scipy.linalg

from alj.selection.shares import even_shares, padded
from alj.types import BadInput, Evidence, Key, Selector


def posterior_variance(
    *,
    count: int = 10,
    prior: float = 1e-6,
    balanced: bool = False,
) -> Selector:
    """Candidates that shrink the posterior variance of the energy the most, one after the other.

    Args:
        count: Structures chosen in a round.
        prior: λ in units of the mean diagonal of Σ g gᵀ over training set and candidates.
        balanced: Whether every sampler gets the same share of the choice.

    Raises:
        BadInput: the prior is not positive.
    """
    if not prior > 0:
        raise BadInput(f"prior: expected a positive number, found {prior}")

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        features = np.asarray(evidence.features, float)
        known = np.asarray(evidence.known_features, float).reshape(-1, features.shape[1])
        groups = np.asarray(evidence.samplers) if balanced else np.zeros(len(features), int)
        names, groups = np.unique(groups, return_inverse=True)
        left = np.array(even_shares(count, np.bincount(groups, minlength=len(names))))
        whitened, variance = _whitened(features, known, prior)
        chosen: list[int] = []
        for _ in range(min(count, len(features))):
            open_ = (left[groups] > 0) & (variance > -np.inf)
            best = int(np.argmax(np.where(open_, variance, -np.inf)))
            chosen.append(best)
            left[groups[best]] -= 1
            whitened = _with_chosen(whitened, whitened[best])
            variance = np.einsum("nd,nd->n", whitened, whitened)
            variance[chosen] = -np.inf
        return padded(chosen, count)

    needs = ("features", "known_features", "samplers")
    return Selector(choose, needs, count)


def _whitened(features, known, prior):
    """L⁻¹ g for every candidate, with A = L Lᵀ, and q = |L⁻¹ g|²."""
    both = np.concatenate([known, features])
    scale = max(np.mean(np.sum(both**2, axis=1)) * len(both) / both.shape[1], 1e-300)
    matrix = known.T @ known + prior * scale * np.eye(features.shape[1])
    lower = scipy.linalg.cholesky(matrix, lower=True)
    whitened = scipy.linalg.solve_triangular(lower, features.T, lower=True).T
    return whitened, np.einsum("nd,nd->n", whitened, whitened)


def _with_chosen(whitened, chosen):
    """Whitened features once A has gained the chosen one: w ← (I + w* w*ᵀ)^(-½) w."""
    q = chosen @ chosen
    if q == 0:
        return whitened
    return whitened - np.outer(whitened @ chosen, chosen) * (1.0 - 1.0 / np.sqrt(1.0 + q)) / q
