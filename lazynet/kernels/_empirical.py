"""Empirical tangent kernels of finite networks, with a shortcut for two-layer networks."""

from functools import partial
from typing import Any, Literal, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Real

from lazynet.arguments import check_choice, check_count, check_flag
from lazynet.arrays import is_traced, traceable_array
from lazynet.kernels._average import average_ntk
from lazynet.kernels._blockwise import Blockwise, as_static
from lazynet.kernels._checks import check_dtype, check_norms, check_rows
from lazynet.kernels._layerwise import Differentiable, function_of, layers_of, product_of
from lazynet.kernels._traced import concrete, traced_dtype
from lazynet.networks import (
    Network,
    check_model,
    check_params,
    check_rows_alone,
    check_rows_apart,
    check_variables,
    hidden_layer_of,
    traits,
    weights,
)
from lazynet.plan import SMALL, available_memory, check_memory
from lazynet.precision import float64, host_float64
from lazynet.programs import entry
from lazynet.typing import AnyArray, Variables

# Exceptions that networks raise if they mix dtypes.
MIXED = (TypeError, jax.dtypes.TypePromotionError)


@overload
def empirical_ntk(
    network: Differentiable,
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
    network: Differentiable,
    variables: Variables,
    x1: AnyArray,
    x2: AnyArray | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    parts: Literal[True],
    dtype: Literal["float64", "float32"] | None = None,
    memory: int | None = None,
) -> dict[str, np.ndarray]: ...


@entry
def empirical_ntk(
    network: Differentiable,
    variables: Variables,
    x1: Real[AnyArray, "n1 ..."],
    x2: Real[AnyArray, "n2 ..."] | None = None,
    *,
    outputs: Literal["average", "all"] = "average",
    parts: bool = False,
    dtype: Literal["float64", "float32"] | None = None,
    memory: int | None = None,
) -> Any:
    """Compute the empirical neural tangent kernel K_0(x, x') = J(x) J(x')' with respect to the trained parameters.

    If an array W is used only once, in a dense layer y = W a with one vector a per example, its contribution is
    (a . a') (df_c/dy . df_c'/dy') by the chain rule, and the contribution of a bias is the second factor alone. No
    Jacobian is formed for such arrays. For any other array, such as the kernel of a convolution or an array used in a
    loop or in two layers, the Jacobian is formed for one block of rows at a time.

    For `TwoLayer`, the average over outputs is computed from the pre-activations z, the slopes S = sigma'(z) and the
    readout weights a_rc of unit r and output c. The hidden layer contributes
    (alpha^2 / m) x.x' sum_r mean_c(a_rc^2) S_r(x) S_r(x'), and the readout contributes
    (alpha^2 / m) sum_r sigma(z_r(x)) sigma(z_r(x')), where alpha is the output scale and m is the width (Arora et al.
    2019, section 3.1, H = Z'Z).

    Args:
        network: Object with a method `apply(variables, x)`, or a function of `(variables, x)`, that returns outputs of
            shape (n,) or (n, k). JAX must be able to trace the function and differentiate it in reverse mode, and each
            output may depend only on the corresponding row of x.
        variables: Variables of the network, as returned by `network.init`. Derivatives are taken with respect to
            "params".
        x1: Inputs, shape (n1, d), or (n1, ...) if the network accepts such inputs. Integers, such as token ids, are
            passed to user-supplied networks as integers.
        x2: Inputs, shape (n2, d). Defaults to `x1`, which halves the work and makes the kernel exactly symmetric.
        outputs: "average" for the average over outputs, or "all" for all pairs of outputs.
        parts: Whether to return a separate contribution for each array in "params" instead of the sum.
        dtype: Dtype of the computation and the result, "float64" or "float32". By default, the result is float64, and
            the computation runs in float64 unless all floating-point inputs and variables are float32 or the network
            runs only in float32 (for example, because its recurrent layers create float32 carries).
        memory: Memory limit in bytes, not counting the result. Defaults to the free memory minus the size of the
            result.

    Returns:
        A NumPy array of shape (n1, n2), or (n1, k, n2, k) if `outputs` is "all". If `parts` is true, a dictionary of
        such arrays, which sum to the kernel. The keys are paths such as "Dense_0/kernel".

        In functions that JAX jits, batches or differentiates, any of `variables`, `x1` and `x2` may be traced. The
        result is then a traced array as well. It is computed as a whole instead of in blocks, on JAX's current device.
        Unless `dtype` is given, the computation uses float64 if JAX promotes the arrays to float64, and float32
        otherwise.

    Raises:
        ValueError: If an argument is invalid, if the result does not fit in memory, or if the kernel for a single pair
            of rows exceeds the memory limit. The error is raised before the kernel is computed.

    >>> import jax, lazynet as lz
    >>> network, x = lz.TwoLayer(width=64, train="both"), jax.numpy.eye(3)
    >>> variables = network.init(jax.random.key(0), x)
    >>> lz.empirical_ntk(network, variables, x).shape
    (3, 3)
    >>> sorted(lz.empirical_ntk(network, variables, x, parts=True))
    ['hidden', 'readout']
    """
    check_choice("outputs", outputs, ("average", "all"))
    check_flag("parts", parts)
    if memory is not None:
        check_count("memory", memory, 0)
    if dtype is not None:
        check_dtype(dtype)
    x1 = _real_rows("x1", x1)
    x2 = None if x2 is None else _real_rows("x2", x2)
    check_rows(x1, x2)
    check_model(network)
    check_params(variables)
    check_variables(network, variables, x1)
    if is_traced(dict(variables), x1, x2):
        if memory is not None:
            raise ValueError(f"memory must be None for traced arrays, got {memory}.")
        return _traced_kernel(network, variables, x1, x2, outputs == "average", parts, dtype)
    try:
        with concrete():
            return _concrete_kernel(network, variables, x1, x2, outputs, parts, dtype, memory)
    except Exception:
        # A network whose function closes over traced values fails here.
        if memory is not None or not _closes_over_traced(network, variables, x1):
            raise
    return _traced_kernel(network, variables, x1, x2, outputs == "average", parts, dtype)


