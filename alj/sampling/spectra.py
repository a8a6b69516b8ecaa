"""From one class of molecules to another, in the space of Coulomb-matrix spectra.

    s(x) = (λ(x) - P_a) · (P_b - P_a) / ‖P_b - P_a‖²

is 0 at the prototype P_a of one class and 1 at P_b of another; λ is the spectrum of the Coulomb
matrix (`potentials.coulomb_spectra`). Dynamics that is biased or steered along s leads from the
structures of one class to those of the other (ESOINN-DP).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from alj.potentials.coulomb_spectra import coulomb_spectrum
from alj.types import BadInput, Structure


def spectrum_progress(
    first: Float[np.ndarray, " length"], second: Float[np.ndarray, " length"]
) -> Callable:
    """s as a function of a structure. Raises BadInput for prototypes that do not differ."""
    if first.shape != second.shape or not np.any(first != second):
        raise BadInput(
            "class_difference: expected two different spectra of one length, found "
            f"{len(first)} and {len(second)} numbers"
        )
    along = (second - first) / np.sum((second - first) ** 2)

    def progress(structure: Structure, start=None):
        found = coulomb_spectrum(structure.positions, structure.species)[: len(first)]
        found = jnp.pad(found, (0, len(first) - found.shape[0]))
        origin, slope = (jnp.asarray(each, found.dtype) for each in (first, along))
        return jnp.sum((found - origin) * slope)

    return progress
