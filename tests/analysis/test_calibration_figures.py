"""Figures of calibration: what is drawn is what was given, with units and the ideal."""

import numpy as np
import pytest

from alj.analysis import calibration_figures as figures


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_curve_has_every_entry_the_diagonal_and_a_band():
    levels = np.linspace(0.1, 0.9, 9)
    figure = figures.calibration_curve(
        levels, {"energy": levels**2, "forces": np.sqrt(levels)}, labels=100
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    lines = lines_of(axes)
    np.testing.assert_allclose(lines["energy"].get_ydata(), 100 * levels**2)
    np.testing.assert_allclose(lines["forces"].get_xdata(), 100 * levels)
    assert lines["calibrated"].get_linestyle() == "--"
    (band,) = axes.collections
    middle = band.get_paths()[0].vertices
    at_half = middle[np.abs(middle[:, 0] - 50) < 1e-9, 1]
    assert np.ptp(at_half) == pytest.approx(2 * 1.96 * 5.0)
    assert "%" in axes.get_xlabel()


@pytest.mark.parametrize("count", [300, 5000])
def test_groups_of_calibrated_errors_lie_on_the_ideal(count):
    generator = np.random.default_rng(0)
    uncertainty = np.exp(generator.normal(-3, 0.8, size=count))
    error = uncertainty * generator.normal(size=count)
    error[0], uncertainty[1] = 0.0, 0.0
    figure = figures.error_against_uncertainty(uncertainty, error, bound=(1.645, "90 % conformal"))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    lines = lines_of(axes)
    groups = next(line for name, line in lines.items() if name.startswith("root mean squares"))
    ratio = np.asarray(groups.get_ydata()) / np.asarray(groups.get_xdata())
    # The standard error of a root mean square of n normal errors is 1 / √(2 n) of it.
    assert np.all(np.abs(ratio - 1) < 5 / np.sqrt(2 * count / figures.BINS))
    ideal, bound = lines["|error| = uncertainty"], lines["90 % conformal"]
    np.testing.assert_allclose(ideal.get_ydata(), ideal.get_xdata())
    np.testing.assert_allclose(bound.get_ydata(), 1.645 * np.asarray(bound.get_xdata()))
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "eV/Å" in axes.get_xlabel()
    assert "eV/Å" in axes.get_ylabel()
    assert len(figure.axes) == (1 if count <= figures.DENSE else 2)


def test_nothing_to_draw_breaks_nothing():
    none = np.zeros(0)
    figures.error_against_uncertainty(none, none, quantity="energy", unit="meV/atom")
    figure = figures.error_against_uncertainty(np.ones(3), np.zeros(3))
    figure.draw_without_rendering()
    figures.calibration_curve(none, {}).draw_without_rendering()
