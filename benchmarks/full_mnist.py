"""Predictions on a whole data set: time and memory of lazynet, and extrapolated time of neural-tangents."""

import time
from typing import Any

import numpy as np

import lazynet as lz
from benchmarks.kernel_descent import peer
from benchmarks.timing import Report, interleaved, resident, show_table
from lazynet.execution import TaskProgress
from lazynet.studies.infinite_width import InfiniteWidth, check_infinite_width


class Clock(TaskProgress):
    """Progress of a task that records when each stage was last reported."""

    def __init__(self) -> None:
        """Start the clock."""
        self._begin, self.ends = time.perf_counter(), dict[str, float]()

    def stage(self, stage: str, amount: float) -> None:
        """Record when a stage was reported."""
        self.ends[stage] = time.perf_counter() - self._begin


def run(
    dataset: str = "mnist",
    n_train: int = 60_000,
    n_test: int = 10_000,
    steps: int = 10_000,
    peer_n: int = 2500,
    budget: float = 120.0,
) -> Report:
    """Predict training at infinite width on true and on random labels for even and odd digits.

    Args:
        dataset: Name of a data set with the ten classes 0 to 9.
        n_train: Number of training images.
        n_test: Number of test images.
        steps: Number of steps of gradient descent.
        peer_n: Number of training images for neural-tangents, whose eigendecomposition takes n^3 operations.
        budget: Time in seconds after which no further round is started for neural-tangents.
    """
    data = lz.load_dataset(dataset, ("even", "odd"), n_train, n_test)
    network, settings = lz.TwoLayer(width=2), (steps, 200, None, "float32", None, None)
    kernel: Any = check_infinite_width(network, data, *settings)
    study = InfiniteWidth(network, data, kernel, *settings)
    held, begin, clock = resident("VmRSS"), time.perf_counter(), Clock()
    # Do what the runner does, but with a clock.
    record = study.begin({})
    result = study.output.assemble(record, [task.compute(clock, None) for task in study.tasks(record)])
    seconds, peak = time.perf_counter() - begin, resident("VmHWM")
    kernel_seconds, solve_seconds = clock.ends["kernel"], clock.ends["complexity"] - clock.ends["kernel"]
    rows: list[dict[str, Any]] = [
        {
            "contender": "lazynet",
            "n": n_train,
            "scaled": None,
            "kernel_seconds": kernel_seconds,
            "complexity_seconds": solve_seconds,
            "predictions_seconds": seconds - kernel_seconds - solve_seconds,
            "seconds": seconds,
            "peak_gb": None if held is None or peak is None else (peak - held) / 1e9,
            "complexity": result.complexity.values.tolist(),
            "test_error": float(result.test_error[-1]) if "test_error" in result else None,
            "prediction_error": sum(result.attrs["prediction_error"]),
        }
    ]
    few = lz.load_dataset(dataset, ("even", "odd"), peer_n, 0)
    random = np.sign(np.random.default_rng(0).standard_normal(peer_n))
    y, times = np.stack([few.y_train, random], axis=1), result.step.values / float(result.lambda_max)
    call = peer(kernel(few.x_train), y, times[1:], "float32")
    unmeasured = dict.fromkeys(("kernel_seconds", "complexity_seconds", "seconds", "peak_gb"))
    best = interleaved({"neural-tangents": call}, rounds=2, budget=budget)["neural-tangents"].best
    theirs = {**unmeasured, "contender": "neural-tangents"}
    rows.append({**theirs, "n": peer_n, "scaled": None, "predictions_seconds": best})
    rows.append({**theirs, "n": n_train, "scaled": "by n^3", "predictions_seconds": best * (n_train / peer_n) ** 3})
    notes = [
        "Times are in seconds and exclude loading the data. peak GB: largest memory of the process above what it held "
        "before.",
        f"neural-tangents only predicts, from a given kernel and at the same steps; it is measured at n={peer_n}. It "
        f"also holds the kernel and its eigenvectors, which take {2 * 4 * n_train**2 / 1e9:.0f} GB at n={n_train}.",
    ]
    flags = {"dataset": dataset, "n_train": n_train, "n_test": n_test, "steps": steps, "peer_n": peer_n}
    return Report({**flags, "budget": budget}, "float32", rows, notes)


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "contender": ("contender", ""),
        "n": ("n", "d"),
        "": ("scaled", ""),
        "kernel": ("kernel_seconds", ".0f"),
        "complexity": ("complexity_seconds", ".0f"),
        "predictions": ("predictions_seconds", ".1f"),
        "total": ("seconds", ".0f"),
        "peak GB": ("peak_gb", ".1f"),
    }
    show_table("Predictions on all of {dataset}".format(**report.settings), report.rows, columns, report.notes)
