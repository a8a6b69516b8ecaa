"""JAX as the commands want it: set before it starts, and only here."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

WRONG_SUMS = ("0.10.2", "0.11.0")
"""Versions of jaxlib whose fused sums are wrong or crash on CPUs: jax issues 39103 and 39257."""


def prepare() -> None:
    """Float64 on, one host device for each core, and compiled programs kept between runs.

    XLA's own threads on CPUs are off, and so is its order of work that favors concurrency: with
    either, programs on two cores were seen to wait for ever (the second: walks of meta-networks,
    five runs of five within two minutes, with jaxlib 0.10.1).
    Some versions of jaxlib sum wrongly on CPUs, or crash, unless a fusion is switched off.
    What the user has set in XLA_FLAGS or JAX_COMPILATION_CACHE_DIR stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Programs from the cache come with pages of errors about features that no processor reports.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ours = {
        "--xla_force_host_platform_device_count": str(cores()),
        "--xla_cpu_multi_thread_eigen": "false",
        "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
    }
    if version("jaxlib") in WRONG_SUMS:
        ours["--xla_cpu_experimental_ynn_fusion_type"] = ""
    flags = os.environ.get("XLA_FLAGS", "")
    added = [f"{flag}={value}" for flag, value in ours.items() if flag not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()
    import jax

    jax.config.update("jax_enable_x64", True)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = compilation_cache()
        if cache is not None:
            jax.config.update("jax_compilation_cache_dir", str(cache))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compilation_cache() -> Path | None:
    """A writable folder for compiled programs, `$XDG_CACHE_HOME/alj/xla`; None where there is none.

    One for each kind of processor: a home folder may be shared between machines, and programs
    compiled for one do not run on every other.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "alj" / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def _processor() -> str:
    text = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    known = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return hashlib.sha256((text + "".join(sorted(known))).encode()).hexdigest()[:12]
