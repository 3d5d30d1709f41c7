"""Test Gaussian expectations of smooth activations, computed from series in the angle, at small and large scales."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl
from scipy import special

import lazynet as lz
from lazynet.kernels import _closed_forms
from lazynet.kernels import _smooth as smooth
from lazynet.kernels._clenshaw import Series, clenshaw
from lazynet.kernels._covariance import covariance_dual
from lazynet.kernels._dual import gaussian_dual, tangent_dual

BOTH = pytest.mark.parametrize("derivative", [False, True])
FUNCTIONS = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(np.clip(z, -300, 300)) ** 2),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "silu": (lambda z: z * special.expit(z), lambda z: special.expit(z) * (1 + z * special.expit(-z))),
}


def rows_of(norms, d=5, seed=0):
    """Return random rows with the given norms, including a parallel, an opposite and a nearly parallel pair."""
    x = np.random.default_rng(seed).normal(size=(len(norms), d))
    x[1], x[2], x[3] = x[0], -x[0], x[0] + 1e-4 * x[3]
    return x / np.linalg.norm(x, axis=1)[:, None] * np.array(norms)[:, None]


def by_quadrature(function, x1, x2):
    """Compute E[f(w.x1) f(w.x2)] by trapezoidal sums over the plane of the two rows."""
    s1, s2 = np.linalg.norm(x1), np.linalg.norm(x2)
    rho = np.clip(x1 @ x2 / s1 / s2, -1, 1)
    z = np.linspace(-9.5, 9.5, int(64 + 70 * max(s1, s2, 1)))
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    total = 0.0
    for part, weight in zip(np.array_split(z, 20), np.array_split(weights, 20), strict=True):
        second = function(s2 * (rho * part[:, None] + np.sqrt(1 - rho**2) * z)) @ weights
        total += weight * function(s1 * part) @ second
    return total


@BOTH
@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("norms", [(1, 1, 1, 1), (1e-3, 0.03, 0.5, 2), (3, 4, 7, 9)])
def test_expectations_agree_with_quadrature(activation, derivative, norms):
    x = rows_of(norms)
    expected = [[by_quadrature(FUNCTIONS[activation][derivative], a, b) for a in x] for b in x]
    np.testing.assert_allclose(gaussian_dual(activation, x, derivative=derivative), expected, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "derivative"), [("tanh", True), ("softplus", False), ("sigmoid", True), ("silu", False)]
)
def test_expectations_agree_with_quadrature_at_large_norms(activation, derivative):
    x = rows_of((20, 100, 60, 35))
    kernel = gaussian_dual(activation, x, derivative=derivative)
    for i, j in [(0, 1), (2, 3)]:
        assert abs(kernel[i, j] - by_quadrature(FUNCTIONS[activation][derivative], x[i], x[j])) < 1e-10


@BOTH
@pytest.mark.parametrize("activation", ["erf", "gelu"])
@pytest.mark.parametrize("norms", [(1, 1, 1, 1), (1e-3, 0.03, 0.5, 2), (3, 4, 7, 9), (30, 100, 40, 50)])
def test_series_agree_with_closed_forms(activation, derivative, norms, monkeypatch):
    x = rows_of(norms)
    closed = gaussian_dual(activation, x, derivative=derivative)
    monkeypatch.setattr(_closed_forms, "CLOSED_FORMS", {})
    series = gaussian_dual(activation, x, derivative=derivative)
    np.testing.assert_allclose(series, closed, rtol=0, atol=1e-11 * max(1, np.abs(closed).max()))


@pytest.mark.slow
def test_oscillating_functions():
    x = rows_of((0.5, 2, 6, 10))
    closed = gaussian_dual("sin", x)
    np.testing.assert_allclose(gaussian_dual(lambda z: jnp.sin(z), x), closed, rtol=0, atol=1e-11)


@pytest.mark.slow
@BOTH
def test_norms_over_five_decades(derivative):
    """The name "erf" has a closed form, whereas a user-defined function that computes erf is expanded in a series."""
    x = rows_of(np.geomspace(1e-3, 100, 12))
    expected = gaussian_dual("erf", x, derivative=derivative)
    series = gaussian_dual(lambda z: jax.scipy.special.erf(z), x, derivative=derivative)
    np.testing.assert_allclose(series, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "init_scales"), [("tanh", (0.5, 2.0)), ("softplus", (0.5,)), ("sigmoid", (2.0,)), ("silu", (2.0,))]
)
def test_one_series_for_both_layers(activation, init_scales):
    """The kernel of both layers depends on init_scale even if the product of init_scale and the norms is fixed."""
    x = rows_of((1e-3, 0.5, 2, 8))
    for init_scale in init_scales:
        hidden, readout, both = (
            tangent_dual(part, activation, x / init_scale, init_scale=init_scale)
            for part in ("hidden", "readout", "both")
        )
        np.testing.assert_allclose(both, hidden + readout, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["hidden", "both"])
def test_errors_do_not_grow_with_the_product_of_the_norms(part):
    """With norms of 100, errors of 1e-13 in E[sigma' sigma'] or in rho would be multiplied by 10,000."""
    x = rows_of(np.geomspace(100, 1e-3, 12), d=40)
    expected = tangent_dual(part, "erf", x)
    series = tangent_dual(part, lambda z: jax.scipy.special.erf(z), x)
    np.testing.assert_allclose(series, expected, rtol=0, atol=5e-11)


@pytest.mark.whole
@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_the_diagonal_has_an_absolute_error_below_1e_10_at_norms_of_100(activation):
    norms = np.array([0.001, 1, 30, 70, 85, 100])
    # Rows of other directions, whose products with themselves have different rounding errors.
    x = np.random.default_rng(0).normal(size=(len(norms), 13))
    x *= (norms / np.linalg.norm(x, axis=1))[:, None]
    z = np.linspace(-13, 13, 40_001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    value, slope = (function(norms[:, None] * z) ** 2 @ weights for function in FUNCTIONS[activation])
    for part, expected in {"hidden": norms**2 * slope, "both": value + norms**2 * slope}.items():
        diagonal = np.diag(tangent_dual(part, activation, x))
        np.testing.assert_allclose(diagonal, expected, rtol=0, atol=1e-10)


def test_derivatives_of_functions_with_steep_slopes_have_kernels():
    """At norms of 300, pre-activations of order 1, where tanh is steep, are at angles within 1 / 300 of pi / 2."""
    x = rows_of((300, 300, 300, 300))
    z = np.linspace(-0.2, 0.2, 20_001)
    squares = FUNCTIONS["tanh"][True](300 * z) ** 2
    expected = squares @ np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    kernel = gaussian_dual("tanh", x, derivative=True)
    np.testing.assert_allclose(np.diag(kernel), expected, rtol=0, atol=1e-11)


def test_tables_are_computed_without_threads_of_blas():
    """BLAS threads would keep spinning after each of the many small products."""
    threads = []

    def function(z):
        libraries = threadpoolctl.threadpool_info()
        threads.extend(library["num_threads"] for library in libraries if library["user_api"] == "blas")
        return jnp.tanh(z)

    gaussian_dual(function, rows_of((1, 2, 3, 4)))
    assert set(threads) == {1}


def test_entries_hardly_depend_on_the_other_rows():
    x = rows_of((0.1, 1, 2, 5))
    whole = gaussian_dual("tanh", x)
    np.testing.assert_allclose(gaussian_dual("tanh", x[:1], x[3:]), whole[:1, 3:], rtol=0, atol=1e-12)


@BOTH
def test_variances_may_be_zero(derivative):
    variance = np.array([0.0, 1.0, 4.0])
    covariance = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 1.9], [0.0, 1.9, 4.0]])
    found = covariance_dual("sigmoid", covariance, variance, variance)
    function = FUNCTIONS["sigmoid"][derivative]
    z = np.linspace(-9.5, 9.5, 2000)
    means = [np.exp(-(z**2) / 2) @ function(s * z) / np.exp(-(z**2) / 2).sum() for s in (0, 1, 2)]
    entries = found.slope if derivative else found.value
    np.testing.assert_allclose(entries[0], function(0.0) * np.array(means), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.variance1, np.diag(found.value), rtol=0, atol=1e-12)


def test_the_zero_function_has_the_zero_kernel():
    x = rows_of((1, 2, 3, 4))
    np.testing.assert_array_equal(gaussian_dual(lambda z: 0 * z, x), np.zeros((4, 4)))
    found = covariance_dual(lambda z: 0 * z, x @ x.T, *[np.sum(x**2, axis=1)] * 2)
    np.testing.assert_array_equal(found.variance1, np.zeros(4))


def test_polynomials_are_exact():
    x = rows_of((0.5, 1, 2, 3))
    gram, squares = x @ x.T, np.sum(x**2, axis=1)
    expected = 6 * gram**3 + 9 * squares[:, None] * squares * gram
    np.testing.assert_allclose(gaussian_dual(lambda z: z**3, x), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("function", [jax.nn.relu, lambda z: jnp.exp(z**2), lambda z: 1 / z, lambda z: jnp.floor(z)])
def test_what_is_not_smooth_or_not_finite_is_refused(function):
    with pytest.raises(ValueError, match="activation must be smooth and finite for its infinite-width kernel"):
        gaussian_dual(lambda z: function(z), np.eye(3))


def test_a_narrow_bump_is_resolved():
    """A bump of width 0.02 needs more evaluation points than are used at first."""
    s, width = 2.0, 0.02
    x = rows_of((s,) * 4)
    kernel = gaussian_dual(lambda z: jnp.exp(-((z / width) ** 2) / 2), x)
    # For u ~ N(0, s^2), E[exp(-u^2 / (2 width^2))^2] = (1 + 2 s^2 / width^2)^(-1/2).
    np.testing.assert_allclose(np.diag(kernel), (1 + 2 * s**2 / width**2) ** -0.5, rtol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize(("activation", "derivative"), [("tanh", True), ("softplus", False)])
def test_norms_up_to_200_have_kernels(activation, derivative):
    diagonal = np.diag(gaussian_dual(activation, rows_of((0.001, 1, 200, 100)), derivative=derivative))
    z = np.linspace(-13, 13, 20_001)  # steps of 0.26 in the activation's argument 200 z
    squares = FUNCTIONS[activation][derivative](200 * z) ** 2
    expected = squares @ np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(diagonal[2], expected, rtol=1e-9)


@pytest.mark.slow
def test_too_large_a_scale_is_refused():
    with pytest.raises(
        ValueError,
        match=r"init_scale times the largest row norm must be small enough for the series of tanh .*, got 1e\+06",
    ):
        gaussian_dual("tanh", np.eye(3), init_scale=1e6)


@pytest.mark.slow
def test_standardized_data_have_kernels():
    """Standardized data sets with 13 and 30 features contain rows with norms above 8."""
    for d in (13, 30):
        x = np.random.default_rng(d).standard_t(3, size=(120, d))
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        assert np.linalg.norm(x, axis=1).max() > 8
        for activation in ("tanh", "softplus"):
            kernel = lz.analytic_kernel(lz.MLP(width=8, depth=1, activation=activation))(x)
            assert np.linalg.eigvalsh(kernel)[0] > -1e-10


def test_named_tables_are_kept():
    smooth._named_table.cache_clear()
    gaussian_dual("tanh", rows_of((1, 2, 3, 4)))
    gaussian_dual("tanh", rows_of((1.01, 2, 3, 3.9)))
    assert smooth._named_table.cache_info()[:2] == (1, 1)


def random_series(n1, n2, terms, odd, focus):
    """Return a series with random features and its coefficients in order of increasing degree."""
    rng = np.random.default_rng(terms)
    ranks = rng.integers(0, 5, terms) if terms > 1 else np.array([3])
    left, right = rng.normal(size=(n1, ranks.sum())), rng.normal(size=(n2, ranks.sum()))
    ends = np.cumsum(ranks)[:-1]
    coefficients = [a @ b.T for a, b in zip(np.split(left, ends, 1), np.split(right, ends, 1), strict=True)][::-1]
    return Series(odd, focus, ranks, left, right), np.array(coefficients)


@pytest.mark.parametrize(("n1", "n2"), [(7, 5), (70, 33), (130, 17)])
def test_clenshaw_sums_chebyshev_polynomials(n1, n2):
    rho = np.random.default_rng(n1).uniform(-1, 1, (n1, n2))
    rho[0, :4] = 1, -1, 1 + 1e-15, 0
    h = np.sqrt(np.maximum(1 - np.abs(rho), 0) / 2)
    series, expected = [], np.zeros_like(rho)
    for terms, odd, focus in [(3, False, 1.0), (9, True, 0.03), (40, True, 1e-4), (1, False, None), (1, True, None)]:
        one, coefficients = random_series(n1, n2, terms, odd, focus)
        if focus is None:
            expected += coefficients[0] * (rho if odd else 1)
        else:
            y = 2 * (np.arcsinh(h / focus) / np.arcsinh(np.sqrt(0.5) / focus)) ** 2 - 1
            values = np.polynomial.chebyshev.chebval(y, coefficients, tensor=False)
            expected += values * (np.where(rho < 0, -1, 1) if odd else 1)
        series.append(one)
    np.testing.assert_allclose(clenshaw(rho, series), expected, atol=2e-12)


@pytest.mark.slow
def test_clenshaw_is_compiled_by_one_thread():
    """LLVM must not compile machine code in two threads at the same time."""
    code = (
        "import numpy as np; from lazynet.kernels._clenshaw import Series, clenshaw;"
        "clenshaw(np.zeros((640, 16)), [Series(False, None, np.array([1]), np.ones((640, 1)), np.ones((16, 1)))])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_clenshaw_checks_its_shapes():
    with pytest.raises(ValueError, match=r"left and right must have shapes \(2, total\) and \(3, total\)"):
        clenshaw(np.zeros((2, 3)), [Series(False, 1.0, np.array([3]), np.zeros((2, 4)), np.zeros((3, 4)))])
