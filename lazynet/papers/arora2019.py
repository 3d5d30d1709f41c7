"""Arora, Du, Hu, Li and Wang 2019: Fine-Grained Analysis of Optimization and Generalization (arXiv 1901.08584).

A two-layer relu network whose hidden layer is trained learns the part of its labels along the eigenvector v_i of the
kernel H as (1 - eta lambda_i)^k (Theorem 4.1), so that true labels are learned sooner than random ones; and y' H^-1 y
bounds how it generalizes (Theorem 5.1), which is small for what is linear or an even power (Theorem 6.1).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import scipy.stats

import lazynet as lz
from lazynet.kernels import Inverse, spectrum
from lazynet.papers import arora2019_figures as figures
from lazynet.papers import arora2019_functions as functions
from lazynet.papers import du2018
from lazynet.papers.arora2019_published import PAPER_EIGENVALUES, PAPER_N, PAPER_NOISE
from lazynet.papers.arora2019_sizes import SIZES, Networks, Size, jobs
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.work import Arrays, Work
from lazynet.studies.sweep import population_bounds, speed_gap
from lazynet.theory import concentration_bound, flips_bound, population_bound
from lazynet.training._keys import member_key
from lazynet.typing import DataArray, Result

__all__ = ["SIZES", "jobs", "reproduce"]

LABELS = ("true", "random", "worst")
NETWORK = lz.TwoLayer(width=2)
KERNEL: Any = lz.analytic_kernel(NETWORK)
KAPPAS = (1.0, 0.1, 0.01)  # scales of the weights at the start, the last of which is the paper's
# Where widths from 1024 on are large enough for the exponent of Theorem 4.1.
ASYMPTOTIC = {"digits": ("true", "random"), "mnist": ("random",), "cifar10": ("true", "random")}
PORTIONS = np.linspace(0, 1, 11)
DELTA = 0.01  # the probability that a bound fails
MODE_GAP = 0.02  # of a mode at the start, or of the average one: here the kernel still counts as right about it


def reproduce(size: str, work: Work | None = None) -> Reproduction:
    """Compute figures and claims at one of SIZES; `work` keeps what has been computed."""
    chosen, work, found = SIZES[size], work or Work("arora2019", size), Reproduction()
    # What is missing is missed before work starts.
    data = {name: lz.load_dataset(name, n_train=chosen.n_kernel, n_test=chosen.n_test) for name in chosen.datasets}
    for name in chosen.datasets:
        networks(name, chosen, work, found)
        kernel_limit(name, data[name], chosen, work, found)
    functions.add_to(found, work, chosen.functions)
    du2018.add_to(found, work, chosen.du2018)
    return found


# Section 4 and appendix C: how fast labels are learned, and how far weights move.


def networks(name: str, size: Size, work: Work, found: Reproduction) -> None:
    """Figure 1 (a, c), Theorem 4.1 and the lemmas, on finite networks."""

    def sweep(part: str, kind: str, **more: Any) -> Result:
        n, *how = getattr(size, part)
        return work.sweep(f"{part}-{name}-{kind}", NETWORK, labeled(images(name, n))[kind], *how, **more)

    curves = {kind: sweep("curves", kind, init_scale=[KAPPAS[0], KAPPAS[-1]]) for kind in LABELS}
    sweeps = {kind: sweep("speed", kind) for kind in LABELS}
    many, scales = sweep("many", "true"), sweep("scales", "true", init_scale=list(KAPPAS))
    modes = work.arrays(f"modes-{name}", lambda: last_steps(name, size.modes))
    gap = speed_gap(scales)
    found.claims += [
        *order_of_losses(name, curves),
        *speed(name, sweeps),
        not_asymptotic(f"{name}, n = {size.many.n}", speed_gap(many)),
        not_asymptotic(f"{name}, kappa = 1", gap.sel(init_scale=KAPPAS[0]), gap.sel(init_scale=KAPPAS[-1])),
        *held(name, modes),
        *movement(name, images(name, size.speed.n).x_train, sweeps),
        flips_fall(name, scales),
    ]
    means = {kind: speed_gap(result).mean("seed").values for kind, result in sweeps.items()}
    found.numbers[f"networks_{name}"] = {"widths": size.speed.widths, "gaps": means, "last steps": modes}
    found.figures[f"speed_{name}"] = figures.draw_speed(name, size.curves.n, curves, sweeps, scales)
    found.figures[f"movement_{name}"] = figures.draw_movement(name, sweeps["true"], scales)
    found.figures[f"modes_{name}"] = figures.draw_modes(name, size.modes.steps, modes)


def images(name: str, n: int, n_test: int = 8) -> lz.Dataset:
    """Images for networks, which need no more coordinates than there are images."""
    return lz.load_dataset(name, n_train=n, n_test=n_test).in_span()


def labeled(data: lz.Dataset) -> dict[str, lz.Dataset]:
    """The data with true and random labels, and with the eigenvector of lambda_min, which is learned last."""
    worst = spectrum(KERNEL(data.x_train)).vectors[:, 0] * np.sqrt(data.n_train)
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    return {name: replace(data, y_train=y) for name, y in zip(LABELS, (data.y_train, random, worst), strict=True)}


def order_of_losses(name: str, curves: dict[str, Result]) -> Iterator[Claim]:
    """Figure 1 (a, c): at every snapshot after the first, true labels are fitted best and the worst case least."""
    for kappa in curves["true"].init_scale.values:
        losses = [curves[kind].train_loss.sel(init_scale=kappa).isel(step=slice(1, None)) for kind in LABELS]
        for (soon, late), (before, after) in zip(pairwise(LABELS), pairwise(losses), strict=True):
            place = f"Figure 1, {name}, kappa = {kappa:g}"
            statement = f"share of snapshots at which {soon} labels are not ahead of {late} ones"
            yield Claim(place, statement, float((before >= after).mean()), "<=", 0.0)


def speed(name: str, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Theorem 4.1: networks follow the kernel, the more closely the wider they are."""
    for kind, result in sweeps.items():
        place, gap = f"{name}, {kind} labels", speed_gap(result)
        if kind in ASYMPTOTIC[name]:
            yield Claim(f"Theorem 4.1, {place}", "exponent of the gap in the width", exponent(gap), "<=", -0.35)
        else:
            yield not_asymptotic(place, gap)


