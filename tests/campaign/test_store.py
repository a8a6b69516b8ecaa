"""The store: what is written comes back exactly, a crash leaves all or nothing, damage is named."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alj.arrays import double_precision
from alj.campaign import store as store_module
from alj.campaign import trees
from alj.campaign.store import DiskFull, FolderStore, claim, read_claim, storable, write_file
from alj.types import BadInput, Structure


@storable
class Marked(NamedTuple):
    left: np.ndarray
    right: dict


class Unmarked(NamedTuple):
    left: int


ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int32, np.int64, np.bool_, np.uint8]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), ARRAYS, st.just(np.float32(3))
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3),
        st.builds(Marked, ARRAYS, st.dictionaries(st.text(), inner, max_size=2)),
    ),
    max_leaves=8,
)


def same(one, other) -> bool:
    if isinstance(one, (np.ndarray, np.generic)):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and (one == other or (one != one and other != other))


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_trees_come_back_exactly(value):
    assert same(trees.decode(trees.encode(value), "here"), value)


def test_jax_arrays_keep_their_kind_and_precision():
    with double_precision(False):
        assert not jax.config.jax_enable_x64
        value = {"single": jnp.arange(3.0), "half": jnp.ones(2, jnp.bfloat16)}
        with double_precision():
            value["double"] = jnp.asarray(1 / 3)
        back = trees.decode(trees.encode(value), "here")
    assert {key: leaf.dtype for key, leaf in back.items()} == {
        "single": jnp.float32,
        "half": jnp.bfloat16,
        "double": jnp.float64,
    }
    assert all(isinstance(leaf, jax.Array) for leaf in back.values())
    assert float(back["double"]) == 1 / 3


@pytest.mark.parametrize(
    "value", [jax.random.key(0), lambda: 0, Unmarked(1), {1: 2}, object(), np.array([{}])]
)
def test_what_cannot_be_stored_is_refused(value):
    with pytest.raises(TypeError, match="value"):
        trees.encode({"value": value})


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_every_flipped_byte_is_noticed(place, change):
    data = bytearray(trees.encode({"a": np.arange(5.0), "b": "text"}))
    data[place % len(data)] ^= change
    with pytest.raises(BadInput, match="damaged"):
        trees.decode(bytes(data), "file")


def test_every_truncation_is_noticed():
    data = trees.encode({"a": np.arange(5.0)})
    for length in range(0, len(data), 7):
        with pytest.raises(BadInput, match="damaged"):
            trees.decode(data[:length], "file")


def test_remember_computes_once_and_returns_what_was_stored(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": jnp.arange(2.0), "s": Structure(*(np.zeros(1) for _ in range(5)))}

    with FolderStore(tmp_path) as store:
        first = store.remember("000/state", compute)
    with FolderStore(tmp_path) as store:
        second = store.remember("000/state", compute)
        assert store.knows("000/state")
        assert not store.knows("001/state")
        assert store.recall("001/state") is None
    assert len(calls) == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert isinstance(second["s"], Structure)
    assert np.array_equal(first["x"], second["x"])


def test_optax_states_come_back_through_an_example(tmp_path):
    params = {"w": jnp.arange(3.0)}
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)
    with FolderStore(tmp_path) as store:
        with pytest.raises(TypeError, match="like"):
            store.remember("a", lambda: state)
        store.remember("a", lambda: (7, state), like=(0, state))
        done, back = store.recall("a", like=(0, state))
        assert done == 7
        assert jax.tree.structure(back) == jax.tree.structure(state)
        with pytest.raises(BadInput, match="does not fit"):
            store.recall("a", like={"other": 0})


def test_checkpoints_are_replaced_and_forgotten(tmp_path):
    with FolderStore(tmp_path) as store:
        store.replace("training", 1)
        store.replace("training", 2)
        assert store.recall("training") == 2
        store.forget("training")
        store.forget("training")
        assert store.recall("training") is None
        with pytest.raises(ValueError, match="name"):
            store.path("../outside")


def test_damage_says_which_file_and_what_to_do(tmp_path):
    with FolderStore(tmp_path) as store:
        store.remember("000/state", lambda: np.arange(4))
        path = store.path("000/state")
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(BadInput, match=r"state\.tree.*delete") as caught:
            store.remember("000/state", lambda: 1)
    assert "\n" not in str(caught.value)


def test_two_processes_on_one_folder(tmp_path):
    with FolderStore(tmp_path):
        with pytest.raises(BadInput, match=f"in use by process {os.getpid()} on"):
            FolderStore(tmp_path).__enter__()
        code = f"""
            from alj.campaign.store import FolderStore
            from alj.types import BadInput
            try:
                FolderStore({str(tmp_path)!r}).__enter__()
            except BadInput as error:
                raise SystemExit(str(error))
        """
        other = _python(code)
        _, complaint = other.communicate(timeout=60)
        assert f"in use by process {os.getpid()}" in complaint
    with FolderStore(tmp_path):
        pass


def test_a_kill_in_the_middle_of_a_write_leaves_nothing(tmp_path):
    code = f"""
        import os, signal
        from alj.campaign import store as module
        write = module._write
        def half(path, data):
            if "second" in path.name:
                write(path, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, data)
        module._write = half
        with module.FolderStore({str(tmp_path)!r}) as store:
            store.remember("first", lambda: 1)
            store.remember("second", lambda: 2)
    """
    killed = _python(code)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "rounds").glob(".*")], "the kill came too early"
    with FolderStore(tmp_path) as store:
        assert store.remember("first", lambda: 10) == 1
        assert store.remember("second", lambda: 20) == 20
        assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == [
            "first.tree",
            "second.tree",
        ]


def test_a_full_disk_is_clear_and_loses_nothing(tmp_path, monkeypatch):
    write, full = store_module._write, True

    def failing(path, data):
        if full:
            path.write_bytes(data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(store_module, "_write", failing)
    with FolderStore(tmp_path) as store:
        with pytest.raises(DiskFull, match="no space left while writing"):
            store.remember("000/state", lambda: 1)
        assert list((tmp_path / "rounds" / "000").iterdir()) == []
        with pytest.raises(DiskFull):
            claim(tmp_path, {"rounds": 1})
        assert not (tmp_path / "run.yaml").exists()
        full = False
        assert store.remember("000/state", lambda: 2) == 2


def test_where_nothing_may_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write_file(tmp_path / "file" / "x", b"")
    with pytest.raises(BadInput, match="cannot be written"):
        write_file(tmp_path, b"")
    with pytest.raises(BadInput, match="not a folder"):
        FolderStore(tmp_path / "file").__enter__()


def test_a_folder_belongs_to_its_configuration(tmp_path):
    config = {"rounds": 3, "potential": {"name": "x", "cutoff_A": 3.5}, "sampler": [{"name": "y"}]}
    assert claim(tmp_path, config) == []
    assert claim(tmp_path, config) == []
    assert claim(tmp_path, {**config, "rounds": 9}) == ["rounds: 3 -> 9"]
    assert read_claim(tmp_path)["config"]["rounds"] == 9
    assert "jax" in read_claim(tmp_path)["versions"]
    with pytest.raises(BadInput, match=r"potential.cutoff_A: 3.5 -> 4.0"):
        claim(tmp_path, {**config, "potential": {"name": "x", "cutoff_A": 4.0}})
    with pytest.raises(BadInput, match=r"sampler"):
        claim(tmp_path, {**config, "sampler": []})
    (tmp_path / "run.yaml").write_text("config: [")
    with pytest.raises(BadInput, match="damaged"):
        claim(tmp_path, config)
    with pytest.raises(BadInput, match="not a run folder"):
        read_claim(tmp_path / "elsewhere")


def test_a_setting_that_is_younger_than_the_folder_has_its_default_there(tmp_path):
    def resolve(config):
        if "gone" in config:
            raise BadInput("gone: unknown key")
        return {"cutoff_A": 3.5, "hysteresis": 0.0, **config}

    claim(tmp_path, {"cutoff_A": 4.0})
    assert claim(tmp_path, resolve({"cutoff_A": 4.0}), resolve=resolve) == []
    with pytest.raises(BadInput, match=r"\(hysteresis: 0.0 -> 0.5\); choose"):
        claim(tmp_path, resolve({"cutoff_A": 4.0, "hysteresis": 0.5}), resolve=resolve)
    claim(tmp_path / "old", {"gone": 1})
    with pytest.raises(BadInput, match="gone: 1 -> absent"):
        claim(tmp_path / "old", resolve({}), resolve=resolve)


def _python(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True
    )
