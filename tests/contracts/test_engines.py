"""What every reference engine promises: forces that are slopes, no memory, failures that say why.

Each engine that a machine can have without the user is run for real, with settings that make it
quick. Every law holds for all of them; a new engine joins by a line in `QUICK`.
"""

import json
import os
import pickle
import sys
from importlib import import_module
from typing import Any

import ase
import cloudpickle
import numpy as np
import pytest
from ase.build import bulk, molecule
from labeling.molecules import distorted, molecules, shuffled, structure_of

from alj import registry
from alj.labeling import ENGINES, build_labeler
from alj.labeling.engine import Engine, Reference
from alj.types import Labeler, LabelingFailed, Labels, Structure

SCRIPT = """
import sys
import ase.io
from ase.calculators.calculator import CalculationFailed
from tblite.ase import TBLite

cycles, done = int(sys.argv[1]), []
for atoms in ase.io.read(sys.argv[2], ":"):
    info = atoms.info
    atoms.calc = TBLite(
        charge=info["charge"], multiplicity=info["multiplicity"], max_iterations=cycles,
        verbosity=0, cache_api=False,
    )
    try:
        atoms.get_forces()
    except CalculationFailed as error:
        info["label_failure"], atoms.calc = "not_converged", None
    done.append(atoms)
ase.io.write(sys.argv[3], done, format="extxyz")
"""
"""GFN2-xTB as somebody's own program."""

QUICK: dict[str, dict[str, Any]] = {
    "tblite": {},
    "sparrow": {},
    "sparrow PM6": {"method": "PM6"},
    "mopac": {},
    "pyscf": {"functional": "HF", "basis": "STO-3G", "dispersion": "none", "density_fitting": True},
    "ase": {
        "calculator": "tblite.ase.TBLite",
        "keywords": {"verbosity": 0, "cache_api": False},
        "charge_keyword": "charge",
        "multiplicity_keyword": "multiplicity",
    },
    "command": {
        "command": f"{sys.executable} $SCRIPT 250 {{input}} {{output}}",
        "method": "GFN2-xTB",
        "structures_per_call": 100,
        "periodic": False,
    },
}
"""Settings that make it quick, of each engine that comes from a package archive."""

CRYSTALS = ("tblite", "ase")
"""Those of them that take cells."""

BY_THE_USER = {"dftbplus"}
"""What a user must install by hand is tried elsewhere, with output of the real program."""

COMPOSED: dict[str, dict[str, Any]] = {"two_level": {"high": "tblite", "low": "tblite"}}
"""What is made of other engines; tried in `labeling/test_two_level.py`."""

UNSETTLED: dict[str, dict[str, Any]] = {
    "tblite": {"max_iterations": 2},
    "sparrow": {"max_iterations": 2},
    "sparrow PM6": {"max_iterations": 2},
    "mopac": {"max_iterations": 2},
    "pyscf": {"max_iterations": 2},
    "ase": {"keywords": {"verbosity": 0, "cache_api": False, "max_iterations": 2}},
    "command": {"command": f"{sys.executable} $SCRIPT 2 {{input}} {{output}}"},
}
"""Changes with which electrons have no time to settle."""

HARD: dict[str, tuple[int, list[dict[str, Any]]]] = {
    "tblite": (0, [{"electronic_temperature_K": 5000.0}]),
    "sparrow": (0, [{"mixer": "ediis_diis"}]),
    "mopac": (6, [{"converger": "camp_king"}, {"max_iterations": 20_000}]),
    "pyscf": (0, [{"converger": "newton"}]),
}
"""Which heap of oxygen atoms does not converge with the defaults, and fallbacks to the last one."""

MOLECULES = molecules()
FORCE_TOLERANCE_EV_PER_A = 5e-4
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in a campaign's workers: on a busy machine two wait for each other most of the time."""
    import_module("pyscf.lib").num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def script(tmp_path_factory):
    """The program that `command` runs."""
    path = tmp_path_factory.mktemp("command") / "label.py"
    path.write_text(SCRIPT)
    os.environ["SCRIPT"] = str(path)
    yield path
    del os.environ["SCRIPT"]


def build(case: str, **changes) -> Labeler:
    return build_labeler({"name": case.split()[0], **QUICK[case], **changes})


@pytest.fixture(params=QUICK)
def case(request) -> str:
    return request.param


