"""Section 6 of Arora et al. 2019: which functions of points on the sphere have a small y' H^-1 y, and are learned."""

from collections.abc import Callable, Iterator
from math import factorial
from typing import Any, NamedTuple

import jax
import numpy as np

import lazynet as lz
from lazynet.kernels import Inverse
from lazynet.papers import arora2019_figures as figures
from lazynet.papers.claims import Claim, Reproduction
from lazynet.papers.work import Arrays, Work
from lazynet.theory import power_bound, unseen_share

POWERS = range(1, 7)
COVERED = (1, 2, 4, 6)  # by Theorem 6.1
TRAINED = (1, 2, 3, 4, 5)  # by finite networks
POINTS, DIM = 256, 3  # that these are trained on


class Size(NamedTuple):
    """How much is computed."""

    n: tuple[int, ...]
    dims: tuple[int, ...]
    samples: int  # of points on the sphere
    width: int  # of finite networks
    steps: int


class Sum(NamedTuple):
    """A function of points (n, d), d of 3 or more, and its terms alpha (beta'x)^p as (alpha, |beta|, p)."""

    of: Callable[[np.ndarray], np.ndarray]
    terms: list[tuple[float, float, int]]


SUMS = {
    "x1 + x2^2 - x3^4 / 2": Sum(
        lambda x: x[:, 0] + x[:, 1] ** 2 - x[:, 2] ** 4 / 2, [(1.0, 1.0, 1), (1.0, 1.0, 2), (0.5, 1.0, 4)]
    ),
    # Series, up to what float64 sees of them.
    "cos(x1) - 1": Sum(lambda x: np.cos(x[:, 0]) - 1, [(1 / factorial(p), 1.0, p) for p in range(2, 20, 2)]),
    "x1 atan(x1 / 2)": Sum(
        lambda x: x[:, 0] * np.arctan(x[:, 0] / 2),
        [(1 / ((p - 1) * 2.0 ** (p - 1)), 1.0, p) for p in range(2, 60, 2)],
    ),
    # x'Ax with the eigenvalues 1/2 and -1/2: ((x1 + x2)^2 - (x1 - x2)^2) / 4.
    "x1 x2": Sum(lambda x: x[:, 0] * x[:, 1], [(0.5, 1.0, 2), (0.5, 1.0, 2)]),
}


def add_to(found: Reproduction, work: Work, size: Size) -> None:
    """Compute norms and errors, and check them."""
    norms = work.arrays("functions", lambda: norms_of(size))
    errors = {p: error_of(p, size, work) for p in TRAINED}
    found.claims += [*powers(size, norms["powers"]), *sums(size, norms["sums"]), *learned(errors)]
    found.numbers["functions"] = {"n": size.n, "d": size.dims, "names": list(SUMS), **norms, "errors": errors}
    shares = {p: unseen_share(p, DIM) for p in TRAINED}
    found.figures["functions"] = figures.draw_functions(size.n, size.dims, COVERED, norms["powers"], errors, shares)


def norms_of(size: Size) -> Arrays:
    """sqrt(y' H^-1 y) of x1^p for POWERS, and of SUMS, (d, n, function), as means over draws of the points."""
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    found = np.zeros((len(size.dims), len(size.n), len(POWERS) + len(SUMS)))
    for i, d in enumerate(size.dims):
        for sample in range(size.samples):
            x = lz.sphere(size.n[-1], 0, d, jax.random.key(sample)).x_train
            y = np.stack([*(x[:, 0] ** p for p in POWERS), *(each.of(x) for each in SUMS.values())], axis=1)
            for j, n in enumerate(size.n):
                found[i, j] += np.sqrt(np.sum(y[:n] * Inverse(kernel(x[:n])).solve(y[:n]), axis=0)) / size.samples
    return {"powers": found[:, :, : len(POWERS)], "sums": found[:, :, len(POWERS) :]}


def powers(size: Size, norms: np.ndarray) -> Iterator[Claim]:
    """Theorem 6.1: linear functions and even powers have a bounded norm, whatever n is; other odd powers have none."""
    n = np.array(size.n, float)
    for d, of_dim in zip(size.dims, norms, strict=True):
        for p, values in zip(POWERS, of_dim.T, strict=True):
            place, growth = (
                f"Theorem 6.1, d = {d}, p = {p}",
                float(np.diff(np.log(values[-2:]))[0] / np.diff(np.log(n[-2:]))[0]),
            )
            if p in COVERED:
                note = f"exponent in n at the end {growth:.3f}"
                over = max(values) / power_bound([(1.0, 1.0, p)])
                yield Claim(place, "sqrt(y' H^-1 y) over its bound 3 p", over, "<=", 1.0, note)
                # At d = 10 higher powers still rise towards their limit.
                if n[-1] >= 4000 and (d <= 5 or p <= 2):
                    yield Claim(place, "exponent in n between the two largest", growth, "<=", 0.05)
            elif d == 3:
                whole = float(np.polyfit(np.log(n), np.log(values), 1)[0])
                yield Claim(place, "exponent in n of an odd power, which no bound covers", whole, ">=", 0.5)


def sums(size: Size, norms: np.ndarray) -> Iterator[Claim]:
    """Corollary 6.2: norms of sums are below the sums of bounds."""
    for d, of_dim in zip(size.dims, norms, strict=True):
        for (name, function), values in zip(SUMS.items(), of_dim.T, strict=True):
            bound = power_bound(function.terms)
            place, statement = f"Corollary 6.2, d = {d}, {name}", f"sqrt(y' H^-1 y) over its bound {bound:.3g}"
            yield Claim(place, statement, max(values) / bound, "<=", 1.0)


def error_of(p: int, size: Size, work: Work) -> float:
    """The test error of finite networks trained on x1^p: root mean square, over that of x1^p."""
    data = lz.sphere(POINTS, 2000, DIM, jax.random.key(0), lambda x: x[:, 0] ** p)
    result = work.sweep(f"power-{p}", lz.TwoLayer(width=2), data, [size.width], 2, size.steps)
    # The loss is half of the squared sum.
    return float(np.sqrt(2 * result.test_loss.isel(step=-1).mean() / np.sum(data.y_test**2)))


def learned(errors: dict[int, float]) -> Iterator[Claim]:
    """Networks learn what Theorem 6.1 covers, and of other odd powers no more than their linear part."""
    for p, error in errors.items():
        place = f"Section 6, networks, d = {DIM}, p = {p}"
        if p in COVERED:
            yield Claim(place, "test error over the target's size", error, "<=", 0.2)
        else:
            over = error / unseen_share(p, DIM)
            yield Claim(place, "test error over what the kernel does not see", over, ">=", 0.95, f"error {error:.2f}")
