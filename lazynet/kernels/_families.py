"""Infinite-width kernels of deep networks, convolutional networks, and networks adapted from other libraries."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Num

from lazynet.arrays import is_traced
from lazynet.kernels._analytic import analytic_kernel, check_pair, kernel_of_rows, limit_key, symmetrized
from lazynet.kernels._start import start_covariance
from lazynet.kernels._traced import implementation
from lazynet.networks import MLP, Adapted, Centered, ConvNet, at_width, get_parametrization, patches
from lazynet.plan import check_memory
from lazynet.precision import host_float64
from lazynet.typing import AnyArray

Rows = Num[Array | np.ndarray, "..."]
Kernel = Callable[..., Any]
# Maximum number of arrays as large as the result that are in memory at the same time.
HELD = 8
# Maximum number of pairs of patches per block.
PAIRS = 2**21


@analytic_kernel.register(MLP)
def _deep_kernel(network: MLP) -> Kernel:
    """Return the kernel of Jacot, Gabriel and Hongler 2018, Theorem 1, generalized to any parametrization.

    At width m, layer l multiplies its weights w_l by m^(-a_l). Let s_l^2 be the variance of one effective weight
    m^(-a_l) w_l, multiplied by the number of inputs m if l > 1, and let c_l^2 be the variance of the biases. The
    pre-activations z_l of layer l have covariance S_l = s_l^2 E_(l-1) + c_l^2, where E_0 = x.x'. Let
    E_l = E[sigma sigma] and E'_l = E[sigma' sigma'] be the expectations under the covariance S_l. With T_0 = 0, the
    tangent kernel of z_l is

        T_l = g_l E_(l-1) + t + s_l^2 T_(l-1) E'_(l-1),  where g_1 = m^(-2 a_1), and g_l = m^(1 - 2 a_l) for l > 1.

    The term t is the contribution of the biases. It is 1 if they are trained, and 0 otherwise.

    Let m^(-a) be the factor that multiplies the readout weights, and let m^(-2 b) be their initial variance. If E, E'
    and T denote the values for the last hidden layer and alpha the output scale, the tangent kernel of the outputs is
    alpha^2 m^(1 - 2 a) (E + m^(-2 b) T E'). The first term comes from the readout, and the second term comes from
    the hidden layers. Powers of m are evaluated at the width of the network.
    """
    exponents, m = get_parametrization(network.parametrization), float(network.width)
    kappa, alpha = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> Any:
        """Return K(x1, x2) as an array of shape (n1, n2)."""
        x1, x2 = _working_pair(x1, x2, dtype)
        other = x1 if x2 is None else x2
        array, expectations = implementation(x1, other)
        if array is np:
            check_memory(f"A kernel of {len(x1)} x {len(other)} entries", 8 * HELD * len(x1) * len(other))
        value = x1 @ other.T
        variances = [array.einsum("ij,ij->i", x, x) for x in (x1, other)]
        tangent = slope = array.zeros_like(value)
        for layer in range(1, network.depth + 1):
            # There is one exponent for the first layer, one for the other hidden layers, and one for the readout.
            kind, fan_in_power = min(layer, 2) - 1, 0.0 if layer == 1 else 1.0
            a, b = exponents.forward[kind], exponents.init[kind]
            gradient, variance = m ** (fan_in_power - 2 * a), kappa**2 * m ** (fan_in_power - 2 * a - 2 * b)
            bias = (network.bias_scale * m**-b) ** 2
            tangent = gradient * value + float(network.train_bias) + variance * tangent * slope
            variances = [variance * second_moment + bias for second_moment in variances]
            value, slope, *variances = expectations(network.activation, variance * value + bias, *variances)
        parts = array.zeros_like(value)
        if network.train != "hidden":
            parts += value
        if network.train != "readout":
            parts += m ** (-2 * exponents.init[2]) * tangent * slope
        return _rounded(alpha**2 * m ** (1 - 2 * exponents.forward[2]) * parts, x2, dtype)

    return kernel


@limit_key.register(MLP)
def _deep_key(network: MLP) -> Hashable:
    """Return a copy of the network whose scales are replaced by their values at the network's width.

    The width itself is replaced by 1 if the kernel does not depend on the width.
    """
    forward, init, _ = get_parametrization(network.parametrization)
    scales: dict[str, Any] = {
        name: at_width(getattr(network, name), network.width) for name in ("init_scale", "output_scale")
    }
    # These are the exponents of the width in `_deep_kernel`. If all are zero, the kernel does not depend on the width.
    powers = {-2 * forward[0], -2 * init[0], 1 - 2 * forward[2], -2 * init[2]}
    if network.depth > 1:
        powers |= {1 - 2 * forward[1], -2 * init[1]}
    return network.clone(width=network.width if any(powers) else 1, **scales)


@limit_key.register(Adapted)
def _adapted_key(network: Adapted) -> Hashable:
    """Return a key that includes the width unless the kernel depends on it only through the output scale."""
    return at_width(network.output_scale, network.width), None if network.one_kernel else network.width


@analytic_kernel.register(ConvNet)
def _convolutional_kernel(network: ConvNet) -> Kernel:
    """Return the average of the two-layer kernel over all pairs of patches, including pairs with all-zero patches."""
    kappa, alpha = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))

    def mean_over_patches(p1: Any, p2: Any) -> Any:
        (n1, count, _), n2 = p1.shape, len(p2)
        rows = (p.reshape(len(p) * count, -1) for p in (p1, p2))
        return kernel_of_rows(network, kappa, *rows).reshape(n1, count, n2, count).mean(axis=(1, 3))

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> Any:
        """Return K(x1, x2) as an array of shape (n1, n2)."""
        x1, x2 = _working_pair(x1, x2, dtype)
        p1 = patches(network, x1)
        p2 = p1 if x2 is None else patches(network, x2)
        if is_traced(p1, p2):
            return symmetrized(alpha**2 * mean_over_patches(p1, p2), x2)
        rows = max(1, int((PAIRS / p1.shape[1] ** 2) ** 0.5))
        result = np.empty((len(p1), len(p2)))
        for i in range(0, len(p1), rows):
            # If x2 is None, the blocks below the diagonal are filled in by symmetry.
            for j in range(i if x2 is None else 0, len(p2), rows):
                block = mean_over_patches(p1[i : i + rows], p2[j : j + rows])
                result[i : i + rows, j : j + rows] = block
                if x2 is None:
                    result[j : j + rows, i : i + rows] = block.T
        return _rounded(alpha**2 * result, x2, dtype)

    return kernel


@analytic_kernel.register(Adapted)
def _adapted_kernel(network: Adapted) -> Kernel | None:
    """Return the squared output scale times the kernel supplied with the network, or None if none was supplied."""
    return None if network.kernel is None else _scaled(network, network.kernel)


@start_covariance.register(Adapted)
def _adapted_covariance(network: Adapted) -> Kernel | None:
    """Return the squared output scale times the covariance supplied with the network, or None if none was supplied."""
    return None if network.covariance is None else _scaled(network, network.covariance)


def _scaled(network: Adapted, function: Callable[[int], Callable[..., np.ndarray]]) -> Kernel:
    unscaled, alpha = function(network.width), at_width(network.output_scale, network.width)

    def kernel(x1: Rows, x2: Rows | None = None, dtype: str = "float64") -> Any:
        """Return K(x1, x2) as an array of shape (n1, n2)."""
        x1, x2 = _working_pair(x1, x2, dtype)
        shape = len(x1), len(x1 if x2 is None else x2)
        # neural-tangents relies on dtype and rank promotion, which the user may have disabled.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            if is_traced(x1, x2):
                values: Any = jnp.asarray(unscaled(x1, x2), dtype)
            else:
                with host_float64():
                    values = np.array(unscaled(x1, x2), np.float64)
        if values.shape != shape:
            raise ValueError(
                f"kernel must return an array of shape {shape} for x1 with {shape[0]} rows and x2 with {shape[1]} "
                f"rows, got shape {values.shape}."
            )
        return _rounded(alpha**2 * values, x2, dtype)

    return kernel


@analytic_kernel.register(Centered)
def _kernel_of_centered(network: Centered) -> Kernel | None:
    """Return the kernel of the wrapped network; subtracting the initial outputs does not change the gradients."""
    return analytic_kernel(network.network)


def _working_pair(x1: Rows, x2: Rows | None, dtype: str) -> tuple[Any, Any]:
    """Check the rows, and return them as float64 unless they are traced, so that only the result is rounded."""
    x1, x2 = check_pair(x1, x2, dtype)
    if is_traced(x1, x2):
        return x1, x2
    return x1.astype(np.float64), None if x2 is None else x2.astype(np.float64)


def _rounded(result: Any, x2: AnyArray | None, dtype: str) -> Any:
    """Convert a kernel to the requested dtype, and symmetrize it if `x2` is None."""
    return symmetrized(result, x2).astype(dtype)
