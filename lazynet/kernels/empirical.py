"""The empirical tangent kernel of a finite two-layer network, from its activations alone."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

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
    given = [x1, *([] if x2 is None else [x2]), *jax.tree.leaves(dict(variables))]
    inside = dtype or ("float32" if all(a.dtype == "float32" for a in given) else "float64")
    compute = average_ntk if outputs == "average" else full_ntk
    with host_float64() if inside == "float64" else float64():
        cast = partial(jax.tree.map, partial(jnp.asarray, dtype=inside))
        kernel = np.asarray(compute(network, cast(dict(variables)), cast(x1), None if x2 is None else cast(x2)))
    return kernel.astype(dtype or "float64", copy=False)


@partial(jax.jit, static_argnums=0)
def average_ntk(network: TwoLayer, variables: Variables, x1: Array, x2: Array | None = None) -> Array:
    """The empirical kernel averaged over outputs, (n1, n2), in the dtype of its arguments and traceable."""
    hidden, readout = weights(variables, "hidden"), weights(variables, "readout")
    power = jnp.sqrt(jnp.mean(readout**2, axis=1))[None, :]

    def features(x: Array) -> tuple[Array, Array, Array]:
        value, slope = value_and_slope(network.activation, x @ hidden.T)
        return x, value, slope * power

    one = features(x1)
    if x2 is None:
        rows, values, slopes = x1 @ x1.T, _gram(one[1]), _gram(one[2])
    else:
        rows, values, slopes = (a @ b.T for a, b in zip(one, features(x2), strict=True))
    parts = {"hidden": rows * slopes, "readout": values, "both": rows * slopes + values}
    return output_factor(network) ** 2 * parts[network.train]


def _gram(a: Array) -> Array:
    """a a' by halves: the block below the diagonal is that above it, a quarter of the work."""
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
