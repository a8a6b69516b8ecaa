"""What every labeler inside this package promises: forces that are slopes, clear failures."""

import inspect
import pickle

import jax
import numpy as np
import pytest
from labeling.molecules import strain_slopes

from alj.arrays import double_precision
from alj.labeling import IN_JAX
from alj.types import LabelingFailed, Structure

SETTINGS = {
    "lennard_jones": {"epsilon_eV": 0.05, "sigma_A": 2.4, "cutoff_A": 3.6},
    "nacl_tosi_fumi": {"cutoff_A": 3.6},
}
KINDS = {"nacl_tosi_fumi": (11, 17)}
"""Species where the labeler knows no oxygen."""


@pytest.fixture(scope="module", params=IN_JAX, ids=lambda builder: builder.__name__)
def labeler(request):
    return request.param(**SETTINGS.get(request.param.__name__, {}))


def cluster(seed: int = 0, *, periodic: bool = True) -> Structure:
    """Eight atoms near one face of a cell just higher than twice the cutoffs: one program."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    cell = np.array([[7.9, 0, 0], [0.7, 7.8, 0], [-0.5, 0.4, 7.7]])
    return Structure(
        positions=2.8 * grid - 1.0 + rng.uniform(-0.3, 0.3, (8, 3)),
        species=np.full(8, 8, np.int32),
        cell=cell if periodic else np.zeros((3, 3)),
        charge=np.int32(0),
        multiplicity=np.int32(0),
    )


def known(labeler, structure: Structure) -> Structure:
    """The structure with its oxygen replaced by what the labeler knows, in turn."""
    kinds = np.resize(KINDS.get(labeler.name, (8,)), len(structure.species)).astype(np.int32)
    return structure._replace(species=np.where(structure.species == 8, kinds, structure.species))


def test_defaults_build_and_are_described(labeler):
    for builder in IN_JAX:
        builder()
        assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(builder).parameters.values())
    assert labeler.name in {builder.__name__ for builder in IN_JAX}
    assert pickle.loads(pickle.dumps(labeler)).settings == labeler.settings


def test_forces_and_stress_are_slopes_of_the_energy(labeler):
    one, step = known(labeler, cluster()), 2e-5
    labels = labeler.label(one)
    assert float(labels.energy) == pytest.approx(float(labels.atomic_energies.sum()), rel=1e-12)
    for atom, axis in ((0, 0), (5, 2)):
        sides = []
        for sign in (1, -1):
            moved = one.positions.copy()
            moved[atom, axis] += sign * step
            sides.append(float(labeler.label(one._replace(positions=moved)).energy))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert -slope == pytest.approx(labels.forces[atom, axis], abs=1e-7)
    np.testing.assert_allclose(labels.forces.sum(axis=0), 0.0, atol=1e-12)
    for strain, slope in strain_slopes(lambda s: labeler.label(s).energy, one, step):
        assert slope == pytest.approx(float(np.sum(strain * labels.stress)), abs=1e-8)


def test_a_label_depends_on_its_structure_alone(labeler):
    """To the last bit: alone, in company, in any order, with x64 switched off around it."""
    many = [known(labeler, cluster(seed)) for seed in range(4)]
    together = labeler.label_many(many)
    backward = labeler.label_many(many[::-1])[::-1]
    with double_precision(False):
        alone = [labeler.label(one) for one in many]
        assert not jax.config.jax_enable_x64
    for one, other, third in zip(together, backward, alone, strict=True):
        for a, b, c in zip(one, other, third, strict=True):
            assert a.dtype == c.dtype == np.float64
            assert np.array_equal(a, b, equal_nan=True)
            assert np.array_equal(a, c, equal_nan=True)


def test_what_is_not_given_is_nan(labeler):
    labels = labeler.label(known(labeler, cluster(periodic=False)))
    assert np.isfinite(labels.energy)
    assert labels.forces.shape == (8, 3)
    for field in (labels.stress, labels.dipole, labels.charges):
        assert np.isnan(field).all()


def _changed(**fields):
    return cluster()._replace(**fields)


def _moved(value: float, atom: int = 1) -> Structure:
    one = cluster()
    positions = one.positions.copy()
    positions[atom] = value
    return one._replace(positions=positions)


BAD = {
    "not finite": [_moved(np.nan), _moved(np.inf), _changed(cell=np.full((3, 3), np.nan))],
    "singular": [_changed(cell=np.ones((3, 3)))],
    "Å apart": [_moved(cluster().positions[0]), _moved(cluster().positions[0] + cluster().cell[1])],
    "one or more atoms": [_changed(species=np.zeros(8, np.int32))],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_fails_and_says_why(labeler, message):
    for structure in BAD[message]:
        with pytest.raises(LabelingFailed, match=message) as caught:
            labeler.label(known(labeler, structure))
        assert caught.value.kind == "bad_input"


def test_a_failure_leaves_its_neighbors_alone(labeler):
    one, broken = known(labeler, cluster()), known(labeler, _moved(np.nan))
    good, bad, again = labeler.label_many([one, broken, one])
    assert isinstance(bad, LabelingFailed)
    assert np.array_equal(good.forces, again.forces)
