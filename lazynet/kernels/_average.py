"""Empirical tangent kernel of a two-layer network, averaged over outputs, from slopes and pre-activations."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

from lazynet.networks import Network, hidden_layer_of, value_and_slope, weights
from lazynet.programs import compiled
from lazynet.typing import Variables


@compiled(static_argnames=("network", "by_counting"))
def average_ntk(
    network: Network, variables: Variables, x1: Array, x2: Array | None = None, *, by_counting: bool = False
) -> Array:
    """Compute the empirical kernel of a two-layer network, averaged over outputs.

    JAX can trace this function.

    Args:
        network: Two-layer network.
        variables: Variables of the network.
        x1: Inputs, shape (n1, d).
        x2: Inputs, shape (n2, d). Defaults to `x1`.
        by_counting: Whether to count, on CPUs, the units that are active for both inputs instead of summing over all
            units. Counting is several times faster and gives identical results, but it is valid only if slopes are 0 or
            1 and readout weights are +1 or -1.

    Returns:
        The kernel, shape (n1, n2), in the dtype of the arguments.
    """
    layer, hidden, readout = hidden_layer_of(network), weights(variables, "hidden"), weights(variables, "readout")
    power = jnp.sqrt(jnp.mean(readout**2, axis=1))[None, :]

    def features(x: Array) -> tuple[Array, Array, Array]:
        return x, *value_and_slope(layer.activation, x @ hidden.T)

    def slope_products(a: Array, b: Array) -> Array:
        return _product(a * power, b * power)

    def counted(a: Array, b: Array) -> Array:
        return active_on_both(a > 0, b > 0).astype(a.dtype)

    rows1, values1, slopes1 = features(x1)
    rows2, values2, slopes2 = (rows1, values1, slopes1) if x2 is None else features(x2)
    if layer.train == "readout":
        return layer.factor**2 * _product(values1, values2)
    if by_counting:
        slopes = jax.lax.platform_dependent(slopes1, slopes2, cpu=counted, default=slope_products)
    else:
        slopes = slope_products(slopes1, slopes2)
    kernel = (rows1 @ rows2.T) * slopes
    if layer.train == "both":
        kernel += _product(values1, values2)
    return layer.factor**2 * kernel


def active_on_both(active1: Bool[Array, "n1 m"], active2: Bool[Array, "n2 m"]) -> Int[Array, "n1 n2"]:
    """Count, for each pair of inputs, the units that are active for both.

    The bits for 32 units are packed into a word, and words are processed in blocks that fit in registers.
    """
    block = 8

    def words(active: Array) -> Array:
        padded = jnp.pad(active.T, ((0, -active.shape[1] % (32 * block)), (0, 0)))
        bits = padded.reshape(-1, block, 32, active.shape[0]).astype(jnp.uint32)
        return jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32)[None, None, :, None], axis=2, dtype=jnp.uint32)

    # Under XLA, a loop over one array is seven times faster than a loop over two arrays.
    n1 = len(active1)
    pairs = jnp.concatenate([words(active1), words(active2)], axis=2)

    def add(i: Array, count: Array) -> Array:
        return count + sum(jax.lax.population_count(word[:n1, None] & word[None, n1:]) for word in pairs[i])

    zero = jnp.zeros((n1, len(active2)), jnp.uint32)
    return jax.lax.fori_loop(0, len(pairs), add, zero).astype(jnp.int32)


def _product(a: Array, b: Array) -> Array:
    """Return the product a b'.

    If a and b are the same array, the lower-left block is filled with the transpose of the upper-right block, which
    saves a quarter of the work.
    """
    if a is not b:
        return a @ b.T
    half = len(a) // 2
    above, below = a[:half] @ a.T, a[half:] @ a[half:].T
    return jnp.concatenate([above, jnp.concatenate([above[:, half:].T, below], axis=1)])
