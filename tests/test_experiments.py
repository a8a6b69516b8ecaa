"""The experiments' configurations are valid, and their tables say what the runs said."""

from pathlib import Path

import coarse_grained_water as water
import deredundancy
import deredundancy_page
import esoinn_page
import numpy as np
import pytest
import selection_page
from variants import campaigns, merged, read

from alj import registry
from alj.campaign import covering, reducing
from alj.campaign.plan import make_plan, resolve
from alj.campaign.replay import replay_settings, rounds_of
from alj.potentials import build_potential
from alj.selection import SELECTORS
from alj.training import TRAINERS

ROOT = Path(__file__).parent.parent
DESIGNS = sorted((ROOT / "configs").glob("optimal_design_*.yaml"))
SALTS = sorted((ROOT / "configs").glob("data_selection_*.yaml"))
CLASSES = sorted((ROOT / "configs").glob("esoinn_dp_*.yaml"))
CONFIGS = sorted((ROOT / "configs").glob("coarse_grained_water_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_variant_of_every_configuration_can_be_built(path):
    variants = campaigns(read(path))
    assert any(name.startswith("energies-") for name in variants)
    for name, campaign in variants.items():
        assert campaign["properties"] or name.startswith("forces-")
        made = make_plan(campaign)
        assert resolve(made.config) == made.config
        limit = made.stop.labels
        assert limit is not None
        assert limit <= 1000


@pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)
def test_every_replay_of_every_design_can_be_built(path):
    plan = read(path)
    for about in plan["sets"].values():
        if about is not None:
            given = merged(plan["replay"], about.get("replay", {}))
            given["selectors"] = {key: spec for key, spec in given["selectors"].items() if spec}
            sizes = rounds_of(registry.call(replay_settings, given["replay"], where="replay"))
            assert sizes == sorted(set(sizes))
            potential = build_potential(given["potential"], (1, 6, 8))
            for name in ("trainer", "judge"):
                registry.build(TRAINERS, given[name], potential, where=name)
            for spec in given["selectors"].values():
                spec = {"name": spec} if isinstance(spec, str) else spec
                bare = {key: value for key, value in spec.items() if key != "trainer"}
                registry.build(SELECTORS, bare, where="selectors")


@pytest.mark.parametrize("path", SALTS, ids=lambda path: path.stem)
def test_every_method_and_model_of_the_salt_can_be_built(path):
    plan = read(path)
    assert set(plan["dynamics"]["models"]) <= set(plan["models"])
    assert set(plan["dynamics"]["methods"]) <= set(plan["methods"])
    walked = plan["pool"]["steps"] * plan["pool"]["timestep_fs"] / 1000
    held = plan["held_out"]
    assert 0 < held["after_ps"] < held["after_ps"] + held["gap_ps"] < walked
    for spec in plan["methods"].values():
        registry.build(SELECTORS, spec, where="methods")
    for about in plan["models"].values():
        potential = build_potential(about["potential"], (11, 17))
        registry.build(TRAINERS, about["trainer"], potential, where="trainer")


def test_bands_of_seeds_that_overlap_are_not_told_apart():
    assert selection_page.compared([1.0, 1.1, 1.2], [1.05, 1.15, 1.3]) == "not distinguishable"
    assert selection_page.compared([1.0, 1.01, 1.02], [2.0, 2.02, 2.01]) == "lower"
    assert selection_page.compared([2.0, 2.02, 2.01], [1.0, 1.01, 1.02]) == "higher"
    assert selection_page.compared([1.0], [2.0]) == "not distinguishable"
    mean, width = selection_page.band([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert width == pytest.approx(4.302653 * np.std([1.0, 2.0, 4.0], ddof=1) / 3**0.5, rel=1e-6)


@pytest.mark.parametrize("path", CLASSES, ids=lambda path: path.stem)
def test_every_configuration_of_esoinn_dp_can_be_built(path, tmp_path):
    plan = read(path)
    initial = tmp_path / "initial.extxyz"
    initial.write_text(
        '3\nProperties=species:S:1:pos:R:3 REF_energy=-322.0 pbc="F F F"\n'
        "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
    )
    campaign = merged(plan["campaign"], {"seed": plan["seed"], "data": {"initial": str(initial)}})
    made = make_plan(campaign)
    assert resolve(made.config) == made.config
    parts = made.potential.networks
    assert made.trainer.members == parts.nearest
    assert parts.atoms == 3 * max(plan["water"]["sizes"])
    assert made.selector.judges_stopped
    labels = made.rounds * made.selector.count + len(plan["water"]["sizes"])
    assert labels <= plan["water"]["targets"]["labels"]


def test_the_interval_of_the_indicator_is_judged_by_other_trajectories():
    generator = np.random.default_rng(0)
    walk = np.repeat(np.arange(30), 40)
    chi = generator.uniform(0.1, 0.5, walk.size)
    found = {
        "walk": walk,
        "indicator": chi,
        "largest_error": chi * generator.exponential(size=1200),
    }
    judged = esoinn_page.coverage({"all": found})
    assert judged["blocks"] == 30
    assert abs(judged["mean"] - 0.9) < 4 * judged["standard_error"]
    assert judged["scale"] == pytest.approx(-np.log(0.1), rel=0.15)


def test_overlap_of_distributions():
    first, second = np.array([1.0, 2.0, 1.0]), np.array([2.0, 1.0, 1.0])
    assert water.overlap(first, first) == 1.0
    assert water.overlap(first, second) == pytest.approx(3.0 / 4.0)


def test_the_page_marks_what_was_missed_and_what_did_not_run():
    error = {
        "structures": 10, "energy_mae_meV_per_atom": 2.5, "energy_bias_meV_per_atom": 0.1,
        "energy_scatter_meV_per_atom": 3.0, "force_mae_eV_per_A": 0.05,
    }  # fmt: skip
    found = {
        "variant": "energies", "seed": 1, "rounds": 3, "ended": "all 3 rounds done",
        "seconds": 75, "structures kept": 30, "anchor": None, "properties": [],
        "labels computed": {"by the rounds": 30, "start": 5, "anchor": 0, "in all": 35},
        "errors": {"broad": error},
        "quantities": {"energy MAE, broad": 2.5, "force MAE, broad": 50.0, "structures kept": 30},
    }  # fmt: skip
    page = water.page({"energies-1": found, "energies-2": None}, Path("configs/x.yaml"))
    rows = {line.split(" | ")[0]: line for line in reversed(page.splitlines())}
    assert "2.5 **missed**" in rows["| energy MAE, broad (meV/bead)"]
    assert "50 reached" in rows["| force MAE, broad (meV/Å)"]
    assert "*not run*" in rows["| energies-2"]
    assert "1 min 15 s" in rows["| energies-1"]


REDUCTIONS = sorted((ROOT / "configs").glob("deredundancy_*.yaml"))


@pytest.mark.parametrize("path", REDUCTIONS, ids=lambda path: path.stem)
def test_every_part_of_every_reduction_can_be_built(path):
    plan = read(path)
    potential = build_potential(plan["potential"], (1, 6, 7, 8))
    registry.build(TRAINERS, plan["trainer"], potential)
    loop = dict(plan["loop"])
    registry.build(TRAINERS, {**plan["trainer"], **loop.pop("trainer")}, potential)
    total = plan["data"]["molecules"] * plan["data"]["each"]
    for name in ("start", "add"):
        loop[name] = round(loop.pop(f"{name}_share") * total)
    covering.reduce_settings(**loop, most=total)
    reducing.rules_of(plan["esoinn"])
    assert plan["data"]["test"] < total / 4
    assert set(plan["strategies"]) <= set(deredundancy.STRATEGIES)
    assert set(plan) <= {
        "base", "seeds", "strategies", "data", "shares", "potential", "trainer", "updates",
        "esoinn", "loop",
    }  # fmt: skip


def test_the_share_that_reaches_an_error_and_what_a_page_says_of_it(tmp_path):
    share = deredundancy_page.share_reaching
    assert share([0.1, 0.2, 0.4], [0.4, 0.2, 0.1], 0.2) == pytest.approx(0.2)
    assert share([0.1, 0.4], [0.4, 0.1], 0.2) == pytest.approx(0.2)  # a power law between
    assert share([0.1, 0.4], [0.15, 0.1], 0.2) == pytest.approx(0.1)
    assert np.isnan(share([0.1, 0.4], [0.5, 0.4], 0.2))
    plan = read(ROOT / "configs" / "deredundancy_smoke.yaml")

    def errors(value):
        names = (f"{where}_force_rmse_eV_per_A" for where in ("test", "rest"))
        return dict.fromkeys(names, value)

    found = {
        "random": {1: {10: errors(0.4), 20: errors(0.3)}},
        "spectra": {1: {10: errors(0.19), 20: errors(0.15)}},
        "everything": {1: {100: {"test_force_rmse_eV_per_A": 0.15}}},
    }
    deredundancy_page.collect(plan, found, tmp_path / "none", tmp_path / "results")
    page = (tmp_path / "results" / "README.md").read_text()
    assert "| random | more than 20 %, **missed** | more than 20 %, **missed** |" in page
    assert "| spectra alone | at most 10 %, reached | 17 %, **missed** |" in page
    assert "*not run*" in page
