"""The figure for mode residuals: residuals along a few modes, and how long modes follow the kernel's prediction."""

import json
from itertools import pairwise

import numpy as np

from lazynet.studies._style import BLUE, DRAWN, SETTINGS, THEORY, VERMILION, width_colors
from lazynet.typing import Axes, Figure, Result

# Maximum number of modes to plot in a panel.
CURVES = 6


def plot_modes(result: Result) -> Figure:
    """Plot the residuals along a few modes, and how long each mode follows the kernel's prediction.

    If the result contains several networks, the residuals are drawn for the first seed at the largest width. For every
    width, the figure also shows how many steps each mode follows the prediction (median over seeds).

    Args:
        result: Result of `lazynet.mode_residuals`.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl

    from lazynet.figures import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 4.9), layout="constrained")
        left, held = figure.subplots(1, 2)
        if "width" in result.dims:
            widest = result.isel(width=-1, seed=0)
            _draw_left(left, widest)
            left.set_title(f"Network of width {int(widest.width)} (solid) and kernel (dashed)")
            _draw_widths(held, result)
            title = _finding_by_width(result)
        else:
            _draw_left(left, result)
            _draw_held(held, result)
            title = _finding(result)
        figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _finding_by_width(result: Result) -> str:
    """Return the figure's title, which gives the fraction of modes that follow the prediction to the last step.

    The fraction is given for the largest and the smallest width.
    """
    settings = json.loads(result.attrs["settings"])
    stayed = (result.last_step_held == result.step[-1]).mean(["seed", "mode"]).values
    first, last = result.width.values[[0, -1]]
    return (
        f"{settings['traits']['title']} on {settings['dataset']}, n = {result.sizes['mode']}:\n"
        f"{stayed[-1]:.0%} of the modes stay within {result.attrs['tolerance']:.0%} of the kernel to step "
        f"{int(result.step[-1])} at width {last}"
    ) + (f", {stayed[0]:.0%} at width {first}" if first != last else "")


def _draw_widths(axes: Axes, result: Result) -> None:
    """Plot how long each mode follows the kernel's prediction at each width (median over seeds).

    Also plot the step at which the kernel learns each mode.
    """
    median = result.last_step_held.median("seed")
    for color, width in zip(width_colors(result.sizes["width"]), result.width.values, strict=True):
        axes.plot(result.mode, median.sel(width=width), "o", color=color, markersize=4, alpha=0.8, label=f"{width}")
    rate = np.ravel(list(json.loads(result.attrs["settings"])["learning_rate"].values()))[-1]
    values = result.eigenvalue if result.eigenvalue.ndim == 1 else result.eigenvalue.isel(width=-1)
    _draw_learned(axes, result, values.values, float(rate))
    axes.legend(title="width", loc="upper left", ncols=3)


def _finding(result: Result) -> str:
    """Return the figure's title, which says how many modes follow the kernel's prediction to the last step."""
    settings = json.loads(result.attrs["settings"])
    stayed = result.last_step_held.values == result.step.values[-1]
    squares = _start(result) ** 2
    title = (
        f"{settings['traits']['title']} of width {settings['width']} on {settings['dataset']}, n = {len(stayed)}:\n"
        f"{stayed.sum()} of {len(stayed)} modes stay within {result.attrs['tolerance']:.0%} of the kernel to step "
        f"{int(result.step[-1])}"
    )
    if squares.any():
        title += f" ({np.sum(squares[stayed]) / np.sum(squares):.0%} of the squared residual)"
    if not stayed.all():
        title += f";\nhalf of the others leave by step {int(np.median(result.last_step_held.values[~stayed]))}"
    return title


def _draw_left(axes: Axes, result: Result) -> None:
    """Plot the residuals along a few modes.

    Each residual is normalized the same way as the mode's gap, and its sign is chosen so that it starts out positive.
    """
    start, later = _start(result), result.isel(step=result.step.values > 0)
    drawn = _handful(start)
    for color, i in zip(width_colors(len(drawn)), drawn, strict=True):
        unit = start[i] * max(start[i], np.linalg.norm(start) / np.sqrt(len(start)))
        towards = result.residual.isel(step=0, mode=i).values.reshape(-1) / unit
        for name, style in (("residual", {"label": str(i + 1)}), ("kernel_residual", THEORY)):
            values = later[name].isel(mode=i).values.reshape(len(later.step), -1)
            values = np.where(np.abs(values) < DRAWN, values, np.nan)
            axes.plot(later.step, np.sum(values * towards, axis=1), color=color, **style)
    axes.set(xscale="log", xlabel="step", ylabel="residual along the mode / its scale")
    axes.set(title="Network (solid) and kernel (dashed)")
    # Leave space for the legend above the curves.
    axes.set_ylim(max(-1.0, axes.get_ylim()[0]), 1.45)
    if drawn:
        axes.legend(title="mode", loc="upper right", ncols=CURVES)


def _handful(start: np.ndarray) -> list[int]:
    """Return the mode with the largest initial residual in each of a few log-spaced parts of the spectrum."""
    ends = np.unique(np.geomspace(1, len(start), CURVES).round().astype(int))
    parts = [range(first, end) for first, end in pairwise([0, *ends])]
    return [i for i in (max(part, key=start.__getitem__) for part in parts) if start[i] > 0]


def _draw_held(axes: Axes, result: Result) -> None:
    """Plot how long each mode follows the kernel's prediction, and the step at which the kernel learns the mode."""
    settings = json.loads(result.attrs["settings"])
    last, mode, step = int(result.step[-1]), result.mode.values, result.last_step_held.values
    for chosen, color, marker, label in (
        (step == last, BLUE, "o", "to the last step"),
        (step < last, VERMILION, "v", "left before"),
    ):
        if chosen.any():
            axes.plot(mode[chosen], step[chosen], marker, color=color, markersize=4.5, alpha=0.8, label=label)
    _draw_learned(axes, result, result.eigenvalue.values, settings["learning_rate"])
    axes.legend(loc="upper left", ncols=2)


def _draw_learned(axes: Axes, result: Result, values: np.ndarray, learning_rate: float) -> None:
    """Plot the step at which the kernel learns each mode, and label the axes."""
    resolved = values > len(values) * np.finfo(float).eps * values[0]
    learned = 1 / (learning_rate * values[resolved])
    axes.plot(result.mode.values[resolved], learned, color="black", label="1 / (η λ): learned", **THEORY)
    axes.set(xscale="log", xlabel="mode, from the largest eigenvalue down", ylabel="step")
    axes.set(title=f"Within {result.attrs['tolerance']:.0%} of the kernel up to")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(-0.3, 20 * int(result.step[-1]))


def _start(result: Result) -> np.ndarray:
    """Return the norm, over outputs, of the initial residual along each mode, as an array of shape (n,)."""
    start = result.residual.isel(step=0).values
    return np.linalg.norm(start.reshape(len(start), -1), axis=1)
