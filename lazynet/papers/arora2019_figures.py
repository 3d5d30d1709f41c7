"""Reproductions of the figures in Arora et al. 2019, compared with points read off the original figures."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from lazynet.execution import Arrays
from lazynet.papers.arora2019_published import INDICES, PAPER_EIGENVALUES, PAPER_NOISE
from lazynet.papers.figures import PUBLISHED, band, panels, ticks
from lazynet.studies import BLUE, GREEN, ORANGE, PURPLE, THEORY, VERMILION, width_colors
from lazynet.studies.sweep import speed_gap
from lazynet.theory import flips_bound, power_bound
from lazynet.typing import Figure, Result

COLORS = {"true": BLUE, "random": VERMILION, "worst": GREEN}


def draw_speed(name: str, n: int, curves: dict[str, Result], sweeps: dict[str, Result], scales: Result) -> Figure:
    """Draw Figure 1 (a, c), and plot the gap between the losses and Theorem 4.1's predictions against the width.

    Dashed curves show the predictions of the theorem.
    """
    figure, (*losses, gap) = panels(3, f"Figure 1 (a, c) and Theorem 4.1 on {name}")
    width, kappas = int(curves["true"].width[0]), curves["true"].init_scale.values
    for axes, kappa in zip(losses, kappas, strict=True):
        flips = []
        for kind, result in curves.items():
            curve = result.isel(width=0).sel(init_scale=kappa)
            band(axes, curve.step, curve.train_loss / n, COLORS[kind], f"{kind} labels")
            axes.plot(curve.step, curve.kernel_train_loss / n, color="black", **THEORY)
            flips.append(float(curve.activation_flips.isel(step=-1).mean()))
        title = f"n = {n}, width {width}, kappa = {kappa:g}: {min(flips):.0%} to {max(flips):.0%} of signs flip"
        axes.set(xscale="symlog", xlabel="step", ylabel="loss / n", title=title, ylim=(0, None))
    for kind, result in sweeps.items():
        gap.loglog(result.width, speed_gap(result).mean("seed"), "o-", color=COLORS[kind], label=f"{kind} labels")
    small = scales.isel(init_scale=-1)
    label = f"true labels, kappa = {float(small.init_scale):g}"
    gap.loglog(small.width, speed_gap(small).mean("seed"), "s:", color=COLORS["true"], label=label)
    gap.set(xlabel="width", ylabel="largest gap to Theorem 4.1")
    ticks(gap, sweeps["true"].width.values)
    # One legend serves all panels, because they use the same colors.
    theory = losses[0].plot([], [], color="black", label="Theorem 4.1", **THEORY)
    figure.legend(handles=[*gap.get_lines(), *theory], loc="outside lower center", ncols=5)
    return figure


def draw_movement(name: str, result: Result, scales: Result) -> Figure:
    """Plot the movement of the weights and the share of flipped signs, with bounds, and the distances between kernels.

    The share of flipped signs is plotted against kappa, and the other quantities are plotted against the width.
    """
    figure, (moved, kernel, flips) = panels(3, f"Lemmas 5.3, C.1, C.2 and C.3 on {name}, true labels")
    end = result.isel(step=-1)
    largest = end.max_neuron_displacement.mean("seed")
    moved.loglog(end.width, end.displacement.mean("seed"), "o-", color=BLUE, label="all weights")
    moved.axhline(float(end.linearized_displacement.mean()), color=BLUE, **THEORY)
    moved.axhline(float(end.label_norm), color=BLUE, linestyle=":", label="sqrt(y' H^-1 y)")
    moved.loglog(end.width, largest, "s-", color=VERMILION, label="largest single unit")
    moved.loglog(end.width, end.lemma_bound.mean("seed"), color=VERMILION, **THEORY)
    moved.set(xlabel="width", ylabel="movement", title="dashed: linearized network, Lemma C.1")
    for quantity, label, color in (
        ("kernel_drift", "kernel from its start (C.2)", ORANGE),
        ("initial_kernel_error", "start from the limit (C.3)", PURPLE),
    ):
        kernel.loglog(end.width, end[quantity].mean("seed"), "o-", color=color, label=label)
    kernel.set(xlabel="width", ylabel="relative distance")
    for axes in (moved, kernel):
        ticks(axes, end.width.values)
    last, kappas = scales.isel(step=-1), scales.init_scale.values
    for width, color in zip(last.width.values, width_colors(last.sizes["width"]), strict=True):
        means = last.sel(width=width).mean("seed")
        flips.loglog(kappas, means.activation_flips, "o-", color=color, label=f"width {width}")
        radii = zip(means.max_neuron_displacement.values, kappas, strict=True)
        flips.loglog(
            kappas, [flips_bound(float(radius), float(kappa)) for radius, kappa in radii], color=color, **THEORY
        )
    flips.set(xlabel="kappa", ylabel="share of flipped signs", title="dashed: bound from the movement")
    for axes in (moved, kernel, flips):
        axes.legend()
    return figure


def draw_modes(name: str, steps: int, modes: Arrays) -> Figure:
    """Plot, for each width, the last step at which the kernel still predicts each mode of the residual correctly."""
    title = f"Theorem 4.1 by eigenvector on {name}: the last step at which it holds"
    figure, axes_list = panels(len(modes["last_step"]), title)
    index = np.arange(1, len(modes["learned"]) + 1)
    for axes, kind, last_steps in zip(axes_list, COLORS, modes["last_step"], strict=False):
        for width, color, last in zip(modes["widths"], width_colors(len(last_steps)), last_steps, strict=True):
            axes.plot(index, last, "o", color=color, label=f"width {width}", alpha=0.8)
        axes.plot(index, np.minimum(modes["learned"], steps), color="black", label="learned", **THEORY)
        axes.set(xlabel="mode, from the largest eigenvalue down", ylabel="step", title=f"{kind} labels")
        axes.set_yscale("symlog", linthresh=1)
        axes.legend()
    return figure


def draw_noise(name: str, n: int, size: Sequence[Any], limit: Arrays, networks: Arrays) -> Figure:
    """Draw Figure 2 at infinite and at finite width: test errors (left axis) and complexity (right axis)."""
    figure, (left, right) = panels(2, f"Figure 2: random labels in {name}")
    published = PAPER_NOISE.get(name, {})
    for axes, values, errors in (
        (left, limit, {"l1": "l1 test error", "error": "0-1 test error"}),
        (right, networks, {"error": "0-1 test error", "kernel_error": "kernel at the same step"}),
    ):
        twin = axes.twinx()
        parts = [
            (axes, part, label, color) for (part, label), color in zip(errors.items(), (BLUE, VERMILION), strict=True)
        ]
        for where, part, label, color in (*parts, (twin, "complexity", "complexity (right axis)", GREEN)):
            where.plot(values["portion"], values[part], "o-" if where is axes else "^--", color=color, label=label)
            if axes is left and part in published:
                where.plot(values["portion"], published[part], **(PUBLISHED | {"color": color}))
        axes.set(xlabel="portion of random labels", ylabel="test error", ylim=(0, None))
        twin.set(ylabel="sqrt(2 y' H^-1 y / n)", ylim=(0, None))
        twin.grid(False)
        axes.legend(
            handles=[*axes.get_lines()[:: 2 if axes is left and published else 1], twin.get_lines()[0]],
            loc="lower right",
        )
    left.set_title(f"kernel limit, n = {n}" + ("; crosses: the paper, n = 10000" if published else ""))
    right.set_title(f"networks of width {size[1][-1]}, n = {size[0]}, step {size[3]}")
    return figure


def draw_projections(name: str, spectra: Arrays) -> Figure:
    """Draw Figure 1 (b, d) with the same axis limits as in the paper."""
    values = spectra["values"]
    figure, (axes,) = panels(1, f"Figure 1 (b, d): {len(values)} images of {name}")
    for kind, projections in zip(COLORS, spectra["projections"], strict=False):
        axes.plot(projections, ".", markersize=2, color=COLORS[kind], label=f"|v' y|, {kind} labels")
    axes.set(xlabel="eigenvector, from the largest eigenvalue down", ylabel="projection of the labels", ylim=(0, 10))
    twin = axes.twinx()
    twin.plot(values, color="black", label="eigenvalue")
    published = PAPER_EIGENVALUES.get(name, {}) if len(values) > max(INDICES) else {}
    if published:
        twin.plot(list(published), list(published.values()), label="eigenvalue in the paper", **PUBLISHED)
    twin.set(ylabel="eigenvalue", ylim=(0, 1))
    twin.grid(False)
    figure.legend(loc="outside lower center", ncols=2, markerscale=2)
    return figure


def draw_functions(
    n: Sequence[int],
    dims: Sequence[int],
    covered: Sequence[int],
    norms: np.ndarray,
    errors: dict[int, float],
    shares: dict[int, float],
) -> Figure:
    """Plot the results of section 6: sqrt(y' H^-1 y) against n for y = (b'x)^p, and the test errors of networks.

    Dashed lines show the bounds on sqrt(y' H^-1 y) and the fractions of the targets that the kernel cannot learn.
    """
    figure, (*norm_axes, fits) = panels(len(dims) + 1, "Section 6: which powers are learned")
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, norms.shape[2]))
    for axes, d, norms_at_d in zip(norm_axes, dims, norms, strict=True):
        for p, (color, values) in enumerate(zip(colors, norms_at_d.T, strict=True), start=1):
            axes.loglog(n, values, "o-", color=color, label=f"p = {p}")
            if p in covered:
                axes.axhline(power_bound([(1.0, 1.0, p)]), color=color, **THEORY)
        axes.set(xlabel="n", ylabel="sqrt(y' H^-1 y)", title=f"y = (b'x)^p on the sphere, d = {d}; dashed: 3 p")
        ticks(axes, n)
        axes.legend(ncols=2)
    fits.bar(list(errors), list(errors.values()), color=[colors[p - 1] for p in errors])
    for p, share in shares.items():
        fits.plot([p - 0.4, p + 0.4], [share, share], color="black", **THEORY)
    fits.set(
        xlabel="p", ylabel="test error / RMS of the target", title="networks; dashed: the share the kernel cannot see"
    )
    return figure
