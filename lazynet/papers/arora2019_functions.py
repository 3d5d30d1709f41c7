"""Section 6 of Arora et al. 2019: functions on the sphere that networks learn and for which y' H^-1 y is small."""

from collections.abc import Callable, Iterator
from math import factorial
from typing import Any, NamedTuple

import jax
import numpy as np

import lazynet as lz
from lazynet.execution import Arrays
from lazynet.kernels import Inverse
from lazynet.papers import arora2019_figures as figures
from lazynet.papers.claims import Claim, Reproduction
from lazynet.papers.work import Work
from lazynet.theory import power_bound, unseen_share

POWERS = range(1, 7)
# Powers that Theorem 6.1 covers, and powers that the finite networks are trained to fit.
COVERED, TRAINED = (1, 2, 4, 6), (1, 2, 3, 4, 5)
# Number and dimension of the points on which the finite networks are trained.
POINTS, DIM = 256, 3


class Size(NamedTuple):
    """Settings that determine the size of the computation.

    Attributes:
        n: Numbers of points for which sqrt(y' H^-1 y) is computed.
        dims: Dimensions of the points.
        samples: Number of times the points are drawn.
        width: Width of the finite networks.
        steps: Number of training steps for the finite networks.
    """

    n: tuple[int, ...]
    dims: tuple[int, ...]
    samples: int
    width: int
    steps: int


class Sum(NamedTuple):
    """A function on the sphere and its expansion as a sum of powers.

    Attributes:
        function: Function of the points, which have shape (n, d) with d at least 3.
        terms: Tuple (|alpha|, ||beta||, p) for each term alpha (beta'x)^p.
    """

    function: Callable[[np.ndarray], np.ndarray]
    terms: list[tuple[float, float, int]]


SUMS = {
    "x1 + x2^2 - x3^4 / 2": Sum(
        lambda x: x[:, 0] + x[:, 1] ** 2 - x[:, 2] ** 4 / 2, [(1.0, 1.0, 1), (1.0, 1.0, 2), (0.5, 1.0, 4)]
    ),
    # The next two functions are expanded in power series, truncated at float64 precision.
    "cos(x1) - 1": Sum(lambda x: np.cos(x[:, 0]) - 1, [(1 / factorial(p), 1.0, p) for p in range(2, 20, 2)]),
    "x1 atan(x1 / 2)": Sum(
        lambda x: x[:, 0] * np.arctan(x[:, 0] / 2),
        [(1 / ((p - 1) * 2.0 ** (p - 1)), 1.0, p) for p in range(2, 60, 2)],
    ),
    # x1 x2 = ((x1 + x2)^2 - (x1 - x2)^2) / 4 is the quadratic form x'Ax of a matrix A with eigenvalues 1/2 and -1/2.
    "x1 x2": Sum(lambda x: x[:, 0] * x[:, 1], [(0.5, 1.0, 2), (0.5, 1.0, 2)]),
}


def add_to(reproduction: Reproduction, work: Work, size: Size) -> None:
    """Add the results of section 6 of Arora et al. 2019 to a reproduction.

    The results are the values of sqrt(y' H^-1 y) and the test errors of trained networks.
    """
    norms = norms_of(work, size)
    errors = {p: error_of(p, size, work) for p in TRAINED}
    reproduction.claims += [*powers(size, norms["powers"]), *sums(size, norms["sums"]), *learned(errors)]
    numbers = {"n": size.n, "d": size.dims, "names": list(SUMS), **norms, "errors": errors}
    reproduction.numbers["functions"] = numbers
    shares = {p: unseen_share(p, DIM) for p in TRAINED}
    reproduction.figures["functions"] = figures.draw_functions(
        size.n, size.dims, COVERED, norms["powers"], errors, shares
    )


