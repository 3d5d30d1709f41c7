"""Losses: a value for each example and how the values are put together.

>>> import jax.numpy as jnp, lazynet as lz
>>> loss = lz.losses.squared()
>>> float(loss(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0])))
2.5
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jax import Array

REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True)
class Loss:
    """A loss over examples.

    Args:
        name: how results name it.
        per_example: (predictions, targets) -> (n,), both of shape (n,) or (n, k).
        reduction: "sum" or "mean" over the examples.
    """

    name: str
    per_example: Callable[[Array, Array], Array]
    reduction: str = "sum"

    def __post_init__(self) -> None:
        """Refuse an unknown reduction."""
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction is {self.reduction!r}, but must be one of {', '.join(REDUCTIONS)}.")

    def __call__(self, f: Array, y: Array) -> Array:
        """The loss of predictions f against targets y, a scalar."""
        values = self.per_example(f, y)
        return jnp.sum(values) if self.reduction == "sum" else jnp.mean(values)


def squared() -> Loss:
    """L = 1/2 sum_i ||f(x_i) - y_i||^2 (Arora et al. 2019, equation (2))."""
    return Loss("squared", _squared)


def logistic(reduction: str = "mean") -> Loss:
    """log(1 + exp(-y f)) for one output and targets +-1."""
    return Loss("logistic", _logistic, reduction)


def softmax(reduction: str = "mean") -> Loss:
    """Cross-entropy of the softmax of k outputs; targets are one-hot rows, with or without 1/k taken off."""
    return Loss("softmax", _softmax, reduction)


def hinge(reduction: str = "mean") -> Loss:
    """max(0, 1 - y f) for one output and targets +-1."""
    return Loss("hinge", optax.losses.hinge_loss, reduction)


LOSSES: dict[str, Callable[[], Loss]] = {
    "squared": squared,
    "logistic": logistic,
    "softmax": softmax,
    "hinge": hinge,
}


def get_loss(loss: str | Loss) -> Loss:
    """The loss of this name, or the given one.

    Raises:
        ValueError: if there is no loss of this name.
    """
    if isinstance(loss, Loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}, but must be one of {', '.join(LOSSES)} or a lazynet.losses.Loss.")
    return LOSSES[loss]()


def _squared(f: Array, y: Array) -> Array:
    residual = (f - y).reshape(f.shape[0], -1)
    return 0.5 * jnp.sum(residual**2, axis=1)


def _logistic(f: Array, y: Array) -> Array:
    return jnp.logaddexp(jnp.zeros((), f.dtype), -y * f)


def _softmax(f: Array, y: Array) -> Array:
    one_hot = y - jnp.mean(y, axis=1, keepdims=True) + 1.0 / y.shape[1]
    return optax.losses.softmax_cross_entropy(f, one_hot)
