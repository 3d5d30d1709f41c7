"""A network with one convolution followed by an average over patches, as a flax module."""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Num

from lazynet.arguments import described
from lazynet.arrays import floats
from lazynet.networks._activations import get_activation
from lazynet.networks._traits import Traits, traits
from lazynet.networks._two_layer import SingleHidden, check_fields, output_factor, single_hidden_traits, weights
from lazynet.typing import AnyArray, Variables


class ConvNet(SingleHidden):
    """Convolutional network f(x) = (alpha / sqrt(m)) sum_r a_r (1 / P) sum_p sigma(w_r . x_p), with P patches x_p.

    The network consists of a convolution with filters w_r and no padding, an average over patches, and a readout. This
    is the architecture of Liang, Sun and Srikant 2021, scaled like `TwoLayer`. With only one patch, the network is the
    same as `TwoLayer`.

    `init(key, x)` returns the arrays "hidden" of shape (m, features per patch) and "readout" of shape (m, k). Trained
    arrays are in the collection "params", and all others are in "fixed".

    Args:
        width: Number of filters, m, at least 1; must be even if `symmetric` is True.
        filter_size: Length of each filter or, for images, the side length of each square filter.
        stride: Distance between neighboring patches, at least 1.
        image: Shape (height, width) or (height, width, channels) of the image stored in each row, or None for
            one-dimensional signals.

    The other arguments have the same meaning as in `TwoLayer`.

    Raises:
        ValueError: If an argument has an invalid value or, in `init` and `apply`, if the rows have the wrong number of
            features.

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
        """Check the fields."""
        check_fields(self)
        image = self.image
        # If the image shape was given as a list, flax has already converted it to a tuple.
        sides = image if isinstance(image, tuple) and len(image) in (2, 3) else ()
        integers = sides and all(type(side) is int and side > 0 for side in sides)
        if image is not None and not (integers and min(sides[:2]) >= self.filter_size):
            raise ValueError(
                "image must be (height, width) or (height, width, channels) with sides of at least filter_size = "
                f"{self.filter_size}, got {described(image)}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Num[AnyArray, "n d"]) -> Float[Array, " n"] | Float[Array, "n k"]:
        """Return the outputs, of shape (n,) or (n, k)."""
        x_patches = patches(self, floats(x))
        hidden, readout = self._weights(x_patches[:, 0])
        values = get_activation(self.activation).function(x_patches @ hidden.T)
        f = output_factor(self) * (jnp.mean(values, axis=1) @ readout)
        return f[:, 0] if self.outputs == 1 else f


def patches(network: ConvNet, x: AnyArray) -> AnyArray:
    """Extract the patches of each input row.

    Args:
        network: Convolutional network, which defines the size, the stride and the layout of the patches.
        x: Inputs, shape (n, d).

    Returns:
        The patches, shape (n, P, features per patch).

    Raises:
        ValueError: If d does not match `network.image`, or if a signal is shorter than the filter.
    """
    return x[:, patch_features(network, x.shape[1])]


def patch_features(network: ConvNet, d: int) -> Int[np.ndarray, "P _"]:
    """Return the indices of each patch's features within a row of d features.

    Raises:
        ValueError: If d is not the number of features in the image, or if a signal is shorter than the filter.
    """
    r, stride = network.filter_size, network.stride
    if network.image is None:
        if d < r:
            raise ValueError(f"x must have at least filter_size = {r} features, got {d}.")
        return np.lib.stride_tricks.sliding_window_view(np.arange(d), r)[::stride]
    if d != np.prod(network.image):
        raise ValueError(f"x must have {np.prod(network.image)} features to match image = {network.image}, got {d}.")
    pixels = np.arange(d).reshape(*network.image[:2], -1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (r, r), axis=(0, 1))[::stride, ::stride]
    return windows.reshape(windows.shape[0] * windows.shape[1], -1)


@traits.register(ConvNet)
def _convolutional_traits(network: ConvNet) -> Traits:
    def preactivations(variables: Variables, x: AnyArray) -> list[Array]:
        """Return w_r . x_p for every patch and filter, shape (n, P, m)."""
        return [jnp.asarray(patches(network, x) @ weights(variables, "hidden").T)]

    return replace(single_hidden_traits(network), preactivations=preactivations)
