"""How a network's kernel turns during training, and how well it fits the labels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lazynet.kernels import layer_kernels, whole
from lazynet.networks import Network
from lazynet.typing import AnyArray, SquareKernel, Targets, Variables


def kernel_distance(k: Float[AnyArray, "n1 n2"], other: Float[AnyArray, "n1 n2"]) -> Array:
    """S = 1 - Tr(K K'^T) / (||K|| ||K'||), 0 for kernels that differ by a factor, a scalar (Fort et al. 2020)."""
    return 1 - jnp.sum(k * other) / jnp.sqrt(jnp.sum(k**2) * jnp.sum(other**2))


def kernel_velocity(kernels: Float[AnyArray, "s n1 n2"], times: Float[AnyArray, " s"]) -> Float[np.ndarray, " s-1"]:
    """S(K_t, K_(t + dt)) / dt between snapshots that follow each other, NumPy float64 (Fort et al. 2020).

    Args:
        kernels: at s times.
        times: of the snapshots, ascending; steps, eta times steps, or epochs.
    """
    kernels, times = np.asarray(kernels, np.float64), np.asarray(times, np.float64)
    norms = np.sqrt(np.einsum("sij,sij->s", kernels, kernels))
    turned = 1 - np.einsum("sij,sij->s", kernels[1:], kernels[:-1]) / (norms[1:] * norms[:-1])
    return turned / np.diff(times)


def label_alignment(k: SquareKernel, y: Targets) -> Array:
    """<K, Y Y'> / (||K|| ||Y Y'||), 1 where the kernel is that of the labels, a scalar (Cristianini et al. 2001)."""
    labels = jnp.reshape(jnp.asarray(y), (len(y), -1))
    gram = labels @ labels.T
    return jnp.sum(k * gram) / jnp.sqrt(jnp.sum(k**2) * jnp.sum(gram**2))


def current_kernel(network: Network, variables: Variables, variables_0: Variables, data: Any) -> Array:
    """Return the empirical kernel (n, n) on the training set, a measure for `lazynet.Measure(own=...)`.

    Args:
        network: the network.
        variables: the network's variables now.
        variables_0: the network's variables at the start, which do not matter.
        data: the examples, with rows x_train (n, d).
    """
    return whole(layer_kernels(network, variables, data.x_train))
