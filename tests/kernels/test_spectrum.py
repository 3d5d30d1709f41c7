"""Test the inverses and eigenvalues of kernels and the complexity measure."""

import numpy as np
import pytest
from reference import targets, unit_rows
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.kernels import Inverse, largest_eigenvalue, same_rows, spectrum
from lazynet.kernels._spectrum import DIRECT


def solve_longdouble(k, y):
    """Compute K^-1 y by Gauss-Jordan elimination in extended precision."""
    work = np.concatenate([k, y.reshape(len(k), -1)], axis=1).astype(np.longdouble)
    for i in range(len(k)):
        work[i] /= work[i, i]
        others = np.arange(len(k)) != i
        work[others] -= work[others, i : i + 1] * work[i]
    return work[:, len(k) :].reshape(y.shape)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_complexity(n, outputs):
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(unit_rows(n, 6))
    y = targets(n, outputs)
    expected = np.sqrt(2 * np.sum(y * solve_longdouble(k, y)) / n)
    assert isinstance(lz.complexity(k, y), float)
    # The condition number of these kernels is below 100.
    assert_close(lz.complexity(k, y), expected, ulps=1000)
    assert_close(lz.complexity(k.astype(np.float32), y), expected, dtype="float32", ulps=100)
    assert_close(Inverse(k).solve(y), solve_longdouble(k, y), ulps=1000)


def test_complexity_of_learnable_targets_is_bounded():
    """By Theorem 6.1 of Arora et al. 2019, y = (b . x)^p satisfies y' K^-1 y <= 9 p^2 |b|^(2p) for every n."""
    beta = unit_rows(1, 5, seed=3)[0]
    for n in (20, 100):
        x = unit_rows(n, 5)
        k = lz.analytic_kernel(lz.TwoLayer(width=2))(x)
        for p in (1, 2, 4):
            assert lz.complexity(k, (x @ beta) ** p) <= np.sqrt(2 / n) * 3 * p


def test_complexity_is_in_float64_for_float32_labels():
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(unit_rows(9, 6))
    y = targets(9)
    assert lz.complexity(k, y.astype(np.float32)) == lz.complexity(k, y)


def test_errors_name_identical_and_antipodal_rows():
    x = unit_rows(8, 5)
    x[6] = x[2]
    relu, erf = (lz.analytic_kernel(lz.TwoLayer(width=2, activation=a)) for a in ("relu", "erf"))
    for kernel in (relu, erf):
        with pytest.raises(ValueError, match="k must be nonsingular, but rows 2 and 6 are identical"):
            lz.complexity(kernel(x), targets(8))
    x[6] = 2 * x[2]
    with pytest.raises(ValueError, match="k must be nonsingular, but rows 2 and 6 are identical"):
        lz.complexity(relu(x), targets(8))
    x[6] = -x[2]
    assert same_rows(erf(x)) == (2, 6, "antipodal")
    with pytest.raises(ValueError, match="rows 2 and 6 are antipodal"):
        lz.complexity(erf(x), targets(8))
    assert same_rows(relu(x)) is None
    y = targets(8)
    assert_close(lz.complexity(relu(x), y), np.sqrt(y @ solve_longdouble(relu(x), y) / 4), ulps=1000)


def test_nearly_identical_rows_are_accepted():
    """For rows at an angle of 1e-4, the cosine in the kernel is 3e-5 below 1, so the kernel has an inverse."""
    x = unit_rows(8, 5)
    x[6] = x[2] + 1e-4 * unit_rows(1, 5, seed=5)[0]
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(x)
    assert same_rows(k) is None
    assert np.isfinite(lz.complexity(k, targets(8)))


