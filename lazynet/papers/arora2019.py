"""Arora, Du, Hu, Li and Wang 2019: Fine-Grained Analysis of Optimization and Generalization (arXiv 1901.08584).

In a two-layer ReLU network with a trained hidden layer, the error along the eigenvector v_i of the kernel H decays as
(1 - eta lambda_i)^k (Theorem 4.1). The network therefore learns true labels, which lie mainly along eigenvectors with
large eigenvalues, faster than random labels. Its test error is bounded in terms of y' H^-1 y (Theorem 5.1), which is
small for linear functions and even powers (Theorem 6.1).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import scipy.stats

import lazynet as lz
from lazynet.execution import Arrays
from lazynet.kernels import Inverse, spectrum
from lazynet.papers import arora2019_figures as figures
from lazynet.papers import arora2019_functions as functions
from lazynet.papers import du2018
from lazynet.papers.arora2019_published import PAPER_EIGENVALUES, PAPER_N, PAPER_NOISE
from lazynet.papers.arora2019_sizes import SIZES, Networks, Size, jobs
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.work import Work
from lazynet.studies.sweep import population_bounds, speed_gap
from lazynet.theory import concentration_bound, flips_bound, population_bound
from lazynet.typing import DataArray, Result

__all__ = ["SIZES", "jobs", "reproduce"]

LABELS = ("true", "random", "worst")
NETWORK = lz.TwoLayer(width=2)
KERNEL: Any = lz.analytic_kernel(NETWORK)
# Initial scales kappa of the weights. The paper uses the last one.
KAPPAS = (1.0, 0.1, 0.01)
# For each data set, the types of labels for which networks of width 1024 and above show the exponent that Theorem 4.1
# predicts.
ASYMPTOTIC = {"digits": ("true", "random"), "mnist": ("random",), "cifar10": ("true", "random")}
PORTIONS = np.linspace(0, 1, 11)
# Probability that a bound fails.
DELTA = 0.01
# A mode follows the kernel's prediction if the residual along the mode differs from its predicted value by at most this
# fraction of the initial residual along the mode or of the RMS initial residual over all modes, whichever is larger.
MODE_GAP = 0.02


def reproduce(size: str, work: Work | None = None) -> Reproduction:
    """Compute the figures of Arora et al. 2019 and check the paper's claims.

    Args:
        size: Name of a size in SIZES.
        work: Storage for the parts of the reproduction. By default, the parts are kept in memory.
    """
    settings, work, reproduction = SIZES[size], work or Work("arora2019", size), Reproduction()
    # Load all data first, so that a missing data set raises an error before any work is done.
    data = {
        name: lz.load_dataset(name, n_train=settings.n_kernel, n_test=settings.n_test) for name in settings.datasets
    }
    for name in settings.datasets:
        networks(name, settings, work, reproduction)
        kernel_limit(name, data[name], settings, work, reproduction)
    functions.add_to(reproduction, work, settings.functions)
    du2018.add_to(reproduction, work, settings.du2018)
    return reproduction


# Section 4 and appendix C of the paper: learning speed and weight movement.


def networks(name: str, size: Size, work: Work, reproduction: Reproduction) -> None:
    """Add the results at finite width to a reproduction.

    These are the results for Figure 1 (a, c), Theorem 4.1, and Lemmas 5.3, C.1, C.2 and C.3.
    """

    def sweep(part: str, kind: str, kappas: Sequence[float] | None = None) -> Result:
        n, *members = getattr(size, part)
        axes = None if kappas is None else {"init_scale": list(kappas)}
        return work.sweep(f"{part}-{name}-{kind}", NETWORK, labeled(images(name, n))[kind], *members, axes=axes)

    curves = {kind: sweep("curves", kind, (KAPPAS[0], KAPPAS[-1])) for kind in LABELS}
    sweeps = {kind: sweep("speed", kind) for kind in LABELS}
    many, scales = sweep("many", "true"), sweep("scales", "true", KAPPAS)
    modes = last_steps(work, name, size.modes)
    gap = speed_gap(scales)
    reproduction.claims += [
        *order_of_losses(name, curves),
        *speed(name, sweeps),
        not_asymptotic(f"{name}, n = {size.many.n}", speed_gap(many)),
        not_asymptotic(f"{name}, kappa = 1", gap.sel(init_scale=KAPPAS[0]), gap.sel(init_scale=KAPPAS[-1])),
        *held(name, modes),
        *movement(name, images(name, size.speed.n).x_train, sweeps),
        flips_fall(name, scales),
    ]
    means = {kind: speed_gap(result).mean("seed").values for kind, result in sweeps.items()}
    reproduction.numbers[f"networks_{name}"] = {"widths": size.speed.widths, "gaps": means, "last steps": modes}
    reproduction.figures[f"speed_{name}"] = figures.draw_speed(name, size.curves.n, curves, sweeps, scales)
    reproduction.figures[f"movement_{name}"] = figures.draw_movement(name, sweeps["true"], scales)
    reproduction.figures[f"modes_{name}"] = figures.draw_modes(name, size.modes.steps, modes)


def images(name: str, n: int, n_test: int = 8) -> lz.Dataset:
    """Return the images used to train networks, as coordinates in the subspace that the images span."""
    return lz.load_dataset(name, n_train=n, n_test=n_test).in_span()


def labeled(data: lz.Dataset) -> dict[str, lz.Dataset]:
    """Return the data with true, random and worst labels, keyed by the kind of labels.

    The worst labels are the kernel's eigenvector with the smallest eigenvalue, lambda_min, scaled to have the same norm
    as a vector of +1 and -1 labels.
    """
    worst = spectrum(KERNEL(data.x_train)).vectors[:, 0] * np.sqrt(data.n_train)
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    return {name: replace(data, y_train=y) for name, y in zip(LABELS, (data.y_train, random, worst), strict=True)}


def order_of_losses(name: str, curves: dict[str, Result]) -> Iterator[Claim]:
    """Yield the claims of Figure 1 (a, c): the loss is lowest for the true labels and highest for the worst labels.

    The losses are compared at every snapshot after the initial one.
    """
    for kappa in curves["true"].init_scale.values:
        losses = [curves[kind].train_loss.sel(init_scale=kappa).isel(step=slice(1, None)) for kind in LABELS]
        for (soon, late), (lower, upper) in zip(pairwise(LABELS), pairwise(losses), strict=True):
            place = f"Figure 1, {name}, kappa = {kappa:g}"
            statement = f"fraction of snapshots at which the loss for {soon} labels is not below that for {late} labels"
            yield Claim(place, statement, float((lower >= upper).mean()), "<=", 0.0)


def speed(name: str, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Yield the claims of Theorem 4.1: wider networks follow the kernel's predictions more closely."""
    for kind, result in sweeps.items():
        place, gap = f"{name}, {kind} labels", speed_gap(result)
        if kind in ASYMPTOTIC[name]:
            yield Claim(f"Theorem 4.1, {place}", "exponent of the gap in the width", exponent(gap), "<=", -0.35)
        else:
            yield not_asymptotic(place, gap)


