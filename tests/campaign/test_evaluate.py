"""Evaluation against the same numbers worked out one structure and one member at a time."""

import jax
import numpy as np
import pytest
from campaign.tiny import CONFIG, labeled, trained
from scipy.stats import pearsonr, spearmanr

from alj.campaign import datasets, models
from alj.campaign.evaluate import evaluate, parity, predict
from alj.campaign.labels import host_structure
from alj.geometry.neighbors import TableSize, neighbor_table
from alj.potentials.combine import energy_and_forces


@pytest.fixture(scope="module")
def data():
    return labeled()


@pytest.fixture(scope="module")
def model():
    potential, params = trained()
    return models.model_of(potential, params, {"potential": CONFIG})


@pytest.fixture(scope="module")
def members(model, data):
    """Energies (structures, members) and forces (structures, members, atoms, 3), the slow way."""
    size = TableSize(16, (0, 0, 0))

    @jax.jit
    def one(params, structure):
        neighbors = neighbor_table(structure, model.potential.cutoff, size)
        return energy_and_forces(model.potential, params, structure, neighbors)

    energies, forces = [], []
    for structure in datasets.structures(data):
        on_device = jax.tree.map(jax.numpy.asarray, host_structure(structure))
        answers = [
            one(jax.tree.map(lambda leaf, m=m: leaf[m], model.params), on_device) for m in range(3)
        ]
        energies.append([float(answer[0]) for answer in answers])
        forces.append([np.asarray(answer[1]) for answer in answers])
    return np.array(energies), np.array(forces)


def test_every_number_is_what_it_says(model, data, members):
    energies, forces = members
    report = evaluate(model, data)
    error = 1000 * (energies.mean(axis=1) - data.energy) / 8
    off = forces.mean(axis=1).reshape(-1, 3) - data.forces
    spread = np.linalg.norm(forces.std(axis=1, ddof=1), axis=-1).reshape(-1)
    wrong = np.linalg.norm(off, axis=1)
    expected = {
        "structures": 5,
        "energy_mae_meV_per_atom": np.abs(error).mean(),
        "energy_rmse_meV_per_atom": np.sqrt((error**2).mean()),
        "energy_bias_meV_per_atom": error.mean(),
        "energy_scatter_meV_per_atom": error.std(),
        "force_mae_eV_per_A": np.abs(off).mean(),
        "force_rmse_eV_per_A": np.sqrt((off**2).mean()),
        "force_max_eV_per_A": np.abs(off).max(),
        "force_spread_error_pearson": pearsonr(spread, wrong)[0],
        "force_spread_error_spearman": spearmanr(spread, wrong)[0],
        "force_spread_factor_90": np.sort(wrong / spread)[36],  # the 37th of 40: ⌈0.9 · 41⌉
    }
    assert report["all"] == pytest.approx(expected, rel=1e-9)
    assert set(report["by_config_type"]) == {"even", "odd"}
    odd = report["by_config_type"]["odd"]
    assert odd["structures"] == 2
    assert odd["energy_mae_meV_per_atom"] == pytest.approx(np.abs(error[1::2]).mean(), rel=1e-9)
    assert odd["force_max_eV_per_A"] == pytest.approx(
        np.abs(off.reshape(5, 8, 3)[1::2]).max(), rel=1e-9
    )


def test_missing_labels_are_null_and_counted_nowhere(model, data):
    prediction = predict(model, data)
    partial = data._replace(
        energy=np.where(np.arange(5) < 2, data.energy, np.nan),
        forces=np.full_like(data.forces, np.nan),
        info=({},) * 5,
    )
    report = evaluate(model, partial, prediction)
    assert set(report["by_config_type"]) == {"default"}
    assert report["all"]["force_mae_eV_per_A"] is None
    assert report["all"]["force_spread_error_pearson"] is None
    error = 1000 * (prediction.energy - data.energy)[:2] / 8
    assert report["all"]["energy_mae_meV_per_atom"] == pytest.approx(np.abs(error).mean())
    nothing = evaluate(model, datasets.empty())
    assert nothing["by_config_type"] == {}
    assert nothing["all"]["energy_mae_meV_per_atom"] is None
    arrays = parity(model, partial, prediction)
    assert arrays["energy"].shape == arrays["atoms"].shape == arrays["config_type"].shape == (2,)
    assert arrays["forces"].size == 0


def test_parity_arrays_hold_what_is_labeled(model, data):
    arrays = parity(model, data)
    np.testing.assert_array_equal(arrays["energy_reference"], data.energy / 8)
    np.testing.assert_array_equal(arrays["forces_reference"], data.forces.reshape(-1))
    assert arrays["config_type"].tolist() == ["even", "odd", "even", "odd", "even"]
    assert all(np.isfinite(arrays[key]).all() for key in ("energy", "forces", "energy_reference"))
