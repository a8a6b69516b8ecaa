"""A campaign compiles each program at most a handful of times, and its memory stays flat."""

import collections
import gc
import os
from pathlib import Path

import jax
import jax.monitoring
import pytest
from campaign import crash_points
from campaign.crash_points import CONFIG

from alj.campaign.programs import forget_when_many

COMPILED = "/jax/core/compile/backend_compile_duration"
ROUNDS = 12
HANDFUL = 4


class Watch:
    """Programs compiled (or taken from the cache on disk) by name, and memory, round by round."""

    def __init__(self):
        self.programs: list[collections.Counter] = [collections.Counter()]
        self.memory_MB: list[float] = []

    def on_duration(self, event: str, seconds: float, **about) -> None:
        if event == COMPILED:
            self.programs[-1][str(about.get("fun_name"))] += 1

    def on_event(self, event: dict) -> None:
        if event["event"] == "round":
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory_MB.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            self.programs.append(collections.Counter())


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    watch = Watch()
    folder = tmp_path_factory.mktemp("programs") / "run"
    jax.monitoring.register_event_duration_secs_listener(watch.on_duration)
    try:
        crash_points.run(folder, watch.on_event, {**CONFIG, "rounds": ROUNDS, "seed": 5})
    finally:
        jax.monitoring.unregister_event_duration_listener(watch.on_duration)
    return watch


def ours(programs: collections.Counter) -> dict[str, int]:
    """Compiled functions of the package; JAX's own small ones (`jit(add)`) are left out."""
    return {name: n for name, n in programs.items() if name.startswith("jit(_")}


@pytest.mark.slow
def test_each_program_is_compiled_a_handful_of_times(watched):
    assert "jit(_scanned)" in watched.programs[0], "nothing was counted"
    total = ours(sum(watched.programs, collections.Counter()))
    assert max(total.values()) <= HANDFUL, total


@pytest.mark.slow
def test_rounds_of_the_same_shapes_compile_nothing(watched):
    later = watched.programs[2:ROUNDS]
    # not even one to move an array of a new size: each would stay in memory
    assert [dict(programs) for programs in later] == [{}] * len(later)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_stays_flat(watched):
    first, *_, last = watched.memory_MB[3:]
    assert last - first < 5.0, watched.memory_MB


def test_programs_are_forgotten_before_their_maps_run_out(tmp_path):
    limit, maps = tmp_path / "limit", tmp_path / "maps"
    limit.write_text("100\n")
    double = jax.jit(lambda x: 2 * x)
    double(1.0)
    maps.write_text("a line for each map\n" * 50)
    assert not forget_when_many(limit, maps)
    assert double._cache_size() == 1
    maps.write_text("a line for each map\n" * 51)
    assert forget_when_many(limit, maps)
    assert double._cache_size() == 0
    assert double(1.0) == 2.0
    assert not forget_when_many(tmp_path / "unknown", maps)
