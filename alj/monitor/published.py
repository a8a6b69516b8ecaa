"""Numbers of the literature that a run is shown beside, by labeler."""

from alj.analysis import liquid_figures

PUBLISHED = {
    "ml_bop_water": {
        "label": "Loeffler et al. 2020,\ntheir own measure",
        "computed": [1, 101, 901],
        "error": [65.0, 5.0, 1.2],
    }
}
"""Learning curves of the literature by labeler: doi 10.1039/c9me00184k, ten labels an iteration."""

MEASURED = {
    "ml_bop_water": {
        "peak": liquid_figures.WATER_PEAK,
        "density": (liquid_figures.water_density, "experiment, water\nKell 1975"),
    }
}
"""Experiments to show beside simulated properties, by labeler."""
