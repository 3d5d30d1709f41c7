"""Loss functions, which assign a value to each example and then sum or average the values.

>>> import jax.numpy as jnp, lazynet as lz
>>> loss = lz.losses.squared()
>>> float(loss(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0])))
2.5
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lazynet.arguments import check_choice, described
from lazynet.precision import keeps_float64
from lazynet.typing import AnyArray

__all__ = ["LOSSES", "Domain", "Loss", "Reduction", "get_loss", "hinge", "logistic", "softmax", "squared"]

# How a loss combines the losses on individual examples.
Reduction = Literal["sum", "mean"]
# The targets that a loss accepts: any numbers, one sign per example, or one distribution over classes per example.
Domain = Literal["numbers", "signs", "classes"]
# Largest rounding error allowed in a probability.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Loss:
    """A loss function that is summed or averaged over examples.

    Args:
        name: Name of the loss, as recorded in results.
        per_example: Function that maps predictions and targets, both of shape (n,) or (n, k), to the loss on each
            example, shape (n,).
        reduction: "sum" to sum over the examples, or "mean" to average over them.
        domain: Targets the loss accepts: "numbers" for any numbers, "signs" for one target per example, either +1 or
            -1, or "classes" for rows that are either the probabilities of k >= 2 classes or a one-hot vector with 1/k
            subtracted from every entry.

    Raises:
        ValueError: If `reduction` or `domain` is not one of the listed values, `name` is not a string, or `per_example`
            is not a function.

    >>> import jax.numpy as jnp
    >>> absolute = Loss("absolute", lambda f, y: jnp.abs(f - y), "mean")
    >>> float(absolute(jnp.array([1.0, 3.0]), jnp.array([0.0, 0.0])))
    2.0
    """

    name: str
    per_example: Callable[[Array, Array], Array]
    reduction: Reduction = "sum"
    domain: Domain = "numbers"

    def __post_init__(self) -> None:
        """Check the fields."""
        check_choice("reduction", self.reduction, get_args(Reduction))
        check_choice("domain", self.domain, get_args(Domain))
        if not isinstance(self.name, str):
            raise ValueError(f"name must be a string, got {described(self.name)}.")
        if not callable(self.per_example):
            raise ValueError(
                f"per_example must be a function of predictions and targets, got {described(self.per_example)}."
            )

    @keeps_float64
    def __call__(self, f: AnyArray, y: AnyArray) -> AnyArray:
        """Return the loss for predictions `f` and targets `y` as a scalar array."""
        values = self.per_example(jnp.asarray(f), jnp.asarray(y))
        return jnp.sum(values) if self.reduction == "sum" else jnp.mean(values)

    def check_targets(self, y: AnyArray, name: str = "y") -> None:
        """Check that the loss accepts the targets and returns one value per example.

        Args:
            y: Targets, shape (n,) or (n, k).
            name: Name of the targets in error messages.

        Raises:
            ValueError: If the loss does not accept the shape of the targets or one of their values, or does not return
                one value per example.

        >>> logistic().check_targets(jnp.array([1.0, 0.0]))
        Traceback (most recent call last):
        ...
        ValueError: y must be +1 or -1 for the logistic loss, got 0 in row 1.
        """
        y = np.asarray(y)
        if self.domain == "signs" and y.ndim != 1:
            raise ValueError(f"{name} must have one target per example for the {self.name} loss, got {y.shape[1]}.")
        if self.domain == "classes" and (y.ndim != 2 or y.shape[1] < 2):
            raise ValueError(f"{name} must have at least two targets per example for the {self.name} loss, got 1.")
        wrong = _outside(self.domain, y)
        if wrong.any():
            row = int(np.argmax(wrong))
            allowed = {"signs": "be +1 or -1", "classes": "consist of probabilities or of one-hot rows minus 1/k"}
            value = np.array2string(y[row], formatter={"all": "{:g}".format}, threshold=6, edgeitems=2, separator=", ")
            raise ValueError(f"{name} must {allowed[self.domain]} for the {self.name} loss, got {value} in row {row}.")
        probe = jax.ShapeDtypeStruct(y.shape, np.float32)
        try:
            shape = jax.eval_shape(self.per_example, probe, probe).shape
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{name} must have a shape that the {self.name} loss accepts, got {y.shape}.") from error
        if shape != y.shape[:1]:
            raise ValueError(
                f"{name} must have a shape for which the {self.name} loss returns one value per example, got {y.shape}."
            )


def squared() -> Loss:
    """Return the squared loss L = 1/2 sum_i ||f(x_i) - y_i||^2 (Arora et al. 2019, equation (2)).

    Returns:
        A `Loss` that is summed over examples.

    >>> squared().reduction
    'sum'
    """
    return Loss("squared", _squared)


def logistic(reduction: Reduction = "mean") -> Loss:
    """Return the logistic loss log(1 + exp(-y f)) for a single output and targets equal to +1 or -1.

    Args:
        reduction: "sum" to sum over the examples, or "mean" to average over them.

    Returns:
        A `Loss` for predictions and targets of shape (n,).

    Raises:
        ValueError: If `reduction` is neither "sum" nor "mean".

    >>> import jax.numpy as jnp
    >>> round(float(logistic()(jnp.zeros(2), jnp.array([1.0, -1.0]))), 3)
    0.693
    """
    return Loss("logistic", _logistic, reduction, "signs")


def softmax(reduction: Reduction = "mean") -> Loss:
    """Return the softmax cross-entropy loss for k outputs.

    The targets have shape (n, k). Each row contains the probabilities of the k classes (for example, a one-hot row) or
    is a one-hot row with 1/k subtracted from every entry.

    Args:
        reduction: "sum" to sum over the examples, or "mean" to average over them.

    Returns:
        A `Loss` for predictions and targets of shape (n, k).

    Raises:
        ValueError: If `reduction` is neither "sum" nor "mean".

    >>> import jax.numpy as jnp
    >>> round(float(softmax()(jnp.zeros((3, 2)), jnp.eye(3, 2)[:, ::-1] - 0.5)), 3)
    0.693
    """
    return Loss("softmax", _softmax, reduction, "classes")


def hinge(reduction: Reduction = "mean") -> Loss:
    """Return the hinge loss max(0, 1 - y f) for a single output and targets equal to +1 or -1.

    Args:
        reduction: "sum" to sum over the examples, or "mean" to average over them.

    Returns:
        A `Loss` for predictions and targets of shape (n,).

    Raises:
        ValueError: If `reduction` is neither "sum" nor "mean".

    >>> import jax.numpy as jnp
    >>> float(hinge("sum")(jnp.array([0.25, 3.0]), jnp.array([1.0, 1.0])))
    0.75
    """
    return Loss("hinge", optax.losses.hinge_loss, reduction, "signs")


# Functions that create the named losses with their default reductions.
LOSSES: dict[str, Callable[[], Loss]] = {
    "squared": squared,
    "logistic": logistic,
    "softmax": softmax,
    "hinge": hinge,
}


def get_loss(loss: str | Loss) -> Loss:
    """Return the named loss with its default reduction, or return a given `Loss` unchanged.

    Args:
        loss: "squared", "logistic", "softmax", "hinge", or a `Loss`.

    Returns:
        A `Loss`.

    Raises:
        ValueError: If `loss` is neither a known name nor a `Loss`.

    >>> get_loss("hinge").reduction
    'mean'
    """
    if isinstance(loss, Loss):
        return loss
    check_choice("loss", loss, LOSSES, more=" or a lazynet.losses.Loss")
    return LOSSES[loss]()


def _outside(domain: Domain, y: np.ndarray) -> np.ndarray:
    """Return a boolean mask, shape (n,), of the rows of the targets that are outside the domain."""
    if domain == "signs":
        return np.abs(y) != 1
    if domain == "numbers":
        return np.zeros(len(y), bool)
    centered = y + 1 / y.shape[1]
    one_hot = (np.minimum(np.abs(centered), np.abs(centered - 1)) <= ROUNDING).all(axis=1)
    sums = np.abs(y.sum(axis=1))
    probabilities = (y >= -ROUNDING).all(axis=1) & (np.abs(sums - 1) <= ROUNDING * y.shape[1])
    return np.asarray(~probabilities & ~(one_hot & (sums <= ROUNDING * y.shape[1])))


def _squared(f: Array, y: Array) -> Array:
    residual = (f - y).reshape(f.shape[0], -1)
    return 0.5 * jnp.sum(residual**2, axis=1)


def _logistic(f: Array, y: Array) -> Array:
    return jnp.logaddexp(jnp.zeros((), f.dtype), -y * f)


def _softmax(f: Array, y: Array) -> Array:
    one_hot = y - jnp.mean(y, axis=1, keepdims=True) + 1.0 / y.shape[1]
    return optax.losses.softmax_cross_entropy(f, one_hot)
