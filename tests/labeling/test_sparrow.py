"""Sparrow's labels: in any order of atoms and labels, in any spin state, and what it cannot do."""

import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixBondLength
from ase.data import atomic_numbers
from ase.optimize import BFGS
from labeling.molecules import (
    Labeled,
    alkane,
    distorted,
    molecules,
    order_of,
    shuffled,
    structure_of,
)

from alj.labeling import build_labeler
from alj.labeling.sparrow import ELEMENTS, Sparrow, sparrow
from alj.types import LabelingFailed, Structure

pytestmark = pytest.mark.engine

TIGHT = {"energy_convergence_eV": 1e-9, "density_convergence": 1e-9}
MOLECULES = molecules()


@pytest.mark.parametrize("method", ["DFTB3", "PM6"])
@pytest.mark.parametrize("name", MOLECULES)
def test_labels_follow_the_atoms(name, method):
    engine = sparrow(method=method, **TIGHT)
    one = distorted(MOLECULES[name], seed=6, sigma_A=0.08)
    labels, again = engine.calculate(one, 1), engine.calculate(shuffled(one, seed=7), 1)
    order = order_of(one, seed=7)
    assert float(again.energy) == pytest.approx(float(labels.energy), abs=1e-7)
    np.testing.assert_allclose(again.forces, labels.forces[order], atol=1e-6)
    np.testing.assert_allclose(again.charges, labels.charges[order], atol=1e-6)
    np.testing.assert_allclose(again.dipole, labels.dipole, atol=1e-6)
    np.testing.assert_allclose(labels.forces.sum(axis=0), 0.0, atol=1e-6)


def test_provenance_says_whose_gradient_it_is():
    labels, about = build_labeler("sparrow").label_about(MOLECULES["water"])
    assert about["version"].endswith("forces corrected: tails of integrals, third order")
    assert about["convention"] == "sparrow: DFTB3/3ob-3-1 total energy"
    assert np.isnan(labels.stress).all()
    assert sparrow().settings["gradient"] == "corrected"
    assert "gradient" not in sparrow(method="PM6").settings
    assert pickle.loads(pickle.dumps(sparrow())) == sparrow()


def bits(engine: Sparrow, structure: Structure, multiplicity: int) -> bytes:
    try:
        labels = engine.calculate(structure, multiplicity)
    except LabelingFailed as failure:
        return str(failure).encode()
    return b"".join(np.asarray(field).tobytes() for field in labels)


def many_jobs() -> list[tuple[Structure, int]]:
    several = [distorted(one, seed, 0.08) for seed in range(3) for one in MOLECULES.values()]
    closed = [(one, 1) for one in several]
    small = [one for one in several if len(one.species) < 25][:6]
    ions = [(one._replace(charge=np.int32(1)), 2) for one in small]
    refused = [(structure_of(molecule("CH3Cl")), 3)]
    return closed + ions + refused + [(one, 3) for one in small]


@pytest.mark.parametrize("settings", [{}, {"method": "PM6"}, {"mixer": "ediis"}], ids=str)
def test_a_label_does_not_depend_on_those_before(settings):
    engine, jobs = sparrow(**settings), many_jobs()
    first = [bits(engine, *job) for job in jobs]
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(jobs))
        for i in order:
            assert bits(engine, *jobs[i]) == first[i]
    with pytest.raises(LabelingFailed, match="to accomodate"):
        engine.calculate(MOLECULES["water"]._replace(charge=np.int32(9)), 2)
    assert [bits(engine, *job) for job in jobs] == first


def test_a_label_does_not_depend_on_the_threads_of_its_process():
    """Also in another process, which imports Sparrow with four threads allowed."""
    script = (
        "from labeling.test_sparrow import bits, many_jobs, sparrow; import sys; "
        "sys.stdout.buffer.write(b''.join(bits(sparrow(), *job) for job in many_jobs()))"
    )
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, str(Path(tests).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "PYTHONPATH": path}
    other = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True
    )
    assert other.stdout == b"".join(bits(sparrow(), *job) for job in many_jobs())


