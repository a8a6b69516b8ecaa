"""Events: whole lines only, whatever happened to the writer."""

import json

import numpy as np

from alj.campaign import events


def test_events_come_back_in_order_with_their_time(tmp_path):
    assert events.read(tmp_path) == []
    events.append(tmp_path, {"event": "stage", "round": 0, "stage": "train"})
    events.append(tmp_path, {"event": "round", "x": np.float32(1.5), "y": float("nan"), "z": (1,)})
    first, second = events.read(tmp_path)
    assert first["stage"] == "train"
    assert first["time"] <= second["time"]
    assert (second["x"], second["y"], second["z"]) == (1.5, None, [1])


def test_a_half_written_line_is_passed_over_and_closed(tmp_path):
    events.append(tmp_path, {"event": "a"})
    with (tmp_path / events.NAME).open("a") as file:
        file.write('{"event": "b", "tim')
    assert [event["event"] for event in events.read(tmp_path)] == ["a"]
    events.append(tmp_path, {"event": "c"})
    assert [event["event"] for event in events.read(tmp_path)] == ["a", "c"]


def test_follow_gives_everything_once_as_it_comes(tmp_path):
    events.append(tmp_path, {"event": "a"})
    turns = []

    def stop():
        turns.append(1)
        if len(turns) == 2:
            events.append(tmp_path, {"event": "b"})
            with (tmp_path / events.NAME).open("a") as file:
                file.write(json.dumps({"event": "c"}))
        if len(turns) == 3:
            with (tmp_path / events.NAME).open("a") as file:
                file.write("\n")
        return len(turns) == 4

    found = events.follow(tmp_path, stop, interval_seconds=0.0)
    assert [event["event"] for event in found] == ["a", "b", "c"]
