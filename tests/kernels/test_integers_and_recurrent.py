"""Test kernels of networks with integer inputs and of networks that create float32 arrays internally."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import lazynet as lz

KEY = jax.random.key(0)
TOKENS = np.random.default_rng(0).integers(0, 7, size=(5, 4))
X = np.random.default_rng(1).normal(size=(4, 6))
DATA = lz.Dataset(X, np.sign(X[:, 0]))


def bag(params, x):
    """Return the outputs of a network that accepts only integer token ids."""
    assert jnp.issubdtype(x.dtype, jnp.integer)
    return params["table"][x].mean(axis=1) @ params["head"]


def start(key, x, width):
    assert jnp.issubdtype(x.dtype, jnp.integer)
    first, second = jax.random.split(key)
    return {"table": jax.random.normal(first, (7, width)), "head": jax.random.normal(second, (width,))}


@pytest.mark.slow
def test_token_ids_reach_a_network_as_integers():
    """The kernel must be the sum of the contributions of the embedding table and the head."""
    network = lz.from_functions(start, bag, width=3)
    variables = network.init(KEY, TOKENS)
    table, head = (np.asarray(variables["params"][name], float) for name in ("table", "head"))
    counts = np.array([np.bincount(row, minlength=7) / 4 for row in TOKENS])
    expected = counts @ counts.T * (head @ head) + (counts @ table) @ (counts @ table).T
    np.testing.assert_allclose(lz.empirical_ntk(network, variables, TOKENS), expected, rtol=1e-5)
    np.testing.assert_allclose(lz.empirical_ntk(network, variables, TOKENS, TOKENS[:2]), expected[:, :2], rtol=1e-5)
    mean = lz.monte_carlo_kernel(network, TOKENS, starts=2, key=KEY).kernel
    drawn = [lz.empirical_ntk(network, network.init(jax.random.fold_in(KEY, i), TOKENS), TOKENS) for i in range(2)]
    np.testing.assert_allclose(mean, np.mean(drawn, axis=0), rtol=1e-5)


@pytest.mark.whole
def test_networks_are_trained_on_token_ids_as_integers():
    """Training, mini-batches, measures, kernels and linearizations must all pass the ids on as integers."""
    y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    ids = TOKENS.copy()
    ids[0] = 0
    data, network = lz.Dataset(ids, y, ids[:2], y[:2]), lz.from_functions(start, bag, width=3)
    run = lz.train(network, data, KEY, 4, learning_rate=0.05)
    params = run.variables_0["params"]
    x, targets = jnp.asarray(ids), jnp.asarray(y, "float32")
    for _ in range(4):
        gradient = jax.grad(lambda params: jnp.sum((bag(params, x) - targets) ** 2) / 2)(params)
        params = jax.tree.map(lambda a, g: a - 0.05 * g, params, gradient)
    for name, array in params.items():
        np.testing.assert_allclose(run.variables["params"][name], array, rtol=1e-5, atol=1e-6)
    assert lz.train(network, data, KEY, 4, dtype="float64", batch_size=2).status == "finished"
    measure = lz.Measure(own={"ids": lambda network, variables, variables_0, data: jnp.sum(data.x_train)})
    result = lz.sweep(network, data, [5], 2, 4, learning_rate=0.05, measure=measure)
    assert (result["ids"] == ids.sum()).all()
    assert np.isfinite(result.linearization_gap_train).all()
    expected = lz.sweep(network, data, [5], [1], 4, learning_rate=0.05)
    np.testing.assert_array_equal(expected.train_loss.squeeze(), result.train_loss.sel(width=5, seed=1).squeeze())


@pytest.mark.slow
def test_a_start_and_a_linearization_of_a_network_take_token_ids_too():
    y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    data, network = lz.Dataset(TOKENS, y), lz.from_functions(start, bag, width=3)
    variables = network.init(KEY, TOKENS)
    run = lz.train(lz.with_start(network, lambda key, width: variables), data, KEY, 3, learning_rate=0.05)
    expected = lz.train(network, data, KEY, 3, learning_rate=0.05, variables=variables)
    for name, array in expected.variables["params"].items():
        np.testing.assert_allclose(run.variables["params"][name], array, rtol=1e-6)
    linear = lz.linearize(network, variables)
    f = linear.apply(lz.train(linear, data, KEY, 3, learning_rate=0.05).variables, TOKENS)
    steps = np.linalg.matrix_power(np.eye(5) - 0.05 * lz.empirical_ntk(network, variables, TOKENS), 3)
    np.testing.assert_allclose(f, y + steps @ (np.asarray(network.apply(variables, TOKENS), float) - y), rtol=1e-4)


@pytest.mark.whole
def test_families_of_lazynet_convert_integers():
    y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    with_function = lz.TwoLayer(width=8, activation=lambda z: jnp.tanh(z))
    for network in (lz.TwoLayer(width=8), lz.MLP(width=8), with_function):
        of_ids, of_floats = (lz.sweep(network, lz.Dataset(x, y), [8], 1, 3) for x in (TOKENS, TOKENS.astype(float)))
        xr.testing.assert_identical(of_ids.drop_attrs(), of_floats.drop_attrs())


def test_families_of_lazynet_start_from_the_same_weights_for_integers():
    """Weights cast to the dtype of integer rows would be truncated to integers."""
    floats = jnp.asarray(TOKENS, jnp.float32)
    for network in (lz.TwoLayer(width=4), lz.MLP(width=4, bias_scale=0.5), lz.ConvNet(width=4, filter_size=2)):
        variables = network.init(KEY, floats)
        started = lz.with_start(network, lambda key, width, network=network: network.init(key, floats))
        for start in (network, started, lz.linearize(network, variables)):
            given, expected = start.init(KEY, TOKENS), start.init(KEY, floats)
            for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(start.apply(given, TOKENS), start.apply(given, floats))


class Recurrent(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.RNN(nn.SimpleCell(self.width))(x.reshape(len(x), 3, 2))[:, -1])[:, 0]


@pytest.mark.whole
def test_recurrent_networks_are_computed_in_float32():
    """The carries of all recurrent cells in flax are float32, whatever the dtype of the inputs."""
    network = lz.from_flax(Recurrent, width=4)
    variables = network.init(KEY, X.astype(np.float32))
    kernel = lz.empirical_ntk(network, variables, X)
    assert kernel.dtype == np.float64
    narrow = lz.empirical_ntk(network, variables, X.astype(np.float32), dtype="float32")
    np.testing.assert_allclose(kernel, narrow, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"^dtype must be 'float32' or None"):
        lz.empirical_ntk(network, variables, X, dtype="float64")
    assert lz.train(network, DATA, KEY, 2).status == "finished"
    with pytest.raises(ValueError, match=r"^dtype must be 'float32' for a network that fails in float64"):
        lz.train(network, DATA, KEY, 2, dtype="float64")