def test_no_self_consistent_field_is_a_failure_and_the_fallback_helps():
    hasty = {"name": "sparrow", "max_iterations": 3}
    with pytest.raises(LabelingFailed, match="no self-consistent field in 3") as caught:
        build_labeler(hasty).label(MOLECULES["ethanol"])
    assert caught.value.kind == "not_converged"
    patient = build_labeler({**hasty, "fallbacks": [{"max_iterations": 100}]})
    labels, about = patient.label_about(MOLECULES["ethanol"])
    assert about["fallback"] == 1
    assert labels.energy == build_labeler("sparrow").label(MOLECULES["ethanol"]).energy


REFUSED = {
    "no open shells of Cl": ("DFTB3", structure_of(molecule("CH3Cl")), 3),
    "no open shells of S": ("DFTB2", structure_of(molecule("SH2")), 3),
    "no open shells of H, O": ("DFTB0", MOLECULES["water"], 3),
    "element pair": ("PM6", structure_of(ase.Atoms("HeTi", [(0, 0, 0), (0, 0, 3.0)])), 1),
    "orbitals": ("PM6", MOLECULES["water"], 9),
    "settings are invalid": ("DFTB3", MOLECULES["water"]._replace(charge=np.int32(-40)), 1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_method_cannot_do_is_bad_input(message):
    method, structure, multiplicity = REFUSED[message]
    with pytest.raises(LabelingFailed, match=message) as caught:
        sparrow(method=method).calculate(structure, multiplicity)
    assert caught.value.kind == "bad_input"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("method", sorted(ELEMENTS))
def test_the_elements_are_those_that_sparrow_knows(method):
    known = []
    for symbol, number in itertools.islice(atomic_numbers.items(), 1, 100):
        pair = structure_of(ase.Atoms([symbol] * 2, [(0, 0, 0), (0, 0, 3.0)]))
        try:
            sparrow(method=method).calculate(pair, 1)
        except LabelingFailed as failure:
            if failure.kind != "not_converged":
                if "found for the" not in failure.message:
                    raise
                continue
        known.append(number)
    assert tuple(known) == ELEMENTS[method]


def test_atoms_on_top_of_each_other_are_not_believed():
    near = MOLECULES["water"]._replace(positions=MOLECULES["water"].positions * 0.03)
    with pytest.raises(LabelingFailed, match="apart") as caught:
        build_labeler("sparrow").label(near)
    assert caught.value.kind == "bad_input"
    for method in ("DFTB3", "PM6"):
        careless = build_labeler({"name": "sparrow", "method": method, "closest_fraction": 0})
        with pytest.raises(LabelingFailed) as caught:
            careless.label(near)
        assert caught.value.kind in ("unphysical", "not_converged")


def pulled_hexane(bond_A: float, multiplicity: int) -> ase.Atoms:
    """Relaxed with one C-C bond held at a length."""
    atoms = alkane(6)
    atoms.rattle(0.02, seed=11)
    atoms.set_distance(0, 1, bond_A, fix=1, indices=[0, 6, 7, 8])
    atoms.set_constraint(FixBondLength(0, 1))
    settings = {"name": "sparrow", "multiplicities": [multiplicity]}
    atoms.calc = Labeled(build_labeler({**settings, "fallbacks": [{"mixer": "ediis"}]}))
    BFGS(atoms, logfile=None).run(fmax=0.03, steps=200)
    return atoms


def test_the_triplet_of_a_broken_hexane_is_found():
    """It is flat at 4.73 eV (conformers of the radicals differ by 0.06 eV); the singlet finds no
    self-consistent field, or one that is several eV too high.
    """
    labeler = build_labeler(
        {"name": "sparrow", "multiplicities": [1, 3], "fallbacks": [{"mixer": "ediis"}]}
    )
    whole, about = labeler.label_about(structure_of(pulled_hexane(1.53, 1)))
    assert about["multiplicity"] == 1
    excess_eV = []
    for bond_A in (3.5, 4.0, 5.0):
        broken = structure_of(pulled_hexane(bond_A, 3))
        labels, about = labeler.label_about(broken)
        assert about["multiplicity"] == 3
        assert float(labels.energy - whole.energy) == pytest.approx(4.73, abs=0.07)
        singlet = sparrow(mixer="ediis").calculate(broken, 1)
        excess_eV.append(float(singlet.energy - labels.energy))
    assert min(excess_eV) > 0.2
    assert max(excess_eV) > 3.0
