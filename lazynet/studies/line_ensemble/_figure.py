"""The figure for a line ensemble: networks along the line, the infinite-width prediction, and the gap between them."""

import json
from typing import Any

import numpy as np

from lazynet.studies._style import BLUE, GREEN, ORANGE, SETTINGS, THEORY, label_widths, power_law
from lazynet.typing import Axes, Figure, Result

# Maximum number of steps to draw, each in its own panel; the last step is always drawn.
PANELS = 4


def plot_line(result: Result) -> Figure:
    """Plot the outputs of the widest networks along the line at selected steps.

    The mean over networks is drawn as a solid line with a band of plus or minus two standard deviations, and the
    infinite-width limit is drawn as dashed lines. Dotted lines mark the two inputs.

    If there are several widths and the limit is known, the squared distance from the limit at the last step is also
    plotted against the width. It is split into variance and squared bias, with error bars of plus or minus two standard
    errors. Non-positive estimates are omitted.

    Args:
        result: Result of `lazynet.line_ensemble`. If there are several outputs, only the first is drawn.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl

    from lazynet.figures import Figure

    if "output" in result.dims:
        result = result.isel(output=0)
    steps = result.step.values
    shown = steps[np.unique(np.linspace(0, len(steps) - 1, PANELS).round().astype(int))]
    split = "gap_squared" in result and result.sizes["width"] > 1
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 8), layout="constrained")
        columns = 2 if len(shown) > 1 else 1
        rows = -(-len(shown) // columns)
        left: Any = figure
        if split:
            sides: Any = figure.subfigures(1, 2, width_ratios=(2, 1))
            left, right = sides
            _draw_gap(right.subplots(), result)
        panels = np.ravel(left.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
        widest = result.isel(width=-1)
        for axes, step in zip(panels, shown, strict=False):
            _draw_band(axes, widest.sel(step=step))
            axes.set_title(f"step {step}")
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        for axes in panels[-columns:]:
            axes.set_xlabel("a, where the input is a x₁ + (1 - a) x₂")
        panels[0].legend(loc="best")
        settings = json.loads(result.attrs["settings"])
        figure.suptitle(
            f"{settings['network']} on {settings['dataset']}, n = {settings['n_train']}: "
            f"{result.sizes['seed']} networks of width {int(widest.width)}, mean and 2σ",
            fontsize=13,
            fontweight="bold",
        )
    return figure


def _draw_band(axes: Axes, result: Result) -> None:
    """Plot the mean along the line at one width and step, with a band of plus or minus two standard deviations."""
    place, mean, deviation = result.place.values, result["mean"].values, result.deviation.values
    axes.plot(place, mean, color=BLUE, label="networks")
    axes.fill_between(place, mean - 2 * deviation, mean + 2 * deviation, color=BLUE, alpha=0.2, linewidth=0)
    if "kernel_mean" in result:
        mean, deviation = result.kernel_mean.values, result.kernel_deviation.values
        axes.plot(place, mean, color="black", label="infinite width", **THEORY)
        for sign in (-2, 2):
            axes.plot(place, mean + sign * deviation, color="black", **{**THEORY, "linewidth": 1.0})
    for end in (0, 1):
        axes.axvline(end, color="gray", linewidth=1, linestyle=":")


def _draw_gap(axes: Axes, result: Result) -> None:
    """Plot the variance and squared bias of the gap at the last step against the width."""
    last, widths = result.isel(step=-1), result.width.values
    lines = {"gap_variance": ("variance", ORANGE, "o", -1.0), "gap_bias_squared": ("bias²", GREEN, "s", -2.0)}
    for name, (label, color, marker, exponent) in lines.items():
        values = last[name].values
        positive = values > 0
        if positive.any():
            errors = 2 * last[f"{name}_error"].values[positive] if f"{name}_error" in last else None
            style: dict[str, Any] = {"color": color, "marker": marker, "capsize": 3}
            axes.errorbar(widths[positive], values[positive], errors, label=f"{label}; dashed: m^{exponent:g}", **style)
            power_law(axes, widths[positive], float(np.exp(np.log(values[positive]).mean())), exponent, color)
    axes.set(xscale="log", yscale="log", xlabel="width", title=f"Gap² to the limit, step {int(last.step)}")
    label_widths(axes, widths)
    smallest = [
        float(values.where(values > 0).min()) for values in (last[name] for name in lines) if (values > 0).any()
    ]
    if smallest:
        # Set the lower limit explicitly, because a logarithmic axis cannot show error bars that extend below zero.
        axes.set_ylim(bottom=min(smallest) / 5)
        axes.legend()
