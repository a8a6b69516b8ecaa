"""Figures of walks: panels for what there is, units on every axis, no shared state."""

import numpy as np
from matplotlib.figure import Figure

from alj.analysis import motion_figures as figures
from alj.analysis.free_energy import Profile
from alj.analysis.transport import Diffusion, Series, Spectrum
from alj.analysis.work import WorkCurve, activation_energy


def columns(frames=20, **more):
    step = np.arange(1.0, frames + 1)
    base = {"step": step, "time_fs": 10.0 * step, "energy_eV": np.sin(step)}
    return {**base, **more}


def labels(figure: Figure):
    return [axes.get_ylabel() for axes in figure.axes]


def test_the_course_has_a_panel_for_each_quantity_that_is_known():
    one = columns(
        temperature_K=np.full(20, 300.0),
        conserved_eV=np.linspace(1.0, 1.003, 20),
        pressure_bar=np.full(20, np.nan),
        value=np.linspace(2.0, 3.0, 20),
    )
    figure = figures.course({0: one, 1: one}, {0: 3, 1: 3}, observed=["value"])
    assert labels(figure)[:2] == ["energy (eV)", "temperature (K)"]
    assert "meV/atom" in labels(figure)[2]
    assert labels(figure)[3:] == ["value"]
    assert figure.axes[-1].get_xlabel() == "time (ps)"
    drift = figure.axes[2].get_lines()[0].get_ydata()
    np.testing.assert_allclose([drift[0], drift[-1]], [0.0, 1.0], atol=1e-9)
    figure.draw_without_rendering()


def test_walks_without_a_time_are_drawn_against_frames():
    one = columns(time_fs=np.full(20, np.nan))
    figure = figures.course(dict.fromkeys(range(20), one), dict.fromkeys(range(20), 3))
    assert figure.axes[0].get_xlabel() == "frame"
    assert not figure.legends
    figures.course({}, {}).draw_without_rendering()


def test_the_other_figures_have_units():
    time = np.linspace(0.0, 1000.0, 50)
    curve = Series(time, 0.006 * time)
    fit = Diffusion(1.0, 0.05, 200.0, 800.0, True)
    figure = figures.displacement({"a": curve}, {"a": fit})
    assert labels(figure) == ["mean squared displacement (Å²)"]
    line = figure.axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(line, [[0.2, 1.2], [0.8, 4.8]])
    one = Spectrum(np.linspace(0, 5000, 100), np.ones(100))
    assert figures.spectrum({"a": one}).axes[0].get_xlabel() == "wavenumber (cm⁻¹)"
    grid = np.linspace(6.0, 9.0, 30)
    pull = WorkCurve(grid, grid, grid - 6.0, 0.1 * grid)
    figure = figures.work({"a": pull}, {"a": activation_energy(pull)})
    assert labels(figure) == ["work (eV)"]
    assert "no break" in figure.legends[0].get_texts()[0].get_text()
    profile = Profile(grid, grid - 6.0, np.full(30, 0.1), np.ones(30), 30.0)
    assert labels(figures.free_energy({"a": profile})) == ["free energy (eV)"]
    for each in (figure, figures.displacement({"a": curve}), figures.spectrum({"a": one})):
        each.draw_without_rendering()
