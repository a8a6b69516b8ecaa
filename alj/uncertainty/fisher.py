"""Fisher information of the last weights: what a label would teach a network linear in them.

The energy is affine in the readout weights w, with the slope g = ∂E/∂w; of the forces the rows
G = -∂g/∂R. The information of labels is the sum of their outer products,

    A_E = Σ g gᵀ + λ,    A_F = Σ Gᵀ G + λ,    λ = ε tr(Σ …)/d

over the training set; λ is the prior without which fewer labels than weights could not be inverted.
With q = gᵀ A⁻¹ g (of forces: row by row) a label at x is expected to lower the variance by

    (L/N) q/(1+q)

L being the mean squared residual of N training structures (eq. 14 of the paper). QS1 ranks by the
q of the energy, which q/(1+q) follows; QS2 by the mean of q/(1+q) over the 3N rows of the forces
(eq. 21). Of K random signs s over all coordinates, sᵀG stands for the rows: the mean of its q over
K is the sum of the rows' q without bias, K passes instead of 3N.

V. Zaverkin and J. Kästner, Mach. Learn.: Sci. Technol. 2, 035009 (2021),
doi 10.1088/2632-2153/abe294; M. F. Hutchinson, Commun. Stat. Simul. Comput. 19, 433 (1990),
doi 10.1080/03610919008812866 (random signs).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from alj.potentials.combine import energy, last_layer_features
from alj.types import BadInput, Key, Neighbors, Params, Potential, Structure

PRIOR = 1e-6
"""ε of the module's formula; rankings hold from 1e-8 to 1e-4."""

SIGNS = 8
"""Random directions of a sketch."""


class Fisher(NamedTuple):
    """The information of a training set, A = lower lowerᵀ in float64.

    `prior` is λ; `rank` counts the directions in which the labels say more than the prior.
    """

    lower: Float[np.ndarray, "weights weights"]
    prior: float
    rank: int


def fisher(information: Float[np.ndarray, "weights weights"], *, prior: float = PRIOR) -> Fisher:
    """The factor of Σ g gᵀ + λ, with λ = prior · tr(Σ g gᵀ)/weights.

    Raises BadInput where the information is not finite, or nothing at all.
    """
    information = np.asarray(information, np.float64)
    width = len(information)
    if not np.all(np.isfinite(information)):
        raise BadInput(
            "Fisher matrix: expected finite numbers, found NaN or infinite ones; the model was "
            "not trained to an end, or a structure of the training set has atoms on top of each "
            "other"
        )
    trace = float(np.trace(information))
    if not trace > 0:
        raise BadInput(
            "Fisher matrix: it is zero, no label says anything of the last weights; expected a "
            "trained model and at least one structure of its training set"
        )
    if not prior > 0:
        raise BadInput(f"prior: expected a positive number, found {prior}")
    level = prior * trace / width
    rank = int(np.sum(np.linalg.eigvalsh(information) > level))
    lower = scipy.linalg.cholesky(information + level * np.eye(width), lower=True)
    return Fisher(lower, level, rank)


def no_readout(potential: Potential, params: Params) -> BadInput | None:
    """The refusal of a potential without last weights, None where there are some."""
    if jax.tree.leaves(params["readout"]):
        return None
    return BadInput(
        "Fisher scores need last weights that were trained: this potential has none (an empty "
        "readout); use a network, or a committee's spread"
    )


def variances(
    lower: Float[Array, "weights weights"], rows: Float[Array, "*rows weights"]
) -> Float[Array, "*rows"]:
    """q = gᵀ A⁻¹ g of every row g, by a triangular solve in the precision of `lower`."""
    flat = rows.reshape(-1, rows.shape[-1]).astype(lower.dtype)
    solved = jax.scipy.linalg.solve_triangular(lower, flat.T, lower=True)
    return jnp.sum(solved * solved, axis=0).reshape(rows.shape[:-1])


