"""Covariance of the initial outputs in the infinite-width limit, implemented separately for each network type."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lazynet.dispatch import dispatched
from lazynet.kernels._analytic import analytic_kernel
from lazynet.networks import MLP, Centered, Network, SingleHidden, get_parametrization
from lazynet.typing import AnyArray

Covariance = Callable[[Float[AnyArray, "n d"]], Float[np.ndarray, "n n"]]


@dispatched
def start_covariance(network: Network) -> Covariance | None:
    """Return the covariance of the initial outputs f(x) and f(x') in the infinite-width limit (the NNGP kernel).

    The covariance is taken over random initializations. It equals the readout's contribution to the tangent kernel,
    multiplied by the variance of a readout weight (Lee et al. 2019, section 2.2), and is zero for networks whose
    initial outputs are zero.

    Args:
        network: Network of any type.

    Returns:
        A function that maps inputs of shape (n, d) to the covariance of each output (a NumPy float64 array of shape
        (n, n)), or None if this type of network has no analytic covariance.

    >>> import numpy as np
    >>> from lazynet import TwoLayer
    >>> start_covariance(TwoLayer(width=64, symmetric=False))(np.eye(2)).round(3)
    array([[0.5  , 0.159],
           [0.159, 0.5  ]])
    """
    return None


@start_covariance.register(SingleHidden)
def _single_hidden_covariance(network: SingleHidden) -> Covariance | None:
    return _zero_covariance if network.symmetric else _readout_covariance(network, 1.0)


@start_covariance.register(MLP)
def _deep_covariance(network: MLP) -> Covariance | None:
    variance = network.width ** (-2 * get_parametrization(network.parametrization).init[2])
    # The covariance does not depend on what is trained, and biases cannot be trained with the readout alone.
    return _readout_covariance(network.clone(train_bias=False), variance)


@start_covariance.register(Centered)
def _centered_covariance(network: Centered) -> Covariance:
    return _zero_covariance


def _readout_covariance(network: Network, variance: float) -> Covariance | None:
    kernel = analytic_kernel(network.clone(train="readout"))
    return None if kernel is None else lambda x: variance * kernel(x)


def _zero_covariance(x: AnyArray) -> np.ndarray:
    return np.zeros((len(x), len(x)))
