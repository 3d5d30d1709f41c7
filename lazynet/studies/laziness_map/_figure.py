"""The figure for a laziness map: the kernel change and the test error as functions of width and output scale."""

from typing import Any

import numpy as np

from lazynet.studies._style import SETTINGS, THEORY, label_widths, width_colors
from lazynet.studies.laziness_map._boundary import mean_of_most
from lazynet.studies.laziness_map._setting import MapStatus
from lazynet.studies.sweep._points import settings_of
from lazynet.typing import Axes, Figure, Result


def plot_laziness(result: Result) -> Figure:
    """Plot the kernel change and the test error as functions of width and output scale.

    The upper panels are maps of the two quantities, and the lower panels show them against the control parameter, with
    one curve for each width. On the maps, the boundary is drawn with 95% intervals, and a dashed line shows its
    predicted slope. Each cell of a map shows the mean over the networks that fit their data; a cell is gray if fewer
    than half of its networks fit their data.

    Args:
        result: Result of `lazynet.laziness_map`.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    from lazynet.figures import Figure

    means = {name: _mean(result[name]) for name in ("kernel_change", "test_error")}
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11.5, 8.8), layout="constrained")
        (change_map, error_map), (change, error) = figure.subplots(2, 2)
        moves = bool((means["kernel_change"] > 0).any())
        norm = LogNorm() if moves else None
        _draw_map(change_map, result, means["kernel_change"], "kernel change", norm=norm, cmap="viridis")
        _draw_map(error_map, result, 100 * means["test_error"], "test error, %", cmap="plasma")
        change_map.set_title("Relative change of the kernel")
        error_map.set_title("Error on the test set")
        _draw_collapse(change, result, result.kernel_change, 1.0)
        change.axhline(result.attrs["change"], color="black", linewidth=1, linestyle=":")
        change.set(yscale="log" if moves else "linear", ylabel="relative kernel change", title=_collapse(result))
        _draw_collapse(error, result, result.test_error, 100.0)
        error.set(ylabel="misclassified, %", title="Test error, with the range over seeds")
        change.legend(title="width", ncols=2)
        figure.suptitle(_finding(result), fontsize=13, fontweight="bold")
    return figure


def _mean(values: Any) -> Any:
    """Return means over seeds, with NaN where fewer than half of the networks fit their data."""
    return values.isel(seed=0, drop=True).copy(data=mean_of_most(values.transpose(..., "seed").values))


def _draw_map(axes: Axes, result: Result, values: Any, label: str, **options: Any) -> None:
    """Plot values as a function of width and output scale, together with the boundary."""
    widths, scales = result.width.values.astype(float), result.output_scale.values
    axes.set_facecolor("lightgray")
    axes.grid(visible=False)
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="output scale α")
    label_widths(axes, widths)
    bottom, top = _edges(scales)[[0, -1]]
    if not np.isfinite(values).any():
        axes.set_xlim(*_edges(widths)[[0, -1]])
        axes.set_ylim(bottom, top)
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center")
        return
    drawn = axes.pcolormesh(_edges(widths), _edges(scales), values.transpose("output_scale", "width"), **options)
    axes.figure.colorbar(drawn, ax=axes, label=label)
    finite = np.isfinite(result.boundary.values)
    if finite.any():
        at, boundary = widths[finite], result.boundary.values[finite]
        # Infinite intervals are cut off at the edge of the map. With a single seed, there is no interval.
        low = np.fmin(boundary, np.maximum(result.boundary_low.values[finite], bottom))
        high = np.fmax(boundary, np.minimum(result.boundary_high.values[finite], top))
        ends = [boundary - low, high - boundary]
        style: dict[str, Any] = {
            "color": "white",
            "markeredgecolor": "black",
            "ecolor": "black",
            "marker": "o",
            "markersize": 6,
        }
        axes.errorbar(at, boundary, ends, label=f"change {result.attrs['change']:g}", linestyle="none", **style)
        predicted = result.attrs["boundary_exponent_predicted"]
        if np.isfinite(predicted) and finite.sum() > 1:
            anchor, middle = np.exp(np.mean(np.log(boundary))), np.exp(np.mean(np.log(at)))
            line = anchor * (widths / middle) ** predicted
            axes.plot(widths, line, color="white", label=f"predicted slope {predicted:g}", **THEORY)
        axes.set_ylim(bottom, top)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=True, facecolor="lightgray")


def _draw_collapse(axes: Axes, result: Result, values: Any, factor: float) -> None:
    """Plot values, multiplied by a factor, against the control parameter, with one curve for each width."""
    for color, width in zip(width_colors(result.sizes["width"]), result.width.values, strict=True):
        seeds, control = factor * values.sel(width=width), result.control.sel(width=width)
        axes.plot(control, _mean(seeds), color=color, marker=".", label=str(width))
        axes.fill_between(control, seeds.min("seed"), seeds.max("seed"), color=color, alpha=0.15, linewidth=0)
    power = result.attrs["control_exponent"]
    name = "√m α" if round(power, 9) == 0.5 else f"m^{power:.2f} α"
    axes.set(xscale="log", xlabel=f"control parameter {name}")
    # Set the limits explicitly, because there are no curves if no network fits its data.
    axes.set_xlim(0.7 * float(result.control.min()), 1.4 * float(result.control.max()))


def _collapse(result: Result) -> str:
    """Return the title of the panel with the collapsed kernel-change curves; the title gives the curves' spread."""
    spread = result.attrs["collapse_spread"]
    if not np.isfinite(spread):
        return "Kernel change"
    return f"Kernel change: widths within a factor of {np.exp(spread):.2f} (RMS)"


def _finding(result: Result) -> str:
    """Return the figure's title, which gives the exponent of the boundary."""
    settings, attrs = settings_of(result), result.attrs
    n, part = settings["n_train"], f" ({settings['train']})" if "train" in settings else ""
    head = (
        f"{settings['network']}{part}, {settings['dataset']}, n = {n}, trained until {settings['fitted']:.0%} of the "
        "loss is left:"
    )
    if not np.isfinite(attrs["boundary_exponent"]):
        boundary = "no boundary" if result.boundary.isnull().all() else "a boundary at only one width"
        return f"{head}\n{boundary} at kernel change {attrs['change']:g} within these output scales"
    interval = f"[{attrs['boundary_exponent_low']:+.2f}, {attrs['boundary_exponent_high']:+.2f}]"
    interval = interval if np.isfinite(attrs["boundary_exponent_low"]) else "(one seed)"
    boundary = f"the kernel changes by {attrs['change']:g} at α ~ m^{attrs['boundary_exponent']:.2f}"
    lost = int((result.status != MapStatus.FITTED).sum())
    return f"{head}\n{boundary} {interval}{f'; {lost} networks do not fit' if lost else ''}"


def _edges(centers: np.ndarray) -> np.ndarray:
    """Return the edges of the cells around the given centers, halfway between the centers on a logarithmic scale."""
    logs = np.log(centers)
    if len(logs) == 1:
        return np.exp(logs[0] + np.array([-0.5, 0.5]))
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]]))
