"""Data sets: what is read is what was written, batches lose nothing, bad files are named."""

import gzip
import tempfile
from pathlib import Path

import ase
import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from alj.campaign import datasets
from alj.campaign.datasets import EXACT_SIZES
from alj.campaign.reading import empty_labels
from alj.types import BadInput, Structure

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=True)


@st.composite
def labeled(draw):
    """A structure on a jittered grid, in any periodicity, with any subset of labels."""
    count = draw(st.integers(1, 4))
    jitter = np.array(draw(st.lists(st.floats(0, 0.5), min_size=3 * count, max_size=3 * count)))
    positions = np.arange(count)[:, None] * 2.0 + jitter.reshape(count, 3)
    positions = positions + draw(st.sampled_from([0.0, -1e5 / 3, 12345.678]))
    cell = np.diag([20.0, 21.0 + 1 / 3, 22.0]) + np.tril(np.full((3, 3), draw(st.floats(0, 3))), -1)
    cell = cell * np.array(draw(st.tuples(*[st.booleans()] * 3)))[:, None]
    structure = Structure(
        positions=positions,
        species=np.array(
            draw(st.lists(st.integers(1, 90), min_size=count, max_size=count)), np.int32
        ),
        cell=cell,
        charge=np.int32(draw(st.integers(-2, 2))),
        multiplicity=np.int32(draw(st.integers(0, 3))),
    )
    labels = empty_labels(count)
    for field, blank in labels._asdict().items():
        if draw(st.booleans()) and (field != "stress" or cell.any()):
            size = max(blank.size, 1)
            values = draw(st.lists(FLOATS, min_size=size, max_size=size))
            labels = labels._replace(**{field: np.array(values).reshape(blank.shape)})
    return structure, labels


@given(st.lists(labeled(), min_size=1, max_size=3), st.sampled_from(["a b", "liquid", "x=1", "é"]))
@settings(max_examples=40, deadline=None)
def test_a_file_keeps_every_bit(rows, name):
    info = [{"config_type": name, "round": i} for i in range(len(rows))]
    written = datasets.append(datasets.empty(), [r[0] for r in rows], [r[1] for r in rows], info)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.extxyz"
        datasets.write(path, written)
        back, _ = datasets.read(path, labels="optional")
    for field in datasets.Dataset._fields:
        if field != "info":
            one, other = getattr(back, field), getattr(written, field)
            assert one.dtype == other.dtype, field
            np.testing.assert_array_equal(one, other, err_msg=field)
    assert back.info == written.info


def test_append_select_and_rows_agree():
    data = _random_dataset([3, 1, 4])
    assert datasets.count(data) == 3
    assert datasets.sizes(data).tolist() == [3, 1, 4]
    picked = datasets.select(data, [2, 0, 2])
    for place, index in enumerate([2, 0, 2]):
        one, other = datasets.structure(picked, place), datasets.structure(data, index)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert datasets.labels(picked, place).energy == datasets.labels(data, index).energy
    assert datasets.count(datasets.select(data, [])) == 0
    with pytest.raises(IndexError):
        datasets.structure(data, 3)


def test_padded_atoms_are_dropped():
    one = datasets.structure(_random_dataset([2]), 0)
    padded = one._replace(
        positions=np.pad(one.positions, ((0, 3), (0, 0))), species=np.pad(one.species, (0, 3))
    )
    data = datasets.append(datasets.empty(), [padded])
    assert datasets.sizes(data).tolist() == [2]
    assert np.isnan(data.forces).all()


def test_batches_hold_every_structure_once():
    data = _random_dataset([3, 2, 3, 3, 2, 3, 3])
    weights = np.arange(1.0, 8.0)
    batches = datasets.batches(data, 3.0, weights=weights)
    assert [batch.index.shape for batch in batches] == [(2,), (6,)]
    seen = []
    for batch in batches:
        assert not bool(np.any(batch.neighbors.overflow))
        for row, index in enumerate(np.asarray(batch.index)):
            if index < 0:
                assert batch.weights[row] == 0
                assert not np.any(batch.structures.species[row])
                continue
            seen.append(int(index))
            assert batch.weights[row] == weights[index]
            one, atoms = datasets.structure(data, index), datasets.sizes(data)[index]
            np.testing.assert_array_equal(batch.structures.positions[row, :atoms], one.positions)
            np.testing.assert_array_equal(batch.labels.energy[row], data.energy[index])
            assert np.isnan(batch.labels.forces[row, atoms:]).all()
    assert sorted(seen) == list(range(7))
    cut = datasets.batches(data, 3.0, at_most=2)
    assert [batch.index.shape for batch in cut] == [(2,)] * 4
    assert len({batch.neighbors.indices.shape[1:] for batch in cut[1:]}) == 1


def test_a_growing_set_keeps_its_shapes():
    table, shapes = {}, set()
    for count in (5, 6):
        (batch,) = datasets.batches(_random_dataset([3] * count), 3.0, table=table)
        shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves(batch)))
    assert len(shapes) == 1


