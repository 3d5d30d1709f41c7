"""The empirical tangent kernel of a finite network; that of a two-layer network from its activations alone."""

from functools import partial
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from lazynet.kernels._blockwise import Blockwise
from lazynet.networks import Network, hidden_layer_of, traits, value_and_slope, weights
from lazynet.plan import SMALL, available_memory
from lazynet.precision import float64, host_float64
from lazynet.programs import compiled
from lazynet.typing import AnyArray, Variables


@overload
def empirical_ntk(
    network: Any,
    variables: Variables,
    x1: AnyArray,
    x2: AnyArray | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    parts: Literal[False] = False,
    dtype: Literal["float64", "float32"] | None = None,
    memory: int | None = None,
) -> np.ndarray: ...


@overload
def empirical_ntk(
    network: Any,
    variables: Variables,
    x1: AnyArray,
    x2: AnyArray | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    parts: Literal[True],
    dtype: Literal["float64", "float32"] | None = None,
    memory: int | None = None,
) -> dict[str, np.ndarray]: ...


def empirical_ntk(
    network: Any,
    variables: Variables,
    x1: Float[AnyArray, "n1 ..."],
    x2: Float[AnyArray, "n2 ..."] | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    parts: bool = False,
    dtype: Literal["float64", "float32"] | None = None,
    memory: int | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """The empirical neural tangent kernel K_0(x, x') = J(x) J(x')' over the trained parameters.

    An array W that enters once, as in a dense layer y = W a with one vector a for each example, adds
    (a . a') (df_c/dy . df_c'/dy') by the chain rule, and a bias the second factor alone: no Jacobian is formed. Any
    other array, as of a convolution, in a loop or of two layers, has its Jacobian formed for a block of rows at a time.
    For `TwoLayer` the average of hidden part and readout part is (alpha^2 / m) x.x' sum_r mean_c(a_rc^2) S_r(x) S_r(x')
    and (alpha^2 / m) sum_r sigma(z_r(x)) sigma(z_r(x')), with S = sigma'(z) (Arora et al. 2019, section 3.1, H = Z'Z).

    Args:
        network: anything with a function `apply(variables, x)` that gives (n,) or (n, k), or that function itself. JAX
            must be able to trace and reverse it, and each output may depend on its own row of x only.
        variables: its variables, as `network.init` gives them. Derivatives are by the arrays in "params".
        x1: inputs (n1, d), or (n1, ...) where the network takes such.
        x2: inputs (n2, d); x1 when left out, which halves the work and makes the kernel exactly symmetric.
        outputs: "average" for the average over outputs, "all" for every pair of outputs.
        parts: whether to keep apart what each array in "params" adds to the kernel.
        dtype: in which to compute and return. Left out, it computes in the wider dtype of inputs and variables, float32
            where all of them are, and returns float64.
        memory: bytes that may be taken besides the result; left out, what is free.

    Returns:
        A NumPy array (n1, n2), or (n1, k, n2, k) for "all"; with parts, a dictionary of them that add up to the kernel,
        by path, such as "Dense_0/kernel".

    Raises:
        ValueError: before any work, if outputs or dtype is not one of those, network, variables or rows are not such,
            or the kernel of one row takes more memory.

    >>> import jax, lazynet as lz
    >>> network, x = lz.TwoLayer(width=64, train="both"), jax.numpy.eye(3)
    >>> variables = network.init(jax.random.key(0), x)
    >>> lz.empirical_ntk(network, variables, x).shape
    (3, 3)
    >>> sorted(lz.empirical_ntk(network, variables, x, parts=True))
    ['hidden', 'readout']
    """
    if outputs not in ("average", "all"):
        raise ValueError(f"outputs is {outputs!r}, but must be 'average' or 'all'.")
    if dtype not in ("float64", "float32", None):
        raise ValueError(f"dtype is {dtype!r}, but must be 'float64' or 'float32'.")
    _check_rows(x1, x2)
    arrays = dict(variables), x1, x2
    given = {getattr(a, "dtype", None) for a in jax.tree.leaves(arrays)}
    inside = dtype or ("float32" if {a for a in given if _is_floating(a)} == {np.dtype("float32")} else "float64")
    if traits(network).hidden_layer is not None and outputs == "average" and not parts:
        needed = _average_bytes(network, *arrays, inside)
        if needed <= (_room(needed) if memory is None else memory):
            with host_float64() if inside == "float64" else float64():
                cast = jax.tree.map(partial(_cast, dtype=inside), arrays)
                kernel = np.asarray(average_ntk(network, *cast, by_counting=_counts(network, variables)))
            return kernel.astype(dtype or "float64", copy=False)
    free = available_memory() if memory is None else memory
    names = _names(network, variables)
    precision = host_float64() if inside == "float64" else jax.default_matmul_precision("highest")
    # What a program takes is known once it is compiled.
    with precision, jax.disable_jit(False):
        build = Blockwise(network, jax.tree.map(partial(_floats_as, dtype=inside), dict(variables)), outputs, parts)
        kernels = build(np.asarray(x1), None if x2 is None else np.asarray(x2), memory=free, dtype=dtype or "float64")
    if outputs == "average":
        kernels = {place: kernel[:, 0, :, 0] for place, kernel in kernels.items()}
    if not parts:
        return kernels[0]
    # What the outputs do not depend on adds nothing.
    some = next(iter(kernels.values()))
    return {name: kernels[i] if i in kernels else np.zeros_like(some) for i, name in enumerate(names)}


def _room(needed: int) -> int:
    """Bytes that are free, looked up where it may not suffice."""
    return available_memory() if needed > SMALL else SMALL


def _check_rows(x1: AnyArray, x2: AnyArray | None) -> None:
    if x1.ndim < 2 or not len(x1):
        raise ValueError(f"x1 has shape {x1.shape}, but must have rows (n, d), at least one.")
    if x2 is not None and (x2.shape[1:] != x1.shape[1:] or not len(x2)):
        raise ValueError(f"x2 has shape {x2.shape}, but must have rows {x1.shape[1:]} as x1 has, at least one.")


def _names(network: Any, variables: Variables) -> list[str]:
    """The path of each array in "params"."""
    if not callable(getattr(network, "apply", network)):
        raise ValueError(f"network is a {type(network).__name__}, but must be or have a function apply(variables, x).")
    if "params" not in variables:
        raise ValueError(f"variables has {', '.join(map(repr, variables))}, but must have 'params'.")
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]:
        names.append(jax.tree_util.keystr(path, simple=True, separator="/"))
        dtype = getattr(leaf, "dtype", None)
        if not _is_floating(dtype):
            found = dtype or f"a {type(leaf).__name__}"
            raise ValueError(f"variables['params'] has {found} at {names[-1]!r}, but must have arrays of floats.")
    return names


