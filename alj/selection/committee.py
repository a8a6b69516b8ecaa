"""Choice by committee spread, with a minimum distance between what is chosen.

Seung, Opper, Sompolinsky, Query by committee (1992), doi:10.1145/130385.130417. Neighboring frames
of a walk share their uncertainty: without a distance the top of the list is one structure.
"""

from typing import Literal

import numpy as np

from alj.selection.shares import padded
from alj.types import BadInput, Evidence, Key, Selector


def committee(
    *,
    count: int = 10,
    quantity: Literal["energy", "force"] = "energy",
    minimum_distance: float = 0.1,
) -> Selector:
    """The most disputed candidates, no two of them alike.

    Distances are Euclidean between descriptors averaged over a structure, in units of their root
    mean square over the candidates. When too few lie far enough apart, fewer are chosen.

    Args:
        count: Structures chosen in a round.
        quantity: Spread of the energy per atom, or the largest spread of any atom's force.
        minimum_distance: Smallest distance between two chosen ones, in that unit.

    Raises:
        BadInput: the distance is negative.
    """
    if minimum_distance < 0:
        raise BadInput(f"minimum_distance: expected at least 0, found {minimum_distance}")

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        if quantity == "energy":
            spread = np.asarray(evidence.energy_spread)
        else:
            spread = np.max(np.asarray(evidence.force_spread), axis=1)
        points = np.asarray(evidence.descriptors, float)
        points = points - points.mean(axis=0)
        points = points / max(np.sqrt(np.mean(np.sum(points**2, axis=1))), 1e-300)
        chosen: list[int] = []
        for candidate in np.argsort(-spread, kind="stable"):
            distances = np.linalg.norm(points[chosen] - points[candidate], axis=1)
            if not chosen or np.min(distances) >= minimum_distance:
                chosen.append(int(candidate))
            if len(chosen) == count:
                break
        return padded(chosen, count)

    return Selector(choose, (f"{quantity}_spread", "descriptors"), count)
