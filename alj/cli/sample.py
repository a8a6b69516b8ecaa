"""`alj sample`: any sampler with any potential, and what came of it in a few lines."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alj.cli.environment import prepare
from alj.types import BadInput

if TYPE_CHECKING:
    from alj.campaign.sampling import Progress as Frames
    from alj.campaign.sampling import Sampled

LINE_SECONDS = 10.0
"""Between two lines about frames where there is no terminal."""

UNEQUILIBRATED = 0.2
"""Share of every walk that the means leave out."""

_KNOWN = (
    "walk", "step", "time_fs", "energy_eV", "acceptance", "ceiling_eV", "stopped", "kinetic_eV",
    "temperature_K", "external_energy_eV", "conserved_eV", "volume_A3", "pressure_bar",
    "largest_force_eV_per_A", "energy_spread_eV", "largest_force_spread_eV_per_A",
)  # fmt: skip


class SampleOptions(NamedTuple):
    """The options of `alj sample`, as they were given."""

    sampler: str
    settings: Sequence[str]
    seed: int
    copies: int
    format: str
    quiet: bool


def sample(model: str, start: str, out: str, options: SampleOptions) -> int:
    """Run or resume a sampling; 0, or 3 where a walk froze."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    spec, of_the_model = _sections(options)
    prepare()
    from alj.campaign.sampling import Request, sample

    spec = _with_names(spec)
    request = Request(
        model, start, spec, out, options.seed, options.copies, options.format, of_the_model
    )
    with FrameBar(quiet=options.quiet) as bar:
        found = sample(request, bar.frames, bar.say)
    columns = _columns(found.folder / "observables.csv")
    _draw(found, columns)
    if not options.quiet:
        for line in summary(found, columns):
            click.echo(line)
    for walk, reason in found.frozen.items():
        click.echo(f"walk {walk} froze: {reason}", err=True)
    return 3 if found.frozen else 0


def summary(found: "Sampled", walks: dict[int, dict[str, np.ndarray]]) -> list[str]:
    """What came out, in a few lines, and what to do next."""
    frames = sum(len(columns["step"]) for columns in walks.values())
    lines = [f"{found.trajectory}: {frames} frames of {len(walks)} walk{'s' * (len(walks) > 1)}"]
    lines += [line for line in (_mean(walks, *what) for what in _MEANS) if line]
    lines += _drift(found, walks)
    spreads = _all(walks, "largest_force_spread_eV_per_A")
    if len(spreads):
        energies = _all(walks, "energy_spread_eV")
        lines.append(
            "committee spread (recorded for every frame): energy "
            f"{energies.mean():.3g} eV, at most {energies.max():.3g}; "
            f"largest force {spreads.mean():.3g} eV/Å, at most {spreads.max():.3g}"
        )
    return [*lines, _next(found, walks)]


def _next(found: "Sampled", walks: dict[int, dict[str, np.ndarray]]) -> str:
    folder = found.folder
    if found.frozen:
        return (
            "next: look at the last frame of the walks that froze, then try a smaller timestep_fs "
            f"or label it (alj label {found.trajectory} …); see {folder / 'sampling.png'}"
        )
    if found.config["sampler"]["name"] == "fire":
        return f"next: the last frame of every walk in {found.trajectory} is the relaxed one"
    return (
        f"next: see {folder / 'sampling.png'}; the same command with more steps goes on from here"
    )


_MEANS = (
    ("temperature_K", "mean temperature", "K"),
    ("energy_eV", "mean energy", "eV"),
    ("pressure_bar", "mean pressure", "bar"),
    ("volume_A3", "mean volume", "Å³"),
    ("acceptance", "mean acceptance", ""),
)


def _mean(walks, name: str, words: str, unit: str) -> str:
    """A mean with its error by blocks; empty where there is nothing to average."""
    from alj.analysis.thermodynamics import mean_of_walks

    series = []
    for columns in walks.values():
        values = columns.get(name, np.zeros(0))
        values = values[int(UNEQUILIBRATED * len(values)) :]
        series.append(values[np.isfinite(values)])
    series = [values for values in series if len(values)]
    if not series or np.ptp(np.concatenate(series)) == 0:
        return ""
    found = mean_of_walks(series)
    error = f" ± {found.error:.2g}" if np.isfinite(found.error) else ""
    short = "" if found.converged else " (the walks are too short for a sure error)"
    return f"{words} {found.mean:.6g}{error} {unit}".rstrip() + short


