"""Residuals and losses on energies, forces, stress, charges and dipoles that labels give.

    L = w_E <(ΔE/N u_E)²> + w_F <(ΔF/u_F)²> + w_S <(Δσ/u_S)²> + w_q <(Δq/u_q)²> + w_μ <(Δμ/u_μ)²>

Each mean runs over what is labeled, weighted by the structures' weights; u are the units in which
errors are measured. A label of NaN, a padded atom and a padded structure contribute neither value
nor gradient: they are replaced *before* the subtraction, because 0 · NaN is NaN. The dipole of an
ion depends on the origin, which no two programs choose alike: it does not count either.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alj.types import Batch, Labels, Structure


class Prediction(NamedTuple):
    """What a potential says of one structure; None where it was not asked.

    `energy` eV, `forces` eV/Å, `stress` eV/Å^3, `charges` e, `dipole` e Å.
    """

    energy: Float[Array, "*batch"]
    forces: Float[Array, "*batch atoms 3"] | None = None
    stress: Float[Array, "*batch 3 3"] | None = None
    charges: Float[Array, "*batch atoms"] | None = None
    dipole: Float[Array, "*batch 3"] | None = None


class Residuals(NamedTuple):
    """Prediction minus label, 0 where there is no label; `has_…` says where there is one.

    `energy` eV per atom, `forces` eV/Å, `stress` eV/Å^3, `charges` e, `dipole` e Å; None for what
    was not predicted.
    """

    energy: Float[Array, "*batch"]
    forces: Float[Array, "*batch atoms 3"] | None
    stress: Float[Array, "*batch 3 3"] | None
    has_energy: Bool[Array, "*batch"]
    has_forces: Bool[Array, "*batch atoms 3"] | None
    has_stress: Bool[Array, "*batch 3 3"] | None
    charges: Float[Array, "*batch atoms"] | None = None
    dipole: Float[Array, "*batch 3"] | None = None
    has_charges: Bool[Array, "*batch atoms"] | None = None
    has_dipole: Bool[Array, "*batch 3"] | None = None


class Emphasis(NamedTuple):
    """One number each for energy, forces, stress, charges and dipole: weights, units or errors."""

    energy: Float[Array, ""] | float = 1.0
    forces: Float[Array, ""] | float = 0.0
    stress: Float[Array, ""] | float = 0.0
    charges: Float[Array, ""] | float = 0.0
    dipole: Float[Array, ""] | float = 0.0


QUANTITIES = Emphasis._fields
"""What can be fitted."""


class Sums(NamedTuple):
    """Weighted sums of squared residuals, and the weights they are to be divided by.

    Sums of several batches add up (`jax.tree.map(jnp.add, ...)`).
    """

    squares: Emphasis
    counts: Emphasis


NO_SUMS = Sums(Emphasis(0.0), Emphasis(0.0))
"""Where adding begins."""


def residuals(prediction: Prediction, labels: Labels, structure: Structure) -> Residuals:
    """Residuals of one structure."""
    real = structure.species > 0
    atoms = jnp.maximum(jnp.sum(real), 1)
    some = jnp.any(real)

    def difference(predicted, label, there):
        has = ~jnp.isnan(label) & there
        return jnp.where(has, predicted - jnp.where(has, label, 0.0), 0.0), has

    energy, has_energy = difference(prediction.energy, labels.energy, some)
    forces = has_forces = stress = has_stress = None
    if prediction.forces is not None:
        forces, has_forces = difference(prediction.forces, labels.forces, real[:, None])
    if prediction.stress is not None:
        stress, has_stress = difference(prediction.stress, labels.stress, some)
    charges = has_charges = dipole = has_dipole = None
    if prediction.charges is not None:
        charges, has_charges = difference(prediction.charges, labels.charges, real)
    if prediction.dipole is not None:
        neutral = some & (structure.charge == 0)
        dipole, has_dipole = difference(prediction.dipole, labels.dipole, neutral)
    return Residuals(
        energy / atoms, forces, stress, has_energy, has_forces, has_stress,
        charges, dipole, has_charges, has_dipole,
    )  # fmt: skip


def batch_residuals(predictions: Prediction, batch: Batch) -> Residuals:
    """Residuals of every structure of a batch."""
    return jax.vmap(residuals)(predictions, batch.labels, batch.structures)


def sums(found: Residuals, weights: Float[Array, " batch"]) -> Sums:
    """Sums over a batch; a structure of weight 0 does not count, nor what was not predicted."""

    def parts(values, has):
        if values is None:
            return 0.0, 0.0
        spread = weights.reshape((-1,) + (1,) * (values.ndim - 1)) * has
        counted = spread > 0
        squares = jnp.where(counted, values, 0.0) ** 2
        return jnp.sum(spread * squares), jnp.sum(spread)

    pairs = (
        parts(found.energy, found.has_energy),
        parts(found.forces, found.has_forces),
        parts(found.stress, found.has_stress),
        parts(found.charges, found.has_charges),
        parts(found.dipole, found.has_dipole),
    )
    return Sums(*(Emphasis(*each) for each in zip(*pairs, strict=True)))


def structure_sums(
    found: Residuals, weights: Float[Array, " batch"], atoms: Float[Array, " batch"]
) -> Sums:
    """The sums of the loss of the ANI papers: a mean over structures, in eV and Å.

        w_E <(ΔE)²/√N> + w_F <|ΔF|²/N> + w_S <|Δσ|²> + w_q <|Δq|²/N> + w_μ <|Δμ|²>

    N atoms; |ΔF|² is summed over atoms and components. J. S. Smith et al., Chem. Sci. 8, 3192
    (2017), doi 10.1039/C6SC05720A; the forces as in TorchANI, doi 10.1021/acs.jcim.0c00451.
    """

    def parts(values, has, factor):
        if values is None:
            return 0.0, 0.0
        inner = tuple(range(1, values.ndim))
        there = (weights > 0) & jnp.any(has, axis=inner)
        counted = has & (weights > 0).reshape((-1,) + (1,) * len(inner))
        squares = jnp.sum(jnp.where(counted, values, 0.0) ** 2, axis=inner)
        return jnp.sum(weights * factor * squares), jnp.sum(jnp.where(there, weights, 0.0))

    # The residual of the energy is one per atom: (ΔE)²/√N = (ΔE/N)² N^(3/2).
    pairs = (
        parts(found.energy, found.has_energy, atoms**1.5),
        parts(found.forces, found.has_forces, 1.0 / atoms),
        parts(found.stress, found.has_stress, 1.0),
        parts(found.charges, found.has_charges, 1.0 / atoms),
        parts(found.dipole, found.has_dipole, 1.0),
    )
    return Sums(*(Emphasis(*each) for each in zip(*pairs, strict=True)))


def force_deviation(
    found: Residuals, weights: Float[Array, " batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the absolute force residuals (eV/Å) over a batch, and how many components they are."""
    if found.forces is None or found.has_forces is None:
        return jnp.zeros(()), jnp.zeros(())
    counted = found.has_forces & (weights > 0)[:, None, None]
    return jnp.sum(jnp.abs(jnp.where(counted, found.forces, 0.0))), jnp.sum(counted, dtype=float)


