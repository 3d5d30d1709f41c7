"""One figure that tells the story of a sweep."""

import numpy as np

from lazynet.studies._style import (
    BLUE,
    DRAWN,
    GREEN,
    ORANGE,
    PURPLE,
    SETTINGS,
    THEORY,
    VERMILION,
    label_widths,
    power_law,
    width_colors,
)
from lazynet.studies.infinite_width._figure import plot_limit
from lazynet.studies.laziness_map._figure import plot_laziness
from lazynet.studies.line_ensemble._figure import plot_line
from lazynet.studies.mode_residuals._figure import plot_modes
from lazynet.studies.sweep._points import at_one_point, settings_of
from lazynet.studies.sweep._verdict import Verdict, quantity_of, reduce_steps, verify
from lazynet.typing import Axes, Figure, Result

GAPS = {
    "kernel_gap_train": ("to the kernel", BLUE, "o"),
    "start_gap_train": ("of the random start", ORANGE, "s"),
    "linearization_gap_train": ("of the movement", GREEN, "^"),
    "quadratic_gap_train": ("to second order", PURPLE, "D"),
}
MOVEMENTS = {
    "displacement": ("displacement", BLUE, "o"),
    "max_neuron_displacement": ("one neuron, largest", PURPLE, "D"),
    "activation_flips": ("flipped signs", VERMILION, "v"),
    "relative_displacement": ("relative", ORANGE, "s"),
    "kernel_drift": ("kernel drift", GREEN, "^"),
}

# Of more layers than that the first are drawn.
LAYERS = 6


