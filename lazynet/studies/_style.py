"""Colors and line styles for all figures: theory is dashed, and measurements are solid."""

from typing import Any

import numpy as np

from lazynet.typing import Axes

# The colorblind-safe Okabe-Ito palette.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
PALETTE = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "vermilion": VERMILION, "purple": PURPLE}
# Matplotlib settings for all figures.
SETTINGS: Any = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.title_fontsize": 10,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.0,
    "lines.linewidth": 1.8,
}
# Values above this limit result from divergence. They are not drawn, because they would dwarf all other values.
DRAWN = 1e12
# Line style of theoretical predictions.
THEORY: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.4, "zorder": 5}


def width_colors(count: int) -> np.ndarray:
    """Return a color for each width, from dark (narrow) to light (wide).

    Args:
        count: Number of widths.

    Returns:
        RGBA colors with components from 0 to 1, shape (count, 4).
    """
    import matplotlib as mpl

    return mpl.colormaps["viridis"](np.linspace(0, 0.9, count))


def power_law(axes: Axes, widths: np.ndarray, anchor: float, exponent: float, color: str) -> None:
    """Draw a dashed line for a power law in the width.

    Args:
        axes: Matplotlib axes.
        widths: Widths in ascending order. The line extends from the first to the last width.
        anchor: Value of the power law at the geometric mean of the widths.
        exponent: Exponent of the width.
        color: Matplotlib color of the line.
    """
    middle = np.exp(np.mean(np.log(widths)))
    ends = np.array([widths[0], widths[-1]], float)
    axes.plot(ends, anchor * (ends / middle) ** exponent, color=color, **THEORY)


def label_widths(axes: Axes, widths: np.ndarray) -> None:
    """Place a tick at each width on a logarithmic axis, and remove all other ticks."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xticks(widths, [str(int(width)) for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
