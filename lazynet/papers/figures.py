"""Panels, bands and ticks shared by the figures of all papers."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from lazynet.figures import Figure
from lazynet.studies import SETTINGS

# Style of points that were read off a paper's figure.
PUBLISHED: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 7, "zorder": 6}


def panels(count: int, title: str, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a new figure and a list of its axes, ordered row by row.

    Args:
        count: Number of axes in each row.
        title: Title of the figure.
        rows: Number of rows of axes.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6.2 * count, 4.6 * rows), layout="constrained")
        axes = figure.subplots(rows, count, squeeze=False).ravel()
        figure.suptitle(title, fontweight="bold")
    return figure, list(axes)


def band(axes: Axes, x: Any, values: Any, color: Any, label: str, **line: Any) -> None:
    """Plot the mean over seeds, and shade the range between the minimum and the maximum."""
    axes.fill_between(x, values.min("seed"), values.max("seed"), color=color, alpha=0.3, linewidth=0)
    axes.plot(x, values.mean("seed"), color=color, label=label, **line)


def ticks(axes: Axes, values: Sequence[int] | np.ndarray) -> None:
    """Label the given values on the x-axis.

    If the y-axis is logarithmic and spans less than two decades, 2 and 5 times each power of ten are labeled too.
    """
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high < 100 * low:
        axes.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(mpl.ticker.FormatStrFormatter("%g"))
