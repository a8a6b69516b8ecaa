"""After the last round: refit, anchor, properties; remembered, extended, and told."""

import json

import jax
import numpy as np
import pytest
from campaign.test_loop import CONFIG
from campaign.tiny import cluster

from alj.campaign import datasets, events, models, properties
from alj.campaign.finishing import STALLED, without_stalled
from alj.campaign.ledger import Ledger
from alj.campaign.loop import run_campaign
from alj.campaign.plan import make_plan
from alj.campaign.rounds import RoundState
from alj.campaign.store import FolderStore
from alj.potentials.constant import constant
from alj.types import BadInput, Structure
from alj.units import BOLTZMANN, FEMTOSECOND

ENTRY = {
    "name": "npt_mc", "temperature_K": 90.0, "pressure_bar": 100.0, "cycles": 40,
    "cycles_per_frame": 2, "walks": 2, "atoms": 30, "range_A": 5.0, "angle_radius_A": 4.5,
    "coordination_radius_A": 5.0, "minimum_distance_A": 2.5,
}  # fmt: skip
FINISH = {
    **CONFIG,
    "rounds": 2,
    "explore_with": "best",
    "refit": {"name": "levenberg_marquardt", "members": 3, "steps": 4, "split": "all"},
    "anchor": {
        "ensemble": "reference", "temperature_K": 90.0, "cycles": 40, "walks": 2, "candidates": 3,
        "minimum_distance_A": 2.5,
    },
    "properties": [ENTRY],
}  # fmt: skip


