"""Loss functions, which assign a value to each example and then sum or average the values.

>>> import jax.numpy as jnp, lazynet as lz
>>> loss = lz.losses.squared()
>>> float(loss(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0])))
2.5
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import jax.numpy as jnp
import optax
from jax import Array

__all__ = ["LOSSES", "Loss", "Reduction", "get_loss", "hinge", "logistic", "softmax", "squared"]

# How a loss combines the losses on individual examples.
Reduction = Literal["sum", "mean"]


@dataclass(frozen=True)
class Loss:
    """A loss function that is summed or averaged over examples.

    Args:
        name: Name of the loss, as recorded in results.
        per_example: Function that maps predictions and targets, both of shape (n,) or (n, k), to the loss on each
            example, shape (n,).
        reduction: "sum" to sum over the examples, or "mean" to average over them.

    Raises:
        ValueError: If `reduction` is neither "sum" nor "mean".

    >>> import jax.numpy as jnp
    >>> absolute = Loss("absolute", lambda f, y: jnp.abs(f - y), "mean")
    >>> float(absolute(jnp.array([1.0, 3.0]), jnp.array([0.0, 0.0])))
    2.0
    """

    name: str
    per_example: Callable[[Array, Array], Array]
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        """Check that the reduction is "sum" or "mean"."""
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'sum' or 'mean', got {self.reduction!r}.")

    def __call__(self, f: Array, y: Array) -> Array:
        """Return the loss for predictions `f` and targets `y` as a scalar array."""
        values = self.per_example(f, y)
        return jnp.sum(values) if self.reduction == "sum" else jnp.mean(values)


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
    return Loss("logistic", _logistic, reduction)


def softmax(reduction: Reduction = "mean") -> Loss:
    """Return the softmax cross-entropy loss for k outputs.

    Targets are one-hot rows, shape (n, k), with or without 1/k subtracted from every entry.

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
    return Loss("softmax", _softmax, reduction)


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
    return Loss("hinge", optax.losses.hinge_loss, reduction)


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
        ValueError: If the name of the loss is unknown.

    >>> get_loss("hinge").reduction
    'mean'
    """
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)} or a lazynet.losses.Loss, got {loss!r}.")
    return LOSSES[loss]()


def _squared(f: Array, y: Array) -> Array:
    residual = (f - y).reshape(f.shape[0], -1)
    return 0.5 * jnp.sum(residual**2, axis=1)


def _logistic(f: Array, y: Array) -> Array:
    return jnp.logaddexp(jnp.zeros((), f.dtype), -y * f)


def _softmax(f: Array, y: Array) -> Array:
    one_hot = y - jnp.mean(y, axis=1, keepdims=True) + 1.0 / y.shape[1]
    return optax.losses.softmax_cross_entropy(f, one_hot)
