"""Distances between kernels and between predictions, and the error of a classifier; NumPy or traced."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.networks import Linearized, Quadratic
from lazynet.typing import AnyArray, Variables


def relative_distance(k: AnyArray, reference: AnyArray) -> Array:
    """||K - K_0|| / ||K_0|| in the Frobenius norm (Lee et al. 2019, Figure 1), a scalar."""
    return jnp.sqrt(jnp.sum((k - reference) ** 2) / jnp.sum(reference**2))


def rms(difference: np.ndarray, axes: int) -> np.ndarray:
    """Root mean square over the last `axes` axes."""
    return np.asarray(np.sqrt(np.mean(difference**2, axis=tuple(range(-axes, 0)))))


def taylor_gap(network: Any, variables: Variables, start: Variables, x: AnyArray, order: int = 1) -> Array:
    """RMS over examples and outputs of f(theta) - T(theta), T the Taylor polynomial of f at theta_0, a scalar.

    The polynomial is taken at the network's own parameters, not at those that it would be trained to, so that the gap
    is of order ||theta - theta_0||^(order + 1) (Chizat, Oyallon and Bach 2019, section 2).

    Args:
        network: anything with `apply(variables, x)`.
        variables: theta, and what is fixed.
        start: theta_0, and what is fixed.
        x: inputs (n, d).
        order: of the polynomial, 1 or 2.
    """
    polynomial = {1: Linearized, 2: Quadratic}[order](network)
    expanded = polynomial.apply({**start, "origin": start["params"], "params": variables["params"]}, jnp.asarray(x))
    return jnp.sqrt(jnp.mean((network.apply(variables, x) - expanded) ** 2))


def zero_one_error(f: AnyArray, y: AnyArray) -> np.ndarray:
    """Share of misclassified examples: mean(y f <= 0) for one output, mean(argmax differs) for more.

    Args:
        f: predictions (..., n) for targets (n,), or (..., n, k) for targets (n, k).
        y: targets +-1, or rows that are largest at the true class.
    """
    if np.ndim(y) == 1:
        return np.asarray(np.mean(np.asarray(y) * np.asarray(f) <= 0, axis=-1))
    return np.asarray(np.mean(np.argmax(f, axis=-1) != np.argmax(y, axis=-1), axis=-1))
