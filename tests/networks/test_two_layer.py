"""Test TwoLayer against its formula in NumPy, the statistics of its initialization, and its argument checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_unless
from reference import TRAINED, TWO_LAYER_CASES, VALUE
from tolerance import assert_close

from lazynet.networks import TwoLayer, weights
from lazynet.precision import float64


def rows(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def start(network, key, x, dtype="float64"):
    with float64():
        return jax.tree.map(np.asarray, dict(network.init(key, jnp.asarray(x, dtype))))


def apply(network, variables, x):
    with float64():
        return np.asarray(network.apply(variables, jnp.asarray(x)))


@pytest.mark.parametrize(
    ("activation", "train", "readout", "symmetric", "outputs"),
    slow_unless(lambda case: case[0] in ("relu", "tanh"), TWO_LAYER_CASES),
)
def test_formula(activation, train, readout, symmetric, outputs, key):
    network = TwoLayer(
        width=24,
        outputs=outputs,
        activation=activation,
        train=train,
        readout=readout,
        symmetric=symmetric,
        init_scale=1.5,
        output_scale=0.7,
    )
    x = rows(7, 5)
    variables = start(network, key, x)
    # Move the weights away from the initial ones, which may be symmetric.
    variables = jax.tree.map(lambda leaf: leaf + 0.3 * rows(*leaf.shape, seed=1), variables)
    expected = 0.7 / np.sqrt(24) * VALUE[activation](x @ weights(variables, "hidden").T) @ weights(variables, "readout")
    found = apply(network, variables, x)
    assert found.dtype == np.float64
    assert_close(found, expected[:, 0] if outputs == 1 else expected)
    single = network.apply(jax.tree.map(np.float32, variables), jnp.asarray(x, jnp.float32))
    assert single.dtype == jnp.float32
    assert_close(single, found, ulps=256)


@pytest.mark.parametrize("train", TRAINED)
def test_the_trained_part_is_params(train, key):
    x = rows(4, 5)
    variables = start(TwoLayer(width=6, outputs=2, train=train), key, x)
    trained = {"hidden": {"hidden"}, "readout": {"readout"}, "both": {"hidden", "readout"}}[train]
    assert set(variables["params"]) == trained
    assert set(variables.get("fixed", {})) == {"hidden", "readout"} - trained
    assert weights(variables, "hidden").shape == (6, 5)
    assert weights(variables, "readout").shape == (6, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "readout", "outputs"),
    [("relu", "sign", 1), ("gelu", "gaussian", 3)],
)
def test_symmetric_start_is_zero(activation, readout, outputs, key):
    network = TwoLayer(width=64, outputs=outputs, activation=activation, readout=readout)
    x = rows(9, 5)
    variables = start(network, key, x)
    # The 64 terms of size about 1 cancel in pairs; without the symmetry, f would be of order 1.
    assert np.abs(apply(network, variables, x)).max() < 1e-14
    single = network.apply(jax.tree.map(np.float32, variables), jnp.asarray(x, jnp.float32))
    assert np.abs(np.asarray(single)).max() < 1e-5
    lopsided = network.clone(symmetric=False)
    assert np.abs(apply(lopsided, start(lopsided, key, x), x)).max() > 1e-2


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("readout", ["sign", "gaussian"])
def test_same_start_in_both_dtypes(symmetric, readout, key):
    network = TwoLayer(width=32, init_scale=0.3, readout=readout, symmetric=symmetric, train="both")
    x = rows(3, 5)
    single = jax.tree.map(np.asarray, dict(network.init(key, jnp.asarray(x, jnp.float32))))
    with float64():
        inside = jax.tree.map(np.asarray, dict(network.init(key, jnp.asarray(x, jnp.float32))))
    double = start(network, key, x)
    for name in ("hidden", "readout"):
        assert weights(single, name).dtype == np.float32
        assert weights(double, name).dtype == np.float64
        np.testing.assert_array_equal(weights(single, name).astype(np.float64), weights(double, name))
        np.testing.assert_array_equal(weights(single, name), weights(inside, name))


@pytest.mark.parametrize("symmetric", [True, False])
def test_same_start_whatever_is_trained(symmetric, key):
    """A sweep over the trained part must compare networks with the same initial weights."""
    x = rows(3, 5)
    starts = [start(TwoLayer(width=8, train=train, symmetric=symmetric), key, x) for train in TRAINED]
    for name in ("hidden", "readout"):
        assert weights(starts[0], name).std() > 0
        for other in starts[1:]:
            np.testing.assert_array_equal(weights(starts[0], name), weights(other, name))


@pytest.mark.parametrize(
    ("symmetric", "readout", "kappa"),
    [(True, "sign", 0.1), (True, "gaussian", 3.0), (False, "sign", 3.0), (False, "gaussian", 1.0)],
)
def test_statistics_of_the_start(symmetric, readout, kappa, key):
    network = TwoLayer(width=4096, outputs=2, init_scale=kappa, readout=readout, symmetric=symmetric)
    variables = start(network, key, rows(2, 20))
    hidden, a = weights(variables, "hidden"), weights(variables, "readout")
    if symmetric:
        np.testing.assert_array_equal(hidden[:2048], hidden[2048:])
        np.testing.assert_array_equal(a[:2048], -a[2048:])
        hidden, a = hidden[:2048], a[:2048]
    z = hidden / kappa
    # For z ~ N(0, 1), the variances of z, z^2 and z^4 are 1, 2 and 96. The tolerance is five standard errors.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs(np.mean(z**power) - mean) < 5 * np.sqrt(variance / z.size)
    assert abs(np.mean(a)) < 5 / np.sqrt(a.size)
    assert np.abs(np.mean(z[:, 0] * z[:, 1])) < 5 / np.sqrt(len(z))
    assert np.abs(np.mean(a[:, 0] * a[:, 1])) < 5 / np.sqrt(len(a))
    assert np.abs(np.mean(a[:, :1] * z)) < 5 / np.sqrt(z.size)
    if readout == "sign":
        np.testing.assert_array_equal(np.abs(a), 1)
    else:
        assert abs(np.mean(a**2) - 1) < 5 * np.sqrt(2 / a.size)
        assert abs(np.mean(a**4) - 3) < 5 * np.sqrt(96 / a.size)


def test_scales_that_depend_on_the_width(key):
    x = rows(6, 4)
    scaled = TwoLayer(
        width=16, init_scale=lambda m: m**-0.5, output_scale=lambda m: float(m), symmetric=False, activation="tanh"
    )
    plain = TwoLayer(width=16, init_scale=0.25, output_scale=16.0, symmetric=False, activation="tanh")
    variables = start(scaled, key, x)
    np.testing.assert_array_equal(weights(variables, "hidden"), weights(start(plain, key, x), "hidden"))
    np.testing.assert_array_equal(apply(scaled, variables, x), apply(plain, variables, x))
    wider = scaled.clone(width=64)
    hidden = weights(start(wider, key, x), "hidden")
    np.testing.assert_array_equal(hidden, weights(start(plain.clone(width=64, init_scale=0.125), key, x), "hidden"))
    assert wider.width == 64
    assert hidden.shape == (64, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"width": -2}, "width must be a positive integer, got -2"),
        ({"width": 7}, "width must be even if symmetric=True, got 7. Use width=8"),
        ({"width": 4, "outputs": 0}, "outputs must be a positive integer, got 0"),
        (
            {"width": 4, "activation": "ReLU"},
            "activation must be one of relu, erf, tanh, .* got 'ReLU'",
        ),
        ({"width": 4, "train": "all"}, "train must be one of hidden, readout, both, got 'all'"),
        ({"width": 4, "readout": "normal"}, "readout must be one of sign, gaussian, got 'normal'"),
        ({"width": 4, "init_scale": 0.0}, "init_scale must be positive and finite at width 4, got 0.0"),
        ({"width": 4, "init_scale": float("nan")}, "init_scale must be positive and finite at width 4, got nan"),
        ({"width": 4, "output_scale": -1}, "output_scale must be positive and finite at width 4, got -1"),
        ({"width": 4, "output_scale": float("inf")}, "output_scale must be positive and finite at width 4, got inf"),
        ({"width": 4, "init_scale": lambda m: m - 4.0}, "init_scale must be positive and finite at width 4, got 0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoLayer(**arguments)


def test_a_clone_is_checked_too():
    with pytest.raises(ValueError, match="width must be even if symmetric=True, got 9"):
        TwoLayer(width=8).clone(width=9)
    assert TwoLayer(width=8, symmetric=False).clone(width=9).width == 9
