"""The de-redundancy experiment from end to end on a small set, and its data."""

import deredundancy
import deredundancy_page
import h5py
import numpy as np
import pytest
from campaign.test_covering import write_pool
from organic_conformations import labeled_anew, normal_modes, sampled
from stand_in_data import relaxed

from alj.campaign import datasets
from alj.campaign.molecules import molecule
from alj.campaign.store import FolderStore
from alj.labeling import build_labeler
from alj.units import BOLTZMANN

PLAN = {
    "seeds": [1],
    "strategies": list(deredundancy.STRATEGIES),
    "data": {"molecules": 2, "each": 60, "test": 20},
    "shares": [0.2, 0.4],
    "potential": {"name": "behler_parrinello", "hidden": [4]},
    "trainer": {
        "name": "gradient", "members": 1, "force_weight": 1.0, "batch_size": 8, "split": "random",
        "validation_fraction": 0.1,
    },
    "updates": 20,
    "esoinn": {"period": 40},
    "loop": {
        "trainer": {"members": 2, "epochs": 3, "split": "k_fold"}, "start_share": 0.2,
        "add_share": 0.2, "predicted": 30, "accuracy_eV_per_A": 0.01, "unknown_fraction": 0.01,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("strategy", deredundancy.STRATEGIES)
def test_every_strategy_keeps_its_shares_and_is_judged(tmp_path, strategy):
    write_pool(tmp_path / "pool.extxyz", 80)
    write_pool(tmp_path / "test.extxyz", 20, seed=9)
    plan = {**PLAN, "strategies": [strategy]}
    deredundancy.followed(plan, strategy, str(tmp_path))
    found = deredundancy.found_in(plan, tmp_path)
    sizes = sorted(found[strategy][1])
    assert sizes == ([80] if strategy == "everything" else [16, 32])
    for size, errors in found[strategy][1].items():
        assert errors["kept"] == size
        assert np.isfinite(errors["test_force_rmse_eV_per_A"])
        assert ("rest_force_rmse_eV_per_A" in errors) == (strategy != "everything")
    deredundancy_page.collect(plan, found, tmp_path, tmp_path / "results")
    assert (tmp_path / "results" / "error_against_share.png").is_file()
    page = (tmp_path / "results" / "README.md").read_text()
    assert ("| here 1 | 16 | 20.00%" in page) == (strategy == "loop")


@pytest.mark.engine
def test_conformations_have_the_energy_of_their_modes():
    """Cold water, which is harmonic: what the modes say of the energy, and the engine itself."""
    labeler = build_labeler({"name": "sparrow", "method": "PM6"})
    data = sampled(np.random.default_rng(0), "O", 12, 30.0, labeler)
    assert datasets.count(data) == 12
    start = molecule(np.random.default_rng(0), None, smiles="O")[0].structure
    minimum = relaxed(start, labeler, 0.02, 300)
    stiffness, modes = normal_modes(minimum, labeler)
    assert len(stiffness) == 3
    np.testing.assert_allclose(np.einsum("mij,nij->mn", modes, modes), np.eye(3), atol=1e-8)
    moved = np.stack([one.positions for one in datasets.structures(data)]) - minimum.positions
    lengths = np.einsum("mij,nij->nm", modes, moved)
    harmonic = 0.5 * lengths**2 @ stiffness
    known = labeler.label(minimum)
    left = np.einsum("nij,ij->n", moved, known.forces)  # relaxed to 0.02 eV/Å, not to zero
    found = data.energy - float(known.energy)
    np.testing.assert_allclose(found, harmonic - left, rtol=0.05, atol=2e-6)
    share = harmonic / (1.5 * 3 * BOLTZMANN * 30.0)
    assert share.max() < 1.0
    assert share.max() > 2.0 * share.min()


@pytest.mark.engine
def test_files_of_ani_are_labeled_anew(tmp_path):
    from ase.build import molecule

    water = molecule("H2O").positions
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "ani_gdb_s01.h5", "w") as root:
        group = root.create_group("gdb11_s01/gdb11_s01-0")
        group["coordinates"] = water + rng.normal(0, 0.02, (9, 3, 3))
        group["energies"] = np.full(9, -76.4)
        group["species"] = np.array([b"O", b"H", b"H"])
    with FolderStore(tmp_path / "work") as store:
        data = labeled_anew(store, tmp_path / "ani_gdb_s01.h5", 5)
    assert datasets.count(data) == 5
    labeler = build_labeler({"name": "sparrow", "method": "PM6"})
    again = labeler.label(datasets.structure(data, 2))
    assert float(again.energy) == pytest.approx(data.energy[2], abs=1e-6)
    assert {info["reference"] for info in data.info} == {labeler.convention}
