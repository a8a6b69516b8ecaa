"""Charges and dipoles of models: in the calculator, in errors, and learned from a real engine."""

import ase
import jax
import numpy as np
import pytest
from ase.build import molecule

from alj.calculator import load
from alj.campaign import datasets, models
from alj.campaign.evaluate import evaluate, parity
from alj.campaign.reading import empty_labels, structure_of
from alj.labeling import build_labeler
from alj.training import fit, gradient

SMALL = {"name": "behler_parrinello", "hidden": [6], "cutoff_A": 4.0}
CONFIG = {"name": "partial_charges", "body": SMALL, "width_A": 0.6}
ELEMENTS = (1, 8)


def waters(count, seed=0) -> list[ase.Atoms]:
    generator, found = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += generator.normal((3.0, 0.0, 0.0), 0.06, (3, 3))
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    """Two members with charges of about one e, as they begin."""
    folder = tmp_path_factory.mktemp("run") / "model"
    potential = models.potential_of(CONFIG, ELEMENTS)
    params = jax.vmap(potential.init)(jax.random.split(jax.random.key(0), 2))
    models.save(
        folder, potential_config=CONFIG, species=ELEMENTS, params=params, precision="float64",
        provenance={},
    )  # fmt: skip
    return load(folder)


def test_a_calculator_gives_charges_and_their_dipole(calculator):
    first, second = waters(2)
    for atoms, charge in ((first, 0), (second, 1)):
        atoms.info["charge"], atoms.calc = charge, calculator
        charges = atoms.get_charges()
        assert charges.sum() == pytest.approx(charge, abs=1e-12)
        assert np.ptp(charges) > 1e-3
        np.testing.assert_allclose(atoms.get_dipole_moment(), charges @ atoms.positions, atol=1e-12)
    assert {"charges", "dipole"} <= set(calculator.implemented_properties)


def test_errors_of_charges_and_of_dipoles_of_neutral_molecules_are_reported(calculator):
    generator, given, off, moments = np.random.default_rng(2), [], [], []
    frames = waters(4, seed=1)
    for i, atoms in enumerate(frames):
        atoms.info["charge"], atoms.calc = int(i == 3), calculator
        charges, dipole = generator.normal(size=3), generator.normal(size=3)
        if i == 1:
            charges[:] = np.nan
        given.append(empty_labels(3)._replace(charges=charges, dipole=dipole))
        off += (atoms.get_charges() - charges).tolist()
        if i < 3:
            moments += (atoms.get_dipole_moment() - dipole).tolist()
    data = datasets.append(datasets.empty(), [structure_of(atoms) for atoms in frames], given)
    report = evaluate(calculator.model, data)["all"]
    off = np.asarray(off)[np.isfinite(off)]
    assert len(off) == 9
    assert report["charge_mae_e"] == pytest.approx(np.mean(np.abs(off)), rel=1e-9)
    assert report["charge_rmse_e"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-9)
    moments = np.asarray(moments)
    assert report["dipole_rmse_e_A"] == pytest.approx(np.sqrt(np.mean(moments**2)), rel=1e-9)
    arrays = parity(calculator.model, data)
    np.testing.assert_allclose(arrays["charges"] - arrays["charges_reference"], off, atol=1e-12)
    assert len(arrays["dipole"]) == 9


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["tblite", "mopac", "sparrow"])
def test_charges_of_an_engine_are_learned(engine):
    """Distorted water, all weights 1: on what was not trained on, charges err by less than a fifth
    of their spread (tblite: 0.8 me of 15 me)."""
    labeler = build_labeler(engine)
    structures = [structure_of(atoms) for atoms in waters(60)]
    labels = [labeler.label(one) for one in structures]
    for one in labels:
        assert np.sum(one.charges) == pytest.approx(0.0, abs=1e-3)
        assert np.all(np.isfinite(one.dipole))
    data = datasets.append(datasets.empty(), structures, labels)
    potential = models.potential_of(CONFIG, ELEMENTS)
    trainer = gradient(
        potential, members=1, epochs=300, batch_size=12, learning_rate=0.01, energy_weight=1.0,
        force_weight=1.0, charge_weight=1.0, validation_fraction=0.2, precision="float64",
    )  # fmt: skip
    batches = datasets.batches(data, potential.cutoff, dtype=np.float64)
    made = fit(jax.random.key(0), trainer, potential, None, batches, 60)
    varies = np.std([one.charges[0] for one in labels])
    assert made.error.charges[0] < varies / 5
