"""Theoretical predictions for members: the infinite-width limit, linearized members, and default learning rates."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.dynamics import Origin, Trajectory, kernel_descent
from lazynet.dynamics._modes import EXACT
from lazynet.experiment._grid import Point
from lazynet.experiment._members import CellCheckpoint, Trained, train_polynomials
from lazynet.experiment._shared_inputs import SharedInputs, share_inputs
from lazynet.experiment._training import Training
from lazynet.kernels import (
    Spectrum,
    analytic_kernel,
    empirical_ntk,
    in_threads,
    largest_eigenvalue,
    limit_key,
    narrow_products,
    same_rows,
    spectrum,
)
from lazynet.measures import parameter_norm
from lazynet.networks import Linearized, Network, at_width, traits
from lazynet.plan import check_memory, eigenvectors_bytes
from lazynet.programs import compiled
from lazynet.training._keys import member_key, start_key
from lazynet.typing import Variables

# Total size of the cached infinite-width kernels, in bytes, above which the oldest ones are discarded before another is
# computed.
KEPT = 2**30
# Maximum number of training predictions (n examples times k outputs) for which a member's kernel is diagonalized. If
# there are more, the linearized network is trained instead.
LARGEST_EIGENPROBLEM = 4096


@dataclass(frozen=True)
class Limit:
    """The infinite-width kernel on a data set.

    Attributes:
        train: The kernel on the training set.
        test: The kernel between the test set and the training set.
        spectrum: The spectrum of the kernel on the training set.
    """

    train: np.ndarray
    test: np.ndarray
    spectrum: Spectrum

    @property
    def nbytes(self) -> int:
        """The number of bytes that the kernel and its eigenvectors occupy in memory."""
        return self.train.nbytes + self.test.nbytes + self.spectrum.vectors.nbytes

    @property
    def lambda_max(self) -> float:
        """The largest eigenvalue of the kernel on the training set."""
        return float(self.spectrum.values[-1])

    @cached_property
    def why_singular(self) -> str | None:
        """The reason why the kernel on the training set is singular, or None if it is invertible."""
        pair = same_rows(self.train)
        if pair is not None:
            return f"it treats training rows {pair[0]} and {pair[1]} as {pair[2]}"
        rounding = len(self.train) * np.finfo(float).eps * self.lambda_max
        return "its smallest eigenvalue is zero up to rounding" if self.spectrum.values[0] <= rounding else None

    def numbers(self, y: np.ndarray) -> dict[str, float]:
        """Return lambda_min, lambda_max, label_norm = sqrt(y' K^-1 y) and complexity = sqrt(2 y' K^-1 y / n).

        If K is singular, all values except lambda_max are NaN.
        """
        values, singular = self.spectrum.values, self.why_singular is not None
        modes = np.sum((self.spectrum.vectors.T @ y.reshape(len(y), -1)) ** 2, axis=1)
        label_norm = np.nan if singular else float(np.sqrt(np.sum(modes / values)))
        return {
            "lambda_min": np.nan if singular else float(values[0]),
            "lambda_max": self.lambda_max,
            "label_norm": label_norm,
            "complexity": label_norm * np.sqrt(2 / len(y)),
        }


def limit_of(network: Network, data: Dataset) -> Limit | None:
    """Return the infinite-width kernel of a network on the data, or None if the family has no analytic kernel."""
    kernel = analytic_kernel(network)
    if kernel is None:
        return None
    needed = 8 * data.n_train * (data.n_train + data.n_test) + eigenvectors_bytes(data.n_train)
    check_memory(f"The kernel of {data.n_train} training rows with its eigenvectors", needed)
    train = kernel(data.x_train)
    test = kernel(data.x_test, data.x_train) if data.n_test else np.zeros((0, data.n_train))
    with narrow_products(data.n_train):
        return Limit(train, test, spectrum(train))


def warn_of_singular_kernel(limit: Limit) -> None:
    """Warn if the kernel is singular, in which case verdict rows that need the inverse of the kernel are undecided."""
    if limit.why_singular is not None:
        warnings.warn(
            f"The kernel is singular because {limit.why_singular}. Verdict rows that need its inverse are undecided.",
            stacklevel=3,
        )


def warn_of_learning_rate(limit: Limit, width: int, rate: float, largest: float, ridge: float) -> None:
    """Warn that kernel descent diverges at the given learning rate.

    Args:
        limit: The infinite-width kernel.
        width: Number of units, m.
        rate: Learning rate eta.
        largest: Largest stable product of the learning rate and lambda_max + ridge.
        ridge: Coefficient of the penalty.
    """
    bound = f"{largest:g} / (lambda_max + ridge)" if ridge else f"{largest:g} / lambda_max"
    warnings.warn(
        f"learning_rate is {rate:.6g} at width {width}, above {bound} = {largest / (limit.lambda_max + ridge):.6g}, so "
        "kernel descent diverges.",
        stacklevel=3,
    )


def largest_empirical_eigenvalue(network: Network, variables: Variables, data: Dataset) -> float:
    """Return the largest eigenvalue of the empirical kernel on the training set."""
    return float(spectrum(empirical_ntk(network, variables, data.x_train)).values[-1])


def limit_trajectory(
    limit: Limit,
    data: Dataset,
    training: Training,
    learning_rate: float,
    key: Array,
    f0: Any = 0.0,
    f0_test: Any = 0.0,
    origin: Origin | None = None,
) -> Trajectory:
    """Return kernel descent with the infinite-width kernel and a member's batches, from the given initial outputs."""
    return kernel_descent(
        limit.spectrum if training.has_closed_form else limit.train,
        data.y_train,
        learning_rate=learning_rate,
        f0=f0,
        k_test=limit.test,
        f0_test=f0_test,
        origin=origin,
        **training.descent(key, data.n_train),
    )


