"""What every experiment of Li and Liang 2018 shares: the network, SGD, the mixture, and what is read off a sweep."""

from typing import Any

import jax
import numpy as np

import lazynet as lz
from lazynet.measures import singular_values
from lazynet.networks import weights
from lazynet.papers.li2018_sizes import BATCH, ETA, Mixture
from lazynet.papers.work import Arrays
from lazynet.training._keys import member_key
from lazynet.typing import DataArray, Result

NETWORK = lz.TwoLayer(width=2, readout="gaussian", symmetric=False)
SGD: dict[str, Any] = {"learning_rate": ETA, "loss": "softmax", "batch_size": BATCH}
# What the paper calls them, and what a result does.
MOVED = {"coupling": "activation_flips", "relative distance": "relative_displacement"}
MEASURED = 100  # training examples that measures look at
LEVEL = 0.1  # below which the paper calls coupling and relative distance small
LEARNED = 0.99  # the accuracy that counts as learned


def drawn(size: Mixture, n_train: int | None = None, **more: Any) -> lz.Dataset:
    """The paper's synthetic data, n training and n test examples; `more` goes to `lazynet.mixture`."""
    n, dim, classes, components = size
    return lz.mixture(n_train or n, n, dim, jax.random.key(0), classes, components, **more)


def evenly(steps: int, snapshots: int) -> range:
    """So many steps at equal distances, and 0."""
    return range(0, steps + 1, max(1, steps // snapshots))


def first_step(error: DataArray) -> DataArray:
    """The first snapshot at which all but 1 - LEARNED are classified, NaN where there is none."""
    learned = error <= 1 - LEARNED
    return error.step[learned.argmax("step")].where(learned.any("step")).drop_vars("step")


def steps_of(error: DataArray) -> float:
    """The steps to LEARNED as a mean over networks, NaN where one of them does not get there."""
    return float(first_step(error).mean(skipna=False))


def moved(result: Result) -> float:
    """The relative distance at the end, as a mean over networks."""
    return float(result.relative_displacement.isel(step=-1).mean(skipna=False))


def spectra_of(data: lz.Dataset, widths: list[int], seeds: int, steps: int, settings: dict[str, Any] = SGD) -> Arrays:
    """Singular values of the update and of the weights after the last step, (width, seed, index)."""
    found: dict[str, list[list[np.ndarray]]] = {"update": [], "weights": []}
    for width in widths:
        network = NETWORK.clone(width=width, outputs=data.outputs)
        for values in found.values():
            values.append([])
        for seed in range(seeds):
            run = lz.train(network, data, member_key(width, seed), steps, snapshots=1, measured=BATCH, **settings)
            now, start = (weights(variables, "hidden") for variables in (run.variables, run.variables_0))
            found["update"][-1].append(singular_values(now - start))
            found["weights"][-1].append(singular_values(now))
    return {"widths": np.array(widths), **{name: np.array(values) for name, values in found.items()}}
