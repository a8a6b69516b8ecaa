"""Exported potentials in a process that cannot import this package say what the model says."""

import json
import subprocess
import sys
import textwrap
import zipfile

import jax
import numpy as np
import pytest
from ase.build import bulk
from campaign.tiny import CONFIG, argon, cluster, trained

from alj.campaign import exported_potential, models
from alj.campaign.answering import Answering
from alj.campaign.export import export_model, write_export
from alj.campaign.reading import structure_of
from alj.types import BadInput, Structure

ALONE = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "alj":
                raise ImportError("alj must not be needed")

    sys.meta_path.insert(0, Refuse())
    sys.path.insert(0, "model.zip")
    import json
    import numpy as np
    import exported_potential
    potential = exported_potential.load("model.zip")
    given = np.load("given.npz")
    found = potential(given["positions"], given["species"], given["cell"])
    assert not any(name.split(".")[0] == "alj" for name in sys.modules)
    np.savez("found.npz", **found)
"""


@pytest.fixture(scope="module")
def committee():
    potential, params = trained()
    return models.model_of(potential, params, {"potential": CONFIG})


@pytest.fixture(scope="module")
def archive(committee, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.zip"
    write_export(path, export_model(committee)[0])
    return path


def skewed(atoms: int) -> Structure:
    """A small cell, in which an atom has its own images as neighbors, repeated."""
    return cluster(3, atoms)


def check(found: dict, model, structure: Structure) -> None:
    expected = Answering(model)(structure)
    assert found["energy"] == pytest.approx(expected.energy, rel=1e-10)
    for name in ("forces", "stress", "atomic_energies"):
        assert found[name] == pytest.approx(getattr(expected, name), abs=1e-9)
    if model.members > 1:
        assert found["energy_spread"] == pytest.approx(expected.energy_spread, rel=1e-6)
        assert found["forces_spread"] == pytest.approx(expected.forces_spread, abs=1e-9)


def test_in_a_process_without_this_package(archive, committee):
    one = skewed(8)
    folder = archive.parent
    given = {"positions": one.positions, "species": one.species, "cell": one.cell}
    np.savez(folder / "given.npz", **given)
    script = folder / "script.py"
    script.write_text(textwrap.dedent(ALONE))
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    check({k: v[()] for k, v in np.load(folder / "found.npz").items()}, committee, one)


@pytest.mark.slow
def test_any_number_of_atoms_and_any_cell(archive, committee, tmp_path):
    potential = exported_potential.load(archive)
    free = skewed(6)._replace(cell=np.zeros((3, 3)))
    check(potential(free.positions, free.species), committee, free)
    model = argon(cutoff_A=5.0)
    write_export(tmp_path / "argon.zip", export_model(model)[0])
    potential, rng = exported_potential.load(tmp_path / "argon.zip"), np.random.default_rng(0)
    for copies in (1, 3):
        atoms = bulk("Ar", a=5.3, cubic=True) * (copies, copies, copies)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape) + 30.0
        found = potential(atoms.positions, atoms.numbers, atoms.cell.array)
        check(found, model, structure_of(atoms))


def test_it_says_what_it_is_and_for_what(archive):
    with zipfile.ZipFile(archive) as opened:
        about = json.loads(opened.read("model.json"))
        head = opened.read("programs/0.stablehlo")
    assert about["species"] == [8]
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert jax.export.deserialize(bytearray(head)).platforms == ("cpu", "cuda", "tpu")


def test_it_can_be_built_into_other_programs(archive, committee):
    potential, one = exported_potential.load(archive), skewed(8)
    table = exported_potential.neighbors(one.positions, one.cell, potential.cutoff)

    @jax.jit
    def work(positions):
        none = np.int32(0)
        given = (positions, one.species, one.cell, none, none, *table)
        answer = potential.program()(potential._parameters, *given)
        return (answer[1] * positions).sum()

    expected = Answering(committee)(one)
    assert work(one.positions) == pytest.approx((expected.forces * one.positions).sum(), rel=1e-8)


def test_where_sizes_must_be_known_there_are_a_few(tmp_path):
    model = argon(cutoff_A=5.0)
    data, shapes = export_model(model, atoms=(4, 16), platforms=("cpu",))
    assert [shape.most for shape in shapes] == [4, 16]
    write_export(tmp_path / "model.zip", data)
    potential = exported_potential.load(tmp_path / "model.zip")
    for copies in (1, 3):
        atoms = bulk("Ar", a=5.3, cubic=True) * (1, 1, copies)
        atoms.rattle(0.1, seed=copies)
        found = potential(atoms.positions, atoms.numbers, atoms.cell.array)
        check(found, model, structure_of(atoms))
    many = bulk("Ar", a=5.3, cubic=True) * (2, 2, 2)
    with pytest.raises(ValueError, match=r"holds 32 atoms .* a larger --atoms"):
        potential(many.positions, many.numbers, many.cell.array)


def test_bad_input_is_one_line(archive, tmp_path):
    potential = exported_potential.load(archive)
    with pytest.raises(ValueError, match=r"knows the atomic numbers \[8\], found \[11\]"):
        potential(np.zeros((1, 3)), [11])
    with pytest.raises(ValueError, match="not finite"):
        potential([[np.nan, 0, 0]], [8])
    with pytest.raises(ValueError, match="2 positions but 1 species"):
        potential(np.eye(3)[:2], [8])
    (tmp_path / "x.zip").write_text("no archive")
    with pytest.raises(ValueError, match="no exported potential"):
        exported_potential.load(tmp_path / "x.zip")
    with pytest.raises(BadInput, match="expected one of cpu, cuda, tpu"):
        export_model(argon(), platforms=("abacus",))


def test_the_command(alj):
    code, out, _ = alj("export", "lennard_jones", "--out", "argon.zip", "--platform", "cpu")
    assert code == 0
    assert "any number of atoms, for cpu" in out
    code, _, err = alj("export", "lennard_jones", "--out", "argon.zip")
    assert code == 2
    assert "exists already" in err
    code, _, err = alj("export", "tblite", "--out", "x.zip")
    assert code == 2
    assert "is an engine" in err