def energy_row(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, " weights"]:
    """g = ∂E/∂w of one structure, in eV per unit of the weights."""
    if potential.readout_rows is not None:
        return potential.readout_rows(params, structure, neighbors).energy
    return last_layer_features(potential, params, structure, neighbors)


def atomic_rows(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, "atoms weights"]:
    """∂E_i/∂w of every atom; their sum is `energy_row`."""
    if potential.readout_rows is not None:
        return potential.readout_rows(params, structure, neighbors).atomic
    described = potential.describe(structure, neighbors)

    def energies(readout):
        return potential.evaluate({**params, "readout": readout}, described)

    slopes = jax.jacrev(energies)(params["readout"])
    return jax.vmap(lambda row: ravel_pytree(row)[0])(slopes)


def force_rows(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, "coordinates weights"]:
    """-∂g/∂R of one structure, a row for each coordinate (x, y, z of the first atom, …), per Å.

    One tangent a coordinate: with many more weights than coordinates of a molecule, the shorter
    way round.
    """
    if potential.readout_rows is not None:
        found = potential.readout_rows(params, structure, neighbors).forces
        return found.reshape(-1, found.shape[-1])

    def slopes(positions):
        moved = structure._replace(positions=positions)
        return energy_row(potential, params, moved, neighbors)

    found = jax.jacfwd(slopes)(structure.positions)
    return -found.reshape(found.shape[0], -1).T


def random_signs(key: Key, count: int, atoms: int) -> Float[Array, "count atoms 3"]:
    """Random signs for `sketched_rows`: ±1 for every coordinate."""
    return jax.random.rademacher(key, (count, atoms, 3), jnp.result_type(float))


def sketched_rows(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: Neighbors,
    signs: Float[Array, "count atoms 3"],
) -> Float[Array, "count weights"]:
    """sᵀG for each set of signs, `force_rows` never being formed."""

    def slopes(positions):
        moved = structure._replace(positions=positions)
        return energy_row(potential, params, moved, neighbors)

    _, push = jax.linearize(slopes, structure.positions)
    return -jax.vmap(push)(signs.astype(structure.positions.dtype))


def force_scores(
    lower: Float[Array, "weights weights"],
    rows: Float[Array, "coordinates weights"],
    coordinates: Float[Array, ""] | int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and maximum of q/(1+q) over the coordinates of a structure (eq. 21 without L/N).

    Rows of padding are 0 and add nothing; `coordinates` counts the others.
    """
    q = variances(lower, rows)
    saturated = q / (1.0 + q)
    return jnp.sum(saturated) / coordinates, jnp.max(saturated)


def sketched_score(
    lower: Float[Array, "weights weights"],
    rows: Float[Array, "count weights"],
    coordinates: Float[Array, ""] | int,
) -> Float[Array, ""]:
    """An estimate of the mean of q over the coordinates, from `sketched_rows`."""
    return jnp.mean(variances(lower, rows)) / coordinates


def projected_gradient(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors, directions
) -> Float[Array, " count"]:
    """The derivative of the energy per atom along directions in the space of all trained weights.

    `directions` are trees like body and readout with a leading axis: of normal deviates divided by
    the root of their count, scalar products of the results estimate those of whole gradients (the
    tangent kernel). D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, J. Mach. Learn. Res. 24,
    164 (2023), arXiv:2203.09410.
    """
    atoms = jnp.maximum(jnp.sum(structure.species > 0), 1)
    trained = {"body": params["body"], "readout": params["readout"]}

    def per_atom(trained):
        return energy(potential, {**params, **trained}, structure, neighbors) / atoms

    _, push = jax.linearize(per_atom, trained)
    return jax.vmap(push)(directions)


def gradient_directions(key: Key, params: Params, count: int):
    """Random directions for `projected_gradient`, for the params of one member."""
    trained = {"body": params["body"], "readout": params["readout"]}
    leaves, tree = jax.tree.flatten(trained)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(
        [
            jax.random.normal(one, (count, *leaf.shape), leaf.dtype) / np.sqrt(count)
            for one, leaf in zip(keys, leaves, strict=True)
        ]
    )
