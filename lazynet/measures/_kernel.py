"""Rotation of a network's kernel during training, and alignment of kernels with labels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from lazynet.arguments import described
from lazynet.arrays import float64_array, is_traced, traceable_array
from lazynet.kernels import check_square, layer_kernels, sum_layer_kernels
from lazynet.measures._gaps import promoted, scaled
from lazynet.networks import Network, check_rows_alone, traits
from lazynet.precision import keeps_float64
from lazynet.typing import AnyArray, Variables


def kernel_distance(k: Num[AnyArray, "n1 n2"], other: Num[AnyArray, "n1 n2"]) -> AnyArray:
    """Return the distance S = 1 - tr(K K'^T) / (||K|| ||K'||) between two kernels (Fort et al. 2020).

    The distance is computed as 1/2 ||K / ||K|| - K' / ||K'|| ||^2, which avoids cancellation when kernels are close.

    Args:
        k: Kernel K, shape (n1, n2).
        other: Kernel K', shape (n1, n2).

    Returns:
        A scalar, which is 0 if one kernel is a positive multiple of the other, and NaN if either kernel is zero.

    Raises:
        ValueError: If either kernel is not a nonempty matrix of real numbers, or if the kernels have different shapes.

    >>> import numpy as np
    >>> from lazynet.measures import kernel_distance
    >>> float(kernel_distance(np.diag([1.0, 0.0]), np.diag([0.0, 1.0])))
    1.0
    """
    k, other = _matrix("k", k), _matrix("other", other)
    if k.shape != other.shape:
        raise ValueError(f"other must have shape {k.shape} to match k, got shape {other.shape}.")
    return _distance(k, other)


@keeps_float64
def _distance(k: AnyArray, other: AnyArray) -> AnyArray:
    k, other = (scaled(kernel)[0] for kernel in promoted(k, other))
    return jnp.sum((k / jnp.linalg.norm(k) - other / jnp.linalg.norm(other)) ** 2) / 2


def kernel_velocity(kernels: Float[AnyArray, "s n1 n2"], times: Float[AnyArray, " s"]) -> Float[np.ndarray, " s-1"]:
    """Return the velocity S(K_t, K_{t+dt}) / dt between consecutive snapshots of a kernel (Fort et al. 2020).

    Args:
        kernels: Kernels at s snapshots, shape (s, n1, n2).
        times: Times of the snapshots in ascending order, shape (s,), in any unit, such as steps, epochs or eta * steps.

    Returns:
        Velocities, a NumPy float64 array of shape (s - 1,), with NaN for intervals that start or end at a
        kernel that is zero or has entries that are not finite.

    Raises:
        ValueError: If `kernels` is not a nonempty array of shape (s, n1, n2), or if `times` is not an array of s finite
            numbers in strictly ascending order.
    """
    kernels, times = float64_array("kernels", kernels), float64_array("times", times)
    if kernels.ndim != 3 or not kernels.size:
        raise ValueError(f"kernels must be a nonempty array of shape (s, n1, n2), got {described(kernels)}.")
    if times.shape != kernels.shape[:1] or not (np.diff(times) > 0).all() or not np.isfinite(times).all():
        raise ValueError(
            f"times must be an array of shape ({len(kernels)},) to match kernels, containing finite numbers in "
            f"strictly ascending order, got {described(times)}."
        )
    # Dividing by the largest entry keeps the squares in range.
    with np.errstate(invalid="ignore"):
        kernels = kernels / np.abs(kernels).max(axis=(1, 2), keepdims=True)
        directions = kernels / np.linalg.norm(kernels, axis=(1, 2), keepdims=True)
    return np.sum(np.diff(directions, axis=0) ** 2, axis=(1, 2)) / 2 / np.diff(times)


def label_alignment(k: Num[AnyArray, "n n"], y: Num[AnyArray, " n"] | Num[AnyArray, "n k"]) -> AnyArray:
    """Return the alignment <K, Y Y'> / (||K|| ||Y Y'||) of a kernel K with labels Y (Cristianini et al. 2001).

    Args:
        k: Kernel K on the training set, shape (n, n).
        y: Labels Y, shape (n,) or (n, k).

    Returns:
        A scalar, which is 1 if the kernel is a positive multiple of Y Y', and NaN if the kernel or the labels are zero.

    Raises:
        ValueError: If the kernel is not a nonempty square matrix of real numbers, or if the labels do not match it.

    >>> import numpy as np
    >>> from lazynet.measures import label_alignment
    >>> y = np.array([1.0, -1.0])
    >>> round(float(label_alignment(np.outer(y, y), y)), 6)
    1.0
    """
    k, y = check_square("k", _floating("k", k)), _floating("y", y)
    if y.ndim not in (1, 2) or len(y) != len(k) or not y.size:
        raise ValueError(
            f"y must be a nonempty array of shape ({len(k)},) or ({len(k)}, outputs) to match k, got shape {y.shape}."
        )
    return _alignment(k, y.reshape(len(y), -1))


@keeps_float64
def _alignment(k: AnyArray, labels: AnyArray) -> AnyArray:
    k, labels = (scaled(array)[0] for array in promoted(k, labels))
    gram = labels @ labels.T
    return jnp.sum(k * gram) / (jnp.linalg.norm(k) * jnp.linalg.norm(gram))


def _floating(name: str, value: Any) -> AnyArray:
    """Return a real array; integers become float64 unless they are traced."""
    array = traceable_array(name, value)
    return array if is_traced(array) or jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float64)


def _matrix(name: str, value: Any) -> AnyArray:
    array = _floating(name, value)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must be a nonempty matrix, got an array of shape {array.shape}.")
    return array


@keeps_float64
def current_kernel(network: Network, variables: Variables, variables_0: Variables, data: Any) -> AnyArray:
    """Return the empirical kernel on the training set.

    Include this function in `lazynet.Measure(own={...})` to record the kernel at each snapshot.

    Args:
        network: Network to measure.
        variables: Current variables of the network.
        variables_0: Initial variables of the network (unused).
        data: Data set with training inputs `x_train`, shape (n, d).

    Returns:
        Kernel, shape (n, n).

    Raises:
        ValueError: If the output for an example depends on other examples, as with batch norm. In a study, the
            network is checked before this function is called.
    """
    rows = jnp.asarray(data.x_train)
    # Traced arrays are not checked here, because studies check the network before they trace its measures.
    if traits(network).custom and len(rows) > 1 and not is_traced(variables, rows):
        check_rows_alone(network, variables, rows[:2])
    return sum_layer_kernels(layer_kernels(network, variables, rows))
