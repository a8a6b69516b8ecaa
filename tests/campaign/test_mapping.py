"""Maps: known projections of known points, and the ledger behind every structure of a campaign."""

import numpy as np
import pytest
from campaign.test_loop import CONFIG

from alj.campaign import map_file, mapping
from alj.campaign.ledger import Ledger
from alj.campaign.loop import run_campaign
from alj.campaign.mapping import projected, write_map
from alj.types import BadInput


def test_principal_components_are_those_of_numpy():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5))
    found, titles = projected(features, landmarks=False)
    scaled = (features - features.mean(0)) / features.std(0)
    _, values, axes = np.linalg.svd(scaled, full_matrices=False)
    wanted = scaled @ axes[:2].T
    np.testing.assert_allclose(np.abs(found["pca"]), np.abs(wanted), atol=1e-9)
    share = values[0] ** 2 / np.sum(values**2)
    assert f"({100 * share:.0f} % of the variance)" in titles["pca"]["x"]


def test_constant_features_and_a_single_one_are_drawn_too():
    rng = np.random.default_rng(3)
    features = np.column_stack([rng.normal(size=9), np.full(9, 7.0)])
    assert np.isfinite(projected(features, landmarks=False)[0]["pca"]).all()
    assert np.isfinite(projected(features[:, :1], landmarks=False)[0]["pca"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "title"), [("tsne", "t-SNE"), ("umap", "UMAP")])
def test_clusters_stay_apart_and_landmarks_only_are_placed(monkeypatch, name, title):
    monkeypatch.setattr(mapping, "LANDMARKS", 60)
    rng = np.random.default_rng(4)
    kind = np.arange(120) % 3
    features = rng.normal(size=(120, 6)) + 12 * np.eye(6)[kind]
    found, titles = projected(features, landmarks=True)
    placed = np.isfinite(found[name]).all(axis=1)
    assert placed.sum() == 60
    assert titles[name]["title"] == f"{title}, 60 landmarks"
    points, kinds = found[name][placed], kind[placed]
    middle = np.stack([points[kinds == k].mean(0) for k in range(3)])
    nearest = np.argmin(np.linalg.norm(points[:, None] - middle, axis=2), axis=1)
    assert np.mean(nearest == kinds) == 1.0


@pytest.mark.slow
def test_a_campaign_is_mapped_with_its_ledger(tmp_path):
    folder = tmp_path / "run"
    run_campaign(CONFIG, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert write_map(folder, landmarks=False)
    assert {p: p.read_bytes() for p in before} == before
    known = map_file.read(folder)
    assert known is not None
    assert known.count == 12
    assert known.about["categories"]["source"] == ["metropolis_mc", "nested_mc", "perturbation"]
    assert np.bincount(known.columns["round"]).tolist() == [6, 3, 3]
    with Ledger(folder, read_only=True) as ledger:
        rows = {row["hash"]: row for row in ledger.structures()}
        labels = ledger.find(list(rows))
    for index in range(known.count):
        one = map_file.read_geometry(folder, index)
        assert rows[one.hash]["round"] == known.columns["round"][index]
        energy = float(labels[one.hash].energy) / len(one.species)
        assert known.columns["energy"][index] == pytest.approx(energy, rel=1e-5)
    written = (folder / map_file.NAME).stat().st_mtime_ns
    assert write_map(folder, landmarks=False)
    assert (folder / map_file.NAME).stat().st_mtime_ns == written  # nothing has changed


def test_a_folder_without_a_model_has_no_map(tmp_path):
    with pytest.raises(BadInput, match=r"run\.yaml"):
        write_map(tmp_path)
    (tmp_path / "run.yaml").write_text("config: {seed: 1}\n")
    assert not write_map(tmp_path)
