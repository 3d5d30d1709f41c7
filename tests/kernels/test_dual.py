"""Test Gaussian expectations of activations: closed forms, diagonal entries for relu, series and blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from lazynet.kernels import _dual as dual
from lazynet.kernels._covariance import covariance_dual
from lazynet.kernels._dual import gaussian_dual

ACTIVATIONS = ["relu", "erf", "tanh", "gelu", "softplus"]
BOTH = pytest.mark.parametrize("derivative", [False, True])


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pair_at(angle, d, seed=0):
    """Return two unit rows at a given angle."""
    frame = np.linalg.qr(rows(d, 2, seed=seed))[0].T
    x = frame[:1]
    return x, np.cos(angle) * frame[:1] + np.sin(angle) * frame[1:]


def arc_cosine(angle, derivative):
    """Compute E[relu(u) relu(v)] or E[relu'(u) relu'(v)] for unit rows in extended precision (Cho and Saul 2009)."""
    angle = np.longdouble(angle)
    pi = 4 * np.arctan(np.longdouble(1))
    if derivative:
        return (pi - angle) / (2 * pi)
    return (np.sin(angle) + (pi - angle) * np.cos(angle)) / (2 * pi)


@BOTH
@pytest.mark.parametrize("angle", [0.02, 0.1, 1.0, np.pi / 2, 2.5, 3.1])
def test_relu_off_the_diagonal(angle, derivative):
    x1, x2 = pair_at(angle, 40)
    value = gaussian_dual("relu", 1.7 * x1, 0.6 * x2, 2.0, derivative)[0, 0]
    size = 1.0 if derivative else 4.0 * 1.7 * 0.6
    assert abs(value / size - arc_cosine(angle, derivative)) < 1e-12


@BOTH
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.01414, 0.01415])
def test_relu_near_the_diagonal_and_near_opposite_rows(angle, derivative):
    x1, x2 = pair_at(angle, 40)
    x2 = x2 / np.linalg.norm(x2)
    assert abs(gaussian_dual("relu", x1, x2, derivative=derivative)[0, 0] - arc_cosine(angle, derivative)) < 1e-14
    opposite = np.pi - np.longdouble(angle) + np.longdouble(1.2246467991473532e-16)
    assert abs(gaussian_dual("relu", x1, -x2, derivative=derivative)[0, 0] - arc_cosine(opposite, derivative)) < 1e-14


@BOTH
def test_relu_on_the_diagonal(derivative):
    x = rows(30, 200)
    expected = np.full(30, 0.5) if derivative else 0.5 * np.sum(x**2, axis=1)
    np.testing.assert_allclose(np.diag(gaussian_dual("relu", x, derivative=derivative)), expected, rtol=1e-14)
    np.testing.assert_allclose(np.diag(gaussian_dual("relu", x, x, derivative=derivative)), expected, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "ulps"), [("float64", 8), ("float32", 4)])
def test_angle_polynomial(dtype, ulps):
    x = np.linspace(0, 1, 3001)[:-1].astype(dtype)
    angle = np.polyval(np.array(dual._angle_polynomial(dtype), dtype), 2 * x - 1) * np.sqrt(1 - x)
    assert angle.dtype == x.dtype
    expected = np.arccos(x.astype(np.longdouble))
    assert np.max(np.abs(angle / expected - 1)) < ulps * np.finfo(dtype).eps


def test_many_nearly_parallel_pairs_in_chunks(monkeypatch):
    x = 1 + 1e-5 * rows(20, 5)
    kernel = gaussian_dual("relu", x)
    monkeypatch.setattr(dual, "PAIRS", 35)  # process seven pairs of rows at a time
    np.testing.assert_array_equal(gaussian_dual("relu", x), kernel)


@BOTH
def test_erf_formula(derivative):
    """Compare with Williams 1997, equation (11), and with the corresponding formula for the derivative of erf."""
    x1, x2, kappa = rows(6, 3), rows(5, 3, seed=1), 1.5
    gram, size1, size2 = (2 * kappa**2 * g for g in (x1 @ x2.T, np.sum(x1**2, 1)[:, None], np.sum(x2**2, 1)))
    product = (1 + size1) * (1 + size2)
    expected = 4 / np.pi / np.sqrt(product - gram**2) if derivative else 2 / np.pi * np.arcsin(gram / np.sqrt(product))
    np.testing.assert_allclose(gaussian_dual("erf", x1, x2, kappa, derivative), expected, rtol=1e-12, atol=1e-14)


# The cases cover formulas in the angle, closed forms from neural-tangents, and series.
@pytest.mark.parametrize(
    ("activation", "derivative"),
    [("relu", False), ("erf", True), ("tanh", False), ("tanh", True), ("gelu", False), ("softplus", True)],
)
def test_result_does_not_depend_on_blocks(activation, derivative, monkeypatch):
    # With BLOCK = 5, the eight rows are split into blocks of 5 and 3 rows.
    x1, x2 = rows(8, 4), rows(8, 4, seed=1)
    rectangle = gaussian_dual(activation, x1, x2, 0.5, derivative)
    square = gaussian_dual(activation, x1, None, 0.5, derivative)
    monkeypatch.setattr(dual, "BLOCK", 5)
    monkeypatch.setattr(dual, "SMALL_BLOCK", 5)
    np.testing.assert_allclose(gaussian_dual(activation, x1, x2, 0.5, derivative), rectangle, rtol=1e-13, atol=1e-14)
    blocked = gaussian_dual(activation, x1, None, 0.5, derivative)
    np.testing.assert_allclose(blocked, square, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(blocked, blocked.T)


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_symmetric_case(activation, derivative):
    x = rows(8, 4)
    square = gaussian_dual(activation, x, None, 0.5, derivative)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, gaussian_dual(activation, x, x, 0.5, derivative), rtol=1e-13, atol=1e-14)
    assert type(square) is np.ndarray
    assert square.dtype == np.float64
    assert np.linalg.eigvalsh(square)[0] > -1e-12


def test_programs_are_traced_once():
    for seed in range(3):
        gaussian_dual("erf", rows(9, 4, seed=seed), init_scale=1.0 + seed)
    traced = dual._closed_form_part._cache_size()
    gaussian_dual("erf", rows(9, 4, seed=9), init_scale=7.0)
    assert dual._closed_form_part._cache_size() == traced


def test_float64_stays_inside():
    gaussian_dual("gelu", rows(3, 4))
    assert jnp.ones(1).dtype == jnp.float32


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-4, 1.0, 3.0])
def test_sine_formula(scale):
    x1, x2 = scale * rows(4, 3, seed=1), scale * rows(5, 3, seed=2)
    half = (np.sum(x1**2, axis=1)[:, None] + np.sum(x2**2, axis=1)) / 2
    np.testing.assert_allclose(gaussian_dual("sin", x1, x2), np.exp(-half) * np.sinh(x1 @ x2.T), rtol=1e-12)
    np.testing.assert_allclose(gaussian_dual("sin", x1, x2, 1.0, True), np.exp(-half) * np.cosh(x1 @ x2.T), rtol=1e-12)
    deep = covariance_dual("sin", x1 @ x2.T, np.sum(x1**2, axis=1), np.sum(x2**2, axis=1))
    np.testing.assert_allclose(deep.value, gaussian_dual("sin", x1, x2), rtol=1e-12)
    np.testing.assert_allclose(deep.variance1, -np.expm1(-2 * np.sum(x1**2, axis=1)) / 2, rtol=1e-12)


@pytest.mark.parametrize("activation", ["erf", "gelu", "sin"])
def test_rows_at_which_closed_forms_lose_their_digits_are_refused(activation):
    x = rows(3, 4, seed=0)
    x *= 9e3 / np.linalg.norm(x, axis=1).max()
    assert np.isfinite(gaussian_dual(activation, x)).all()
    for refuses in (
        lambda: gaussian_dual(activation, 2 * x),
        lambda: gaussian_dual(activation, x, init_scale=2.0),
        lambda: covariance_dual(activation, 4 * x @ x.T, *2 * [4 * np.sum(x**2, axis=1)]),
    ):
        with pytest.raises(
            ValueError, match=rf"^init_scale times the largest row norm must be .* kernel of {activation} "
        ):
            refuses()
