"""The figures of Li and Liang 2018, with what the paper's own show beside them."""

from typing import Any

import numpy as np

from lazynet.papers.figures import PUBLISHED, band, panels, ticks
from lazynet.papers.li2018_setting import MOVED, first_step
from lazynet.papers.li2018_sizes import Mixture
from lazynet.papers.work import Arrays
from lazynet.plots.style import BLUE, GREEN, THEORY, VERMILION, power_law, width_colors
from lazynet.typing import Axes, Figure, Result

# Figure 1 (b, c) at step 390, of widths 500 to 32,000, as read off the paper: its own time runs slower than its eta.
PAPER_WIDTHS = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
PAPER_ENDS = {
    "coupling": (0.0653, 0.0469, 0.0340, 0.0246, 0.0173, 0.0123, 0.0087),
    "relative distance": (0.0386, 0.0276, 0.0198, 0.0140, 0.0099, 0.0070, 0.0050),
}
PAPER_DATA = Mixture(1000, 1000, 10, 2)
ROUNDING = 1e-7  # of singular values, of which smaller ones say nothing


def draw_mixture(result: Result, early: Result, data: Mixture, spectra: dict[str, Arrays]) -> Figure:
    """Figure 1: accuracy, coupling, relative distance and singular values, and what the widths have at the end."""
    title = f"Figure 1: {data.classes} classes of {data.components} components in {data.dim} dimensions"
    figure, (accuracy, *moved, widths, unit, raw) = panels(3, title, rows=2)
    by_width(accuracy, early, lambda one: 1 - one.test_error, "test accuracy")
    needed = first_step(early.test_error)
    accuracy.set_title(f"(a) 99% after {float(needed.min()):.0f} to {float(needed.max()):.0f} steps at all widths")
    for letter, axes, (name, variable) in zip("bc", moved, MOVED.items(), strict=True):
        by_width(axes, result, lambda one, variable=variable: one[variable], name)
        axes.set_title(f"({letter})")
    against_width(widths, result, data == PAPER_DATA)
    for axes, kind in ((unit, "unit"), (raw, "raw")):
        spectrum(axes, spectra[kind], data.classes * data.components)
        axes.set_title(f"(d) {kind} inputs; dashed: k l = {data.classes * data.components}")
    accuracy.legend(title="width")
    return figure


def by_width(axes: Axes, result: Result, of: Any, label: str) -> None:
    """A quantity against the step, a curve for each width."""
    for width, color in zip(result.width.values, width_colors(result.sizes["width"]), strict=True):
        band(axes, result.step, of(result.sel(width=width)), color, str(width))
    axes.set(xlabel="step", ylabel=label, ylim=(0, None))


def against_width(axes: Axes, result: Result, published: bool) -> None:
    """Coupling, relative distance and the change of the kernel at the end, with the slope of theory."""
    shown = {**MOVED, "change of the kernel": "kernel_drift"}
    for (name, variable), color in zip(shown.items(), (BLUE, VERMILION, GREEN), strict=True):
        end = result[variable].isel(step=-1)
        axes.set(xscale="log", yscale="log")
        band(axes, end.width, end, color, name, marker="o")
        power_law(axes, end.width.values, float(np.exp(np.log(end.mean("seed")).mean())), -0.5, color)
        if published and name in PAPER_ENDS:
            common = [width in end.width.values for width in PAPER_WIDTHS]
            axes.plot(np.array(PAPER_WIDTHS)[common], np.array(PAPER_ENDS[name])[common], **PUBLISHED)
    if published:
        axes.plot([], [], label="the paper's, at its step 390", **PUBLISHED)
    axes.set(xlabel="width", title="at the last step; dashed: m^(-1/2)")
    ticks(axes, result.width.values)
    axes.legend()


def spectrum(axes: Axes, spectra: Arrays, count: int | None = None) -> None:
    """Singular values of the update at each width, and of the weights at the last."""
    widths = spectra["widths"]
    for width, update, color in zip(widths, spectra["update"], width_colors(len(widths)), strict=True):
        seen = update[update > ROUNDING * update[0]]
        drop = "" if count is None else f", drop {update[count - 1] / update[count]:.1f}"
        axes.loglog(1 + np.arange(len(seen)), seen, ".-", color=color, label=f"update, width {width}{drop}")
    weights = spectra["weights"][-1]
    axes.loglog(1 + np.arange(len(weights)), weights, color=BLUE, linestyle=":", label=f"weights, width {widths[-1]}")
    if count is not None:
        axes.axvline(count + 0.5, color="black", **THEORY)
    axes.set(xlabel="index", ylabel="singular value")
    axes.legend(loc="lower left")


def draw_images(name: str, result: Result, spectra: Arrays) -> Figure:
    """Figure 2: accuracy, coupling, relative distance and singular values, and what the widths have at the end."""
    figure, (test, *moved, widths, values, train) = panels(3, f"Figure 2: {name}, ten classes", rows=2)
    for axes, part in ((test, "test"), (train, "train")):
        by_width(axes, result, lambda one, part=part: 1 - one[f"{part}_error"], f"{part} accuracy")
    test.set_title("(a)")
    for letter, axes, (quantity, variable) in zip("bc", moved, MOVED.items(), strict=True):
        by_width(axes, result, lambda one, variable=variable: one[variable], quantity)
        axes.set_title(f"({letter})")
    against_width(widths, result, False)
    spectrum(values, spectra)
    values.set_title("(d)")
    test.legend(title="width")
    return figure


def draw_structure(
    variance: dict[float, Result],
    clusters: dict[tuple[int, int], Result],
    labels: dict[str, Result],
    exact: Result,
) -> Figure:
    """Accuracy by variance and by number of clusters, random labels, and the coupling of Lemma 5.1."""
    figure, (by_sigma, by_clusters, random, coupled) = panels(
        2, "Sections 4 to 6: poorer structure, and the coupling", rows=2
    )
    panels_of: Any = ((by_sigma, variance, "sigma"), (by_clusters, clusters, "k, l"))
    for axes, results, what in panels_of:
        for (at, result), color in zip(results.items(), width_colors(len(results)), strict=True):
            moved = float(result.relative_displacement.isel(step=-1).mean())
            label = f"{str(at).strip('()')}: {moved:.3f}"
            band(axes, result.step, 1 - result.test_error.isel(width=0), color, label)
        axes.set(xscale="symlog", xlabel="step", ylabel="test accuracy", ylim=(0, None))
        axes.legend(title=f"{what}: relative distance")
    for kind, color in (("true", BLUE), ("random", VERMILION)):
        only = labels[kind].isel(width=0)
        band(random, only.step, 1 - only.train_error, color, f"{kind} labels")
        band(random, only.step, only.relative_displacement, color, f"{kind}, relative distance", linestyle=":")
    random.set(xscale="symlog", xlabel="step", ylabel="training accuracy", ylim=(0, None))
    random.legend()
    lost = -np.log(exact.coupled.isel(step=-1))
    coupled.set(xscale="log", yscale="log")
    band(coupled, lost.width, lost, GREEN, "", marker="o")
    power_law(coupled, lost.width.values, float(np.exp(np.log(lost.mean("seed")).mean())), -0.5, GREEN)
    coupled.set(xlabel="width", ylabel="-log(share of coupled units)", title="Lemma 5.1, sigma = 0; dashed: m^(-1/2)")
    ticks(coupled, lost.width.values)
    return figure