def linearized_members(
    network: Network,
    data: Dataset,
    trained: Trained,
    keys: list,
    limit: Limit | None,
    training: Training,
    learning_rate: float,
    checkpoint: CellCheckpoint | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the predictions of the linearized members, and ||K_0 - K|| / ||K|| for each member.

    K_0 is the empirical kernel of a member at initialization, and K is the infinite-width kernel. The predictions have
    shape (members, snapshots, ...). If kernel descent can predict this kind of training and K_0 is small, the
    predictions are computed by kernel descent with K_0. Otherwise, the linearized network itself is trained, which
    takes longer.
    """
    size, members = data.y_train.size, range(len(keys))
    descend = training.followed and size <= LARGEST_EIGENPROBLEM
    rows = np.concatenate([data.x_train, data.x_test]) if descend else data.x_train
    # With a single output, the kernel equals its average over outputs.
    outputs: Literal["all", "average"] = "all" if descend and data.outputs > 1 else "average"

    def kernel(i: int) -> np.ndarray:
        variables = jax.tree.map(lambda leaf: leaf[i], trained.variables_0)
        return empirical_ntk(network, variables, rows, data.x_train, outputs=outputs)

    def predicted(member: tuple[int, np.ndarray]) -> tuple[Trajectory | None, float]:
        i, k = member
        f0, origin = starts(network, trained, i), origin_of(network, data, trained, i, training)
        path = _own_descent(k, data, *f0, training, keys[i], learning_rate, origin) if descend else None
        k = k[: data.n_train]
        average = k if outputs == "average" else np.einsum("icjc->ij", k) / data.outputs
        error = np.nan if limit is None else np.linalg.norm(average - limit.train) / np.linalg.norm(limit.train)
        return path, float(error)

    # Small kernels are processed in parallel with one thread each. Large kernels are processed one at a time, and each
    # uses all threads.
    at_once = (os.cpu_count() or 1) if descend and size <= EXACT else 1
    results: list[tuple[Trajectory | None, float]] = []
    with narrow_products(size):
        for first in range(0, len(members), at_once):
            results += in_threads(predicted, [(i, kernel(i)) for i in members[first : first + at_once]])
    paths, errors = zip(*results, strict=True)
    if not descend:
        polynomial = Linearized(network)
        predictions = train_polynomials(polynomial, data, trained, keys, training, learning_rate, checkpoint)
        return predictions, np.array(errors)
    predictions = {
        "train_prediction": np.stack([path.train for path in paths]),
        "test_prediction": np.stack([path.test for path in paths]),
    }
    return predictions, np.array(errors)


def starts(network: Network, trained: Trained, member: int) -> tuple[Any, Any]:
    """Return a member's initial predictions on the training and test sets, or (0, 0) if all of them are zero."""
    if traits(network).starts_at_zero:
        return 0.0, 0.0
    return trained.records["train_prediction"][member, 0], trained.records["test_prediction"][member, 0]


def origin_of(network: Network, data: Dataset, trained: Trained, member: int, training: Training) -> Origin | None:
    """Return what weight decay needs to know of a member's initial parameters, or None without weight decay."""
    if not training.decays:
        return None
    variables = jax.tree.map(lambda leaf: leaf[member], trained.variables_0)
    rows = network_rows(np.concatenate([data.x_train, data.x_test]), "float32")
    outputs = np.asarray(_along_parameters(network, variables, rows), np.float64)
    return Origin(outputs[: data.n_train], outputs[data.n_train :], float(parameter_norm(variables["params"])))


@compiled(static_argnames="network")
def _along_parameters(network: Network, variables: Variables, x: Array) -> Array:
    """Return the derivative of the outputs along the parameters."""
    fixed = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return jax.jvp(lambda params: network.apply({**fixed, "params": params}, x), (params,), (params,))[1]


def _own_descent(
    k: np.ndarray,
    data: Dataset,
    f0: Any,
    f0_test: Any,
    training: Training,
    key: Array,
    learning_rate: float,
    origin: Origin | None,
) -> Trajectory:
    """Return kernel descent with a member's own kernel K_0 and batches.

    K_0 is the empirical kernel at initialization, evaluated between all rows (training rows followed by test rows) and
    the training rows. Its shape is (n + n_test, k, n, k), or (n + n_test, n) if there is only one output.
    """
    if data.y_train.ndim == 2 and k.ndim == 2:
        k = k[:, None, :, None]
    return kernel_descent(
        k[: data.n_train],
        data.y_train,
        learning_rate=learning_rate,
        f0=f0,
        k_test=k[data.n_train :],
        f0_test=f0_test,
        origin=origin,
        **training.descent(key, data.n_train),
    )


class References:
    """The infinite-width kernels and the shared inputs of a study, computed on demand and cached for later cells."""

    def __init__(self) -> None:
        """Create empty caches."""
        self._limits: dict[tuple[Any, ...], Limit | None] = {}
        self._inputs: dict[tuple[Any, ...], SharedInputs] = {}
        self._warned: set[str] = set()

    def inputs(self, point: Point) -> SharedInputs:
        """Return the inputs that members at a point share, regardless of their learning rate and labels.

        Args:
            point: Point in the grid.

        Returns:
            The shared inputs.
        """
        key = point.kernel_key, point.training
        if key not in self._inputs:
            # Successive cells usually have the same kernel, so inputs for other kernels can be discarded.
            self._inputs = {key: inputs for key, inputs in self._inputs.items() if key[0] == point.kernel_key}
            self._inputs[key] = share_inputs(point.network, point.data, point.training)
        return self._inputs[key]

    def limit(self, point: Point, width: int) -> Limit | None:
        """Return the infinite-width kernel on the data at a point.

        Args:
            point: Point in the grid.
            width: Number of units, m, used to evaluate scales that depend on the width.

        Returns:
            The kernel, or None if there is no analytic kernel or if no predictions are requested.

        Raises:
            ValueError: If the kernel and its eigenvectors do not fit in memory.

        Warns:
            UserWarning: If the kernel is singular. The warning is issued at most once.
        """
        if not point.training.measure.predictions:
            return None
        network, data = point.network.clone(width=width), point.data
        key = (limit_key(network), data.n_train)
        if key not in self._limits:
            while sum(limit.nbytes for limit in self._limits.values() if limit is not None) > KEPT:
                self._limits.pop(next(iter(self._limits)))
            limit = self._limits[key] = limit_of(network, data)
            if limit is not None and "singular" not in self._warned and limit.why_singular is not None:
                self._warned.add("singular")
                warn_of_singular_kernel(limit)
        return self._limits[key]

    def rates(self, point: Point, widths: Sequence[int]) -> dict[int, float]:
        """Return the learning rate at each width.

        If no rate is given, the default at the largest width is used for all widths. However, if the parametrization
        scales the learning rate as a power of the width, the default rates scale in the same way.

        Args:
            point: Point in the grid.
            widths: Numbers of units, m, in ascending order.

        Returns:
            The learning rate eta at each width, keyed by width.
        """
        if point.learning_rate is not None:
            return {width: at_width(point.learning_rate, width) for width in widths}

        def stable(width: int) -> float:
            network, limit = point.network.clone(width=width), self.limit(point, width)
            lambda_max = None if limit is None else limit.lambda_max
            return default_learning_rate(network, point.data, member_key(width, 0), lambda_max, point.training.ridge)

        relative = relative_rates(point.network, widths)
        if traits(point.network).learning_rate_exponent is None:
            return dict.fromkeys(widths, stable(widths[-1]))
        # Use the largest factor for which the rate at each width is at most 1 / (lambda_max + ridge) at that width.
        factor = min(stable(width) / relative[width] for width in widths)
        return {width: factor * relative[width] for width in widths}

    def check_rate(self, point: Point, width: int, rate: float) -> None:
        """Warn if kernel descent diverges at the given learning rate.

        Args:
            point: Point in the grid.
            width: Number of units, m.
            rate: Learning rate eta.

        Warns:
            UserWarning: If the learning rate exceeds 2 (1 + momentum) / (lambda_max + ridge). The warning is issued at
                most once.
        """
        largest, ridge = point.training.largest_rate, point.training.ridge
        if largest is None or "rate" in self._warned:
            return
        limit = self.limit(point, width)
        if limit is not None and rate > largest / (limit.lambda_max + ridge):
            self._warned.add("rate")
            warn_of_learning_rate(limit, width, rate, largest, ridge)


def relative_rates(network: Network, widths: Sequence[int]) -> dict[int, float]:
    """Return the default learning rates up to a common factor.

    Args:
        network: The network family.
        widths: Numbers of units, m.

    Returns:
        The relative learning rates, keyed by width.
    """
    facts = traits(network)
    power = facts.learning_rate_exponent
    if power is None:
        return dict.fromkeys(widths, 1.0)
    field = "output_scale"
    scale = getattr(network, field) if field in facts.fields else 1.0
    return {width: width**-power / at_width(scale, width) ** 2 for width in widths}


def default_learning_rate(
    network: Network, data: Dataset, key: Array, lambda_max: float | None = None, ridge: float = 0.0
) -> float:
    """Return 1 / (lambda_max + ridge) for the analytic kernel, or for the empirical one if there is no analytic kernel.

    Args:
        network: Network, with its width set.
        data: Training and test sets.
        key: Key of the member whose empirical kernel is used.
        lambda_max: Largest eigenvalue of the analytic kernel, if it has already been computed.
        ridge: Coefficient of the penalty on the displacement of the parameters.

    Returns:
        The learning rate eta for the loss 1/2 sum ||f - y||^2.

    Raises:
        ValueError: If the largest eigenvalue is not positive and finite.
    """
    kernel = analytic_kernel(network)
    if lambda_max is None and kernel is not None:
        lambda_max = largest_eigenvalue(kernel(data.x_train))
    if lambda_max is None:
        variables = dict(network.init(start_key(key), network_rows(data.x_train, "float32")))
        lambda_max = largest_empirical_eigenvalue(network, variables, data)
    if not 0 < lambda_max < float("inf"):
        raise ValueError(
            f"learning_rate must be given if the kernel's largest eigenvalue is not positive and finite, got None at "
            f"width {network.width}, where the eigenvalue is {lambda_max:g}."
        )
    return 1 / (lambda_max + ridge)