def _closes_over_traced(network: Differentiable, variables: Variables, x: AnyArray) -> bool:
    """Return whether a network's function uses traced values other than its arguments."""
    try:
        constants = jax.make_jaxpr(function_of(network))(dict(variables), jnp.asarray(x[:1])).consts
    except Exception:
        return False
    return is_traced(constants)


def _concrete_kernel(
    network: Differentiable,
    variables: Variables,
    x1: AnyArray,
    x2: AnyArray | None,
    outputs: str,
    parts: bool,
    dtype: str | None,
    memory: int | None,
) -> np.ndarray | dict[str, np.ndarray]:
    arrays = dict(variables), x1, x2
    dtypes = {getattr(a, "dtype", None) for a in jax.tree.leaves(arrays)}
    all_float32 = {a for a in dtypes if _is_floating(a)} == {np.dtype("float32")}
    compute_dtype = dtype or ("float32" if all_float32 else "float64")
    if compute_dtype == "float32":
        check_norms("x1", x1, compute_dtype)
        if x2 is not None:
            check_norms("x2", x2, compute_dtype)
    result = np.dtype(dtype or "float64").itemsize * len(x1) * len(x1 if x2 is None else x2)
    # This is the size of the result for one array and one pair of outputs; the total size is checked later.
    check_memory("The empirical kernel", result)
    if traits(network).hidden_layer is not None and outputs == "average" and not parts:
        layered = cast(Network, network)
        needed = _average_bytes(layered, *arrays, compute_dtype)
        if needed <= (_room(needed + result) - result if memory is None else memory):
            with host_float64() if compute_dtype == "float64" else float64():
                converted = jax.tree.map(partial(_cast, dtype=compute_dtype), arrays)
                kernel = np.asarray(average_ntk(layered, *converted, by_counting=_counts(layered, variables)))
            return kernel.astype(dtype or "float64", copy=False)
    names = _names(network, variables)

    def kernels_in(compute_dtype: str) -> dict[int, np.ndarray]:
        precision = host_float64() if compute_dtype == "float64" else jax.default_matmul_precision("highest")
        # The memory that a program needs is known only after compilation, so jit must be enabled.
        with precision, jax.disable_jit(False):
            converted = jax.tree.map(partial(_floats_as, dtype=compute_dtype), dict(variables))
            build = Blockwise(network, converted, outputs, parts, _integers(network, x1, x2))
            few = x1[:2] if len(x1) > 1 or x2 is None else np.concatenate([x1, x2[:1]])
            if traits(network).custom and len(few) > 1:
                check_rows_alone(build.network, converted, jnp.asarray(few, build.dtype))
            more = None if x2 is None else np.asarray(x2)
            return build(np.asarray(x1), more, memory=memory, dtype=dtype or "float64")

    try:
        kernels = kernels_in(compute_dtype)
    except MIXED:
        # The network may create float32 arrays (for example, the carries of recurrent layers), which cannot be combined
        # with float64 arrays.
        runs = {kind: _runs_in(kind, network, variables, x1) for kind in ("float32", "float64")}
        if compute_dtype != "float64" or runs["float64"] or not runs["float32"]:
            raise
        if dtype == "float64":
            raise ValueError(
                "dtype must be 'float32' or None for this network, got 'float64'. The network creates float32 arrays, "
                "such as the carries of recurrent layers."
            ) from None
        kernels = kernels_in("float32")
    return _finished(kernels, names, outputs == "average", parts)


def _finished(kernels: dict[int, Any], names: list[str], average: bool, parts: bool) -> Any:
    """Return the whole kernel or each array's contribution, without the output axes if `average` is true."""
    if average:
        kernels = {position: kernel[:, 0, :, 0] for position, kernel in kernels.items()}
    if not parts:
        return kernels[0]
    # Arrays that the outputs do not depend on contribute zero.
    some = next(iter(kernels.values()))
    array: Any = np if isinstance(some, np.ndarray) else jnp
    return {name: kernels[i] if i in kernels else array.zeros_like(some) for i, name in enumerate(names)}


