"""Starting structures: builders, changes, isolated atoms, and campaigns that begin with them."""

import ase
import ase.io
import jax
import numpy as np
import pytest
from ase.data import atomic_masses, ground_state_magnetic_moments
from campaign.test_loop import CONFIG

from alj.campaign import datasets
from alj.campaign.build import (
    BUILDERS,
    build_structures,
    isolated_atoms,
    minimized,
    random_start,
    resolve_start,
    start_from,
)
from alj.campaign.built import density, nearest
from alj.campaign.changes import CHANGES
from alj.campaign.isolated import GROUND_STATES
from alj.campaign.loop import run_campaign
from alj.campaign.plan import make_plan, resolve
from alj.labeling import build_labeler
from alj.types import BadInput, LabelingFailed


def build(spec, seed=0, count=None):
    return build_structures(spec, np.random.default_rng(seed), count)


def of(name, **settings):
    return {"name": name, **settings}


ARGON = of("crystal", material="Ar", supercell=[2, 2, 2])


def test_the_same_seed_gives_the_same_structures_and_another_one_others():
    spec = {**ARGON, "rattle_A": 0.05, "changes": [of("vacancies", number=2)]}
    first, again, other = build(spec, 1, 3), build(spec, 1, 3), build(spec, 2, 3)
    assert len(first) == len(again) == 3
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.structure.positions, same.structure.positions)
        assert np.abs(one.structure.positions - different.structure.positions).max() > 1e-3


def test_changes_apply_in_their_order_and_multiply():
    doubled = of("supercell", repeats=[2, 1, 1])
    holes = of("vacancies", number=1, count=2)
    before = build({**ARGON, "changes": [holes, doubled]})
    after = build({**ARGON, "changes": [doubled, holes]})
    assert [len(one.structure.species) for one in before] == [62, 62]
    assert [len(one.structure.species) for one in after] == [63, 63]
    strained = of("strain", isotropic=[-0.02, 0.02], count=5)
    assert len(build({**ARGON, "changes": [strained, holes]}, count=3)) == 30


def test_structures_that_would_be_alike_are_refused():
    with pytest.raises(BadInput, match="of 4 structures only 1"):
        build(ARGON, count=4)
    assert len(build({**ARGON, "rattle_A": 0.01}, count=4)) == 4


def test_what_chance_repeats_is_drawn_again():
    one_of_four = of("crystal", material="Cu", changes=[of("vacancies", number=1)])
    left = [tuple(map(tuple, one.structure.positions)) for one in build(one_of_four, count=4)]
    assert len(set(left)) == 4
    with pytest.raises(BadInput, match="of 5 structures only 4"):
        build(one_of_four, count=5)


def test_info_says_what_a_structure_was_built_from(tmp_path):
    (one,) = build({**ARGON, "changes": [of("rattle", standard_deviation_A=0.1)]})
    assert one.info["config_type"] == "crystal"
    assert one.info["built_from"].startswith("crystal material=Ar supercell=[2,2,2] changes=")
    data = datasets.append(datasets.empty(), [one.structure], info=[one.info])
    datasets.write(tmp_path / "one.extxyz", data)
    read = ase.io.read(tmp_path / "one.extxyz")
    assert read.info["built_from"] == one.info["built_from"]
    assert read.pbc.all()


@pytest.mark.parametrize("name", ["H", "C", "O", "Fe", "Gd", "Rn"])
def test_isolated_atoms_are_neutral_and_alone(name):
    (one,) = build(of("atoms", elements=[name]))
    assert one.structure.species.tolist() == [ase.Atom(name).number]
    assert not one.structure.cell.any()
    assert int(one.structure.charge) == 0
    assert one.info["config_type"] == "isolated_atom"


def test_ground_states_are_those_of_another_table_but_for_cerium():
    found = {z: round(ground_state_magnetic_moments[z]) + 1 for z in range(1, 87)}
    different = {z for z in found if GROUND_STATES[z] != found[z]}
    assert different == {58}  # its ground level is the singlet 4f 5d 6s2 1G4
    assert all((z - GROUND_STATES[z]) % 2 for z in found)


