"""A thousand labels on this machine while its workers are killed every few seconds."""

import pytest
from campaign.chaos import Killer, check, labeling

from alj.campaign.executors import local

pytestmark = pytest.mark.slow


def test_a_thousand_labels_while_workers_are_killed(tmp_path):
    executor = local(workers=2, labels_per_task=16, timeout_seconds=1.5)
    check(tmp_path, executor, Killer(labeling, seconds=2.5))