def norms_of(work: Work, size: Size) -> Arrays:
    """Return sqrt(y' H^-1 y) for the powers x1^p and for SUMS, averaged over draws.

    The arrays "powers" and "sums" have the axes (d, n, function).
    """
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))

    def compute(d: int, sample: int) -> Arrays:
        x = lz.sphere(size.n[-1], 0, d, jax.random.key(sample)).x_train
        y = np.stack([*(x[:, 0] ** p for p in POWERS), *(sum_.function(x) for sum_ in SUMS.values())], axis=1)
        norms = [np.sqrt(np.sum(y[:n] * Inverse(kernel(x[:n])).solve(y[:n]), axis=0)) for n in size.n]
        return {"norms": np.stack(norms)}

    norms = work.arrays("functions", compute, d=size.dims, sample=range(size.samples))["norms"].mean(axis=1)
    return {"powers": norms[:, :, : len(POWERS)], "sums": norms[:, :, len(POWERS) :]}


def powers(size: Size, norms: np.ndarray) -> Iterator[Claim]:
    """Yield the claims of Theorem 6.1: sqrt(y' H^-1 y) is bounded only for linear functions and even powers."""
    n = np.array(size.n, float)
    for d, norms_at_d in zip(size.dims, norms, strict=True):
        for p, values in zip(POWERS, norms_at_d.T, strict=True):
            place = f"Theorem 6.1, d = {d}, p = {p}"
            growth = float(np.diff(np.log(values[-2:]))[0] / np.diff(np.log(n[-2:]))[0])
            if p in COVERED:
                note = f"exponent in n at the end {growth:.3f}"
                over = max(values) / power_bound([(1.0, 1.0, p)])
                yield Claim(place, "sqrt(y' H^-1 y) over its bound 3 p", over, "<=", 1.0, note)
                # For d = 10 and powers above 2, sqrt(y' H^-1 y) is still rising toward its limit as n grows.
                if n[-1] >= 4000 and (d <= 5 or p <= 2):
                    yield Claim(place, "exponent in n between the two largest", growth, "<=", 0.05)
            elif d == 3:
                slope = float(np.polyfit(np.log(n), np.log(values), 1)[0])
                yield Claim(place, "exponent in n of an odd power, which no bound covers", slope, ">=", 0.5)


def sums(size: Size, norms: np.ndarray) -> Iterator[Claim]:
    """Yield the claims of Corollary 6.2: for a sum y of powers, sqrt(y' H^-1 y) is at most the sum of their bounds."""
    for d, norms_at_d in zip(size.dims, norms, strict=True):
        for (name, sum_), values in zip(SUMS.items(), norms_at_d.T, strict=True):
            bound = power_bound(sum_.terms)
            place, statement = f"Corollary 6.2, d = {d}, {name}", f"sqrt(y' H^-1 y) over its bound {bound:.3g}"
            yield Claim(place, statement, max(values) / bound, "<=", 1.0)


def error_of(p: int, size: Size, work: Work) -> float:
    """Return the RMS test error of finite networks trained on x1^p, divided by the RMS of x1^p."""
    data = lz.sphere(POINTS, 2000, DIM, jax.random.key(0), lambda x: x[:, 0] ** p)
    result = work.sweep(f"power-{p}", lz.TwoLayer(width=2), data, [size.width], 2, size.steps)
    # The loss is half the sum of squared errors.
    return float(np.sqrt(2 * result.test_loss.isel(step=-1).mean() / np.sum(data.y_test**2)))


def learned(errors: dict[int, float]) -> Iterator[Claim]:
    """Yield the claims that networks learn the powers in COVERED, but only the linear part of higher odd powers."""
    for p, error in errors.items():
        place = f"Section 6, networks, d = {DIM}, p = {p}"
        if p in COVERED:
            yield Claim(place, "test error over the target's size", error, "<=", 0.2)
        else:
            over = error / unseen_share(p, DIM)
            yield Claim(
                place, "test error over the share that the kernel cannot see", over, ">=", 0.95, f"error {error:.2f}"
            )
