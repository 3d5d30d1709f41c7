"""Test the duals of named and user-defined activations against two-dimensional quadrature and neural-tangents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import neural_tangents
from reference import ACTIVATIONS, SLOPE, VALUE

import lazynet as lz
from lazynet.kernels._covariance import covariance_dual
from lazynet.kernels._dual import gaussian_dual
from lazynet.precision import float64

BOTH = pytest.mark.parametrize("derivative", [False, True])
# The input rows: two with different norms and directions, one orthogonal to the first, and the negative of the first.
X = np.array([[1.0, 0.0], [0.42, 0.56], [0.0, 0.8], [-1.0, 0.0]])
PAIRS = {"equal": (0, 0), "general": (0, 1), "orthogonal": (0, 2), "opposite": (0, 3), "both unlike": (1, 2)}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(160)
REACH = 9.5


def intervals(low, high):
    """Return Gauss-Legendre nodes and weights on intervals that are split at zero, where activations may have kinks."""
    middle = np.clip(0.0, low, high)
    ends = [(low, middle), (middle, high)]
    nodes = [(a + b)[..., None] / 2 + (b - a)[..., None] / 2 * NODES for a, b in ends]
    weights = [(b - a)[..., None] / 2 * WEIGHTS for a, b in ends]
    return np.concatenate(nodes, axis=-1), np.concatenate(weights, axis=-1)


def normal(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def by_quadrature(function, covariance):
    """Compute E[f(u) f(v)] for jointly normal u and v by Gauss-Legendre quadrature over u and over v given u."""
    (s1, s2), rho = np.sqrt(np.diag(covariance)), covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    z, weights = intervals(np.array(-REACH), np.array(REACH))
    outer = weights * normal(z) * function(s1 * z)
    spread = np.sqrt(max(0.0, 1 - rho**2))
    if spread < 1e-12:
        return np.sum(outer * function(s2 * rho * z))
    # Given u = s1 z, v / s2 is normal with mean rho z and standard deviation `spread`.
    v, inner = intervals(rho * z - REACH * spread, rho * z + REACH * spread)
    given_z = np.sum(inner * normal((v - rho * z[:, None]) / spread) / spread * function(s2 * v), axis=1)
    return np.sum(outer * given_z)


@pytest.fixture(scope="module", params=[1.0, 1.7])
def kappa(request):
    return request.param


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_named_activations(activation, derivative, kappa):
    dual = gaussian_dual(activation, X, None, kappa, derivative)
    function = (SLOPE if derivative else VALUE)[activation]
    for i, j in PAIRS.values():
        expected = by_quadrature(function, kappa**2 * X[[i, j]] @ X[[i, j]].T)
        np.testing.assert_allclose(dual[i, j], expected, rtol=0, atol=2e-12, err_msg=f"rows {i} and {j}")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_named_activations_from_covariances(activation, kappa):
    covariance = kappa**2 * X @ X.T
    dual = covariance_dual(activation, covariance, *2 * [np.diag(covariance).copy()])
    np.testing.assert_allclose(dual.value, gaussian_dual(activation, X, None, kappa), atol=1e-11)
    np.testing.assert_allclose(dual.slope, gaussian_dual(activation, X, None, kappa, True), atol=2e-8)
    for variance in (dual.variance1, dual.variance2):
        np.testing.assert_allclose(variance, np.diag(dual.value), rtol=1e-11)


def test_closed_forms_keep_their_digits_at_small_norms():
    x = 1e-6 * X
    c, s = x @ x.T, np.diag(x @ x.T)
    # Taylor series: gelu(z) is about z / 2 + z^2 / sqrt(2 pi), and erf(z) is about 2 z / sqrt(pi).
    expected = c / 4 + (np.outer(s, s) + 2 * c**2) / (2 * np.pi)
    np.testing.assert_allclose(gaussian_dual("gelu", x), expected, rtol=1e-11, atol=1e-35)
    np.testing.assert_allclose(gaussian_dual("erf", x), 4 / np.pi * c, rtol=1e-11, atol=1e-35)


@pytest.mark.parametrize("activation", ["erf", "gelu"])
@pytest.mark.parametrize("scale", [30.0, 100.0])
def test_closed_forms_of_opposite_rows_do_not_cancel(activation, scale):
    """The expectation E[gelu(u) gelu(-u)] = -E[u^2 Phi(u) Phi(-u)] stays bounded, although the variance does not."""
    values = gaussian_dual(activation, np.array([[scale], [-scale]]))
    z = np.linspace(-10, 10, 200_001) if activation == "gelu" else np.linspace(-10, 10, 200_001) * scale
    density = np.exp(-((z / scale) ** 2) / 2) / (np.sqrt(2 * np.pi) * scale)
    expected = np.sum(VALUE[activation](z) * VALUE[activation](-z) * density) * (z[1] - z[0])
    np.testing.assert_allclose(values[0, 1], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("activation", "layer"),
    [
        ("erf", lambda stax: stax.Erf()),
        ("gelu", lambda stax: stax.Gelu()),
        ("leaky_relu", lambda stax: stax.LeakyRelu(0.01)),
        ("abs", lambda stax: stax.Abs()),
        ("sin", lambda stax: stax.Sin()),
    ],
)
def test_deep_kernels_are_those_of_neural_tangents(activation, layer, kappa):
    stax = neural_tangents().stax
    first, later = stax.Dense(1, W_std=kappa * 2**0.5), stax.Dense(1, W_std=kappa)
    kernel = stax.serial(first, layer(stax), later, layer(stax), stax.Dense(1))[2]
    with float64(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = kernel(X, X, ("nngp", "ntk"))
        nngp, ntk = np.asarray(theirs.nngp), np.asarray(theirs.ntk)
    # The NTK of neural-tangents has an extra factor kappa^2 on hidden layers, and its angle between parallel rows is
    # off by about 1e-8.
    ours = lz.analytic_kernel(lz.MLP(width=2, depth=2, activation=activation, init_scale=kappa))(X)
    np.testing.assert_allclose(ours, nngp + (ntk - nngp) / kappa**2, rtol=1e-7, atol=1e-7)


def wave(z):
    return jnp.sin(9 * z) + 0.5


FUNCTIONS = {
    "tanh again": (lambda z: jnp.tanh(z), np.tanh, SLOPE["tanh"]),
    "bell": (lambda z: jnp.exp(-(z**2)), lambda z: np.exp(-(z**2)), lambda z: -2 * z * np.exp(-(z**2))),
    "cube": (lambda z: z**3, lambda z: z**3, lambda z: 3 * z**2),
    "wave": (wave, lambda z: np.sin(9 * z) + 0.5, lambda z: 9 * np.cos(9 * z)),
}


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_user(name, derivative):
    (function, *expected), kappa = FUNCTIONS[name], 1.7
    dual = gaussian_dual(function, X, None, kappa, derivative)
    for i, j in PAIRS.values():
        value = by_quadrature(expected[derivative], kappa**2 * X[[i, j]] @ X[[i, j]].T)
        np.testing.assert_allclose(dual[i, j], value, rtol=1e-11, atol=1e-10)


def test_jax_functions_that_have_a_name_have_its_closed_form():
    for function, name in ((jax.nn.relu, "relu"), (jnp.abs, "abs"), (jnp.absolute, "abs"), (jnp.sin, "sin")):
        np.testing.assert_array_equal(gaussian_dual(function, X), gaussian_dual(name, X))


def test_a_function_may_have_the_name_of_another():
    def erf(z):
        return jnp.tanh(z)

    np.testing.assert_allclose(gaussian_dual(erf, X), gaussian_dual("tanh", X), atol=1e-11)


@pytest.mark.parametrize("function", [jax.nn.relu6, jax.nn.hard_tanh, jax.nn.elu, lambda z: 1 / z])
def test_functions_without_a_convergent_series_are_refused(function):
    with pytest.raises(ValueError, match="activation must be smooth and finite for its infinite-width kernel"):
        gaussian_dual(function, X, None, 1.0, derivative=True)