def add(first: Sums, second: Sums) -> Sums:
    """Sums over two batches."""
    return jax.tree.map(lambda a, b: a + b, first, second)


def loss(total: Sums, weights: Emphasis, units: Emphasis) -> Float[Array, ""]:
    """The loss of the formula above; a quantity that nothing is labeled with adds nothing."""
    value = jnp.zeros(())
    for weight, square, count, unit in zip(
        weights, total.squares, total.counts, units, strict=True
    ):
        if isinstance(count, float):  # it was not predicted, and may have no unit
            continue
        there = count > 0
        mean = jnp.where(there, square, 0.0) / jnp.where(there, count, 1.0)
        value = value + weight * mean / unit**2
    return value


def root_mean_squares(total: Sums) -> Emphasis:
    """Errors in eV/atom, eV/Å, eV/Å^3, e and e Å; NaN where nothing is labeled."""

    def root(square, count):
        if isinstance(count, float):
            return jnp.asarray(jnp.nan)
        return jnp.where(count > 0, jnp.sqrt(square / jnp.where(count > 0, count, 1.0)), jnp.nan)

    return Emphasis(*map(root, total.squares, total.counts))


def units(
    batches: tuple[Batch, ...],
    quantities: tuple[str, ...] = ("energy", "forces", "stress"),
    *,
    energy_limits: tuple[float, float] = (0.02, 0.15),
    force_limits: tuple[float, float] = (0.1, 2.0),
    stress_limits: tuple[float, float] = (1e-3, 1e-1),
    charge_limits: tuple[float, float] = (2e-3, 1.0),
    dipole_limits: tuple[float, float] = (0.05, 5.0),
) -> Emphasis:
    """Units that the labels suggest: eV/atom, eV/Å, eV/Å^3, e and e Å, clipped to the limits.

    The standard deviation of the energy per atom, and that of charges about the mean of each
    element, for the means are learned at once; the root mean squares of all the others. A few
    extreme structures must not set the scale, hence the limits. Quantities that are not asked for
    get the largest.
    """
    total, first = NO_SUMS, jnp.zeros(())
    for batch in batches:
        labels, weights = batch.labels, (batch.index >= 0).astype(float)
        zero = Prediction(**{name: jnp.zeros_like(getattr(labels, name)) for name in QUANTITIES})
        found = batch_residuals(zero, batch)
        first = first + jnp.sum(weights * found.energy)
        total = add(total, sums(found, weights))
    mean = first / jnp.maximum(total.counts.energy, 1.0)
    square = jnp.maximum(total.squares.energy / jnp.maximum(total.counts.energy, 1.0) - mean**2, 0)
    measured = root_mean_squares(total)._replace(charges=_charge_spread(batches))

    def clipped(value, limits):
        return jnp.clip(jnp.where(jnp.isnan(value), limits[1], value), *limits)

    return Emphasis(
        clipped(jnp.sqrt(square), energy_limits),
        clipped(measured.forces, force_limits),
        clipped(measured.stress, stress_limits),
        clipped(measured.charges, charge_limits),
        clipped(measured.dipole, dipole_limits),
    )


