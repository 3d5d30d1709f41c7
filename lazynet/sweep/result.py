"""The labelled result of a sweep: one `xarray.Dataset` over width, seed and step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lazynet.sweep.cells import Cell, join_cells
from lazynet.training import NEVER, snapshot_steps
from lazynet.typing import Result

# The width and the seeds of a cell.
Pack = tuple[int, list[int]]

STATUS = ("finished", "diverged")

MEANING = {
    "train_loss": "loss of the network on the training set",
    "test_loss": "loss of the network on the test set",
    "train_error": "share of misclassified training examples",
    "test_error": "share of misclassified test examples",
    "residual_norm": "norm of the training residual y - f",
    "displacement": "Frobenius norm of params - params(0)",
    "relative_displacement": "displacement over the norm of params(0)",
    "max_neuron_displacement": "largest norm of w_r - w_r(0) over units r (of a_r - a_r(0) where only a is trained)",
    "activation_flips": "share of pre-activation signs that differ from the start",
    "kernel_drift": "norm(K_t - K_0) / norm(K_0) of the empirical kernel",
    "linearization_gap_train": "RMS of f - f_lin on the training set",
    "linearization_gap_test": "RMS of f - f_lin on the test set",
    "start_gap_train": "RMS of f_lin - infinite-width prediction on the training set",
    "start_gap_test": "RMS of f_lin - infinite-width prediction on the test set",
    "kernel_gap_train": "RMS of f - infinite-width prediction on the training set",
    "kernel_gap_test": "RMS of f - infinite-width prediction on the test set",
    "initial_kernel_error": "norm(K_0 - K) / norm(K)",
    "lemma_bound": "bound on max_neuron_displacement, Arora et al. 2019, Lemma C.1",
    "path_bound": "bound on max_neuron_displacement from the network's own residuals",
    "kernel_train_loss": "loss of the infinite-width prediction on the training set",
    "kernel_test_loss": "loss of the infinite-width prediction on the test set",
    "kernel_train_error": "training error of the infinite-width prediction",
    "kernel_test_error": "test error of the infinite-width prediction",
    "linearised_displacement": "exact displacement of the linearised limit",
    "lambda_min": "smallest eigenvalue of K on the training set",
    "lambda_max": "largest eigenvalue of K on the training set",
    "label_norm": "sqrt(y' K^-1 y)",
    "complexity": "sqrt(2 y' K^-1 y / n)",
}


def assemble(cells: Sequence[Cell], settings: dict[str, Any]) -> Result:
    """All cells of a sweep, in their order, as one data set; settings are those of settings.json."""
    import xarray

    widths, engine = settings["widths"], settings["engine"]
    packs, by_width = engine["packs"], engine["by_width"]
    of_width = [join_cells([c for c, pack in zip(cells, packs, strict=True) if pack[0] == width]) for width in widths]
    table: dict[str, tuple] = {}
    for name, values in of_width[0].variables.items():
        dims = ("width", "seed", "step")[: values.ndim + 1]
        table[name] = (dims, np.stack([cell.variables[name] for cell in of_width]))
    one_kernel = all(len(set(by_width[name].values())) == 1 for name in ("init_scale", "output_scale"))
    one_limit = one_kernel and len(set(settings["learning_rate"].values())) == 1
    for name, values in of_width[0].limit_variables.items():
        if (one_limit and values.ndim == 1) or (one_kernel and not values.ndim):
            table[name] = (("step",)[: values.ndim], values)
        else:
            dims = ("width", *("seed", "step")[2 - values.ndim :])
            table[name] = (dims, np.stack([cell.limit_variables[name] for cell in of_width]))
    diverged_at = np.stack([cell.diverged_at for cell in of_width])
    diverged = diverged_at != NEVER
    table["status"] = (("width", "seed"), diverged.astype(np.int8))
    table["stopped_step"] = (("width", "seed"), np.where(diverged, diverged_at, settings["steps"]).astype(np.int64))
    by_width = {"learning_rate": settings["learning_rate"], **by_width}
    coords = {
        "width": widths,
        "seed": settings["seeds"],
        "step": snapshot_steps(settings["steps"], settings["snapshots"]),
        **{name: ("width", [value[str(width)] for width in widths]) for name, value in by_width.items()},
    }
    result = xarray.Dataset(table, coords=coords)
    for name, meaning in MEANING.items():
        if name in result:
            result[name].attrs["long_name"] = meaning
    result["status"].attrs |= {"flag_values": [0, 1], "flag_meanings": " ".join(STATUS)}
    result.attrs["target_rms"] = engine["target_rms"]
    return result
