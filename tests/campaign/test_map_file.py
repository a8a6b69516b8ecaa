"""The stored map: what was written comes back, a part costs a part, damage is told."""

import numpy as np
import pytest

from alj.campaign import map_file

SIZES = [2, 5, 1]


def content(**more):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    geometries = {
        "species": rng.integers(1, 90, offsets[-1]), "positions": rng.normal(size=(offsets[-1], 3)),
        "cell": rng.normal(size=(3, 3, 3)), "offsets": offsets,
    }  # fmt: skip
    projections = {"pca": rng.normal(size=(3, 2)), "tsne": np.full((3, 2), np.nan)}
    columns = {"round": np.array([-1, 0, 1]), "error": np.array([0.1, np.nan, 3.0])}
    about = {"projections": {"pca": {"title": "<b>", "x": "1", "y": "2"}}, "columns": {}}
    hashes = ["a" * 64, "", "b"]
    return map_file.encode(about, projections, columns, geometries, hashes, **more), (
        geometries, projections, columns, hashes,
    )  # fmt: skip


def test_what_was_written_comes_back(tmp_path):
    data, (geometries, projections, columns, hashes) = content()
    (tmp_path / map_file.NAME).write_bytes(data)
    known = map_file.read(tmp_path)
    assert known is not None
    assert known.count == 3
    assert known.about["projections"]["pca"]["title"] == "<b>"
    for name, values in projections.items():
        np.testing.assert_allclose(known.projections[name], values, rtol=1e-6)
    np.testing.assert_allclose(known.columns["error"], columns["error"], rtol=1e-6)
    assert known.columns["round"].tolist() == [-1, 0, 1]
    assert (known.nodes, known.node_class, known.edges) == ({}, None, None)
    for index in range(3):
        one = map_file.read_geometry(tmp_path, index)
        rows = slice(geometries["offsets"][index], geometries["offsets"][index + 1])
        assert one.species.tolist() == geometries["species"][rows].tolist()
        np.testing.assert_allclose(one.positions, geometries["positions"][rows], rtol=1e-6)
        np.testing.assert_allclose(one.cell, geometries["cell"][index], rtol=1e-6)
        assert one.hash == hashes[index]


def test_nodes_of_a_clustering_are_optional(tmp_path):
    nodes, classes = {"pca": np.eye(2)}, np.array([0, 1])
    data, _ = content(nodes=nodes, node_class=classes, edges=np.array([[0, 1]]))
    (tmp_path / map_file.NAME).write_bytes(data)
    known = map_file.read(tmp_path)
    assert known is not None
    assert known.nodes["pca"].tolist() == [[1, 0], [0, 1]]
    assert known.node_class.tolist() == [0, 1]
    assert known.edges.tolist() == [[0, 1]]


def test_there_may_be_no_map_and_no_such_structure(tmp_path):
    assert map_file.read(tmp_path) is None
    with pytest.raises(IndexError):
        map_file.read_geometry(tmp_path, 0)
    (tmp_path / map_file.NAME).write_bytes(content()[0])
    for index in (3, -1, 10**9):
        with pytest.raises(IndexError):
            map_file.read_geometry(tmp_path, index)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_file_that_is_cut_off_is_told(tmp_path, share):
    data, _ = content()
    (tmp_path / map_file.NAME).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="damaged"):
        map_file.read(tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        map_file.read_geometry(tmp_path, 1)


def test_nothing_in_a_map_is_executed(tmp_path):
    """An array of objects would be a pickle."""
    np.savez(tmp_path / map_file.NAME, about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle|damaged|[Oo]bject"):
        map_file.read(tmp_path)
