"""Potentials on top of a known one: a prior that repels, or a baseline whose difference is learned.

    E_i = network_i + Σ_p prior_p,i

A network says nothing sensible where it has no data, such as of atoms nearer than any it was
trained on, and a walk that finds a hole there falls in. With a short-range prior the network is
trained on the difference to it, and the wall stands whatever the network says. A cheap potential
as a baseline leaves the network less to learn.

Repulsion under a learned difference: J. Byggmästar, A. Hamedani, K. Nordlund, F. Djurabekova,
Phys. Rev. B 100, 144105 (2019), doi 10.1103/PhysRevB.100.144105.
"""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from alj.potentials.combine import PARTS, everything, sum_of
from alj.potentials.partial_charges import Charged
from alj.types import BadInput, Batch, HostKernel, Potential


class Corrected(NamedTuple):
    """A description: the network's own, and the atomic energies (eV) of what lies under it."""

    network: Any
    prior: Float[Array, "*batch atoms"]


def with_prior(network: Potential, *priors: Potential) -> Potential:
    """The sum of a network and of potentials that have nothing to train.

    Params are exactly the network's, so committees, features, warm starts and saved models know of
    no prior. It belongs to the description: it is computed once for all members, and once for a
    whole training where descriptions are. The network is prepared (its unit and zero of energy)
    on labels minus the prior's. A host kernel exists where every part has one.

    Raises BadInput for a prior that has parameters.

    >>> from alj.potentials import behler_parrinello, zbl
    >>> with_prior(behler_parrinello((8,), cutoff_A=4.0), zbl((8,), outer_A=1.5)).cutoff
    4.0
    """
    if not priors:
        return network
    if any(has_parameters(prior) for prior in priors):
        raise BadInput(
            "a prior has nothing to train: expected a classical potential, not a network"
        )
    both = sum_of(network, *priors)
    under = sum_of(*priors)
    nothing = {part: tuple({} for _ in priors) for part in PARTS}

    @jax.jit
    def difference(batches):
        return tuple(_minus(batch, under, nothing) for batch in batches)

    def atomic_energies(params, structure, neighbors):
        return network.atomic_energies(params, structure, neighbors) + under.atomic_energies(
            nothing, structure, neighbors
        )

    def environment_energies(params, env):
        assert network.environment_energies is not None
        assert under.environment_energies is not None
        return network.environment_energies(params, env) + under.environment_energies(nothing, env)

    def describe(structure, neighbors):
        energies = under.atomic_energies(nothing, structure, neighbors)
        return Corrected(network.describe(structure, neighbors), energies)

    def describe_environment(env):
        assert network.describe_environment is not None
        assert under.environment_energies is not None
        energies = under.environment_energies(nothing, env)
        return Corrected(network.describe_environment(env), energies)

    def on_difference(fit):
        return fit and (lambda params, batches: fit(params, difference(batches)))

    local, parts = both.environment_energies is not None, network.networks
    return both._replace(
        init=network.init,
        prepare=on_difference(network.prepare),
        rebase=on_difference(network.rebase),
        atomic_energies=atomic_energies,
        describe=describe,
        evaluate=lambda params, found: network.evaluate(params, found.network) + found.prior,
        environment_energies=environment_energies if local else None,
        describe_environment=describe_environment if local else None,
        kernel=_kernel(network, priors),
        networks=parts and parts._replace(body=with_prior(parts.body, *priors)),
        # What has no weights adds nothing to derivatives with respect to weights, nor to doubts.
        readout_rows=network.readout_rows,
        variances=network.variances,
        charges=_charges(network),
    )


def has_parameters(potential: Potential) -> bool:
    """Whether there is anything to train, or to take from data, in a potential."""
    return bool(jax.tree.leaves(jax.eval_shape(lambda: potential.init(jax.random.key(0)))))


def without_prior(description: Any) -> Any:
    """The network's own part of a description: what tells atoms apart, free of energies."""
    if isinstance(description, Corrected):
        description = description.network
    return description.network if isinstance(description, Charged) else description


def _minus(batch: Batch, under: Potential, nothing) -> Batch:
    """The batch with the energies, forces and stress of `under` taken from its labels."""
    labels = batch.labels

    def one(pair):
        return everything(under, nothing, *pair)

    energy, forces, stress, atomic = jax.lax.map(one, (batch.structures, batch.neighbors))
    return batch._replace(
        labels=labels._replace(
            energy=labels.energy - energy,
            forces=labels.forces - forces,
            stress=labels.stress - stress,
            atomic_energies=labels.atomic_energies - atomic,
        )
    )


def _charges(network: Potential):
    charges = network.charges
    return charges and (lambda params, found: charges(params, found.network))


def _kernel(network: Potential, priors: tuple[Potential, ...]):
    kernels = [potential.kernel for potential in (network, *priors)]
    if any(kernel is None for kernel in kernels):
        return None

    def build() -> HostKernel:
        from alj.potentials.pair_kernels import summed_kernel

        total = summed_kernel([kernel() for kernel in kernels if kernel is not None])
        empty = [{part: {} for part in PARTS}] * len(priors)
        return total._replace(arrays=lambda params: total.arrays([params, *empty]))

    return build
