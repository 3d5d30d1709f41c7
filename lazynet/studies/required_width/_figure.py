"""The figure for a required width: the largest gap at each trained width, and the gap during training."""

import textwrap
from typing import Any

import numpy as np

from lazynet.studies._style import DRAWN, GREEN, ORANGE, SETTINGS, THEORY, VERMILION, width_colors
from lazynet.studies.required_width._answer import checked, verify_required_width
from lazynet.studies.sweep import Verdict
from lazynet.studies.sweep._figure import TITLE_WIDTH
from lazynet.studies.sweep._points import settings_of
from lazynet.studies.sweep._regime import running_gaps
from lazynet.typing import Axes, Figure, Result


def plot_required_width(result: Result, verdict: Verdict | None = None) -> Figure:
    """Plot the largest gap at each width with the predicted and measured crossings, and gaps against the step.

    Args:
        result: Result of `lazynet.required_width`.
        verdict: Verdict on the result; computed if None.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl

    from lazynet.figures import Figure

    result = checked(result)
    verdict = verify_required_width(result) if verdict is None else verdict
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        widths, steps = figure.subplots(1, 2)
        _draw_widths(widths, result, verdict)
        _draw_steps(steps, result)
        settings = settings_of(result)
        heading = f"{settings['traits']['title']} on {settings['dataset']}, n = {settings['n_train']}:"
        answer = verdict.answer.partition(". ")[0].removesuffix(".") + "."
        figure.suptitle("\n".join([heading, *textwrap.wrap(answer, TITLE_WIDTH)]), fontsize=13, fontweight="bold")
    return figure


def _draw_widths(axes: Axes, result: Result, verdict: Verdict) -> None:
    """Plot the mean of the largest gap at each width, with the tolerance, the prediction and the crossing."""
    pilots = result.width.values[result.pilot.values == 1]
    for label, color, marker, chosen in (("pilots", GREEN, "o", True), ("trained later", VERMILION, "s", False)):
        rows = [
            row
            for row in verdict.regimes
            if (row.width in pilots) is chosen and np.isfinite(row.supremum) and row.supremum > 0
        ]
        means = np.array([row.supremum for row in rows])
        ends = np.abs(np.array([(row.low, row.high) for row in rows]).reshape(-1, 2).T - means)
        if rows:
            style: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none", "capsize": 3}
            axes.errorbar([row.width for row in rows], means, yerr=ends, label=label, **style)
    axes.axhline(verdict.tolerance, color="black", label=f"tolerance {100 * verdict.tolerance:g}%", **THEORY)
    low, high = float(result.predicted_width_low), float(result.predicted_width_high)
    if np.isfinite(low):
        left, right = max(low, float(result.width.min())), high if np.isfinite(high) else 10 * float(result.width.max())
        axes.axvspan(left, right, color=ORANGE, alpha=0.2, linewidth=0, label="predicted, 95% interval")
    if np.isfinite(float(result.crossing)):
        axes.plot(
            float(result.crossing), verdict.tolerance, "*", color="black", markersize=13, label="measured crossing"
        )
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="largest gap / RMS of the targets")
    axes.set_title("Largest gap during training, 95% intervals")
    axes.legend()


def _draw_steps(axes: Axes, result: Result) -> None:
    """Plot the running maximum of the gap, averaged over seeds, against the step, with one curve for each width."""
    gaps = running_gaps(result, result.attrs["of"])
    assert gaps is not None
    later = result.step.values > 0
    for color, width, values in zip(width_colors(result.sizes["width"]), result.width.values, gaps[0], strict=True):
        mean = values.mean(axis=0)[later]
        axes.plot(result.step.values[later], np.where(mean < DRAWN, mean, np.nan), color=color, label=str(width))
    axes.axhline(result.attrs["tolerance"], color="black", **THEORY)
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="gap / RMS of the targets")
    axes.set_title("Largest gap so far, averaged over seeds")
    axes.legend(title="width", loc="center left", bbox_to_anchor=(1.0, 0.5))
