"""The figure for a sweep: losses, gaps, movement and fitted exponents."""

import textwrap
from typing import NamedTuple

import numpy as np

from lazynet.measures import catalog
from lazynet.studies._style import (
    BLUE,
    DRAWN,
    ORANGE,
    PALETTE,
    PURPLE,
    SETTINGS,
    THEORY,
    label_widths,
    power_law,
    width_colors,
)
from lazynet.studies.sweep._points import at_one_point, settings_of
from lazynet.studies.sweep._verdict import Verdict, entry_of, quantity_of, reduce_steps, verify_sweep
from lazynet.typing import Axes, Figure, Result

# Quantities whose level the figure's title may mention, in order of preference.
CHANGES = {
    "activation_flips": "of signs flipped",
    "kernel_drift": "of the kernel changed",
    "relative_displacement": "of the norm of the weights moved",
}
# Colors and markers of the gaps to each prediction.
REGIMES = {"linearization": (PALETTE["green"], "^"), "infinite_width": (PALETTE["blue"], "o")}
TITLE_WIDTH = 100  # characters per line
# Colors and markers of the layers. Additional layers are not drawn.
LAYER_COLORS, LAYER_MARKERS = (BLUE, ORANGE, PURPLE, "black", "gray", "brown"), ("o", "s", "D", "p", "<", ">")


class Curve(NamedTuple):
    """The label, color and marker for a quantity that is plotted against the width."""

    label: str
    color: str
    marker: str


def plot_sweep(result: Result, verdict: Verdict | None = None) -> Figure:
    """Plot a sweep; see `lazynet.plot`.

    Args:
        result: Result of `lazynet.sweep` with no axes other than width and seed.
        verdict: Verdict on the result; computed if None.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl

    from lazynet.figures import Figure

    result = at_one_point(result)
    verdict = verify_sweep(result) if verdict is None else verdict
    with mpl.rc_context(SETTINGS):
        rows = 3 if verdict.regimes else 2
        figure = Figure(figsize=(11, 4.3 * rows), layout="constrained")
        panels = figure.subplots(rows, 2)
        (loss, gaps), (movement, exponents) = panels[-2:]
        if verdict.regimes:
            _draw_suprema(panels[0, 0], verdict)
            _draw_until(panels[0, 1], verdict)
        _draw_loss(loss, result)
        curves = _curves(result, "gaps")
        if curves:
            _draw_against_width(gaps, result, verdict, curves)
            gaps.set(title="Gaps between network and kernel", ylabel="RMS training gap, maximum over steps")
        else:
            gaps.set_axis_off()
            gaps.set_title("Not compared with the kernel")
        _draw_against_width(movement, result, verdict, _curves(result, "movement"))
        movement.set(
            title=f"Movement after {int(result.step[-1])} steps", ylabel="movement (dimensionless for unit inputs)"
        )
        _draw_exponents(exponents, result, verdict)
        figure.suptitle(_title(result, verdict), fontsize=13, fontweight="bold")
    return figure


def _title(result: Result, verdict: Verdict) -> str:
    """Return the figure's title, which contains the first sentence of the answer if there is an answer."""
    if not verdict.regimes:
        return _finding(result, verdict)
    settings = settings_of(result)
    first, _, _ = verdict.answer.partition(". ")
    heading = f"{settings['traits']['title']} on {settings['dataset']}, n = {settings['n_train']}{_lost(verdict)}:"
    return "\n".join([heading, *textwrap.wrap(f"{first.removesuffix('.')}.", TITLE_WIDTH)])


