"""Molecules from SMILES, held to RDKit's formulas and charges, and labeled by GFN2-xTB."""

import numpy as np
import pytest
from ase.collections import g2
from ase.formula import Formula

from alj.campaign.build import build_structures
from alj.campaign.molecules import AMBIGUOUS
from alj.campaign.names import NAMES
from alj.labeling import build_labeler
from alj.labeling.atoms import atoms_of
from alj.types import BadInput

pytestmark = pytest.mark.engine


def build(seed=0, count=None, **settings):
    spec = {"name": "molecule", **settings}
    return [one.structure for one in build_structures(spec, np.random.default_rng(seed), count)]


def formula(structure):
    return Formula(atoms_of(structure).get_chemical_formula())


def bonds(structure):
    """Pairs of atoms nearer than 1.25 times the sum of their covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[structure.species]
    apart = atoms_of(structure).get_all_distances()
    return {
        (int(i), int(j))
        for i, j in zip(*np.triu_indices(len(apart), 1), strict=True)
        if apart[i, j] < 1.25 * (radii[i] + radii[j])
    }


def rdkit_says(smiles):
    from rdkit import Chem
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    written = CalcMolFormula(graph).split("+")[0].split("-")[0]
    connected = {
        tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))) for bond in graph.GetBonds()
    }
    return Formula(written), Chem.GetFormalCharge(graph), connected


@pytest.mark.parametrize(
    ("smiles", "multiplicity"),
    [
        ("CCO", 0), ("c1ccccc1", 0), ("CC(=O)[O-]", 0), ("C[NH3+]", 0), ("[OH]", 2), ("[CH2]", 3),
        ("O=O", 3), ("[H][H]", 0), ("[Na+]", 0), ("[Fe]", 5), ("[He]", 1), ("CS(C)=O", 0),
        ("C[Si](C)(C)C", 0), ("ClC(Cl)Cl", 0), ("[O-][N+](=O)c1ccccc1", 0), ("C#C[CH2]", 2),
    ],
)  # fmt: skip
def test_atoms_charge_bonds_and_spin_are_those_of_the_smiles(smiles, multiplicity):
    (one,) = build(smiles=smiles)
    expected, charge, connected = rdkit_says(smiles)
    assert formula(one) == expected
    assert int(one.charge) == charge
    assert int(one.multiplicity) == multiplicity
    assert bonds(one) == connected
    np.testing.assert_allclose(one.positions.mean(axis=0), 0.0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, (kind, _) in NAMES.items() if kind == "smiles"])
def test_every_name_that_stands_for_a_smiles_is_a_molecule(name):
    (one,) = build(molecule=name)
    expected, charge, connected = rdkit_says(NAMES[name][1])
    assert formula(one) == expected
    assert charge == 0
    assert bonds(one) == connected


def test_names_have_the_formulas_of_the_g2_set_where_both_know_them():
    same = {
        "methane": "CH4", "ethane": "C2H6", "propane": "C3H8", "isobutane": "isobutane",
        "methanol": "CH3OH", "ethanol": "CH3CH2OH", "acetone": "CH3COCH3", "pyridine": "C5H5N",
        "acetic acid": "CH3COOH", "acetamide": "CH3CONH2", "acetaldehyde": "CH3CHO",
        "formic acid": "HCOOH", "methylamine": "H3CNH2", "acetonitrile": "CH3CN",
        "nitromethane": "CH3NO2", "dimethyl ether": "CH3OCH3", "furan": "C4H4O",
        "thiophene": "C4H4S", "pyrrole": "C4H4NH", "chloroform": "HCCl3", "butadiene": "butadiene",
        "carbon tetrachloride": "CCl4", "dimethyl sulfoxide": "C2H6SO", "cyclopropane": "C3H6_D3h",
    }  # fmt: skip
    for name, entry in same.items():
        assert rdkit_says(NAMES[name][1])[0] == Formula(g2[entry].get_chemical_formula()), name


def test_amino_acids_are_left_handed():
    from rdkit import Chem

    for name in ("alanine", "alanine dipeptide"):
        graph = Chem.MolFromSmiles(NAMES[name][1])
        assert [label for _, label in Chem.FindMolChiralCenters(graph)] == ["S"]


def test_the_ambiguous_formulas_are_all_there_are():
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        both = [n for n in g2.names if len(g2[n]) > 1 and Chem.MolFromSmiles(n) is not None]
    assert sorted(both) == sorted(AMBIGUOUS)
    (methanol,) = build(smiles="CO")
    assert formula(methanol) == Formula("CH4O")


def test_the_same_seed_gives_the_same_geometry():
    first, again, other = build(1, smiles="CCCO"), build(1, smiles="CCCO"), build(2, smiles="CCCO")
    np.testing.assert_array_equal(first[0].positions, again[0].positions)
    assert np.abs(first[0].positions - other[0].positions).max() > 1e-6


def dihedral(structure, *atoms):
    return atoms_of(structure).get_dihedral(*atoms)


def test_butane_has_its_three_conformers():
    several = build(smiles="CCCC", conformers=3)
    angles = sorted(dihedral(one, 0, 1, 2, 3) for one in several)
    np.testing.assert_allclose(angles, [65, 180, 295], atol=6)
    assert dihedral(several[0], 0, 1, 2, 3) == pytest.approx(180, abs=1)  # anti is the lowest
    with pytest.raises(BadInput, match=r"found 3 of 'CCCC' that differ by 0\.3 Å, expected 9"):
        build(smiles="CCCC", conformers=9)


def test_hydroxyl_groups_turn_too():
    several = build(smiles="CCO", conformers=3)
    angles = sorted(dihedral(one, 0, 1, 2, 8) for one in several)
    np.testing.assert_allclose(angles, [60, 180, 300], atol=12)


def test_conformers_take_turns():
    built = build_structures(
        {"name": "molecule", "smiles": "CCCC", "conformers": 3, "rattle_A": 0.01},
        np.random.default_rng(0),
        7,
    )
    assert [one.info["conformer"] for one in built] == [0, 1, 2, 0, 1, 2, 0]


def test_ions_are_mixed_in_a_box():
    spec = {"name": "box", "mixture": {"water": 30, "[Na+]": 3, "[Cl-]": 2}}
    (built,) = build_structures(spec, np.random.default_rng(0))
    assert int(built.structure.charge) == 1
    assert len(built.structure.species) == 95


def test_hexane_packs_at_the_density_of_the_liquid():
    spec = {"name": "box", "molecule": "hexane", "copies": 24, "density_g_per_cc": 0.655}
    (built,) = build_structures(spec, np.random.default_rng(0))
    apart = atoms_of(built.structure).get_all_distances(mic=True)
    owner = np.arange(len(apart)) // 20
    assert apart[owner[:, None] != owner[None]].min() >= 2.0


@pytest.mark.parametrize("name", ["alanine dipeptide", "hexane", "acetamide", "glycine"])
def test_molecules_can_be_labeled(name):
    (one,) = build(molecule=name)
    labels = build_labeler({"name": "tblite"}).label(one)
    assert np.isfinite(float(labels.energy))
    # A force field's minimum is near that of GFN2-xTB: no force as large as in a broken geometry.
    assert 0 < np.abs(labels.forces).max() < 3.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"molecule": "watr"}, "no known name and no SMILES that parses, did you mean 'water'"),
        ({"molecule": "acetic acids"}, "did you mean 'acetic acid'"),
        ({"smiles": "C(C"}, "no SMILES that parses"),
        ({"smiles": ""}, "no SMILES that parses"),
        ({"smiles": "[Na+].[Cl-]"}, "expected one molecule"),
        ({"smiles": "C*"}, "wildcard"),
        ({"smiles": "F[Xe]F"}, "no parameters in MMFF94 and UFF"),
        ({"smiles": "C[B]", "force_field": "mmff94"}, "no parameters in MMFF94 for"),
        ({"smiles": "CC", "conformers": 0}, "expected 1 or more, found 0"),
        ({"smiles": "C", "conformers": 2}, "found 1 of 'C'"),
    ],
)
def test_what_cannot_be_built_is_one_line(settings, words, capfd):
    with pytest.raises(BadInput, match=words) as caught:
        build(**settings)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_molecule_without_parameters_can_be_left_as_embedded():
    (one,) = build(smiles="F[Xe]F", force_field="none")
    assert len(one.species) == 3
