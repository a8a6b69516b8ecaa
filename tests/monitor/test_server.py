"""The server: pages of whole, running, damaged and vanished runs, and nothing for strangers."""

import base64
import fcntl
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from monitor.conftest import (
    NASTY,
    add_event,
    add_failures,
    add_map,
    made_by_hand,
    round_event,
    write_results,
)
from starlette.testclient import TestClient

from alj.monitor import views
from alj.monitor.server import application

HERE = "http://127.0.0.1:8765"


@pytest.fixture
def folder(tmp_path):
    """Two runs, one of them in a folder, beside things that are none."""
    made_by_hand(tmp_path / "runs" / "water")
    made_by_hand(tmp_path / "runs" / "study" / "one")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "secret.txt").write_text("password")
    (tmp_path / "runs" / "outside").symlink_to(tmp_path)
    made_by_hand(tmp_path / "elsewhere")
    return tmp_path / "runs"


@pytest.fixture
def client(folder):
    return TestClient(application(folder), base_url=HERE, follow_redirects=False)


def page(client, name, run="water"):
    return client.get("/api/page", params={"run": run, "page": name})


def test_runs_are_found_in_folders_and_not_behind_links(client):
    answer = client.get("/api/runs").json()
    assert [row["name"] for row in answer["runs"]] == ["study/one", "water"]
    assert answer["runs"][1]["labels"] == 21
    assert answer["runs"][1]["stages"] == {"train": 4.0}


def test_a_single_run_is_served_by_its_name(folder):
    client = TestClient(application(folder / "water"), base_url=HERE)
    assert [row["name"] for row in client.get("/api/runs").json()["runs"]] == ["water"]


@pytest.mark.parametrize("name", sorted(views.PAGES))
def test_every_page_answers_for_a_run_without_results(client, name):
    answer = page(client, name)
    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)


def test_the_overview_tells_what_status_tells(client, folder):
    told = page(client, "overview").json()
    assert (told["state"], told["labels"], told["failed"]) == ("interrupted", 21, 1)
    with (folder / "water" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        add_event(folder / "water", {"event": "stage", "round": 2, "stage": "label"})
        progress = {"event": "progress", "round": 2, "stage": "label", "done": 3, "total": 8}
        add_event(folder / "water", progress)
        told = page(client, "overview").json()
        assert (told["state"], told["stage"], told["queued"]) == ("running", "label", 5)
        assert told["progress"]["done"] == 3


def test_what_has_not_changed_is_not_sent_again(client, folder):
    first = page(client, "overview")
    query = {"run": "water", "page": "overview"}
    again = client.get("/api/page", params=query, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    add_event(folder / "water", round_event(2))
    new = client.get("/api/page", params=query, headers={"if-none-match": first.headers["etag"]})
    assert new.status_code == 200
    assert new.json()["labels"] == 31


def test_nothing_is_written(client, folder):
    write_results(folder / "water")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    for name in views.PAGES:
        page(client, name)
    client.get("/api/runs")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_run_that_is_deleted_is_gone_and_the_others_stay(client, folder):
    shutil.rmtree(folder / "water")
    assert page(client, "overview").status_code == 404
    assert [row["name"] for row in client.get("/api/runs").json()["runs"]] == ["study/one"]
    (folder / "study" / "one" / "events.jsonl").unlink()
    assert page(client, "overview", "study/one").json()["state"] == "new"


@pytest.mark.parametrize(
    ("name", "content", "shown", "status"),
    [
        ("events.jsonl", b'{"event": "round", "rou', "overview", 200),
        ("events.jsonl", b"\xff\x00 no text\n[1]\n{}\n", "overview", 200),
        (
            "events.jsonl",
            b'{"event": "round", "round": {"a": 1}, "failures": 3}\n',
            "overview",
            422,
        ),
        ("ledger.sqlite", b"SQLite format 3\x00 but cut off", "failures", 422),
        ("ledger.sqlite", b"", "failures", 422),
        ("map.npz", b"PK\x03\x04 half", "map", 422),
        ("results/test.npz", b"nothing", "training", 422),
        ("results/physics.json", b'{"panels": [{"title": 1}]}', "physics", 422),
        ("run.yaml", b"a: [1", "overview", 200),
        ("run.yaml", b"\xff\xfe", "configuration", 200),
    ],
)
def test_half_written_and_damaged_files_are_told_and_leak_nothing(
    client, folder, name, content, shown, status
):
    path = folder / "water" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    answer = page(client, shown)
    assert answer.status_code == status
    assert str(folder) not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere", "outside/elsewhere", "/etc", "water/../../elsewhere", "..", ".", "",
        "water/", "%2e%2e/elsewhere", "water\x00", "study", "empty",
    ],
)  # fmt: skip
def test_only_runs_that_were_found_are_served(client, name):
    assert page(client, "overview", name).status_code == 404
    query = {"run": name, "index": "0"}
    assert client.get("/api/structure", params=query).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/secret.txt",
        "/static/page.html", "/static//etc/passwd", "/secret.txt", "/static/", "/api/", "/docs",
    ],
)  # fmt: skip
def test_no_other_file_is_served(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "password" not in answer.text


@pytest.mark.parametrize("index", ["-1", "x", "", "1e3", "99999999999", "１"])
def test_an_index_is_a_whole_number(client, index):
    answer = client.get("/api/structure", params={"run": "water", "index": index})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200), ("localhost", 200), ("localhost:1234", 200), ("[::1]:8765", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("192.168.0.7:8765", 421),
        ("localhost.evil.example:8765", 421), ("", 421),
    ],
)  # fmt: skip
def test_other_host_names_are_refused(client, host, status):
    assert client.get("/api/runs", headers={"host": host}).status_code == status


