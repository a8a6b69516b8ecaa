"""Anchoring: the constant by which a potential that taught itself is wrong, measured and removed.

Structures drawn from a network's own ensemble are those whose energy it puts too low, so a pool of
such structures lifts the fit by a constant. With ΔE = E_network - E_reference, each ensemble is the
other one reweighted,

    p_reference(ΔE) ∝ p_network(ΔE) exp(ΔE / kT),

and where ΔE is Gaussian its mean differs between the two by exactly its variance over kT:

    <ΔE>_reference = <ΔE>_network + var(ΔE) / kT.

The constant that makes the network right on the reference's ensemble follows from a few labels of
frames of a short reference run, or, where such a run costs too much, of the network's own run. It
changes neither structure nor density. R. W. Zwanzig, J. Chem. Phys. 22, 1420 (1954),
doi:10.1063/1.1740409 (the second cumulant).
"""

from typing import Literal, NamedTuple

import numpy as np

from alj.campaign.trees import storable
from alj.types import BadInput
from alj.units import BOLTZMANN


@storable
class Anchoring(NamedTuple):
    """What the labels said: `offset`, its standard error, `bias` and `scatter`, all in eV/atom.

    `offset` is what the potential's energy per atom needs added; bias and scatter are mean and
    standard deviation of the error per atom on the frames, before.
    """

    offset: float
    error: float
    bias: float
    scatter: float
    labels: int


def anchor_settings(*, ensemble: Literal["reference", "network"] = "reference") -> str:
    """How the constant is measured; the other settings are those of a sampler and its walks.

    Args:
        ensemble: Whose run the labeled frames come from. The reference's needs a labeler that is a
            potential of this package; the network's corrects for its selection bias by the second
            cumulant, which needs more labels for the same precision.
    """
    return ensemble


def anchoring(
    predicted: np.ndarray,
    reference: np.ndarray,
    atoms: np.ndarray,
    *,
    ensemble: str,
    temperature_K: float,
) -> Anchoring:
    """The constant from predicted and reference energies (eV) of frames at one temperature.

    Raises BadInput for fewer than two labels: there is no scatter, and no error bar.
    """
    errors = (predicted - reference) / atoms
    errors = errors[np.isfinite(errors)]
    count = len(errors)
    if count < 2:
        raise BadInput(f"anchor: expected at least 2 labeled frames, found {count}")
    bias, variance = float(np.mean(errors)), float(np.var(errors, ddof=1))
    offset, squared = -bias, variance / count
    if ensemble == "network":
        per_atom = float(np.mean(atoms)) / (BOLTZMANN * temperature_K)
        offset -= per_atom * variance
        squared += (per_atom * variance) ** 2 * 2.0 / (count - 1)
    return Anchoring(offset, squared**0.5, bias, variance**0.5, count)