def test_many_sizes_share_buckets():
    sizes = np.arange(5, 40)
    padded = datasets.padded_sizes(sizes)
    assert (padded >= sizes).all()
    assert len(np.unique(padded)) <= 7
    few = np.array([108] * 5 + [7] * EXACT_SIZES)
    assert np.array_equal(datasets.padded_sizes(few), few)


def test_far_from_the_origin_single_precision_keeps_its_neighbors():
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [1.0, -1.0, 10.0]])
    near = rng.uniform(0, 8, (5, 3))
    for rows in ([1, 1, 1], [1, 1, 0], [0, 0, 0]):
        partial = cell * np.array(rows)[:, None]
        far = near + (np.array([4000, -3000, 5000]) * rows) @ partial
        far = far + (0.0 if all(rows) else 1.0) * np.array([0, 0, 3e4])
        moved = datasets.near_origin(far, partial)
        assert np.abs(moved).max() < 40
        shifts = (moved - moved[:1]) - (near - near[:1])
        whole = shifts @ np.linalg.pinv(partial)
        np.testing.assert_allclose(np.round(whole) @ partial, shifts, atol=1e-6)
    assert datasets.near_origin(near, cell) is near


# --- what is taken from a file ---------------------------------------------------------------


def test_reference_keys_win_and_the_rest_is_ignored(tmp_path):
    atoms = _water()
    atoms.info |= {"REF_energy": -3.0, "energy": -7.0, "TotEnergy": 5.0, "config_type": 7}
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    atoms.arrays["dft_forces"] = np.zeros((3, 3))
    data, report = _through(tmp_path, atoms)
    assert data.energy[0] == -3.0
    assert (data.forces == 1).all()
    assert data.info[0]["config_type"] == "7"
    assert "energy from REF_energy, forces from REF_forces; 1 structure, 3 atoms, species H O" in (
        report
    )
    assert "ignored TotEnergy, dft_forces, energy" in report


