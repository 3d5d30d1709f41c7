"""Sections 3, 5 and 6 of Li and Liang 2018: data with more and with less structure."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import scipy.optimize
import scipy.stats
from jax import Array

import lazynet as lz
from lazynet.measures import coupled_neurons, leading_values
from lazynet.networks import weights
from lazynet.papers import li2018_figures as figures
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.li2018_setting import (
    LEARNED,
    MEASURED,
    NETWORK,
    SGD,
    drawn,
    moved,
    spectra_of,
    steps_of,
)
from lazynet.papers.li2018_sizes import BATCH, Mixture, Size
from lazynet.papers.work import Work
from lazynet.typing import Result, Variables

SNAPSHOTS = 60  # at logarithmic distances
MEMORIZING = 16  # times as many steps for random labels


def add_to(found: Reproduction, work: Work, size: Size) -> None:
    """Compute how movement and steps depend on the data, and check it."""
    mixture, varied = size.data, size.varied

    def sweep(name: str, data: lz.Dataset, times: int = 1, measured: int | None = MEASURED, **own: Any) -> Result:
        widths, seeds, steps = varied
        network, seen = NETWORK.clone(outputs=data.outputs), min(measured or data.n_train, data.n_train)
        given: dict[str, Any] = {"steps": times * steps, "snapshots": SNAPSHOTS, "measured": seen}
        given |= {"widths": widths, "seeds": seeds, "compare": False, **SGD, **own}
        return work.sweep(name, network, data, **given)

    structures = {
        (classes, parts): mixture._replace(classes=classes, components=parts)
        for classes, parts in sorted(size.structures, key=lambda structure: structure[0] * structure[1])
    }
    variance = {sigma: sweep(f"sigma-{sigma:g}", drawn(mixture, sigma=sigma)) for sigma in size.variances}
    clusters = {at: sweep(f"k-{at[0]}-l-{at[1]}", drawn(one)) for at, one in structures.items()}
    leading = work.arrays(
        "leading", lambda: {"count": np.array([leading_of(one, size) for one in structures.values()])}
    )
    few = drawn(mixture._replace(n=size.memorized))
    random = replace(few, y_train=lz.label_noise(few.y_train, 1.0, jax.random.key(1)))
    labels = {
        kind: sweep(f"labels-{kind}", data, MEMORIZING, None) for kind, data in (("true", few), ("random", random))
    }
    apart = drawn(mixture, delta=1.0, lambda_=1 / (8 * mixture.components))
    crossed = lz.xor(200, 200, jax.random.key(0))
    easy = {
        "exactly separated components": sweep("separated", apart),
        "XOR in the plane": sweep("xor", crossed),
        "one pass over the data": sweep("one-pass", drawn(mixture, n_train=varied.steps * BATCH)),
    }
    centers = drawn(mixture._replace(n=10 * mixture.classes * mixture.components), sigma=0.0)
    widths, seeds, _ = size.networks
    own: dict[str, Any] = {"widths": widths, "seeds": seeds, "snapshots": 1, "measures": {"coupled": coupled}}
    exact = sweep("centers", centers, measured=None, **own)
    found.claims += [
        *poorer("sigma", variance),
        *poorer("k l", clusters),
        leads(structures, leading["count"]),
        *memorized(labels),
        *separated(mixture.components, apart, drawn(mixture)),
        *learned(easy),
        crossing(crossed),
        coupling(exact),
    ]
    found.numbers["structure"] = {
        name: {str(at): numbers(result) for at, result in results.items()}
        for name, results in (("sigma", variance), ("k, l", clusters), ("labels", labels), ("other", easy))
    }
    found.figures["structure"] = figures.draw_structure(variance, clusters, labels, exact)


def coupled(variables: Variables, start: Variables, data: lz.Dataset) -> Array:
    """The share of units whose gradient is the pseudo-gradient, on the training examples."""
    return coupled_neurons(weights(variables, "hidden"), weights(start, "hidden"), data.x_train)


def numbers(result: Result) -> dict[str, float]:
    """What is measured at the end."""
    return {
        "relative distance": moved(result),
        "coupling": float(result.activation_flips.isel(step=-1).mean(skipna=False)),
        "steps to 99% training accuracy": steps_of(result.train_error),
        "steps to 99% test accuracy": steps_of(result.test_error),
    }


def poorer(what: str, results: dict[Any, Result]) -> Iterator[Claim]:
    """Section 6: the poorer the structure, the more steps are needed, and the farther weights move."""
    place, (first, *_, last), every = f"Section 6, {what}", results, list(results.values())
    for name, of_one in (("steps to 99%", lambda result: steps_of(result.test_error)), ("relative distance", moved)):
        values = [of_one(result) for result in every]
        note = f"{first} to {last}: {', '.join(f'{value:.3g}' for value in values)}"
        yield Claim(place, f"{name}, poorest over richest structure", values[-1] / values[0], ">=", 1.2, note)
        order = float(scipy.stats.spearmanr(np.arange(len(values)), values).statistic)
        yield Claim(place, f"{name}, rank correlation with {what}", order, ">=", 0.9)


def leading_of(data: Mixture, size: Size) -> int:
    """How many singular values of the update lead, of one network."""
    width, steps = size.varied.widths[-1], size.varied.steps
    return leading_values(spectra_of(drawn(data), [width], 1, steps)["update"][0, 0])


def leads(structures: dict[tuple[int, int], Mixture], counts: np.ndarray) -> Claim:
    """Section 6: the update has as many leading singular values as there are components, however many."""
    expected = np.array([classes * parts for classes, parts in structures])
    note = f"{', '.join(map(str, counts.tolist()))} of k l = {', '.join(map(str, expected.tolist()))}"
    off = float(np.max(abs(counts - expected)))
    return Claim("Section 6, update", "leading singular values, furthest from k l", off, "<=", 0.0, note)


def memorized(labels: dict[str, Result]) -> Iterator[Claim]:
    """Random labels of the same inputs take more steps and more movement."""
    place = "Section 4, random labels"
    steps = {kind: steps_of(result.train_error) for kind, result in labels.items()}
    more = moved(labels["random"]) / moved(labels["true"])
    fitted = 1 - float(labels["random"].train_error.isel(step=-1).mean(skipna=False))
    yield Claim(place, "training accuracy at the end", fitted, ">=", 0.95)
    note = f"{steps['random']:.0f} and {steps['true']:.0f}"
    yield Claim(
        place, "steps to 99% of them, over those of true labels", steps["random"] / steps["true"], ">=", 4, note
    )
    yield Claim(place, "relative distance, over that of true labels", more, ">=", 1.2)


def separated(components: int, apart: lz.Dataset, paper: lz.Dataset) -> Iterator[Claim]:
    """Assumption A1: how the components of the data are separated."""
    exact, own = (lz.separation(data, components) for data in (apart, paper))
    said = "holds" if own.holds else "does not hold"
    note = f"of the paper's own mixture {own.lambda_:.3f}, so that A1 {said} there; delta {own.delta:.2f}"
    limit = 1 / (8 * components)
    statement = "lambda of the examples, to be at most 1 / (8 l)"
    yield Claim("Assumption A1, exact separation", statement, exact.lambda_, "<=", limit, note)
    yield Claim("Assumption A1, exact separation", "least distance of two classes", exact.delta, ">=", 1 - 1e-6)


def learned(easy: dict[str, Result]) -> Iterator[Claim]:
    """Theorem 4.1: what is separated is learned, linearly separable or not."""
    for name, result in easy.items():
        least = 1 - float(result.test_error.isel(step=-1).max(skipna=False))
        note = f"after {steps_of(result.test_error):.0f} steps; relative distance {moved(result):.3f}"
        yield Claim(f"Theorem 4.1, {name}", "least test accuracy at the end", least, ">=", LEARNED, note)


def crossing(data: lz.Dataset) -> Claim:
    """Appendix C: no line separates the XOR example. The largest t with s (w x + b) >= t, |w|, |b| <= 1."""
    sign = np.sign(data.y_train[:, :1])
    rows = np.concatenate([-sign * data.x_train, -sign, np.ones_like(sign)], axis=1)
    bounds = [(-1, 1)] * (data.dim + 1) + [(None, None)]
    best = scipy.optimize.linprog([*np.zeros(data.dim + 1), -1], rows, np.zeros(len(rows)), bounds=bounds)
    return Claim("Appendix C, XOR in the plane", "largest margin of a line", abs(float(best.fun)), "<=", 1e-9)


def coupling(exact: Result) -> Claim:
    """Lemma 5.1 without variance: the share of units whose gradient is the pseudo-gradient is 1 - O(m^(-1/2)).

    A unit is coupled where no pattern changes on any of the k l examples. Where most of them are not, what is
    proportional to the movement is not the share that is lost but -log of the one that is left.
    """
    left = exact.coupled.isel(step=-1)
    found, shares = exponent(-np.log(left)), ", ".join(f"{share:.3f}" for share in left.mean("seed").values)
    note = f"{found:.3f}; of 1 - share {exponent(1 - left):.3f}; shares {shares} by width"
    statement = "exponent of -log(share of coupled units) in the width, from -1/2"
    return Claim("Lemma 5.1, sigma = 0", statement, abs(found + 0.5), "<=", 0.1, note)
