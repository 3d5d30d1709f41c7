"""The convolutional network of one layer with averaged readout, as a flax module."""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from lazynet.networks._activations import get_activation
from lazynet.networks._traits import Traits, traits
from lazynet.networks._two_layer import SingleHidden, check_fields, output_factor, single_hidden_traits, weights
from lazynet.typing import AnyArray, Variables


class ConvNet(SingleHidden):
    """Convolutional network f(x) = (alpha / sqrt(m)) sum_r a_r (1 / P) sum_p sigma(w_r . x_p) over the P patches x_p.

    One convolution without padding and with filters w_r, an average over patches and a readout: the architecture of
    Liang, Sun and Srikant 2021 with the scales of `TwoLayer`, whose arguments it has. One patch is `TwoLayer`.

    Args:
        width: number of filters m.
        filter_size: length r of a filter, or the side of a square one on images.
        stride: from one patch to the next.
        image: shape (height, width) or (height, width, channels) that rows of features have as images; left out, rows
            are signals in one dimension.

    `init(key, x)` gives {"hidden": (m, features of a patch), "readout": (m, k)} over its collections.

    Raises:
        ValueError: if an argument is outside what is listed here, or rows have another number of features.

    >>> import jax, lazynet as lz
    >>> network = lz.ConvNet(width=64, filter_size=3, image=(8, 8))
    >>> variables = network.init(jax.random.key(0), jax.numpy.ones((5, 64)))
    >>> variables["params"]["hidden"].shape
    (64, 9)
    """

    filter_size: int = 3
    stride: int = 1
    image: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a network before flax sees it."""
        check_fields(self)
        whole = self.image is None or all(isinstance(side, int) and side > 0 for side in self.image)
        if self.image is not None and not (
            whole and len(self.image) in (2, 3) and min(self.image[:2]) >= self.filter_size
        ):
            raise ValueError(
                f"image is {self.image}, but must be (height, width) or (height, width, channels) with sides of at "
                f"least filter_size = {self.filter_size}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[AnyArray, "n d"]) -> Float[Array, " n"] | Float[Array, "n k"]:
        """Outputs of the network, (n,) or (n, k)."""
        seen = patches(self, x)
        hidden, readout = self._weights(seen[:, 0])
        values = get_activation(self.activation).function(seen @ hidden.T)
        f = output_factor(self) * (jnp.mean(values, axis=1) @ readout)
        return f[:, 0] if self.outputs == 1 else f


def patches(network: ConvNet, x: AnyArray) -> AnyArray:
    """The patches (n, P, features of a patch) of rows (n, d), NumPy or JAX."""
    return x[:, patch_features(network, x.shape[1])]


def patch_features(network: ConvNet, d: int) -> Int[np.ndarray, "P _"]:
    """Which of d features each patch has.

    Raises:
        ValueError: if d features are no such image or signal.
    """
    r, stride = network.filter_size, network.stride
    if network.image is None:
        if d < r:
            raise ValueError(f"x has {d} features, but filter_size is {r}; a row must have a patch.")
        return np.lib.stride_tricks.sliding_window_view(np.arange(d), r)[::stride]
    if d != np.prod(network.image):
        raise ValueError(f"x has {d} features, but image is {network.image}, which has {np.prod(network.image)}.")
    pixels = np.arange(d).reshape(*network.image[:2], -1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (r, r), axis=(0, 1))[::stride, ::stride]
    return windows.reshape(windows.shape[0] * windows.shape[1], -1)


@traits.register(ConvNet)
def _convolutional_traits(network: ConvNet) -> Traits:
    def preactivations(variables: Variables, x: AnyArray) -> list[Array]:
        """w_r . x_p for every filter and patch, (n, P, m)."""
        return [jnp.asarray(patches(network, x) @ weights(variables, "hidden").T)]

    return replace(single_hidden_traits(network), preactivations=preactivations)
