"""Test the analytic kernel of two-layer networks against adaptive quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_unless
from scipy import integrate, special
from tolerance import assert_close

from lazynet.kernels import analytic_kernel
from lazynet.networks import MLP, TwoLayer, get_activation
from lazynet.precision import float64


def normal_density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


# The activations sigma and their derivatives sigma', implemented independently of the library.
FUNCTIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "erf": (special.erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2))),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "gelu": (lambda z: z * special.ndtr(z), lambda z: special.ndtr(z) + z * normal_density(z)),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
}
INIT_SCALES = [0.3, 3.0]
COSINES = [-1.0, -0.9, 0.0, 0.9, 0.999, 1.0]


@functools.cache
def expectations(cosine, norms):
    """Return E[sigma(w.x) sigma(w.x')] and E[sigma'(w.x) sigma'(w.x')] for each activation and init_scale kappa.

    In polar coordinates in the plane of x and x', (w.x, w.x') = kappa r (|x| cos t, |x'| cos(t - angle)). The
    quadrature is adaptive in t, with breakpoints at the kinks of relu, and uses 20 Gauss-Legendre nodes in r on each of
    20 subintervals of (0, 10).
    """
    nodes, weights = np.polynomial.legendre.leggauss(20)
    r = (0.5 * np.arange(20)[:, None] + 0.25 * (nodes + 1)).ravel()
    weight = np.tile(0.25 * weights, 20) * r * np.exp(-(r**2) / 2) / (2 * np.pi)
    angle = np.arccos(cosine)
    cases = [(name, kappa) for name in FUNCTIONS for kappa in INIT_SCALES]

    def along_the_ray(t):
        z1, z2 = r * norms[0] * np.cos(t), r * norms[1] * np.cos(t - angle)
        return np.array([[weight @ (f(k * z1) * f(k * z2)) for f in FUNCTIONS[name]] for name, k in cases])

    kinks = sorted({t % (2 * np.pi) for side in (0, angle) for t in (side + np.pi / 2, side - np.pi / 2)})
    # Integrate over one full turn, starting at a kink.
    value, error = integrate.quad_vec(
        along_the_ray, kinks[0], kinks[0] + 2 * np.pi, points=kinks[1:], epsabs=1e-10, epsrel=0, norm="max"
    )
    assert error < 1e-9
    return dict(zip(cases, value, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("train", ["hidden", "readout", "both"])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_quadrature(activation, train):
    norms = 0.7, 1.6
    x1 = norms[0] * np.array([[1.0, 0.0, 0.0]])
    x2 = norms[1] * np.array([[cosine, 0.0, np.sqrt(1 - cosine**2)] for cosine in COSINES])
    for kappa in INIT_SCALES:
        readout, hidden = np.transpose([expectations(cosine, norms)[activation, kappa] for cosine in COSINES])
        hidden = norms[0] * norms[1] * np.array(COSINES) * hidden
        expected = {"hidden": hidden, "readout": readout, "both": hidden + readout}[train]
        kernel = analytic_kernel(TwoLayer(width=2, activation=activation, train=train, init_scale=kappa))
        np.testing.assert_allclose(kernel(x1, x2), [expected], rtol=0, atol=1e-8)


def unit_rows(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_h_infinity_of_arora():
    x = unit_rows(20, 5)
    gram = x @ x.T
    np.fill_diagonal(gram, 1.0)
    expected = gram * (np.pi - np.arccos(gram)) / (2 * np.pi)
    np.testing.assert_allclose(analytic_kernel(TwoLayer(width=64))(x), expected, rtol=0, atol=1e-12)


def test_scales_that_depend_on_the_width():
    x = unit_rows(5, 3)
    scaled = TwoLayer(width=16, activation="erf", init_scale=lambda m: m**-0.5, output_scale=lambda m: m**0.5)
    plain = TwoLayer(width=16, activation="erf", init_scale=0.25)
    np.testing.assert_allclose(analytic_kernel(scaled)(x), 16 * analytic_kernel(plain)(x), rtol=1e-14)


def test_kernel_does_not_depend_on_outputs_or_start():
    x = unit_rows(5, 3)
    reference = analytic_kernel(TwoLayer(width=16))(x)
    for network in (TwoLayer(width=4, outputs=3), TwoLayer(width=5, readout="gaussian", symmetric=False)):
        np.testing.assert_array_equal(analytic_kernel(network)(x), reference)


@pytest.mark.parametrize("activation", ["relu", "abs", "erf", "gelu", "sin", "tanh", "sigmoid", "silu", "softplus"])
@pytest.mark.parametrize(
    "family", [TwoLayer, functools.partial(MLP, depth=1, init_scale=1.0)], ids=["two layers", "MLP"]
)
def test_zero_rows_have_the_kernel_of_their_definition(family, activation):
    """The products of a zero row are 0, and its pre-activation is 0, so E[sigma(0) sigma(v)] = sigma(0) E[sigma(v)]."""
    x = np.array([[0.0, 0.0], [1.2, -1.6], [0.0, 0.0], [0.3, 0.4]])
    function = get_activation(activation).function
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    with float64():
        at_zero = float(function(jnp.zeros(())))
        means = [weights @ np.asarray(function(jnp.asarray(norm * nodes))) / weights.sum() for norm in (0, 2, 0, 0.5)]
    both = analytic_kernel(family(width=4, activation=activation, train="both"))(x)
    np.testing.assert_allclose(both[0], at_zero * np.array(means), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(both, both.T)
    hidden = analytic_kernel(family(width=4, activation=activation, train="hidden"))(x)
    np.testing.assert_allclose(hidden[0], 0, rtol=0, atol=1e-15)
    others = np.ix_([1, 3], [1, 3])
    np.testing.assert_allclose(
        both[others], analytic_kernel(family(width=4, activation=activation, train="both"))(x[[1, 3]]), rtol=1e-12
    )


def test_rows_that_are_zero_only_in_float32_are_refused():
    with pytest.raises(ValueError, match="representable in float32, got a norm of 1e-50 in row 1"):
        analytic_kernel(TwoLayer(width=4))(np.array([[1.0], [1e-50]]), dtype="float32")


@pytest.mark.parametrize(
    ("activation", "train"),
    slow_unless(
        lambda case: case == ("tanh", "both"),
        [("relu", "hidden"), ("relu", "both"), ("tanh", "readout"), ("tanh", "both")],
    ),
)
def test_symmetric_case(activation, train):
    x = np.random.default_rng(0).normal(size=(16, 6)) / 2
    kernel = analytic_kernel(TwoLayer(width=4, activation=activation, train=train))
    square = kernel(x)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, kernel(x, x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(square[:7, 9:], kernel(x[:7], x[9:]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", slow_unless(lambda name: name == "relu", ["relu", "tanh"]))
def test_result_is_numpy_float64_for_any_input(activation):
    kernel = analytic_kernel(TwoLayer(width=4, activation=activation, train="both"))
    x = unit_rows(4, 3).astype(np.float32)
    expected = kernel(x.astype(np.float64))
    for inputs in (x, jnp.asarray(x)):
        k = kernel(inputs)
        assert type(k) is np.ndarray
        assert k.dtype == (1 + k).dtype == np.float64
        np.testing.assert_array_equal(k, expected)
    assert not jax.config.jax_enable_x64
    np.testing.assert_array_equal(kernel(np.array([[3, 4]])), kernel(np.array([[3.0, 4.0]])))


def test_a_family_without_a_kernel_gives_none():
    assert analytic_kernel(object()) is None


@pytest.mark.parametrize(
    ("x1", "x2", "message"),
    [
        (np.ones(3), None, r"x1 must be a nonempty array of shape \(n, d\), got shape \(3,\)\."),
        (np.ones((0, 3)), None, "x1 must be a nonempty array"),
        (np.ones((2, 3)), np.ones((2, 3, 1)), "x2 must be a nonempty array"),
        (np.ones((2, 3)), np.ones((2, 4)), "x2 must have rows of length 3 to match x1, got length 4"),
        (
            np.array([[1.0, 2.0], [np.nan, 1.0]]),
            None,
            "x1 must have only finite entries, got NaN or infinity in row 1",
        ),
        (np.ones((2, 2)), np.array([[np.inf, 1.0]]), "x2 must have only finite entries"),
        (
            np.array([[1.0], [1e-160]]),
            None,
            "x1 must have rows whose squared norms are representable in float64, got a norm of 1e-160 in row 1",
        ),
        (np.ones((2, 1)), np.array([[1e160]]), "x2 must have rows whose squared norms"),
    ],
)
def test_bad_rows_are_refused(x1, x2, message):
    with pytest.raises(ValueError, match=message):
        analytic_kernel(TwoLayer(width=4))(x1, x2)


@pytest.mark.parametrize(
    ("activation", "train"),
    slow_unless(
        lambda case: case == ("tanh", "both"),
        # The duals are computed from angles (relu), from closed forms (erf, sin, gelu) and from series (tanh).
        [*((name, "both") for name in ("relu", "erf", "sin", "gelu", "tanh")), ("relu", "hidden"), ("relu", "readout")],
    ),
)
def test_float32_is_float64_rounded(activation, train):
    x1 = np.random.default_rng(0).normal(size=(16, 6)) / 3
    x1[1], x1[2], x1[3] = x1[0], -x1[0], x1[0] + 1e-5
    x2 = np.random.default_rng(1).normal(size=(7, 6)) / 3
    kernel = analytic_kernel(TwoLayer(width=2, activation=activation, train=train, init_scale=0.7))
    for rows in ((x1,), (x1, x2)):
        single = kernel(*rows, dtype="float32")
        assert single.dtype == np.float32
        rounded = [x.astype(np.float32) for x in rows]
        assert_close(single, kernel(*rounded), ulps=16)
    assert np.array_equal(kernel(x1, dtype="float32"), kernel(x1, dtype="float32").T)
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, got 'float16'"):
        kernel(x1, dtype="float16")
