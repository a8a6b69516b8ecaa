"""Labels in JAX against LAMMPS, and the corners of labeling many at once."""

import numpy as np
import pytest

from alj.campaign import datasets
from alj.labeling import in_jax
from alj.labeling.in_jax import lennard_jones, ml_bop_water
from alj.types import LabelingFailed, Structure


def test_ml_bop_equals_lammps(data_folder):
    data, _ = datasets.read(data_folder / "mlbop_crosscheck_10.extxyz")
    answers = ml_bop_water().label_many(datasets.structures(data))
    for i, answer in enumerate(answers):
        known, atoms = datasets.labels(data, i), datasets.sizes(data)[i]
        assert abs(answer.energy - known.energy) / atoms < 1e-8
        np.testing.assert_allclose(answer.forces, known.forces, atol=1e-6)
        scale = max(1.0, np.abs(known.stress).max())
        np.testing.assert_allclose(answer.stress, known.stress, atol=1e-6 * scale)


def pair(distance: float, count: int = 2) -> Structure:
    return Structure(
        positions=np.arange(count)[:, None] * np.array([[distance, 0.0, 0.0]]),
        species=np.full(count, 18, np.int32),
        cell=np.zeros((3, 3)),
        charge=np.int32(0),
        multiplicity=np.int32(0),
    )


def test_lennard_jones_is_its_formula_for_any_number_of_atoms():
    """Blocks, sizes and tables of several shapes in one call."""
    labeler = lennard_jones(epsilon_eV=0.1, sigma_A=2.0, cutoff_A=3.5, shift=False)
    distances = np.linspace(1.9, 3.6, 70)
    structures = [*(pair(d) for d in distances), pair(3.0, 5)]
    answers = labeler.label_many(structures)
    sixth = (2.0 / distances) ** 6
    expected = np.where(distances < 3.5, 0.4 * (sixth**2 - sixth), 0.0)
    np.testing.assert_allclose([a.energy for a in answers[:70]], expected, rtol=1e-12)
    assert answers[70].energy == pytest.approx(4 * 0.4 * ((2 / 3) ** 12 - (2 / 3) ** 6), rel=1e-12)
    traced = in_jax._label_block._cache_size()
    labeler.label_many(structures[:3])
    labeler.label(structures[70])
    assert in_jax._label_block._cache_size() == traced


def test_a_crowd_is_a_failure():
    dense = pair(0.5)._replace(cell=np.eye(3))
    (crowded,) = lennard_jones(cutoff_A=12.0).label_many([dense])
    assert isinstance(crowded, LabelingFailed)
    assert crowded.kind == "bad_input"
    assert "neighbors within 12.0 Å" in crowded.message


def test_an_answer_that_is_not_finite_is_unphysical():
    one, zeros = pair(2.0), np.zeros((2, 3))
    for energy, forces in ((np.nan, zeros), (1.0, np.full((2, 3), np.inf))):
        answer = in_jax._checked(one, (energy, forces, np.zeros((3, 3)), np.zeros(2), False))
        assert isinstance(answer, LabelingFailed)
        assert answer.kind == "unphysical"


def test_unknown_species_are_refused():
    with pytest.raises(LabelingFailed, match=r"atomic numbers \[18\] are unknown"):
        ml_bop_water().label(pair(3.0))
