"""Sections 3 to 6 and appendix C of Li and Liang 2018: data with varying degrees of structure."""

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
from lazynet.networks import Network, weights
from lazynet.papers import li2018_figures as figures
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.li2018_setting import (
    LEARNED,
    MEASURED,
    NETWORK,
    SGD,
    drawn,
    moved,
    spectra,
    steps_of,
)
from lazynet.papers.li2018_sizes import BATCH, Mixture, Networks, Size
from lazynet.papers.work import Work
from lazynet.typing import Result, Variables

# Number of logarithmically spaced snapshots.
SNAPSHOTS = 60
# Factor by which training is extended when true labels are compared with random labels.
MEMORIZING = 16


def add_to(reproduction: Reproduction, work: Work, size: Size) -> None:
    """Add results to a reproduction: how the movement and the number of steps depend on the data."""
    mixture, varied = size.data, size.varied

    def sweep(
        name: str,
        data: lz.Dataset,
        networks: Networks = varied,
        rows: int | None = MEASURED,
        snapshots: int = SNAPSHOTS,
        own: dict[str, Any] | None = None,
    ) -> Result:
        measure = lz.Measure(predictions=False, rows=min(rows or data.n_train, data.n_train), own=own or {})
        network = NETWORK.clone(outputs=data.outputs)
        return work.sweep(name, network, data, *networks, snapshots=snapshots, measure=measure, **SGD)

    structures = {
        (classes, parts): mixture._replace(classes=classes, components=parts)
        for classes, parts in sorted(size.structures, key=lambda structure: structure[0] * structure[1])
    }
    variance = {sigma: sweep(f"sigma-{sigma:g}", drawn(mixture, sigma=sigma)) for sigma in size.variances}
    clusters = {at: sweep(f"k-{at[0]}-l-{at[1]}", drawn(structure)) for at, structure in structures.items()}
    counts = np.array([leading_of(work, structure, size) for structure in structures.values()])
    few = drawn(mixture._replace(n=size.memorized))
    random = replace(few, y_train=lz.label_noise(few.y_train, 1.0, jax.random.key(1)))
    longer = varied._replace(steps=MEMORIZING * varied.steps)
    labels = {
        kind: sweep(f"labels-{kind}", data, longer, rows=None) for kind, data in (("true", few), ("random", random))
    }
    apart = drawn(mixture, delta=1.0, lambda_=1 / (8 * mixture.components))
    crossed = lz.xor(200, 200, jax.random.key(0))
    easy = {
        "exactly separated components": sweep("separated", apart),
        "XOR in the plane": sweep("xor", crossed),
        "one pass over the data": sweep("one-pass", drawn(mixture, n_train=varied.steps * BATCH)),
    }
    centers = drawn(mixture._replace(n=10 * mixture.classes * mixture.components), sigma=0.0)
    wider = size.networks._replace(steps=varied.steps)
    exact = sweep("centers", centers, wider, rows=None, snapshots=1, own={"coupled": coupled})
    reproduction.claims += [
        *poorer("sigma", variance),
        *poorer("k l", clusters),
        leads(structures, counts),
        *memorized(labels),
        *separated(mixture.components, apart, drawn(mixture)),
        *learned(easy),
        crossing(crossed),
        coupling(exact),
    ]
    reproduction.numbers["structure"] = {
        name: {str(at): numbers(result) for at, result in results.items()}
        for name, results in (("sigma", variance), ("k, l", clusters), ("labels", labels), ("other", easy))
    }
    reproduction.figures["structure"] = figures.draw_structure(variance, clusters, labels, exact)


def coupled(network: Network, variables: Variables, variables_0: Variables, data: Any) -> Array:
    """Return the fraction of units whose gradient equals their pseudo-gradient on the training examples."""
    return coupled_neurons(weights(variables, "hidden"), weights(variables_0, "hidden"), data.x_train)


def numbers(result: Result) -> dict[str, float]:
    """Return the movement at the last step and the number of steps to 99% accuracy, both averaged over networks."""
    return {
        "relative distance": moved(result),
        "coupling": float(result.activation_flips.isel(step=-1).mean(skipna=False)),
        "steps to 99% training accuracy": steps_of(result.train_error),
        "steps to 99% test accuracy": steps_of(result.test_error),
    }


def poorer(parameter: str, results: dict[Any, Result]) -> Iterator[Claim]:
    """Yield the claims of section 6: data with less structure require more steps and more movement.

    Args:
        parameter: Name of the parameter that varies.
        results: Results of sweeps, keyed by the parameter's value and ordered from the most to the least structured
            data.
    """
    place, (first, *_, last) = f"Section 6, {parameter}", results
    for name, measured in (("steps to 99%", lambda result: steps_of(result.test_error)), ("relative distance", moved)):
        values = [measured(result) for result in results.values()]
        note = f"{first} to {last}: {', '.join(f'{value:.3g}' for value in values)}"
        ratio = f"{name}, ratio of the least to the most structured data"
        yield Claim(place, ratio, values[-1] / values[0], ">=", 1.2, note)
        order = float(scipy.stats.spearmanr(np.arange(len(values)), values).statistic)
        yield Claim(place, f"{name}, rank correlation with {parameter}", order, ">=", 0.9)


