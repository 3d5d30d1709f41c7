"""Mean of the empirical kernel over random initializations, used to check or replace analytic kernels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Real

from lazynet.arguments import calls_of, check_callback, check_count, check_key
from lazynet.arrays import real_array
from lazynet.kernels._blockwise import as_static
from lazynet.kernels._checks import check_norms, check_rows
from lazynet.kernels._layerwise import Differentiable, layers_of, product_of
from lazynet.networks import Model, check_model, check_rows_alone, traits
from lazynet.plan import MOST, check_memory
from lazynet.programs import compiled, entry
from lazynet.typing import AnyArray, Variables


class MonteCarloKernel(NamedTuple):
    """Mean of the empirical kernel over random initializations, with its standard error.

    Both are NumPy float64 arrays.

    Attributes:
        kernel: Mean over initializations, shape (n1, n2).
        standard_error: Standard error of the mean, shape (n1, n2).
        starts: Number of initializations.
    """

    kernel: np.ndarray
    standard_error: np.ndarray
    starts: int


@runtime_checkable
class Drawn(Model, Protocol):
    """Object that can be randomly initialized and evaluated, with the methods `init` and `apply` of a `Network`."""

    def init(self, key: Array, x: AnyArray, /) -> Mapping[str, Any]:
        """Return the initial variables."""
        ...


@entry
def monte_carlo_kernel(
    network: Drawn,
    x1: Real[AnyArray, "n1 ..."],
    x2: Real[AnyArray, "n2 ..."] | None = None,
    *,
    starts: int = 100,
    key: Array | None = None,
    progress: Callable[[int], None] | None = None,
) -> MonteCarloKernel:
    """Average the empirical kernel of a network over random initializations and over outputs.

    At width m, the expectation of the empirical kernel differs from the infinite-width kernel by terms of order 1 / m,
    which averaging over more initializations does not remove (Hanin and Nica 2020, Theorem 1, for relu).

    Args:
        network: Object with methods `init(key, x)` and `apply(variables, x)`.
        x1: Inputs, shape (n1, d).
        x2: Inputs, shape (n2, d). Defaults to `x1`.
        starts: Number of initializations, at least 2.
        key: JAX random key. Initialization i uses `fold_in(key, i)`. Defaults to `jax.random.key(0)`.
        progress: Function that is called after each initialization with the number of initializations completed so far.

    Returns:
        A `MonteCarloKernel`. Each kernel is computed in float32, and the mean is computed in float64.

    Raises:
        ValueError: If `starts` is less than 2, if the squared norm of a nonzero floating-point row overflows or
            underflows in float32, or if the kernel does not fit in memory.

    >>> import numpy as np, lazynet as lz
    >>> network, x = lz.TwoLayer(width=256, symmetric=False), np.eye(2)
    >>> mean = lz.monte_carlo_kernel(network, x, starts=20)
    >>> bool(abs(mean.kernel - lz.analytic_kernel(network)(x)).max() < 5 * mean.standard_error.max())
    True
    """
    starts = check_count("starts", starts, 2, most=MOST)
    check_model(network, "init", "apply")
    check_callback("progress", progress)
    static: Any = as_static(network)
    key = jax.random.key(0) if key is None else check_key(key)
    x1, x2 = real_array("x1", x1), None if x2 is None else real_array("x2", x2)
    check_rows(x1, x2)
    check_norms("x1", x1, "float32")
    if x2 is not None:
        check_norms("x2", x2, "float32")
    # Integers, such as token ids, are passed to user-supplied networks as integers.
    kinds = {x.dtype.kind for x in (x1, x2) if x is not None}
    dtype = np.int32 if kinds <= {"i", "u"} and traits(network).integers else np.float32
    rows1 = jnp.asarray(x1.astype(dtype))
    rows2 = None if x2 is None else jnp.asarray(x2.astype(dtype))
    # Memory is needed for five float64 arrays of the kernel's shape, including the mean, and for three float32 arrays
    # on the device.
    check_memory("The mean kernel", (5 * 8 + 3 * 4) * len(rows1) * len(rows1 if rows2 is None else rows2))
    mean = square = np.zeros(())
    with jax.default_matmul_precision("highest"):
        if len(rows1) > 1 and traits(network).custom:
            check_rows_alone(static, dict(network.init(key, rows1[:2])), rows1[:2])
        for i in range(starts):
            kernel = np.asarray(_kernel_at_start(static, jax.random.fold_in(key, i), rows1, rows2), np.float64)
            # Welford's algorithm avoids cancellation.
            deviation = kernel - mean
            mean = mean + deviation / (i + 1)
            square = square + deviation * (kernel - mean)
            if progress is not None:
                with calls_of("progress"):
                    progress(i + 1)
    return MonteCarloKernel(mean, np.sqrt(square / (starts - 1) / starts), starts)


@compiled(static_argnames="network")
def _kernel_at_start(network: Drawn, key: Array, x1: Array, x2: Array | None) -> Array:
    return sum_layer_kernels(layer_kernels(network, dict(network.init(key, x1)), x1, x2))


def layer_kernels(
    network: Differentiable, variables: Variables, x1: Array, x2: Array | None = None
) -> dict[int, Array]:
    """Compute the contribution of each trained array to the empirical kernel, averaged over outputs.

    JAX can trace this function.

    Args:
        network: Hashable network, as in `lazynet.empirical_ntk`.
        variables: Variables of the network.
        x1: Inputs, shape (n1, ...).
        x2: Inputs, shape (n2, ...). Defaults to `x1`.

    Returns:
        A dictionary that maps the position of each array in "params" to a kernel of shape (n1, n2). Arrays that the
        outputs do not depend on are omitted.
    """
    left = layers_of(network, variables, x1)
    right = left if x2 is None else layers_of(network, variables, x2)
    blocks = product_of(left, right, average=True, parts=True)
    return {position: blocks[position][:, 0, :, 0] for position in sorted(blocks)}


def sum_layer_kernels(parts: dict[int, Array]) -> Array:
    """Sum the contributions of all trained arrays to the empirical kernel.

    Args:
        parts: Dictionary of kernels of shape (n1, n2), as returned by `layer_kernels`.

    Returns:
        The empirical kernel, averaged over outputs, shape (n1, n2).
    """
    first, *rest = parts.values()
    return sum(rest, first)