@pytest.mark.engine
def test_ground_states_follow_hunds_first_rule_but_for_cerium():
    from pyscf.data.elements import CONFIGURATION

    different = set()
    for z, multiplicity in GROUND_STATES.items():
        shells = zip(CONFIGURATION[z], (2, 6, 10, 14), strict=True)
        unpaired = sum(min(n % full, full - n % full) for n, full in shells)
        if multiplicity != unpaired + 1:
            different.add(z)
    # PySCF has terbium as 4f8 5d 6s2; its ground configuration is 4f9 6s2.
    assert different == {58, 65}


def test_isolated_atoms_take_atomic_numbers():
    atoms = isolated_atoms([1, 6, 24])
    assert [int(one.structure.multiplicity) for one in atoms] == [2, 3, 7]
    with pytest.raises(BadInput, match="U: the ground states"):
        isolated_atoms([92])


def test_random_atoms_keep_proportions_density_and_distance():
    spec = of(
        "random_atoms", formula="SiO2", atoms=48, density_g_per_cc=2.2, minimum_distance_A=1.5
    )
    first, second = (one.structure for one in build(spec, count=2))
    assert np.sum(first.species == 14) == 16
    assert np.sum(first.species == 8) == 32
    assert np.abs(first.positions - second.positions).max() > 1.0
    mass, volume = atomic_masses[first.species].sum(), np.linalg.det(first.cell)
    assert mass * 1.66053906660 / volume == pytest.approx(2.2, rel=1e-8)
    apart = ase.Atoms(positions=first.positions, cell=first.cell, pbc=True)
    distances = apart.get_all_distances(mic=True)[np.triu_indices(48, 1)]
    assert distances.min() >= 1.5
    assert nearest([first]) == pytest.approx(distances.min(), abs=1e-9)


def test_nearest_counts_the_image_of_a_single_atom():
    (one,) = build(of("crystal", material="Po", structure="sc", a_A=3.35))
    assert len(one.structure.species) == 1
    assert nearest([one.structure]) == pytest.approx(3.35)
    assert nearest([isolated_atoms([2])[0].structure]) is None
    assert density(isolated_atoms([2])[0].structure) is None


def test_random_start_is_random_atoms():
    labeler = build_labeler({"name": "lennard_jones", "cutoff_A": 6.0})
    settings = {"atoms": 16, "density_g_per_cc": 1.0, "minimum_distance_A": 2.9}
    key = jax.random.key(4)
    old, calls = random_start(labeler, key, species="Ar", minimization_steps=0, **settings)
    begin, _ = start_from(of("random_atoms", formula="Ar", **settings), key, labeler, "data.start")
    new, others = begin()
    np.testing.assert_array_equal(old.positions, new.positions)
    np.testing.assert_array_equal(old.cell, new.cell)
    assert calls == others == 0


def test_a_start_is_minimized_with_the_reference():
    labeler = build_labeler({"name": "lennard_jones", "cutoff_A": 6.0})
    spec = {**ARGON, "rattle_A": 0.3, "minimization_steps": 200}
    begin, first = start_from(spec, jax.random.key(1), labeler, "data.start")
    last, calls = begin()
    before, after = (labeler.label(one) for one in (first, last))
    assert calls > 1
    assert float(after.energy) < float(before.energy)
    assert np.abs(after.forces).max() < 1e-3 < 1e-2 < np.abs(before.forces).max()
    short, _ = minimized(first, labeler, 1, first_step_A=0.05)
    moved = np.linalg.norm(np.asarray(short.positions) - np.asarray(first.positions))
    assert moved == pytest.approx(0.05, rel=1e-6)


@pytest.mark.engine
def test_a_molecule_is_minimized_by_tblite():
    labeler = build_labeler("tblite")
    spec = of("molecule", smiles="CCO", rattle_A=0.05, minimization_steps=100)
    begin, first = start_from(spec, jax.random.key(1), labeler, "data.start")
    last, _ = begin()
    assert np.abs(labeler.label(first).forces).max() > 1.0
    assert np.abs(labeler.label(last).forces).max() < 0.01


def test_a_start_that_cannot_be_labeled_is_one_line():
    class Failing:
        name, settings = "failing", {}

        def label(self, structure):
            raise LabelingFailed("not_converged", "the electrons do not settle")

    (one,) = build(ARGON)
    with pytest.raises(BadInput, match=r"could not be minimized.*do not settle"):
        minimized(one.structure, Failing(), 3)


