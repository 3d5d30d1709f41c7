"""Test errors of kernel regression with each network's kernel before and after training."""

import jax
import numpy as np

from lazynet.data import Dataset
from lazynet.dynamics import kernel_regression
from lazynet.experiment._members import Trained
from lazynet.experiment._reference import Limit
from lazynet.kernels import empirical_ntk, narrow_products
from lazynet.measures import zero_one_error
from lazynet.networks import Network
from lazynet.theory import binomial_interval

ERRORS = ("regression_error_start", "regression_error_end", "regression_error_limit")


def regression_of_members(
    network: Network, data: Dataset, trained: Trained, diverged: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the test errors of regression with K_0 and K_T, their confidence intervals, and test_kernel_drift.

    K_0 and K_T are the kernels of a member before and after training, averaged over outputs. The arrays are keyed by
    name, and each has shape (members,). Values that depend on K_T are NaN for diverged members.
    """
    rows = np.concatenate([data.x_train, data.x_test])
    columns: dict[str, list[float]] = {"test_kernel_drift": [], **{name: [] for name in ERRORS[:2]}}
    for i in range(len(diverged)):
        kernels = []
        for name, variables in zip(ERRORS, (trained.variables_0, trained.variables), strict=False):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own))
            # The weights of a diverged member may still be finite.
            usable = finite and not (diverged[i] and name == ERRORS[1])
            k = (
                empirical_ntk(network, own, rows, data.x_train)
                if usable
                else np.full((len(rows), data.n_train), np.nan)
            )
            kernels.append(k)
            columns[name].append(_error(k, data) if np.isfinite(k).all() else np.nan)
        before, after = (k[data.n_train :] for k in kernels)
        columns["test_kernel_drift"].append(float(np.linalg.norm(after - before) / np.linalg.norm(before)))
    return _with_intervals({name: np.array(values) for name, values in columns.items()}, data.n_test)


def regression_of_limit(limit: Limit, data: Dataset) -> dict[str, np.ndarray]:
    """Return the test error of regression with the infinite-width kernel, and a confidence interval for the error."""
    error = zero_one_error(kernel_regression(limit.spectrum, data.y_train, limit.test), data.y_test)
    return _with_intervals({ERRORS[2]: np.asarray(error)}, data.n_test)


def _error(k: np.ndarray, data: Dataset) -> float:
    with narrow_products(data.n_train):
        train = k[: data.n_train]
        f = kernel_regression((train + train.T) / 2, data.y_train, k[data.n_train :])
    return float(zero_one_error(f, data.y_test))


def _with_intervals(columns: dict[str, np.ndarray], n_test: int) -> dict[str, np.ndarray]:
    ends: dict[str, np.ndarray] = {}
    for name, error in columns.items():
        if name in ERRORS:
            ends[f"{name}_low"], ends[f"{name}_high"] = binomial_interval(error, n_test)
    return columns | ends
