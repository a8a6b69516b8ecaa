"""What the experiments share: files of variants on top of each other, and the machine's name."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alj.campaign import config as configuration


def read(path: Path) -> dict:
    """The experiment's file on top of the one that it names as `base`; a variant of null is off."""
    plan = configuration.read(path)
    if "base" in plan:
        plan = merged(read(path.parent / plan["base"]), plan)
    return plan


def merged(base: Any, changes: Any) -> Any:
    """`base` with mappings merged key by key; anything else is replaced.

    So is a section that names another builder: its settings are not those of the old one.
    """
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    if "name" in changes and changes["name"] != base.get("name"):
        return changes
    return {**base, **{k: merged(base.get(k), v) for k, v in changes.items()}}


def campaigns(plan: Mapping[str, Any]) -> dict[str, dict]:
    """The configuration of every variant with every seed, by name."""
    return {
        f"{variant}-{seed}": merged(plan["campaign"], {**changes, "seed": seed})
        for variant, changes in plan["variants"].items()
        if changes is not None
        for seed in plan["seeds"]
    }


def machine() -> str:
    """The processor, how many of its cores, and the version of Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{cores} cores of {model}, Python {platform.python_version()}"
