"""Reproductions of the figures in Li and Liang 2018, compared with points read off the original figures."""

from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import scipy.stats

from lazynet.execution import Arrays
from lazynet.papers.claims import exponent
from lazynet.papers.figures import PUBLISHED, band, panels, ticks
from lazynet.papers.li2018_setting import LEVEL, MOVED, first_step, moved, steps_of
from lazynet.papers.li2018_sizes import Mixture
from lazynet.studies import BLUE, GREEN, THEORY, VERMILION, power_law, width_colors
from lazynet.typing import Axes, Figure, Result

# Values read off Figure 1 (b, c) of the paper at step 390, for each width. The paper's networks learn more slowly than
# its stated learning rate implies.
PAPER_WIDTHS = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
PAPER_ENDS = {
    "coupling": (0.0653, 0.0469, 0.0340, 0.0246, 0.0173, 0.0123, 0.0087),
    "relative distance": (0.0386, 0.0276, 0.0198, 0.0140, 0.0099, 0.0070, 0.0050),
}
# Test accuracy at width 1000, keyed by step, read off Figure 2 (a) of the paper.
PAPER_ACCURACY = {2000: 0.906, 10_000: 0.932, 18_000: 0.940}
PAPER_DATA = Mixture(1000, 1000, 10, 2)
# Position of a legend below the axes.
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
# Rounding error in singular values, relative to the largest singular value.
ROUNDING = 1e-7


def draw_mixture(result: Result, early: Result, data: Mixture, spectra: dict[str, Arrays]) -> Figure:
    """Draw Figure 1 of Li and Liang 2018: accuracy, coupling, relative distance and singular values.

    An additional panel shows the final coupling, relative distance and kernel change against the width.
    """
    title = f"Figure 1: {data.classes} classes of {data.components} components in {data.dim} dimensions"
    figure, (accuracy, *moving, widths, unit, raw) = panels(3, title, rows=2)
    by_width(accuracy, early, lambda at_width: 1 - at_width.test_error, "test accuracy")
    needed = first_step(early.test_error)
    accuracy.set_title(f"(a) 99% after {float(needed.min()):.0f} to {float(needed.max()):.0f} steps at all widths")
    accuracy.legend(title="width")
    draw_moved(moving, result)
    against_width(widths, result, data == PAPER_DATA)
    for axes, kind in ((unit, "unit"), (raw, "raw")):
        spectrum(axes, spectra[kind], data.classes * data.components)
        seeds = spectra[kind]["update"].shape[1]
        axes.set_title(f"(d) {kind} inputs, {seeds} seed{'s' * (seeds > 1)}; dashed: k l")
    return figure


def by_width(axes: Axes, result: Result, quantity: Any, label: str) -> None:
    """Plot a quantity against the step, with one curve for each width.

    Args:
        axes: Axes to draw on.
        result: Result of the sweep.
        quantity: Function that computes the quantity from the result at one width.
        label: Label of the quantity.
    """
    for width, color in zip(result.width.values, width_colors(result.sizes["width"]), strict=True):
        band(axes, result.step, quantity(result.sel(width=width)), color, str(width))
    axes.set(xlabel="step", ylabel=label, ylim=(0, None))


def draw_moved(panels: list[Axes], result: Result) -> None:
    """Plot coupling and relative distance against the step.

    A dashed line marks the level below which the paper calls these quantities small.
    """
    for letter, axes, (name, variable) in zip("bc", panels, MOVED.items(), strict=True):
        by_width(axes, result, lambda at_width, variable=variable: at_width[variable], name)
        axes.axhline(LEVEL, color="black", **THEORY)
        end = result[variable].isel(step=-1).mean("seed")
        ends = f"{float(end[0]):.2g} to {float(end[-1]):.2g} by width"
        axes.set_title(f"({letter}) {ends}; dashed: {LEVEL:g}")


def against_width(axes: Axes, result: Result, published: bool) -> None:
    """Plot the final coupling, relative distance and kernel change against the width, with a line of slope -1/2."""
    shown = {**MOVED, "change of the kernel": "kernel_drift"}
    axes.set(xscale="log", yscale="log")
    for (name, variable), color in zip(shown.items(), (BLUE, VERMILION, GREEN), strict=True):
        end = result[variable].isel(step=-1)
        band(axes, end.width, end, color, f"{name}, m^{exponent(end):.2f}", marker="o")
        if published and name in PAPER_ENDS:
            common = [width in end.width.values for width in PAPER_WIDTHS]
            paper = np.array(PAPER_ENDS[name])[common]
            label = f"{name} in the paper, at its step 390"
            axes.plot(np.array(PAPER_WIDTHS)[common], paper, label=label, **PUBLISHED | {"color": color})
    first = result.relative_displacement.isel(step=-1)
    power_law(axes, first.width.values, scipy.stats.gmean(first.mean("seed").values), -0.5, "black")
    axes.set(xlabel="width", title="at the last step; dashed: m^(-1/2)")
    ticks(axes, result.width.values)
    axes.legend(**BELOW)