def leading_of(work: Work, data: Mixture, size: Size) -> int:
    """Train a network on a mixture and return the number of leading singular values of its update."""
    width, steps = size.varied.widths[-1], size.varied.steps
    name = f"leading-{data.classes}-{data.components}"
    return leading_values(spectra(work, name, drawn(data), [width], 1, steps)["update"][0, 0])


def leads(structures: dict[tuple[int, int], Mixture], counts: np.ndarray) -> Claim:
    """Return the claim of section 6 that the number of leading singular values equals the number of components."""
    expected = np.array([classes * parts for classes, parts in structures])
    note = f"{', '.join(map(str, counts.tolist()))} for k l = {', '.join(map(str, expected.tolist()))}"
    off = float(np.max(abs(counts - expected)))
    return Claim(
        "Section 6, update", "largest distance of the number of leading singular values from k l", off, "<=", 0.0, note
    )


def memorized(labels: dict[str, Result]) -> Iterator[Claim]:
    """Yield the claims that random labels require more steps and more movement than true labels."""
    place = "Section 4, random labels"
    steps = {kind: steps_of(result.train_error) for kind, result in labels.items()}
    more = moved(labels["random"]) / moved(labels["true"])
    fitted = 1 - float(labels["random"].train_error.isel(step=-1).mean(skipna=False))
    yield Claim(place, "training accuracy at the end", fitted, ">=", 0.95)
    note = f"{steps['random']:.0f} and {steps['true']:.0f}"
    yield Claim(place, "steps to 99%, relative to true labels", steps["random"] / steps["true"], ">=", 4, note)
    yield Claim(place, "relative distance, relative to true labels", more, ">=", 1.2)


def separated(components: int, apart: lz.Dataset, paper: lz.Dataset) -> Iterator[Claim]:
    """Yield the claims about Assumption A1, which requires the components of a mixture to be separated."""
    exact, own = (lz.separation(data, components) for data in (apart, paper))
    answer = "holds" if own.holds else "does not hold"
    note = f"the paper's mixture has {own.lambda_:.3f} and delta {own.delta:.2f}, so A1 {answer} there"
    limit = 1 / (8 * components)
    statement = "lambda of the examples, at most 1 / (8 l)"
    yield Claim("Assumption A1, exact separation", statement, exact.lambda_, "<=", limit, note)
    yield Claim("Assumption A1, exact separation", "smallest distance between classes", exact.delta, ">=", 1 - 1e-6)


def learned(easy: dict[str, Result]) -> Iterator[Claim]:
    """Yield the claims of Theorem 4.1: separated data are learned, whether or not they are linearly separable."""
    for name, result in easy.items():
        least = 1 - float(result.test_error.isel(step=-1).max(skipna=False))
        note = f"after {steps_of(result.test_error):.0f} steps; relative distance {moved(result):.3f}"
        yield Claim(f"Theorem 4.1, {name}", "lowest test accuracy at the end", least, ">=", LEARNED, note)


def crossing(data: lz.Dataset) -> Claim:
    """Return the claim of appendix C that no line separates the two classes in the XOR example.

    The margin is the largest t for which some w and b, with |w_i| <= 1 and |b| <= 1, satisfy s (w'x + b) >= t for every
    example x. Here s is the sign of the label of x.
    """
    sign = np.sign(data.y_train[:, :1])
    rows = np.concatenate([-sign * data.x_train, -sign, np.ones_like(sign)], axis=1)
    bounds = [(-1, 1)] * (data.dim + 1) + [(None, None)]
    best = scipy.optimize.linprog([*np.zeros(data.dim + 1), -1], rows, np.zeros(len(rows)), bounds=bounds)
    return Claim("Appendix C, XOR in the plane", "largest margin of a line", abs(float(best.fun)), "<=", 1e-9)


def coupling(exact: Result) -> Claim:
    """Return the claim of Lemma 5.1 at sigma = 0: a fraction 1 - O(m^(-1/2)) of the units is coupled.

    A unit is coupled if its activation pattern on all k l centers is the same as at initialization. If few units are
    coupled, the movement is proportional to -log(fraction) rather than to 1 - fraction.
    """
    share = exact.coupled.isel(step=-1)
    slope, shares = exponent(-np.log(share)), ", ".join(f"{value:.3f}" for value in share.mean("seed").values)
    note = f"{slope:.3f}; exponent of 1 - share {exponent(1 - share):.3f}; shares {shares} by width"
    statement = "distance of the exponent of -log(share of coupled units) in the width from -1/2"
    return Claim("Lemma 5.1, sigma = 0", statement, abs(slope + 0.5), "<=", 0.1, note)
