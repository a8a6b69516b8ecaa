"""The ASE calculator against the model it came from, and against its own slopes."""

from itertools import pairwise

import ase
import jax
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from campaign.tiny import CELL, CONFIG, cluster, labeled, trained

from alj.arrays import double_precision
from alj.calculator import CommitteeCalculator, load
from alj.campaign import answering, datasets, models
from alj.campaign.evaluate import predict
from alj.types import BadInput


@pytest.fixture(scope="module")
def data():
    return labeled()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    models.save(
        path / "model",
        potential_config=CONFIG,
        species=(8,),
        params=trained()[1],
        precision="float64",
        provenance={},
    )
    return path


@pytest.fixture(scope="module")
def calculator(folder):
    return load(folder)


def atoms_of(seed: int, calculator=None) -> ase.Atoms:
    one = cluster(seed)
    return ase.Atoms("O8", one.positions, cell=one.cell, pbc=True, calculator=calculator)


def test_it_says_what_the_committee_says(calculator, data):
    prediction = predict(calculator.model, data)
    forces = prediction.forces.reshape(-1, 8, 3)
    spread = prediction.forces_spread.reshape(-1, 8, 3)
    with double_precision(False):
        for i in range(datasets.count(data)):
            atoms = atoms_of(i, calculator)
            assert atoms.get_potential_energy() == pytest.approx(prediction.energy[i], rel=1e-12)
            assert atoms.get_forces() == pytest.approx(forces[i], abs=1e-10)
            results = calculator.results
            assert results["free_energy"] == results["energy"]
            assert results["energies"].sum() == pytest.approx(results["energy"], rel=1e-12)
            assert results["energy_uncertainty"] == pytest.approx(prediction.energy_spread[i])
            uncertainty = calculator.get_property("forces_uncertainty", atoms)
            assert uncertainty == pytest.approx(spread[i], abs=1e-10)
            assert atoms.get_forces().dtype == np.float64
        assert not jax.config.jax_enable_x64


def test_forces_and_stress_are_slopes(calculator):
    atoms, step = atoms_of(7, calculator), 1e-4
    forces, stress = atoms.get_forces(), atoms.get_stress()

    def energy(positions, cell):
        moved = ase.Atoms("O8", positions, cell=cell, pbc=True, calculator=calculator)
        return moved.get_potential_energy()

    shift = np.zeros((8, 3))
    shift[2, 1] = step
    here, cell = atoms.positions, atoms.cell.array
    slope = (energy(here + shift, cell) - energy(here - shift, cell)) / (2 * step)
    assert -slope == pytest.approx(forces[2, 1], abs=1e-6)
    for place, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        sides = []
        for sign in (1, -1):
            deform = np.eye(3)
            deform[i, j] += sign * step / 2
            deform[j, i] += sign * step / 2
            sides.append(energy(here @ deform, cell @ deform))
        slope = (sides[0] - sides[1]) / (2 * step * atoms.get_volume())
        assert slope == pytest.approx(stress[place], abs=1e-6)


def test_small_moves_do_not_compile_and_crowds_do_not_overflow(folder):
    calculator = load(folder)
    atoms = atoms_of(1, calculator)
    atoms.get_forces()
    traced = answering._step._cache_size()
    for seed in range(3):
        atoms.rattle(0.02, seed=seed)
        atoms.get_forces()
    assert answering._step._cache_size() == traced
    before = calculator._answering._sizes[8].near
    atoms.positions = np.random.default_rng(0).normal(0, 0.8, (8, 3))
    atoms.set_cell(CELL * 0.6)
    crowded = atoms.get_potential_energy()
    assert calculator._answering._sizes[8].near > before
    assert crowded == pytest.approx(_fresh(folder, atoms), rel=1e-12)


@pytest.mark.slow
def test_a_table_is_kept_until_an_atom_has_moved_by_half_the_skin(folder):
    calculator = load(folder)
    atoms, rng = atoms_of(1, calculator), np.random.default_rng(3)
    atoms.get_forces()
    first = np.asarray(calculator._answering._kept.positions)
    places = []
    for _ in range(12):
        atoms.positions += rng.normal(0, 0.07, (8, 3))
        fresh = _fresh(folder, atoms)
        assert atoms.get_potential_energy() == pytest.approx(fresh, rel=1e-12)
        places.append(np.asarray(calculator._answering._kept.positions))
    assert np.array_equal(places[0], first)
    kept = [np.array_equal(a, b) for a, b in pairwise(places)]
    assert 0 < sum(kept) < len(kept)


def _fresh(folder, atoms) -> float:
    again = atoms.copy()
    again.calc = load(folder)
    return again.get_potential_energy()


def test_molecules_have_no_stress_and_slabs_ase_s_volume(calculator):
    atoms = atoms_of(3, calculator)
    atoms.pbc = False
    atoms.get_potential_energy()
    assert "stress" not in calculator.results
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    atoms.pbc = [True, True, False]
    slab = atoms.get_stress() * atoms.get_volume()
    atoms.cell = atoms.cell.array * np.array([[1], [1], [2]])
    assert atoms.get_stress() * atoms.get_volume() == pytest.approx(slab, abs=1e-12)


def test_without_uncertainty_the_mean_is_the_same(folder, calculator):
    quick = load(folder, uncertainty=False)
    one, other = atoms_of(2, quick), atoms_of(2, calculator)
    assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), rel=1e-12)
    assert one.get_forces() == pytest.approx(other.get_forces(), abs=1e-12)
    assert one.get_stress() == pytest.approx(other.get_stress(), abs=1e-12)
    assert "forces_uncertainty" not in quick.results
    assert "forces_uncertainty" not in quick.implemented_properties
    assert "forces_uncertainty" in calculator.implemented_properties


def test_single_precision_far_from_the_origin(calculator):
    potential, params = trained(np.float32)
    single = CommitteeCalculator(models.model_of(potential, params, {"potential": CONFIG}))
    near, far = atoms_of(2, calculator), atoms_of(2, single)
    far.positions += np.array([3000, -2000, 5000]) @ CELL
    assert far.get_potential_energy() == pytest.approx(near.get_potential_energy(), rel=1e-4)
    assert far.get_forces() == pytest.approx(near.get_forces(), abs=1e-3)
    assert far.get_forces().dtype == np.float64


def test_bad_structures_are_one_line(calculator):
    def expect(message, change):
        atoms = atoms_of(0, calculator)
        change(atoms)
        with pytest.raises(BadInput, match=message):
            atoms.get_potential_energy()

    expect(r"atom 2 is Na, a species .* it knows O", lambda a: a.symbols.__setitem__(2, "Na"))
    expect("coordinates of atom 1 is nan", lambda a: a.positions.__setitem__((1, 0), np.nan))

    def later(atoms):
        atoms.get_potential_energy()
        atoms.positions[5, 2] = np.inf

    expect("coordinates of atom 5 is inf", later)

    def onto(atoms):
        atoms.get_potential_energy()
        atoms.positions[6] = atoms.positions[2]

    expect("atoms 2 and 6 are on top of each other", onto)
    atoms = atoms_of(0, calculator)
    atoms.get_potential_energy()
    atoms.symbols[2] = "Na"
    for _ in range(2):
        with pytest.raises(BadInput, match="atom 2 is Na"):
            atoms.get_potential_energy()
    expect(
        "atoms 0 and 1 are on top of each other",
        lambda a: a.positions.__setitem__(1, a.positions[0] + CELL[2]),
    )
    expect("singular", lambda a: a.set_cell(np.ones((3, 3))))
    with pytest.raises(BadInput, match="not a model"):
        load("/nowhere")
