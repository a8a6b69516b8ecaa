"""A labeler in a process of its own, for walks that ask it from inside a compiled program.

A program of JAX that is started while another one waits for its answer may wait for ever. Engines
that are learned potentials (`may_use_jax`) therefore label in another process, which is started
with the first label and ends with this one.
"""

import atexit
import sys

from alj.campaign.executors.dispatch import pickled
from alj.campaign.executors.supervisor import Bounds, Supervisor, Task
from alj.types import Labeler, LabelingFailed, Labels, Structure


def beside(labeler: Labeler) -> Labeler:
    """The labeler itself, or one that does the same elsewhere where it may run programs of JAX."""
    engine = getattr(labeler, "engine", None)
    return Elsewhere(labeler) if getattr(engine, "may_use_jax", False) else labeler


class Elsewhere:
    """Labels as `labeler` gives them, from another process; see the top of this file."""

    def __init__(self, labeler: Labeler):
        self.name, self.settings = labeler.name, labeler.settings
        self._supervisor = Supervisor()
        self._pickled = pickled(labeler)
        atexit.register(self._supervisor.close)

    def label(self, structure: Structure) -> Labels:
        """The label of one unpadded structure. Raises LabelingFailed, BadInput."""
        bounds, places = Bounds(), tuple(sys.path)
        task = Task(self._pickled, [structure], [""], "", False, bounds, places)
        answer = self._supervisor.run(task)[0].result
        if isinstance(answer, LabelingFailed):
            raise answer
        return answer