def label_all(labeler: Labeler, structures: list[Structure]) -> list[Labels]:
    """Labels of many, together where the labeler can."""
    many = getattr(labeler, "label_many", None)
    found = many(structures) if many else [labeler.label(one) for one in structures]
    for one in found:
        if isinstance(one, LabelingFailed):
            raise one
    return found


def moved(one: Structure, change: np.ndarray) -> Structure:
    return one._replace(positions=np.asarray(one.positions) + change)


def failure(labeler: Labeler, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        labeler.label(one)
    assert caught.value.message
    return caught.value


def oxygen_heap(seed: int) -> Structure:
    """Six atoms thrown into a box: their electrons do not know where to go."""
    rng, places = np.random.default_rng(seed), []
    while len(places) < 6:
        place = rng.uniform(-2.5, 2.5, 3)
        if all(np.linalg.norm(place - other) > 1.1 for other in places):
            places.append(place)
    return structure_of(ase.Atoms("O6", places))


def test_no_engine_is_forgotten():
    tried = {case.split()[0] for case in QUICK} | BY_THE_USER | set(COMPOSED)
    assert tried == {builder.__name__ for builder in ENGINES}
    assert set(UNSETTLED) == set(QUICK)


@pytest.mark.parametrize("builder", ENGINES, ids=lambda builder: builder.__name__)
def test_an_engine_is_plain_data_that_travels(builder):
    """Built and pickled without being opened; what is hashed survives JSON; nothing is global."""
    needs = [s.name for s in registry.schema(builder) if s.default is registry.REQUIRED]
    given = {key: (QUICK | COMPOSED)[builder.__name__][key] for key in needs}
    engine = registry.build(ENGINES, {"name": builder.__name__, **given})
    assert isinstance(engine, Engine)
    assert engine.name == builder.__name__
    assert engine.convention.strip()
    assert json.loads(json.dumps(engine.settings)) == engine.settings
    labeler = build_labeler({"name": builder.__name__, **given})
    assert isinstance(labeler, Reference)
    for codec in (pickle, cloudpickle):
        other = codec.loads(codec.dumps(labeler))
        assert (other.name, other.settings) == (labeler.name, labeler.settings)
        assert other.convention == labeler.convention
        assert other.limits == labeler.limits


def test_its_version_names_the_program(case):
    version = build(case).engine.version()
    assert any(character.isdigit() for character in version)


@pytest.mark.parametrize("name", MOLECULES)
def test_forces_are_slopes_of_the_energy(case, name):
    """Distorted, in random order; one coordinate, and one direction in which all atoms move."""
    one = distorted(shuffled(MOLECULES[name], seed=1), seed=2, sigma_A=0.05)
    rng, step = np.random.default_rng(len(one.species)), 1e-3
    single, together = np.zeros((2, *one.positions.shape))
    single[rng.integers(len(single)), rng.integers(3)] = 1.0
    together[:] = rng.normal(size=together.shape)
    together /= np.linalg.norm(together)
    slow = case == "pyscf" and len(one.species) > 15
    labeler, directions = build(case), (together,) if slow else (single, together)
    ends = [moved(one, sign * step * d) for d in directions for sign in (1, -1)]
    labels, *sides = label_all(labeler, [one, *ends])
    assert np.abs(labels.forces.sum(axis=0)).max() < 1e-4
    for direction, up, down in zip(directions, sides[::2], sides[1::2], strict=True):
        slope = float(up.energy - down.energy) / (2 * step)
        along = float(np.sum(labels.forces * direction))
        assert -slope == pytest.approx(along, abs=FORCE_TOLERANCE_EV_PER_A)


def test_a_label_depends_on_its_structure_alone(case):
    """Whatever was labeled before, by this object or by a copy of it.

    To 1e-10 (eV, eV/Å, e): compiled loops add up in an order that hangs on where in memory their
    arrays happen to lie. A field that starts from the last one changes forces by 1e-4 eV/Å.
    """
    first, second = (distorted(MOLECULES["ethanol"], seed, sigma_A=0.1) for seed in (1, 2))
    other = MOLECULES["acetamide"]
    labeler = build(case)
    before = labeler.label(first)
    for between in (second, other):
        labeler.label(between)
    again = labeler.label(first)
    fresh = pickle.loads(pickle.dumps(labeler)).label(first)
    for a, b, c in zip(before, again, fresh, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)
        np.testing.assert_allclose(c, a, rtol=0, atol=1e-10)


def test_the_order_of_atoms_does_not_matter(case):
    one = distorted(MOLECULES["acetamide"], seed=3, sigma_A=0.05)
    order = np.random.default_rng(4).permutation(len(one.species))
    other = one._replace(positions=one.positions[order], species=one.species[order])
    labels, turned = label_all(build(case), [one, other])
    assert float(turned.energy) == pytest.approx(float(labels.energy), abs=1e-5)
    np.testing.assert_allclose(turned.forces, labels.forces[order], atol=2e-4)
    np.testing.assert_allclose(turned.charges, labels.charges[order], atol=2e-4)


IONS = {"hydroxide": ("OH", -1), "ammonium": ("NH4", 1), "water": ("H2O", 0)}


def ion(name: str) -> Structure:
    formula, charge = IONS[name]
    corners = [(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)]
    ammonium = ase.Atoms("NH4", 0.6 * np.array([(0, 0, 0), *corners]))
    atoms = ammonium if formula == "NH4" else molecule(formula)
    return distorted(structure_of(atoms, charge=charge, multiplicity=1), seed=5, sigma_A=0.05)


@pytest.mark.parametrize("name", IONS)
def test_charges_and_dipoles_are_in_e_and_e_A_about_the_origin(case, name):
    one, shift = ion(name), np.array([3.0, -2.0, 1.0])
    labels, shifted = label_all(build(case), [one, moved(one, shift)])
    np.testing.assert_allclose(shifted.forces, labels.forces, atol=2e-4)
    if np.isfinite(labels.charges).all():
        assert float(labels.charges.sum()) == pytest.approx(IONS[name][1], abs=1e-5)
    if np.isfinite(labels.dipole).all():
        change = shifted.dipole - labels.dipole
        np.testing.assert_allclose(change, IONS[name][1] * shift, atol=1e-4)


def test_the_dipole_of_water_points_from_oxygen_to_hydrogen(case):
    """1.855 D: S. A. Clough et al., J. Chem. Phys. 59, 2254 (1973), doi 10.1063/1.1680328."""
    one = MOLECULES["water"]
    labels = build(case).label(one)
    oxygen = int(np.flatnonzero(one.species == 8)[0])
    along = (one.positions - one.positions[oxygen]).sum(axis=0)
    size = float(labels.dipole @ along / np.linalg.norm(along))
    assert size == pytest.approx(1.855 * 0.2081943, rel=0.6)
    assert size == pytest.approx(np.linalg.norm(labels.dipole), abs=1e-4)


@pytest.mark.parametrize("case", CRYSTALS)
def test_the_stress_is_the_slope_of_the_energy_against_strain(case):
    """By small strains: the energy of GFN2-xTB jumps a little where lattice sums end elsewhere."""
    salt = bulk("NaCl", "rocksalt", 5.4)
    noise = np.random.default_rng(6).normal(scale=0.1, size=(2, 3))
    one = moved(structure_of(salt), noise)._replace(cell=np.array(salt.cell.array))
    labeler, volume, step = build(case), abs(np.linalg.det(one.cell)), 1e-4
    stress = labeler.label(one).stress
    assert stress[0, 0] < -0.01  # compressed: it would rather be larger
    for strain in (np.diag([1.0, 0, 0]), np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])):
        sides = []
        for sign in (1, -1):
            deform = np.eye(3) + sign * step * strain
            strained = one._replace(positions=one.positions @ deform, cell=one.cell @ deform)
            sides.append(float(labeler.label(strained).energy))
        slope = (sides[0] - sides[1]) / (2 * step * volume)
        assert slope == pytest.approx(float(np.sum(strain * stress)), abs=1e-5)