def not_asymptotic(place: str, gap: DataArray, other: DataArray | None = None) -> Claim:
    """Return the claim that the gap shrinks as the width grows, for widths too small to show Theorem 4.1's exponent.

    Args:
        place: Description of the data.
        gap: Gap between the networks and the predictions of the theorem.
        other: Gap at a different kappa, to be reported in the note.
    """
    noted = gap if other is None else other
    note = f"exponent {exponent(noted):.2f}, not asymptotic at these widths"
    if other is not None:
        note = f"at kappa = {float(other.init_scale):g} it is {_ratio(other):.2f}; {note}"
    return Claim(f"Theorem 4.1, {place}", "gap of the widest networks over the narrowest", _ratio(gap), "<=", 1.0, note)


def _ratio(gap: DataArray) -> float:
    """Return the ratio of the mean gap at the largest width to the mean gap at the smallest width."""
    means = gap.mean("seed")
    return float(means[-1] / means[0])


def last_steps(work: Work, name: str, size: Networks, kernel: Callable[..., np.ndarray] = KERNEL) -> Arrays:
    """Return the last step at which each mode is still within MODE_GAP of the prediction of Theorem 4.1.

    The axes of the array "last_step" are the type of labels, the width and the mode.

    Args:
        work: Storage for the parts of the reproduction.
        name: Name of the data set.
        size: Settings for the networks.
        kernel: Function that maps inputs to the kernel matrix of the theorem.
    """
    data = images(name, size.n)
    modes, datasets = spectrum(kernel(data.x_train)), labeled(data)

    last_step = []
    for kind in LABELS[:2]:
        part, members = f"modes-{name}-{kind}", (size.widths, size.seeds, size.steps)
        result = work.modes(part, NETWORK, datasets[kind], *members, kernel=modes, tolerance=MODE_GAP)
        last_step.append(result.last_step_held.median("seed").values)
    learned = modes.values[-1] / modes.values[::-1]
    steps = {"steps": np.array(size.steps), "learned": learned}
    return {"last_step": np.stack(last_step), "widths": np.array(size.widths), **steps}


