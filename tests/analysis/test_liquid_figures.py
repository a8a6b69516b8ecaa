"""Figures of liquids show what they are given, with units and the reference beneath."""

import numpy as np

from alj.analysis import liquid_figures
from alj.analysis.liquid_figures import REFERENCE, Curve


def curve(shift: float) -> Curve:
    x = np.linspace(2.0, 7.0, 26)
    return Curve(x, 1.0 + np.exp(-((x - 2.9 - shift) ** 2) * 9), np.full(26, 0.02))


def drawn(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_distributions_lie_over_their_reference():
    curves = {REFERENCE: curve(0.0), "network": curve(0.05)}
    for draw, unit in ((liquid_figures.radial, "(Å)"), (liquid_figures.angular, "(degrees)")):
        figure = draw(curves)
        lines = drawn(figure)
        np.testing.assert_array_equal(lines["network"].get_ydata(), curves["network"].y)
        assert lines[REFERENCE].get_linewidth() > lines["network"].get_linewidth()
        assert len(figure.axes[0].collections) == 1  # the band of the network alone
        assert unit in figure.axes[0].get_xlabel()


def test_a_measured_peak_is_a_point():
    lines = drawn(liquid_figures.radial({"network": curve(0.0)}, peak=(2.8, 2.57, "measured")))
    assert (lines["measured"].get_xdata()[0], lines["measured"].get_ydata()[0]) == (2.8, 2.57)


def test_densities_have_error_bars_and_the_experiment_beside():
    temperatures = np.array([260.0, 300.0])
    points = {
        REFERENCE: Curve(temperatures, np.array([0.99, 1.0]), np.array([0.001, 0.001])),
        "network": Curve(temperatures[:1], np.array([0.98]), np.array([0.002])),
    }
    grid = np.linspace(260, 320, 7)
    measured = Curve(grid, liquid_figures.water_density(grid), np.zeros(7)), "water"
    figure = liquid_figures.density(points, measured=measured)
    assert "g/cm³" in figure.axes[0].get_ylabel()
    assert len(figure.axes[0].containers) == 2
    assert "water" in drawn(figure)


def test_the_density_of_water_is_kells():
    # The tables of older CRC Handbooks, from the same measurements: 0, 25 and 80 °C.
    found = liquid_figures.water_density(np.array([273.15, 298.15, 353.15]))
    np.testing.assert_allclose(found, [0.9998396, 0.9970449, 0.9717978], atol=1e-6)