def test_common_names_and_calculator_results(tmp_path):
    atoms = _water()
    _periodic(atoms)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-2.5, forces=np.full((3, 3), 0.5), stress=np.arange(6.0)
    )
    for name in ("a.extxyz", "a.traj", "a.json"):
        ase.io.write(tmp_path / name, atoms)
        data, _ = datasets.read(tmp_path / name)
        assert data.energy[0] == -2.5
        assert (data.forces == 0.5).all()
        np.testing.assert_array_equal(data.stress[0], [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    with gzip.open(tmp_path / "b.extxyz.gz", "wb") as file:
        file.write((tmp_path / "a.extxyz").read_bytes())
    data, _ = datasets.read(tmp_path / "b.extxyz.gz")
    assert data.energy[0] == -2.5


def test_two_common_names_must_agree(tmp_path):
    atoms = _water()
    atoms.info |= {"energy": -1.0, "TotEnergy": -1.0}
    data, _ = _through(tmp_path, atoms)
    assert data.energy[0] == -1.0
    atoms.info["TotEnergy"] = -1.5
    with pytest.raises(BadInput, match=r"structure 1 .*TotEnergy and energy.*differ by 0\.5"):
        _through(tmp_path, _water(energy=0.0), atoms)


def test_virial_is_minus_volume_times_stress(tmp_path):
    stress = np.array([[1.0, 0.2, 0.1], [0.2, 2.0, 0.3], [0.1, 0.3, 3.0]]) * 1e-3
    voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    cell = np.array([[8.0, 0, 0], [1.0, 9.0, 0], [0.5, 2.0, 10.0]])
    given = [
        {"virial": -720.0 * stress},
        {"REF_virial": (-720.0 * voigt)},
        {"REF_stress": stress.reshape(-1), "REF_virials": -720.0 * stress.reshape(-1)},
        {"stress": voigt},
    ]
    for info in given:
        atoms = _water(energy=1.0)
        atoms.set_cell(cell)
        atoms.pbc = True
        atoms.info |= info
        data, _ = _through(tmp_path, atoms)
        np.testing.assert_allclose(data.stress[0], stress, rtol=1e-12)
    atoms.info["virial"] = stress
    with pytest.raises(BadInput, match="both give the stress"):
        _through(tmp_path, atoms)


def test_labels_may_be_missing_here_and_there(tmp_path):
    data, report = _through(tmp_path, _water(energy=1.0), _water())
    assert np.isnan(data.energy[1])
    assert "(1 of 2)" in report
    _, report = _through(tmp_path, _water(), labels="optional")
    assert report.startswith("no labels; 1 structure")
    with pytest.raises(BadInput, match="no energies and no forces"):
        _through(tmp_path, _water())
    bad = _water()
    bad.info["energy"] = np.nan
    data, _ = _through(tmp_path, bad, labels="ignored")
    assert np.isnan(data.energy[0])


def test_charge_multiplicity_and_periodicity(tmp_path):
    atoms = _water(energy=0.0)
    atoms.info |= {"charge": -1, "spin": 2}
    atoms.set_cell(np.eye(3) * 9)
    atoms.pbc = [True, False, True]
    data, _ = _through(tmp_path, atoms)
    assert (data.charge[0], data.multiplicity[0]) == (-1, 2)
    assert data.cell[0].tolist() == [[9, 0, 0], [0, 0, 0], [0, 0, 9]]


# --- bad input -------------------------------------------------------------------------------


def _spoiled(change) -> ase.Atoms:
    atoms = _water(energy=0.0)
    change(atoms)
    return atoms


def _periodic(atoms):
    atoms.set_cell(np.eye(3) * 9)
    atoms.pbc = True


BAD = {
    "species X": lambda a: a.set_atomic_numbers([8, 0, 1]),
    r"coordinates of atom 1 is nan": lambda a: a.positions.__setitem__((1, 2), np.nan),
    r"coordinates of atom 0 is inf": lambda a: a.positions.__setitem__((0, 0), np.inf),
    r"energy is nan": lambda a: a.info.update(energy=np.nan),
    r"forces of atom 2 is inf": lambda a: a.arrays.update(
        forces=np.full((3, 3), [[0], [0], [np.inf]])
    ),
    r"REF_energy is 'abc'; expected numbers": lambda a: a.info.update(REF_energy="abc"),
    r"REF_forces has the shape \(3, 2\)": lambda a: a.arrays.update(REF_forces=np.zeros((3, 2))),
    r"REF_stress has the shape": lambda a: (_periodic(a), a.info.update(REF_stress=np.zeros(5))),
    r"atoms 0 and 1 are on top of each other": lambda a: a.positions.__setitem__(1, a.positions[0]),
    r"lattice vector 2 is zero": lambda a: (
        a.set_cell([9, 9, 0]),
        a.set_pbc([True, True, True]),
    ),
    r"singular cell": lambda a: (a.set_cell([[9, 0, 0], [9, 0, 0], [0, 0, 9]]), a.set_pbc(True)),
    r"charge is 0\.5; expected a whole number": lambda a: a.info.update(charge=0.5),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_structures_are_named(tmp_path, message):
    with pytest.raises(
        BadInput, match=rf"data\.extxyz: structure 1 \(counting.*{message}"
    ) as caught:
        _through(tmp_path, _water(energy=0.0), _spoiled(BAD[message]))
    assert "\n" not in str(caught.value)


def test_atoms_on_top_of_each_other_across_a_boundary(tmp_path):
    atoms = _water(energy=0.0)
    _periodic(atoms)
    atoms.positions[1] = atoms.positions[0] + [9.0, -18.0, 1e-4]
    with pytest.raises(BadInput, match="atoms 0 and 1"):
        _through(tmp_path, atoms)


def test_species_that_a_model_does_not_know(tmp_path):
    with pytest.raises(BadInput, match=r"atom 1 is H, a species .* it knows O"):
        _through(tmp_path, _water(energy=0.0), species=(8,))


FILES = {
    "the file is empty": "",
    "holds no structures|cannot be read|ends too early": "\n\n",
    r"structure 1 .* cannot be read": "1\nenergy=1\nO 0 0 0\n2\nenergy=2\nO 0 0 0\n",
    r"structure 0 .* cannot be read: .*Qq": "1\nenergy=1\nQq 0 0 0\n",
    r"structure 0 .* cannot be read": "1\nenergy=1\nO 0 0 zero\n",
    r"a blank line hides": "1\nenergy=1\nO 0 0 0\n\n1\nenergy=2\nO 0 0 0\n",
    r"has no atoms": "0\nenergy=1\n",
}


@pytest.mark.parametrize("message", FILES)
def test_bad_files_are_one_line(tmp_path, message):
    path = tmp_path / "data.extxyz"
    path.write_text(FILES[message])
    with pytest.raises(BadInput, match=message) as caught:
        datasets.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_unknown_and_binary_files(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        datasets.read(tmp_path / "none.extxyz")
    for name, data in (
        ("a.nonsense", b"hello"),
        ("b.extxyz", b"\xff\xfe\x00\x01"),
        ("c.traj", b"x"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=name) as caught:
            datasets.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput):
        datasets.read(tmp_path)


def _water(energy: float | None = None) -> ase.Atoms:
    atoms = ase.Atoms("OHH", [[0, 0, 0.1], [0, 0.8, 0.7], [0, -0.8, 0.7]])
    if energy is not None:
        atoms.info["energy"] = energy
    return atoms


def _through(tmp_path, *atoms, **options):
    path = tmp_path / "data.extxyz"
    ase.io.write(path, list(atoms), format="extxyz")
    return datasets.read(path, **options)


def _random_dataset(sizes: list[int]) -> datasets.Dataset:
    rng = np.random.default_rng(len(sizes))
    structures, labels = [], []
    for atoms in sizes:
        structures.append(
            Structure(
                positions=np.arange(atoms)[:, None] * 2.0 + rng.uniform(0, 0.5, (atoms, 3)),
                species=rng.integers(1, 9, atoms).astype(np.int32),
                cell=np.eye(3) * 12.0,
                charge=np.int32(0),
                multiplicity=np.int32(0),
            )
        )
        labels.append(
            empty_labels(atoms)._replace(
                energy=rng.normal(size=()), forces=rng.normal(size=(atoms, 3))
            )
        )
    return datasets.append(datasets.empty(), structures, labels)
