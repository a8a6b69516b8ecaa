"""Evenly spaced choice along each walk: in time for Metropolis, in energy for nested ensembles."""

import numpy as np

from alj.selection.shares import even_shares, evenly_spaced, padded
from alj.types import Evidence, Key, Selector


def spaced(*, count: int = 10) -> Selector:
    """Candidates evenly spaced along every walk, walks sharing the count equally.

    Args:
        count: Structures chosen in a round.
    """

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        walks, places = np.unique(evidence.walks, return_inverse=True)
        members = [np.flatnonzero(places == w) for w in range(len(walks))]
        shares = even_shares(count, np.array([len(m) for m in members]))
        picks = [
            m[evenly_spaced(np.asarray(evidence.spacing)[m], share)]
            for m, share in zip(members, shares, strict=True)
        ]
        return padded(np.concatenate(picks) if picks else [], count)

    return Selector(choose, ("walks", "spacing"), count)