def _floats_as(a: Any, dtype: str) -> Array:
    """An array in this dtype if it has floats, else as it is: counters, masks, keys."""
    return _cast(a, dtype) if _is_floating(getattr(a, "dtype", None)) else jnp.asarray(a)


def _is_floating(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _average_bytes(network: Network, variables: Variables, x1: AnyArray, x2: AnyArray | None, dtype: str) -> int:
    """Bytes that the average of a two-layer network takes at most besides the result."""
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    entries = (n1 + n2) * (3 * network.width + x1.shape[1]) + 3 * n1 * n2
    return np.dtype(dtype).itemsize * (entries + sum(leaf.size for leaf in jax.tree.leaves(variables)))


def _cast(a: AnyArray, dtype: str) -> Array:
    # Where there is nothing to cast, jnp.asarray costs a tenth of a small kernel; NumPy casts without a program.
    if isinstance(a, Array):
        return a if a.dtype == dtype else a.astype(dtype)
    return jnp.asarray(np.asarray(a, dtype))


def _counts(network: Network, variables: Variables) -> bool:
    """Whether the hidden part is a count: slopes are 0 or 1 and all readouts are +1 or -1."""
    return hidden_layer_of(network).binary_slopes and bool(np.all(np.abs(weights(variables, "readout")) == 1))


@compiled(static_argnames=("network", "by_counting"))
def average_ntk(
    network: Network, variables: Variables, x1: Array, x2: Array | None = None, *, by_counting: bool = False
) -> Array:
    """The empirical kernel averaged over outputs, (n1, n2), in the dtype of its arguments and traceable.

    With `by_counting`, right only where slopes are 0 or 1 and readouts +1 or -1, the sum over units is the number of
    those active on both inputs: the same numbers, on a CPU several times faster than the product.
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