def spectrum(axes: Axes, spectra: Arrays, count: int | None = None) -> None:
    """Plot the singular values of the weight update at each width, and shade the range over seeds.

    Also plot the singular values of the weights at the largest width.
    """
    widths = spectra["widths"]
    for width, update, color in zip(widths, spectra["update"], width_colors(len(widths)), strict=True):
        mean = update.mean(axis=0)
        resolved = mean > ROUNDING * mean[0]
        index = 1 + np.flatnonzero(resolved)
        drop = "" if count is None else f", drop {mean[count - 1] / mean[count]:.1f}"
        low, high = (extreme(update, axis=0)[resolved] for extreme in (np.min, np.max))
        axes.fill_between(index, low, high, color=color, alpha=0.3)
        axes.loglog(index, mean[resolved], ".-", color=color, label=f"update, width {width}{drop}")
    weights = spectra["weights"][-1].mean(axis=0)
    axes.loglog(1 + np.arange(len(weights)), weights, color=BLUE, linestyle=":", label=f"weights, width {widths[-1]}")
    if count is not None:
        axes.axvline(count + 0.5, color="black", **THEORY)
    axes.set(xlabel="index", ylabel="singular value")
    axes.legend(loc="lower left")


def draw_images(name: str, result: Result, spectra: Arrays) -> Figure:
    """Draw Figure 2 of Li and Liang 2018: accuracy, coupling, relative distance and singular values.

    An additional panel shows the final coupling, relative distance and kernel change against the width.
    """
    figure, (test, *moving, widths, values, train) = panels(3, f"Figure 2: {name}, ten classes", rows=2)
    for axes, part in ((test, "test"), (train, "train")):
        by_width(axes, result, lambda at_width, part=part: 1 - at_width[f"{part}_error"], f"{part} accuracy")
        end = 1 - result[f"{part}_error"].isel(step=-1).mean("seed")
        title = f"{float(end.min()):.3f} to {float(end.max()):.3f} at the end"
        axes.set(title=title, xscale="symlog", xlim=(0, result.step[-1]))
    test.set_title(f"(a) {test.get_title()}")
    shown = [step for step in PAPER_ACCURACY if name == "mnist" and step <= result.step[-1]]
    if shown:
        values_shown = [PAPER_ACCURACY[step] for step in shown]
        test.plot(shown, values_shown, label="1000 in the paper", **PUBLISHED)
    draw_moved(moving, result)
    for axes in moving:
        axes.set(xscale="symlog", xlim=(0, result.step[-1]))
    against_width(widths, result, False)
    spectrum(values, spectra)
    values.set_title("(d) seed 0")
    test.legend(title="width")
    return figure


def draw_structure(
    variance: dict[float, Result],
    clusters: dict[tuple[int, int], Result],
    labels: dict[str, Result],
    exact: Result,
) -> Figure:
    """Plot how the variance, the number of clusters and random labels affect learning.

    The last panel shows how the fraction of coupled units depends on the width (Lemma 5.1).
    """
    figure, axes_list = panels(3, "Sections 4 to 6: poorer structure, and the coupling", rows=2)
    by_sigma, by_clusters, random, against_sigma, against_clusters, coupled = axes_list
    rows: Any = (
        (by_sigma, against_sigma, variance, "sigma"),
        (by_clusters, against_clusters, clusters, "k, l"),
    )
    for accuracy, against, results, parameter in rows:
        names = [str(at).strip("()") for at in results]
        for name, result, color in zip(names, results.values(), width_colors(len(results)), strict=True):
            band(accuracy, result.step, 1 - result.test_error.isel(width=0), color, name)
        accuracy.set(xscale="symlog", xlabel="step", ylabel="test accuracy", ylim=(0, None))
        accuracy.set_title("poorer structure takes more steps")
        accuracy.legend(title=parameter)
        for label, measured, color in (
            ("steps to 99%", lambda result: steps_of(result.test_error), BLUE),
            ("relative distance", moved, VERMILION),
        ):
            values = np.array([measured(result) for result in results.values()])
            against.plot(range(len(values)), values / values[0], "o-", color=color, label=f"{label}, {values[0]:.3g}")
        against.set(
            xlabel=parameter, ylabel="relative to the richest structure", yscale="log", title="steps and movement"
        )
        against.set_xticks(range(len(names)), names)
        for set_formatter in (against.yaxis.set_major_formatter, against.yaxis.set_minor_formatter):
            set_formatter(mpl.ticker.FormatStrFormatter("%g"))
        against.legend(title="with the value of the richest")
    for kind, color in (("true", BLUE), ("random", VERMILION)):
        curve = labels[kind].isel(width=0)
        band(random, curve.step, 1 - curve.train_error, color, f"{kind} labels")
        band(random, curve.step, curve.relative_displacement, color, f"{kind} labels, relative distance", linestyle=":")
    random.set(xscale="symlog", xlabel="step", ylabel="training accuracy; relative distance", ylim=(0, None))
    random.set_title("random labels are learned later and move weights more")
    random.legend(**BELOW)
    lost = -np.log(exact.coupled.isel(step=-1))
    coupled.set(xscale="log", yscale="log")
    band(coupled, lost.width, lost, GREEN, "", marker="o")
    power_law(coupled, lost.width.values, scipy.stats.gmean(lost.mean("seed").values), -0.5, GREEN)
    coupled.set(xlabel="width", ylabel="-log(share of coupled units)")
    coupled.set_title(f"Lemma 5.1, sigma = 0: m^{exponent(lost):.2f}; dashed: m^(-1/2)")
    ticks(coupled, lost.width.values)
    return figure
