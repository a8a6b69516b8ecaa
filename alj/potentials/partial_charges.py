"""Partial charges that depend on the environment: a short-range network and the ions of another.

    E = Σ_i E_i + ½ Σ_{i≠j} q_i q_j k erf(r_ij / 2w)/r_ij,   q_i = q°_i + (Q - Σ_j q°_j)/N

with k = e²/4πε0. One network gives the short-range atomic energies E_i, a second one the raw
charges q°_i, which are all shifted alike so that they add up to the total charge Q of the N atoms.
The dipole is Σ q_i r_i, of ions with respect to the origin. Charges are Gaussian, of the width w:
the sum is finite at any distance and within 10⁻⁶ that of point charges beyond 7w; what is bonded is
the short-range network's to learn, and so is the energy of each charge with itself.

Charges are learned from labels of charges or dipoles (`charge_weight` and `dipole_weight` of
`training.gradient`), and from energies and forces in any case. The shift knows no distance: where
the raw charges of molecules far from each other do not add up to those of each, it moves charge
between them.

Molecules only: in a cell, even of one direction, there is no energy (NaN). Atomic energies are
affine in `readout`, the last weights of the short-range network; all weights of the other one
belong to `body`.

N. Artrith, T. Morawietz, J. Behler, Phys. Rev. B 83, 153101 (2011),
doi 10.1103/PhysRevB.83.153101; the equal shift and the dipoles: K. Yao, J. E. Herr, D. W. Toth,
R. Mckintyre, J. Parkhill, Chem. Sci. 9, 2261 (2018), doi 10.1039/C7SC04934J; Gaussian charges:
S. A. Ghasemi, A. Hofstetter, S. Saha, S. Goedecker, Phys. Rev. B 92, 045131 (2015),
doi 10.1103/PhysRevB.92.045131.
"""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alj import registry
from alj.potentials.bodies import BODIES, made_later
from alj.potentials.short_range import COULOMB
from alj.types import BadInput, Batch, Key, Params, Potential, Structure


class Charged(NamedTuple):
    """A description: those of both networks, and the Coulomb energy of each pair of unit charges
    in eV/e², which atoms there are, and their total charge in e."""

    network: Any
    charges: Any
    pairs: Float[Array, "*batch atoms atoms"]
    species: Int[Array, "*batch atoms"]
    total: Float[Array, "*batch"]


def partial_charges(
    species: tuple[int, ...],
    *,
    body: Annotated[Any, registry.Nested(lambda: BODIES)] = "ani",
    charges: Annotated[Any, registry.Nested(lambda: BODIES)] | None = None,
    width_A: float = 0.5,
) -> Potential:
    """A network for energies, one for partial charges, and the Coulomb energy of these.

    Molecules only: with a cell there is no energy (NaN). Dipoles and charges of a trained model are
    results of its calculator.

    Args:
        body: The potential of the short-range energies, with its settings.
        charges: The network of the charges, with its settings; null: one like the body.
        width_A: Width w of the Gaussian charges, in Å.

    Raises:
        BadInput: a setting is out of range.
    """
    if not (math.isfinite(width_A) and width_A > 0):
        raise BadInput(f"width_A must be a positive length in Å, found {width_A}")
    energies = made_later(BODIES, body, where="body")
    own = energies if charges is None else made_later(BODIES, charges, where="charges")
    return with_charges(energies(species), own(species), width_A)


def with_charges(body: Potential, network: Potential, width_A: float) -> Potential:
    """`body` for energies and `network` for charges; see `partial_charges`.

    Params: `body` and `constants` have a part `energies` and a part `charges`, the latter's readout
    with its body.
    """

    def init(key: Key) -> Params:
        one, other = jax.random.split(key)
        kinds = jnp.zeros(len(body.species))
        return _assembled(body.init(one), network.init(other), kinds, jnp.ones(()))

    @jax.jit
    def prepare(params, batches):
        mine = network.prepare(_charge_part(params), unlabeled(batches))
        zero, unit = _zeros_and_unit(network, mine, body.species, batches)
        wide = params["constants"]["zero"].dtype
        params = _assembled(_energy_part(params), mine, zero.astype(wide), unit.astype(wide))
        energies = body.prepare(_energy_part(params), difference(params, batches))
        return _assembled(energies, mine, *_ions(params))

    @jax.jit
    def rebase(params, batches):
        assert body.rebase is not None
        assert network.rebase is not None
        energies = body.rebase(_energy_part(params), difference(params, batches))
        own = network.rebase(_charge_part(params), unlabeled(batches))
        return _assembled(energies, own, *_ions(params))

    def describe(structure, neighbors):
        return Charged(
            body.describe(structure, neighbors),
            network.describe(structure, neighbors),
            coulomb_pairs(structure, width_A),
            structure.species,
            structure.charge.astype(structure.positions.dtype),
        )

    def charges(params, found: Charged):
        raw = network.evaluate(_charge_part(params), found.charges)
        zero, unit = (leaf.astype(raw.dtype) for leaf in _ions(params))
        kinds = jnp.stack([found.species == z for z in body.species], axis=1).astype(raw.dtype)
        real = found.species > 0
        raw = jnp.where(real, kinds @ zero + unit * raw, 0.0)
        left = (found.total - jnp.sum(raw)) / jnp.maximum(jnp.sum(real), 1)
        return jnp.where(real, raw + left.astype(raw.dtype), 0.0)

    def coulomb(params, found: Charged):
        q = charges(params, found)
        return jnp.where(found.species > 0, 0.5 * q * (found.pairs @ q), 0.0)

    def evaluate(params, found: Charged):
        return body.evaluate(_energy_part(params), found.network) + coulomb(params, found)

    def atomic_energies(params, structure, neighbors):
        return evaluate(params, describe(structure, neighbors))

    def difference(params, batches):
        """The batches with the Coulomb energy taken from their labels."""

        def one(pair):
            return jnp.sum(coulomb(params, describe(*pair)))

        def without(batch: Batch):
            taken = jax.lax.map(one, (batch.structures, batch.neighbors))
            labels = batch.labels
            return batch._replace(labels=labels._replace(energy=labels.energy - taken))

        return tuple(map(without, batches))

    return Potential(
        init=init,
        prepare=prepare,
        atomic_energies=atomic_energies,
        describe=describe,
        evaluate=evaluate,
        cutoff=max(body.cutoff, network.cutoff),
        hops=None,
        species=body.species,
        rebase=rebase if body.rebase and network.rebase else None,
        charges=charges,
    )