def _draw_suprema(axes: Axes, verdict: Verdict) -> None:
    """Plot the suprema of the gaps against the width, with their intervals and the tolerance."""
    for prediction, (color, marker) in REGIMES.items():
        rows = [row for row in verdict.regimes if row.prediction == prediction]
        finite = [row for row in rows if np.isfinite(row.supremum) and row.supremum > 0]
        if not rows:
            continue
        label = prediction.replace("_", " ")
        if len(finite) < len(rows):
            label += f" (diverged at {', '.join(str(row.width) for row in rows if not np.isfinite(row.supremum))})"
        suprema = np.array([row.supremum for row in finite])
        ends = np.abs(np.array([(row.low, row.high) for row in finite]).reshape(-1, 2).T - suprema)
        bars = {"yerr": np.nan_to_num(ends), "capsize": 3}
        axes.errorbar([row.width for row in finite], suprema, color=color, marker=marker, label=label, **bars)
    axes.axhline(verdict.tolerance, color="black", label=f"tolerance {100 * verdict.tolerance:g}%", **THEORY)
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="largest gap / RMS of the targets")
    axes.set_title("Largest gap during training" + (", 95% intervals" if verdict.seeds > 1 else ""))
    label_widths(axes, np.array(verdict.widths))
    axes.legend()


def _draw_until(axes: Axes, verdict: Verdict) -> None:
    """Plot the last step up to which the gap stays within the tolerance against the width."""
    for prediction, (color, marker) in REGIMES.items():
        rows = [row for row in verdict.regimes if row.prediction == prediction]
        if not rows:
            continue
        widths, until = [row.width for row in rows], np.array([row.until for row in rows])
        ends = np.array(
            [(row.until_low, row.until_high) if row.until_low is not None else (row.until,) * 2 for row in rows]
        )
        bars = {"yerr": np.abs(ends.T - until), "capsize": 3}
        axes.errorbar(widths, until, color=color, marker=marker, label=prediction.replace("_", " "), **bars)
    axes.axhline(verdict.steps, color="black", label="last step of the sweep", **THEORY)
    axes.set_title(f"Last step up to which the gap stays within {100 * verdict.tolerance:g}%")
    axes.set(xscale="log", xlabel="width", ylabel="step")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    label_widths(axes, np.array(verdict.widths))
    axes.legend(loc="lower right")


def _finding(result: Result, verdict: Verdict) -> str:
    """Return a title that says how many predictions hold and how far the widest networks have moved."""
    settings = settings_of(result)
    count = {status: sum(row.status == status for row in verdict.rows) for status in ("holds", "fails", "undecided")}
    names = {"holds": "hold" if verdict.lazy_limit else "scale as in a non-lazy limit", "fails": "fail"}
    tally = ", ".join(f"{number} {names.get(status, status)}" for status, number in count.items() if number)
    name = next(name for name in CHANGES if name in verdict.levels)
    moved = f"{verdict.levels[name]:.1%} {CHANGES[name]} at width {verdict.widths[-1]}"
    return (
        f"{settings['traits']['title']} on {settings['dataset']}, n = {settings['n_train']}: of {len(verdict.rows)} "
        f"predicted exponents {tally or 'none'};\n{moved}{_lost(verdict)}"
    )


def _lost(verdict: Verdict) -> str:
    return f"; {len(verdict.diverged)} members diverged" if verdict.diverged else ""


def _curves(result: Result, panel: str) -> dict[str, Curve]:
    """Return the curves for a panel, keyed by quantity.

    If a quantity is also measured for each layer, the curves for the layers replace the curve for all parameters.
    """
    curves = {}
    for name, quantity in catalog().items():
        if quantity.panel != panel or name not in result or quantity.by_layer in result:
            continue
        label = quantity.label or name
        if "layer" not in quantity.dims:
            curves[name] = Curve(label, PALETTE.get(quantity.color, quantity.color), quantity.marker)
            continue
        measured = [layer for layer in result.layer.values.tolist() if result[name].sel(layer=layer).notnull().any()]
        # If there are too many layers, biases are left out first.
        weights_first = sorted(measured, key=lambda layer: "bias" in layer)
        layers = zip(weights_first, LAYER_COLORS, LAYER_MARKERS, strict=False)
        curves |= {f"{name}[{layer}]": Curve(f"{layer}, {label}", color, marker) for layer, color, marker in layers}
    return curves


