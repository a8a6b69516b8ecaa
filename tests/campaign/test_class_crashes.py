"""A campaign with a network of classes, killed anywhere, ends with the same nodes, bit by bit."""

import shutil

import jax
import numpy as np
import pytest
from campaign import crash_points
from campaign.crash_points import CONFIG, assert_same_end, end_of, watched

from alj.campaign import trees

BRIEF = {"name": "nvt_langevin", "temperature_K": 60.0, "steps": 40, "record_every": 4}
CLASSES = {
    **CONFIG,
    "potential": {
        "name": "meta_networks", "classes": 4, "nodes": 64, "atoms": 16,
        "body": CONFIG["potential"],
    },
    "classes": {"period": 40, "signals": 120, "least_structures": 3},
    "sampler": [
        {
            "name": "temperature_parallel", "lowest_K": 60.0, "highest_K": 120.0,
            "limit_eV_per_A": 1e-4, "dynamics": BRIEF, "walks": 2, "candidates": 4,
            "starts": "sparse", "longest": 2,
        },
        {"name": "perturbation", "frames": 3, "walks": 2},
    ],
    "selector": {"name": "esoinn_quota", "count": 4, "limit_eV_per_A": 1e-5, "closest_radii": 0.3},
    "data": {**CONFIG["data"], "held_out_fraction": 0.25, "reference_test": []},
}  # fmt: skip

pytestmark = pytest.mark.slow


def memory_of(folder):
    last = max((folder / "rounds").glob("*/state.tree"))
    state = trees.decode(last.read_bytes(), str(last))
    return (state if hasattr(state, "data") else state[0]).memory


def test_a_kill_anywhere_leaves_the_same_classes(tmp_path):
    whole, copies, points = tmp_path / "whole", tmp_path / "copies", []

    def copy(point):
        # what a kill can leave of a round: the stores before and behind every file and label
        if point.endswith((": half", ": renamed", "uncommitted")) and "event" not in point:
            shutil.copytree(whole, copies / f"{len(points):03d}")
            points.append(point)

    with watched(copy):
        crash_points.run(whole, config=CLASSES)
    end, memory = end_of(whole), memory_of(whole)
    assert memory["classes"] is not None
    assert len(memory["held_out"].info) > 0
    states = [i for i, point in enumerate(points) if "state" in point]
    for number in sorted({*states, *range(0, len(points), 5)}):
        folder = copies / f"{number:03d}"
        crash_points.run(folder, config=CLASSES)
        assert_same_end(end_of(folder), end)
        again = memory_of(folder)
        for name in ("classes", "taught"):
            jax.tree.map(np.testing.assert_array_equal, memory[name], again[name])