def with_start(start, **more):
    data = {key: value for key, value in CONFIG["data"].items() if key != "random_start"}
    return {**CONFIG, **more, "data": {**data, "start": start}}


def test_a_campaign_starts_from_a_builder():
    start = {**ARGON, "changes": [of("strain", isotropic=[0.02, 0.02])], "rattle_A": 0.05}
    plan = make_plan(with_start(start))
    structure, calls = plan.start()
    assert plan.species == (18,)
    assert (len(structure.species), calls) == (32, 0)
    again, _ = make_plan(with_start(start)).start()
    np.testing.assert_array_equal(structure.positions, again.positions)
    resolved = resolve(with_start(start))
    assert resolved["data"]["start"]["cell"] == "conventional"
    assert resolved["data"]["start"]["changes"][0]["count"] == 1
    assert resolve(resolved) == resolved


@pytest.mark.slow
def test_a_campaign_from_a_crystal_learns(tmp_path):
    config = with_start({**ARGON, "minimization_steps": 2}, rounds=1)
    config["data"]["reference_test"] = []
    run_campaign(config, tmp_path / "run")
    data, _ = datasets.read(tmp_path / "run" / "rounds" / "000" / "labeled.extxyz")
    assert datasets.count(data) == 6
    assert set(datasets.sizes(data)) == {32}


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (of("crystall", material="Ar"), r"data.start.name: unknown name.*'crystal'"),
        (of("crystal", materail="Ar"), r"data.start.materail: .*'material'"),
        (of("crystal", material="Ar", supercell=[0, 1, 1]), "data.start: supercell: .*1 or more"),
        ({**ARGON, "changes": [of("rattel")]}, r"data.start.changes\[0\].name: .*'rattle'"),
        ({**ARGON, "changes": [of("rattle")]}, r"changes\[0\].standard_deviation_A: missing"),
        ({**ARGON, "changes": [of("vacancies", number=99)]}, r"changes\[0\]: .*1 to 32"),
        ({**ARGON, "minimization_steps": 1.5}, "data.start.minimization_steps"),
        ({"material": "Ar"}, "data.start: expected a mapping with `name`"),
        (17, "data.start: expected"),
    ],
)
def test_a_start_that_cannot_be_built_is_one_line(start, words):
    with pytest.raises(BadInput, match=words) as caught:
        make_plan(with_start(start))
    assert "\n" not in str(caught.value)


def test_a_start_in_a_file_still_works(tmp_path):
    (one,) = build(ARGON)
    data = datasets.append(datasets.empty(), [one.structure])
    datasets.write(tmp_path / "start.extxyz", data)
    structure, _ = make_plan(with_start(str(tmp_path / "start.extxyz"))).start()
    np.testing.assert_array_equal(structure.positions, one.structure.positions)


def test_every_builder_and_change_resolves_to_what_it_is_given():
    known = {
        "molecule": {"smiles": "C"},
        "box": {"molecule": "water", "copies": 8},
        "crystal": {"material": "Cu"},
        "slab": {"material": "Cu"},
        "random_atoms": {},
        "atoms": {"elements": ["H"]},
    }
    for builder in BUILDERS:
        filled = resolve_start(of(builder.__name__, **known[builder.__name__]), "start")
        assert resolve_start(filled, "start") == filled
        assert {"changes", "rattle_A", "minimization_steps"} <= set(filled)
    assert len({change.__name__ for change in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (of("atoms", elements=["H", "H"]), "H twice"),
        (of("atoms", elements=[]), "found none"),
        (of("atoms", elements=["h"]), "did you mean 'H'"),
        (of("random_atoms", formula="SiO2", atoms=10), "multiple of the 3"),
        (of("random_atoms", formula="Ar", density_g_per_cc=9.0), "could not place 64 atoms"),
        (of("random_atoms", formula="argon"), "expected a formula"),
        (of("random_atoms", formula="Xx"), "expected a chemical symbol"),
    ],
)
def test_atoms_that_cannot_be_built_are_one_line(spec, words):
    with pytest.raises(BadInput, match=words) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_atoms_do_not_come_in_numbers():
    with pytest.raises(BadInput, match="one for each element"):
        build(of("atoms", elements=["H"]), count=3)
