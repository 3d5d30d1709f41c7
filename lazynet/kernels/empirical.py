"""The empirical tangent kernel of a finite two-layer network, from its activations alone."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from lazynet.networks import TwoLayer, output_factor, value_and_slope, weights
from lazynet.precision import float64, host_float64
from lazynet.typing import AnyArray, Variables


def empirical_ntk(
    network: TwoLayer,
    variables: Variables,
    x1: Float[AnyArray, "n1 d"],
    x2: Float[AnyArray, "n2 d"] | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    dtype: Literal["float64", "float32"] | None = None,
) -> np.ndarray:
    """The empirical neural tangent kernel K_0(x, x') = J(x) J(x')' over the trained parameters.

    With z = x W' and S = sigma'(z), hidden part and readout part of output pair (c, c') are
    (alpha^2 / m) x.x' sum_r a_rc a_rc' S_r(x) S_r(x') and [c = c'] (alpha^2 / m) sum_r sigma(z_r(x)) sigma(z_r(x'))
    (Arora et al. 2019, section 3.1, H = Z'Z). No Jacobian is formed.

    Args:
        network: the two-layer network.
        variables: its variables, as `network.init` gives them.
        x1: inputs (n1, d).
        x2: inputs (n2, d); x1 when left out.
        outputs: "average" for the average over outputs, "all" for every pair of outputs.
        dtype: in which to compute and return. Left out, it computes in the wider dtype of inputs and variables, float32
            where all of them are, and returns float64.

    Returns:
        A NumPy array (n1, n2), or (n1, k, n2, k) for "all".

    Raises:
        ValueError: if outputs or dtype is not one of those.

    >>> import jax, lazynet as lz
    >>> network, x = lz.TwoLayer(width=64), jax.numpy.eye(3)
    >>> lz.empirical_ntk(network, network.init(jax.random.key(0), x), x).shape
    (3, 3)
    """
    if outputs not in ("average", "all"):
        raise ValueError(f"outputs is {outputs!r}, but must be 'average' or 'all'.")
    if dtype not in ("float64", "float32", None):
        raise ValueError(f"dtype is {dtype!r}, but must be 'float64' or 'float32'.")
    arrays = dict(variables), x1, x2
    given = {a.dtype for a in jax.tree.leaves(arrays)}
    inside = dtype or ("float32" if given == {np.dtype("float32")} else "float64")
    with host_float64() if inside == "float64" else float64():
        arrays = jax.tree.map(partial(_cast, dtype=inside), arrays)
        if outputs == "average":
            kernel = np.asarray(average_ntk(network, *arrays, by_counting=_counts(network, variables)))
        else:
            kernel = np.asarray(full_ntk(network, *arrays))
    return kernel.astype(dtype or "float64", copy=False)


def _cast(a: AnyArray, dtype: str) -> Array:
    # Where there is nothing to cast, jnp.asarray costs a tenth of a small kernel.
    return a if isinstance(a, Array) and a.dtype == dtype else jnp.asarray(a, dtype)


def _counts(network: TwoLayer, variables: Variables) -> bool:
    """Whether the hidden part is a count: slopes are 0 or 1 and all readouts are +1 or -1."""
    return network.activation == "relu" and bool(np.all(np.abs(weights(variables, "readout")) == 1))


@partial(jax.jit, static_argnames=("network", "by_counting"))
def average_ntk(
    network: TwoLayer, variables: Variables, x1: Array, x2: Array | None = None, *, by_counting: bool = False
) -> Array:
    """The empirical kernel averaged over outputs, (n1, n2), in the dtype of its arguments and traceable.

    With `by_counting`, right only where slopes are 0 or 1 and readouts +1 or -1, the sum over units is the number of
    those active on both inputs: the same numbers, on a CPU several times faster than the product.
    """
    hidden, readout = weights(variables, "hidden"), weights(variables, "readout")
    power = jnp.sqrt(jnp.mean(readout**2, axis=1))[None, :]

    def features(x: Array) -> tuple[Array, Array, Array]:
        return x, *value_and_slope(network.activation, x @ hidden.T)

    def slope_products(a: Array, b: Array) -> Array:
        return _product(a * power, b * power)

    def counted(a: Array, b: Array) -> Array:
        return active_on_both(a > 0, b > 0).astype(a.dtype)

    rows1, values1, slopes1 = features(x1)
    rows2, values2, slopes2 = (rows1, values1, slopes1) if x2 is None else features(x2)
    if network.train == "readout":
        return output_factor(network) ** 2 * _product(values1, values2)
    if by_counting:
        slopes = jax.lax.platform_dependent(slopes1, slopes2, cpu=counted, default=slope_products)
    else:
        slopes = slope_products(slopes1, slopes2)
    kernel = (rows1 @ rows2.T) * slopes
    if network.train == "both":
        kernel += _product(values1, values2)
    return output_factor(network) ** 2 * kernel


def active_on_both(active1: Bool[Array, "n1 m"], active2: Bool[Array, "n2 m"]) -> Int[Array, "n1 n2"]:
    """How many units are active on both of two inputs: 32 units to a word, words in blocks that fit the registers."""
    block = 8

    def words(active: Array) -> Array:
        padded = jnp.pad(active.T, ((0, -active.shape[1] % (32 * block)), (0, 0)))
        bits = padded.reshape(-1, block, 32, active.shape[0]).astype(jnp.uint32)
        return jnp.sum(bits << jnp.arange(32, dtype=jnp.uint32)[None, None, :, None], axis=2, dtype=jnp.uint32)

    # In one array: with two, XLA's code for the loop is seven times slower.
    n1 = len(active1)
    pairs = jnp.concatenate([words(active1), words(active2)], axis=2)

    def add(i: Array, count: Array) -> Array:
        return count + sum(jax.lax.population_count(word[:n1, None] & word[None, n1:]) for word in pairs[i])

    zero = jnp.zeros((n1, len(active2)), jnp.uint32)
    return jax.lax.fori_loop(0, len(pairs), add, zero).astype(jnp.int32)


def _product(a: Array, b: Array) -> Array:
    """a b'; of an array with itself by halves, since the block below the diagonal is that above it: 3/4 of the work."""
    if a is not b:
        return a @ b.T
    half = len(a) // 2
    above, below = a[:half] @ a.T, a[half:] @ a[half:].T
    return jnp.concatenate([above, jnp.concatenate([above[:, half:].T, below], axis=1)])


@partial(jax.jit, static_argnums=0)
def full_ntk(network: TwoLayer, variables: Variables, x1: Array, x2: Array | None = None) -> Array:
    """The empirical kernel of every pair of outputs, (n1, k, n2, k), in the dtype of its arguments and traceable."""
    if network.outputs == 1:
        return average_ntk(network, variables, x1, x2)[:, None, :, None]
    x2 = x1 if x2 is None else x2
    hidden, readout = weights(variables, "hidden"), weights(variables, "readout")
    value1, slope1 = value_and_slope(network.activation, x1 @ hidden.T)
    value2, slope2 = value_and_slope(network.activation, x2 @ hidden.T)
    kernel = jnp.zeros((x1.shape[0], network.outputs, x2.shape[0], network.outputs), x1.dtype)
    if network.train != "readout":
        features1 = slope1[:, None, :] * readout.T[None]
        features2 = slope2[:, None, :] * readout.T[None]
        kernel += (x1 @ x2.T)[:, None, :, None] * jnp.einsum("icr,jdr->icjd", features1, features2)
    if network.train != "hidden":
        same_output = jnp.eye(network.outputs, dtype=x1.dtype)
        kernel += (value1 @ value2.T)[:, None, :, None] * same_output[None, :, None, :]
    return output_factor(network) ** 2 * kernel
