"""What every experiment of Li and Liang 2018 shares: the network, SGD, the mixture, and what is read off a sweep."""

from typing import Any

import jax

import lazynet as lz
from lazynet.papers.li2018_sizes import BATCH, ETA, Mixture
from lazynet.theory import Fit, fit_exponent
from lazynet.typing import DataArray

NETWORK = lz.TwoLayer(width=2, readout="gaussian", symmetric=False)
SGD: dict[str, Any] = {"learning_rate": ETA, "loss": "softmax", "batch_size": BATCH}
# What the paper calls them, and what a result does.
MOVED = {"coupling": "activation_flips", "relative distance": "relative_displacement"}
MEASURED = 100  # training examples that measures look at
LEARNED = 0.99  # the accuracy that counts as learned


def drawn(size: Mixture, n_train: int | None = None, **more: Any) -> lz.Dataset:
    """The paper's synthetic data, n training and n test examples; `more` goes to `lazynet.mixture`."""
    n, dim, classes, components = size
    return lz.mixture(n_train or n, n, dim, jax.random.key(0), classes, components, **more)


def evenly(steps: int, snapshots: int) -> range:
    """So many steps at equal distances, and 0."""
    return range(0, steps + 1, max(1, steps // snapshots))


def fitted(values: DataArray) -> Fit:
    """The exponent in the width of the mean over seeds, with its interval."""
    return fit_exponent(values.width.values, values.transpose("width", "seed").values)


def exponent(values: DataArray) -> float:
    """The exponent alone."""
    return fitted(values).exponent


def first_step(error: DataArray) -> DataArray:
    """The first snapshot at which all but 1 - LEARNED are classified, NaN where there is none."""
    learned = error <= 1 - LEARNED
    return error.step[learned.argmax("step")].where(learned.any("step")).drop_vars("step")
