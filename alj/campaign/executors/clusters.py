"""Labels on a cluster, by Parsl: Slurm, PBS, Torque, LSF, Kubernetes, or a rehearsal of them here.

Y. Babuji et al., HPDC 2019, doi 10.1145/3307681.3325400. Parsl starts a pool of workers inside of
batch jobs; each of them watches over a labeling process of its own, so that what a label may take,
and what an engine dies of, is the same as on one machine. The folder of the run must be on a file
system that the nodes share.
"""

import re
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alj.campaign.executors.answers import Answer, block_size, together
from alj.campaign.executors.dispatch import Dispatch, Journals, Work
from alj.campaign.executors.supervisor import (
    ONE_THREAD,
    Bounds,
    Task,
    at_least_one,
    bounds_of,
    run_task,
)
from alj.labeling.install import needed
from alj.types import BadInput, Labeler, Structure


def parsl(
    *,
    scheduler: Literal["local", "slurm", "pbs", "torque", "lsf", "kubernetes"] = "local",
    jobs: int = 1,
    nodes_per_job: int = 1,
    workers_per_node: int = 1,
    walltime: str = "01:00:00",
    queue: str | None = None,
    account: str | None = None,
    scheduler_options: list[str] = (),  # type: ignore[assignment]
    worker_init: list[str] = (),  # type: ignore[assignment]
    provider_options: dict = {},  # noqa: B006
    address: str | None = None,
    labels_per_task: int = 8,
    timeout_seconds: float | None = 3600.0,
    memory_GB: float | None = None,
    patience_minutes: float = 10.0,
) -> "Cluster":
    """Labels in batch jobs of a cluster, by Parsl (pip install 'alj[parsl]').

    Args:
        scheduler: What runs the jobs; "local" starts the workers on this machine.
        jobs: Batch jobs at once, at most.
        nodes_per_job: Nodes of one job.
        workers_per_node: Labels at once on a node.
        walltime: Of a job, HH:MM:SS. Labels that a job does not finish go on in the next one.
        queue: Queue or partition; null for the scheduler's default.
        account: Account or project; null for the scheduler's default.
        scheduler_options: Lines for the head of the job script, such as "#SBATCH --mem=4G".
        worker_init: Lines of shell before the workers start, such as "module load orca". The
            environment of this program is on PATH already.
        provider_options: Further keywords of Parsl's provider (`image` for Kubernetes).
        address: Name or address of this machine as the nodes see it; null asks for the host name.
        labels_per_task: Labels sent to a worker together; each is remembered when it is finished.
        timeout_seconds: Wall time that one label may take; null for any. It fails as `timeout`.
        memory_GB: Memory that one label may take; null for any. It fails as `out_of_memory`.
        patience_minutes: Without a worker for so long, a note says what the batch job's log says.
    """
    for name, value in (
        ("jobs", jobs),
        ("nodes_per_job", nodes_per_job),
        ("workers_per_node", workers_per_node),
        ("labels_per_task", labels_per_task),
    ):
        at_least_one(name, value)
    bounds = bounds_of(timeout_seconds, memory_GB)
    if not re.fullmatch(r"\d+:\d\d:\d\d", walltime):
        raise BadInput(f"walltime: expected HH:MM:SS, found {walltime!r}")
    given = {"queue": queue, "account": account, "scheduler_options": scheduler_options}
    ignored = [name for name, value in given.items() if value]
    if scheduler in ("local", "kubernetes") and ignored:
        raise BadInput(f"{ignored[0]}: {scheduler} has no such thing; leave it out")
    if nodes_per_job > 1 and scheduler not in ("slurm", "lsf"):
        raise BadInput(f"nodes_per_job: expected 1 for {scheduler}; ask for more `jobs`")
    settings = ClusterSettings(
        scheduler, jobs, nodes_per_job, workers_per_node, walltime, queue, account,
        tuple(scheduler_options), tuple(worker_init), dict(provider_options), address,
        labels_per_task, bounds, patience_minutes,
    )  # fmt: skip
    return Cluster(settings)


_SUBMITS = {"slurm": "sbatch", "pbs": "qsub", "torque": "qsub", "lsf": "bsub"}


class ClusterSettings(NamedTuple):
    """The settings of `parsl`, checked."""

    scheduler: str
    jobs: int
    nodes_per_job: int
    workers_per_node: int
    walltime: str
    queue: str | None
    account: str | None
    scheduler_options: tuple[str, ...]
    worker_init: tuple[str, ...]
    provider_options: dict[str, Any]
    address: str | None
    labels_per_task: int
    bounds: Bounds
    patience_minutes: float


