"""Run folders to look at: one made by hand, and one that a tiny campaign of argon has left."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from monitor.browsing import served

from alj.campaign import config, map_file
from alj.campaign.attempts import Attempt
from alj.campaign.ledger import Ledger
from alj.types import LabelingFailed, Structure

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LOG = f"SCF 1\nSCF 2\n{NASTY}\nno convergence & no hope"


def round_event(index, **more):
    return {
        "event": "round", "round": index, "labels": 11 + 10 * index, "kept": 10 + 10 * index,
        "failed": 1, "failures": {"timeout": 1, "crash": 0}, "seconds": {"train": 2.0},
        "test_mae_meV_per_atom": 30.0 / (index + 1), "candidate_mae_meV_per_atom": None,
        "acceptance": {"metropolis_mc": 0.5}, "ladder": [[0.02, -0.1]],
        "chosen_energy_eV_per_atom": [-0.3], **more,
    }  # fmt: skip


def write_events(folder, events, start=1000.0):
    lines = [json.dumps({"time": start + 10 * i, **event}) for i, event in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")


def add_event(folder, event):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1100.0, **event}) + "\n")


def made_by_hand(folder: Path) -> Path:
    """A run of two rounds."""
    folder.mkdir(parents=True)
    claim = {
        "config": {"seed": 7, "potential": {"name": "behler_parrinello"}, "note": NASTY},
        "versions": {"alj": "0.1.0", "jax": "0.10.2"},
        "machine": {"host": "here", "processors": 2, "system": "Linux", "command": "alj run"},
    }
    (folder / "run.yaml").write_text(config.dump(claim))
    write_events(folder, [
        {"event": "campaign", "round": 0, "rounds": 5, "labeler": "ml_bop_water", "atoms": 108},
        {"event": "stage", "round": 0, "stage": "train"}, round_event(0), round_event(1),
        {"event": "stage", "round": 2, "stage": "explore"},
    ])  # fmt: skip
    return folder


@pytest.fixture
def run(tmp_path):
    return made_by_hand(tmp_path / "water")


def write_results(folder):
    (folder / "results").mkdir(exist_ok=True)
    reference = np.array([-0.4, -0.3, -0.2])
    np.savez(
        folder / "results" / "test.npz",
        energy_reference=reference,
        energy=reference + np.array([0.001, 0.001, -0.004]),
        forces_reference=np.zeros(15),
        forces=np.concatenate([np.full(12, 0.03), np.full(3, -0.06)]),
        config_type=np.array(["cold", "cold", NASTY]),
        atoms=np.array([2, 2, 1]),
    )


def add_failures(folder, *messages, log=LOG):
    """Labels that failed, in the ledger of a run."""
    one = np.zeros(1, np.int32)
    with Ledger(folder) as ledger:
        for number, message in enumerate(messages):
            place = np.array([[0.0, 0.0, 0.0], [0.9 + number, 0.0, 0.0]])
            species = np.array([8, 1], np.int32)
            structure = Structure(place, species, np.zeros((3, 3)), one[0], one[0])
            answer = LabelingFailed("timeout", message, log)
            ledger.add([Attempt(f"hash{number}", structure, answer, "engine", {})])


def add_map(folder, count=3):
    """A map of small molecules."""
    rng, atoms = np.random.default_rng(0), 4
    about = {
        "columns": {"error": {"title": "|energy error|", "unit": "meV/atom", "log": True}},
        "categories": {}, "mark": "x",
        "projections": {"pca": {"title": "principal components", "x": "PC 1", "y": "PC 2"}},
    }  # fmt: skip
    geometries = {
        "species": np.tile([6, 1, 1, 8], count), "cell": np.zeros((count, 3, 3)),
        "positions": rng.normal(size=(count * atoms, 3)), "offsets": np.arange(count + 1) * atoms,
    }  # fmt: skip
    columns = {"error": rng.lognormal(size=count)}
    place = {"pca": rng.normal(size=(count, 2))}
    hashes = [f"hash{index}" for index in range(count)]
    data = map_file.encode(about, place, columns, geometries, hashes)
    (folder / map_file.NAME).write_bytes(data)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """What a campaign of argon leaves, with a map, and with a failure and a name by a villain."""
    from campaign.test_finishing import FINISH

    from alj.campaign.loop import run_campaign
    from alj.campaign.mapping import write_map

    folder = tmp_path_factory.mktemp("finished") / "argon"
    chosen = {**FINISH, "selector": {"name": "trust_levels", "count": 3, "low_eV_per_A": 1e-4}}
    assert run_campaign(chosen, folder).exit_code == 0
    assert write_map(folder, landmarks=False)
    add_failures(folder, f"SCF did not converge {NASTY}")
    with np.load(folder / "results" / "test.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content["config_type"] = np.array([NASTY, *(["cold"] * (len(content["energy"]) - 1))])
    np.savez(folder / "results" / "test.npz", **content)
    return folder


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "expected chromium on the path; run: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A page that fails its test where the console tells an error or anybody else is asked."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append("a script of the data ran"), dialog.dismiss()))

    def asked(request):
        if not re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:|file:)", request.url):
            wrong.append(f"asked {request.url}")

    page.on("request", asked)
    page.wrong = wrong
    yield page
    context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def argon(finished):
    with served(finished.parent) as (address, _):
        yield address