@pytest.mark.parametrize("case", sorted(set(QUICK) - set(CRYSTALS)))
def test_what_takes_molecules_only_says_so(case):
    caught = failure(build(case), MOLECULES["water"]._replace(cell=10.0 * np.eye(3)))
    assert caught.kind == "bad_input"
    assert "molecules only" in caught.message


# The table of what programs do wrong, row by row


def test_electrons_that_do_not_settle_are_no_label(case):
    caught = failure(build(case, **UNSETTLED[case]), MOLECULES["water"])
    assert caught.kind == "not_converged"


@pytest.mark.parametrize("case", HARD)
def test_electrons_that_never_settle_get_the_fallbacks_in_their_order(case):
    """With all iterations that it has by default; and the label says which fallback it is of."""
    seed, fallbacks = HARD[case]
    heap, loose = oxygen_heap(seed), {"max_force_eV_per_A": 1000.0}
    assert failure(build(case, **loose), heap).kind == "not_converged"
    labels, about = build(case, fallbacks=fallbacks, **loose).label_about(heap)
    assert about["fallback"] == len(fallbacks)
    assert about["tries"] == len(fallbacks) + 1
    last = build(case, **fallbacks[-1], **loose).label(heap)
    assert float(labels.energy) == float(last.energy)


def test_fallbacks_are_for_electrons_and_nothing_else(case):
    unsettled = {**QUICK[case], **UNSETTLED[case]}
    changes = {key: QUICK[case].get(key) for key in UNSETTLED[case] if key in QUICK[case]}
    good = changes or {"max_iterations": 200}
    labeler = build_labeler({"name": case.split()[0], **unsettled, "fallbacks": [good]})
    one = MOLECULES["water"]
    labels, about = labeler.label_about(one)
    assert (about["fallback"], about["tries"]) == (1, 2)
    assert about["convention"] == labeler.convention
    assert about["version"] == labeler.engine.version()
    assert float(labels.energy) == pytest.approx(float(build(case).label(one).energy), abs=1e-4)
    assert failure(labeler, overlapping()).kind == "bad_input"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_coordinate_that_is_not_finite_is_bad_input(case, value):
    positions = MOLECULES["water"].positions.copy()
    positions[1, 2] = value
    caught = failure(build(case), MOLECULES["water"]._replace(positions=positions))
    assert caught.kind == "bad_input"
    assert "not finite" in caught.message


