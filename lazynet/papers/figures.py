"""What the figures of papers have in common."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazynet.plots.style import SETTINGS

# What a paper's own figure shows, read off it.
PUBLISHED: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 7, "zorder": 6}


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes side by side."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6.2 * count, 4.6), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        figure.suptitle(title, fontweight="bold")
    return figure, list(axes)


def ticks(axes: Axes, values: Sequence[int] | np.ndarray) -> None:
    """Name just these values on a logarithmic x-axis, and more than powers of ten on a short y-axis."""
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high < 100 * low:
        axes.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
        for of_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            of_ticks(mpl.ticker.FormatStrFormatter("%g"))