def results(folder, name):
    return json.loads((folder / "results" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert run_campaign(FINISH, folder).exit_code == 0
    return folder


@pytest.mark.slow
def test_the_model_is_the_refitted_and_anchored_committee(finished):
    model = models.load(finished)
    losses = np.array(FolderStore(finished).recall("002/refit").memory["fit"]["losses"])
    assert len(losses) == 3
    assert model.members == np.sum(losses <= max(STALLED * losses.min(), np.median(losses)))
    anchor = results(finished, "anchor")
    assert anchor["labels"] == 6
    assert model.config["potential"]["prior"] == [
        {"name": "constant", "energy_eV": anchor["offset"]}
    ]
    with Ledger(finished, read_only=True) as ledger:
        assert ledger.counts()["labeled"] == 9 + 6


@pytest.mark.slow
def test_properties_of_network_and_reference_by_the_same_code(finished):
    table = results(finished, "properties")
    assert [row["of"] for row in table] == ["reference", "network"]
    for row in table:
        assert row["title"] == "90 K, 100 bar"
        assert 0.2 < row["density"] < 2.0  # g/cm³ of argon
        assert row["density_error"] > 0
        assert row["frames"] == 14
    with np.load(finished / "results" / "properties.npz") as arrays:
        shared = arrays["reference:0:rdf_centers"]
        np.testing.assert_array_equal(shared, arrays["network:0:rdf_centers"])
        np.testing.assert_allclose(arrays["reference:0:adf"].sum() * 2.0, 1.0)


@pytest.mark.slow
def test_running_again_changes_nothing_and_another_entry_extends(finished):
    before = (finished / "results" / "properties.json").read_bytes()
    written = {p: p.stat().st_mtime_ns for p in finished.glob("rounds/**/*.tree")}
    run_campaign(FINISH, finished)
    assert results(finished, "properties")[0]["density"] == json.loads(before)[0]["density"]
    assert written == {p: p.stat().st_mtime_ns for p in finished.glob("rounds/**/*.tree")}
    shorter = {**ENTRY, "cycles": 20}
    run_campaign({**FINISH, "properties": [shorter]}, finished)
    assert results(finished, "properties")[0]["frames"] == 7
    told = [event for event in events.read(finished) if event["event"] == "round"]
    assert [event["round"] for event in told] == [0, 1]


def test_members_that_stalled_are_left_out():
    params = {"weights": np.arange(8.0).reshape(4, 2)}
    for losses, good in (
        ([0.11, 0.5, 0.02, 0.05], [2, 3]),
        ([0.09, 0.09, 0.02, 0.05], [0, 1, 2, 3]),
        ([0.9, 0.3, 0.02, 0.5], [1, 2]),  # the better half stays
    ):
        memory = {"fit": {"losses": losses}}
        state = RoundState(3, params, datasets.empty(), cluster(0), memory)
        left, stalled = without_stalled(state)
        assert stalled == 4 - len(good)
        np.testing.assert_array_equal(left.params["weights"], params["weights"][good])


@pytest.mark.slow
def test_diffusion_of_free_flight_is_exact(tmp_path):
    """MSD = <v²> t², so D = <v²> (t₁ + t₂) / 6 between two lags, with <v²> = 3 kT/m."""
    idle = constant((18,), energy_eV=0.0)
    atoms, edge, (first, second) = 216, 60.0, (20.0, 60.0)
    start = Structure(
        np.random.default_rng(0).uniform(0, edge, (atoms, 3)), np.full(atoms, 18),
        np.diag([edge] * 3), np.int32(0), np.int32(0),
    )  # fmt: skip
    spec = {
        "name": "nve", "temperature_K": 300.0, "timestep_fs": 2.0, "steps": 500, "record_every": 1,
        "walks": 3, "diffusion_ps": [first / 1000, second / 1000], "longest_step_A": 5.0,
    }  # fmt: skip
    params = idle.init(jax.random.key(0))
    subject = properties.Subject("network", idle, params)
    with FolderStore(tmp_path) as store:
        found = properties.measure(jax.random.key(1), spec, subject, start, store, "free")
    numbers = found["numbers"]
    squared = 3.0 * BOLTZMANN * 300.0 / 39.948 * FEMTOSECOND**2  # Å²/fs²
    exact = squared * (first + second) / 6.0 * 1000.0
    # 3 walks of 216 atoms: the temperature that they drew is known to 3 %
    assert abs(numbers["diffusion_A2_per_ps"] / exact - 1.0) < 0.1
    assert 0 < numbers["diffusion_error"] < 0.1 * exact


def test_a_box_is_repeated_along_its_shortest_vectors():
    fields = {
        "positions": np.zeros((1, 3)), "species": np.full(1, 8), "cell": np.diag([2.0, 3.0, 5.0]),
        "charge": np.int32(0), "multiplicity": np.int32(0),
    }  # fmt: skip
    box = properties.repeated(Structure(**fields), 3)
    np.testing.assert_array_equal(np.diag(box.cell), [4.0, 6.0, 5.0])
    assert sorted(map(tuple, box.positions)) == [(0, 0, 0), (0, 3, 0), (2, 0, 0), (2, 3, 0)]
    with pytest.raises(BadInput, match="three directions"):
        properties.repeated(Structure(**{**fields, "cell": np.zeros((3, 3))}), 3)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("anchor", {"ensemble": "nature"}, "ensemble"),
        ("anchor", {"temprature_K": 3.0}, "temperature_K"),
        ("anchor", "reference", "mapping"),
        ("anchor", {"temperature_K": -5.0}, "temperature_K"),
        ("anchor", {"name": "nested_mc"}, "expected a sampler with a temperature_K"),
        ("properties", [{"name": "npt_mc", "walk": 2}], "walks"),
        ("properties", [{"name": "npt_mc", "pressure_bar": -1.0}], "pressure_bar"),
        (
            "properties",
            [{"name": "npt_mc", "diffusion_ps": [0.004, 0.012]}],
            "a molecular dynamics",
        ),
        (
            "properties",
            [{"name": "nvt_csvr", "steps": 100, "record_every": 1, "diffusion_ps": [0.004, 0.012]}],
            "shorter than a tenth of the dynamics, 10 fs",
        ),
        ("refit", {"name": "levenberg_marquardt", "step": 3}, "steps"),
        ("explore_with", "worst", "explore_with"),
    ],
)
def test_bad_settings_get_one_clear_line(key, value, words):
    with pytest.raises(BadInput, match=words) as caught:
        make_plan({**FINISH, key: value})
    assert "\n" not in str(caught.value)
