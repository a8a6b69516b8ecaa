"""The loop of Table 2: what is unknown joins, the rest is left alone, and it ends and resumes."""

import ase
import ase.io
import numpy as np
import pytest

from alj.campaign import covering, datasets
from alj.campaign.covering import cover, lines, make_plan
from alj.types import BadInput

K = 5.0
"""Of springs between all pairs of atoms, eV/Å^2: a set that a small network can learn."""


def springs(positions, rest):
    """Energy and forces of springs between all pairs at their rest lengths."""
    vectors = positions[:, None] - positions[None]
    lengths = np.linalg.norm(vectors + np.eye(len(positions))[..., None], axis=-1)
    stretch = np.where(np.eye(len(positions)), 0.0, lengths - rest)
    forces = -K * np.sum((stretch / lengths)[..., None] * vectors, axis=1)
    return 0.25 * K * np.sum(stretch**2), forces


def write_pool(path, count=120, seed=0):
    """Triangles and tetrahedra of one element: their programs compile in seconds."""
    corners = 2.0 * np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.87, 0], [0.5, 0.29, 0.82]])
    rng, frames = np.random.default_rng(seed), []
    for i in range(count):
        here = corners[: 3 + i % 2]
        rest = np.linalg.norm(here[:, None] - here[None], axis=-1)
        positions = here + rng.normal(0, 0.06 * (1 + i % 3), here.shape)
        energy, forces = springs(positions, rest)
        atoms = ase.Atoms(f"O{len(here)}", positions)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
        frames.append(atoms)
    ase.io.write(path, frames)


def config(path, **changes):
    loop = {"start": 20, "add": 15, "most": 50, "predicted": 40, "accuracy_eV_per_A": 0.05}
    return {
        "seed": 3,
        "precision": "float64",
        "data": {"pool": str(path), "test_count": 10},
        "potential": {"name": "behler_parrinello", "hidden": [8]},
        "trainer": {
            "name": "gradient", "members": 2, "epochs": 20, "force_weight": 1.0,
            "learning_rate": 0.02, "split": "k_fold", "precision": "float64",
        },
        "esoinn": {"period": 40},
        "reduce": {**loop, **changes},
    }  # fmt: skip


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.extxyz"
    write_pool(path)
    return path


@pytest.mark.slow
def test_the_kept_part_grows_by_what_is_unknown_until_it_ends(pool, tmp_path):
    plan = make_plan(config(pool))
    found = cover(plan, tmp_path / "run")
    assert [row["kept"] for row in found.rows] == [20, 35, 50]
    assert "limit 50" in found.reason
    kept, _ = datasets.read(found.kept)
    places = [info["pool_index"] for info in kept.info]
    assert len(set(places)) == 50
    assert [info["kept_round"] for info in kept.info] == [0] * 20 + [1] * 15 + [2] * 15
    for row in found.rows:
        shares = [row[name] for name in ("known", "questionable", "unknown", "broken")]
        assert sum(shares) == pytest.approx(1.0)
        assert row["delta_eV_per_A"] == pytest.approx(0.05 * np.sqrt(2))
        regions = [row[f"unknown_{name}"] for name in covering.REGIONS.values()]
        assert sum(regions) == round(40 * row["unknown"])
    assert found.rows[-1]["force_rmse_eV_per_A"] < found.rows[0]["force_rmse_eV_per_A"]
    for name in ("rounds.csv", "rounds.png", "model/model.yaml"):
        assert (tmp_path / "run" / name).is_file()
    assert "δ < χ < 2δ" in lines(found.rows)[0]
    again = cover(plan, tmp_path / "run")
    assert again.rows == found.rows
    tree = tmp_path / "run" / "rounds" / "round-002.tree"
    tree.unlink()  # as if it had been killed before
    fresh = cover(plan, tmp_path / "run")
    assert fresh.rows[-1]["kept"] == 50
    assert fresh.kept.read_text() == found.kept.read_text()


@pytest.mark.slow
def test_it_ends_where_hardly_anything_is_unknown(pool, tmp_path):
    found = cover(make_plan(config(pool, accuracy_eV_per_A=50.0)), tmp_path / "run")
    assert found.reason == "less than 1 % is unknown"
    assert len(found.rows) == 1
    assert found.rows[0]["known"] == 1.0


def test_mistakes_are_named(pool, alj):
    alone = config(pool)
    alone["trainer"]["members"] = 1
    with pytest.raises(BadInput, match=r"members: networks must be able to disagree"):
        make_plan(alone)
    with pytest.raises(BadInput, match=r"rduce: unknown key, did you mean 'reduce'"):
        make_plan({**config(pool), "rduce": {}})
    with pytest.raises(BadInput, match="0 < start <= most"):
        make_plan(config(pool, start=60))
    (pool.parent / "loop.yaml").write_text("data: {pool: pool.extxyz}\ntrainer: gradient\n")
    code, _, error = alj("reduce", "loop.yaml", "--share", 0.1, "--out", "run")
    assert code == 2
    assert "are for sets" in error
