"""PySCF: functionals, basis sets, D3, and help for what does not converge."""

import contextlib
import sys
import tempfile
from importlib import import_module

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.units import Bohr, Hartree
from labeling.molecules import distorted, molecules, shuffled, structure_of

from alj.labeling import build_labeler
from alj.labeling.pyscf import Pyscf
from alj.types import BadInput, LabelingFailed, Structure

engine = pytest.mark.engine
MODULE = sys.modules[Pyscf.__module__]  # `alj.labeling.pyscf` is the builder
MOLECULES = molecules()
WATER = distorted(MOLECULES["water"], seed=1, sigma_A=0.05)
SMALL = {"basis": "STO-3G", "dispersion": "none", "grid_level": 0}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in a campaign's workers: on a busy machine two wait for each other most of the time."""
    with contextlib.suppress(ImportError):
        import_module("pyscf.lib").num_threads(1)


def pyscf(**settings):
    return build_labeler({"name": "pyscf", **settings})


def failure(labeler, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        labeler.label(one)
    return caught.value


def radical() -> Structure:
    """Methyl: unlike hydroxyl, where the hole may turn about the axis, it has one ground state."""
    return distorted(structure_of(molecule("CH3"), multiplicity=2), seed=2, sigma_A=0.05)


def assert_slope(labeler, one: Structure, step: float = 4e-3) -> None:
    """Along one direction in which all atoms move, from four energies; and no net force."""
    forces = labeler.label(one).forces
    direction = np.random.default_rng(3).normal(size=forces.shape)
    direction /= np.linalg.norm(direction)
    at = {
        k: float(labeler.label(one._replace(positions=one.positions + k * step * direction)).energy)
        for k in (-2, -1, 1, 2)
    }
    slope = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    assert -slope == pytest.approx(float(np.sum(forces * direction)), abs=2e-4)
    assert np.linalg.norm(forces.sum(axis=0)) < 1e-8


@engine
@pytest.mark.parametrize("one", [WATER, radical()], ids=["water", "methyl"])
def test_forces_of_the_default_are_slopes(one):
    assert_slope(pyscf(), one)


@engine
@pytest.mark.parametrize("grid_level", [0, 1])
def test_forces_are_slopes_on_any_grid(grid_level):
    """The grid moves with the atoms; with its motion left out, forces add up to 10 meV/Å."""
    one = distorted(shuffled(MOLECULES["ethanol"], seed=4), seed=5, sigma_A=0.05)
    assert_slope(pyscf(**{**SMALL, "grid_level": grid_level}), one)


@engine
@pytest.mark.parametrize(
    "settings",
    [
        {"functional": "HF"},
        {"functional": "HF", "density_fitting": True},
        {"functional": "B3LYP"},
        {"functional": "PBE0", "density_fitting": True},
        {"functional": "TPSS", "dispersion": "D3(0)"},
        {"functional": "camb3lyp", "dispersion": "D3(BJ)"},
        {"functional": "LDA,VWN", "converger": "newton"},
        {"functional": "PBE", "density_fitting": True, "converger": "newton"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_forces_of_other_methods_are_slopes(settings):
    labeler = pyscf(**{**SMALL, **settings})
    for one in (WATER, radical()):
        assert_slope(labeler, one)


@engine
@pytest.mark.parametrize("name", ["PBE", "B3LYP"])
@pytest.mark.parametrize("damping", ["D3(BJ)", "D3(0)"])
def test_d3_is_that_of_its_own_adapter(name, damping):
    """Energy and gradient as dftd3 adds them to a PySCF calculation itself."""
    from dftd3.pyscf import energy as with_dispersion
    from pyscf import M
    from pyscf.dft import RKS

    one = MOLECULES["ethanol"]
    labels = pyscf(**{**SMALL, "functional": name, "dispersion": damping}).label(one)
    atoms = [(int(z), tuple(x)) for z, x in zip(one.species, one.positions / Bohr, strict=True)]
    field = RKS(M(atom=atoms, unit="Bohr", basis="STO-3G", verbose=0), xc=name)
    field.grids.level = 0
    field = with_dispersion(field, version={"D3(BJ)": "d3bj", "D3(0)": "d3zero"}[damping])
    energy = field.kernel()
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    assert float(labels.energy) == pytest.approx(energy * Hartree, abs=1e-5)
    expected = -gradient.kernel() * Hartree / Bohr
    np.testing.assert_allclose(labels.forces, expected, atol=2e-4)


@engine
def test_dispersion_attracts_and_is_named():
    """Two argon atoms at 4 Å: PBE alone hardly binds them; D3(BJ) pulls by some meV/Å."""
    argon = structure_of(ase.Atoms("Ar2", [(0, 0, 0), (0, 0, 4.0)]))
    with_it, without = (pyscf(**{**SMALL, "dispersion": d}) for d in ("D3(BJ)", "none"))
    pull = with_it.label(argon).forces[0, 2] - without.label(argon).forces[0, 2]
    assert 1e-3 < pull < 0.1
    assert with_it.convention == "pyscf: PBE-D3(BJ)/STO-3G total energy"
    assert without.convention == "pyscf: PBE/STO-3G total energy"


@engine
def test_density_fitting_changes_little_and_is_named():
    exact, fitted = (pyscf(**SMALL, density_fitting=d) for d in (False, True))
    one = MOLECULES["ethanol"]
    assert fitted.convention != exact.convention
    np.testing.assert_allclose(fitted.label(one).forces, exact.label(one).forces, atol=0.01)
    assert abs(float(fitted.label(one).energy - exact.label(one).energy)) < 0.1


@engine
@pytest.mark.parametrize(
    "help_", [{"converger": "newton"}, {"level_shift_eV": 5.0}, {"damping": 0.3}]
)
def test_help_for_convergence_changes_no_label(help_):
    plain, helped = pyscf(**SMALL).label(WATER), pyscf(**SMALL, **help_).label(WATER)
    assert float(helped.energy) == pytest.approx(float(plain.energy), abs=1e-6)
    np.testing.assert_allclose(helped.forces, plain.forces, atol=1e-4)


@engine
def test_what_diis_does_not_find_newton_does():
    """A broken bond with all its electrons paired."""
    oxygen = structure_of(ase.Atoms("O2", [(0, 0, 0), (0, 0, 3.0)]), multiplicity=1)
    labeler = pyscf(**{**SMALL, "grid_level": 1})
    caught = failure(labeler, oxygen)
    assert caught.kind == "not_converged"
    assert "cycle 99: -4" in caught.log_tail
    second = pyscf(**{**SMALL, "grid_level": 1}, fallbacks=[{"converger": "newton"}])
    assert second.label_about(oxygen)[1]["fallback"] == 1


@engine
def test_the_core_potential_comes_with_the_basis():
    """def2 sets stand for the valence electrons of iodine: 25 instead of 53."""
    iodide = structure_of(ase.Atoms("HI", [(0, 0, 0), (0, 0, 1.6)]))
    labels = pyscf(**{**SMALL, "basis": "def2-SVP"}).label(iodide)
    assert -300 * Hartree < float(labels.energy) < -290 * Hartree
    assert float(labels.charges.sum()) == pytest.approx(0.0, abs=1e-6)


@engine
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"functional": "PBEE"}, "functional: PySCF does not know 'PBEE'"),
        ({"basis": "6-31Q*"}, "basis: PySCF does not know '6-31Q\\*'"),
        ({"functional": "pbe,pbe"}, "dispersion_functional: D3\\(BJ\\) has no parameters"),
    ],
)
def test_what_it_does_not_know_is_the_users_input(settings, words):
    with pytest.raises(BadInput, match=words):
        pyscf(**settings).label(MOLECULES["water"])


