"""Published archives: small files of exactly their format are read right, bad ones are named."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from alj.campaign import archives, datasets, padded_arrays, qm9
from alj.types import BadInput
from alj.units import HARTREE, KCAL_PER_MOL

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765748*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501
"""Molecule 1, with one coordinate written as others of the set are."""

WATER = """3
gdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31\t-0.2928\t0.0687\t0.3615\t19.0002\t0.021375\t-76.404702\t-76.401867\t-76.400922\t-76.422349\t6.002\t
O\t-0.0343604951\t 0.9775395708\t 0.0076015923\t-0.589706
H\t 0.0647664923\t 0.0205721989\t 0.0015346341\t 0.294853
H\t 0.8717903737\t 1.3007924048\t 0.0006931336\t 0.294853
1671.4222\t3803.6305\t3907.698
O\tO\t
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
"""  # noqa: E501

UNCHARACTERIZED = """List of molecules among the 133885 GDB9 molecules for which …
different SMILES and InChI strings when parsed through the program Openbabel.
==========================================================================
# Index  GDB17 SMILES  SMILES for B3LYP XYZ  SMILES for Corina generated XYZ  D_IJ
==========================================================================
     3   O    [OH2]  O   6.036217
133885   C1CC1 C1CC1 C1CC1 1.2
"""


def archive(folder, members: dict[str, str], name="dsgdb9nsd.xyz.tar.bz2"):
    path = folder / name
    with tarfile.open(path, "w:bz2") as tar:
        for member, text in members.items():
            content = text.encode()
            about = tarfile.TarInfo(member)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


BOTH = {"dsgdb9nsd_000001.xyz": METHANE, "dsgdb9nsd_000003.xyz": WATER}


def test_molecules_of_qm9_are_read(tmp_path):
    data, taken = datasets.read(archive(tmp_path, BOTH))
    assert datasets.sizes(data).tolist() == [5, 3]
    np.testing.assert_allclose(data.energy, np.array([-40.47893, -76.404702]) * HARTREE, rtol=1e-12)
    assert data.species.tolist() == [6, 1, 1, 1, 1, 8, 1, 1]
    assert data.positions[2, 2] == 2.765748e-4
    assert data.charges[0] == -0.535689
    assert np.isnan(data.forces).all()
    first = data.info[0]
    assert (first["gdb"], first["smiles"]) == (1, "C")
    assert (first["gap_hartree"], first["U0_hartree"]) == (0.5048, -40.47893)
    assert (first["U_hartree"], first["Cv_cal_per_mol_K"]) == (-40.476062, 6.469)
    assert first["reference"] == qm9.REFERENCE
    assert "energy from REF_energy" in taken
    assert "2 structures, 3–5 atoms, species H C O" in taken


@pytest.mark.parametrize("kind", ["folder", "zip", "tar in a folder"])
def test_the_same_molecules_from_a_folder_or_a_zip(tmp_path, kind):
    whole, _ = datasets.read(archive(tmp_path, BOTH))
    path = tmp_path / "dsgdb9nsd"
    if kind == "folder":
        path.mkdir()
        (path / "readme.txt").write_text("not a molecule")
        for name, text in BOTH.items():
            (path / name).write_text(text)
    elif kind == "zip":
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as file:
            for name, text in BOTH.items():
                file.writestr(f"dsgdb9nsd/{name}", text)
            file.writestr("__MACOSX/._dsgdb9nsd_000001.xyz", "what another system adds")
    else:
        path = archive(tmp_path, {f"./xyz/{n}": t for n, t in BOTH.items()}, "other.tar.bz2")
    again, _ = datasets.read(path)
    np.testing.assert_array_equal(again.positions, whole.positions)
    np.testing.assert_array_equal(again.energy, whole.energy)


def test_a_list_beside_leaves_molecules_out(tmp_path):
    path = archive(tmp_path, BOTH)
    (tmp_path / archives.LISTED).write_text(UNCHARACTERIZED)
    data, taken = datasets.read(path)
    assert [info["gdb"] for info in data.info] == [1]
    assert "without the 2 molecules that uncharacterized.txt lists" in taken
    other = tmp_path / "other.extxyz"
    datasets.write(other, data)
    assert "uncharacterized" not in datasets.read(other)[1]


BAD_MOLECULES = {
    "an atom too many": (METHANE.replace("5\n", "4\n", 1), "expected 4 atoms as line 1 says"),
    "an atom too few": (METHANE.replace("5\n", "6\n", 1), "expected 11 lines for the 6 atoms"),
    "cut off": (METHANE[:300], "expected 10 lines for the 5 atoms of line 1, found"),
    "no properties": (METHANE.replace("gdb 1\t157.7118", "gdb 1"), "15 properties in line 2"),
    "no number": (METHANE.replace("1.0858041578", "1.08x"), "could not convert"),
    "a short row": (METHANE.replace("\t-0.535689", ""), "expected element, x, y, z, charge"),
    "nothing": ("", "expected the number of atoms in line 1, found nothing"),
}


@pytest.mark.parametrize("what", BAD_MOLECULES)
def test_a_malformed_molecule_is_named_in_one_line(tmp_path, what):
    text, message = BAD_MOLECULES[what]
    path = archive(tmp_path, {**BOTH, "dsgdb9nsd_000004.xyz": text})
    with pytest.raises(BadInput) as error:
        datasets.read(path)
    assert message in str(error.value)
    assert "dsgdb9nsd_000004.xyz" in str(error.value)
    assert "download the archive again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_archive_is_refused(tmp_path):
    many = {f"dsgdb9nsd_{i:06d}.xyz": METHANE.replace("gdb 1", f"gdb {i}") for i in range(1, 400)}
    path = archive(tmp_path, many)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"damaged or cut off after .* download it again"):
        datasets.read(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = archive(tmp_path, {"a.txt": "a", "b.txt": "b"}, "x.tar.bz2")
    with pytest.raises(BadInput, match=r"expected members such as dsgdb9nsd.*found a\.txt, b\.txt"):
        datasets.read(path)


def arrays(unit=KCAL_PER_MOL):
    """N with water, and two waters, padded to six atoms: energies and forces in `unit`."""
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions, species = np.zeros((2, 6, 3)), np.zeros((2, 6), int)
    positions[0, :3], positions[0, 3] = water, [0.0, 0.0, 3.0]
    positions[1, :3], positions[1, 3:] = water, water + np.array([0.0, 0.0, 3.0])
    species[0, :4], species[1] = [8, 1, 1, 7], [8, 1, 1, 8, 1, 1]
    energies = np.array([-76.3 - 54.5, -2 * 76.3]) * HARTREE
    forces = np.where(species[..., None] > 0, np.arange(36.0).reshape(2, 6, 3) / 36, 0.0)
    counts = np.array([4, 6])
    expected = (positions, energies, forces)
    given = {"R": positions, "Z": species, "N": counts, "E": energies / unit, "F": forces / unit}
    return given, expected


UNITS = {"kcal/mol": KCAL_PER_MOL, "eV": 1.0, "hartree": HARTREE, "kJ/mol": KCAL_PER_MOL / 4.184}


@pytest.mark.parametrize("unit", UNITS)
def test_padded_arrays_are_read_and_their_unit_is_found(tmp_path, unit):
    given, (positions, energies, forces) = arrays(UNITS[unit])
    path = tmp_path / "n-asw.npz"
    np.savez_compressed(path, **given)
    data, taken = datasets.read(path)
    assert datasets.sizes(data).tolist() == [4, 6]
    assert data.species.tolist() == [8, 1, 1, 7, 8, 1, 1, 8, 1, 1]
    np.testing.assert_allclose(data.energy, energies, rtol=1e-12)
    np.testing.assert_allclose(data.forces, np.concatenate([forces[0, :4], forces[1]]), rtol=1e-12)
    np.testing.assert_array_equal(data.positions[4:], positions[1])
    assert "forces from REF_forces" in taken
    assert padded_arrays.unit_of(given["E"], [row[row > 0] for row in given["Z"]]) == unit


def test_units_that_a_file_names_are_used(tmp_path):
    given, (_, _, forces) = arrays(1.0)
    valence = given["E"] / 20.0  # total energies of valence electrons only
    np.savez(tmp_path / "a.npz", **{**given, "E": valence})
    with pytest.raises(BadInput, match="none of them; say the unit in a text array e_unit"):
        datasets.read(tmp_path / "a.npz")
    named = {**given, "E": valence, "e_unit": "EV", "r_unit": "bohr"}
    np.savez(tmp_path / "a.npz", **named)
    data, _ = datasets.read(tmp_path / "a.npz")
    np.testing.assert_allclose(data.energy, valence)
    bohr = 0.529177210903
    np.testing.assert_allclose(data.forces[:4], forces[0, :4] / bohr, rtol=1e-6)
    np.testing.assert_allclose(data.positions[1, 0], 0.96 * bohr, rtol=1e-6)
    np.savez(tmp_path / "a.npz", **{**named, "e_unit": "furlong"})
    with pytest.raises(BadInput, match=r"expected e_unit to be one of kcal/mol, .*'furlong'"):
        datasets.read(tmp_path / "a.npz")


def test_one_row_of_atomic_numbers_and_no_padding(tmp_path):
    given, (_, energies, _) = arrays()
    one = {"R": given["R"][1:], "z": given["Z"][1], "E": given["E"][1:, None]}
    np.savez(tmp_path / "a.npz", **one)
    data, _ = datasets.read(tmp_path / "a.npz")
    np.testing.assert_allclose(data.energy, energies[1:])


def test_arrays_in_a_folder_are_told_apart_by_config_type(tmp_path):
    given, _ = arrays()
    for name in ("small", "large"):
        np.savez(tmp_path / f"{name}.npz", **given)
    data, _ = datasets.read(tmp_path)
    assert [info["config_type"] for info in data.info] == ["large"] * 2 + ["small"] * 2


BAD_ARRAYS = {
    "no Z": ({"Z": None}, "expected arrays R, Z, N, E and F, found no Z but"),
    "N is wrong": ({"N": np.array([5, 6])}, r"structure 0 .* expected N = 5 .* found 4"),
    "Z has a gap": (
        {"Z": np.array([[8, 0, 1, 1, 7, 0], [8, 1, 1, 8, 1, 1]])}, "and then zeros in Z",
    ),
    "E is short": ({"E": np.zeros(1)}, "expected 2 energies in E, found 1"),
    "F is narrow": ({"F": np.zeros((2, 5, 3))}, r"expected F of shape \(2, 6, 3\)"),
    "R is flat": ({"R": np.zeros((2, 18))}, r"expected R of shape \(structures, atoms, 3\)"),
    "ragged": ({"R": np.array([1, "a"], object)}, "expected a whole .npz of plain arrays"),
    "no labels": ({"E": None, "F": None}, "no energies and no forces found"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_malformed_arrays_are_refused_in_one_line(tmp_path, what):
    changes, message = BAD_ARRAYS[what]
    given = {**arrays()[0], **changes}
    np.savez(tmp_path / "a.npz", **{k: v for k, v in given.items() if v is not None})
    with pytest.raises(BadInput, match=message) as error:
        datasets.read(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_a_truncated_npz_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays()[0])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match=r"expected a whole \.npz .* download it again"):
        datasets.read(path)