@pytest.mark.parametrize(
    ("k", "y", "message"),
    [
        (np.ones((2, 3)), np.ones(2), "k must be a square matrix"),
        (np.diag([1.0, np.nan]), np.ones(2), "k must be finite"),
        (
            np.array([[1.0, 0.5], [0.4, 1.0]]),
            np.ones(2),
            "k must be symmetric to within 1.0e-05, got a matrix that differs from its transpose by 1.0e-01",
        ),
        (np.eye(2), np.ones(3), r"y must be an array of shape \(2,\) or \(2, k\) to match the kernel"),
        (np.eye(2), np.array([1.0, np.inf]), "y must be finite"),
        (np.array([[1.0, 0.5, 0.9], [0.5, 1, 0.1], [0.9, 0.1, -1.0]]), np.ones(3), "k must be positive definite"),
        (np.array([[2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [3.0, 3.0, 6.0]]), np.ones(3), "k must be positive definite"),
        (np.zeros((2, 2)), np.ones(2), "k must be positive definite"),
        (np.zeros((1, 1)), np.ones(1), "k must be positive definite"),
    ],
)
def test_bad_kernels_and_targets_are_refused(k, y, message):
    with unchecked(), pytest.raises(ValueError, match=message):
        lz.complexity(k, y)


@pytest.mark.parametrize("n", [1, 2, 40, DIRECT, DIRECT + 1])
def test_extreme_eigenvalues(n):
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(unit_rows(n, 12))
    values = np.linalg.eigvalsh(k)
    inverse = Inverse(k)
    # Lanczos stops at float64 rounding errors relative to the eigenvalue that it computes.
    np.testing.assert_allclose(inverse.lambda_min, values[0], rtol=1e-9)
    np.testing.assert_allclose(largest_eigenvalue(k), values[-1], rtol=1e-12)
    assert inverse.lambda_min == Inverse(k).lambda_min


@pytest.mark.parametrize("n", [1, 30])
def test_spectrum(n):
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(unit_rows(n, 6))
    values, vectors = spectrum(k)
    assert np.all(np.diff(values) >= 0)
    assert_close(vectors @ np.diag(values) @ vectors.T, k)
    assert_close(vectors.T @ vectors, np.eye(n))


def test_kernels_symmetric_up_to_float32_are_accepted():
    x = unit_rows(30, 6)
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(x)
    rounded = k + 1e-7 * np.triu(np.ones_like(k), 1)
    y = targets(30)
    np.testing.assert_allclose(lz.complexity(rounded, y), lz.complexity(k, y), rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
def test_label_projections_decompose_the_residual(outputs):
    x = unit_rows(30, 6)
    k = lz.analytic_kernel(lz.TwoLayer(width=2))(x)
    y = targets(30, outputs)
    values, projections = lz.label_projections(k, y)
    assert projections.shape == y.shape
    assert (np.diff(values) <= 0).all()
    # The projections decompose the squared residual of kernel descent into modes.
    path = lz.kernel_descent(k, y, learning_rate=0.1, steps=[0, 1, 7, 400])
    for step, train in zip(path.step, path.train, strict=True):
        decay = (1 - 0.1 * values) ** (2 * int(step))
        assert np.sum((train - y) ** 2) == pytest.approx(decay @ np.sum(projections.reshape(30, -1) ** 2, axis=1))
    again = lz.label_projections(spectrum(k), y)
    assert all(np.array_equal(a, b) for a, b in zip(again, (values, projections), strict=True))
    with unchecked(), pytest.raises(ValueError, match="y must be an array of shape"):
        lz.label_projections(k, y[:29])


def test_the_largest_eigenvalue_of_difficult_matrices():
    n = 501
    a = np.random.default_rng(0).standard_normal((n, n))
    # The convergence criterion of ARPACK has an absolute part.
    for scale in (1e-170, 1e-22, 1e150):
        assert largest_eigenvalue(scale * (a @ a.T)) / scale == pytest.approx(
            np.linalg.eigvalsh(a @ a.T)[-1], rel=1e-12
        )
    assert largest_eigenvalue(np.zeros((n, n))) == 0
    # Many eigenvalues are almost as large as the largest, so Lanczos iteration does not converge.
    flat = 1 - np.linspace(0, 1, n) ** 4
    assert largest_eigenvalue(np.diag(flat)) == pytest.approx(1, rel=1e-12)
    assert Inverse(np.diag(2 - flat)).lambda_min == pytest.approx(1, rel=1e-12)
    assert Inverse(1e20 * (a @ a.T + np.eye(n))).lambda_min / 1e20 == pytest.approx(
        np.linalg.eigvalsh(a @ a.T + np.eye(n))[0], rel=1e-9
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-162, 1e160])
def test_the_complexity_of_targets_of_any_size(scale):
    assert lz.complexity(np.eye(3), np.full(3, scale)) / scale == pytest.approx(2**0.5)
