"""Sweep a custom flax network, here a convolutional network, and print its verdict."""

import flax.linen as nn

import lazynet as lz


class Convolutional(nn.Module):
    """A convolution, an average over the image, and a readout, with flax's default initializers."""

    width: int

    @nn.compact
    def __call__(self, x):
        """Return the outputs, shape (n, 1), for rows of pixels, shape (n, 64)."""
        features = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(x.reshape(-1, 8, 8, 1)))
        return nn.Dense(1)(features.mean(axis=(1, 2)))


if __name__ == "__main__":
    data = lz.load_dataset("digits", classes=(0, 1), n_train=24, n_test=12)
    network = lz.from_flax(Convolutional, parametrization="standard")
    result = lz.sweep(network, data, widths=[16, 128], seeds=8, steps=10)
    print(lz.verify(result))
