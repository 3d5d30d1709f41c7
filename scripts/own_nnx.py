"""Sweep a custom NNX network, here a perceptron with two hidden layers, and print its verdict."""

from flax import nnx

import lazynet as lz


class Perceptron(nnx.Module):
    """A perceptron with two hidden layers, with NNX's default initializers."""

    def __init__(self, width, rngs):
        """Create the layers with random weights."""
        self.first = nnx.Linear(64, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.readout = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        """Return the outputs, shape (n, 1), for rows of shape (n, 64)."""
        return self.readout(nnx.relu(self.second(nnx.relu(self.first(x)))))


if __name__ == "__main__":
    data = lz.load_dataset("digits", classes=(0, 1), n_train=16, n_test=8)
    network = lz.from_nnx(Perceptron, parametrization="standard")
    result = lz.sweep(network, data, widths=[32, 256], seeds=4, steps=20)
    print(lz.verify(result))