def overlapping() -> Structure:
    """Water with a hydrogen atom 0.05 Å from the oxygen atom."""
    one = MOLECULES["water"]
    positions = one.positions.copy()
    positions[1] = positions[0] + np.array([0.0, 0.03, 0.04])
    return one._replace(positions=positions)


def test_atoms_on_top_of_each_other_are_bad_input(case):
    caught = failure(build(case), overlapping())
    assert caught.kind == "bad_input"
    assert "0.05 Å apart" in caught.message


def test_without_that_screen_their_energy_is_not_believed(case):
    caught = failure(build(case, closest_fraction=0.0), overlapping())
    assert caught.kind in ("unphysical", "not_converged")
    if caught.kind == "unphysical":
        assert "limit" in caught.message


def test_no_limit_lets_atoms_be_in_one_place(case):
    one = MOLECULES["water"]
    positions = one.positions.copy()
    positions[1] = positions[0]
    caught = failure(build(case, closest_fraction=0.0), one._replace(positions=positions))
    assert caught.kind == "bad_input"


def test_an_odd_electron_must_be_declared(case):
    radical = structure_of(molecule("OH"))
    caught = failure(build(case), radical)
    assert caught.kind == "bad_input"
    assert "9 electrons" in caught.message
    declared = build(case).label_about(radical._replace(multiplicity=np.int32(2)))[1]
    listed = build(case, multiplicities=[1, 2]).label_about(radical)[1]
    assert declared["multiplicity"] == listed["multiplicity"] == 2
    assert failure(build(case), radical._replace(multiplicity=np.int32(1))).kind == "bad_input"


def test_an_unknown_element_is_bad_input(case):
    """Nobelium: nobody has parameters for it, least of all a small basis set."""
    changes = {"elements": ["H"]} if case in ("ase", "command") else {}
    strange = structure_of(ase.Atoms("H2No", [(0, 0, 0), (0, 0, 0.75), (0, 0, 4.0)]))
    caught = failure(build(case, **changes), strange)
    assert caught.kind == "bad_input"
    assert "for No" in caught.message


def test_of_several_multiplicities_the_lowest_energy_is_kept(case):
    """Methylene has a triplet ground state; its singlet is below in some approximations."""
    methylene = structure_of(molecule("CH2_s3B1d"))
    singlet, triplet = (
        build(case).label(methylene._replace(multiplicity=np.int32(m))) for m in (1, 3)
    )
    labels, about = build(case, multiplicities=[1, 3]).label_about(methylene)
    lowest = min((float(singlet.energy), 1), (float(triplet.energy), 3))
    assert (float(labels.energy), about["multiplicity"]) == lowest
    assert float(singlet.energy) != float(triplet.energy)
    assert about["tries"] == 2
