"""The trial of a reference engine before a campaign believes it: its self-test on the start.

A campaign multiplies whatever an engine does wrong: wrong units, forces that are no slopes, a
memory of earlier structures. The labels of the trial are thrown away; they are computed where the
others will be.
"""

import time
from pathlib import Path

from alj.campaign.executors import Executor, Journals, journal
from alj.campaign.folder import Run
from alj.campaign.labels import JOURNALS
from alj.labeling.engine import Reference
from alj.labeling.self_test import self_test
from alj.types import BadInput, Labeler, LabelingFailed, Labels, Structure

_MARK = "trial"

PATIENCE_SECONDS = 10.0
"""A label that takes longer is not tried twenty times unless `self_test: true` asks for it."""


class Remote:
    """A labeler whose labels are computed by an executor, one at a time."""

    def __init__(self, executor: Executor, labeler: Labeler, folder: Path):
        self.name, self.settings = labeler.name, labeler.settings
        self._executor, self._labeler, self._folder = executor, labeler, folder

    def label(self, structure: Structure) -> Labels:
        """Raises LabelingFailed."""
        journals = Journals(self._folder, [_MARK])
        (((_, answer),),) = self._executor.run(self._labeler, [structure], journals)
        journal.discard(self._folder, [_MARK])  # it is not a label of the run
        if isinstance(answer.result, LabelingFailed):
            raise answer.result
        return answer.result


def try_engine(run: Run, start: Structure) -> dict:
    """What was found, for the store. Raises BadInput where the engine fails.

    Nothing is tried where the labeler is a potential of this package, where labels wait in a queue
    or take long, or where `self_test: false` says so.
    """
    plan = run.plan
    wanted, labeler = plan.config["self_test"], plan.labeler
    if not isinstance(labeler, Reference) or wanted is False:
        return {"tried": False}
    if getattr(labeler.engine, "waits", False) and not wanted:
        return {"tried": False}
    remote = Remote(plan.executor, labeler, run.folder.absolute() / JOURNALS)
    run.emit({"event": "stage", "round": 0, "stage": f"self-test of {labeler.name}"})
    try:
        remote.label(start)
        began = time.monotonic()
        remote.label(start)  # the first one began with starting a process
        seconds = time.monotonic() - began
    except LabelingFailed as failure:
        run.note(f"the start cannot be labeled ({failure}); {labeler.name} was not tested")
        return {"tried": False}
    if seconds > PATIENCE_SECONDS and not wanted:
        run.note(f"a label takes {seconds:.0f} s: {labeler.name} was not tested (self_test: true)")
        return {"tried": False}
    checks = self_test(remote, start)
    wrong = [check for check in checks if not check.passed]
    if wrong:
        told = "; ".join(f"{c.check} {c.number:.2g}, limit {c.limit:g} {c.reason}" for c in wrong)
        raise BadInput(
            f"labeler: {labeler.name} fails its self-test on the start: {told}. Mend its settings, "
            "or set `self_test: false` if you know better"
        )
    return {"tried": True, "checks": [list(check) for check in checks]}