def _charge_spread(batches: tuple[Batch, ...]) -> Float[Array, ""]:
    """The standard deviation of labeled charges about the mean of each element (e); NaN without."""
    totals = counts = jnp.zeros(119)  # by atomic number
    squares, given = jnp.zeros(()), []
    for batch in batches:
        species, charges = batch.structures.species, batch.labels.charges
        has = ~jnp.isnan(charges) & (species > 0) & (batch.index >= 0)[:, None]
        given.append((species, jnp.where(has, charges, 0.0), has))
        totals = totals.at[species].add(given[-1][1])
        counts = counts.at[species].add(has)
    means = totals / jnp.maximum(counts, 1)
    for species, charges, has in given:
        squares = squares + jnp.sum(jnp.where(has, charges - means[species], 0.0) ** 2)
    known = jnp.sum(counts)
    return jnp.where(known > 0, jnp.sqrt(squares / jnp.maximum(known, 1)), jnp.nan)


def high_energy_weights(
    batches: tuple[Batch, ...], scale_eV: float | None
) -> tuple[Float[Array, " _"], ...]:
    """w = 1/√(1 + ((e - e_min)/scale)²) for each structure, e its energy per atom in eV.

    Factors of the *residuals*. They keep structures far up the repulsive wall from ruling the fit
    without dropping them. 1 without a scale, and for structures without an energy.
    """
    if scale_eV is None:
        return tuple(jnp.ones_like(batch.labels.energy) for batch in batches)
    energies = [
        batch.labels.energy / jnp.maximum(jnp.sum(batch.structures.species > 0, axis=1), 1)
        for batch in batches
    ]
    lowest = jnp.nanmin(jnp.concatenate(energies))
    excess = [jnp.where(jnp.isnan(e), 0.0, e - lowest) / scale_eV for e in energies]
    return tuple(1.0 / jnp.sqrt(1.0 + x**2) for x in excess)
