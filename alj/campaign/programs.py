"""Compiled programs are forgotten before a long run has more of them than the system allows.

Every program that XLA compiles on a CPU takes memory maps, and Linux allows a process 65 530 of
them: beyond, a compilation ends in "Cannot allocate memory" however much is free, and the process
with it.
"""

from pathlib import Path

import jax

LIMIT, MAPS = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")
SHARE = 0.5
"""So much of the limit is used at most before compiled programs are forgotten."""


def forget_when_many(limit: Path = LIMIT, maps: Path = MAPS) -> bool:
    """Forget all compiled programs where their maps come near the limit; whether it was done.

    What is still needed is compiled again, or read from the cache of compiled programs. Where the
    system does not tell, nothing happens.
    """
    try:
        allowed = int(limit.read_text())
        used = maps.read_bytes().count(b"\n")
    except (OSError, ValueError):
        return False
    if used <= SHARE * allowed:
        return False
    jax.clear_caches()
    return True
