"""Analytic kernels of smooth activations: time compared with that of erf, whose kernel has a closed form."""

from collections.abc import Callable
from functools import partial

import numpy as np

import lazynet as lz
from benchmarks.timing import Report, interleaved, show_table

ACTIVATIONS = ("erf", "tanh", "softplus", "sigmoid", "silu", "sin")


def standardized(n: int, d: int) -> np.ndarray:
    """Return standardized rows with heavy tails, whose norms differ by a factor of about ten."""
    x = np.random.default_rng(d).standard_t(4, size=(n, d))
    return np.asarray((x - x.mean(axis=0)) / x.std(axis=0))


def of_all_norms(n: int, d: int) -> np.ndarray:
    """Return rows with norms from 0.001 to 100."""
    x = np.random.default_rng(d).standard_normal((n, d))
    return np.asarray(x * (np.geomspace(1e-3, 100, n) / np.linalg.norm(x, axis=1))[:, None])


def run(n: int = 1000, d: tuple[int, ...] = (13, 30, 200), rounds: int = 9, budget: float = 60.0) -> Report:
    """Time the kernels of two-layer networks with both layers trained.

    Args:
        n: Number of rows.
        d: Lengths of the rows.
        rounds: Number of timed calls of each kernel, after a first call that compiles and tabulates the expectations.
        budget: Time in seconds after which no further round is started, for each kind and length of rows.
    """
    table = []
    for name, rows in (("standardized", standardized), ("all norms", of_all_norms)):
        for size in d:
            x = rows(n, size)
            calls: dict[str, Callable[[], np.ndarray]] = {
                activation: partial(lz.analytic_kernel(lz.TwoLayer(width=2, activation=activation, train="both")), x)
                for activation in ACTIVATIONS
            }
            timings = interleaved(calls, rounds, budget)
            for activation, timing in timings.items():
                table.append(
                    {
                        "rows": name,
                        "d": size,
                        "activation": activation,
                        "first_seconds": timing.first,
                        "median_seconds": timing.median,
                        "ratio": timing.median / timings["erf"].median,
                    }
                )
    notes = [
        "Times are in seconds. first: the first call, which compiles and tabulates the expectations. ratio: median "
        "time divided by that of erf."
    ]
    return Report({"n": n, "d": list(d), "rounds": rounds, "budget": budget}, "float64", table, notes)


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "rows": ("rows", ""),
        "d": ("d", "d"),
        "activation": ("activation", ""),
        "first": ("first_seconds", ".2f"),
        "median": ("median_seconds", ".3f"),
        "ratio": ("ratio", ".2f"),
    }
    show_table("Kernels of {n} rows".format(**report.settings), report.rows, columns, report.notes)
