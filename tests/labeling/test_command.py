"""The labeler `command`: what it makes of answers, in blocks, over ssh and under schedulers."""

import os
import pickle
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from alj.labeling import build_labeler, ssh
from alj.labeling.command import _Asked, command, written
from alj.types import BadInput, LabelingFailed, Structure

STANDINS = Path(__file__).parent / "standins"


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    path = [str(STANDINS), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Another machine: its home folder. Notes of connections and submissions lie beside it."""
    home = tmp_path / "home"
    (home / "scratch").mkdir(parents=True)
    monkeypatch.setenv("ALJ_HOST", str(home))
    monkeypatch.setattr(ssh, "GRACE_SECONDS", 1)
    return home


def structure(distance: float = 1.3, *, species: int = 1, periodic: bool = False) -> Structure:
    return Structure(
        positions=np.array([[0.1, 0.0, 1 / 3], [0.1 + distance, 0.0, 1 / 3]]),
        species=np.array([species, 1], np.int32),
        cell=9.0 * np.eye(3) * periodic,
        charge=np.int32(0),
        multiplicity=np.int32(1 if species in (1, 2) else 0),
    )


def labeler(mode: str = "", **settings):
    settings = {"electrons": False, "closest_fraction": 0.0, **settings}
    line = f"springs {{input}} {{output}} {mode}"
    return build_labeler({"name": "command", "command": line, "method": "springs", **settings})


def results_of(built, structures):
    """Labels or failures of structures in one block, without provenance."""
    return [result for result, _ in built.label_many_about(structures)]


def failure(built, one: Structure) -> LabelingFailed:
    with pytest.raises(LabelingFailed) as caught:
        built.label(one)
    return caught.value


def notes(cluster: Path, name: str) -> list[str]:
    path = cluster.parent / name
    return path.read_text().splitlines() if path.exists() else []


def test_an_answer_is_read():
    labels = labeler().label(structure(1.3, periodic=True))
    assert float(labels.energy) == pytest.approx(0.3**2 / 2, rel=1e-12)
    np.testing.assert_allclose(labels.forces, [[0.3, 0, 0], [-0.3, 0, 0]], atol=1e-8)
    np.testing.assert_allclose(labels.stress, -np.diag([1.0, 2.0, 3.0]) / 729, rtol=1e-12)
    np.testing.assert_array_equal(labels.dipole, [0, 0, 1])
    assert np.isnan(labels.charges).all()
    assert np.isnan(labeler().label(structure()).stress).all()


def test_the_energy_of_the_forces_is_preferred_among_the_names_that_ase_writes():
    labels = labeler("plain").label(structure(1.3))
    assert float(labels.energy) == pytest.approx(0.3**2 / 2, rel=1e-8)


def test_the_input_is_exact_and_says_charge_and_multiplicity(tmp_path):
    rng = np.random.default_rng(0)
    one = structure(periodic=True)
    one = one._replace(positions=rng.normal(size=(2, 3)), cell=rng.normal(size=(3, 3)))
    (tmp_path / "one.extxyz").write_text(written(_Asked(one._replace(charge=np.int32(-1)), 2), 5))
    atoms = ase.io.read(tmp_path / "one.extxyz")
    np.testing.assert_array_equal(atoms.positions, one.positions)
    np.testing.assert_array_equal(atoms.cell.array, one.cell)
    assert atoms.pbc.all()
    assert (atoms.info["charge"], atoms.info["multiplicity"]) == (-1, 2)
    charged = one._replace(charge=np.int32(2), multiplicity=np.int32(3), cell=np.zeros((3, 3)))
    known = labeler(electrons=True).label(charged._replace(species=np.array([3, 3], np.int32)))
    plain = labeler().label(charged._replace(charge=np.int32(0)))
    assert float(known.energy - plain.energy) == pytest.approx(2 * 10.0 + 2 * 0.5)


FAILURES = {
    "moved": "1e-05 Å from where it was",
    "swapped": "not the same, in the same order",
    "short": "output.extxyz cannot be used",
    "bare": "no forces in output.extxyz",
    "none": "wrote no output.extxyz",
}


@pytest.mark.parametrize("mode", FAILURES)
def test_an_answer_that_is_none_is_not_taken_for_one(mode):
    found = failure(labeler(mode), structure(species=6))
    assert found.kind == "parse"
    assert FAILURES[mode] in found.message
    assert "springs at work" in found.log_tail


def test_what_fails_says_as_what():
    assert failure(labeler("nan"), structure()).kind == "unphysical"
    assert failure(labeler("late"), structure()).kind == "crash"
    helium = failure(labeler(), structure(species=2))
    assert (helium.kind, helium.message) == ("not_converged", "helium never settles")
    neon = failure(labeler(), structure(species=10))
    assert neon.kind == "crash"
    assert "neon is too much" in neon.log_tail
    assert failure(labeler(), structure(species=18)).kind == "out_of_memory"
    with pytest.raises(BadInput, match="not found"):
        build_labeler({"name": "command", "command": "nowhere {input}", "method": "x"}).label(
            structure()
        )


def test_fallbacks_are_other_commands():
    built = labeler(fallbacks=[{"command": "springs {input} {output} plain"}])
    assert failure(built, structure(species=2)).message.endswith("(calculation 2)")


def test_in_a_block_every_failure_is_its_own():
    """Helium is told, neon takes the command along, argon the memory; the others do not suffer."""
    species = (1, 2, 6, 10, 7, 18, 8)
    structures = [structure(1.0 + 0.1 * i, species=z) for i, z in enumerate(species)]
    far = structures[0]._replace(positions=np.full((2, 3), np.nan))
    built = labeler(structures_per_call=4)
    answers = results_of(built, [*structures, far])
    kinds = [getattr(answer, "kind", "") for answer in answers]
    assert kinds == ["", "not_converged", "", "crash", "", "out_of_memory", "", "bad_input"]
    for i in (0, 2, 4, 6):
        assert float(answers[i].energy) == pytest.approx((0.1 * i) ** 2 / 2, abs=1e-12)
        alone = labeler().label(structures[i])
        np.testing.assert_array_equal(answers[i].forces, alone.forces)


def test_a_block_gives_what_each_structure_gives_alone():
    """Lowest multiplicities, fallbacks and provenance included."""
    built = labeler(
        electrons=True,
        multiplicities=[3, 1],
        structures_per_call=8,
        fallbacks=[{"command": "springs {input} {output} plain"}],
    )
    free = np.int32(0)
    structures = [
        structure(1.2)._replace(multiplicity=free),
        structure(1.4, species=2)._replace(multiplicity=free, charge=np.int32(1)),
        structure(1.6, species=9)._replace(multiplicity=free),
        structure(1.6, species=6)._replace(multiplicity=free),
    ]
    together = built.label_many_about(structures)
    for one, (answer, about) in zip(structures, together, strict=True):
        if isinstance(answer, LabelingFailed):
            alone = failure(built, one)
            assert (answer.kind, answer.message) == (alone.kind, alone.message)
        else:
            labels, source = built.label_about(one)
            np.testing.assert_array_equal(answer.energy, labels.energy)
            assert about == source
    assert together[0][1]["multiplicity"] == 1
    assert together[0][1]["tries"] == 2
    assert together[1][0].message.endswith("calculation 2)")
    assert together[3][0].kind == "bad_input"


@pytest.mark.parametrize("mode", ["late", "short"])
def test_a_block_whose_command_fails_at_the_end_is_repeated_where_it_was_not_finished(mode):
    structures = [structure(1.0 + 0.1 * i) for i in range(3)]
    answers = results_of(labeler(mode, structures_per_call=3), structures)
    if mode == "late":  # all were written, but the last of them perhaps not to the end
        assert [getattr(a, "kind", "") for a in answers] == ["", "", "crash"]
    else:
        assert [getattr(a, "kind", "") for a in answers] == ["", "", "parse"]


def test_settings():
    built = command(command="springs {input} {output}", method="springs", host="cluster")
    assert pickle.loads(pickle.dumps(built)) == built
    here = command(command="springs {input} {output}", method="springs", structures_per_call=9)
    assert here.settings == built.settings  # where it runs changes no label
    assert here.settings != command(command="springs {input} b", method="springs").settings
    assert "springs" in here.version()
    for wrong in ({"submit": "sbatch job.sh"}, {"host": "-oProxyCommand=x"}, {"remote_folder": ""}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            command(command="x", method="y", **wrong)
    with pytest.raises(BadInput, match="no program"):
        command(command="nowhere {input}", method="y").version()


REMOTE = {"host": "me@cluster", "ssh": "ssh -p 22"}
SUBMITS = {
    "": 0,
    "sbatch --wait {script}": 1,
    "qsub -sync y {script}": 1,
    "qsub -W block=true {script}": 1,
    "bsub -K < {script}": 1,
}


@pytest.mark.parametrize("submit", SUBMITS)
def test_labels_come_from_a_cluster(cluster, submit):
    built = labeler(**REMOTE, submit=submit, job_header=["#SBATCH --nodes=1", "export EXTRA=1"])
    labels = built.label(structure(1.3))
    assert float(labels.energy) == pytest.approx(0.3**2 / 2, rel=1e-12)
    assert len(notes(cluster, "submissions")) == SUBMITS[submit]
    assert notes(cluster, "connections")[0] == "-p 22 me@cluster sh -s"
    assert list((cluster / "alj-labels").iterdir()) == []  # tidy


def test_the_queue_of_this_machine(cluster, monkeypatch):
    monkeypatch.setenv("HOME", str(cluster))
    built = labeler(submit="sbatch --wait {script}", remote_folder="~/there", clean_up="never")
    first = built.label(structure(1.3))
    assert (next((cluster / "there").iterdir()) / "job.sh").exists()
    again = built.label(structure(1.3))
    assert float(first.energy) == float(again.energy)
    assert len(notes(cluster, "submissions")) == 1  # the second was fetched
    assert notes(cluster, "connections") == []


def test_a_dropped_connection_loses_nothing_and_submits_nothing_twice(cluster):
    (cluster.parent / "trouble").write_text("dropped\nrefused\ncut\n")
    built = labeler("slow", **REMOTE, submit="sbatch --wait {script}", remote_folder="$SCRATCH/a b")
    for words in ("Broken pipe", "Connection refused", "lost"):
        found = failure(built, structure(1.3))
        assert found.kind == "infrastructure"
        assert words in found.message
    labels = built.label(structure(1.3))
    assert float(labels.energy) == pytest.approx(0.3**2 / 2, rel=1e-12)
    assert len(notes(cluster, "submissions")) == 1
    assert len(notes(cluster, "connections")) == 5  # the last one cleans up


def test_half_a_script_does_nothing(cluster):
    (cluster.parent / "trouble").write_text("cut\n")
    assert failure(labeler(**REMOTE), structure()).kind == "infrastructure"
    assert list(cluster.iterdir()) == [cluster / "scratch"]


def test_what_was_killed_there_is_lost_and_begins_anew(cluster):
    (cluster.parent / "trouble").write_text("killed\n")
    built = labeler("slow", **REMOTE)
    assert failure(built, structure(1.3)).kind == "infrastructure"
    found = failure(built, structure(1.3))
    assert "the job was lost" in found.message
    assert found.kind == "infrastructure"
    assert float(built.label(structure(1.3)).energy) == pytest.approx(0.3**2 / 2, rel=1e-12)


def test_what_the_scheduler_ends_says_why(cluster):
    built = labeler(**REMOTE, submit="sbatch --wait {script}")
    (cluster.parent / "time_limit").touch()
    found = failure(built, structure())
    assert found.kind == "timeout"
    assert "DUE TO TIME LIMIT" in found.log_tail
    (cluster.parent / "no_account").touch()
    found = failure(built, structure())
    assert found.kind == "infrastructure"
    assert "Invalid account" in found.log_tail
    assert np.isfinite(built.label(structure()).energy)


def test_a_visit_ends_and_the_next_one_goes_on_waiting(cluster, monkeypatch):
    monkeypatch.setattr(ssh, "VISIT_SECONDS", 1)
    built = labeler("slow", **REMOTE, submit="sbatch --wait {script}", clean_up="never")
    assert np.isfinite(built.label(structure()).energy)
    assert len(notes(cluster, "connections")) > 2
    assert len(notes(cluster, "submissions")) == 1


def test_a_failed_call_is_put_aside_and_computed_anew(cluster):
    built = labeler(**REMOTE)
    assert failure(built, structure(species=10)).kind == "crash"
    (left,) = (cluster / "alj-labels").iterdir()
    assert left.suffix == ".failed"
    assert failure(built, structure(species=10)).kind == "crash"
    many = labeler(**REMOTE, structures_per_call=3)
    answers = results_of(many, [structure(1.1), structure(1.2, species=10), structure(1.3)])
    assert [getattr(answer, "kind", "") for answer in answers] == ["", "crash", ""]


def test_missing_programs_are_the_users(cluster):
    with pytest.raises(BadInput, match="no program `nossh`"):
        labeler(host="cluster", ssh="nossh").label(structure())
    absent = build_labeler({"name": "command", "command": "nowhere", "method": "x", **REMOTE})
    with pytest.raises(BadInput, match="not found"):
        absent.label(structure())