def _drift(found: "Sampled", walks: dict[int, dict[str, np.ndarray]]) -> list[str]:
    from alj.analysis.transport import drift_per_ps

    if found.config["sampler"]["name"] == "fire":
        return []
    slopes = [
        1000.0 * drift_per_ps(columns["time_fs"], columns["conserved_eV"]) / found.atoms[walk]
        for walk, columns in walks.items()
        if "conserved_eV" in columns
    ]
    slopes = [slope for slope in slopes if np.isfinite(slope)]
    if not slopes:
        return []
    worst = max(slopes, key=abs)
    return [f"drift of the conserved energy {worst:+.2g} meV/atom/ps (the worst walk)"]


def _all(walks, name: str) -> np.ndarray:
    parts = [columns[name] for columns in walks.values() if name in columns]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def _columns(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """The observables of every walk."""
    from alj.campaign.trajectories import read_table

    if not path.exists():
        return {}
    whole = read_table(path)
    numbers = np.unique(whole["walk"]).astype(int).tolist()
    return {w: {name: v[whole["walk"] == w] for name, v in whole.items()} for w in numbers}


def _draw(found: "Sampled", walks: dict[int, dict[str, np.ndarray]]) -> None:
    from alj.analysis.motion_figures import course

    if not walks:
        return
    observed = [name for name in next(iter(walks.values())) if name not in _KNOWN]
    atoms = {walk: found.atoms[walk] for walk in walks}
    course(walks, atoms, observed=observed[:4]).savefig(found.folder / "sampling.png", dpi=120)


def _sections(options: SampleOptions) -> tuple[dict[str, Any], list[str]]:
    """The sampler's section with its settings, and settings of the model's potential or labeler."""
    from alj.campaign.config import override_one

    given: dict = {"sampler": {"name": options.sampler}}
    of_the_model = []
    for setting in options.settings:
        if setting.startswith(("potential.", "labeler.")):
            of_the_model.append(setting)
            continue
        path = f"sampler.{setting.removeprefix('sampler.')}"
        try:
            given = override_one(given, path)
        except BadInput as error:
            raise BadInput(str(error).replace(f"--set {path}", f"--set {setting}")) from None
    return given["sampler"], of_the_model


def _with_names(spec: dict[str, Any]) -> dict[str, Any]:
    """`dynamics.steps=…` alone is meant for the dynamics that the sampler takes by itself."""
    from alj.annotations import nested_in
    from alj.registry import find, schema
    from alj.sampling import SAMPLERS

    filled = dict(spec)
    for setting in schema(find(SAMPLERS, spec["name"], "sampler")):
        given = spec.get(setting.name)
        if nested_in(setting.annotation) and isinstance(given, dict) and "name" not in given:
            default = setting.default
            own = default if isinstance(default, dict) else {"name": default}
            if isinstance(own.get("name"), str):
                filled[setting.name] = {**own, **given}
    return filled


class FrameBar:
    """Progress of frames: a bar on a terminal, a line now and then elsewhere; standard error."""

    def __init__(self, *, quiet: bool = False):
        self.console, self.quiet = Console(stderr=True, highlight=False), quiet
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.begun = self.told = time.monotonic()

    def __enter__(self) -> "FrameBar":
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("frames"), BarColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.bar is not None:
            self.bar.stop()

    def frames(self, progress: "Frames") -> None:
        """Take in how far the walks are."""
        now = time.monotonic()
        rate = (progress.done - progress.resumed) / max(now - self.begun, 1e-9)
        note = f"{progress.done} of {progress.total}, {rate:.3g} frames/s"
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task("", total=progress.total)
            self.bar.update(self.task, completed=progress.done, description=note)
        elif now - self.told > LINE_SECONDS:
            self.told = now
            self.say(f"frames: {note}")

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)
