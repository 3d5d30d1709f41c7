"""Finite networks beside their kernel, over data sets, activations and widths: gaps and seconds."""

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
    """Run a sweep of one width for each row.

    Args:
        datasets: names of real data sets; those that are not on this machine are left out, nothing is fetched.
        activations: activations of the network.
        widths: numbers of hidden units.
        seeds: networks to a row.
        steps: steps of gradient descent.
        snapshots: about how many snapshots to take, over which the gaps are maximized.
        n_train: training examples, of classes 0 and 1.
        n_test: test examples.
        budget: seconds after which no further row starts.
        quick: take digits, relu and tanh, widths 256 and 1024, whatever the other flags say.
    """
    if quick:
        datasets, activations, widths = ("digits",), ("relu", "tanh"), (256, 1024)
    unknown = set(datasets) - set(DATASETS)
    if unknown:
        raise ValueError(f"datasets has {', '.join(sorted(unknown))}, but must be among {', '.join(DATASETS)}.")
    here = {record.name for record in list_datasets() if record.available}
    notes = [
        "Gaps are RMS over examples, over the RMS of the targets: seed mean at the worst snapshot. gap, test: from the "
        "kernel's prediction, on training and test set. lin gap: from the network's own linearization, training set.",
        "K0 err: relative error of the kernel at the start. moved: relative displacement at the end.",
        "compile: lowering and XLA; run: the rest of the sweep, prediction and measures included.",
    ]
    notes += [
        f"{name} is not on this machine and left out; name its folder in LAZYNET_DATA."
        for name in datasets
        if name not in here
    ]
    data = {name: lz.load_dataset(name, CLASSES, n_train, n_test) for name in datasets if name in here}
    plan = [(width, name, activation) for width in sorted(widths) for name in data for activation in activations]
    begin = time.perf_counter()
    rows = []
    for done, (width, name, activation) in enumerate(plan):
        if time.perf_counter() - begin > budget:
            left = ", ".join(f"{name} {activation} {width}" for width, name, activation in plan[done:])
            notes.append(f"The budget of {budget:g} s was over after {done} of {len(plan)} rows; left out: {left}.")
            break
        rows.append(row(data[name], activation, width, seeds, steps, snapshots))
        print(f"{done + 1}/{len(plan)} {name} {activation} {width}: {rows[-1]['seconds']:.1f} s", file=sys.stderr)
    # Widths run from small to large, so that a budget leaves out the dearest; a reader compares them side by side.
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
    """One sweep of one width: gaps over the targets' RMS, seed mean, at their worst snapshot; and its seconds."""
    # Every row pays for its own compilation, whatever ran before it.
    jax.clear_caches()
    network = lz.TwoLayer(width=width, activation=activation)
    begin = time.perf_counter()
    with compilations() as compiled:
        result = lz.sweep(network, data, [width], seeds, steps, snapshots=snapshots, progress=False)
    seconds = time.perf_counter() - begin
    rms = float(result.target_rms)

    def worst(gap: str) -> float:
        # skipna=False: a diverged seed must show.
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
        "compile_seconds": sum(compiled),
        "run_seconds": seconds - sum(compiled),
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
    show_table("Finite networks beside their kernel", report.rows, columns, report.notes)