def held(name: str, modes: Arrays) -> Iterator[Claim]:
    """Yield the claims of Theorem 4.1 for each eigenvector: the predictions hold longer for wider networks."""
    for kind, last in zip(LABELS, modes["last_step"], strict=False):
        place = f"Theorem 4.1 by mode, {name}, {kind} labels"
        # 1 + t* is the geometric mean over modes of 1 + t, where t is the last step at which a mode follows the
        # kernel's prediction.
        until = np.expm1(np.log1p(last).mean(axis=1))
        first = ", ".join(map(str, np.flatnonzero(last[0] == last[0].min())[:3] + 1))
        note = f"t* {', '.join(f'{step:.0f}' for step in until)} by width; the narrowest lose mode {first} first"
        yield Claim(place, "t* of the narrowest networks over the widest", until[0] / until[-1], "<=", 0.9, note)
        if kind == "random":
            share = until[-1] / modes["steps"]
            yield Claim(place, "t* of the widest networks over all steps", float(share), ">=", 0.25)


def movement(name: str, x: np.ndarray, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Yield the claims of Lemmas C.1, C.2, C.3 and 5.3, and the claims about the fraction of flipped signs."""
    # The sweep measures ||H(0) - H|| relative to ||H||. In a symmetric network, only half of the units are independent.
    bounds = [concentration_bound(x @ x.T, width // 2, DELTA) for width in sweeps["true"].width.values.tolist()]
    distance = sweeps["true"].initial_kernel_error.transpose("width", "seed") * np.linalg.norm(KERNEL(x))
    over, seeds = np.max(distance.values / np.array(bounds)[:, None]), distance.sizes["seed"]
    yield Claim(f"Lemma C.3, {name}", f"distance over its bound, in {seeds} starts", float(over), "<=", 1.0)
    for kind in LABELS[:2]:
        result = sweeps[kind]
        end, place = result.isel(step=-1), f"{name}, {kind} labels"
        radius, bound = result.max_neuron_displacement.max("step"), result.lemma_bound
        note = f"the bound is at least {float((bound / radius).min()):.0f} times the movement"
        worst = float((radius / bound).max())
        yield Claim(f"Lemma C.1, {place}", "movement of a unit over its bound", worst, "<=", 1.0, note)
        off = float(abs(end.displacement / end.linearized_displacement - 1).mean("seed")[-1])
        statement = "relative difference of the movement from the linearized limit"
        yield Claim(f"Lemma 5.3, {place}", statement, off, "<=", 0.05)
        over = (end.displacement / end.label_norm).mean("seed").values
        note = f"by width {', '.join(f'{value:.3f}' for value in over)}"
        yield Claim(f"Lemma 5.3, {place}", "movement of the widest over sqrt(y' H^-1 y)", over[-1], "<=", 1.05, note)
        allowed = np.vectorize(flips_bound)(end.max_neuron_displacement.values)
        share = float(np.max(end.activation_flips.mean("seed").values / allowed.mean(axis=1)))
        yield Claim(f"Theorem 4.1, {place}", "share of flips over its bound from the movement", share, "<=", 1.0)
        for lemma, quantity in (("C.2", "kernel_drift"), ("C.3", "initial_kernel_error")):
            statement = f"exponent of {quantity} in the width"
            yield Claim(f"Lemma {lemma}, {place}", statement, exponent(end[quantity]), "<=", -0.4)


def flips_fall(name: str, scales: Result) -> Claim:
    """Return the claim of Lemma C.2 that more signs flip when the initial weights are smaller."""
    shares = scales.activation_flips.isel(step=-1, width=-1).mean("seed").values
    note = ", ".join(f"{share:.1%} at kappa = {kappa:g}" for kappa, share in zip(KAPPAS, shares, strict=True))
    most = float(np.max(shares[:-1] / shares[1:]))
    return Claim(f"Lemma C.2, {name}", "share of flips at kappa over the share at kappa / 10", most, "<=", 1.0, note)


# Section 5 of the paper: generalization.


def kernel_limit(name: str, data: lz.Dataset, size: Size, work: Work, reproduction: Reproduction) -> None:
    """Add the results on generalization at infinite and finite width to a reproduction.

    These are the results for Figures 1 (b, d) and 2, and for Theorem 5.1.
    """
    limit = work.arrays(f"noise-{name}", lambda: noise(data, size.draws))
    finite = noisy_networks(work, name, size.noisy)
    spectra = work.arrays(f"projections-{name}", lambda: projections(data))
    reproduction.claims += generalization(name, data.n_train, limit, finite)
    reproduction.claims += [tracked(f"{name}, networks", finite, 0.9), *published(name, limit, spectra)]
    reproduction.numbers[f"kernel_{name}"] = {
        "n": data.n_train,
        "noise": limit,
        "networks": finite,
        "eigenvalues": spectra["values"],
    }
    reproduction.figures[f"noise_{name}"] = figures.draw_noise(name, data.n_train, size.noisy, limit, finite)
    reproduction.figures[f"projections_{name}"] = figures.draw_projections(name, spectra)


def with_noise(data: lz.Dataset, portion: float, draw: int) -> lz.Dataset:
    """Return the data with the given fraction of the training and test labels replaced by random labels.

    In a given draw, labels that are random at one fraction are also random at every larger fraction.
    """
    train, test = jax.random.split(jax.random.key(draw))
    y, y_test = lz.label_noise(data.y_train, portion, train), lz.label_noise(data.y_test, portion, test)
    return replace(data, y_train=y, y_test=y_test)


def noise(data: lz.Dataset, draws: int) -> Arrays:
    """Return the curves of Figure 2 (complexity and test errors) at infinite width and infinite training time.

    All values are averaged over draws.
    """
    noisy = [with_noise(data, portion, draw) for draw in range(draws) for portion in PORTIONS]
    y, y_test = (np.stack([getattr(dataset, part) for dataset in noisy], axis=1) for part in ("y_train", "y_test"))
    weights = Inverse(KERNEL(data.x_train)).solve(y)
    f = KERNEL(data.x_test, data.x_train) @ weights
    values = {
        "complexity": np.sqrt(2 * np.mean(y * weights, axis=0)),
        "l1": np.mean(abs(f - y_test), axis=0),
        "error": np.mean(f * y_test <= 0, axis=0),
    }
    return {"portion": PORTIONS} | {part: column.reshape(draws, -1).mean(axis=0) for part, column in values.items()}


def noisy_networks(work: Work, name: str, size: Networks) -> Arrays:
    """Return the curves of Figure 2 for finite networks at the last step, and the kernel's test error at that step.

    All values are averaged over seeds. Each seed has its own draw of random labels.
    """
    data = images(name, size.n, n_test=200)

    def compute(seed: int, portion: float) -> Arrays:
        noisy = with_noise(data, portion, seed)
        result = lz.sweep(NETWORK, noisy, size.widths, [seed], size.steps, progress=False)
        end, bound = result.isel(step=-1), population_bounds(result, DELTA)[-1, 0, -1]
        parts = {"complexity": end.complexity, "error": end.test_error[-1, 0], "kernel_error": end.kernel_test_error}
        return {part: value.values for part, value in parts.items()} | {"bound": np.asarray(bound)}

    values = work.arrays(f"noisy-{name}", compute, seed=range(size.seeds), portion=PORTIONS.tolist())
    return {"portion": PORTIONS} | {part: value.mean(axis=0) for part, value in values.items()}


def tracked(place: str, noisy: Arrays, limit: float) -> Claim:
    """Return the claim from Figure 2 that complexity tracks the test error."""
    correlation = float(scipy.stats.spearmanr(noisy["complexity"], noisy["error"]).statistic)
    return Claim(f"Figure 2, {place}", "rank correlation of complexity and test error", correlation, ">=", limit)


def generalization(name: str, n: int, noisy: Arrays, finite: Arrays) -> Iterator[Claim]:
    """Yield the claims of Theorem 5.1: complexity tracks the test error, and the bound exceeds the test error."""
    yield tracked(f"{name}, kernel of {n} images", noisy, 0.97)
    bound = np.array([population_bound(0.0, n, value * np.sqrt(n / 2), DELTA) for value in noisy["complexity"]])
    note = f"{bound[0]:.2f} for true labels; vacuous for {np.sum(bound >= 1)} of {len(bound)} portions"
    # Bounds of 1 or more are vacuous and cannot fail, so they are omitted. If all are vacuous, the smallest is used.
    sound = bound < 1 if bound.min() < 1 else bound == bound.min()
    above = float(np.max((noisy["error"] / bound)[sound]))
    yield Claim(f"Theorem 5.1, {name}", "test error over its bound with constants", above, "<=", 1.0, note)
    above = float(np.max(finite["error"] / finite["bound"]))
    note = f"the bound is {np.min(finite['bound']):.0f} or more"
    yield Claim(f"Theorem 5.1, {name}, networks", "test error over its bound", above, "<=", 1.0, note)


def projections(data: lz.Dataset) -> Arrays:
    """Return the data for Figure 1 (b, d): eigenvalues, and projections of true and random labels onto eigenvectors."""
    modes = spectrum(KERNEL(data.x_train))
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    labels = lz.label_projections(modes, np.stack([data.y_train, random], axis=1))
    return {"values": labels.values, "projections": labels.projections.T}


def published(name: str, noisy: Arrays, spectra: Arrays) -> Iterator[Claim]:
    """Yield comparisons with the paper's figures if the number of images is the same as in the paper."""
    if len(spectra["values"]) != PAPER_N:
        return
    complexity = PAPER_NOISE.get(name, {}).get("complexity", ())
    for i in (0, 5, 10)[: len(complexity)]:
        off = abs(noisy["complexity"][i] / complexity[i] - 1)
        statement = "relative difference of complexity from the paper's"
        yield Claim(f"Figure 2, {name}, {PORTIONS[i]:.0%} random", statement, off, "<=", 0.02)
    for i in (1000, PAPER_N - 1):
        off = abs(spectra["values"][i] / PAPER_EIGENVALUES[name][i] - 1)
        statement = "relative difference from the paper's"
        yield Claim(f"Figure 1, {name}, eigenvalue {i}", statement, off, "<=", 0.03)
