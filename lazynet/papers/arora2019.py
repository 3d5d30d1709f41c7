"""Arora, Du, Hu, Li and Wang 2019: Fine-Grained Analysis of Optimization and Generalization (arXiv 1901.08584).

A two-layer relu network whose hidden layer is trained learns the part of its labels along the eigenvector v_i of the
kernel H as (1 - eta lambda_i)^k (Theorem 4.1), so that true labels are learned sooner than random ones; and y' H^-1 y
bounds how it generalises (Theorem 5.1), which is small for what is linear or an even power (Theorem 6.1).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import matplotlib as mpl
import numpy as np
import scipy.stats

import lazynet as lz
from lazynet.kernels import Inverse, LabelProjections, spectrum
from lazynet.papers.claims import Claim, Reproduction
from lazynet.papers.figures import panels, ticks
from lazynet.plots.style import BLUE, GREEN, THEORY, VERMILION
from lazynet.theory import fit_exponent, flips_bound, power_bound
from lazynet.typing import DataArray, Figure, Result

LABELS = ("true", "random", "worst")
COLORS = dict(zip(LABELS, (BLUE, VERMILION, GREEN), strict=True))
NETWORK = lz.TwoLayer(width=2)
KERNEL: Any = lz.analytic_kernel(NETWORK)
# Where widths from 1024 on are large enough for the exponent of Theorem 4.1.
ASYMPTOTIC = {
    *(("digits", "true"), ("digits", "random")),
    *(("mnist", "random"), ("cifar10", "true"), ("cifar10", "random")),
}
CURVES_WIDTH = 4096
# The powers that Theorem 6.1 is about, of those up to 6.
COVERED = (1, 2, 4, 6)
PORTIONS = np.linspace(0, 1, 11)


class Size(NamedTuple):
    """How much is computed."""

    datasets: tuple[str, ...]
    n_curves: int  # of the networks of Figure 1
    n_train: int  # of the networks that the exponents are of
    widths: tuple[int, ...]
    seeds: int
    steps: int
    n_kernel: int  # of the kernel limit
    n_test: int
    draws: int  # of label noise
    n_powers: tuple[int, ...]
    dims: tuple[int, ...]
    samples: int  # of points on the sphere


SMALL = Size(
    *(("mnist", "cifar10"), 128, 32, (1024, 4096, 16384, 65536), 8, 1000),
    *(2000, 1000, 5, (250, 500, 1000, 2000, 4000), (3, 5, 10), 3),
)
SIZES = {
    "tiny": Size(("digits",), 32, 8, (1024, 4096, 16384), 4, 100, 240, 100, 2, (125, 250, 500), (3,), 2),
    "small": SMALL,
    "paper": SMALL._replace(n_kernel=10_000, n_test=2000, samples=5),
}


def reproduce(size: str, tell: Callable[[str], None] = lambda stage: None) -> Reproduction:
    """Compute figures and claims at one of SIZES; `tell` hears what is being done."""
    chosen = SIZES[size]
    claims: list[Claim] = []
    numbers: dict[str, Any] = {}
    figures: dict[str, Figure] = {}
    for name in chosen.datasets:
        tell(f"Networks on {name}")
        curves = sweeps_of(name, chosen.n_curves, [CURVES_WIDTH], chosen)
        sweeps = sweeps_of(name, chosen.n_train, chosen.widths, chosen)
        claims += [*order_of_losses(name, curves), *speed(name, sweeps), *movement(name, sweeps)]
        figures[f"speed_{name}"] = draw_speed(name, curves, sweeps)
        tell(f"The kernel of {chosen.n_kernel} images of {name}")
        many = lz.load_dataset(name, n_train=chosen.n_kernel, n_test=chosen.n_test)
        noisy = noise(many, chosen.draws)
        claims += list(trend(name, noisy))
        numbers[f"noise_{name}"] = noisy._asdict()
        figures[f"noise_{name}"] = draw_noise(name, noisy)
        found = projections(many)
        values = found["true"].values
        numbers[f"eigenvalues_{name}"] = {i: values[i] for i in (0, 100, 1000, len(values) - 1) if i < len(values)}
        figures[f"projections_{name}"] = draw_projections(name, found)
    tell("Powers on the sphere")
    norms = powers(chosen)
    claims += list(learnable(chosen, norms))
    numbers["powers"] = [{"dim": d, "power": p, "norms": values} for (d, p), values in norms.items()]
    figures["powers"] = draw_powers(chosen, norms)
    return Reproduction(claims, numbers, figures)


def labelled(data: lz.Dataset) -> dict[str, lz.Dataset]:
    """The data with true and random labels, and with the eigenvector of lambda_min, which is learned last."""
    worst = spectrum(KERNEL(data.x_train)).vectors[:, 0] * np.sqrt(data.n_train)
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    return {name: replace(data, y_train=y) for name, y in zip(LABELS, (data.y_train, random, worst), strict=True)}


def sweeps_of(name: str, n: int, widths: Sequence[int], size: Size) -> dict[str, Result]:
    """Networks beside their kernel on n images, for each kind of labels."""
    every = labelled(lz.load_dataset(name, n_train=n, n_test=8))
    return {
        label: lz.sweep(NETWORK, data, widths, size.seeds, size.steps, progress=False) for label, data in every.items()
    }


def order_of_losses(name: str, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Figure 1 (a, c): at every snapshot after the first, true labels are fitted best and the worst case least."""
    for soon, late in pairwise(LABELS):
        before, after = (sweeps[label].train_loss.isel(step=slice(1, None)) for label in (soon, late))
        wrong = float((before >= after).mean())
        yield Claim(f"Figure 1, {name}", f"{soon} labels are learned before {late} ones", wrong, "<=", 0.0)