def _draw_loss(axes: Axes, result: Result) -> None:
    """Plot the training loss at every width, with a dashed line for the loss that the kernel predicts."""
    later = result.isel(step=result.step.values > 0)
    loss, widths = later.train_loss, result.width.values
    for color, width in zip(width_colors(len(widths)), widths, strict=True):
        seeds = loss.sel(width=width)
        axes.plot(later.step, seeds.mean("seed"), color=color, label=str(width))
        axes.fill_between(later.step, seeds.min("seed"), seeds.max("seed"), color=color, alpha=0.2, linewidth=0)
    if "kernel_train_loss" in later:
        predicted = later.kernel_train_loss.where(later.kernel_train_loss < DRAWN)
        predicted = predicted.mean("seed") if "seed" in predicted.dims else predicted
        for i, curve in enumerate(np.atleast_2d(predicted.values)):
            axes.plot(later.step, curve, color="black", label="" if i else "kernel", **THEORY)
    title = "Networks and their kernel" if "kernel_train_loss" in later else "Networks"
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="training loss", title=title)
    rows = settings_of(result)["measure"]["rows"]
    if rows is not None:
        axes.set_ylabel(f"training loss, on {rows} examples")
    axes.legend(title="width", ncols=2)


def _draw_against_width(axes: Axes, result: Result, verdict: Verdict, curves: dict[str, Curve]) -> None:
    """Plot quantities, averaged over seeds, against the width, with dashed lines for the predicted slopes.

    The legend shows the fitted slopes.
    """
    widths = result.width.values
    rows = {row.quantity: row for row in verdict.rows}
    for quantity, (label, color, marker) in curves.items():
        values = reduce_steps(quantity_of(result, quantity))
        # Compute the mean before large values are omitted, so that it agrees with the mean used in the fit.
        mean, values = values.mean("seed"), values.where(values < DRAWN)
        mean = mean.where(mean < DRAWN)
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
        # With more than three entries, a legend with a single column would overlap the curves.
        entries = len(axes.get_legend_handles_labels()[0])
        axes.legend(title="fitted exponent; dashed: predicted", loc="upper right", ncols=1 + (entries > 3))


def _draw_exponents(axes: Axes, result: Result, verdict: Verdict) -> None:
    """Plot the fitted exponents in the verdict against the step, with the predicted exponents and their bands."""
    for row in verdict.rows:
        quantity = entry_of(row.quantity)
        drawn = quantity.panel is not None and quantity.exponent_drawn
        if not drawn or not np.isfinite([fit.fitted for fit in row.by_step]).any():
            continue
        label, color = quantity.label or quantity.name, PALETTE.get(quantity.color, quantity.color)
        steps = [fit.step for fit in row.by_step]
        name, line = (f"{label} gap", "dashdot") if quantity.gap else (label, "solid")
        axes.plot(steps, [fit.fitted for fit in row.by_step], color=color, label=name, linestyle=line)
        ends = np.array([(fit.low, fit.high) for fit in row.by_step])
        # An interval may be unbounded if many values at a width are zero.
        low, high = np.where(np.isfinite(ends), ends, np.nan).T
        axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
    for exponent in sorted({round(row.predicted, 6) for row in verdict.rows}):
        axes.axhline(exponent, color="black", **THEORY)
        axes.axhspan(exponent - verdict.band, exponent + verdict.band, color="black", alpha=0.06, linewidth=0)
    axes.set(xscale="log", xlabel="step", ylabel="width exponent", title="Fitted exponents, 95% intervals")
    axes.set_xlim(0.9 * result.step.values[1], 1.1 * result.step.values[-1])
    if axes.get_legend_handles_labels()[1]:
        _room_above(axes, 0.35)
        axes.legend(title="dashed: predicted, with its band", loc="upper right", ncols=2)


def _room_above(axes: Axes, share: float) -> None:
    """Raise the upper limit of the y-axis to leave the given fraction of the height free for a legend."""
    low, high = axes.transAxes.inverted().transform(axes.transData.transform([[1, y] for y in axes.get_ylim()]))[:, 1]
    top = low + (high - low) / (1 - share)
    axes.set_ylim(top=axes.transData.inverted().transform(axes.transAxes.transform([0, top]))[1])
