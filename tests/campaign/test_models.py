"""Models on disk: what is loaded is what was saved, and nothing in a model is executed."""

import pickle

import jax
import numpy as np
import pytest
from campaign.tiny import CONFIG, trained

from alj.campaign import models, trees
from alj.campaign import store as store_module
from alj.campaign.store import DiskFull
from alj.types import BadInput


@pytest.fixture(scope="module")
def params():
    return trained()[1]


def save(folder, params, **changes):
    given = {
        "potential_config": CONFIG,
        "species": (8,),
        "params": params,
        "precision": "float64",
        "provenance": {"round": 3},
    }
    models.save(folder, **(given | changes))


def test_a_model_comes_back_exactly(tmp_path, params):
    save(tmp_path / "run" / "model", params)
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        model = models.load(path)
        assert (model.members, model.species, model.dtype) == (3, (8,), np.float64)
        assert model.potential.cutoff == 3.2
        assert model.config["provenance"] == {"round": 3}
        same = jax.tree.map(lambda a, b: np.array_equal(a, b), model.params, params)
        assert all(jax.tree.leaves(same))
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    save(tmp_path / "run" / "model", single, precision="float32")
    assert models.load(tmp_path / "run").dtype == np.float32
    assert len(list((tmp_path / "run" / "model").iterdir())) == 2


def test_a_classical_potential_is_a_model_too(tmp_path):
    empty = {"body": {}, "readout": {}, "constants": {}}
    save(tmp_path, empty, potential_config="lennard_jones")
    model = models.load(tmp_path)
    assert (model.members, model.dtype) == (1, np.float64)


def test_a_full_disk_leaves_the_old_model(tmp_path, params, monkeypatch):
    save(tmp_path, params)
    other = jax.tree.map(lambda leaf: leaf + 1, params)

    def failing(path, data):
        if "yaml" in path.name:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(store_module, "_write", failing)
    with pytest.raises(DiskFull):
        save(tmp_path, other)
    same = jax.tree.map(np.array_equal, models.load(tmp_path).params, params)
    assert all(jax.tree.leaves(same))


def test_damaged_and_foreign_models_are_one_line(tmp_path, params):
    def expect(message):
        with pytest.raises(BadInput, match=message) as caught:
            models.load(tmp_path)
        assert "\n" not in str(caught.value)

    with pytest.raises(BadInput, match="no such folder"):
        models.load(tmp_path / "nowhere")
    expect("it has no model.yaml")
    save(tmp_path, params, potential_config={**CONFIG, "hidden": [5]})
    expect("does not fit the potential")
    save(tmp_path, params, potential_config={**CONFIG, "cutof_A": 3.0})
    expect("cutoff_A")
    save(tmp_path, params, potential_config="behler_parinello")
    expect("behler_parrinello")
    save(tmp_path, params)
    (stored,) = tmp_path.glob("params-*.tree")
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 4
    stored.write_bytes(bytes(data))
    expect("damaged")
    stored.write_bytes(trees.encode({"other": np.zeros(3)}))
    expect("does not fit")
    stored.unlink()
    expect("not there")
    (tmp_path / "model.yaml").write_text("format: 1\n")
    expect("lacks potential")


class Evil:
    def __reduce__(self):
        return pytest.fail, ("a model file was executed",)


def test_nothing_in_a_model_is_executed(tmp_path, params):
    save(tmp_path, params)
    (stored,) = tmp_path.glob("params-*.tree")
    stored.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BadInput, match="damaged"):
        models.load(tmp_path)
    text = (tmp_path / "model.yaml").read_text()
    for bad in ("!!python/object/apply:os.getcwd []", "../../etc/passwd"):
        line = f"params: {bad}\n"
        rest = "\n".join(row for row in text.splitlines() if not row.startswith("params"))
        (tmp_path / "model.yaml").write_text(f"{rest}\n{line}")
        with pytest.raises(BadInput):
            models.load(tmp_path)
