"""Test networks that users define in flax, NNX or stax, or as functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from peer import neural_tangents
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.networks import check_members_differ, check_network

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)), "float32")
KEY = jax.random.key(3)


class Perceptron(nnx.Module):
    def __init__(self, width, rngs, *layers):
        self.first = nnx.Linear(7, width, rngs=rngs)
        self.more = nnx.List(layers)
        self.last = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        for layer in self.more:
            x = layer(x)
        return self.last(x)


def linen(width, *layers, outputs=2):
    return nn.Sequential([nn.Dense(width), *layers, nn.relu, nn.Dense(outputs)])


def stax(width):
    layers = neural_tangents().stax
    return layers.serial(layers.Dense(width, b_std=0.1), layers.Relu(), layers.Dense(2, b_std=0.1))


def functions(**options):
    def init(key, x, width):
        return [jax.random.normal(key, (width, x.shape[1])), jnp.ones((width, 2))]

    return lz.from_functions(init, lambda params, x: jnp.tanh(x @ params[0].T) @ params[1], outputs=2, **options)


FAMILIES = {
    "flax": lambda **options: lz.from_flax(linen, outputs=2, **options),
    "nnx": lambda **options: lz.from_nnx(Perceptron, outputs=2, **options),
    "stax": lambda **options: lz.from_stax(stax, outputs=2, **options),
    "functions": functions,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_ones_own_follows_the_protocol(family):
    network = FAMILIES[family](width=16)
    assert (network.width, network.outputs) == (16, 2)
    wide = network.clone(width=32)
    sizes = [sum(a.size for a in jax.tree.leaves(jax.eval_shape(net.init, KEY, X))) for net in (network, wide)]
    assert sizes[0] < sizes[1]
    variables = network.init(KEY, X)
    assert list(variables) == ["params"]
    f = network.apply(variables, X)
    assert f.shape == (5, 2)
    # Different keys give different initial variables; the same key gives the same ones, with or without jit.
    other = network.init(jax.random.key(4), X)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (variables, other)), strict=True))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(network.init)(KEY, X), variables)
    assert_close(jax.jit(network.apply)(variables, X), f)
    scaled = FAMILIES[family](width=16, output_scale=lambda m: m / 8.0)
    assert_close(jax.jit(scaled.apply)(variables, X), 2 * f)
    assert hash(network) == hash(network.clone(width=16))
    assert network == network.clone(width=16)


@pytest.mark.parametrize("family", FAMILIES)
def test_starts_are_those_of_float32_in_float64(family):
    network = FAMILIES[family](width=16)
    with jax.enable_x64(True):
        x = np.asarray(X, np.float64)
        wide = jax.jit(network.init)(KEY, x)
        assert {a.dtype for a in jax.tree.leaves(wide)} == {np.dtype("float64")}
        assert jax.eval_shape(network.apply, wide, x).dtype == np.float64
    if family in ("flax", "nnx"):
        narrow = jax.jit(network.init)(KEY, X)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.float32(a), b), wide, narrow)


def test_flax_and_nnx_modules_are_what_they_are_alone():
    network = lz.from_flax(linen, width=16, outputs=2)
    variables = network.init(KEY, X)
    assert_close(network.apply(variables, X), linen(16).apply(variables, X))
    module = Perceptron(16, nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert_close(FAMILIES["nnx"](width=16).apply({"params": params}, X), module(X))


@pytest.mark.slow
def test_the_kernel_of_stax_is_that_of_neural_tangents():
    network = lz.from_stax(stax, outputs=2, output_scale=3.0)
    x = np.asarray(X, np.float64)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = 9 * np.asarray(jax.jit(lambda x1, x2: stax(1)[2](x1, x2, "ntk"))(x, x[:2]))
    found = lz.analytic_kernel(network)(x, x[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    mean = lz.monte_carlo_kernel(network.clone(width=1024), X, X[:2], starts=40)
    assert np.all(np.abs(mean.kernel - found) < 5 * mean.standard_error)


def test_a_kernel_that_is_given_is_used():
    network = lz.from_flax(linen, kernel=lambda x1, x2=None: x1 @ (x1 if x2 is None else x2).T, output_scale=2.0)
    np.testing.assert_allclose(lz.analytic_kernel(network)(X, X[:2]), 4 * np.float64(X) @ np.float64(X[:2]).T)
    assert lz.analytic_kernel(lz.from_flax(linen)) is None
    wrong = lz.from_flax(linen, kernel=lambda x1, x2=None: x1)
    with pytest.raises(ValueError, match=r"^kernel must return .*\(5, 5\).* got shape \(5, 7\)"):
        lz.analytic_kernel(wrong)(X)


class Features(nn.Module):
    """A network with random features that are not trained and a readout that is trained."""

    width: int

    @nn.compact
    def __call__(self, x):
        w = self.variable("fixed", "w", lambda: jax.random.normal(self.make_rng("params"), (x.shape[1], self.width)))
        return nn.Dense(1)(jnp.tanh(x @ w.value))


class Fixed(nnx.Variable):
    pass


class FeaturesInNnx(nnx.Module):
    def __init__(self, width, rngs):
        self.w = Fixed(jax.random.normal(rngs.params(), (7, width)))
        # A deterministic dropout layer does nothing, but it stores a key and a count.
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(x @ self.w[...])))


class RunningAverages(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(self.width)(x))))


class RunningAveragesInNnx(nnx.Module):
    def __init__(self, width, rngs):
        self.hidden, self.out = nnx.Linear(7, width, rngs=rngs), nnx.Linear(width, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(width, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "frozen"),
    [
        (lz.from_flax(Features, width=8), {"fixed": 1}),
        (lz.from_nnx(FeaturesInNnx, width=8), {"fixed": 1}),
        (lz.from_flax(RunningAverages, width=8), {"batch_stats": 2}),
        (lz.from_nnx(RunningAveragesInNnx, width=8), {"fixed": 2}),
    ],
    ids=["flax", "nnx", "running averages in flax", "running averages in nnx"],
)
def test_frozen_parts_stay_as_they_are_and_have_no_share_in_the_kernel(network, frozen):
    data = lz.Dataset(np.float64(X), np.sign(np.float64(X)[:, 0]))
    measure = lz.Measure(predictions=False, kernel_drift=False)
    run = lz.train(network, data, KEY, 5, learning_rate=0.05, measure=measure)
    assert {name: len(jax.tree.leaves(part)) for name, part in run.variables.items() if name != "params"} == frozen
    for name in frozen:
        jax.tree.map(np.testing.assert_array_equal, run.variables[name], run.variables_0[name])
    assert float(run.snapshots.train_loss[-1]) < 0.9 * float(run.snapshots.train_loss[0])

    def outputs(params):
        return network.apply({**run.variables, "params": params}, X)

    jacobian = jax.jit(jax.jacrev(outputs))(run.variables["params"])
    rows = np.concatenate([np.asarray(leaf).reshape(len(X), -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    np.testing.assert_allclose(lz.empirical_ntk(network, run.variables, X), rows @ rows.T, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_networks_with_frozen_parts_are_compared_with_their_linearizations():
    data = lz.Dataset(np.float64(X), np.sign(np.float64(X)[:, 0]))
    result = lz.sweep(lz.from_flax(Features, width=8), data, [8], 2, 3, learning_rate=0.05, progress=False)
    # Only the last layer is trained, so the network is its own linearization.
    assert (result.linearization_gap_train < 1e-5).all()
    assert (result.displacement.isel(step=-1) > 0).all()


def use(network):
    return network.apply(network.init(KEY, X), X)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: lz.from_flax(lambda m: linen(m, nn.BatchNorm(use_running_average=False)), outputs=2),
            "changes its variables",
        ),
        (lambda: lz.from_flax(lambda m: linen(m, nn.Dropout(0.5, deterministic=False)), outputs=2), "dropout"),
        (lambda: lz.from_flax(lambda m: nn.relu and nn.Sequential([nn.relu])), "no parameters"),
        (
            lambda: lz.from_nnx(lambda m, rngs: Perceptron(m, rngs, nnx.Dropout(0.5, rngs=rngs)), outputs=2),
            "changes its state",
        ),
        (
            lambda: lz.from_nnx(lambda m, rngs: Perceptron(m, rngs, nnx.BatchNorm(m, rngs=rngs)), outputs=2),
            "changes its state",
        ),
        (lambda: lz.from_nnx(lambda m: Perceptron(m, nnx.Rngs(0))), r"function make\(width, rngs\)"),
        (lambda: lz.from_flax(linen), "Use outputs=2"),
        (lambda: lz.from_flax(linen, outputs=0), "outputs must be a positive integer, got 0"),
        (lambda: lz.from_flax(linen, parametrization="ntp"), "parametrization must be one of"),
    ],
)
def test_what_is_not_supported_is_said(make, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        use(make())


def test_rows_that_see_each_other_are_refused():
    def normalized(params, x):
        z = x @ params
        return (z - z.mean(axis=0)) / z.std(axis=0)

    network = lz.from_functions(lambda key, x, width: jax.random.normal(key, (7,)), normalized)
    with pytest.raises(ValueError, match="batch norm"):
        check_network(network, X)
    with pytest.raises(
        ValueError, match="network must have the attributes width, outputs, clone, init and apply, got Sequential"
    ):
        check_network(linen(8), X)
    with pytest.raises(TypeError, match="dot_general") as error:
        check_network(lz.from_functions(lambda key, x, width: jnp.ones(3), lambda params, x: x @ params), X)
    assert error.value.__notes__[0] == "The error was raised by a function passed to lazynet as network."
    check_network(lz.from_flax(linen, outputs=2), X)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lz.from_flax(linen(8)), "make must be a function that takes the width"),
        (lambda: lz.from_flax(lambda m: nnx.Linear(7, m, rngs=nnx.Rngs(0))), "make must return a flax Module"),
        (lambda: lz.from_nnx(lambda m, rngs: linen(m)), "make must return a flax Module"),
        (lambda: lz.from_stax(lambda m: stax(m)[:2]), "init_fn, apply_fn, kernel_fn"),
        (lambda: lz.from_functions(lambda key, x, width: {}, lambda params, x: x[:, 0]), "no parameters"),
        (lambda: lz.from_functions(lambda key, x, width: jnp.arange(3), lambda params, x: x[:, 0]), "int32"),
        (
            lambda: lz.from_functions(
                lambda key, x, width: {"a": [x[0].astype("complex64")]}, lambda params, x: x[:, 0]
            ),
            "'a/0'",
        ),
        (lambda: lz.from_flax(linen, kernel=lambda x: x @ x.T), "kernel must be a function"),
    ],
)
def test_slips_are_said_in_one_sentence(make, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        use(make())


def test_rngs_may_be_a_keyword():
    class Keyword(nnx.Module):
        def __init__(self, width, *, rngs):
            self.layer = nnx.Linear(7, width, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)[:, 0]

    assert use(lz.from_nnx(Keyword)).shape == (5,)


def test_a_start_that_leaves_its_key_out_of_account_is_refused():
    network = lz.from_functions(lambda key, x, width: jnp.ones((7,)), lambda params, x: x @ params)
    with pytest.raises(ValueError, match="for every key"):
        check_members_differ(network, [64], [0, 1], np.asarray(X))
    check_members_differ(network, [64], [0], np.asarray(X))
    check_network(network, np.asarray(X))
