"""The labelled result of a sweep: one `xarray.Dataset` over width, seed and step."""

from collections.abc import Sequence

import numpy as np

from lazynet.data import Dataset
from lazynet.networks import TwoLayer, at_width
from lazynet.sweep.cells import Cell
from lazynet.sweep.predictions import Limit
from lazynet.sweep.settings import Training
from lazynet.training import NEVER
from lazynet.typing import Result

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


def assemble(
    cells: Sequence[Cell],
    limits: dict[int, Limit | None],
    rates: dict[int, float],
    seeds: Sequence[int],
    network: TwoLayer,
    data: Dataset,
    training: Training,
) -> Result:
    """Cells of ascending widths as one data set; `limits` and `rates` (the learning rates) are by width."""
    import xarray

    widths = list(limits)
    table: dict[str, tuple] = {}
    for name, values in cells[0].variables.items():
        dims = ("width", "seed", "step")[: values.ndim + 1]
        table[name] = (dims, np.stack([cell.variables[name] for cell in cells]))
    one_limit = len({id(limit) for limit in limits.values()}) == 1 and len(set(rates.values())) == 1
    for name, values in cells[0].limit_variables.items():
        member_dims = ("seed", "step")[2 - values.ndim :]
        if one_limit and values.ndim == 1:
            table[name] = (member_dims, values)
        else:
            table[name] = (("width", *member_dims), np.stack([cell.limit_variables[name] for cell in cells]))
    table |= _numbers(limits, data.y_train)
    diverged_at = np.stack([cell.diverged_at for cell in cells])
    diverged = diverged_at != NEVER
    table["status"] = (("width", "seed"), diverged.astype(np.int8))
    table["stopped_step"] = (("width", "seed"), np.where(diverged, diverged_at, training.steps).astype(np.int64))
    coords = {
        "width": widths,
        "seed": list(seeds),
        "step": training.snapshot_steps,
        "learning_rate": ("width", list(rates.values())),
        "init_scale": ("width", [at_width(network.init_scale, width) for width in widths]),
        "output_scale": ("width", [at_width(network.output_scale, width) for width in widths]),
    }
    result = xarray.Dataset(table, coords=coords)
    for name, meaning in MEANING.items():
        if name in result:
            result[name].attrs["long_name"] = meaning
    result["status"].attrs |= {"flag_values": [0, 1], "flag_meanings": " ".join(STATUS)}
    result.attrs["target_rms"] = float(np.sqrt(np.mean(data.y_train**2)))
    return result


def _numbers(limits: dict[int, Limit | None], y: np.ndarray) -> dict[str, tuple]:
    """lambda_min, lambda_max, label_norm and complexity: plain numbers where one limit serves all widths."""
    found = {id(limit): limit.numbers(y) for limit in limits.values() if limit is not None}
    if not found:
        return {}
    names = next(iter(found.values()))
    if len(found) == 1:
        return {name: ((), value) for name, value in next(iter(found.values())).items()}
    return {name: ("width", [found[id(limit)][name] for limit in limits.values()]) for name in names}
