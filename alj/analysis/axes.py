"""What all figures share: colors, labels with units, legends beside the data, readable ticks.

Colors are Okabe and Ito's, which color-blind readers tell apart. Figures are made without pyplot,
so no state is shared.
"""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7F3C8D",
    "#4D4D4D",
)
MARKERS = "osD^vPX*"
GRAY = "#777777"


def tidy(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels, a light grid behind the data, no frame on two sides."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, lw=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: Axes) -> None:
    """Beside the panels, never over the data; nothing where there is nothing to name."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=8, labelspacing=0.9
        )


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis."""
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis that read 1, 2, 5, 10 and not powers."""
    low, high = sorted(axis.get_view_interval())
    wide = low > 0 and high / low > 3e3
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