def coulomb_pairs(structure: Structure, width_A: float) -> Float[Array, "atoms atoms"]:
    """k erf(r/2w)/r in eV/e² of all pairs of atoms, 0 of an atom with itself; NaN in a cell.

    Where atoms coincide it is k/(w√π), without a direction.
    """
    positions, real = structure.positions, structure.species > 0
    vectors = positions[:, None] - positions[None]
    squares = jnp.sum(vectors * vectors, axis=-1)
    apart = squares > 0
    r = jnp.sqrt(jnp.where(apart, squares, 1.0))
    near = COULOMB / (width_A * math.sqrt(math.pi))
    bare = jnp.where(apart, COULOMB * jax.lax.erf(r / (2.0 * width_A)) / r, near)
    others = real[:, None] & real[None] & ~jnp.eye(len(real), dtype=bool)
    repeats = jnp.any(structure.cell != 0)
    return jnp.where(repeats, jnp.nan, jnp.where(others, bare, 0.0))


def unlabeled(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """The batches without energies: what has no unit of energy takes none from them."""

    def without(batch: Batch):
        energy = jnp.full_like(batch.labels.energy, jnp.nan)
        return batch._replace(labels=batch.labels._replace(energy=energy))

    return tuple(map(without, batches))


SPREADS = (0.02, 0.5)
"""Limits in e of how far charges of an element may lie apart at the beginning."""

USUAL_SPREAD = 0.1
"""The same where no charges are labeled."""


def _zeros_and_unit(network, params, species, batches):
    """The mean charge of each element, and the factor from the network's output to charges in e.

    The output's root mean square at the beginning becomes the spread of the labeled charges.
    """
    wide = jnp.result_type(float)
    labels, outputs, kinds, known = [], [], [], []
    for batch in batches:
        of = jnp.where(batch.weights[:, None] > 0, batch.structures.species, 0)
        found = jax.lax.map(
            lambda pair: network.atomic_energies(params, *pair),
            (batch.structures, batch.neighbors),
        )
        kinds.append(jnp.stack([of == z for z in species], axis=-1).reshape(-1, len(species)))
        has = jnp.isfinite(batch.labels.charges) & (of > 0)
        known.append(has.reshape(-1))
        labels.append(jnp.where(has, batch.labels.charges, 0.0).reshape(-1).astype(wide))
        outputs.append(found.reshape(-1).astype(wide))
    given, output = jnp.concatenate(labels), jnp.concatenate(outputs)
    there, has = jnp.concatenate(kinds), jnp.concatenate(known)
    mine = (there & has[:, None]).astype(wide)
    zero = given @ mine / jnp.maximum(jnp.sum(mine, axis=0), 1.0)
    apart = jnp.where(has, given - mine @ zero, 0.0)
    spread = jnp.sqrt(jnp.sum(apart**2) / jnp.maximum(jnp.sum(has), 1))
    spread = jnp.where(jnp.any(has), jnp.clip(spread, *SPREADS), USUAL_SPREAD)
    real = jnp.any(there, axis=1)
    size = jnp.sum(jnp.where(real, output, 0.0) ** 2) / jnp.maximum(jnp.sum(real), 1)
    return zero, jnp.where(size > 0, spread / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 1.0)


def _assembled(energies: Params, charges: Params, zero, unit) -> Params:
    own = {part: charges[part] for part in ("body", "readout")}
    return {
        "body": {"energies": energies["body"], "charges": own},
        "readout": energies["readout"],
        "constants": {
            "energies": energies["constants"],
            "charges": charges["constants"],
            "zero": zero,
            "unit": unit,
        },
    }


def _energy_part(params: Params) -> Params:
    return {
        "body": params["body"]["energies"],
        "readout": params["readout"],
        "constants": params["constants"]["energies"],
    }


def _charge_part(params: Params) -> Params:
    return {**params["body"]["charges"], "constants": params["constants"]["charges"]}


def _ions(params: Params):
    """The zeros of the elements and the unit, both in e."""
    return params["constants"]["zero"], params["constants"]["unit"]