def not_asymptotic(place: str, gap: DataArray, other: DataArray | None = None) -> Claim:
    """Theorem 4.1 where widths are too small for its exponent, which is printed: of another kappa, if there is one."""
    fall, beside = (float(one.mean("seed")[-1] / one.mean("seed")[0]) for one in (gap, gap if other is None else other))
    note = f"exponent {exponent(gap if other is None else other):.2f}, not asymptotic at these widths"
    if other is not None:
        note = f"at kappa = {float(other.init_scale):g} it is {beside:.2f}; {note}"
    return Claim(f"Theorem 4.1, {place}", "gap of the widest networks over the narrowest", fall, "<=", 1.0, note)


def last_steps(name: str, size: Networks) -> Arrays:
    """The last step to which Theorem 4.1 is right about each mode, to MODE_GAP: (kind of labels, width, mode)."""
    data = images(name, size.n)
    modes, kinds = spectrum(KERNEL(data.x_train)), LABELS[:2]
    found = np.zeros((len(kinds), len(size.widths), size.seeds, size.n))
    for i, kind in enumerate(kinds):
        of_kind = labeled(data)[kind]
        for j, width in enumerate(size.widths):
            for seed in range(size.seeds):
                run = lz.train(NETWORK.clone(width=width), of_kind, member_key(width, seed), size.steps)
                table = lz.mode_residuals(run, modes, of_kind.y_train, tolerance=MODE_GAP)
                found[i, j, seed] = table.last_step_held
    learned = modes.values[-1] / modes.values[::-1]
    steps = {"steps": np.array(size.steps), "learned": learned}
    return {"last_step": np.median(found, axis=2), "widths": np.array(size.widths), **steps}


def held(name: str, modes: Arrays) -> Iterator[Claim]:
    """Theorem 4.1 by eigenvector: the wider a network is, the more modes it is right about and until a later step."""
    for kind, last in zip(LABELS, modes["last_step"], strict=False):
        place = f"Theorem 4.1 by mode, {name}, {kind} labels"
        # t*: until when the kernel is right, as a geometric mean over modes.
        until = np.expm1(np.log1p(last).mean(axis=1))
        leaving = ", ".join(map(str, np.flatnonzero(last[0] == last[0].min())[:3] + 1))
        note = f"t* {', '.join(f'{step:.0f}' for step in until)} by width; the narrowest lose mode {leaving} first"
        yield Claim(place, "t* of the narrowest networks over the widest", until[0] / until[-1], "<=", 0.9, note)
        if kind == "random":
            share = until[-1] / modes["steps"]
            yield Claim(place, "t* of the widest networks over all steps", float(share), ">=", 0.25)


