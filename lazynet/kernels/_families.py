"""The kernels of infinite width of deep and of convolutional networks, layer by layer."""

from collections.abc import Callable, Hashable

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Num

from lazynet.kernels._analytic import analytic_kernel, check_pair, limit_key
from lazynet.kernels._covariance import covariance_dual
from lazynet.networks import MLP, Adapted, Centered, ConvNet, at_width, get_parametrization, patches
from lazynet.plan import check_memory
from lazynet.precision import host_float64
from lazynet.typing import AnyArray

Rows = Num[Array | np.ndarray, "..."]
Kernel = Callable[..., Float[np.ndarray, "n1 n2"]]
# Matrices of the size of the result that are held at a time.
HELD = 8
# Pairs of patches that are compared at a time.
PAIRS = 2**21


@analytic_kernel.register(MLP)
def _deep_kernel(network: MLP) -> Kernel:
    """Jacot, Gabriel and Hongler 2018, Theorem 1, with the factors of any parametrization at the network's own width.

    With E and E' for the expectations over sigma and sigma' at covariance S_l = s_l^2 E_(l-1) + b_l^2, where s_l^2 is
    the sum of the variances of effective weights m^(-a_l) w_l that enter a unit, the tangent kernel of z_l is

        T_l = g_l E_(l-1) + s_l^2 T_(l-1) E'_(l-1),  g_l = m^(1 - 2 a_l), and 1 in place of m in the first layer,

    and that of the outputs alpha^2 m^(1 - 2 a) (E + m^(-2 b) T E'), the readout's part and that of hidden layers.
    """
    exponents, m = get_parametrization(network.parametrization), float(network.width)
    kappa, alpha = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> np.ndarray:
        """K(x1, x2), NumPy (n1, n2)."""
        x1, x2 = _float64_pair(x1, x2, dtype)
        other = x1 if x2 is None else x2
        check_memory(f"The kernel of {len(x1)} times {len(other)} rows", 8 * HELD * len(x1) * len(other))
        value = x1 @ other.T
        variances = [np.einsum("ij,ij->i", x, x) for x in (x1, other)]
        tangent = slope = np.zeros_like(value)
        for layer in range(1, network.depth + 1):
            place, entering = min(layer, 2) - 1, 0.0 if layer == 1 else 1.0
            a, b = exponents.forward[place], exponents.init[place]
            gradient, variance = m ** (entering - 2 * a), kappa**2 * m ** (entering - 2 * a - 2 * b)
            bias = (network.bias_scale * m**-b) ** 2
            tangent = gradient * value + variance * tangent * slope
            variances = [variance * each + bias for each in variances]
            value, slope, *variances = covariance_dual(network.activation, variance * value + bias, *variances)
        parts = np.zeros_like(value)
        if network.train != "hidden":
            parts += value
        if network.train != "readout":
            parts += m ** (-2 * exponents.init[2]) * tangent * slope
        return _finished(alpha**2 * m ** (1 - 2 * exponents.forward[2]) * parts, x2, dtype)

    return kernel


@limit_key.register(MLP)
def _of_deep(network: MLP) -> Hashable:
    """The width is left out where the kernel does not depend on it."""
    forward, init, _ = get_parametrization(network.parametrization)
    scales = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))
    # The powers of m in `_deep_kernel`, as long as each of their exponents is zero.
    powers = {-2 * forward[0], -2 * init[0], 1 - 2 * forward[2], -2 * init[2]}
    if network.depth > 1:
        powers |= {1 - 2 * forward[1], -2 * init[1]}
    return (network.activation, *scales, network.width if any(powers) else None)


@limit_key.register(Adapted)
def _of_given(network: Adapted) -> Hashable:
    """A kernel that was given is the same at all widths but for alpha; stax builds one of each width."""
    return at_width(network.output_scale, network.width), None if network.one_kernel else network.width


@analytic_kernel.register(ConvNet)
def _convolutional_kernel(network: ConvNet) -> Kernel:
    """The mean over pairs of patches of the kernel of `TwoLayer`; a patch of zeros adds what sigma(0) does."""
    kappa, alpha = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))

    def of_patches(p1: np.ndarray, p2: np.ndarray) -> np.ndarray:
        (n1, count, _), n2 = p1.shape, len(p2)
        rows = [p.reshape(len(p) * count, -1) for p in (p1, p2)]
        gram = rows[0] @ rows[1].T
        variances = (kappa**2 * np.einsum("ij,ij->i", x, x) for x in rows)
        dual = covariance_dual(network.activation, kappa**2 * gram, *variances)
        parts = {"hidden": gram * dual.slope, "readout": dual.value}
        chosen = sum(parts.values()) if network.train == "both" else parts[network.train]
        return np.mean(np.asarray(chosen).reshape(n1, count, n2, count), axis=(1, 3))

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> np.ndarray:
        """K(x1, x2), NumPy (n1, n2)."""
        x1, x2 = _float64_pair(x1, x2, dtype)
        p1 = np.asarray(patches(network, x1))
        p2 = p1 if x2 is None else np.asarray(patches(network, x2))
        rows = max(1, int((PAIRS / p1.shape[1] ** 2) ** 0.5))
        result = np.empty((len(p1), len(p2)))
        for i in range(0, len(p1), rows):
            # Without x2 the blocks below the diagonal are those above it.
            for j in range(i if x2 is None else 0, len(p2), rows):
                block = of_patches(p1[i : i + rows], p2[j : j + rows])
                result[i : i + rows, j : j + rows] = block
                if x2 is None:
                    result[j : j + rows, i : i + rows] = block.T
        return _finished(alpha**2 * result, x2, dtype)

    return kernel


@analytic_kernel.register(Adapted)
def _given_kernel(network: Adapted) -> Kernel | None:
    """The kernel that came with the network, times alpha^2; None where none did."""
    if network.kernel is None:
        return None
    given, alpha = network.kernel(network.width), at_width(network.output_scale, network.width)

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> np.ndarray:
        """K(x1, x2), NumPy (n1, n2)."""
        x1, x2 = _float64_pair(x1, x2, dtype)
        shape = len(x1), len(x1 if x2 is None else x2)
        # neural-tangents mixes dtypes and ranks; the caller may have forbidden that.
        with host_float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            found = np.array(given(x1, x2), np.float64)
        if found.shape != shape:
            raise ValueError(f"The kernel given with the network is {found.shape}, but must be {shape}.")
        return _finished(alpha**2 * found, x2, dtype)

    return kernel


@analytic_kernel.register(Centered)
def _kernel_of_centered(network: Centered) -> Kernel | None:
    """That of the network: what does not depend on parameters has no gradient."""
    return analytic_kernel(network.network)


def _float64_pair(x1: Rows, x2: Rows | None, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Checked rows; what is computed layer after layer is rounded at the end only."""
    x1, x2 = check_pair(x1, x2, dtype)
    return x1.astype(np.float64), None if x2 is None else x2.astype(np.float64)


def _finished(result: np.ndarray, x2: AnyArray | None, dtype: str) -> np.ndarray:
    """The kernel in the dtype asked for, exactly symmetric where it is that of rows with themselves."""
    return (result if x2 is not None else (result + result.T) / 2).astype(dtype)
