"""The neural tangent kernel of a network of infinite width, found by the network's type."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float, Num

from lazynet.kernels._dual import tangent_dual
from lazynet.networks import SingleHidden, TwoLayer, at_width


@functools.singledispatch
def analytic_kernel(network: Any) -> Callable[..., Float[np.ndarray, "n1 n2"]] | None:
    """Return the kernel of the infinitely wide network, or None for a family that has no analytic one.

    For a `TwoLayer` network, with w ~ N(0, kappa^2 I), kappa the `init_scale` and alpha the `output_scale` (a function
    of the width counts at the network's own),

        K(x, x') = alpha^2 (x.x' E[sigma'(w.x) sigma'(w.x')]  [hidden layer trained]
                            + E[sigma(w.x) sigma(w.x')])      [readout trained]

    which for relu, the hidden layer alone, kappa = alpha = 1 and unit rows is x.x' (pi - arccos(x.x')) / (2 pi): the
    H^infinity of Arora et al. 2019 (arXiv:1901.08584, section 3), through the arc-cosine kernels of Cho and Saul 2009.
    With several outputs the kernel is the same for each of them. That of `MLP` and `ThreeLayer` is the recursion
    of Jacot, Gabriel and Hongler 2018, Theorem 1, with the powers of the width that their parametrization has, at the
    network's own; that of `ConvNet` the mean of the two-layer kernel over pairs of patches; that of `from_stax` is
    neural-tangents', and that of other networks of one's own what came with them. A further family registers its type
    with `analytic_kernel.register`.

    Args:
        network: any network.

    Returns:
        A function `kernel(x1, x2=None, dtype="float64")` of rows (n1, d) and (n2, d) in any real dtype. Its result is a
        NumPy array (n1, n2) of that dtype, exactly symmetric without `x2`, which then is `x1`. That of `TwoLayer` is
        computed in the dtype and filled block by block, without another of its size and with half of the work without
        `x2`; others are computed in float64, `MLP` with some matrices of the result's size beside it.

    Raises:
        ValueError: by the function, if rows are not a matrix, not finite, zero, of norms whose squares the dtype does
            not hold, or of different lengths in `x1` and `x2`; for activations without a closed form also if kappa *
            norm(x) is too large for their Hermite series, or a function of the user's is not smooth.

    Example:
        >>> import numpy as np, lazynet as lz
        >>> kernel = lz.analytic_kernel(lz.TwoLayer(width=64))
        >>> kernel(np.array([[1.0, 0.0], [0.5, 0.75**0.5]])).round(3)
        array([[0.5  , 0.167],
               [0.167, 0.5  ]])
    """
    return None


@functools.singledispatch
def limit_key(network: Any) -> Hashable:
    """What tells networks of one family with another kernel of infinite width apart; at least all there is."""
    return network


@limit_key.register(SingleHidden)
def _of_scales(network: SingleHidden) -> Hashable:
    scales = (at_width(scale, network.width) for scale in (network.init_scale, network.output_scale))
    return (network.activation, *scales)


@analytic_kernel.register(TwoLayer)
def _two_layer_kernel(network: TwoLayer) -> Callable[..., Float[np.ndarray, "n1 n2"]]:
    kappa = at_width(network.init_scale, network.width)
    alpha = at_width(network.output_scale, network.width)

    def kernel(
        x1: Num[Array | np.ndarray, "..."],
        x2: Num[Array | np.ndarray, "..."] | None = None,
        dtype: str = "float64",
    ) -> np.ndarray:
        """K(x1, x2), NumPy (n1, n2)."""
        x1, x2 = check_pair(x1, x2, dtype)
        result = tangent_dual(network.train, network.activation, x1, x2, kappa)
        result *= alpha**2
        return result

    return kernel


def check_pair(
    x1: Array | np.ndarray, x2: Array | np.ndarray | None, dtype: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Both sides of a kernel in the dtype that it is asked for in, or the reason why they cannot be.

    Raises:
        ValueError: as `analytic_kernel` says.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype is {dtype!r}, but must be 'float64' or 'float32'.")
    x1 = _rows(x1, "x1", dtype)
    x2 = None if x2 is None else _rows(x2, "x2", dtype)
    if x2 is not None and x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x1 has rows of length {x1.shape[1]} and x2 of length {x2.shape[1]}; they must agree.")
    return x1, x2


def _rows(x: Array | np.ndarray, name: str, dtype: str) -> Float[np.ndarray, "n d"]:
    """The rows in this dtype, or the reason why they cannot be."""
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"{name} has shape {x.shape}, but must be (n, d) with at least one row, an example in each.")
    rows = np.asarray(x, dtype)
    for wrong, what in ((~np.isfinite(rows).all(axis=1), "is not finite"), (~rows.any(axis=1), "is zero")):
        if wrong.any():
            raise ValueError(f"{name}[{np.argmax(wrong)}] {what}, and the kernel is not defined there; leave it out.")
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    wrong = ~((squares >= np.finfo(dtype).tiny) & np.isfinite(squares))
    if wrong.any():
        raise ValueError(f"{name}[{np.argmax(wrong)}] has a norm whose square is no number in {dtype}; scale the rows.")
    return rows
