"""The covariance of a wide network's outputs at its start, found by the network's type."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from lazynet.kernels._analytic import analytic_kernel
from lazynet.networks import MLP, Centered, SingleHidden, get_parametrization
from lazynet.typing import AnyArray

Covariance = Callable[[Float[AnyArray, "n d"]], Float[np.ndarray, "n n"]]


@functools.singledispatch
def start_covariance(network: Any) -> Covariance | None:
    """The covariance over starts of f(x) and f(x') in the limit of infinite width (the NNGP kernel).

    It is what the readout adds to the tangent kernel, times the variance of an entry of the readout; Lee et al. 2019,
    section 2.2. Of networks that start at zero it is 0.

    Args:
        network: any network.

    Returns:
        A function of rows (n, d) that gives a NumPy float64 array (n, n), the same for each of several outputs; None
        for a family of which nobody knows it.

    >>> import numpy as np
    >>> from lazynet import TwoLayer
    >>> start_covariance(TwoLayer(width=64, symmetric=False))(np.eye(2)).round(3)
    array([[0.5  , 0.159],
           [0.159, 0.5  ]])
    """
    return None


@start_covariance.register(SingleHidden)
def _of_single_hidden(network: SingleHidden) -> Covariance | None:
    return _nothing if network.symmetric else _of_readout(network, 1.0)


@start_covariance.register(MLP)
def _of_deep(network: MLP) -> Covariance | None:
    return _of_readout(network, network.width ** (-2 * get_parametrization(network.parametrization).init[2]))


@start_covariance.register(Centered)
def _of_centered(network: Centered) -> Covariance:
    return _nothing


def _of_readout(network: Any, variance: float) -> Covariance | None:
    kernel = analytic_kernel(network.clone(train="readout"))
    return None if kernel is None else lambda x: variance * kernel(x)


def _nothing(x: AnyArray) -> np.ndarray:
    return np.zeros((len(x), len(x)))
