"""Activations and data in NumPy, written independently of the library."""

import itertools

import numpy as np
from scipy import special

ACTIVATIONS = ("relu", "erf", "tanh", "gelu", "softplus", "leaky_relu", "abs", "sin", "sigmoid", "silu")
TRAINED = ("hidden", "readout", "both")
# (activation, train, readout, symmetric, outputs): a quarter of all combinations, with every pair of values.
TWO_LAYER_CASES = [
    (activation, train, readout, symmetric, outputs)
    for (i, activation), (j, train), readout, symmetric, outputs in itertools.product(
        enumerate(ACTIVATIONS), enumerate(TRAINED), ("sign", "gaussian"), (True, False), (1, 3)
    )
    if (i + (readout == "sign") + symmetric) % 2 == (j + symmetric + (outputs == 1)) % 2 == 0
]


def density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


VALUE = {
    "relu": lambda z: np.maximum(z, 0),
    "erf": special.erf,
    "tanh": np.tanh,
    "gelu": lambda z: z * special.ndtr(z),
    "softplus": lambda z: np.logaddexp(0, z),
    "leaky_relu": lambda z: np.where(z >= 0, z, 0.01 * z),
    "abs": np.abs,
    "sin": np.sin,
    "sigmoid": special.expit,
    "silu": lambda z: z * special.expit(z),
}
SLOPE = {
    "relu": lambda z: (z > 0).astype(z.dtype),
    "erf": lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2)),
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "gelu": lambda z: special.ndtr(z) + z * density(z),
    "softplus": special.expit,
    "leaky_relu": lambda z: np.where(z >= 0, 1.0, 0.01),
    # JAX takes 1 as the derivative of jax.numpy.abs at zero.
    "abs": lambda z: np.where(z >= 0, 1.0, -1.0),
    "sin": np.cos,
    "sigmoid": lambda z: special.expit(z) * special.expit(-z),
    "silu": lambda z: special.expit(z) * (1 + z * special.expit(-z)),
}


def unit_rows(n, d, seed=0, dtype=np.float64):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


def targets(n, outputs=1, seed=0):
    """Return random signs for one output, or random rows for several outputs."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], size=n) if outputs == 1 else rng.normal(size=(n, outputs))