@engine
def test_another_name_in_the_tables_of_d3():
    settings = {"basis": "STO-3G", "grid_level": 0}
    renamed = pyscf(functional="pbe,pbe", dispersion_functional="PBE", **settings).label(WATER)
    plain = pyscf(functional="PBE", **settings).label(WATER)
    assert float(renamed.energy) == pytest.approx(float(plain.energy), abs=1e-6)


@engine
def test_an_element_that_the_basis_lacks_is_the_structures_fault():
    radon = structure_of(ase.Atoms("Rn", [(0, 0, 0)]))
    caught = failure(pyscf(**SMALL), radon)
    assert caught.kind == "bad_input"
    assert "no functions for Rn" in caught.message


@engine
def test_nothing_is_left_and_nothing_is_said(tmp_path, monkeypatch, capfd):
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for settings in ({}, {"density_fitting": True}, {"converger": "newton"}):
        pyscf(**SMALL, **settings).label(WATER)
    failure(pyscf(**SMALL, max_iterations=2), WATER)
    assert [*scratch.iterdir(), *here.iterdir()] == []
    assert capfd.readouterr() == ("", "")


@engine
@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), "out_of_memory"), (np.linalg.LinAlgError("singular"), "crash")],
)
def test_errors_inside_become_failures(error, kind, monkeypatch):
    """Before the program is opened for anything: it need not be installed."""

    def broken(*_):
        raise error

    monkeypatch.setattr(Pyscf, "_molecule", broken)
    monkeypatch.setattr(MODULE, "needed", lambda *_: None)
    assert failure(pyscf(functional="HF", dispersion="none"), WATER).kind == kind


@pytest.mark.parametrize(
    "settings", [{"convergence_eV": 0.0}, {"grid_level": 10}, {"damping": 1.0}, {"basis": 6}]
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(BadInput, match=next(iter(settings))):
        pyscf(**settings)


def test_memory_is_no_part_of_a_label():
    assert pyscf(max_memory_MB=100).settings == pyscf().settings


@pytest.mark.parametrize("package", ["pyscf", "dftd3"])
def test_without_the_package_the_line_that_installs_it(package, monkeypatch):
    if package == "dftd3":
        monkeypatch.setattr(MODULE, "_check_functional", lambda _: None)
        monkeypatch.setitem(sys.modules, "pyscf", sys.modules["numpy"])
        monkeypatch.setitem(sys.modules, "dftd3.interface", None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput, match=f"{package} is not installed.*pip install {package}"):
        pyscf().label(MOLECULES["water"])