def test_only_small_questions_are_answered(client):
    assert client.post("/api/runs").status_code == 405
    assert client.put("/api/runs", content=b"x").status_code == 405
    assert client.request("GET", "/api/runs", content=b"x" * 100).status_code == 413
    assert client.get("/api/page", params={"run": "x" * 3000}).status_code == 414
    assert client.get("/api/page", params={"run": "water", "page": "../x"}).status_code == 404
    assert client.head("/").status_code == 200


def test_every_answer_forbids_what_is_not_ours(client):
    for answer in (client.get("/"), client.get("/api/runs"), client.get("/nothing")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers


def test_an_open_address_demands_the_token(folder):
    token = "a-long-enough-token"
    app = application(folder, token=token, open_=True, names=("cluster",))
    client = TestClient(app, base_url="http://10.0.0.5:8765", follow_redirects=False)
    for path in ("/", "/api/runs", "/static/main.js"):
        assert client.get(path).status_code == 401
        assert client.get(path, params={"token": "wrong"}).status_code == 401
    told = client.get("/api/runs", headers={"authorization": f"Bearer {token}"})
    assert told.status_code == 200
    moved = client.get("http://10.0.0.5:8765//evil.example/", params={"token": token, "run": "a b"})
    assert moved.status_code == 303
    assert moved.headers["location"] == "/evil.example/?run=a+b"
    assert "HttpOnly; SameSite=Strict" in moved.headers["set-cookie"]
    assert client.get("/api/runs").status_code == 200  # with the cookie
    assert client.get("/api/runs", headers={"host": "cluster"}).status_code == 200
    assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 421


def test_a_structure_comes_with_its_life_in_the_ledger(client, folder):
    add_map(folder / "water")
    add_failures(folder / "water", "no convergence", "again none")
    answer = client.get("/api/structure", params={"run": "water", "index": "1"}).json()
    assert answer["positions"]["shape"] == [4, 3]
    (attempt,) = answer["life"]["attempts"]
    assert (attempt["status"], attempt["kind"], attempt["message"]) == (
        "failed", "timeout", "again none",
    )  # fmt: skip
    assert NASTY in attempt["log_tail"]
    for index in ("3", "77"):
        query = {"run": "water", "index": index}
        assert client.get("/api/structure", params=query).status_code == 404


def test_structures_read_without_jax_are_those_that_were_stored(folder):
    from alj.campaign.ledger import Ledger

    add_failures(folder / "water", "one", "two")
    with Ledger(folder / "water", read_only=True) as ledger:
        stored = {row["hash"]: row["structure"] for row in ledger.failures()}
    for row in views.failures(folder / "water")["failures"]:
        packed = row["structure"]["positions"]
        found = np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])
        np.testing.assert_allclose(found, stored[row["hash"]].positions, rtol=1e-6)


def test_text_of_runs_is_json_and_never_markup(client, folder):
    add_event(folder / "water", {"event": "finished", "reason": NASTY})
    answer = page(client, "overview")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["reason"] == NASTY


ASKED = """
import json, sys
from starlette.testclient import TestClient
from alj.cli import invoke
from alj.monitor import server, views
from alj.monitor.server import application
client = TestClient(application(sys.argv[1]), base_url="http://127.0.0.1")
runs = [row["name"] for row in client.get("/api/runs").json()["runs"]]
codes = [client.get("/api/page", params={"run": run, "page": page}).status_code
         for run in runs for page in views.PAGES]
codes += [client.get("/api/structure", params={"run": runs[0], "index": 0}).status_code]
codes += [client.get("/").status_code]
server.serve = lambda app, host, port, on_start: on_start(port)
code = invoke(["monitor", sys.argv[1]])
print(json.dumps([code, codes, "jax" in sys.modules, "ase" in sys.modules]))
"""


def test_no_jax_is_imported_by_the_command_nor_by_any_page(folder):
    for prepare in (write_results, add_map, lambda run: add_failures(run, "no convergence")):
        prepare(folder / "water")
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(folder / "water")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    code, codes, jax, ase = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert set(codes) == {200}
    assert (jax, ase) == (False, False)
