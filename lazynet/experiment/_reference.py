"""The infinite-width kernels and the shared inputs of a study, and default learning rates."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax import Array

from lazynet.arrays import network_rows
from lazynet.data import Dataset
from lazynet.experiment._grid import Point
from lazynet.experiment._shared_inputs import SharedInputs, share_inputs
from lazynet.kernels import (
    Spectrum,
    analytic_kernel,
    empirical_ntk,
    largest_eigenvalue,
    limit_key,
    narrow_products,
    same_rows,
    spectrum,
)
from lazynet.networks import Network, at_width, traits
from lazynet.plan import check_memory, eigenvectors_bytes
from lazynet.training import member_key, start_key
from lazynet.typing import Variables

# Total size of the cached infinite-width kernels, in bytes, above which the oldest ones are discarded before another is
# computed.
KEPT = 2**30


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

    def distance(self, k: np.ndarray) -> float:
        """Return the relative distance ||k - K|| / ||K|| of an empirical kernel from the kernel on the training set."""
        return float(np.linalg.norm(k - self.train) / np.linalg.norm(self.train))

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