def movement(name: str, x: np.ndarray, sweeps: dict[str, Result]) -> Iterator[Claim]:
    """Lemmas C.1, C.2, C.3 and 5.3, and the share of signs that flips."""
    # ||H(0) - H|| of the sweep is over ||H||, and half of the units are independent.
    bounds = [concentration_bound(x @ x.T, width // 2, DELTA) for width in sweeps["true"].width.values.tolist()]
    far = sweeps["true"].initial_kernel_error.transpose("width", "seed") * np.linalg.norm(KERNEL(x))
    over, seeds = np.max(far.values / np.array(bounds)[:, None]), far.sizes["seed"]
    yield Claim(f"Lemma C.3, {name}", f"distance over its bound, in {seeds} starts", float(over), "<=", 1.0)
    for kind in LABELS[:2]:
        result = sweeps[kind]
        end, place = result.isel(step=-1), f"{name}, {kind} labels"
        radius, bound = result.max_neuron_displacement.max("step"), result.lemma_bound
        note = f"the bound is {float((bound / radius).min()):.0f} times too large"
        worst = float((radius / bound).max())
        yield Claim(f"Lemma C.1, {place}", "movement of a unit over its bound", worst, "<=", 1.0, note)
        off = float(abs(end.displacement / end.linearized_displacement - 1).mean("seed")[-1])
        yield Claim(f"Lemma 5.3, {place}", "movement, from that of the linearized limit", off, "<=", 0.05)
        over = (end.displacement / end.label_norm).mean("seed").values
        note = f"by width {', '.join(f'{value:.3f}' for value in over)}"
        yield Claim(f"Lemma 5.3, {place}", "movement of the widest over sqrt(y' H^-1 y)", over[-1], "<=", 1.05, note)
        allowed = np.vectorize(flips_bound)(end.max_neuron_displacement.values)
        share = float(np.max(end.activation_flips.mean("seed").values / allowed.mean(axis=1)))
        yield Claim(f"Theorem 4.1, {place}", "share of flips over what the movement allows", share, "<=", 1.0)
        for lemma, quantity in (("C.2", "kernel_drift"), ("C.3", "initial_kernel_error")):
            found = exponent(end[quantity])
            yield Claim(f"Lemma {lemma}, {place}", f"exponent of {quantity} in the width", found, "<=", -0.4)


def flips_fall(name: str, scales: Result) -> Claim:
    """Lemma C.2 has 1 / kappa: the smaller the weights at the start, the more signs flip."""
    shares = scales.activation_flips.isel(step=-1, width=-1).mean("seed").values
    note = ", ".join(f"{share:.1%} at kappa = {kappa:g}" for kappa, share in zip(KAPPAS, shares, strict=True))
    most = float(np.max(shares[:-1] / shares[1:]))
    return Claim(f"Lemma C.2, {name}", "share of flips at kappa over that at kappa / 10", most, "<=", 1.0, note)


# Section 5: how well networks generalize.


def kernel_limit(name: str, data: lz.Dataset, size: Size, work: Work, found: Reproduction) -> None:
    """Figures 1 (b, d) and 2, and Theorem 5.1: the kernel limit, and finite networks beside it."""
    limit = work.arrays(f"noise-{name}", lambda: noise(data, size.draws))
    finite = work.arrays(f"noisy-{name}", lambda: noisy_networks(name, size.noisy))
    spectra = work.arrays(f"projections-{name}", lambda: projections(data))
    found.claims += [*generalization(name, data.n_train, limit, finite), tracked(f"{name}, networks", finite, 0.9)]
    found.claims += published(name, limit, spectra)
    found.numbers[f"kernel_{name}"] = {
        "n": data.n_train,
        "noise": limit,
        "networks": finite,
        "eigenvalues": spectra["values"],
    }
    found.figures[f"noise_{name}"] = figures.draw_noise(name, data.n_train, size.noisy, limit, finite)
    found.figures[f"projections_{name}"] = figures.draw_projections(name, spectra)


def with_noise(data: lz.Dataset, portion: float, draw: int) -> lz.Dataset:
    """The data with a portion of its labels random, in training and in test; those of a larger one are added."""
    train, test = jax.random.split(jax.random.key(draw))
    y, y_test = lz.label_noise(data.y_train, portion, train), lz.label_noise(data.y_test, portion, test)
    return replace(data, y_train=y, y_test=y_test)


def noise(data: lz.Dataset, draws: int) -> Arrays:
    """Figure 2 in the limit of width and time: complexity, l1 and 0-1 test errors at PORTIONS, as means over draws."""
    every = [with_noise(data, portion, draw) for draw in range(draws) for portion in PORTIONS]
    y, y_test = (np.stack([getattr(one, part) for one in every], axis=1) for part in ("y_train", "y_test"))
    weights = Inverse(KERNEL(data.x_train)).solve(y)
    f = KERNEL(data.x_test, data.x_train) @ weights
    found = {
        "complexity": np.sqrt(2 * np.mean(y * weights, axis=0)),
        "l1": np.mean(abs(f - y_test), axis=0),
        "error": np.mean(f * y_test <= 0, axis=0),
    }
    return {"portion": PORTIONS} | {part: values.reshape(draws, -1).mean(axis=0) for part, values in found.items()}


def noisy_networks(name: str, size: Networks) -> Arrays:
    """Figure 2 by finite networks, each seed on labels of its own draw, and the kernel's error at the same step."""
    data = images(name, size.n, n_test=200)
    found = np.zeros((4, size.seeds, len(PORTIONS)))
    for seed in range(size.seeds):
        for i, portion in enumerate(PORTIONS):
            noisy = with_noise(data, portion, seed)
            result = lz.sweep(NETWORK, noisy, size.widths, [seed], size.steps, progress=False)
            end, bound = result.isel(step=-1), population_bounds(result, DELTA)[-1, 0, -1]
            found[:, seed, i] = end.complexity, end.test_error[-1, 0], end.kernel_test_error, bound
    parts = ("complexity", "error", "kernel_error", "bound")
    return {"portion": PORTIONS} | dict(zip(parts, found.mean(axis=1), strict=True))


def tracked(place: str, noisy: Arrays, limit: float) -> Claim:
    """Figure 2: the bound follows the test error."""
    found = float(scipy.stats.spearmanr(noisy["complexity"], noisy["error"]).statistic)
    return Claim(f"Figure 2, {place}", "rank correlation of complexity and test error", found, ">=", limit)


def generalization(name: str, n: int, noisy: Arrays, finite: Arrays) -> Iterator[Claim]:
    """Theorem 5.1: the bound follows the test error, and is above it; from 1 on it says nothing of its size."""
    yield tracked(f"{name}, kernel of {n} images", noisy, 0.97)
    bound = np.array([population_bound(0.0, n, value * np.sqrt(n / 2), DELTA) for value in noisy["complexity"]])
    note = f"{bound[0]:.2f} for true labels; vacuous for {np.sum(bound >= 1)} of {len(bound)} portions"
    # A vacuous one cannot fail, so that it stands in only where there is no other.
    sound = bound < 1 if bound.min() < 1 else bound == bound.min()
    above = float(np.max((noisy["error"] / bound)[sound]))
    yield Claim(f"Theorem 5.1, {name}", "test error over its bound with constants", above, "<=", 1.0, note)
    above, note = float(np.max(finite["error"] / finite["bound"])), f"it is {np.min(finite['bound']):.0f} or more"
    yield Claim(f"Theorem 5.1, {name}, networks", "test error over its bound", above, "<=", 1.0, note)


def projections(data: lz.Dataset) -> Arrays:
    """Figure 1 (b, d): eigenvalues, and what part of true and of random labels stands at each."""
    modes = spectrum(KERNEL(data.x_train))
    random = lz.label_noise(data.y_train, 1.0, jax.random.key(0))
    found = lz.label_projections(modes, np.stack([data.y_train, random], axis=1))
    return {"values": found.values, "projections": found.projections.T}


def published(name: str, noisy: Arrays, spectra: Arrays) -> Iterator[Claim]:
    """What the paper's own figures show of as many images."""
    if len(spectra["values"]) != PAPER_N:
        return
    shown = PAPER_NOISE.get(name, {}).get("complexity", ())
    for i in (0, 5, 10)[: len(shown)]:
        off = abs(noisy["complexity"][i] / shown[i] - 1)
        yield Claim(f"Figure 2, {name}, {PORTIONS[i]:.0%} random", "complexity, from the paper's", off, "<=", 0.02)
    for i in (1000, PAPER_N - 1):
        off = abs(spectra["values"][i] / PAPER_EIGENVALUES[name][i] - 1)
        yield Claim(f"Figure 1, {name}, eigenvalue {i}", "eigenvalue, from the paper's", off, "<=", 0.03)