def _traced_kernel(
    network: Differentiable,
    variables: Variables,
    x1: AnyArray,
    x2: AnyArray | None,
    average: bool,
    parts: bool,
    dtype: str | None,
) -> Any:
    """Compute the kernel of traced arrays as a whole, in their dtype, on JAX's current device."""
    names = _names(network, variables)
    leaves = jax.tree.leaves((dict(variables), x1, x2))
    floating = [leaf for leaf in leaves if _is_floating(getattr(leaf, "dtype", None))]
    integers, static = _integers(network, x1, x2), as_static(network)

    def computed(variables: Variables, sides: list[Array]) -> dict[int, Array]:
        layers = [layers_of.function(static, variables, x) for x in sides]
        result: dict[int, Array] = product_of.function(layers[0], layers[-1], average=average, parts=parts)
        return result

    def kernels_in(working: str) -> dict[int, Array]:
        converted = jax.tree.map(partial(_floats_as, dtype=working), dict(variables))
        sides = [jnp.asarray(x, working if integers is None else integers) for x in (x1, x2) if x is not None]
        with jax.default_matmul_precision("highest"):
            if traits(network).custom:
                check_rows_apart(static, converted, sides[0])
            return jax.jit(computed)(converted, sides)

    working = traced_dtype(dtype, *floating)
    try:
        kernels = kernels_in(working)
    except MIXED:
        # The network may create float32 arrays, as in `_concrete_kernel`.
        if dtype is not None or working == "float32":
            raise
        kernels = kernels_in("float32")
    if x2 is None:
        kernels = {position: (block + block.transpose(2, 3, 0, 1)) / 2 for position, block in kernels.items()}
    return _finished(kernels, names, average, parts)


def _integers(network: Differentiable, x1: AnyArray, x2: AnyArray | None) -> Any:
    """Return the integer dtype of a network's input rows, or None if the network does not receive integers."""
    dtype = np.result_type(x1.dtype, (x1 if x2 is None else x2).dtype)
    return jax.dtypes.canonicalize_dtype(dtype) if dtype.kind in "iu" and traits(network).integers else None


def _runs_in(dtype: str, network: Differentiable, variables: Variables, x: AnyArray) -> bool:
    """Return whether JAX can trace the network with floating-point arrays of the given dtype."""
    with host_float64():
        tree = jax.tree.map(partial(_floats_as, dtype=dtype), dict(variables))
        rows = jnp.asarray(x[:1], dtype if _is_floating(x.dtype) else None)
        try:
            jax.eval_shape(function_of(network), tree, rows)
        except MIXED:
            return False
    return True


def _room(needed: int) -> int:
    """Return the free memory in bytes, or `SMALL` for jobs so small that the lookup would take as long as the job."""
    return available_memory() if needed > SMALL else SMALL


def _real_rows(name: str, x: AnyArray) -> AnyArray:
    """Return the rows after checking that they are real numbers; floating-point JAX arrays stay on their device."""
    return x if isinstance(x, Array) and _is_floating(x.dtype) else traceable_array(name, x)


def _names(network: Differentiable, variables: Variables) -> list[str]:
    """Return the path of each array in "params".

    Raises:
        ValueError: If the network is not a function and has no `apply` method, or if "params" has leaves that are not
            float arrays.
    """
    if not callable(getattr(network, "apply", network)):
        raise ValueError(
            f"network must be a function or have an apply(variables, x) method, got {type(network).__name__}."
        )
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]:
        names.append(jax.tree_util.keystr(path, simple=True, separator="/"))
        dtype = getattr(leaf, "dtype", None)
        if not _is_floating(dtype):
            kind = dtype or type(leaf).__name__
            raise ValueError(f"variables['params'] must contain only float arrays, got {kind} at {names[-1]!r}.")
    return names


def _floats_as(a: Any, dtype: str) -> Array:
    """Convert a float array to the given dtype; other arrays (counters, masks and keys) keep their dtypes."""
    return _cast(a, dtype) if _is_floating(getattr(a, "dtype", None)) else jnp.asarray(a)


def _is_floating(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _average_bytes(network: Network, variables: Variables, x1: AnyArray, x2: AnyArray | None, dtype: str) -> int:
    """Return an upper bound on the number of bytes that `average_ntk` needs in addition to the result."""
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    entries = (n1 + n2) * (3 * network.width + x1.shape[1]) + 3 * n1 * n2
    return np.dtype(dtype).itemsize * (entries + sum(leaf.size for leaf in jax.tree.leaves(variables)))


def _cast(a: AnyArray, dtype: str) -> Array:
    # For JAX arrays, calling jnp.asarray would add 10% to the time it takes to compute a small kernel. Other arrays are
    # cast in NumPy, because a cast in JAX would have to be compiled.
    if isinstance(a, Array):
        return a if a.dtype == dtype else a.astype(dtype)
    return jnp.asarray(np.asarray(a, dtype))


def _counts(network: Network, variables: Variables) -> bool:
    """Return whether `average_ntk` can count active units (slopes must be 0 or 1, and readout weights +1 or -1)."""
    return hidden_layer_of(network).binary_slope and bool(np.all(np.abs(weights(variables, "readout")) == 1))