def plot(result: Result, verdict: Verdict | None = None) -> Figure:
    """Draw a sweep: loss beside the kernel's, gaps and movement against width, and fitted exponents against step.

    Of a prediction, its losses on true and on random labels and its test error; of the modes of a residual, what is
    left of them and until which step the kernel is right about each; of a laziness map, kernel change and test error
    over width and output scale, with the boundary, and against the control parameter; of an ensemble on a line, its
    bands and its gap to the limit.

    Measurement is solid with seeds as a band (from the smallest to the largest), theory is dashed. Gaps are their
    maximum over snapshots, movement is that of the last step.

    Args:
        result: of `lazynet.sweep`, `lazynet.predict`, `lazynet.mode_residuals`, `lazynet.laziness_map` or
            `lazynet.line_ensemble`.
        verdict: of the result of a sweep; made here when left out.

    Returns:
        A matplotlib Figure, not shown and not saved.

    Raises:
        KeyError: if the result is none of these.
        ValueError: if a sweep has other axes than width and seed.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, widths=[64, 256], seeds=2, steps=10)
    >>> len(lz.plot(result).axes)
    4
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if "boundary" in result:
        return plot_laziness(result)
    if "place" in result.dims:
        return plot_line(result)
    if "labels" in result.dims:
        return plot_limit(result)
    if "mode" in result.dims:
        return plot_modes(result)
    result = at_one_point(result)
    verdict = verify(result) if verdict is None else verdict
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 8.6), layout="constrained")
        (loss, gaps), (movement, exponents) = figure.subplots(2, 2)
        _draw_loss(loss, result)
        if any(gap in result for gap in GAPS):
            _draw_against_width(gaps, result, verdict, GAPS)
            gaps.set(title="Gaps between network and kernel", ylabel="RMS training gap, maximum over steps")
        else:
            gaps.set_axis_off()
            gaps.set_title("Not compared with the kernel")
        _draw_against_width(movement, result, verdict, _movements(result))
        movement.set(title=f"Movement after {int(result.step[-1])} steps", ylabel="movement (unit rows: no unit)")
        _draw_exponents(exponents, result, verdict)
        figure.suptitle(_finding(result, verdict), fontsize=13, fontweight="bold")
    return figure


def _finding(result: Result, verdict: Verdict) -> str:
    settings = settings_of(result)
    count = {status: sum(row.status == status for row in verdict.rows) for status in ("holds", "fails", "undecided")}
    names = {"holds": "hold", "fails": "fail", "undecided": "undecided"}
    tally = ", ".join(f"{number} {names[status]}" for status, number in count.items() if number)
    lost = f"; {verdict.diverged} members diverged" if verdict.diverged else ""
    name, what = "activation_flips", "of signs flipped"
    if name not in verdict.levels:
        name, what = "kernel_drift", "of the kernel changed"
    return (
        f"{settings['traits']['title']} on {settings['dataset']}, n = {settings['n_train']}: of {len(verdict.rows)} "
        f"predicted exponents {tally or 'none'};\n{verdict.levels[name]:.1%} {what} at width {verdict.widths[-1]}{lost}"
    )


def _movements(result: Result) -> dict[str, tuple[str, str, str]]:
    """What the movement panel shows; of networks with several layers the relative displacement of each."""
    if "layer_relative_displacement" not in result:
        return MOVEMENTS
    layers = result.layer.values.tolist()[:LAYERS]
    colors, markers = (BLUE, ORANGE, PURPLE, "black", "gray", "brown"), ("o", "s", "D", "p", "<", ">")
    shown = {
        f"layer_relative_displacement[{name}]": (f"{name}, relative", color, marker)
        for name, color, marker in zip(layers, colors, markers, strict=False)
    }
    return shown | {name: MOVEMENTS[name] for name in ("activation_flips", "kernel_drift")}


def _draw_loss(axes: Axes, result: Result) -> None:
    later = result.isel(step=slice(1, None))
    loss, widths = later.train_loss, result.width.values
    for color, width in zip(width_colors(len(widths)), widths, strict=True):
        one = loss.sel(width=width)
        axes.plot(later.step, one.mean("seed"), color=color, label=str(width))
        axes.fill_between(later.step, one.min("seed"), one.max("seed"), color=color, alpha=0.2, linewidth=0)
    if "kernel_train_loss" in later:
        predicted = later.kernel_train_loss.where(later.kernel_train_loss < DRAWN)
        predicted = predicted.mean("seed") if "seed" in predicted.dims else predicted
        for i, curve in enumerate(np.atleast_2d(predicted.values)):
            axes.plot(later.step, curve, color="black", label="" if i else "kernel", **THEORY)
    beside = " beside their kernel" if "kernel_train_loss" in later else ""
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="training loss", title=f"Networks{beside}")
    measured = settings_of(result).get("measured")
    if measured is not None:
        axes.set_ylabel(f"training loss, on {measured} examples")
    axes.legend(title="width", ncols=2)


def _draw_against_width(
    axes: Axes, result: Result, verdict: Verdict, quantities: dict[str, tuple[str, str, str]]
) -> None:
    """Seed means with their fitted slope in the legend, the predicted slope dashed through their middle."""
    widths = result.width.values
    rows = {row.quantity: row for row in verdict.rows}
    for quantity, (label, color, marker) in quantities.items():
        if quantity.partition("[")[0] not in result:
            continue
        values = reduce_steps(quantity_of(result, quantity))
        values = values.where(values < DRAWN)
        mean = values.mean("seed")
        if not mean.max() > 0:
            continue
        row = rows.get(quantity)
        fitted = f"{label}: {row.fitted:+.2f}" if row and np.isfinite(row.fitted) else label
        axes.plot(widths, mean, color=color, marker=marker, label=fitted)
        axes.fill_between(widths, values.min("seed"), values.max("seed"), color=color, alpha=0.2, linewidth=0)
        if row and (drawn := mean.values > 0).any():
            anchor = float(np.exp(np.log(mean.values[drawn]).mean()))
            power_law(axes, widths[drawn], anchor, row.predicted, color)
    axes.set(xscale="log", yscale="log", xlabel="width")
    label_widths(axes, widths)
    if axes.lines:
        _room_above(axes, 0.3)
        # Of more than that a single column would reach down to the lines.
        entries = len(axes.get_legend_handles_labels()[0])
        axes.legend(title="fitted exponent; dashed: predicted", loc="upper right", ncols=1 + (entries > 3))


def _draw_exponents(axes: Axes, result: Result, verdict: Verdict) -> None:
    styles = {**MOVEMENTS, **{name: GAPS[name] for name in ("kernel_gap_train", "linearization_gap_train")}}
    dotted = [name for name in styles if name in GAPS]
    for row in verdict.rows:
        if row.quantity not in styles or not np.isfinite([fit.fitted for fit in row.by_step]).any():
            continue
        label, color, _ = styles[row.quantity]
        steps = [fit.step for fit in row.by_step]
        name, line = (f"gap {label}", "dashdot") if row.quantity in dotted else (label, "solid")
        axes.plot(steps, [fit.fitted for fit in row.by_step], color=color, label=name, linestyle=line)
        ends = np.array([(fit.low, fit.high) for fit in row.by_step])
        # The interval of a mean whose draws may all be zero has no end to draw.
        low, high = np.where(np.isfinite(ends), ends, np.nan).T
        axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
    for exponent in sorted({round(row.predicted, 6) for row in verdict.rows}):
        axes.axhline(exponent, color="black", **THEORY)
        axes.axhspan(exponent - verdict.band, exponent + verdict.band, color="black", alpha=0.06, linewidth=0)
    axes.set(xscale="log", xlabel="step", ylabel="exponent in the width", title="Fitted exponents, 95% intervals")
    axes.set_xlim(0.9 * result.step.values[1], 1.1 * result.step.values[-1])
    if axes.get_legend_handles_labels()[1]:
        _room_above(axes, 0.35)
        axes.legend(title="dashed: predicted, with its band", loc="upper right", ncols=2)


def _room_above(axes: Axes, share: float) -> None:
    """Raise the upper limit, so that this share of the height is free for a legend."""
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([[1, y] for y in axes.get_ylim()]))[:, 1]
    top = low + (high - low) / (1 - share)
    axes.set_ylim(top=axes.transData.inverted().transform(axes.transAxes.transform([0, top]))[1])
