"""Distances between kernels and between predictions, and the classification error."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.networks import Linearized, Model, Quadratic, check_variables
from lazynet.precision import keeps_float64
from lazynet.typing import AnyArray, Variables


@keeps_float64
def relative_distance(k: AnyArray, reference: AnyArray) -> AnyArray:
    """Return the relative distance ||K - K_0|| / ||K_0|| in the Frobenius norm (Lee et al. 2019, Figure 1).

    Args:
        k: Kernel K, an array of any shape.
        reference: Kernel K_0 of the same shape.

    Returns:
        A scalar, which is NaN if both kernels are zero.

    Raises:
        ValueError: If the shapes of the kernels differ.

    >>> import numpy as np
    >>> from lazynet.measures import relative_distance
    >>> float(relative_distance(2 * np.eye(3), np.eye(3)))
    1.0
    """
    if jnp.shape(k) != jnp.shape(reference):
        raise ValueError(f"k must have the shape {jnp.shape(reference)} of reference, got shape {jnp.shape(k)}.")
    k, reference = promoted(k, reference)
    (difference, by), (reference, reference_by) = scaled(k - reference), scaled(reference)
    return jnp.ldexp(jnp.sqrt(jnp.sum(difference**2) / jnp.sum(reference**2)), by - reference_by)


def promoted(*arrays: AnyArray) -> tuple[Array, ...]:
    """Return arrays as JAX arrays of a common dtype, a floating-point one of at least 32 bits.

    The result does not depend on which implicit promotions JAX is configured to allow.
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jax.dtypes.canonicalize_dtype(float)
        elif jnp.finfo(dtype).bits < 32:
            dtype = np.dtype(np.float32)
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays)


def scaled(values: AnyArray) -> tuple[Array, Array]:
    """Scale an array by a power of two so that the squares of its entries stay in range.

    Args:
        values: Array of floating-point numbers, of any shape.

    Returns:
        The scaled array, whose largest absolute entry is between 1/2 and 1, and the exponent e of the factor 2^e by
        which it was divided. Derivatives treat e as a constant.
    """
    values = jnp.asarray(values)
    exponent = binary_exponent(jnp.max(jnp.abs(values), initial=0))
    return jnp.ldexp(values, -exponent), exponent


def binary_exponent(largest: Array) -> Array:
    """Return the integer e for which largest / 2^e is in [1/2, 1), or 0 if `largest` is 0; its derivative is zero."""
    return jnp.frexp(jax.lax.stop_gradient(largest))[1]


def rms(difference: np.ndarray, axes: int) -> np.ndarray:
    """Return the root mean square over the trailing axes.

    Args:
        difference: Array of any shape.
        axes: Number of trailing axes to average over.

    Returns:
        An array with the remaining axes.
    """
    values = np.asarray(difference)
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        values = values.astype(np.float64)
    return np.asarray(np.sqrt(np.mean(values**2, axis=tuple(range(-axes, 0)))))


@keeps_float64
def taylor_gap(network: Model, variables: Variables, start: Variables, x: AnyArray, order: int = 1) -> AnyArray:
    """Return the RMS of f(theta) - T(theta), where T is the Taylor polynomial of the network f at theta_0.

    The polynomial is evaluated at the network's parameters and is not itself trained, so the difference is of order
    ||theta - theta_0||^(order + 1) (Chizat, Oyallon and Bach 2019, section 2).

    Args:
        network: Network with an `apply(variables, x)` method.
        variables: Variables of the network, including the parameters theta.
        start: Initial variables, including the parameters theta_0.
        x: Inputs, shape (n, d).
        order: Order of the polynomial, 1 or 2.

    Returns:
        Root mean square over examples and outputs, a scalar.

    Raises:
        ValueError: If the variables belong to a different network.
    """
    check_variables(network, variables, x)
    check_variables(network, start, x)
    polynomial = {1: Linearized, 2: Quadratic}[order](network)
    expanded = polynomial.apply({**start, "origin": start["params"], "params": variables["params"]}, jnp.asarray(x))
    return jnp.sqrt(jnp.mean((network.apply(variables, x) - expanded) ** 2))


def zero_one_error(f: AnyArray, y: AnyArray) -> np.ndarray:
    """Return the fraction of misclassified examples.

    If there is only one output f, an example with label y is misclassified when y f <= 0. If there are several outputs,
    an example is misclassified when the largest output is not the one for its class.

    Args:
        f: Predictions, shape (..., n) for targets of shape (n,), or (..., n, k) for targets of shape (n, k).
        y: Targets, shape (n,) with values +-1, or shape (n, k) with the largest entry of each row marking the class.

    Returns:
        Fractions, an array of shape (...), with NaN wherever a prediction is NaN or has overflowed.

    Raises:
        ValueError: If the shape of `f` does not end with the shape of `y`.

    >>> import numpy as np
    >>> from lazynet.measures import zero_one_error
    >>> float(zero_one_error(np.array([0.5, -0.5]), np.array([1.0, 1.0])))
    0.5
    """
    f, y = np.asarray(f), np.asarray(y)
    if f.shape[max(0, f.ndim - y.ndim) :] != y.shape:
        raise ValueError(f"f must have shape {y.shape} or (..., {', '.join(map(str, y.shape))}), got shape {f.shape}.")
    wrong = y * f <= 0 if y.ndim == 1 else np.argmax(f, axis=-1) != np.argmax(y, axis=-1)
    unknown = ~np.isfinite(f) if y.ndim == 1 else ~np.isfinite(f).all(axis=-1)
    return np.asarray(np.where(unknown.any(axis=-1), np.nan, np.mean(wrong, axis=-1)))
