"""Training curves from a kernel: time of lazynet compared with the `predict` module of neural-tangents."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import lazynet as lz
from benchmarks.timing import Report, interleaved, show_table
from lazynet.kernels import largest_eigenvalue, neural_tangents

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def problem(n: int, dataset: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernel, true and random labels (n, 2), and 200 log-spaced times from 1 to 1e5 over lambda_max."""
    data = lz.load_dataset(dataset, n_train=n, n_test=0)
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    k = kernel(data.x_train)
    random = np.sign(np.random.default_rng(0).standard_normal(n))
    return k, np.stack([data.y_train, random], axis=1), np.geomspace(1, 1e5, 200) / largest_eigenvalue(k)


def peer(k: np.ndarray, y: np.ndarray, times: np.ndarray, dtype: str) -> Callable[[], Any]:
    """Return a function that predicts with neural-tangents, using one eigendecomposition for both sets of labels."""
    predict = neural_tangents().predict

    def call() -> np.ndarray:
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            matrix, targets = jnp.asarray(k, dtype), jnp.asarray(y, dtype)
            # The loss in neural-tangents is a mean over examples and outputs, so multiply the times by their number.
            path = predict.gradient_descent_mse(matrix, targets, learning_rate=1.0)
            return np.asarray(path(jnp.asarray(times * y.size, dtype), jnp.zeros_like(targets)))

    return call


def ours(k: np.ndarray, y: np.ndarray, times: np.ndarray, dtype: str) -> Callable[[], np.ndarray]:
    """Return a function that predicts with lazynet from a kernel stored in the given dtype."""
    matrix = k.astype(dtype)
    return lambda: lz.kernel_flow(matrix, y, times=times, method="krylov", tolerance=TOLERANCE[dtype]).train


def run(
    n: tuple[int, ...] = (2500, 5000),
    dtypes: tuple[Literal["float32", "float64"], ...] = ("float32", "float64"),
    dataset: str = "mnist",
    rounds: int = 1,
    extrapolate: int = 10_000,
    budget: float = 600.0,
) -> Report:
    """Time lazynet and neural-tangents.

    Args:
        n: Numbers of examples.
        dtypes: Dtypes in which lazynet stores the kernel and neural-tangents computes.
        dataset: Name of the data set.
        rounds: Number of timed calls of each contender, after a first call that compiles.
        extrapolate: Larger number of examples for which only lazynet is timed, and the time of neural-tangents is
            extrapolated. Use 0 to skip this.
        budget: Time in seconds after which no further round is started, for each dtype and number of examples.
    """
    notes = [
        "Seconds for predictions at 200 times from a given kernel, for true and random labels together. x: best time "
        "of neural-tangents divided by that of lazynet.",
        "diff: largest norm of the difference from an exact solution in float64, divided by the norm of the labels.",
    ]
    rows = []
    for dtype in dtypes:
        measured: list[tuple[int, float]] = []
        for size in n:
            k, y, times = problem(size, dataset)
            contenders = {"lazynet": ours(k, y, times, dtype), "neural-tangents": peer(k, y, times, dtype)}
            exact = lz.kernel_flow(k, y, times=times, method="exact").train
            timings = interleaved(contenders, rounds, budget)
            measured.append((size, timings["neural-tangents"].best))
            for name, timing in timings.items():
                rows.append(
                    {
                        "n": size,
                        "dtype": dtype,
                        "contender": name,
                        "best_seconds": timing.best,
                        "speedup": measured[-1][1] / timing.best if name == "lazynet" else None,
                        "difference": difference(timing.result, exact, y),
                    }
                )
        if extrapolate:
            k, y, times = problem(extrapolate, dataset)
            timing = interleaved({"lazynet": ours(k, y, times, dtype)}, rounds, budget)["lazynet"]
            sizes, seconds = np.log(measured).T
            theirs = measured[-1][1] * (extrapolate / measured[-1][0]) ** 3
            note = (
                f"{dtype}: neural-tangents would take {theirs:.0f} s at n={extrapolate}, extrapolated as n^3 "
                f"from n={measured[-1][0]}"
            )
            if len(measured) > 1:
                note += f"; between the measured sizes, its time grew as n^{np.polyfit(sizes, seconds, 1)[0]:.2f}"
            notes.append(note + ".")
            row = {"n": extrapolate, "dtype": dtype, "contender": "lazynet", "best_seconds": timing.best}
            rows.append({**row, "speedup": theirs / timing.best, "difference": None})
    settings = {"n": list(n), "dataset": dataset, "rounds": rounds, "extrapolate": extrapolate, "budget": budget}
    return Report(settings, "/".join(dtypes), rows, notes)


def difference(predictions: np.ndarray, exact: np.ndarray, y: np.ndarray) -> float:
    """Return the largest norm of the difference over all labels and times, divided by the norm of the labels."""
    return float((np.linalg.norm(predictions - exact, axis=1) / np.linalg.norm(y, axis=0)).max())


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "n": ("n", "d"),
        "dtype": ("dtype", ""),
        "contender": ("contender", ""),
        "best": ("best_seconds", ".2f"),
        "x": ("speedup", ".0f"),
        "diff": ("difference", ".0e"),
    }
    show_table("Training curves from a kernel", report.rows, columns, report.notes)
