"""Random choice: the baseline that every other selector must beat."""

import jax
import numpy as np

from alj.selection.shares import padded
from alj.types import Evidence, Key, Selector


def random(*, count: int = 10) -> Selector:
    """Candidates drawn at random, without replacement.

    Args:
        count: Structures chosen in a round.
    """

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        order = jax.random.permutation(key, len(evidence.energies))
        return padded(np.asarray(order), count)

    return Selector(choose, ("energies",), count)
