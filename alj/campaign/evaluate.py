"""How wrong a model is on labeled structures, in all and for each kind of structure."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.analysis import errors
from alj.arrays import double_precision
from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.models import Model, answer_members
from alj.uncertainty.calibration import conformal_scale

UNTYPED = "default"
"""Where structures without a `config_type` are counted."""

_ATOMS_AT_ONCE = 8192
_FEWEST = 20


class Prediction(NamedTuple):
    """What a model says of a data set: mean and standard deviation (ddof 1) over its members.

    Energies (n,) in eV, forces (total, 3) in eV/Å, in the rows of the data set; of a model with
    charges also their means (total,) in e.
    """

    energy: np.ndarray
    energy_spread: np.ndarray
    forces: np.ndarray
    forces_spread: np.ndarray
    charges: np.ndarray | None = None


def predict(model: Model, dataset: Dataset) -> Prediction:
    """Energies and forces of all structures, in padded batches."""
    count, total = datasets.count(dataset), len(dataset.species)
    result = Prediction(
        np.zeros(count), np.zeros(count), np.zeros((total, 3)), np.zeros((total, 3)),
        None if model.potential.charges is None else np.zeros(total),
    )  # fmt: skip
    if count == 0:
        return result
    at_most = int(np.clip(_ATOMS_AT_ONCE // datasets.sizes(dataset).max(), 1, 256))
    with double_precision():
        for batch in datasets.stream(
            dataset, model.potential.cutoff, dtype=model.dtype, at_most=at_most
        ):
            values = jax.device_get(_batch(model.potential, model.members, model.params, batch))
            for row, index in enumerate(np.asarray(batch.index)):
                if index >= 0:
                    _store(result, dataset, int(index), jax.tree.map(lambda v, i=row: v[i], values))
    return result


def evaluate(
    model: Model, dataset: Dataset, prediction: Prediction | None = None
) -> dict[str, Any]:
    """Errors of the committee mean: `{"all": {…}, "by_config_type": {name: {…}}}`.

    Of a model with charges also those of charges, in e, and of components of the dipoles of neutral
    molecules, in e Å, where any are labeled.

    Energies in meV/atom, forces in eV/Å per Cartesian component; None where nothing is labeled.
    With a committee the correlation, over atoms, of the spread of the force ‖std‖ with its error
    ‖ΔF‖, and the factor by which the spread is to be multiplied to bound 90 % of new errors (split
    conformal, were atoms independent). `bias` and `scatter` are mean and standard deviation of the
    energy error.
    """
    prediction = prediction or predict(model, dataset)
    names = _config_types(dataset)
    groups = {name: np.flatnonzero(names == name) for name in np.unique(names)}
    everything = np.arange(datasets.count(dataset))
    return {
        "all": _errors(dataset, prediction, everything, model.members),
        "by_config_type": {
            str(name): _errors(dataset, prediction, members, model.members)
            for name, members in groups.items()
        },
    }


def parity(
    model: Model, dataset: Dataset, prediction: Prediction | None = None
) -> dict[str, np.ndarray]:
    """Predicted beside reference values of what is labeled, for figures.

    `energy_reference`, `energy` (eV/atom) with `config_type` and `atoms` of the same structures;
    `forces_reference`, `forces` (eV/Å, Cartesian components); of a committee also `force_spread`
    and `force_error` (eV/Å), lengths of the standard deviation and of the error of every atom. Of a
    model with charges `charges_reference`, `charges` (e), `dipole_reference`, `dipole` (e Å).
    """
    prediction = prediction or predict(model, dataset)
    labeled = np.isfinite(dataset.energy)
    atoms = datasets.sizes(dataset)[labeled]
    known = np.isfinite(dataset.forces)
    wrong = np.linalg.norm(prediction.forces - dataset.forces, axis=1)
    spread = np.linalg.norm(prediction.forces_spread, axis=1)[np.isfinite(wrong)]
    disputed = {"force_spread": spread, "force_error": wrong[np.isfinite(wrong)]}
    return {
        "energy_reference": dataset.energy[labeled] / atoms,
        "energy": prediction.energy[labeled] / atoms,
        "forces_reference": dataset.forces[known],
        "forces": prediction.forces[known],
        "config_type": _config_types(dataset)[labeled],
        "atoms": atoms,
        **_charges(dataset, prediction),
        **(disputed if model.members > 1 else {}),
    }


@partial(jax.jit, static_argnums=(0, 1))
def _batch(potential, count, params, batch):
    """Mean and spread of energy and forces for every structure of a batch, mean of charges."""

    def one(pair):
        answer = answer_members(potential, count, params, *pair)
        energy, forces = answer.energy, answer.forces.astype(jnp.result_type(float))
        charges = None if answer.charges is None else jnp.mean(answer.charges, axis=0)
        if count == 1:
            nothing = jnp.zeros_like(energy[0]), jnp.zeros_like(forces[0])
            return energy[0], nothing[0], forces[0], nothing[1], charges
        return (
            jnp.mean(energy),
            jnp.std(energy, ddof=1),
            jnp.mean(forces, axis=0),
            jnp.std(forces, axis=0, ddof=1),
            charges,
        )

    return jax.lax.map(one, (batch.structures, batch.neighbors))


def _store(result: Prediction, dataset: Dataset, index: int, values: tuple) -> None:
    rows = slice(dataset.offsets[index], dataset.offsets[index + 1])
    atoms = rows.stop - rows.start
    result.energy[index], result.energy_spread[index] = values[0], values[1]
    result.forces[rows], result.forces_spread[rows] = values[2][:atoms], values[3][:atoms]
    if result.charges is not None:
        result.charges[rows] = values[4][:atoms]


def _charges(dataset: Dataset, prediction: Prediction) -> dict[str, np.ndarray]:
    """Charges and dipoles beside what is labeled of them; nothing without charges."""
    if prediction.charges is None:
        return {}
    known, dipoles = np.isfinite(dataset.charges), np.full_like(dataset.dipole, np.nan)
    if len(dipoles):
        products = prediction.charges[:, None] * dataset.positions
        dipoles = np.add.reduceat(products, dataset.offsets[:-1])
    # Of an ion it depends on the origin.
    given = np.isfinite(dataset.dipole) & (np.asarray(dataset.charge) == 0)[:, None]
    return {
        "charges_reference": dataset.charges[known],
        "charges": prediction.charges[known],
        "dipole_reference": dataset.dipole[given],
        "dipole": dipoles[given],
    }


def _errors(dataset: Dataset, prediction: Prediction, members: np.ndarray, committee: int) -> dict:
    part = datasets.select(dataset, members)
    atoms = datasets.sizes(part)
    energies = 1000.0 * (prediction.energy[members] - part.energy) / atoms
    energies = energies[np.isfinite(energies)]
    chosen = np.isin(
        np.repeat(np.arange(datasets.count(dataset)), datasets.sizes(dataset)), members
    )
    differences = (prediction.forces - dataset.forces)[chosen]
    forces = differences[np.isfinite(differences)]
    report = {
        "structures": len(members),
        "energy_mae_meV_per_atom": errors.mae(energies),
        "energy_rmse_meV_per_atom": errors.rmse(energies),
        "energy_bias_meV_per_atom": errors.bias(energies),
        "energy_scatter_meV_per_atom": errors.scatter(energies),
        "force_mae_eV_per_A": errors.mae(forces),
        "force_rmse_eV_per_A": errors.rmse(forces),
        "force_max_eV_per_A": errors.largest(forces),
    }
    own = None if prediction.charges is None else prediction.charges[chosen]
    both = _charges(part, prediction._replace(charges=own))
    for name, key in (("charges", "charge_{}_e"), ("dipole", "dipole_{}_e_A")):
        if len(both.get(name, ())):
            off = both[name] - both[f"{name}_reference"]
            report |= {key.format("mae"): errors.mae(off), key.format("rmse"): errors.rmse(off)}
    if committee > 1:
        wrong = np.linalg.norm(differences, axis=1)
        spread = np.linalg.norm(prediction.forces_spread[chosen], axis=1)
        known = np.isfinite(wrong)
        report["force_spread_error_pearson"] = errors.pearson(spread[known], wrong[known])
        report["force_spread_error_spearman"] = errors.spearman(spread[known], wrong[known])
        report["force_spread_factor_90"] = _factor(wrong[known], spread[known])
    return {key: value if np.isfinite(value) else None for key, value in report.items()}


def _factor(wrong: np.ndarray, spread: np.ndarray) -> float:
    """The conformal scale for 90 %; NaN of too few atoms, or where members agree exactly."""
    if len(wrong) < _FEWEST or not np.all(spread > 0):
        return float("nan")
    return conformal_scale(wrong, spread, coverage=0.9)


def _config_types(dataset: Dataset) -> np.ndarray:
    return np.array([str(info.get("config_type", UNTYPED)) for info in dataset.info], dtype=str)
