"""What theory predicts for the members of a sweep: the infinite-width limit, and each member linearized."""

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np

from lazynet.data import Dataset
from lazynet.dynamics import Trajectory, kernel_descent, linearized_displacement
from lazynet.dynamics._modes import EXACT
from lazynet.experiment._members import Trained, train_polynomials
from lazynet.experiment._spec import Training
from lazynet.kernels import Spectrum, analytic_kernel, empirical_ntk, same_rows, spectrum
from lazynet.kernels._threads import in_threads, narrow_products
from lazynet.networks import Linearized, traits
from lazynet.plan import check_memory, eigenvectors_bytes
from lazynet.typing import Variables

# Up to this many predictions (n k) a member's kernel is diagonalized; beyond it its linearization is trained.
LARGEST_EIGENPROBLEM = 4096


@dataclass(frozen=True)
class Limit:
    """The kernel of infinite width on a data set: on the training set, between test and training set, diagonalized."""

    train: np.ndarray
    test: np.ndarray
    spectrum: Spectrum

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return self.train.nbytes + self.test.nbytes + self.spectrum.vectors.nbytes

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue."""
        return float(self.spectrum.values[-1])

    @cached_property
    def why_singular(self) -> str | None:
        """Why K has no inverse, None where it has one."""
        pair = same_rows(self.train)
        if pair is not None:
            return f"training rows {pair[0]} and {pair[1]} are {pair[2]} to it"
        rounding = len(self.train) * np.finfo(float).eps * self.lambda_max
        return "its smallest eigenvalue is zero to rounding" if self.spectrum.values[0] <= rounding else None

    def numbers(self, y: np.ndarray) -> dict[str, float]:
        """lambda_min, lambda_max, label_norm = sqrt(y' K^-1 y) and complexity; NaN where K has no inverse."""
        values, singular = self.spectrum.values, self.why_singular is not None
        modes = np.sum((self.spectrum.vectors.T @ y.reshape(len(y), -1)) ** 2, axis=1)
        label_norm = np.nan if singular else float(np.sqrt(np.sum(modes / values)))
        return {
            "lambda_min": np.nan if singular else float(values[0]),
            "lambda_max": self.lambda_max,
            "label_norm": label_norm,
            "complexity": label_norm * np.sqrt(2 / len(y)),
        }


def limit_of(network: Any, data: Dataset) -> Limit | None:
    """The infinite-width kernel of this network on this data, None for a family that has none."""
    kernel = analytic_kernel(network)
    if kernel is None:
        return None
    needed = 8 * data.n_train * (data.n_train + data.n_test) + eigenvectors_bytes(data.n_train)
    check_memory(f"The kernel of {data.n_train} training rows with its eigenvectors, which a sweep asks for,", needed)
    train = kernel(data.x_train)
    test = kernel(data.x_test, data.x_train) if data.n_test else np.zeros((0, data.n_train))
    with narrow_products(data.n_train):
        return Limit(train, test, spectrum(train))


def warn_of_singular_kernel(limit: Limit) -> None:
    """Warn that verdict rows which need the inverse of K will stay undecided."""
    if limit.why_singular is not None:
        warnings.warn(
            f"The kernel has no inverse, because {limit.why_singular}; what needs the inverse is left undecided.",
            stacklevel=3,
        )


def warn_of_learning_rate(limit: Limit, width: int, rate: float) -> None:
    """Warn of a learning rate at which descent on the kernel diverges."""
    warnings.warn(
        f"learning_rate is {rate:.6g} at width {width}, above the limit 2 / lambda_max = {2 / limit.lambda_max:.6g} "
        "beyond which descent on the kernel diverges.",
        stacklevel=3,
    )


def largest_empirical_eigenvalue(network: Any, variables: Variables, data: Dataset) -> float:
    """lambda_max of the empirical kernel on the training set, where there is no analytic one."""
    return float(spectrum(empirical_ntk(network, variables, data.x_train)).values[-1])


def limit_trajectory(
    limit: Limit, data: Dataset, learning_rate: float, steps: np.ndarray, f0: Any = 0.0, f0_test: Any = 0.0
) -> Trajectory:
    """Kernel descent with the infinite-width kernel, from the network's own start."""
    return kernel_descent(
        limit.spectrum,
        data.y_train,
        learning_rate=learning_rate,
        steps=steps,
        f0=f0,
        k_test=limit.test,
        f0_test=f0_test,
    )


def limit_displacement(limit: Limit, data: Dataset, learning_rate: float, steps: np.ndarray, f0: Any) -> np.ndarray:
    """The exact displacement of the linearized limit, at each of the steps."""
    return linearized_displacement(limit.spectrum, data.y_train - f0, learning_rate, steps)


def linearized_members(
    network: Any,
    data: Dataset,
    trained: Trained,
    keys: list,
    limit: Limit | None,
    training: Training,
    learning_rate: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predictions (members, snapshots, ...) of each member linearized at its start, and its ||K_0 - K|| / ||K||.

    Kernel descent with the member's K_0 where training is plain and the eigenproblem is small enough; otherwise the
    linearized network is trained itself, which is the same thing and takes longer.
    """
    size, members = data.y_train.size, range(len(keys))
    descend = training.plain and size <= LARGEST_EIGENPROBLEM
    rows = np.concatenate([data.x_train, data.x_test]) if descend else data.x_train
    # The kernel of one output is its own average.
    outputs: Literal["all", "average"] = "all" if descend and data.outputs > 1 else "average"

    def kernel(i: int) -> np.ndarray:
        variables = jax.tree.map(lambda leaf: leaf[i], trained.variables_0)
        return empirical_ntk(network, variables, rows, data.x_train, outputs=outputs)

    def predicted(member: tuple[int, np.ndarray]) -> tuple[Trajectory | None, float]:
        i, k = member
        path = _own_descent(k, data, *starts(network, trained, i), training, learning_rate) if descend else None
        k = k[: data.n_train]
        average = k if outputs == "average" else np.einsum("icjc->ij", k) / data.outputs
        error = np.nan if limit is None else np.linalg.norm(average - limit.train) / np.linalg.norm(limit.train)
        return path, float(error)

    # Each thread has a kernel; larger ones have all threads.
    together = (os.cpu_count() or 1) if descend and size <= EXACT else 1
    found: list[tuple[Trajectory | None, float]] = []
    with narrow_products(size):
        for first in range(0, len(members), together):
            found += in_threads(predicted, [(i, kernel(i)) for i in members[first : first + together]])
    paths, errors = zip(*found, strict=True)
    if not descend:
        return train_polynomials(Linearized(network), data, trained, keys, training, learning_rate), np.array(errors)
    snapshots = len(training.snapshot_steps)
    predictions = {
        "train_prediction": np.stack([path.train.reshape(snapshots, *data.y_train.shape) for path in paths]),
        "test_prediction": np.stack([np.asarray(path.test).reshape(snapshots, *data.y_test.shape) for path in paths]),
    }
    return predictions, np.array(errors)


def starts(network: Any, trained: Trained, member: int) -> tuple[Any, Any]:
    """Train and test predictions of a member at its start: exactly zero where the start is symmetric."""
    if traits(network).starts_at_zero:
        return 0.0, 0.0
    return trained.records["train_prediction"][member, 0], trained.records["test_prediction"][member, 0]


def _own_descent(
    k: np.ndarray, data: Dataset, f0: Any, f0_test: Any, training: Training, learning_rate: float
) -> Trajectory:
    """Kernel descent with K_0 (rows, k, n, k); several outputs are stacked to one vector, because K_0 couples them."""
    size = data.y_train.size
    k = k.reshape(-1, size)
    return kernel_descent(
        k[:size],
        data.y_train.reshape(-1),
        learning_rate=learning_rate,
        steps=training.snapshot_steps,
        f0=np.reshape(f0, -1) if np.ndim(f0) else f0,
        k_test=k[size:],
        f0_test=np.reshape(f0_test, -1) if np.ndim(f0_test) else f0_test,
    )
