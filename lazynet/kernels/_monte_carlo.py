"""The mean of the empirical kernel over random starts, for networks without an analytic kernel and as a check of it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels._blockwise import as_static
from lazynet.kernels._layerwise import layers_of, product_of
from lazynet.typing import AnyArray, Variables


class MonteCarloKernel(NamedTuple):
    """A mean over starts, (n1, n2), and its standard error, (n1, n2), NumPy float64."""

    kernel: np.ndarray
    standard_error: np.ndarray
    starts: int


def monte_carlo_kernel(
    network: Any,
    x1: Float[AnyArray, "n1 ..."],
    x2: Float[AnyArray, "n2 ..."] | None = None,
    *,
    starts: int = 100,
    key: Array | None = None,
    progress: Callable[[int], None] | None = None,
) -> MonteCarloKernel:
    """Average the empirical kernel of a network, averaged over its outputs, over random starts.

    At width m its expectation differs from the kernel of infinite width by terms of order 1 / m, which no number of
    starts removes (Hanin and Nica 2020, Theorem 1, for relu).

    Args:
        network: anything with `init(key, x)` and `apply(variables, x)`, of one width.
        x1: inputs (n1, d).
        x2: inputs (n2, d); x1 when left out.
        starts: how many, at least 2.
        key: from which start i draws with fold_in(key, i); key(0) when left out.
        progress: is called with the number of starts done.

    Returns:
        MonteCarloKernel; each kernel is computed in float32, their mean in float64.

    Raises:
        ValueError: if there are fewer than two starts.

    >>> import numpy as np, lazynet as lz
    >>> network, x = lz.TwoLayer(width=256, symmetric=False), np.eye(2)
    >>> found = lz.monte_carlo_kernel(network, x, starts=20)
    >>> bool(abs(found.kernel - lz.analytic_kernel(network)(x)).max() < 5 * found.standard_error.max())
    True
    """
    if starts < 2:
        raise ValueError(f"starts is {starts}, but must be at least 2, or there is no standard error.")
    network = as_static(network)
    key = jax.random.key(0) if key is None else key
    rows1 = jnp.asarray(np.asarray(x1, np.float32))
    rows2 = None if x2 is None else jnp.asarray(np.asarray(x2, np.float32))
    mean = square = np.zeros(())
    with jax.default_matmul_precision("highest"):
        for i in range(starts):
            found = np.asarray(_of_start(network, jax.random.fold_in(key, i), rows1, rows2), np.float64)
            # Welford's update, which does not cancel.
            before = found - mean
            mean = mean + before / (i + 1)
            square = square + before * (found - mean)
            if progress is not None:
                progress(i + 1)
    return MonteCarloKernel(mean, np.sqrt(square / (starts - 1) / starts), starts)


@partial(jax.jit, static_argnames="network")
def _of_start(network: Any, key: Array, x1: Array, x2: Array | None) -> Array:
    return whole(layer_kernels(network, dict(network.init(key, x1)), x1, x2))


def layer_kernels(network: Any, variables: Variables, x1: Array, x2: Array | None = None) -> dict[int, Array]:
    """What each trained array adds to the empirical kernel averaged over outputs, (n1, n2), by its place; traceable.

    Arrays that outputs do not depend on are left out.
    """
    left = layers_of(network, variables, x1)
    right = left if x2 is None else layers_of(network, variables, x2)
    blocks = product_of(left, right, average=True, parts=True)
    return {place: blocks[place][:, 0, :, 0] for place in sorted(blocks)}


def whole(parts: dict[int, Array]) -> Array:
    """The kernel (n1, n2) of its parts."""
    first, *rest = parts.values()
    return sum(rest, first)
