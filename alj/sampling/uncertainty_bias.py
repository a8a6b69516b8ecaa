"""Dynamics drawn to where a network is in doubt: its uncertainty, times a strength, is a bias.

    U(x) = -τ σ(x),  or with a cap  U(x) = -C [1 - exp(-τ σ(x)/C)]

σ is the standard deviation over the members (ddof 1) of the energy, or the root of the mean over
atoms of the squared deviations of the forces; or, of one network as well as of several, the
standard deviation that the Fisher information A of the training set leaves to the energy,
[L gᵀ A⁻¹ g]^½ with g = ∂E/∂w of the last weights and L the mean squared residual of the training
energies (the mean square over members). What is explored is not an ensemble of any potential:
frames are candidates for labels, their weights in the canonical ensemble are exp(U/kT). Without a
cap the bias grows as fast as the uncertainty and may break molecules, where σ has no bound.

C. van der Oord, M. Sachs, D. P. Kovács, C. Ortner, G. Csányi, npj Comput. Mater. 9, 168 (2023),
doi:10.1038/s41524-023-01104-6; V. Zaverkin, D. Holzmüller, H. Christiansen, F. Errica, F. Alesiani,
M. Takamoto, M. Niepert, J. Kästner, npj Comput. Mater. 10, 83 (2024),
doi:10.1038/s41524-024-01254-1. The cap is ours.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.potentials import combine
from alj.sampling.biasing import Dynamics, biased
from alj.sampling.dynamics_settings import positive
from alj.types import BadInput, Bias, Potential, Sampler


class Doubt(NamedTuple):
    """What a frame shows: the spread in eV (of forces: eV/Å), and the energy of the bias in eV."""

    spread: Float[Array, "*batch"]
    bias_energy: Float[Array, "*batch"]


def uncertainty_bias(
    potential: Potential,
    *,
    strength: float = 1.0,
    of: Literal["energy", "forces", "fisher"] = "energy",
    cap_eV: float | None = None,
    dynamics: Dynamics = "nvt_langevin",
) -> Sampler:
    """Dynamics on the mean of a committee minus its uncertainty: where it is in doubt, it goes.

    Args:
        strength: eV of bias for each eV of spread of the energy (or eV/Å of that of forces).
        of: What the members disagree on: the "energy" of the structure, whose spread grows as the
            root of the number of atoms, or the "forces", averaged over the atoms; these take
            second derivatives, some four times the time. "fisher" is what the labels leave unknown
            of the energy, and needs no committee (in campaigns only, which know the labels).
        cap_eV: The bias levels off at this depth; null for no limit.
        dynamics: The dynamics that is biased, with its settings.

    Raises:
        BadInput: a setting is out of range, the potential is not the mean of a committee, or (by
            the first step) the committee has a single member.
    """
    positive(strength=strength)
    if cap_eV is not None:
        positive(cap_eV=cap_eV)
    member = potential.member
    if member is None:
        raise BadInput("uncertainty_bias: expected the mean of a committee, found one potential")
    spread = {"energy": _energy_spread, "forces": _force_spread, "fisher": _unknown}[of](member)

    def depth(context, structure, neighbors):
        if of != "fisher" and combine.members(context.params) < 2:
            raise BadInput(
                "uncertainty_bias: expected a committee of at least 2 members, found one; "
                "use explore_with: mean and members: 2 or more, or of: fisher"
            )
        disagreement = spread(context, structure, neighbors)
        bias = strength * disagreement
        return disagreement, -(bias if cap_eV is None else -cap_eV * jnp.expm1(-bias / cap_eV))

    def energy(context, state, structure, neighbors):
        return depth(context, structure, neighbors)[1]

    def observe(context, state, structure, neighbors):
        return Doubt(*depth(context, structure, neighbors))

    bias = Bias(lambda context, structure: (), energy, lambda context, state, *_: state)
    sampler = biased(potential, bias, dynamics, observe)._replace(ensemble=None)
    return sampler._replace(targets=("information",) if of == "fisher" else ())


def _energy_spread(member: Potential) -> Callable:
    def spread(context, structure, neighbors):
        described = member.describe(structure, neighbors)
        atoms = jax.vmap(member.evaluate, (0, None))(context.params, described)
        return _root(_variance(jnp.sum(atoms, axis=-1)))

    return spread


def _force_spread(member: Potential) -> Callable:
    def spread(context, structure, neighbors):
        _, forces = combine.member_energies_and_forces(member, context.params, structure, neighbors)
        atoms = jnp.maximum(jnp.sum(structure.species > 0), 1)
        return _root(jnp.sum(_variance(forces)) / atoms)

    return spread


def _unknown(member: Potential) -> Callable:
    def spread(context, structure, neighbors):
        if context.targets is None or "information" not in context.targets:
            raise BadInput(
                "uncertainty_bias: of: fisher needs the training set, which only a campaign knows; "
                "use of: energy here, with a committee"
            )
        lower, noise = context.targets["information"]

        def one(params, lower, noise):
            row = combine.last_layer_features(member, params, structure, neighbors)
            solved = jax.scipy.linalg.solve_triangular(lower, row.astype(lower.dtype), lower=True)
            return noise * jnp.sum(solved * solved)

        return _root(jnp.mean(jax.vmap(one)(context.params, lower, noise)))

    return spread


def _variance(values: Float[Array, "members *shape"]) -> Float[Array, "*shape"]:
    mean = jnp.mean(values, axis=0, keepdims=True)
    return jnp.sum((values - mean) ** 2, axis=0) / (values.shape[0] - 1)


def _root(square):
    """The root, with gradient 0 (not NaN) where the members agree."""
    zero = square <= 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))
