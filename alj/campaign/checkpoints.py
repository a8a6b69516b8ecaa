"""Checkpoints inside a long stage: its state every so often, so that a kill costs little of it.

A stage's result is remembered once (`FolderStore.remember`); until then its steps are worth keeping
too. A state is stored as its leaves: `training.fit` knows the tree that they belong to.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from alj.campaign.store import FolderStore

SECONDS = 20.0
"""Between two checkpoints of a stage, unless told otherwise."""


class Checkpoint:
    """The last state of the stage `name`, for the `on_block` and `resume` of `training.fit`.

    `steps` is the length of the stage, `seconds` the time between two writings. `about` says what
    the stage works on (a digest of its data): a checkpoint about something else is not resumed.
    `summarize(info)`, where given, turns the info of a block into a tree of arrays and plain
    values; those of all blocks since the very beginning are `history`.

        checkpoint = Checkpoint(store, "003/training", steps=trainer.steps)
        fitted = fit(..., on_block=checkpoint.on_block, resume=checkpoint.resume())
        store.replace("003/state", fitted.params)
        checkpoint.forget()
    """

    def __init__(
        self,
        store: FolderStore,
        name: str,
        *,
        steps: int,
        seconds: float | None = None,
        about: str = "",
        summarize: Callable[[Any], Any] | None = None,
    ):
        self._store, self._name = store, name
        self._steps, self._seconds = steps, SECONDS if seconds is None else seconds
        self._about, self._summarize = about, summarize
        kept = store.recall(name)
        if kept is not None and kept.get("about", "") != about:
            kept = None
        self._kept: dict[str, Any] | None = kept
        self.history: list[Any] = [] if kept is None else list(kept["past"])
        self._written = time.monotonic()

    def resume(self) -> tuple[int, list] | None:
        """The steps done and the leaves of the state after them; None: begin at the beginning."""
        return None if self._kept is None else (int(self._kept["done"]), self._kept["leaves"])

    def on_block(self, done: int, state: Any, info: Any) -> None:
        """Note a block of steps; its state is written where the last writing is long enough ago.

        The last state of a stage is not, nor one in which all members have stopped: the result of
        the stage follows, and no step may come after it.
        """
        if self._summarize is not None:
            self.history.append(self._summarize(info))
        stopped = getattr(info, "stopped", None)
        over = done >= self._steps or (
            stopped is not None and bool(np.all(np.asarray(stopped)[-1]))
        )
        if over or time.monotonic() - self._written <= self._seconds:
            return
        leaves = jax.tree.leaves(jax.device_get(state))
        content = {"done": int(done), "leaves": leaves, "past": self.history, "about": self._about}
        self._store.replace(self._name, content)
        self._written = time.monotonic()

    def forget(self) -> None:
        """Remove it, once the result of the stage is remembered."""
        self._store.forget(self._name)
