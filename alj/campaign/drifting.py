"""Whether the spread of the committee still means what it meant a round ago.

Candidates are predicted before they are labeled: |error| / spread of one round's is what the next
round's are held against (`uncertainty.calibration.drift`).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from alj.campaign import datasets, evidence
from alj.campaign.datasets import Dataset
from alj.potentials.combine import members
from alj.types import Potential
from alj.uncertainty.calibration import calibrate, drift

FEWEST = 20
"""Labels in each of two rounds below which nothing is said: of fewer, too little follows."""


def spreads(potential: Potential, params: Any, found: Dataset) -> Float[np.ndarray, " n"]:
    """Standard deviation (ddof 1) of the members' energies, eV/atom; NaN where nothing follows."""
    count = datasets.count(found)
    if params is None or members(params) < 2 or count < FEWEST:
        return np.full(count, np.nan)
    energies = evidence.member_energies(potential, params, found)
    return np.std(energies, axis=1, ddof=1) / np.maximum(datasets.sizes(found), 1)


def compared(
    errors: Float[np.ndarray, " n"],
    spreads: Float[np.ndarray, " n"],
    before: Float[np.ndarray, " m"] | None,
) -> tuple[Float[np.ndarray, " k"], str | None]:
    """The ratios |error| / spread of a round, and one sentence if those of the last do not hold.

    `errors` and `spreads` in eV/atom; what is not known in either is left out. With too few ratios
    the last round's stay.
    """
    known = np.isfinite(errors) & np.isfinite(spreads) & (spreads > 0)
    ratios = np.abs(errors[known]) / spreads[known]
    if len(ratios) < FEWEST:
        return np.zeros(0) if before is None else before, None
    if before is None or len(before) < FEWEST:
        return ratios, None
    last = calibrate({"energy": before}, {"energy": np.ones(len(before))})["energy"]
    return ratios, drift(last, ratios, np.ones(len(ratios)))
