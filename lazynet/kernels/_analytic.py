"""Analytic neural tangent kernels of infinitely wide networks, dispatched on the network type."""

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from jax import Array
from jaxtyping import Float, Num

from lazynet.arrays import real_array
from lazynet.dispatch import dispatched
from lazynet.kernels._checks import check_dtype
from lazynet.kernels._dual import tangent_dual
from lazynet.networks import Network, SingleHidden, TwoLayer, at_width

# Number of rows per block when computing the diagonal of a kernel.
DIAGONAL_BLOCK = 64


@dataclass(frozen=True)
class AnalyticKernel:
    """The infinite-width kernel of a network, as returned by `lazynet.analytic_kernel`.

    Attributes:
        network: The network.
        function: Function `function(x1, x2=None, dtype="float64")` that computes the kernel.
    """

    network: Any
    function: Callable[..., np.ndarray]

    def __call__(self, x1: Any, x2: Any = None, dtype: str = "float64") -> np.ndarray:
        """Return the kernel for all pairs of rows.

        Args:
            x1: Inputs, shape (n1, d).
            x2: Inputs, shape (n2, d). If omitted, `x1` is used, and the result is exactly symmetric.
            dtype: Dtype of the result, "float64" or "float32".

        Returns:
            A NumPy array of shape (n1, n2).

        Raises:
            ValueError: If an argument is invalid; see `lazynet.analytic_kernel`.
        """
        return self.function(x1, x2, dtype)

    def diagonal(self, x: Any, dtype: str = "float64") -> np.ndarray:
        """Compute the diagonal of the kernel, in time and memory proportional to the number of rows.

        Args:
            x: Inputs, shape (n, d).
            dtype: Dtype of the result, "float64" or "float32".

        Returns:
            A NumPy array of shape (n,), the diagonal of the kernel.

        Raises:
            ValueError: If an argument is invalid; see `lazynet.analytic_kernel`.

        >>> import numpy as np, lazynet as lz
        >>> lz.analytic_kernel(lz.TwoLayer(width=64)).diagonal(np.eye(3))
        array([0.5, 0.5, 0.5])
        """
        rows = real_array("x", x)
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"x must be a nonempty array of shape (n, d), got shape {rows.shape}.")
        blocks = (self.function(rows[i : i + DIAGONAL_BLOCK], None, dtype) for i in range(0, len(rows), DIAGONAL_BLOCK))
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
        `kernel(x1, x2=None, dtype="float64")` that also has a `diagonal(x)` method. The function takes arrays of shapes
        (n1, d) and (n2, d) with any real dtype and returns a NumPy array of shape (n1, n2) and dtype "float64" or
        "float32". If `x2` is omitted, the function returns the kernel of `x1` with itself, which is exactly symmetric.
        For `TwoLayer`, the kernel is computed block by block, without temporary arrays as large as the result, and
        omitting `x2` halves the computation time; the computation runs in `dtype` if the activation has a closed form,
        and in float64 otherwise. For other families, the kernel is computed in float64. For `MLP`, the computation
        needs several arrays as large as the result.

    Raises:
        ValueError: Raised by the returned function if `x1` or `x2` is not a matrix, if the rows of `x1` and `x2` differ
            in length, or if a row is not finite or has a norm whose square overflows or underflows. For
            activations without a closed form, also raised if kappa * norm(x) is too large (values up to 200 are
            accepted for all named activations), or if a user-defined activation is not smooth.

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
def _two_layer_kernel(network: TwoLayer) -> Callable[..., Float[np.ndarray, "n1 n2"]]:
    kappa = at_width(network.init_scale, network.width)
    alpha = at_width(network.output_scale, network.width)

    def kernel(
        x1: Num[Array | np.ndarray, "..."],
        x2: Num[Array | np.ndarray, "..."] | None = None,
        dtype: str = "float64",
    ) -> np.ndarray:
        """Return K(x1, x2) as an array of shape (n1, n2)."""
        x1, x2 = check_pair(x1, x2, dtype)
        result = tangent_dual(network.train, network.activation, x1, x2, kappa)
        result *= alpha**2
        return result

    return kernel


def check_pair(
    x1: Array | np.ndarray, x2: Array | np.ndarray | None, dtype: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the two inputs of a kernel function, and return their rows in the given dtype.

    Raises:
        ValueError: If the dtype or the rows are invalid; see `analytic_kernel`.
    """
    check_dtype(dtype)
    x1 = _check_rows(x1, "x1", dtype)
    x2 = None if x2 is None else _check_rows(x2, "x2", dtype)
    if x2 is not None and x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x2 must have rows of length {x1.shape[1]} to match x1, got length {x2.shape[1]}.")
    return x1, x2


def _check_rows(x: Array | np.ndarray, name: str, dtype: str) -> Float[np.ndarray, "n d"]:
    array = real_array(name, x)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{name} must be a nonempty array of shape (n, d), got shape {array.shape}.")
    rows = array.astype(dtype, copy=False)
    invalid = ~np.isfinite(rows).all(axis=1)
    if invalid.any():
        raise ValueError(f"{name} must have only finite entries, got NaN or infinity in row {np.argmax(invalid)}.")
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    invalid = ~((squares >= np.finfo(dtype).tiny) & np.isfinite(squares)) & array.any(axis=1)
    if invalid.any():
        row = np.argmax(invalid)
        raise ValueError(
            f"{name} must have rows whose squared norms are representable in {dtype}, got a norm of "
            f"{np.linalg.norm(array[row].astype(np.longdouble)):.3g} in row {row}. Rescale the rows."
        )
    return rows
