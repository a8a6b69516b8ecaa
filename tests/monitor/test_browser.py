"""The page in headless Chromium: numbers, clicks, keys, narrow screens, and silence towards others.

WebGL is not needed and not there; figures are asserted by the numbers in the DOM.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from monitor.browsing import (
    READY,
    SERVE,
    drawn,
    opened,
    rows,
    text,
    until,
    watched,
)
from monitor.conftest import NASTY, add_event, made_by_hand, round_event

from alj.campaign import events, map_file
from alj.monitor import views
from alj.monitor.pages import write_report

pytestmark = pytest.mark.browser


def test_overview_of_a_finished_campaign(tab, argon, finished):
    opened(tab, argon, "overview")
    told = views.overview(finished)
    assert text(tab, "#labels-done") == str(told["labels"])
    assert text(tab, "#rounds-done") == "2 of 2"
    assert text(tab, "#state").startswith("finished")
    assert float(text(tab, "#error").split()[0]) == pytest.approx(
        told["errors"]["test_mae_meV_per_atom"], rel=0.01
    )
    table = rows(tab, "rounds")
    assert [row[:2] for row in table] == [
        [str(r["round"]), str(r["labels"])] for r in told["rounds"]
    ]
    assert drawn(tab, "#figure-learning-curve .xtitle") == "labels computed"
    assert drawn(tab, "#figure-learning-curve .ytitle") == "energy error (meV/atom)"
    kinds = [row[0] for row in rows(tab, "errors-test")]
    assert NASTY in kinds


def test_map_shows_structures_and_their_life(tab, argon, finished):
    opened(tab, argon, "map")
    known = map_file.read(finished)
    assert text(tab, "#map-count") == f"{known.count} structures"
    tab.wait_for_selector(f".mapbox[data-drawn='{known.count}']")
    tab.select_option("#color", "error")
    assert "meV/atom" in text(tab, "#map-legend")
    tab.select_option("#color", "source")
    assert "perturbation" in text(tab, "#map-legend")
    # where the seventh structure is drawn, by the rule of the page: fit with a margin of 14
    box = tab.locator("canvas.map").bounding_box()
    x, y = known.projections["pca"].T
    scale = min((box["width"] - 28) / np.ptp(x), (box["height"] - 28) / np.ptp(y))
    at = (
        box["width"] / 2 + scale * (x[7] - (x.min() + x.max()) / 2),
        box["height"] / 2 - scale * (y[7] - (y.min() + y.max()) / 2),
    )
    tab.locator("canvas.map").click(position={"x": float(at[0]), "y": float(at[1])})
    tab.wait_for_selector("#structure canvas.molecule")
    nearest = np.flatnonzero(np.hypot(x - x[7], y - y[7]) * scale < 3)
    index = int(re.search(r"#(\d+)", text(tab, "#structure h3"))[1])
    assert index in nearest
    life = views.structure(finished, index)["life"]
    side = text(tab, "#structure")
    assert "Ar16" in side
    assert "labeled (attempt 1)" in side
    assert f"proposed in round {life['proposed'][0]['round']}" in side
    assert life["hash"][:16] in side
    assert f"energy {life['attempts'][0]['energy_eV']:.4f} eV" in side


def test_map_and_structure_by_keyboard(tab, argon, finished):
    opened(tab, argon, "map")
    tab.locator("canvas.map").focus()
    tab.keyboard.press("End")
    last = map_file.read(finished).count - 1
    tab.wait_for_selector("#structure canvas.molecule")
    assert f"#{last}" in text(tab, "#structure h3")
    tab.keyboard.press("ArrowLeft")
    until(tab, f"document.querySelector('#structure h3').innerText.includes('#{last - 1},')")
    tab.wait_for_selector("#structure canvas.molecule")
    picture = "document.querySelector('canvas.molecule').toDataURL()"
    tab.locator("canvas.molecule").focus()
    tab.wait_for_timeout(200)
    before = tab.evaluate(picture)
    tab.keyboard.press("ArrowRight")
    tab.wait_for_timeout(200)
    assert tab.evaluate(picture) != before


def test_uncertainty_with_thresholds_and_calibration(tab, argon, finished):
    opened(tab, argon, "uncertainty")
    told = views.uncertainty(finished)
    seen = next(row["seen"] for row in reversed(told["rounds"]) if row["seen"])
    legend = drawn(tab, "#figure-uncertainty .legend")
    assert "low (last round)" in legend
    assert "high (last round)" in legend
    assert "eV/Å" in drawn(tab, "#figure-uncertainty .xtitle")
    tab.locator("#figure-uncertainty summary").click()
    numbers = tab.locator("#figure-uncertainty tbody tr").last.inner_text().split()
    assert int(numbers[1]) == sum(seen["counts"])
    assert float(numbers[2]) == pytest.approx(seen["thresholds"]["low"], rel=0.01)
    assert len(tab.locator("#figure-indicator .scatterlayer .trace").all()) >= 2
    table = {row[0]: row for row in rows(tab, "calibration-numbers")}
    assert int(table["test"][1]) == told["calibration"]["test"]["count"]
    assert "calibrated" in drawn(tab, "#figure-calibration .legend")


def test_training_shows_every_member(tab, argon, finished):
    opened(tab, argon, "training")
    told = views.training(finished)
    assert [one["stage"] for one in told["trainings"]] == ["train", "train", "refit"]
    assert len(tab.locator("#training-round option").all()) == 3
    legend = drawn(tab, "#figure-training-curves .legend")
    for member in ("member 1", "member 2", "member 3"):
        assert member in legend
    tab.select_option("#training-round", "0")
    tab.wait_for_timeout(300)
    assert "round 0" in text(tab, "#figure-training-curves h3")
    tab.locator("#figure-training-curves summary").click()
    first = [float(c) for c in rows(tab, "training-numbers")[0]]
    assert first == pytest.approx(
        [told["trainings"][0]["steps"][0], *told["trainings"][0]["train"][0]], rel=0.01
    )
    assert f"MAE {views.training(finished)['parity']['test']['energy']['mae']:.3g}"[:7] in text(
        tab, "#figure-parity-test-energy figcaption"
    )
    assert NASTY in drawn(tab, "#figure-parity-test-energy .legend").replace("\n", "")


def test_physics_beside_the_reference(tab, argon):
    opened(tab, argon, "physics")
    figure = tab.locator("figure", has_text="Radial distribution")
    assert figure.locator(".xtitle").text_content() == "distance (Å)"
    assert "reference" in figure.locator(".legend").text_content()
    dashes = figure.locator(".scatterlayer path.js-line").evaluate_all(
        "paths => paths.map(p => getComputedStyle(p).strokeDasharray)"
    )
    assert any(dash not in ("none", "") and "," in dash for dash in dashes)
    for title in ("Angles between neighbors", "Density", "Energy ladder"):
        heading = tab.locator("figure h3").filter(has_text=title)
        assert heading.count() == 1


def test_failed_labels_open_by_key_and_their_logs_are_text(tab, argon):
    opened(tab, argon, "failures")
    assert text(tab, "#failure-counts").startswith("1 in all: 1 timeout")
    assert NASTY in text(tab, ".failure .message")
    tab.locator(".failure summary").focus()
    tab.keyboard.press("Enter")
    assert NASTY in text(tab, ".failure .log")
    assert "no convergence & no hope" in text(tab, ".failure .log")
    tab.wait_for_selector(".failure canvas.molecule")
    assert tab.locator("main script, main img").count() == 0


def test_pages_are_reached_by_keyboard_and_the_theme_changes(tab, argon):
    opened(tab, argon, "overview")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Training":
            break
    tab.keyboard.press("Enter")
    tab.wait_for_selector(READY.format("argon training"))
    color = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.evaluate(color)
    tab.click("#theme")
    tab.wait_for_timeout(300)
    assert tab.evaluate(color) != light


@pytest.mark.parametrize("name", sorted(views.PAGES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_do_not_scroll_sideways(chromium, argon, name, scheme):
    context = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    opened(tab, argon, name)
    tab.wait_for_timeout(400)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert wide <= 390


def test_the_report_is_the_same_page_in_one_file(tab, finished):
    page = write_report(finished, seconds=0.0)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    for name in views.PAGES:
        tab.goto(f"file://{page}#run=argon&page={name}")
        tab.wait_for_selector(READY.format(f"argon {name}"))
    tab.goto(f"file://{page}#run=argon&page=map")
    tab.wait_for_selector("canvas.map")
    tab.locator("canvas.map").focus()
    tab.keyboard.press("Home")
    tab.wait_for_selector("#structure canvas.molecule")
    assert "labeled (attempt 1)" in text(tab, "#structure")
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_a_comparison_in_one_file(tab, alj, tmp_path):
    for seed, factor in ((1, 1.0), (2, 1.3)):
        folder = made_by_hand(tmp_path / f"seed-{seed}")
        claim = (folder / "run.yaml").read_text().replace("seed: 7", f"seed: {seed}")
        (folder / "run.yaml").write_text(claim)
        for index in range(2, 4):
            mae = factor * 30.0 / (index + 1)
            add_event(folder, round_event(index, test_mae_meV_per_atom=mae))
    code, _, error = alj("compare", tmp_path / "seed-1", tmp_path / "seed-2")
    assert (code, error) == (0, "")
    tab.goto(f"file://{tmp_path}/comparison/comparison.html")
    tab.wait_for_selector("#needed")
    assert rows(tab, "needed")[0][1] == "2"
    assert "2" in rows(tab, "needed")[0]
    assert [row[0] for row in rows(tab, "runs")] == ["seed-1", "seed-2"]


def test_a_run_that_goes_on_pauses_and_vanishes(tab, tmp_path):
    folder = made_by_hand(tmp_path / "water")
    with (folder / "lock").open("w") as held, watched(tab, tmp_path) as (address, _):
        fcntl.flock(held, fcntl.LOCK_EX)
        opened(tab, address, "overview", "water")
        assert text(tab, "#state").startswith("running Round 2, stage: explore")
        add_event(folder, {"event": "stage", "round": 2, "stage": "label"})
        progress = {"event": "progress", "round": 2, "stage": "label", "done": 3, "total": 10}
        add_event(folder, progress)
        until(tab, "document.querySelector('#labels-queued').innerText === '7'")
        with (folder / "events.jsonl").open("a") as file:
            file.write('{"event": "round", "rou')
        add_event(folder, {"event": "note", "text": "behind the torn line"})
        add_event(folder, round_event(2))
        until(tab, "document.querySelector('#labels-done').innerText === '31'")
        add_event(folder, {"event": "paused", "reason": "label budget"})
        tab.wait_for_selector("#state .paused")
        shutil.rmtree(folder)
        tab.wait_for_selector(".problem")
        assert "no such run" in text(tab, ".problem")
        made_by_hand(folder)
        tab.wait_for_selector("#labels-done")
        assert "404" in " ".join(tab.wrong)  # what the browser says of an answer that is gone
        tab.wrong[:] = [line for line in tab.wrong if "404" not in line]


def test_a_campaign_is_watched_from_its_beginning_to_its_end(tab, tmp_path):
    """It stands still while it is looked at, so that no machine is too slow for the test."""
    from campaign.test_loop import CONFIG

    folder = tmp_path / "runs" / "argon"
    folder.parent.mkdir()
    config = tmp_path / "argon.yaml"
    config.write_text(json.dumps({**CONFIG, "rounds": 4}))
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SERVE, "run", str(config), "--out", str(folder), "--quiet"]
    process = subprocess.Popen(command, env=environment)
    try:
        while not events.rounds_told(folder):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        labels = views.overview(folder)["labels"]
        with watched(tab, folder.parent) as (address, _):
            opened(tab, address, "overview", "argon")
            tab.wait_for_selector("#state .running")
            assert text(tab, "#labels-done") == str(labels)
            for name in views.PAGES:
                opened(tab, address, name, "argon")
            opened(tab, address, "overview", "argon")
            process.send_signal(signal.SIGCONT)
            tab.wait_for_selector("#state .finished", timeout=400_000)
            assert text(tab, "#labels-done") == "15"
            opened(tab, address, "map", "argon")
            # The last map is drawn when everything else is finished, with all its projections.
            count = "document.querySelector('#map-count').innerText"
            until(tab, f"{count} === '15 structures'", seconds=200)
    finally:
        process.kill()
        process.wait()


def test_a_hundred_thousand_structures(tab, tmp_path):
    """First paint within three seconds, answers while it moves, a server below 300 MB."""
    count = 100_000
    folder, rng = made_by_hand(tmp_path / "crowd"), np.random.default_rng(0)
    centers = rng.normal(size=(40, 2)) * 8
    place = centers[rng.integers(40, size=count)] + rng.normal(size=(count, 2))
    columns = {"round": np.arange(count) // 500, "source": rng.integers(3, size=count)}
    titles = {name: {"title": name, "unit": "", "log": False} for name in columns}
    for name in ("error", "uncertainty", "force_uncertainty", "force_error", "energy"):
        columns[name] = rng.lognormal(size=count)
        titles[name] = {"title": name, "unit": "meV/atom", "log": True}
    about = {
        "columns": titles, "categories": {"source": ["a", "b", "c"]}, "mark": "x",
        "projections": {"pca": {"title": "principal components", "x": "PC 1", "y": "PC 2"}},
    }  # fmt: skip
    atoms = 20
    geometries = {
        "species": np.tile([6, 1], count * atoms // 2), "cell": np.zeros((count, 3, 3)),
        "positions": rng.normal(size=(count * atoms, 3)) * 2,
        "offsets": np.arange(count + 1) * atoms,
    }  # fmt: skip
    hashes = [f"{index:064x}" for index in range(count)]
    data = map_file.encode(about, {"pca": place}, columns, geometries, hashes)
    (folder / map_file.NAME).write_bytes(data)
    with watched(tab, folder) as (address, process):
        opened(tab, address, "overview", "crowd")  # the scripts are there, as after any first look
        tab.goto("about:blank")
        began = time.monotonic()
        tab.goto(f"{address}#run=crowd&page=map")
        tab.wait_for_selector(f".mapbox[data-drawn='{count}']")
        painted = time.monotonic() - began
        box = tab.locator("canvas.map").bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        frames = tab.evaluate(
            """async () => { const gaps = []; let last = performance.now();
            const canvas = document.querySelector('canvas.map');
            for (let i = 0; i < 20; i += 1) {
              const deltaY = i < 10 ? -40 : 40;
              const more = { deltaY, clientX: 400, clientY: 400, cancelable: true };
              canvas.dispatchEvent(new WheelEvent('wheel', more));
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              gaps.push(performance.now() - last); last = performance.now(); }
            return gaps; }"""
        )
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.locator("canvas.map").focus()
        tab.keyboard.press("End")
        until(tab, f"document.querySelector('#structure h3').innerText.includes('#{count - 1}')")
        status = Path(f"/proc/{process}/status").read_text()
        most = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    told = f"painted in {painted:.2f} s, frames {np.median(frames):.0f} ms, server {most:.0f} MB"
    (tmp_path / "measured.txt").write_text(told)
    print(told)  # noqa: T201
    assert painted < 3.0
    assert np.median(frames) < 100
    assert most < 300