def gaps(result: Result) -> DataArray:
    """Theorem 4.1: max over snapshots of | ||y - u(k)|| - sqrt(sum_i (1 - eta lambda_i)^2k (v_i'y)^2) |."""
    predicted = np.sqrt(2 * result.kernel_train_loss)
    return abs(result.residual_norm - predicted).max("step").transpose("width", "seed")


def speed(name: str, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Theorem 4.1: networks follow the kernel, the more closely the wider they are."""
    for label in LABELS:
        gap = gaps(sweeps[label])
        means, found = gap.mean("seed").values, fit_exponent(gap.width.values, gap.values).exponent
        place = f"Theorem 4.1, {name}, {label} labels"
        if (name, label) in ASYMPTOTIC:
            yield Claim(place, "exponent of the gap in the width", found, "<=", -0.35)
        else:
            note = f"exponent {found:.2f}, not asymptotic at these widths"
            yield Claim(place, "the gap falls over the widths", means[-1] / means[0], "<=", 1.0, note)


def movement(name: str, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Lemmas C.1, C.2, C.3 and 5.3, and the share of signs that flips."""
    for label in ("true", "random"):
        result = sweeps[label]
        end = result.isel(step=-1)
        place = f"{name}, {label} labels"
        radius, bound = result.max_neuron_displacement.max("step"), result.lemma_bound
        note = f"the bound is {float((bound / radius).min()):.0f} times too large"
        yield Claim(
            f"Lemma C.1, {place}", "movement of a unit over its bound", float((radius / bound).max()), "<=", 1.0, note
        )
        ratio = float((end.displacement / end.linearised_displacement).mean("seed")[-1])
        yield Claim(f"Lemma 5.3, {place}", "movement over that of the linearised network", ratio, "<=", 1.05)
        flips = np.vectorize(flips_bound)(end.max_neuron_displacement.values)
        share = float(np.max(end.activation_flips.mean("seed").values / flips.mean(axis=1)))
        yield Claim(f"Theorem 4.1, {place}", "share of flips over what the movement allows", share, "<=", 1.0)
        for lemma, quantity in (("C.2", "kernel_drift"), ("C.3", "initial_kernel_error")):
            values = end[quantity].transpose("width", "seed")
            found = fit_exponent(values.width.values, values.values).exponent
            yield Claim(f"Lemma {lemma}, {place}", f"exponent of {quantity} in the width", found, "<=", -0.4)


class Noise(NamedTuple):
    """Figure 2, at each of PORTIONS, as means over draws: the complexity, and the kernel's l1 and 0-1 test errors."""

    complexity: np.ndarray
    l1: np.ndarray
    error: np.ndarray


def noise(data: lz.Dataset, draws: int) -> Noise:
    """The limit of training on labels of which a portion is random, and tested on such labels."""
    keys = [jax.random.split(jax.random.key(draw)) for draw in range(draws)]
    y, y_test = (
        np.stack([lz.label_noise(labels, portion, pair[part]) for pair in keys for portion in PORTIONS], axis=1)
        for part, labels in enumerate((data.y_train, data.y_test))
    )
    weights = Inverse(KERNEL(data.x_train)).solve(y)
    f = KERNEL(data.x_test, data.x_train) @ weights
    found = (
        np.sqrt(2 * np.mean(y * weights, axis=0)),
        np.mean(abs(f - y_test), axis=0),
        np.mean(f * y_test <= 0, axis=0),
    )
    return Noise(*(values.reshape(draws, -1).mean(axis=0) for values in found))


def trend(name: str, noisy: Noise) -> Iterator[Claim]:
    """Theorem 5.1: the bound follows the test error; where it is above 1 it says nothing of its size."""
    found = float(scipy.stats.spearmanr(noisy.complexity, noisy.error).statistic)
    vacuous = f"the bound is vacuous for {np.sum(noisy.complexity >= 1)} of {len(PORTIONS)} portions"
    yield Claim(f"Figure 2, {name}", "rank correlation of complexity and test error", found, ">=", 0.97, vacuous)
    below = float(noisy.error[0] / noisy.complexity[0])
    yield Claim(f"Theorem 5.1, {name}", "test error over its bound, true labels", below, "<=", 1.0)


def powers(size: Size) -> dict[tuple[int, int], list[float]]:
    """sqrt(y' H^-1 y) of y = (beta'x)^p on the sphere, by (d, p), at each n as a mean over draws of the points."""
    found: dict[tuple[int, int], list[float]] = {}
    for d in size.dims:
        norms = np.zeros((6, len(size.n_powers)))
        for sample in range(size.samples):
            x = lz.sphere(size.n_powers[-1], 0, d, jax.random.key(sample)).x_train
            for i, n in enumerate(size.n_powers):
                y = x[:n, :1] ** np.arange(1, 7)
                norms[:, i] += np.sqrt(np.sum(y * Inverse(KERNEL(x[:n])).solve(y), axis=0)) / size.samples
        found |= {(d, p): norms[p - 1].tolist() for p in range(1, 7)}
    return found


def learnable(size: Size, norms: dict[tuple[int, int], list[float]]) -> Iterator[Claim]:
    """Theorem 6.1: linear functions and even powers have a bounded norm, whatever n is; other odd powers have none."""
    n = np.array(size.n_powers, float)
    for (d, p), values in norms.items():
        place, growth = f"Theorem 6.1, d = {d}, p = {p}", float(np.log(values[-1] / values[-2]) / np.log(n[-1] / n[-2]))
        if p in COVERED:
            bound = power_bound([(1.0, 1.0, p)])
            note = f"exponent in n at the end {growth:.3f}"
            yield Claim(place, "sqrt(y' H^-1 y) over its bound 3 p", max(values) / bound, "<=", 1.0, note)
            # At d = 10 higher powers still rise towards their limit.
            if n[-1] >= 4000 and (d <= 5 or p <= 2):
                yield Claim(place, "exponent in n between the two largest", growth, "<=", 0.05)
        elif d == 3:
            whole = float(np.polyfit(np.log(n), np.log(values), 1)[0])
            yield Claim(place, "exponent in n of an odd power, which no bound covers", whole, ">=", 0.5)


def projections(data: lz.Dataset) -> dict[str, LabelProjections]:
    """Figure 1 (b, d): eigenvalues, and what part of true and of random labels stands at each."""
    modes = spectrum(KERNEL(data.x_train))
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    return {"true": lz.label_projections(modes, data.y_train), "random": lz.label_projections(modes, random)}


def draw_projections(name: str, found: dict[str, LabelProjections]) -> Figure:
    """Figure 1 (b, d), its axes cut where the paper's are."""
    values = found["true"].values
    figure, (axes,) = panels(1, f"Figure 1 (b, d): {len(values)} images of {name}")
    for label, of_label in found.items():
        axes.plot(of_label.projections, ".", markersize=2, color=COLORS[label], label=f"|v' y|, {label} labels")
    axes.set(xlabel="eigenvector, from the largest eigenvalue on", ylabel="projection of the labels", ylim=(0, 10))
    right = axes.twinx()
    right.plot(values, color="black", label="eigenvalue")
    right.set(ylabel="eigenvalue", ylim=(0, 1))
    axes.legend(loc="upper right", markerscale=4)
    return figure


def draw_speed(name: str, curves: dict[str, Result], sweeps: dict[str, Result]) -> Figure:
    """Figure 1 (a, c), with Theorem 4.1 dashed, and beside it the gap between the two against the width."""
    figure, (loss, gap) = panels(2, f"Figure 1 (a, c) and Theorem 4.1 on {name}")
    n = json.loads(curves["worst"].attrs["settings"])["n_train"]
    flips = float(curves["worst"].activation_flips.isel(step=-1).mean())
    title = f"n = {n}, width {CURVES_WIDTH}: {flips:.1%} of signs flip (worst labels)"
    for label, result in curves.items():
        only = result.isel(width=0)
        losses, color = only.train_loss / n, COLORS[label]
        loss.fill_between(only.step, losses.min("seed"), losses.max("seed"), color=color, alpha=0.3)
        loss.plot(only.step, losses.mean("seed"), color=color, label=f"{label} labels")
        loss.plot(only.step, only.kernel_train_loss / n, color="black", **THEORY)
    loss.set(xscale="symlog", xlabel="step", ylabel="loss / n", title=title)
    for label, result in sweeps.items():
        gap.loglog(result.width, gaps(result).mean("seed"), "o-", color=COLORS[label], label=f"{label} labels")
    gap.set(xlabel="width", ylabel="largest gap to Theorem 4.1")
    ticks(gap, result.width.values)
    loss.legend()
    gap.legend()
    return figure


def draw_noise(name: str, noisy: Noise) -> Figure:
    """Figure 2: test errors on the left axis, the complexity on the right one."""
    figure, (axes,) = panels(1, f"Figure 2: random labels in {name}")
    axes.plot(PORTIONS, noisy.l1, "s-", color=COLORS["true"], label="l1 test error")
    axes.plot(PORTIONS, noisy.error, "o-", color=COLORS["random"], label="0-1 test error")
    right = axes.twinx()
    right.plot(PORTIONS, noisy.complexity, "^--", color=COLORS["worst"], label="complexity (right)")
    axes.set(xlabel="portion of random labels", ylabel="test error", ylim=(0, None))
    right.set(ylabel="sqrt(2 y' H^-1 y / n)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_powers(size: Size, norms: dict[tuple[int, int], list[float]]) -> Figure:
    """Section 6: the norm against n, with its bound dashed for the powers that have one."""
    figure, every = panels(len(size.dims), "Section 6: which powers are learned")
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, 6))
    for axes, d in zip(every, size.dims, strict=True):
        for p in range(1, 7):
            axes.loglog(size.n_powers, norms[d, p], "o-", color=colors[p - 1], label=f"p = {p}")
            if p in COVERED:
                axes.axhline(power_bound([(1.0, 1.0, p)]), color=colors[p - 1], **THEORY)
        axes.set(xlabel="n", ylabel="sqrt(y' H^-1 y)", title=f"y = (b'x)^p on the sphere, d = {d}; dashed: 3 p")
        ticks(axes, size.n_powers)
        axes.legend(ncols=2)
    return figure
