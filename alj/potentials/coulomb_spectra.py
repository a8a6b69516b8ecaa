"""Spectra of Coulomb matrices: molecules of any size as vectors of one length.

    C_ii = 0.5 Z_i^2.4,   C_ij = Z_i Z_j / |R_i - R_j|,   distances in bohr

The eigenvalues of C by falling |λ|, filled up with zeros, change under none of translation,
rotation, reflection and the order of atoms. M. Rupp, A. Tkatchenko, K.-R. Müller, O. A. von
Lilienfeld, Phys. Rev. Lett. 108, 058301 (2012), doi:10.1103/PhysRevLett.108.058301. The length is
that of the largest molecule of a set, so that one spectrum serves a set of many compositions.

Molecules only: cells are not looked at.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alj.arrays import double_precision, safe_norm
from alj.types import BadInput

BOHR = 0.529177210903
"""One bohr in Å (CODATA 2018)."""

CHUNK = 2048
"""Molecules that are diagonalized at once by `coulomb_spectra`."""


def coulomb_matrix(
    positions: Float[Array, "atoms 3"], species: Int[Array, " atoms"]
) -> Float[Array, "atoms atoms"]:
    """The matrix C of the module's formula; rows and columns of padding (species 0) are 0."""
    charges = species.astype(positions.dtype)
    own = jnp.eye(len(species), dtype=bool)
    absent = own | (species[:, None] == 0) | (species[None, :] == 0)
    vectors = positions[:, None, :] - positions[None, :, :]
    # Padded atoms may lie anywhere, on others too.
    vectors = jnp.where(absent[:, :, None], jnp.ones((), positions.dtype), vectors)
    lengths = safe_norm(vectors) / BOHR
    pairs = jnp.where(absent, 0.0, charges[:, None] * charges[None, :] / lengths)
    return pairs + jnp.diag(0.5 * jnp.where(species == 0, 0.0, charges**2.4))


def coulomb_spectrum(
    positions: Float[Array, "atoms 3"], species: Int[Array, " atoms"]
) -> Float[Array, " atoms"]:
    """Eigenvalues of one molecule's Coulomb matrix by falling |λ|, zeros for padding at the end.

    May be differentiated once: dλ = vᵀ dC v. Where eigenvalues coincide, v is one basis of their
    space, so that sums over equal eigenvalues have the right derivative, and each a finite one.
    """
    values = _eigenvalues(coulomb_matrix(positions, species))
    order = jnp.argsort(-jnp.abs(jax.lax.stop_gradient(values)), stable=True)
    # The eigenvalues of padding are 0 up to rounding; here they become it.
    real = jnp.arange(len(species)) < jnp.sum(species > 0)
    return jnp.where(real, values[order], 0.0)


def coulomb_spectra(
    positions: Float[Array | np.ndarray, "structures atoms 3"],
    species: Int[Array | np.ndarray, "structures atoms"],
    *,
    length: int,
) -> Float[np.ndarray, "structures length"]:
    """Spectra of many padded molecules in float64 (host), in chunks of constant shape.

    Args:
        positions: In Å.
        species: Atomic numbers, 0 pads.
        length: Length of a spectrum: the largest atom count of the set.

    Raises:
        BadInput: a molecule has more atoms than `length`, or two of its atoms coincide.
    """
    positions, species = np.asarray(positions, np.float64), np.asarray(species)
    largest = int(np.max(np.sum(species > 0, axis=1), initial=0))
    if largest > length:
        raise BadInput(
            f"Coulomb spectra: expected at most {length} atoms, found {largest}; the length of "
            "spectra is fixed by the largest molecule of the first set, so start with a larger one"
        )
    spectra = np.zeros((len(species), length))
    kept, size = min(length, species.shape[1]), min(CHUNK, len(species))
    for start in range(0, len(species), max(size, 1)):
        # The last chunk reaches back, so that one program serves all.
        rows = slice(min(start, len(species) - size), min(start, len(species) - size) + size)
        with double_precision():
            found = _spectra(jnp.asarray(positions[rows]), jnp.asarray(species[rows]))
            spectra[rows, :kept] = np.asarray(found)[:, :kept]
    wrong = np.flatnonzero(~np.all(np.isfinite(spectra), axis=1))
    if len(wrong):
        raise BadInput(
            f"Coulomb spectra: expected atoms that lie apart, found structure {wrong[0]} with "
            "atoms in one place or positions that are not numbers; leave it out"
        )
    return spectra


@jax.custom_jvp
def _eigenvalues(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    return jnp.linalg.eigvalsh(matrix)


@_eigenvalues.defjvp
def _eigenvalues_jvp(primals, tangents):
    """Without derivatives of eigenvectors, which divide by differences of eigenvalues."""
    values, vectors = jnp.linalg.eigh(primals[0])
    return values, jnp.einsum("ji,jk,ki->i", vectors, tangents[0], vectors)


_spectra = jax.jit(jax.vmap(coulomb_spectrum))
