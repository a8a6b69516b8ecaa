"""Strict settings for every test: x64, explicit ranks, keys used once, checked types."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("alj", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

from alj.campaign.programs import forget_when_many  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
_cache = os.environ.get("ALJ_TEST_CACHE", str(Path(tempfile.gettempdir()) / "alj-test-cache"))
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Compiled programs pile up over hundreds of tests: forget them beyond 2 GB, or too many."""
    yield
    if forget_when_many():
        return
    memory = Path("/proc/self/statm")
    if memory.exists() and int(memory.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") > 2e9:
        jax.clear_caches()


@pytest.fixture
def data_folder() -> Path:
    """Small reference files made by other codes."""
    return Path(__file__).parent / "data"


@pytest.fixture
def alj(capfd, monkeypatch, tmp_path):
    """Run a command in an empty folder: (exit code, standard output, standard error)."""
    from alj.cli import invoke

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))

    def command(*arguments):
        code = invoke([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command
