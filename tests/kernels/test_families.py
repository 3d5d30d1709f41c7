"""Test kernels of deep and convolutional networks against neural-tangents, Monte Carlo estimates and Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import neural_tangents
from reference import unit_rows

import lazynet as lz
from lazynet.kernels._covariance import covariance_dual
from lazynet.kernels._monte_carlo import layer_kernels
from lazynet.networks import PARAMETRIZATIONS
from lazynet.precision import float64

TRAINED = ("hidden", "readout", "both")
WIDTH = 128
LAYERS = {"relu": "Relu", "erf": "Erf", "gelu": "Gelu"}


def rows():
    """Return two sets of rows that contain one pair of parallel rows and one pair of equal rows."""
    x1, x2 = unit_rows(6, 7), unit_rows(4, 7, seed=1)
    x2[0], x2[1] = 1.3 * x1[0], x1[2]
    return x1, x2


def jacobian_kernel(network, variables, x1, x2):
    """Return each array's contribution to J J', averaged over outputs, with the Jacobian J from jax.jacrev."""
    x = jnp.concatenate([x1, x2])

    def outputs(params):
        return network.apply({**variables, "params": params}, x).reshape(len(x), -1)

    jacobians = jax.jit(jax.jacrev(outputs))(variables["params"])
    flat = {name: np.asarray(j).reshape(*j.shape[:2], -1) for name, j in jacobians.items()}
    return {name: np.einsum("ick,jck->ij", j[: len(x1)], j[len(x1) :]) / j.shape[1] for name, j in flat.items()}


def by_neural_tangents(activation, depth, kappa, d, x1, x2):
    """Return the NNGP kernel and the NTK from neural-tangents, with hidden weights scaled by kappa."""
    stax = neural_tangents().stax
    layers = []
    for layer in range(depth):
        # neural-tangents divides the first layer by sqrt(d), where d is the number of features.
        width = kappa * (d**0.5 if layer == 0 else 1)
        layers += [stax.Dense(1, W_std=width), getattr(stax, LAYERS[activation])()]
    kernel = stax.serial(*layers, stax.Dense(1))[2]
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        kernels = kernel(x1, x2, ("nngp", "ntk"))
        return np.asarray(kernels.nngp), np.asarray(kernels.ntk)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("activation", LAYERS)
def test_deep_kernels_match_neural_tangents(activation, depth):
    x1, x2 = rows()
    nngp, ntk = by_neural_tangents(activation, depth, 1.3, 7, x1, x2)
    # The NTK of neural-tangents has an extra factor kappa^2 on hidden layers and, for relu, an error of about 1e-8 in
    # the angle between parallel rows.
    expected = {"readout": nngp, "hidden": (ntk - nngp) / 1.3**2, "both": nngp + (ntk - nngp) / 1.3**2}
    for train in TRAINED:
        network = lz.MLP(width=2, depth=depth, activation=activation, train=train, init_scale=1.3)
        kernel = lz.analytic_kernel(network)(x1, x2)
        tolerance = 3e-8 if activation == "relu" else 1e-12
        np.testing.assert_allclose(kernel, expected[train], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
def test_depth_one_is_the_two_layer_network(activation):
    """Compare three activations; test_activation_duals.py compares the duals of both networks for all activations."""
    x1, x2 = rows()
    for train in TRAINED:
        deep = lz.MLP(2, 1, activation=activation, train=train, init_scale=1.3, output_scale=0.7)
        two = lz.TwoLayer(2, activation=activation, train=train, init_scale=1.3, output_scale=0.7)
        np.testing.assert_allclose(lz.analytic_kernel(deep)(x1, x2), lz.analytic_kernel(two)(x1, x2), atol=1e-11)


def test_relu_on_equal_rows_is_exact():
    """If kappa^2 = 2, layers preserve norms and kappa^2 E[relu'^2] = 1, so K(x, x) = (depth + 2) / 2 for unit rows."""
    x = unit_rows(20, 5)
    for depth in (1, 2, 5):
        k = lz.analytic_kernel(lz.MLP(2, depth))(x)
        np.testing.assert_allclose(np.diagonal(k), depth / 2 + 1, rtol=1e-14)
        assert np.array_equal(k, k.T)
        again = lz.analytic_kernel(lz.MLP(2, depth))(x, x.copy())
        np.testing.assert_allclose(again, k, atol=1e-14)


def moments(activation, covariance):
    """Compute E[f(u) f(v)] for a smooth activation and its slope by Gauss-Hermite quadrature in two dimensions."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    factor = np.linalg.cholesky(covariance)
    u, v = factor[0, 0] * nodes[:, None] + 0 * nodes, factor[1, 0] * nodes[:, None] + factor[1, 1] * nodes
    function = {"tanh": np.tanh, "softplus": lambda z: np.logaddexp(0, z)}[activation]
    slope = {"tanh": lambda z: 1 / np.cosh(z) ** 2, "softplus": lambda z: 1 / (1 + np.exp(-z))}[activation]
    return [weights @ (f(u) * f(v)) @ weights for f in (function, slope)]


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_duals_of_covariances_against_quadrature(activation):
    variance1, variance2 = np.array([0.3, 1.0]), np.array([0.8, 0.5])
    covariance = np.array([[0.2, -0.3], [0.7, 0.1]])
    dual = covariance_dual(activation, covariance, variance1, variance2)
    for i in range(2):
        for j in range(2):
            pair = np.array([[variance1[i], covariance[i, j]], [covariance[i, j], variance2[j]]])
            np.testing.assert_allclose([dual.value[i, j], dual.slope[i, j]], moments(activation, pair), atol=1e-9)
    for i, variance in enumerate(variance1):
        same = covariance_dual(activation, np.full((1, 1), variance), *2 * [np.full(1, variance)])
        np.testing.assert_allclose(dual.variance1[i], same.value[0, 0], rtol=1e-11)


def test_a_row_of_zeros_has_no_slope_under_relu():
    dual = covariance_dual("relu", np.zeros((1, 2)), np.zeros(1), np.array([0.0, 1.0]))
    assert not dual.value.any()
    assert not dual.slope.any()


def check(network, starts=200, sides=rows):
    """Compare the analytic kernel of each trained part with a mean over initializations that all parts share."""
    x1, x2 = sides()
    both = network.clone(train="both")

    @jax.jit
    def samples(keys, x):
        def sample(key):
            *hidden, readout = layer_kernels(both, dict(both.init(key, x)), x).values()
            return {"hidden": sum(hidden), "readout": readout, "both": sum(hidden) + readout}

        return jax.lax.map(sample, keys)

    with jax.default_matmul_precision("highest"):
        rows_of_both = jnp.asarray(np.concatenate([x1, x2]), jnp.float32)
        kernels = samples(jax.random.split(jax.random.key(0), starts), rows_of_both)
    for train, sampled in kernels.items():
        sampled = np.asarray(sampled, np.float64)[:, : len(x1), len(x1) :]
        mean, error = sampled.mean(axis=0), sampled.std(axis=0, ddof=1) / starts**0.5
        changes = {"train_bias": False} if train == "readout" and getattr(network, "train_bias", False) else {}
        expected = lz.analytic_kernel(network.clone(train=train, **changes))(x1, x2)
        scale = np.abs(expected).max()
        assert np.all(error < 0.03 * scale), train
        assert np.all(np.abs(mean - expected) < 5 * error + 1e-6 * scale), train


# Two parametrizations have different exponents for the middle layers and the readout; they are tested at depth 3.
DEEP = {
    "ntk": ("relu", 2),
    "standard": ("tanh", 2),
    "mean-field": ("relu", 2),
    "maximal-update": ("gelu", 3),
    "allen-zhu": ("relu", 3),
    "chen": ("softplus", 2),
}


@pytest.mark.whole
@pytest.mark.parametrize(
    "parametrization",
    PARAMETRIZATIONS,
)
def test_every_parametrization_has_the_kernel_of_its_own_width(parametrization):
    options = {"bias_scale": 0.3, "output_scale": 1.7, "init_scale": 1.4, "parametrization": parametrization}
    activation, depth = DEEP[parametrization]
    # In the other parametrizations, trained biases contribute less than the Monte Carlo error at this width.
    train_bias = parametrization in ("ntk", "mean-field", "allen-zhu")
    check(lz.MLP(WIDTH, depth, activation=activation, outputs=2, train_bias=train_bias, **options))


@pytest.mark.parametrize("activation", ["erf", "gelu"])
def test_kernels_of_trained_biases_match_neural_tangents(activation):
    """With b_std=1, neural-tangents too adds biases to the pre-activations without a multiplier."""
    x1, x2 = rows()
    stax, layers = neural_tangents().stax, []
    for scale in (x1.shape[1] ** 0.5, 1.0):
        layers += [stax.Dense(1, W_std=scale, b_std=1.0), getattr(stax, LAYERS[activation])()]
    kernel = stax.serial(*layers, stax.Dense(1))[2]
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = np.asarray(kernel(x1, x2, "ntk"))
    for bias_scale in (0.0, 1.0):
        network = lz.MLP(2, 2, activation=activation, init_scale=1.0, bias_scale=bias_scale, train_bias=True)
        found = lz.analytic_kernel(network)(x1, x2)
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-12) == (bias_scale == 1)


def test_a_trained_bias_adds_the_kernel_of_a_feature_that_is_one():
    """With relu, one layer and no biases at the start, the bias adds E[relu'(w.x) relu'(w.x')] to the kernel."""
    x1, x2 = rows()
    network = lz.MLP(2, 1, train="hidden")
    added = lz.analytic_kernel(network.clone(train_bias=True))(x1, x2) - lz.analytic_kernel(network)(x1, x2)
    cosine = np.clip((x1 @ x2.T) / np.linalg.norm(x1, axis=1)[:, None] / np.linalg.norm(x2, axis=1), -1, 1)
    np.testing.assert_allclose(added, 0.5 - np.arccos(cosine) / (2 * np.pi), atol=1e-12)


def test_the_three_layer_kernel_is_that_of_its_parametrization():
    general = lz.MLP(2, 2, train="hidden", init_scale=1.0, bias_scale=1.0, parametrization="allen-zhu")
    np.testing.assert_array_equal(lz.analytic_kernel(lz.ThreeLayer(2))(*rows()), lz.analytic_kernel(general)(*rows()))


@pytest.mark.parametrize(
    ("activation", "options"),
    [("relu", {"filter_size": 3}), ("tanh", {"filter_size": 2, "image": (3, 2), "stride": 1})],
)
def test_convolutional_kernels_are_means(activation, options):
    def sides():
        x1, x2 = unit_rows(4, 6), unit_rows(3, 6, seed=1)
        # Include a patch of zeros, as occurs at the edges of images.
        x1[0, :3] = x2[1, 2:5] = 0
        return x1, x2

    check(lz.ConvNet(WIDTH, activation=activation, symmetric=False, **options), 120, sides)


def test_result_does_not_depend_on_blocks_of_patches(monkeypatch):
    network, x1, x2 = lz.ConvNet(2, filter_size=3), unit_rows(9, 8), unit_rows(5, 8, seed=1)
    unblocked = [lz.analytic_kernel(network)(x1), lz.analytic_kernel(network)(x1, x2)]
    monkeypatch.setattr("lazynet.kernels._families.PAIRS", 200)
    for blocked, expected in zip(
        [lz.analytic_kernel(network)(x1), lz.analytic_kernel(network)(x1, x2)], unblocked, strict=True
    ):
        np.testing.assert_allclose(blocked, expected, rtol=1e-14)


NETWORKS = [
    lz.MLP(6, 3, 2, "tanh", bias_scale=0.2),
    lz.MLP(6, 2, parametrization="standard"),
    lz.ThreeLayer(6),
    lz.ConvNet(6, 2, "tanh", "both", filter_size=3, readout="gaussian", symmetric=False),
]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_empirical_kernels_match_jacobians_layer_by_layer(network):
    with float64():
        x1, x2 = (jnp.asarray(x) for x in rows())
        variables = dict(jax.jit(network.init)(jax.random.key(0), x1))
        expected = jacobian_kernel(network, variables, x1, x2)
    parts = lz.empirical_ntk(network, variables, np.asarray(x1), np.asarray(x2), parts=True)
    assert sorted(parts) == sorted(expected)
    for name, part in parts.items():
        np.testing.assert_allclose(part, expected[name], rtol=1e-10, atol=1e-12)
    kernel = lz.empirical_ntk(network, variables, np.asarray(x1), np.asarray(x2))
    np.testing.assert_allclose(kernel, sum(expected.values()), rtol=1e-10, atol=1e-12)


def test_float32_is_the_rounded_kernel_and_bad_rows_are_refused():
    for network in (lz.MLP(2), lz.ConvNet(2), lz.from_flax(lambda m: None, kernel=lambda a, b=None: a @ a.T)):
        kernel = lz.analytic_kernel(network)
        x = rows()[0]
        k = kernel(x, dtype="float32")
        assert k.dtype == np.float32
        np.testing.assert_allclose(k, kernel(x.astype(np.float32)), rtol=1e-6, atol=1e-6)
        with pytest.raises(ValueError, match="x1 must have only finite entries"):
            kernel(np.full((3, 7), np.inf))


def test_one_start_has_no_standard_error():
    with pytest.raises(ValueError, match="starts must be an integer >= 2"):
        lz.monte_carlo_kernel(lz.TwoLayer(4), rows()[0], starts=1)


@pytest.mark.slow
def test_monte_carlo_is_the_mean_of_empirical_kernels():
    network, done, starts = lz.MLP(8, 2, train="both"), [], 3
    x = rows()[0].astype(np.float32)
    estimate = lz.monte_carlo_kernel(network, x, starts=starts, key=jax.random.key(7), progress=done.append)
    assert done == [1, 2, 3]
    init, keys = jax.jit(network.init), [jax.random.fold_in(jax.random.key(7), i) for i in range(starts)]
    kernels = np.stack([lz.empirical_ntk(network, dict(init(key, jnp.asarray(x))), x) for key in keys])
    np.testing.assert_allclose(estimate.kernel, kernels.mean(axis=0), rtol=1e-5)
    error = kernels.std(axis=0, ddof=1) / starts**0.5
    np.testing.assert_allclose(estimate.standard_error, error, rtol=1e-4, atol=1e-6)
