"""Sweeps with both predictions: time compared with training alone, for several ways of training."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import lazynet as lz
from benchmarks.timing import Report, interleaved, show_table

# Learning rates are given as multiples of 1 / lambda_max; a loss that averages over examples allows larger ones.
CASES: dict[str, tuple[float, dict[str, Any]]] = {
    "full batch": (1.0, {}),
    "momentum": (0.1, {"optimizer": lz.Optimizer(momentum=0.9)}),
    "Nesterov": (0.1, {"optimizer": lz.Optimizer(momentum=0.9, nesterov=True)}),
    "mini-batches": (0.1, {"batch_size": 256}),
    "logistic": (100.0, {"loss": "logistic"}),
}


def problem(n: int, d: int, n_test: int) -> lz.Dataset:
    """Return random rows of unit norm, with the signs of their first entries as labels."""
    x = lz.data.unit_rows(np.random.default_rng(0).normal(size=(n + n_test, d)))
    y = np.where(x[:, 0] > 0, 1.0, -1.0)
    return lz.Dataset(x[:n], y[:n], x[n:], y[n:])


def run(
    n: int = 2000,
    d: int = 784,
    width: int = 1024,
    batch_size: int = 256,
    steps: int = 1000,
    seeds: int = 2,
    cases: tuple[str, ...] = tuple(CASES),
    rounds: int = 2,
    budget: float = 300.0,
) -> Report:
    """Time sweeps of one width with and without predictions.

    Args:
        n: Number of training examples; there are a quarter as many test examples.
        d: Length of the rows.
        width: Number of hidden units.
        batch_size: Number of examples in a mini-batch.
        steps: Number of training steps.
        seeds: Number of networks.
        cases: Ways of training.
        rounds: Number of timed sweeps of each kind, after a first one that compiles.
        budget: Time in seconds after which no further round is started, for each way of training.
    """
    data = problem(n, d, n // 4)
    network = lz.TwoLayer(width=width)
    largest = float(np.linalg.eigvalsh(lz.analytic_kernel(network)(data.x_train))[-1])
    table = []
    for case in cases:
        if case not in CASES:
            raise ValueError(f"cases must be chosen from {', '.join(CASES)}, got {case!r}.")
        rate, options = CASES[case]
        if "batch_size" in options:
            options = options | {"batch_size": min(batch_size, n)}
        sweep = partial(
            lz.sweep, network, data, [width], seeds, steps, learning_rate=rate / largest, progress=False, **options
        )
        calls: dict[str, Callable[[], Any]] = {
            name: partial(sweep, measure=lz.Measure(predictions=predictions, kernel_drift=False))
            for name, predictions in (("alone", False), ("both", True))
        }
        timings = interleaved({name: partial(_seconds_only, call) for name, call in calls.items()}, rounds, budget)
        alone, both = timings["alone"], timings["both"]
        table.append(
            {
                "case": case,
                "alone_first_seconds": alone.first,
                "alone_seconds": alone.median,
                "both_first_seconds": both.first,
                "both_seconds": both.median,
                "ratio": both.median / alone.median,
            }
        )
    notes = [
        "Times of a sweep in seconds. alone: training and its measurements. both: also the predictions of the "
        "linearization and of the infinite-width kernel. first: the first call, which compiles. ratio: both / alone."
    ]
    settings = {"n": n, "d": d, "width": width, "batch_size": batch_size, "steps": steps, "seeds": seeds}
    return Report(settings | {"rounds": rounds, "budget": budget}, "float32", table, notes)


def _seconds_only(call: Callable[[], Any]) -> float:
    """Make a call, and return a number in place of its result, which is not an array."""
    return float(call().train_loss.isel(step=-1).mean())


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "training": ("case", ""),
        "alone, first": ("alone_first_seconds", ".1f"),
        "alone": ("alone_seconds", ".2f"),
        "both, first": ("both_first_seconds", ".1f"),
        "both": ("both_seconds", ".2f"),
        "ratio": ("ratio", ".2f"),
    }
    title = "Sweeps of {seeds} networks of width {width}, n = {n}, {steps} steps".format(**report.settings)
    show_table(title, report.rows, columns, report.notes)
