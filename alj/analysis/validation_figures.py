"""Figures of a validation: the potential drawn in full, the reference dashed behind it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alj.analysis.axes import COLORS, GRAY, legend, tidy

_STYLES = (
    {"color": COLORS[0], "lw": 1.4, "zorder": 3},
    {"color": GRAY, "lw": 1.4, "ls": "--", "zorder": 2},
)


def equation_of_state(answers: Mapping[str, Any]) -> Figure:
    """Energy against volume, each from its own minimum."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, answer), style in zip(answers.items(), _STYLES, strict=False):
        curve = answer["curve"]
        energies = 1000 * np.array(curve["energy_eV_per_atom"])
        volumes = curve["volume_A3_per_atom"]
        axes.plot(volumes, energies - energies.min(), label=name, marker="o", ms=3, **style)
    tidy(axes, "volume (Å³/atom)", "energy above the lowest (meV/atom)")
    legend(figure, axes)
    return figure


def phonons(answers: Mapping[str, Any]) -> Figure:
    """Frequencies along the path; what is imaginary lies below zero."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, answer), style in zip(answers.items(), _STYLES, strict=False):
        bands = answer["bands"]
        ends = bands["distance"][-1] or 1.0
        where = np.array(bands["distance"]) / ends
        for index, branch in enumerate(np.array(bands["frequency_THz"]).T):
            axes.plot(where, branch, label=name if index == 0 else None, **style)
        axes.set_xticks(np.array(bands["ticks"]) / ends, [t or "" for t in bands["labels"]])
    axes.axhline(0, color=GRAY, lw=0.6)
    tidy(axes, "wave vector", "frequency (THz)")
    legend(figure, axes)
    return figure


def bond_scans(answers: Mapping[str, Any]) -> Figure:
    """Energy against bond length, a panel for each bond."""
    bonds = list(dict.fromkeys(bond for answer in answers.values() for bond in answer["scans"]))
    rows = -(-len(bonds) // 3)
    figure = Figure(figsize=(8.4, 0.6 + 2.4 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, min(3, len(bonds)), squeeze=False)).reshape(-1)
    for panel in panels[len(bonds) :]:
        panel.set_axis_off()
    for panel, bond in zip(panels, bonds, strict=False):
        for (name, answer), style in zip(answers.items(), _STYLES, strict=False):
            if bond in answer["scans"]:
                scan = answer["scans"][bond]
                panel.plot(scan["length_A"], scan["energy_eV"], label=name, **style)
        panel.set_title(bond, fontsize=9)
        tidy(panel, "length (Å)", "energy (eV)")
    legend(figure, panels[0])
    return figure


def vibrations(answers: Mapping[str, Any]) -> Figure:
    """Wavenumbers in order."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, answer), style in zip(answers.items(), _STYLES, strict=False):
        values = answer["wavenumber_per_cm"]
        axes.plot(np.arange(1, len(values) + 1), values, label=name, marker="o", ms=3, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "vibration", "wavenumber (1/cm)")
    legend(figure, axes)
    return figure


FIGURES = (equation_of_state, phonons, bond_scans, vibrations)
"""For each check of the same name that has something to draw."""
