"""Test Taylor polynomials of networks against Jacobians and Hessians, and the networks' distances from them."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from reference import TRAINED
from tolerance import assert_close

import lazynet as lz
from lazynet.measures import taylor_gap
from lazynet.networks import Linearized, Quadratic, TwoLayer, traits
from lazynet.precision import float64

# The cases combine every trained part with one and with several outputs.
CASES = [(("relu", "gelu")[(i + j) % 2], train, k) for i, train in enumerate(TRAINED) for j, k in enumerate((1, 3))]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "train", "outputs"), CASES)
def test_apply_is_the_first_order_taylor_sum(activation, train, outputs, key):
    network = TwoLayer(width=10, outputs=outputs, activation=activation, train=train, symmetric=False)
    rng = np.random.default_rng(0)
    with float64():
        x = rng.normal(size=(6, 4))
        variables = jax.tree.map(np.asarray, dict(jax.jit(network.init)(key, x)))
        move = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), variables["params"])
        f0 = network.apply(variables, x)
        outputs = jax.jit(jax.jacrev(lambda params: network.apply({**variables, "params": params}, x)))
        jacobian = outputs(variables["params"])
        expected = np.asarray(f0) + sum(np.tensordot(np.asarray(jacobian[name]), move[name], 2) for name in move)
        linear = Linearized(network)
        at = linear.at(variables)
        assert_close(linear.apply(at, x), f0, ulps=0)
        moved = {**at, "params": jax.tree.map(np.add, at["params"], move)}
        found = np.asarray(linear.apply(moved, x))
        assert found.shape == f0.shape
        assert_close(found, expected)
        # The movement is so large that the network differs from its linearization, unless only the readout is trained.
        far = np.abs(np.asarray(network.apply({**variables, "params": moved["params"]}, x)) - expected).max()
    assert (far > 1e-3) == (train != "readout")


def test_the_collection_that_is_fixed_is_kept(key):
    network = TwoLayer(width=4, train="hidden")
    variables = dict(jax.jit(network.init)(key, jnp.ones((2, 3))))
    at = Linearized(network).at(variables)
    assert set(at) == {"params", "fixed", "origin"}
    assert set(at["origin"]) == {"hidden"}


@pytest.mark.parametrize(
    ("activation", "train"),
    [("tanh", "hidden"), ("softplus", "both"), ("tanh", "readout"), ("relu", "hidden"), ("relu", "both")],
)
def test_order_two_is_the_taylor_sum_with_the_hessian(activation, train, key):
    network = TwoLayer(width=6, outputs=2, activation=activation, train=train, symmetric=False)
    rng = np.random.default_rng(0)
    with float64():
        x = rng.normal(size=(4, 3))
        variables = dict(jax.jit(network.init)(key, x))
        flat, unravel = jax.flatten_util.ravel_pytree(variables["params"])
        move = rng.normal(size=flat.shape)

        def outputs(flat):
            return network.apply({**variables, "params": unravel(flat)}, x)

        jacobian, hessian = jax.jit(lambda flat: (jax.jacrev(outputs)(flat), jax.hessian(outputs)(flat)))(flat)
        f, jacobian, hessian, move = map(np.asarray, (outputs(flat), jacobian, hessian, move))
        expected = f + jacobian @ move + 0.5 * np.einsum("ncij,i,j->nc", hessian, move, move)
        parabola = Quadratic(network)
        at = {**parabola.at(variables), "params": unravel(flat + move)}
        assert_close(parabola.apply(at, x), expected, ulps=256)
        second = np.abs(expected - f - jacobian @ move).max()
    # The second-order term is zero if only the readout, or only the hidden weights of a relu network, are trained.
    assert (second > 1e-6) == (train == "both" or (train == "hidden" and activation != "relu"))


@pytest.mark.slow
def test_the_quadratic_model_of_relu_has_the_pseudo_network_of_allen_zhu(key):
    """The second-order term is a D_v V' D_w W' x with initial activation patterns D (Allen-Zhu et al. 2018, 6.2)."""
    network = lz.ThreeLayer(width=20, outputs=2)
    rng = np.random.default_rng(1)
    with float64():
        x = rng.normal(size=(5, 4))
        variables = jax.tree.map(np.asarray, dict(jax.jit(network.init)(key, x)))
        move = {name: rng.normal(size=leaf.shape) for name, leaf in variables["params"].items()}
        moved = jax.tree.map(np.add, variables["params"], move)
        one, two = (
            np.asarray(jax.jit(polynomial.apply)({**polynomial.at(variables), "params": moved}, x))
            for polynomial in (Linearized(network), Quadratic(network))
        )
        z1, z2 = (np.asarray(z) for z in traits(network).preactivations(variables, x))
    w, v, a = move["hidden_1"], move["hidden_2"], variables["fixed"]["readout"]
    pseudo = ((z2 > 0) * (((z1 > 0) * (x @ w.T)) @ v.T)) @ a
    assert_close(two - one, pseudo, ulps=1024)
    assert np.abs(pseudo).max() > 0.1


def gap_1(network, variables, variables_0, data):
    return taylor_gap(network, variables, variables_0, data.x_train, 1)


def gap_2(network, variables, variables_0, data):
    return taylor_gap(network, variables, variables_0, data.x_train, 2)


GAPS = lz.Measure(kernel_drift=False, own={"gap_1": gap_1, "gap_2": gap_2})


def slow_descent(network, steps=10_000):
    """Return the powers of the displacement with which the gaps to both Taylor polynomials grow in slow training."""
    data = lz.load_dataset("digits", n_train=16, n_test=4)
    rate = 10 / steps / np.linalg.eigvalsh(lz.analytic_kernel(network)(data.x_train))[-1]
    options = {"learning_rate": rate, "dtype": "float64", "measure": GAPS, "snapshots": 20}
    run = lz.train(network, data, jax.random.key(0), steps, **options)
    path = run.snapshots.isel(step=slice(1, None))
    moved = np.log(path.displacement.values)
    # The path must extend from the first step until most of the loss is gone.
    assert path.displacement.values[-1] > 100 * path.displacement.values[0]
    assert path.train_loss.values[-1] < 0.2 * path.train_loss.values[0]
    return [np.polyfit(moved, np.log(path[f"gap_{order}"].values), 1)[0] for order in (1, 2)]


# With a symmetric start, the second-order terms cancel.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "symmetric", "order"),
    [("tanh", False, 2), ("softplus", True, 3)],
)
def test_gaps_along_a_path_are_of_second_and_third_order_in_the_movement(activation, symmetric, order):
    network = lz.TwoLayer(width=64, activation=activation, train="both", symmetric=symmetric)
    linear, second = slow_descent(network)
    assert linear == pytest.approx(order, abs=0.2)
    assert second == pytest.approx(3, abs=0.2)


@pytest.mark.slow
def test_an_expansion_is_a_network_that_starts_where_it_is_expanded():
    data = lz.load_dataset("digits", n_train=12, n_test=5)
    network = lz.MLP(width=32, depth=2, activation="tanh")
    start = jax.jit(network.init)(jax.random.key(5), jnp.asarray(data.x_train, "float32"))
    options = {"learning_rate": 0.05, "dtype": "float64", "snapshots": 5}
    linear = lz.linearize(network, start)
    run = lz.train(linear, data, jax.random.key(0), 100, **options)
    k0 = lz.empirical_ntk(network, start, np.concatenate([data.x_train, data.x_test]), data.x_train)
    f0 = np.asarray(network.apply(start, jnp.asarray(data.x_train, "float32")), np.float64)
    path = lz.kernel_descent(k0[:12], data.y_train, learning_rate=0.05, steps=run.snapshots.step.values, f0=f0)
    np.testing.assert_allclose(run.snapshots.train_prediction, path.train, atol=2e-6)
    assert np.abs(run.snapshots.train_prediction[-1] - run.snapshots.train_prediction[0]).max() > 0.1
    assert float(run.snapshots.kernel_drift[-1]) < 1e-12
    # After one step, the quadratic model must be closer to the network than the linear model.
    options["measure"] = lz.Measure(kernel_drift=False)
    parabola, trained = (
        lz.train(model, data, jax.random.key(0), 1, **options).snapshots.train_prediction.sel(step=1)
        for model in (lz.quadratic(network, start), _started(network, start))
    )
    gaps = [np.abs(model - trained).max() for model in (parabola, run.snapshots.train_prediction.sel(step=1))]
    assert gaps[0] < 0.3 * gaps[1]


def test_expansions_are_refused_without_params_and_at_another_width(key):
    network = lz.TwoLayer(width=4)
    start = network.init(key, jnp.ones((2, 3)))
    for expand in (lz.linearize, lz.quadratic):
        with pytest.raises(ValueError, match="variables must have the key 'params'"):
            expand(network, dict(start["params"]))
    with pytest.raises(ValueError, match=r"changes must be empty or contain only width=4, got .* An expansion"):
        lz.linearize(network, start).clone(width=8)


def _started(network, start):
    return lz.from_functions(
        lambda key, x, width: start["params"], lambda params, x: network.apply({"params": params}, x), width=32
    )
