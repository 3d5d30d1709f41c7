"""Analytic neural tangent kernels of infinitely wide networks, dispatched on the network type."""

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Num

from lazynet.arrays import is_traced, traceable_array
from lazynet.dispatch import dispatched
from lazynet.kernels._checks import check_dtype, check_norms
from lazynet.kernels._dual import tangent_dual
from lazynet.kernels._traced import concrete, implementation, traced_dtype
from lazynet.networks import Network, SingleHidden, TwoLayer, at_width
from lazynet.typing import AnyArray

# Number of rows per block when computing the diagonal of a kernel.
DIAGONAL_BLOCK = 64


@dataclass(frozen=True)
class AnalyticKernel:
    """The infinite-width kernel of a network, as returned by `lazynet.analytic_kernel`.

    Attributes:
        network: The network.
        function: Function `function(x1, x2=None, dtype="float64")` that computes the kernel of concrete or traced
            arrays.
    """

    network: Any
    function: Callable[..., np.ndarray]

    def __call__(self, x1: Any, x2: Any = None, dtype: str | None = None) -> Any:
        """Return the kernel for all pairs of rows.

        Args:
            x1: Inputs, shape (n1, d).
            x2: Inputs, shape (n2, d). If omitted, `x1` is used, and the result is exactly symmetric.
            dtype: Dtype of the result, "float64" or "float32". Defaults to "float64", or to the dtype of the inputs if
                they are traced.

        Returns:
            An array of shape (n1, n2), which is a NumPy array unless the inputs are traced.

        Raises:
            ValueError: If an argument is invalid; see `lazynet.analytic_kernel`.
        """
        if not is_traced(x1, x2):
            with concrete():
                return self.function(x1, x2, "float64" if dtype is None else dtype)
        sides = [traceable_array(name, x) for name, x in (("x1", x1), ("x2", x2)) if x is not None]
        try:
            with jax.default_matmul_precision("highest"):
                return self.function(x1, x2, traced_dtype(dtype, *sides))
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(
                "x1 and x2 must be concrete arrays for this network, got traced ones. The network's kernel or "
                "activation is computed with NumPy, or depends on values that JAX is tracing."
            ) from error

    def diagonal(self, x: Any, dtype: str | None = None) -> Any:
        """Compute the diagonal of the kernel, in time and memory proportional to the number of rows.

        Args:
            x: Inputs, shape (n, d).
            dtype: Dtype of the result, as in `__call__`.

        Returns:
            An array of shape (n,), the diagonal of the kernel, which is a NumPy array unless the inputs are traced.

        Raises:
            ValueError: If an argument is invalid; see `lazynet.analytic_kernel`.

        >>> import numpy as np, lazynet as lz
        >>> lz.analytic_kernel(lz.TwoLayer(width=64)).diagonal(np.eye(3))
        array([0.5, 0.5, 0.5])
        """
        rows = traceable_array("x", x)
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"x must be a nonempty array of shape (n, d), got shape {rows.shape}.")
        if is_traced(rows):
            return jax.vmap(lambda row: self(row[None], None, dtype)[0, 0])(rows)
        blocks = (self(rows[i : i + DIAGONAL_BLOCK], None, dtype) for i in range(0, len(rows), DIAGONAL_BLOCK))
        return np.concatenate([block.diagonal() for block in blocks])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the network; the kernel function is looked up again on unpickling."""
        return analytic_kernel, (self.network,)


def _finished(network: Any, function: Any) -> Any:
    return function if function is None or isinstance(function, AnalyticKernel) else AnalyticKernel(network, function)


@partial(dispatched, finish=_finished)
def analytic_kernel(network: object) -> AnalyticKernel | None:
    """Return the neural tangent kernel of a network in the infinite-width limit.

    For a `TwoLayer` network with activation sigma and weights w ~ N(0, kappa^2 I), where kappa is `init_scale` and
    alpha is `output_scale`, the kernel is

        K(x, x') = alpha^2 (x.x' E[sigma'(w.x) sigma'(w.x')]  [if the hidden layer is trained]
                            + E[sigma(w.x) sigma(w.x')])      [if the readout is trained].

    For a relu network with kappa = alpha = 1 in which only the hidden layer is trained, the kernel for rows of norm 1
    is x.x' (pi - arccos(x.x')) / (2 pi). This is the H^infinity of Arora et al. 2019 (arXiv:1901.08584, section 3), and
    it follows from the arc-cosine kernels of Cho and Saul 2009. If there are several outputs, each output has the same
    kernel K.

    The kernels of `MLP` and `ThreeLayer` follow from the recursion of Jacot, Gabriel and Hongler 2018, Theorem 1, with
    powers of the width that depend on the parametrization. The kernel of `ConvNet` is the average of the two-layer
    kernel over all pairs of patches. `from_stax` networks use the kernel from neural-tangents, and networks from other
    libraries use the kernel that was supplied with them. Powers of the width, and scales that depend on the width, are
    evaluated at the width of `network`.

    Use `analytic_kernel.register` to register the kernel of a new network family.

    Args:
        network: Network of any type.

    Returns:
        An `AnalyticKernel`, or None if the network family has no analytic kernel. An `AnalyticKernel` is a function
        `kernel(x1, x2=None, dtype=None)` that also has a `diagonal(x)` method. The function takes arrays of shapes
        (n1, d) and (n2, d) with any real dtype and returns a NumPy array of shape (n1, n2) and dtype "float64" (the
        default) or "float32". If `x2` is omitted, the function returns the kernel of `x1` with itself, which is exactly
        symmetric. For `TwoLayer`, the kernel is computed block by block, without temporary arrays as large as the
        result, and omitting `x2` halves the computation time; the computation runs in `dtype` if the activation has a
        closed form, and in float64 otherwise. For other families, the kernel is computed in float64. For `MLP`, the
        computation needs several arrays as large as the result.

        In functions that JAX jits, batches or differentiates, the inputs are traced arrays. The result is then a traced
        array as well. The whole kernel is computed at once on JAX's current device, in float64 if JAX promotes the
        inputs to float64 and in float32 otherwise. Entries and norms are not checked. For activations whose kernels
        have no closed form, the standard deviations of the pre-activations may be at most 128 in each layer (less for
        some user-defined activations). Beyond this limit, the result is NaN. Tracing these activations takes several
        seconds. Their second derivatives are NaN at rows that are entirely zero.

        With traced arrays, rounding errors in the correlations of nearly parallel rows are noticeable. They cause
        errors in the expected products of slopes: absolute errors of up to 2e-8 (3e-4 in float32) for relu, leaky_relu
        and abs, and relative errors of about 2 s^2 eps for other activations, where s is the standard deviation of the
        pre-activations. The kernels of relu, leaky_relu and abs have no derivative where rows are parallel or zero.
        There, the angle between the rows is treated as constant. Rows count as parallel if the cosine of the angle
        between them is within 16 eps of 1 or -1, that is, if the angle is within 8e-8 (2e-3 in float32) of 0 or pi.

    Raises:
        ValueError: Raised by the returned function if `x1` or `x2` is not a matrix, if the rows of `x1` and `x2` differ
            in length, or if a row is not finite or has a norm whose square overflows or underflows. Also raised for
            erf, gelu and sin if kappa * norm(x) exceeds 10^4, because the closed forms are then inaccurate; for
            activations without a closed form if kappa * norm(x) is too large for the series to converge (values up to
            200 are accepted for all named activations); and for user-defined activations that are not smooth.

    Example:
        >>> import numpy as np, lazynet as lz
        >>> kernel = lz.analytic_kernel(lz.TwoLayer(width=64))
        >>> kernel(np.array([[1.0, 0.0], [0.5, 0.75**0.5]])).round(3)
        array([[0.5  , 0.167],
               [0.167, 0.5  ]])
    """
    return None


@functools.singledispatch
def limit_key(network: Network) -> Hashable:
    """Return a key that two variants of a network share only if they have the same infinite-width kernel.

    Variants of a network are created with `network.clone`. By default, the key is the network itself. Use
    `limit_key.register` to register a key function for a new network family.

    Args:
        network: Network of any type.

    Returns:
        A hashable key.
    """
    return cast(Hashable, network)


@limit_key.register(SingleHidden)
def _single_hidden_key(network: SingleHidden) -> Hashable:
    """Return a copy of the network with a fixed width and with the scales evaluated at the original width."""
    scales: dict[str, Any] = {
        name: at_width(getattr(network, name), network.width) for name in ("init_scale", "output_scale")
    }
    # Symmetric initialization requires an even width.
    return network.clone(width=2, **scales)


@analytic_kernel.register(TwoLayer)
def _two_layer_kernel(network: TwoLayer) -> Callable[..., Any]:
    kappa = at_width(network.init_scale, network.width)
    alpha = at_width(network.output_scale, network.width)

    def kernel(
        x1: Num[Array | np.ndarray, "..."],
        x2: Num[Array | np.ndarray, "..."] | None = None,
        dtype: str = "float64",
    ) -> Any:
        """Return K(x1, x2) as an array of shape (n1, n2)."""
        rows1, rows2 = check_pair(x1, x2, dtype)
        if is_traced(rows1, rows2):
            return symmetrized(alpha**2 * kernel_of_rows(network, kappa, rows1, rows1 if x2 is None else rows2), x2)
        result = tangent_dual(network.train, network.activation, rows1, rows2, kappa)
        result *= alpha**2
        return result

    return kernel


def kernel_of_rows(network: Any, kappa: float, x1: Any, x2: Any) -> Any:
    """Compute, from expectations, the kernel of a network with one hidden layer and output scale 1.

    Args:
        network: Network whose activation and trained layers are used.
        kappa: Standard deviation of the hidden weights.
        x1: Rows, shape (n1, d), concrete or traced.
        x2: Rows, shape (n2, d).

    Returns:
        The kernel, shape (n1, n2).
    """
    array, expectations = implementation(x1, x2)
    gram = x1 @ x2.T
    variances = (kappa**2 * array.einsum("ij,ij->i", x, x) for x in (x1, x2))
    dual = expectations(network.activation, kappa**2 * gram, *variances)
    parts = {"hidden": gram * dual.slope, "readout": dual.value}
    return sum(parts.values()) if network.train == "both" else parts[network.train]


def symmetrized(result: Any, x2: AnyArray | None) -> Any:
    """Return a kernel, made exactly symmetric if `x2` is None."""
    return result if x2 is not None else (result + result.T) / 2


def check_pair(x1: AnyArray, x2: AnyArray | None, dtype: str) -> tuple[Any, Any]:
    """Check the two inputs of a kernel function, and return their rows in the given dtype.

    If either input is traced, both are returned as JAX arrays, and the entries of traced inputs are not checked.

    Raises:
        ValueError: If the dtype or the rows are invalid; see `analytic_kernel`.
    """
    check_dtype(dtype)
    x1 = _check_rows(x1, "x1", dtype)
    x2 = None if x2 is None else _check_rows(x2, "x2", dtype)
    if x2 is not None and x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x2 must have rows of length {x1.shape[1]} to match x1, got length {x2.shape[1]}.")
    if is_traced(x1, x2):
        return jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
    return x1, x2


def _check_rows(x: AnyArray, name: str, dtype: str) -> Any:
    array = traceable_array(name, x)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name} must be a nonempty array of shape (n, d), got shape {array.shape}.")
    if is_traced(array):
        return array.astype(dtype)
    rows = array.astype(dtype, copy=False)
    invalid = ~np.isfinite(rows).all(axis=1)
    if invalid.any():
        raise ValueError(f"{name} must have only finite entries, got NaN or infinity in row {np.argmax(invalid)}.")
    check_norms(name, array, dtype)
    return rows