STALL_SECONDS = 120.0
"""Beyond the time that a label may take: jobs that are there and give nothing are replaced."""

STALLS = 3
"""After so many replacements in a row without a label, somebody must look."""


class _Stalled(Exception):
    """Workers are connected, and nothing comes: a pool can outlive its workers."""


class Cluster:
    """See `parsl`."""

    in_background = True

    def __init__(self, settings: ClusterSettings):
        self.settings = settings
        self._pool: Pool | None = None
        self._workers: Any = None
        self._folder: Path | None = None
        self._warned = False

    def run(
        self,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[list[tuple[int, Answer]]]:
        own, left, stalls = self.settings, list(range(len(structures))), 0
        try:
            while left:
                if self._pool is None:
                    self._start(journals)
                places = left
                try:
                    for finished in self._dispatch(
                        labeler,
                        [structures[i] for i in places],
                        None if journals is None else journals.of(places),
                        on_note,
                    ):
                        answers = [(places[k], answer) for k, answer in finished]
                        given, stalls = {i for i, _ in answers}, 0
                        left = [i for i in left if i not in given]
                        yield answers
                except _Stalled:
                    stalls += 1
                    said = self._complaints()
                    self.close()
                    if stalls == STALLS:
                        raise BadInput(f"executor: workers come, but no label does{said}") from None
                    if on_note is not None:
                        on_note("the jobs are there but no label comes: new ones take their place")
        except _broken_pools() as error:
            said = " ".join(str(error).split())[-600:]
            self.close()
            raise BadInput(
                f"executor: {own.scheduler} does not run the jobs: {said}{self._complaints()}"
            ) from None

    def _dispatch(
        self,
        labeler: Labeler,
        structures: list[Structure],
        journals: Journals | None,
        on_note: Callable[[str], None] | None,
    ) -> Iterator[list[tuple[int, Answer]]]:
        """One run of the pool that is there. Raises _Stalled."""
        own, size = self.settings, block_size(labeler, self.settings.labels_per_task)
        window = max(64, 4 * own.jobs * own.nodes_per_job * own.workers_per_node)
        limit = own.bounds.seconds
        patience = None
        if limit is not None:
            patience = STALL_SECONDS + limit * (size if together(labeler) else 1)
        connected: float | None = None

        def idle(seconds: float) -> None:
            nonlocal connected
            self._look(seconds, on_note)
            if not self._workers.connected_managers():
                connected = None
                return
            connected = connected or time.monotonic()
            silent = min(seconds, time.monotonic() - connected)
            if patience is not None and silent > patience:
                raise _Stalled

        work = Work(self._submit, size, window, own.bounds, _lost_workers(), idle)
        yield from Dispatch(work, labeler, structures, journals).answers()

    def close(self) -> None:
        """End the jobs."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)  # what is under way is in journals, or was not wanted

    def _submit(self, task: Task) -> Future:
        assert self._pool is not None
        return self._pool.submit(run_task, task)

    def _start(self, journals: Journals | None) -> None:
        """Start Parsl; its logs and job scripts go beside the journals."""
        modules = _parsl()
        submit = _SUBMITS.get(self.settings.scheduler)
        if submit is not None and shutil.which(submit) is None:
            raise BadInput(
                f"executor: the program {submit} is not on PATH; {self.settings.scheduler} takes "
                "jobs from its own machines only, elsewhere use `labeler: command` with `host`"
            )
        beside = (
            Path(tempfile.mkdtemp(prefix="alj-parsl-")) if journals is None else journals.folder
        )
        self._folder = beside.absolute() / "parsl"
        own = self.settings
        provider = self._provider()
        self._workers = modules.executors.HighThroughputExecutor(
            label="labels",
            provider=provider,
            address=own.address or _address(own.scheduler),
            loopback_address="127.0.0.1",
            interchange_launch_cmd=[sys.executable, str(_scripts() / "interchange.py")],
            max_workers_per_node=own.workers_per_node,
            cores_per_worker=1e-6,  # workers_per_node decides, not the cores that Parsl sees
            heartbeat_period=2,
            heartbeat_threshold=10,
            worker_logdir_root=str(self._folder),
            encrypted=False,
            block_error_handler=modules.jobs.error_handlers.windowed_error_handler,
        )
        config = modules.config.Config(
            executors=[self._workers],
            run_dir=str(self._folder),
            usage_tracking=0,
            strategy="simple",
            strategy_period=2,
            retries=0,
        )
        try:
            self._pool = modules.concurrent.ParslPoolExecutor(config)
        except Exception as error:  # whatever a provider's constructor stumbles on
            raise BadInput(f"executor: Parsl does not start: {error}") from None

    def _provider(self) -> Any:
        """Parsl's provider for the scheduler, with its own names for our settings."""
        own, providers = self.settings, _parsl().providers
        exports = [f"export {name}={value}" for name, value in ONE_THREAD.items()]
        exports.append(f'export PATH="{_scripts()}:$PATH"')  # whether or not it was activated
        common: dict[str, Any] = {
            "nodes_per_block": own.nodes_per_job,
            "init_blocks": 1,
            "min_blocks": 0,
            "max_blocks": own.jobs,
            "worker_init": "\n".join([*exports, *own.worker_init]),
        }
        batch = {
            **common,
            "walltime": own.walltime,
            "scheduler_options": "\n".join(own.scheduler_options),
        }
        slurm = {"partition": own.queue, "account": own.account}
        others = {"queue": own.queue, "account": own.account}
        made: dict[str, tuple[str, dict[str, Any]]] = {
            "local": ("LocalProvider", common),
            "slurm": ("SlurmProvider", {**batch, **slurm}),
            "pbs": (
                "PBSProProvider", {**batch, **others, "cpus_per_node": own.workers_per_node}
            ),
            "torque": ("TorqueProvider", {**batch, **others}),
            "lsf": (
                "LSFProvider", {**batch, "queue": own.queue, "project": own.account}
            ),
            "kubernetes": ("KubernetesProvider", common),
        }  # fmt: skip
        name, keywords = made[own.scheduler]
        launchers = _parsl().launchers
        if own.scheduler != "kubernetes":
            single = launchers.SingleNodeLauncher  # Torque's default is for Crays
            several = {"slurm": launchers.SrunLauncher, "lsf": launchers.JsrunLauncher}
            keywords["launcher"] = (several[own.scheduler] if own.nodes_per_job > 1 else single)()
        try:
            return getattr(providers, name)(**{**keywords, **own.provider_options})
        except Exception as error:
            raise BadInput(f"executor: Parsl's {name} cannot be made: {error}") from None

    def _look(self, seconds: float, on_note: Callable[[str], None] | None) -> None:
        """Say once that no worker has appeared, and why the batch job thinks so."""
        waited = seconds > 60.0 * self.settings.patience_minutes
        if self._warned or on_note is None or not waited:
            return
        if not self._workers.connected_managers():
            self._warned = True
            on_note(
                f"no worker has appeared for {self.settings.patience_minutes:g} minutes "
                f"({self.settings.scheduler}); waiting{self._complaints()}"
            )

    def _complaints(self) -> str:
        """What the batch jobs say on standard error."""
        if self._folder is None:
            return ""
        logs = [p for p in self._folder.rglob("*.stderr") if p.stat().st_size]
        if not logs:
            return f"; logs are in {self._folder}"
        last = max(logs, key=lambda path: path.stat().st_mtime)
        return f"; {last} ends with: {last.read_text(errors='replace')[-500:].strip()}"


@cache
def _parsl() -> Any:
    """Parsl with the parts that are used here. Raises BadInput where it is not installed."""
    for part in ("concurrent", "config", "executors", "jobs.error_handlers", "launchers"):
        needed("parsl", f"parsl.{part}")
    needed("parsl", "parsl.providers")
    return needed("parsl")


def _lost_workers() -> tuple[type[BaseException], ...]:
    errors = needed("parsl", "parsl.executors.high_throughput.errors")
    return (errors.WorkerLost, errors.ManagerLost)


def _broken_pools() -> tuple[type[BaseException], ...]:
    errors = needed("parsl", "parsl.executors.errors")
    jobs = needed("parsl", "parsl.jobs.errors")
    return (errors.BadStateException, errors.ScalingFailed, jobs.TooManyJobFailuresError)


def _address(scheduler: str) -> str:
    return "127.0.0.1" if scheduler == "local" else socket.gethostname()


def _scripts() -> Path:
    """Where Parsl's programs are: beside this Python."""
    return Path(sysconfig.get_path("scripts"))
