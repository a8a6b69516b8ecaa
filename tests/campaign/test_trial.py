"""An engine is tested on the start before a campaign believes it."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from campaign.test_loop import CONFIG

from alj.campaign import loop, trial
from alj.campaign.plan import make_plan
from alj.labeling.engine import Limits, Reference, labels_of
from alj.types import BadInput, LabelingFailed


@dataclass(frozen=True)
class Springs:
    """Atoms on springs to where they stand in a lattice; forces times `wrong`."""

    wrong: float = 1.0
    waits: bool = False

    name: ClassVar[str] = "springs"
    settings: ClassVar[dict] = {}
    convention: ClassVar[str] = "springs"
    elements: ClassVar[tuple[int, ...]] = (18,)
    periodic: ClassVar[bool] = True
    electrons: ClassVar[bool] = False
    limits: ClassVar[Limits] = Limits(max_net_force_eV_per_A=None)

    def version(self):
        return "springs 1"

    def calculate(self, structure, multiplicity):
        x = np.asarray(structure.positions)
        if self.wrong == 0.0:
            raise LabelingFailed("not_converged", "never")
        energy = 0.5 * float(np.sum(np.sin(x) ** 2))
        return labels_of(len(x), energy, -self.wrong * 0.5 * np.sin(2 * x))


def run(tmp_path, monkeypatch, engine, **changes):
    config = copy.deepcopy(CONFIG)
    config["data"].pop("reference_test")
    config["data"]["random_start"]["minimization_steps"] = 0
    config |= {"rounds": 0, **changes}
    labeler = Reference([engine])
    monkeypatch.setattr(loop, "make_plan", lambda c: make_plan(c)._replace(labeler=labeler))
    notes = []

    def on_event(event):
        notes.append(event.get("text") or event.get("stage") or "")

    monkeypatch.setattr(loop, "finish", lambda *_: None)
    loop.run_campaign(config, tmp_path / "run", on_event)
    return notes


def test_an_engine_whose_forces_are_wrong_is_refused_before_the_first_round(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"springs fails its self-test on the start: forces of your"):
        run(tmp_path, monkeypatch, Springs(wrong=1.5))
    assert "self-test of springs" not in run(
        tmp_path, monkeypatch, Springs(wrong=1.5), self_test=False
    )


def test_a_right_one_is_believed_and_tested_once(tmp_path, monkeypatch):
    assert "self-test of springs" in run(tmp_path, monkeypatch, Springs())
    assert "self-test of springs" not in run(tmp_path, monkeypatch, Springs())


def test_what_waits_or_takes_long_or_fails_is_not_tried_twenty_times(tmp_path, monkeypatch):
    assert "self-test of springs" not in run(
        tmp_path / "a", monkeypatch, Springs(wrong=1.5, waits=True)
    )
    with monkeypatch.context() as patch:
        patch.setattr(trial, "PATIENCE_SECONDS", 0.0)
        notes = run(tmp_path / "b", monkeypatch, Springs(wrong=1.5))
        assert any("springs was not tested" in note for note in notes)
        with pytest.raises(BadInput, match="fails its self-test"):
            run(tmp_path / "c", monkeypatch, Springs(wrong=1.5), self_test=True)
    notes = run(tmp_path / "d", monkeypatch, Springs(wrong=0.0))
    assert any("the start cannot be labeled (not_converged: never)" in note for note in notes)
