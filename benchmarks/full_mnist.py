"""A whole data set: seconds and memory of lazynet's predict, beside what neural-tangents' predict would take."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lazynet as lz
from benchmarks.kernel_descent import peer
from benchmarks.timing import Report, interleaved, resident, show_table


def run(
    dataset: str = "mnist",
    n_train: int = 60_000,
    n_test: int = 10_000,
    steps: int = 10_000,
    peer_n: int = 2500,
    budget: float = 120.0,
) -> Report:
    """Predict training of the kernel of infinite width on true and on random labels of even and odd digits.

    Args:
        dataset: one with the ten classes 0 to 9.
        n_train: training images.
        n_test: test images.
        steps: the last step of descent.
        peer_n: training images for which neural-tangents is timed; its eigendecomposition takes n^3.
        budget: seconds after which it is timed no further time.
    """
    data = lz.load_dataset(dataset, ("even", "odd"), n_train, n_test)
    held, begin, started = resident("VmRSS"), time.perf_counter(), time.time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = lz.infinite_width(lz.TwoLayer(width=2), data, steps=steps, out=out, progress=False)
        seconds, peak = time.perf_counter() - begin, resident("VmHWM")
        # The first cell, with the complexity, is written once the kernel is built.
        (first,) = (out / "cells").glob("complexity-*.npz")
        first_seconds = min(max(first.stat().st_mtime - started, 0.0), seconds)
    rows: list[dict[str, Any]] = [
        {
            "contender": "lazynet",
            "n": n_train,
            "scaled": None,
            "kernel_and_complexity_seconds": first_seconds,
            "predictions_seconds": seconds - first_seconds,
            "seconds": seconds,
            "peak_gb": None if held is None or peak is None else (peak - held) / 1e9,
            "complexity": result.complexity.values.tolist(),
            "test_error": float(result.test_error[-1]) if "test_error" in result else None,
            "prediction_error": sum(result.attrs["prediction_error"]),
        }
    ]
    few = lz.load_dataset(dataset, ("even", "odd"), peer_n, 0)
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    random = np.sign(np.random.default_rng(0).standard_normal(peer_n))
    y, times = np.stack([few.y_train, random], axis=1), result.step.values / float(result.lambda_max)
    call = peer(kernel(few.x_train), y, times[1:], "float32")
    unknown = dict.fromkeys(("kernel_and_complexity_seconds", "seconds", "peak_gb"))
    best = interleaved({"neural-tangents": call}, rounds=2, budget=budget)["neural-tangents"].best
    theirs = {**unknown, "contender": "neural-tangents"}
    rows.append({**theirs, "n": peer_n, "scaled": None, "predictions_seconds": best})
    rows.append({**theirs, "n": n_train, "scaled": "by n^3", "predictions_seconds": best * (n_train / peer_n) ** 3})
    notes = [
        "Seconds of each stage and in all, the data loaded; peak: memory above what the process held then.",
        f"neural-tangents: predict alone, the kernel given, at the same steps; measured at n={peer_n}. It also holds "
        f"the kernel and its eigenvectors, {2 * 4 * n_train**2 / 1e9:.0f} GB at n={n_train}.",
    ]
    settings = {"dataset": dataset, "n_train": n_train, "n_test": n_test, "steps": steps, "peer_n": peer_n}
    return Report({**settings, "budget": budget}, "float32", rows, notes)


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "contender": ("contender", ""),
        "n": ("n", "d"),
        "": ("scaled", ""),
        "kernel, complexity": ("kernel_and_complexity_seconds", ".0f"),
        "predictions": ("predictions_seconds", ".1f"),
        "in all": ("seconds", ".0f"),
        "peak GB": ("peak_gb", ".1f"),
    }
    show_table("Predictions on the whole of {dataset}".format(**report.settings), report.rows, columns, report.notes)
