"""Test analytic kernels against averages over half a million hidden units of the flax module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import TRAINED, unit_rows

import lazynet as lz
from lazynet.kernels import average_ntk

NETWORKS, WIDTH = 64, 2**13


def pairs():
    """Return eight pairs of inputs, including equal, opposite and orthogonal ones and some without unit norm."""
    x1, x2 = unit_rows(8, 3), unit_rows(8, 3, seed=1)
    x2[0], x2[1], x2[2] = x1[0], -x1[1], np.cross(x1[2], [1.0, 0.0, 0.0])
    x1[6], x2[6], x2[7] = 0.5 * x1[6], 1.7 * x2[6], 2.0 * x1[7]
    return x1.astype(np.float32), x2.astype(np.float32)


def check(network, key):
    x1, x2 = pairs()
    networks = [network.clone(train=train) for train in TRAINED]

    @jax.jit
    def samples(keys, x1, x2):
        def sample(key):
            # The initial weights do not depend on which part is trained.
            variables = dict(network.init(key, x1))
            return jnp.stack([jnp.diagonal(average_ntk(part, variables, x1, x2)) for part in networks])

        return jax.lax.map(sample, keys)

    kernels = np.asarray(samples(jax.random.split(key, NETWORKS), x1, x2), np.float64)
    mean, error = kernels.mean(axis=0), kernels.std(axis=0, ddof=1) / np.sqrt(NETWORKS)
    for part, value, width in zip(networks, mean, error, strict=True):
        expected = np.diagonal(lz.analytic_kernel(part)(x1, x2))
        scale = np.abs(expected).max()
        assert np.all(width < 0.02 * scale)
        # Entries without randomness, such as those of relu' for opposite rows, have only float32 rounding errors.
        assert np.all(np.abs(value - expected) < 5 * width + 1e-6 * scale), part.train


SCALES = [{}, {"init_scale": 1.6, "output_scale": lambda m: 0.4}, {"init_scale": 0.3, "output_scale": 2.0}]


# Three activations suffice here: other tests compare the duals of all activations with quadrature, and the activations
# themselves with NumPy.
@pytest.mark.slow
@pytest.mark.parametrize(("activation", "scales"), [("relu", 0), ("erf", 1), ("tanh", 2)])
def test_analytic_kernel_is_the_mean(activation, scales, key):
    network = lz.TwoLayer(width=WIDTH, activation=activation, train="both", symmetric=False, **SCALES[scales])
    check(network, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("symmetric", "readout"),
    [
        (True, "gaussian"),
        (True, "sign"),
        (False, "gaussian"),
    ],
)
def test_several_outputs_and_every_start_have_the_same_kernel(symmetric, readout, key):
    arguments = {"outputs": 3, "train": "both", "readout": readout, "symmetric": symmetric}
    check(lz.TwoLayer(width=WIDTH, activation="tanh", init_scale=1.6, **arguments), key)
