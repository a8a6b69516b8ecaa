"""Sparse Gaussian process on power spectra of surroundings (SOAP): a kernel potential.

Atomic energies are E_i = e_Z + f_Z(p_i) with e_Z constant and f_Z a Gaussian process for each
element, of covariance k(p, p') = δ² (p·p')^ζ. It is represented by inducing points p_m, chosen
among the surroundings in the training data: with K_MM = L Lᵀ + jitter between them,

    f(p) = Σ_m w_m φ_m(p),    φ(p) = L⁻¹ k_M(p),    w ~ N(0, 1),

so that the weights w, the readout, have a prior of unit variance whatever the inducing points, and
a fit is a well-scaled linear regression (`training.bayesian_regression`). From the posterior
covariance (RᵀR)⁻¹ of w follows the predictive variance of a sum Σ_i E_i,

    φᵀ (RᵀR)⁻¹ φ + Σ_i [δ² - |φ(p_i)|²],   φ = Σ_i φ(p_i),

where the second part, of what no inducing point represents, is taken as independent atom by atom
(FITC); of forces the first part.

A. P. Bartók, M. C. Payne, R. Kondor and G. Csányi, Phys. Rev. Lett. 104, 136403 (2010),
doi 10.1103/PhysRevLett.104.136403; J. Quiñonero-Candela and C. E. Rasmussen, J. Mach. Learn.
Res. 6, 1939 (2005) (sparse approximations); V. L. Deringer et al., Chem. Rev. 121, 10073 (2021),
doi 10.1021/acs.chemrev.1c00022.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.geometry.environment import environment
from alj.potentials.atomistic import EnergyUnit, energy_scale_and_shift
from alj.potentials.blocks import by_blocks
from alj.potentials.combine import local
from alj.potentials.elements import ByElement, by_element
from alj.potentials.inducing_points import cur, farthest
from alj.potentials.kernel_rows import Kernel, kernel_rows
from alj.potentials.soap import one_hot, power_spectra, soap
from alj.types import BadInput, Params, Potential, ReadoutRows, Variances

JITTER = 1e-10
"""Added to the unit diagonal of K_MM/δ²; what is below it cannot be told apart in float64."""

CANDIDATES = 20_000
"""Surroundings among which inducing points are chosen at most; of more, evenly spaced ones."""


def gaussian_process(
    species: tuple[int, ...],
    *,
    cutoff_A: float = 6.5,
    transition_A: float = 0.5,
    atom_sigma_A: float = 0.825,
    n_max: int = 8,
    l_max: int = 6,
    zeta: int = 4,
    delta_eV: float = 1.0,
    inducing_points: int = 400,
    inducing: Literal["farthest", "cur"] = "cur",
) -> Potential:
    """Sparse Gaussian process on SOAP power spectra; train it with `bayesian_regression`.

    Args:
        cutoff_A: atoms further away are not seen, in Å.
        transition_A: the density fades over this stretch before the cutoff, in Å.
        atom_sigma_A: width of the Gaussian that stands for an atom, in Å.
        n_max: radial functions.
        l_max: largest degree of the spherical harmonics.
        zeta: power of the kernel.
        delta_eV: standard deviation of the atomic energies before any data, in eV.
        inducing_points: of each element.
        inducing: "farthest" points, or "cur": those least represented by the ones before (pivoted
            Cholesky decomposition of the kernel matrix).

    Raises BadInput for settings out of range.
    """
    if zeta < 1 or not delta_eV > 0 or inducing_points < 1:
        raise BadInput(
            "expected zeta of at least 1, a positive delta_eV and at least 1 of inducing_points; "
            f"found {zeta}, {delta_eV} and {inducing_points}"
        )
    about = soap(
        species, cutoff_A=cutoff_A, transition_A=transition_A, sigma_A=atom_sigma_A, n_max=n_max,
        l_max=l_max,
    )  # fmt: skip
    kernel = Kernel(about, zeta, delta_eV)
    spectra = by_blocks(partial(power_spectra, about))
    points = (inducing_points, cur if inducing == "cur" else farthest)

    def describe(env):
        return ByElement(spectra(env), one_hot(about, env.species, bool))

    def energies_of(kind, inducing_and_weights, spectra):
        inducing, weights = inducing_and_weights
        return (spectra @ inducing[kind].T) ** zeta @ weights[kind]

    functions = [partial(energies_of, kind) for kind in range(len(species))]

    def evaluate(params, description):
        dtype = description.inputs.dtype
        constants = jax.tree.map(lambda leaf: leaf.astype(dtype), params["constants"])
        weights = _weights(kernel, params).astype(dtype)

        kinds = description.of.astype(dtype)
        energies = by_element(description, functions, (constants["inducing"], weights))
        return energies + kinds @ constants["shift"]

    @jax.jit
    def prepare(params, batches):
        return _prepared(kernel, points, describe, params, batches)

    potential = local(
        lambda params, env: evaluate(params, describe(env)),
        cutoff=cutoff_A,
        init=lambda key: _initial(key, len(species), inducing_points, about.width),
        prepare=prepare,
        species=species,
        describe=describe,
        evaluate=evaluate,
    )
    return potential._replace(
        readout_rows=partial(kernel_rows, kernel), variances=partial(_variances, kernel, describe)
    )


def _weights(kernel: Kernel, params: Params) -> Float[Array, "species points"]:
    """Coefficients of the kernels, δ² L⁻ᵀ w/δ, in the precision of the parameters."""
    whiten, own = params["constants"]["whiten"], params["readout"]["weights"]
    return kernel.delta * jnp.einsum("sab,sb->sa", whiten, own)


def _initial(key, kinds, points, width):
    """A draw from the prior; inducing points come with the data."""
    total = kinds * points
    return {
        "body": {},
        "readout": {"weights": jax.random.normal(key, (kinds, points))},
        "constants": {
            "inducing": jnp.zeros((kinds, points, width)),
            "whiten": jnp.zeros((kinds, points, points)),
            "posterior": jnp.eye(total),
            "shift": jnp.zeros(kinds),
        },
    }


def _prepared(kernel: Kernel, points, describe, params, batches):
    about = kernel.soap
    count, choose = points
    rows, kinds = _surroundings(kernel, describe, batches)
    # Each element's points, and L⁻ᵀ of K_MM = L Lᵀ.
    inducing, whiten = [], []
    for kind in range(len(about.species)):
        chosen = choose(rows, kinds == kind, count, kernel.zeta)
        overlaps = (chosen @ chosen.T) ** kernel.zeta
        # Points beyond the number of surroundings are 0, and are given no say.
        there = jnp.sum(chosen * chosen, axis=1) > 0
        lower = jnp.linalg.cholesky(
            jnp.where(there[:, None] & there[None], overlaps, 0.0)
            + jnp.diag(jnp.where(there, JITTER, 1.0))
        )
        inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(count), lower=True)
        inducing.append(chosen)
        whiten.append(jnp.where(there[:, None] & there[None], inverse.T, 0.0))
    unit = EnergyUnit(1e-3, 1e3)
    _, shift = energy_scale_and_shift(batches, about.species, unit, jnp.result_type(float))
    new = {"inducing": jnp.stack(inducing), "whiten": jnp.stack(whiten), "shift": shift}
    old = params["constants"]
    new = {name: new[name].astype(old[name].dtype) for name in new}
    return {**params, "constants": {**old, **new}}


def _surroundings(kernel: Kernel, describe, batches):
    """Power spectra of at most `CANDIDATES` atoms, and the element of each (-1: padding)."""
    species = jnp.asarray(kernel.soap.species)
    total = sum(batch.structures.species.size for batch in batches)
    stride = -(-total // CANDIDATES)
    rows, kinds = [], []
    for batch in batches:

        def one(pair):
            structure, neighbors = pair
            env = environment(structure, neighbors, kernel.soap.cutoff)
            return describe(env).inputs[::stride]

        found = jax.lax.map(one, (batch.structures, batch.neighbors))
        of = jnp.where(batch.weights[:, None] > 0, batch.structures.species, 0)[:, ::stride]
        own = of[..., None] == species[None, None]
        kinds.append(jnp.where(jnp.any(own, axis=-1), jnp.argmax(own, axis=-1), -1).ravel())
        rows.append(found.reshape(-1, found.shape[-1]))
    return jnp.concatenate(rows).astype(jnp.result_type(float)), jnp.concatenate(kinds)


def _variances(kernel: Kernel, describe, params, structure, neighbors) -> Variances:
    """Of the energy (eV²), of atomic energies (eV²) and of force components (eV/Å)²."""
    rows: ReadoutRows = kernel_rows(kernel, params, structure, neighbors)
    upper = params["constants"]["posterior"].astype(rows.energy.dtype)
    atomic = rows.atomic
    missing = kernel.delta**2 - jnp.sum(atomic * atomic, axis=1)
    missing = jnp.where(structure.species > 0, jnp.maximum(missing, 0.0), 0.0)

    def explained(phi):
        flat = phi.reshape(-1, phi.shape[-1])
        solved = jax.scipy.linalg.solve_triangular(upper, flat.T, trans="T", lower=False)
        return jnp.sum(solved * solved, axis=0).reshape(phi.shape[:-1])

    return Variances(
        explained(rows.energy[None])[0] + jnp.sum(missing),
        explained(atomic) + missing,
        explained(rows.forces),
    )
