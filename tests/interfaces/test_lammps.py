"""LAMMPS moved by a model: forces, pressure and paths are those of our own dynamics."""

import numpy as np
import pytest
from ase.build import bulk
from campaign.tiny import CELL, CONFIG, argon, cluster, trained

from alj.campaign import models
from alj.campaign.answering import Answering
from alj.campaign.reading import read_atoms, structure_of
from alj.campaign.sampling import Request, sample
from alj.interfaces.lammps import attach, start
from alj.types import BadInput

pytestmark = pytest.mark.engine

BAR = 1.602176634e6
HEAD = """
units {units}
atom_style atomic
atom_modify map yes
boundary {boundary}
region whole prism 0 {x} 0 {y} 0 {z} {xy} {xz} {yz}
create_box 1 whole
mass 1 {mass}
timestep {step}
neighbor 1.0 bin
thermo_modify norm no
"""


@pytest.fixture
def simulation():
    opened = start()
    yield opened
    opened.close()


def place(simulation, atoms, mass: float, *, units="metal", boundary="p p p", step=1e-3):
    """Atoms in a cell whose rows are lower triangular; velocities in Å/ps."""
    c = atoms.cell.array
    simulation.commands_string(
        HEAD.format(
            units=units, boundary=boundary, mass=mass, step=step, x=c[0, 0], y=c[1, 1], z=c[2, 2],
            xy=c[1, 0], xz=c[2, 0], yz=c[2, 1],
        )
    )  # fmt: skip
    x = [float(v) for v in atoms.positions.reshape(-1)]
    simulation.create_atoms(len(atoms), None, [1] * len(atoms), x)
    assert simulation.get_natoms() == len(atoms)


def positions(simulation) -> np.ndarray:
    return np.array(simulation.gather_atoms("x", 1, 3)).reshape(-1, 3)


@pytest.mark.parametrize("units", ["metal", "real"])
def test_energy_forces_and_pressure_are_the_model_s(simulation, units):
    atoms = bulk("Ar", a=5.3, cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.1, 1.02, 0], [0.05, -0.1, 0.97]], True)
    atoms.rattle(0.1, seed=1)
    atoms.wrap()
    model = argon(cutoff_A=6.0)
    expected = Answering(model)(structure_of(atoms))
    place(simulation, atoms, 39.95, units=units)
    driver = attach(simulation, model, [18])
    simulation.command("thermo_style custom step pe pxx pyy pzz pxy pxz pyz")
    driver.run(0)
    unit = {"metal": 1.0, "real": 0.0433641153087705}[units]
    pressure = {"metal": BAR, "real": BAR / 1.01325}[units]
    assert simulation.get_thermo("pe") * unit == pytest.approx(expected.energy, rel=1e-7)
    forces = np.array(simulation.gather_atoms("f", 1, 3)).reshape(-1, 3) * unit
    assert forces == pytest.approx(expected.forces, abs=1e-8)
    found = [simulation.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")]
    stress = expected.stress[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    assert np.abs(stress).max() > 1e-3
    assert np.array(found) / pressure == pytest.approx(-stress, rel=1e-5)


def test_a_network_of_water_beads_walks_as_in_our_dynamics(simulation, tmp_path):
    _, params = trained()
    one = cluster(1)
    models.save(
        tmp_path / "model", potential_config=CONFIG, species=(8,), params=params,
        precision="float64", provenance={},
    )  # fmt: skip
    from ase import Atoms

    box = np.tril(CELL) + 0.0
    box[2] = [-0.5, 0.4, 7.7]
    start_of = Atoms("O8", one.positions, cell=box, pbc=True)
    start_of.write(tmp_path / "start.extxyz")
    masses = {"8": 18.015}
    spec = {
        "name": "nve", "temperature_K": 300.0, "timestep_fs": 1.0, "steps": 60,
        "record_every": 20, "masses_amu": masses,
    }  # fmt: skip
    request = Request(str(tmp_path), str(tmp_path / "start.extxyz"), spec, str(tmp_path / "md"))
    frames = read_atoms(sample(request).trajectory)
    first, last = frames[0], frames[-1]
    place(simulation, first, 18.015)
    simulation.scatter_atoms("v", 1, 3, _numbers(first.get_velocities() / _ps()))
    simulation.command("fix move all nve")
    driver = attach(simulation, str(tmp_path), [8])
    driver.run(20 * (len(frames) - 1))
    fractions = (positions(simulation) - last.positions) @ np.linalg.inv(box)
    apart = (fractions - np.round(fractions)) @ box
    assert np.abs(last.positions - first.positions).max() > 0.05
    assert apart == pytest.approx(np.zeros_like(apart), abs=1e-5)
    simulation.command("run 0")
    assert simulation.get_thermo("pe") == pytest.approx(last.get_potential_energy(), abs=1e-5)


def test_clusters_and_mistakes(simulation):
    atoms = bulk("Ar", a=5.3, cubic=True) * (1, 1, 2)
    atoms.pbc = False
    model = argon(cutoff_A=6.0)
    place(simulation, atoms, 39.95, boundary="f f f")
    with pytest.raises(BadInput, match="1 atom types; found 2 species"):
        attach(simulation, model, [18, 8])
    with pytest.raises(BadInput, match=r"knows the atomic numbers \[18\], found \[8\]"):
        attach(simulation, model, [8])
    driver = attach(simulation, model, [18])
    driver.run(0)
    expected = Answering(model)(structure_of(atoms))
    assert simulation.get_thermo("pe") == pytest.approx(expected.energy, rel=1e-7)
    simulation.scatter_atoms("x", 1, 3, _numbers(np.zeros((len(atoms), 3)) + 1.0))
    with pytest.raises(BadInput, match="on top of each other"):
        driver.run(10)


def test_other_units_are_refused(simulation):
    simulation.command("units si")
    with pytest.raises(BadInput, match="units si; expected metal or real"):
        attach(simulation, argon(), [18])


def _numbers(values):
    import ctypes

    flat = np.asarray(values, float).reshape(-1)
    return (ctypes.c_double * len(flat))(*flat)


def _ps():
    from ase import units

    return 1.0 / (1000 * units.fs)
