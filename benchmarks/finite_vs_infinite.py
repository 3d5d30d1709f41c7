"""Finite networks compared with their kernels, for several data sets, activations and widths."""

import sys
import time
from typing import Any

import jax
import numpy as np

import lazynet as lz
from benchmarks.timing import Report, compilations, show_table
from lazynet.data import DATASETS, list_datasets

CLASSES = (0, 1)


def run(
    datasets: tuple[str, ...] = tuple(DATASETS),
    activations: tuple[str, ...] = ("relu", "erf", "tanh", "gelu", "softplus"),
    widths: tuple[int, ...] = (256, 1024, 4096),
    seeds: int = 2,
    steps: int = 200,
    snapshots: int = 6,
    n_train: int = 256,
    n_test: int = 100,
    budget: float = 360.0,
    quick: bool = False,
) -> Report:
    """Run a sweep over a single width for each row of the table.

    Args:
        datasets: Names of real data sets. Nothing is downloaded, and missing data sets are left out.
        activations: Activations of the network.
        widths: Numbers of hidden units.
        seeds: Number of networks for each row of the table.
        steps: Number of steps of gradient descent.
        snapshots: Number of log-spaced snapshots over which the largest gap is taken.
        n_train: Number of training examples from classes 0 and 1.
        n_test: Number of test examples.
        budget: Time in seconds after which no further row is started.
        quick: Whether to run only digits with relu and tanh at widths 256 and 1024; overrides the other flags.
    """
    if quick:
        datasets, activations, widths = ("digits",), ("relu", "tanh"), (256, 1024)
    unknown = set(datasets) - set(DATASETS)
    if unknown:
        raise ValueError(f"datasets must be among {', '.join(DATASETS)}, got {', '.join(sorted(unknown))}.")
    here = {record.name for record in list_datasets() if record.available}
    notes = [
        "Each gap is an RMS over examples, divided by the RMS of the targets: the mean over seeds at the worst "
        "snapshot. gap, test: gap to the kernel's prediction on the training set and on the test set. lin gap: gap to "
        "the network's own linearization on the training set.",
        "K0 err: relative error of the initial kernel. moved: relative displacement at the end.",
        "compile s: lowering and compilation by XLA. run s: the rest of the sweep, including predictions and measures.",
    ]
    notes += [
        f"{name} is left out, because it is not on this machine; set LAZYNET_DATA to its folder."
        for name in datasets
        if name not in here
    ]
    data = {name: lz.load_dataset(name, CLASSES, n_train, n_test) for name in datasets if name in here}
    plan = [(width, name, activation) for width in sorted(widths) for name in data for activation in activations]
    begin = time.perf_counter()
    rows = []
    for count, (width, name, activation) in enumerate(plan):
        if time.perf_counter() - begin > budget:
            left = ", ".join(f"{name} {activation} {width}" for width, name, activation in plan[count:])
            notes.append(f"The budget of {budget:g} s ended after {count} of {len(plan)} rows; left out: {left}.")
            break
        rows.append(row(data[name], activation, width, seeds, steps, snapshots))
        print(f"{count + 1}/{len(plan)} {name} {activation} {width}: {rows[-1]['seconds']:.1f} s", file=sys.stderr)
    # Large widths run last, because they take longest, but the table lists the widths of each activation together.
    rows.sort(key=lambda row: (list(data).index(row["dataset"]), activations.index(row["activation"]), row["width"]))
    settings = {
        "datasets": list(data),
        "activations": list(activations),
        "widths": list(widths),
        "classes": list(CLASSES),
        "seeds": seeds,
        "steps": steps,
        "snapshots": snapshots,
        "n_train": n_train,
        "n_test": n_test,
        "budget": budget,
        "quick": quick,
    }
    return Report(settings, "float32", rows, notes)


def row(data: lz.Dataset, activation: str, width: int, seeds: int, steps: int, snapshots: int) -> dict[str, Any]:
    """Return the row for a sweep over one width: gaps divided by the RMS of the targets, and seconds."""
    # Clear the caches, so that the time of every row includes its own compilation.
    jax.clear_caches()
    network = lz.TwoLayer(width=width, activation=activation)
    begin = time.perf_counter()
    with compilations() as compile_seconds:
        result = lz.sweep(network, data, [width], seeds, steps, snapshots=snapshots, progress=False)
    seconds = time.perf_counter() - begin
    rms = float(result.target_rms)

    def worst(gap: str) -> float:
        # If a seed has diverged, the result is NaN.
        return float(result[gap].mean("seed", skipna=False).max(skipna=False)) / rms

    return {
        "dataset": data.name,
        "activation": activation,
        "width": width,
        "kernel_gap_train": worst("kernel_gap_train"),
        "kernel_gap_test": worst("kernel_gap_test"),
        "linearization_gap_train": worst("linearization_gap_train"),
        "initial_kernel_error": float(result.initial_kernel_error.mean()),
        "relative_displacement": float(result.relative_displacement.isel(step=-1).mean(skipna=False)),
        "diverged": int(np.sum(result.status == result.status.flag_meanings.split().index("diverged"))),
        "seconds": seconds,
        "compile_seconds": sum(compile_seconds),
        "run_seconds": seconds - sum(compile_seconds),
    }


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "data set": ("dataset", ""),
        "activation": ("activation", ""),
        "width": ("width", "d"),
        "gap": ("kernel_gap_train", ".4f"),
        "test": ("kernel_gap_test", ".4f"),
        "lin gap": ("linearization_gap_train", ".4f"),
        "K0 err": ("initial_kernel_error", ".4f"),
        "moved": ("relative_displacement", ".4f"),
        "compile s": ("compile_seconds", ".1f"),
        "run s": ("run_seconds", ".1f"),
    }
    show_table("Finite networks compared with their kernels", report.rows, columns, report.notes)
