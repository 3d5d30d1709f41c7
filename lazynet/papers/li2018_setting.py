"""Settings and measurements that the experiments of Li and Liang 2018 share."""

from typing import Any

import jax
import numpy as np

import lazynet as lz
from lazynet.execution import Arrays
from lazynet.measures import singular_values
from lazynet.networks import weights
from lazynet.papers.li2018_sizes import BATCH, ETA, Mixture
from lazynet.training import member_key
from lazynet.typing import DataArray, Result

NETWORK = lz.TwoLayer(width=2, readout="gaussian", symmetric=False)
SGD: dict[str, Any] = {"learning_rate": ETA, "loss": "softmax", "batch_size": BATCH}
# Measures of movement: their names in the paper, and in a result.
MOVED = {"coupling": "activation_flips", "relative distance": "relative_displacement"}
# Number of training examples at which networks are measured.
MEASURED = 100
# Coupling and relative distance below this level are small in the words of the paper.
LEVEL = 0.1
# Accuracy that counts as learned.
LEARNED = 0.99


def drawn(size: Mixture, n_train: int | None = None, **more: Any) -> lz.Dataset:
    """Return the paper's synthetic data.

    Args:
        size: the mixture, with n training and n test examples.
        n_train: another number of training examples.
        more: further arguments of `lazynet.mixture`.
    """
    n, dim, classes, components = size
    return lz.mixture(n_train or n, n, dim, jax.random.key(0), classes, components, **more)


def evenly(steps: int, snapshots: int) -> range:
    """Return step 0 and this many equally spaced steps."""
    return range(0, steps + 1, max(1, steps // snapshots))


def first_step(error: DataArray) -> DataArray:
    """Return the first step with accuracy LEARNED, NaN for networks that never reach it."""
    learned = error <= 1 - LEARNED
    return error.step[learned.argmax("step")].where(learned.any("step")).drop_vars("step")


def steps_of(error: DataArray) -> float:
    """Return the mean over networks of the steps to accuracy LEARNED, NaN if a network never reaches it."""
    return float(first_step(error).mean(skipna=False))


def moved(result: Result) -> float:
    """Return the mean over networks of the relative distance at the last step."""
    return float(result.relative_displacement.isel(step=-1).mean(skipna=False))


def spectra_of(data: lz.Dataset, widths: list[int], seeds: int, steps: int, settings: dict[str, Any] = SGD) -> Arrays:
    """Return singular values of the update and of the weights after the last step, (width, seed, index)."""
    measure = lz.Measure(rows=BATCH)
    spectra: dict[str, list[list[np.ndarray]]] = {"update": [], "weights": []}
    for width in widths:
        network = NETWORK.clone(width=width, outputs=data.outputs)
        for values in spectra.values():
            values.append([])
        for seed in range(seeds):
            run = lz.train(network, data, member_key(width, seed), steps, snapshots=1, measure=measure, **settings)
            now, start = (weights(variables, "hidden") for variables in (run.variables, run.variables_0))
            spectra["update"][-1].append(singular_values(now - start))
            spectra["weights"][-1].append(singular_values(now))
    return {"widths": np.array(widths), **{name: np.array(values) for name, values in spectra.items()}}
