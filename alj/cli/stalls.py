"""A run that stands still says so: compiled programs on CPUs have been seen to wait for ever."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

PATIENCE_SECONDS = 600.0
IDLE = 0.002
"""Less than this share of one core is standing still."""

COMPUTING = ("explore", "train", "widths", "refit", "test")
"""Stages of its own work; in all others a run may wait for engines."""


class StallWatch:
    """Says once, within the `with` block, that a run has used no processor for a while.

    `event(...)` tells it what the run tells: stages that may wait for engines do not count.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        used: Callable[[], float] = time.process_time,
    ):
        self.say, self.patience, self.used = say, patience_seconds, used
        self.stage = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)

    def __enter__(self) -> "StallWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._ended.set()
        self._thread.join()

    def event(self, event: dict) -> None:
        """Take note of the stage that a run is in."""
        self.stage = event.get("stage", self.stage)

    def _watch(self) -> None:
        before = self.used()
        while not self._ended.wait(self.patience):
            now = self.used()
            if now - before < IDLE * self.patience and self.stage in COMPUTING:
                self.say(
                    f"nothing has been computed for {self.patience / 60:.0f} minutes in stage "
                    f"{self.stage}: the run stands still; stop it with Ctrl-C, or kill it, and "
                    "give the same command again: it goes on where it was"
                )
                return
            before = now
