"""The sections of a campaign's configuration that have no registry.

Each is a function whose keyword-only signature is the schema, like that of every builder.
"""

from typing import Literal, NamedTuple

from alj.types import BadInput


class DataSettings(NamedTuple):
    start: str | dict | None
    random_start: dict | None
    initial: str | None
    boot: dict | None
    test: str | None
    reference_test: tuple
    keep_error_above_meV_per_atom: float | None
    floor_below_lowest_eV_per_atom: float
    mixed_engines: bool
    held_out_fraction: float


class StopSettings(NamedTuple):
    labels: int | None
    kept: int | None
    rounds_without_news: int | None
    scatter_meV_per_atom: float | None
    failed_labels: int
    least_kept: int
    unknown_fraction: float | None


class WalkSettings(NamedTuple):
    walks: int
    candidates: int
    density_range: tuple[float, float]
    far_density_range: tuple[float, float]
    far_share: float
    config_type: str | None
    starts: str
    longest: int


class Augmentation(NamedTuple):
    copies: int
    amplitude_A: float


def data_settings(
    *,
    start: str | dict | None = None,
    random_start: dict | None = None,
    initial: str | None = None,
    boot: dict | None = None,
    test: str | None = None,
    reference_test: list[dict] = (),  # type: ignore[assignment]
    keep_error_above_meV_per_atom: float | None = None,
    floor_below_lowest_eV_per_atom: float = 0.05,
    mixed_engines: bool = False,
    held_out_fraction: float = 0.0,
) -> DataSettings:
    """Where a campaign begins, what it is tested on, and which labels join the data.

    Args:
        start: File whose first structure is the start, or a mapping with the `name` and settings
            of a builder (alj show build) and `minimization_steps`.
        random_start: Instead, a random box: species, atoms, density_g_per_cc, …
        initial: File of labeled structures to begin with.
        boot: Sampler of the first round, when there is no potential yet; perturbation by default.
        test: File of labeled structures to test on, never trained on.
        reference_test: Instead, walks of the reference potential (entries as in `sampler`, each
            with a `config_type`) whose frames are the test set; their labels are not counted.
        keep_error_above_meV_per_atom: Labels that were predicted better than this are not
            trained on; null keeps all.
        floor_below_lowest_eV_per_atom: A walk that falls this far below the lowest label is in a
            hole of the potential: it stops there and the structure is labeled.
        mixed_engines: Allow labels of several reference engines or methods in the data. Their
            energies differ by constants, their surfaces by more: no potential fits both.
        held_out_fraction: Share of the labels of each round, drawn at random, that nothing is ever
            trained on; errors on them are reported beside those of a test set.
    """
    if (start is None) == (random_start is None) and initial is None:
        raise BadInput(
            "data: expected either start (a file, or a builder) or random_start, found "
            + ("neither" if start is None else "both")
        )
    return DataSettings(
        start, random_start, initial, boot, test, tuple(reference_test),
        keep_error_above_meV_per_atom, floor_below_lowest_eV_per_atom, mixed_engines,
        held_out_fraction,
    )  # fmt: skip


def stop_settings(
    *,
    labels: int | None = 1000,
    kept: int | None = 300,
    rounds_without_news: int | None = 5,
    scatter_meV_per_atom: float | None = None,
    failed_labels: int = 50,
    least_kept: int = 30,
    unknown_fraction: float | None = None,
) -> StopSettings:
    """When a campaign ends, whichever comes first (its `rounds` being the last resort).

    Args:
        labels: Labels computed.
        kept: Labels in the training set.
        rounds_without_news: Rounds in a row in which no label was worth keeping.
        scatter_meV_per_atom: Scatter of the errors on new labels after removing each walk's mean,
            median of three rounds.
        failed_labels: Failed labels after which the campaign pauses with a report.
        least_kept: The rules on errors hold only once so many labels are kept.
        unknown_fraction: Share of unknown frames (as esoinn_quota reports them) in walks of full
            length, at or below which nothing is left to explore.
    """
    return StopSettings(
        labels, kept, rounds_without_news, scatter_meV_per_atom, failed_labels, least_kept,
        unknown_fraction,
    )  # fmt: skip


def walk_settings(
    *,
    walks: int = 2,
    candidates: int = 60,
    density_range: tuple[float, float] = (1.0, 1.0),
    far_density_range: tuple[float, float] = (1.0, 1.0),
    far_share: float = 0.0,
    config_type: str | None = None,
    starts: Literal["data", "start", "sparse"] = "data",
    longest: int = 1,
) -> WalkSettings:
    """What every sampler of a campaign takes besides its own settings.

    Args:
        walks: Walks of this sampler in a round.
        candidates: Frames that each walk offers to the selector, evenly spaced.
        density_range: Range of densities at which walks start, relative to the start's.
        far_density_range: The same for the share of walks that explore further.
        far_share: Share of walks that use the further range, on average over the rounds.
        config_type: Name under which frames are recorded; the sampler's by default.
        starts: Where walks begin: at random structures of the "data", at the "start", or at those
            nearest to the nodes of lowest density in a network of classes ("sparse").
        longest: Walks become twice as long whenever at most stop.unknown_fraction of their frames
            are unknown, up to so many times their steps.
    """
    if longest < 1:
        raise BadInput(f"longest: expected at least 1, found {longest}")
    if walks < 1 or candidates < 1:
        raise BadInput(f"expected walks and candidates of at least 1, found {walks}, {candidates}")
    for name, (low, high) in {"": density_range, "far_": far_density_range}.items():
        if not 0 < low <= high:
            raise BadInput(f"{name}density_range: expected 0 < low ≤ high, found [{low}, {high}]")
    return WalkSettings(
        walks, candidates, density_range, far_density_range, far_share, config_type, starts,
        longest,
    )  # fmt: skip


def augmentation_settings(*, copies: int = 0, amplitude_A: float = 0.05) -> Augmentation:
    """Noisy copies of what a round chooses, which are labeled as well.

    Args:
        copies: Copies of each chosen structure.
        amplitude_A: Each coordinate is displaced by a uniform random number up to this.
    """
    if copies < 0 or amplitude_A <= 0:
        raise BadInput(
            f"augmentation: expected copies of at least 0 and a positive amplitude_A, found "
            f"{copies} and {amplitude_A}"
        )
    return Augmentation(copies, amplitude_A)


def top_settings(
    *,
    seed: int = 0,
    rounds: int = 20,
    precision: Literal["float32", "float64"] = "float32",
    explore_with: Literal["mean", "best", "best_forces"] = "mean",
    choose_from: Literal["all", "each"] = "all",
    grow_by: float = 0.0,
    self_test: bool | None = None,
):
    """Top-level settings.

    Args:
        seed: Everything random in the campaign derives from it.
        rounds: Rounds at most; a larger number extends a finished campaign.
        precision: Floating-point type of networks; walks and Levenberg-Marquardt use float64.
        explore_with: What walks and predicts candidates: the "mean" of the committee, its "best"
            member, the one with the lowest validation loss, or "best_forces", the one with the
            lowest mean force error on all its data. The model's answer is the mean.
        choose_from: The selector looks at "all" walks of a round together, or at those of "each"
            sampler alone, with its share of the count: what it takes is then labeled while the
            next samplers walk, where the executor works in the background.
        grow_by: A round chooses at least this share of the labeled structures, where that is more
            than the selector's count (0.1 in the papers on optimal experimental design).
        self_test: Whether a reference engine is tested on the start before the first round; null
            does so where its labels take less than ten seconds and wait in no queue.
    """
