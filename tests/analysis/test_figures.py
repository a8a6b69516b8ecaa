"""Figures: what is drawn is what was given, with units; missing data break nothing."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from alj.analysis import figures


def rounds_of(count):
    return [
        {
            "round": i, "labels": 11 + 10 * i, "kept": 11 + 8 * i, "failed": 0,
            "test_mae_meV_per_atom": 40.0 / (i + 1),
            "candidate_mae_meV_per_atom": None if i == 0 else 80.0 / i,
            "candidate_scatter_meV_per_atom": None if i == 0 else 20.0 / i,
            "acceptance": {"metropolis_mc": 0.5, "nested_mc": 0.4},
            "seconds": {"train": 1.0 + i, "explore": 2.0},
            "ladder": [[0.02, -0.1 - 0.01 * i, None]],
            "chosen_energy_eV_per_atom": [-0.4, -0.3, 20.0 if i == 1 else -0.2, None],
        }
        for i in range(count)
    ]  # fmt: skip


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_learning_curve_counts_a_candidate_for_the_labels_known_before():
    published = {"label": "paper", "computed": [1, 100], "error": [65.0, 5.0]}
    figure = drawn(
        figures.learning_curve(rounds_of(4), target_meV_per_atom=2.0, published=published)
    )
    computed, kept = figure.axes
    lines = lines_of(computed)
    assert lines["MAE, independent test set"].get_xdata().tolist() == [11, 21, 31, 41]
    assert lines["MAE, candidates"].get_xdata().tolist() == [11, 21, 31]
    assert lines["MAE, candidates"].get_ydata().tolist() == [80.0, 40.0, 80.0 / 3]
    assert lines["paper"].get_ydata().tolist() == [65.0, 5.0]
    assert lines["target"].get_linestyle() == "--"
    assert "paper" not in lines_of(kept)
    assert lines_of(kept)["MAE, independent test set"].get_xdata().tolist() == [11, 19, 27, 35]
    assert computed.get_yscale() == "log"
    assert "meV/atom" in computed.get_ylabel()


def test_one_panel_where_everything_is_kept():
    rounds = [{**event, "kept": event["labels"]} for event in rounds_of(3)]
    assert len(drawn(figures.learning_curve(rounds)).axes) == 1


def test_the_parity_legend_tells_the_errors_of_each_kind():
    reference = np.linspace(-0.4, 0.0, 40)
    shift = np.where(np.arange(40) < 20, 0.001, -0.003)
    kinds = ["cold"] * 20 + ["hot"] * 20
    figure = drawn(figures.energy_parity(reference, reference + shift, kinds))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "MAE 1," in texts[0]
    assert "bias +1," in texts[0]
    assert "bias -3," in texts[1]
    assert "all (40)" in texts[2]
    assert "MAE 2," in texts[2]
    residuals = figure.axes[1].collections[0].get_offsets()
    assert np.asarray(residuals)[:, 1] == pytest.approx(1.0)


def test_many_forces_become_a_density_and_an_outlier_is_counted():
    reference = np.random.default_rng(0).normal(size=figures.DENSE + 1)
    predicted = reference + 0.01 * np.sin(reference * 30)
    predicted[0] += 5.0
    figure = drawn(figures.force_parity(reference, predicted))
    assert "1 beyond, up to 4.99" in figure.axes[1].get_title(loc="right")
    assert any("per cell" in axes.get_ylabel() for axes in figure.axes)
    assert len(drawn(figures.force_parity(reference[:9], predicted[:9])).axes) == 2


def test_the_ladder_has_a_line_for_every_walk():
    figure = drawn(figures.nested_ladder(rounds_of(3)))
    second = [line.get_ydata()[1] for line in figure.axes[0].get_lines()]
    assert second == pytest.approx([-0.1, -0.11, -0.12])


def test_stacked_times_reach_the_sum():
    figure = drawn(figures.seconds(rounds_of(3)))
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches[-3:]]
    assert tops == [3.0, 4.0, 5.0]


def test_shares_of_trust_fill_the_bar():
    shares = {"accurate": 0.5, "candidate": 0.3, "failed": 0.2, "low_eV_per_A": 0.1}
    rounds = [{"round": 0, "selection": None}, *[{"round": i, "selection": shares} for i in (1, 2)]]
    bars = drawn(figures.trust_shares(rounds)).axes[0].patches
    assert len(bars) == 6
    assert [bar.get_height() for bar in bars[::2]] == pytest.approx([0.5, 0.3, 0.2])
    tops = [bar.get_y() + bar.get_height() for bar in bars[-2:]]
    assert tops == pytest.approx([1.0, 1.0])
    assert bars[0].get_x() + bars[0].get_width() / 2 == pytest.approx(1.0)


def test_a_rare_high_energy_does_not_flatten_the_rest():
    figure = drawn(figures.chosen_energies(rounds_of(12)))
    assert figure.axes[0].get_ylim()[1] < 1.0
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "above, up to 20.00" in texts


def test_the_training_shows_each_member():
    values = np.exp(-np.arange(5.0))[:, None] * np.array([[1.0, 2.0]])
    figure = drawn(figures.training(np.arange(5.0), values, np.full((5, 2), np.nan)))
    assert len(figure.axes[0].get_lines()) == 2


def test_spread_against_error_is_logarithmic():
    spread = np.array([0.0, 0.1, 0.2, 0.4])
    axes = drawn(figures.spread_against_error(spread, 2 * spread)).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    "draw",
    [
        figures.learning_curve,
        figures.nested_ladder,
        figures.acceptance,
        figures.seconds,
        figures.trust_shares,
        figures.chosen_energies,
    ],
)
def test_nothing_known_yet_is_an_empty_figure(draw):
    for rounds in ([], [{"round": 0}], [{"round": 0, "labels": None, "ladder": [], "seconds": {}}]):
        assert isinstance(drawn(draw(rounds)), Figure)
