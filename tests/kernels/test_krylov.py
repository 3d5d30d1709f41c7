"""Test Lanczos, preconditioned solves and complexity against dense linear algebra."""

import sys
import warnings

import numpy as np
import pytest
import scipy.linalg
from marks import slow_unless
from problems import kernel_with
from reference import unit_rows
from tolerance import assert_close

import lazynet as lz
from lazynet.kernels import (
    Lanczos,
    dense_operator,
    kernel_operator,
    largest_eigenvalue,
    solve,
    with_random_columns,
)

KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))


def test_basis_is_orthonormal_and_projects_the_kernel():
    k, _ = kernel_with(np.geomspace(1e-10, 1, 80))
    b = np.random.default_rng(0).normal(size=(80, 2)) * [1e5, 1e-5]
    process = Lanczos(dense_operator(k), b)
    for _ in range(20):
        process.deepen()
    assert (process.depth, process.multiplied, process.size) == (20, 40, 42)
    q, (values, along) = process.basis.T, process.ritz
    assert_close(q.T @ q, np.eye(42))
    assert_close(along @ np.diag(values) @ along.T, q[:, :40].T @ k @ q[:, :40])
    assert_close(process.vectors(), q[:, :40] @ along)
    assert_close(process.vectors() @ process.weights / [1e5, 1e-5], b / [1e5, 1e-5])
    # For the Ritz vectors V, K V - V diag(values) lies in the last block of the basis, with coordinates `defect`.
    rest = k @ process.vectors() - process.vectors() * values
    assert_close(rest, q[:, 40:] @ process.defect)


def test_invariant_dependent_and_zero_columns():
    k, unit = np.diag(np.arange(1.0, 31)), np.eye(30)
    b = np.stack([unit[3] + unit[7], np.zeros(30), unit[3] - unit[7], unit[3], 1e-12 * unit[9]], axis=1)
    process = Lanczos(dense_operator(k), b)
    while not process.complete:
        process.deepen()
    assert (process.depth, process.size) == (1, 3)
    assert_close(process.ritz[0], [4.0, 8.0, 10.0])
    assert_close(process.vectors() @ process.weights, b)
    assert not process.defect.size
    assert Lanczos(dense_operator(k), np.zeros((30, 2))).complete


def test_random_columns_halve_the_number_of_products():
    x, y = unit_rows(800, 5), np.sign(np.random.default_rng(1).normal(size=(800, 1)))
    k, depths = dense_operator(KERNEL(x)), []
    for b in (y, with_random_columns(y)):
        process = Lanczos(k, b)
        process.deepen()
        # Deepen until the defect of exp(-t K) y is at most 1e-8 at t = 40, where t lambda_max is about 1800.
        while np.linalg.norm(process.defect @ (process.weights[:, 0] * np.exp(-process.ritz[0] * 40))) > 1e-8:
            process.deepen()
        depths.append(process.depth)
    assert 2 * depths[1] < depths[0]


@pytest.mark.parametrize("rank", [0, 30])
@pytest.mark.parametrize("outputs", [1, 3])
def test_solution_equals_the_dense_solution(outputs, rank):
    x = unit_rows(120, 6)
    y = np.random.default_rng(1).normal(size=(120, outputs) if outputs > 1 else 120)
    k = KERNEL(x)
    solution = solve(dense_operator(k), y, tolerance=1e-12, rank=rank)
    inverse = np.linalg.solve(k, y)
    assert solution.x.shape == y.shape
    missed = (solution.x - inverse).reshape(120, -1)
    assert np.sum(missed * (k @ missed)) <= 1e-11 * np.sum(y * inverse)
    np.testing.assert_allclose(solution.forms, np.sum((y * inverse).reshape(120, -1), axis=0), rtol=1e-10)
    assert solution.error.truncation <= 1e-12


def test_the_preconditioner_saves_products():
    x, y = unit_rows(1000, 3), np.sign(np.random.default_rng(1).normal(size=1000))
    k = dense_operator(KERNEL(x))
    with_it, without = (solve(k, y, tolerance=1e-3, rank=rank) for rank in (400, 0))
    assert 3 * with_it.depth < 2 * without.depth


@pytest.mark.parametrize("storage", ["memory", "none"])
def test_complexity_of_an_operator(storage):
    x, y = unit_rows(300, 10), np.sign(np.random.default_rng(1).normal(size=300))
    expected = lz.complexity(KERNEL(x), y)
    k = kernel_operator(KERNEL, x, storage=storage)
    assert abs(lz.complexity(k, y, tolerance=1e-8) - expected) <= 1e-8 * expected
    assert lz.complexity(k, np.zeros(300)) == 0
    with pytest.raises(ValueError, match="tolerance must be positive and finite"):
        lz.complexity(k, y, tolerance=0.0)


def test_a_tolerance_that_cannot_be_reached_gives_a_warning():
    k, _ = kernel_with(np.geomspace(1e-6, 1, 100))
    with pytest.warns(UserWarning, match=r"relative error in the complexity may be .*, above the tolerance"):
        lz.complexity(dense_operator(k), np.random.default_rng(0).normal(size=100), tolerance=1e-15)


def test_a_kernel_without_inverse_is_refused():
    x, y = unit_rows(200, 6), np.ones(200)
    x[17] = x[3]
    with pytest.raises(ValueError, match="k must be positive definite in float64"):
        lz.complexity(kernel_operator(KERNEL, x), y)
    # In float32, a kernel is refused if its smallest eigenvalue is below the rounding errors of its entries.
    k, _ = kernel_with(np.geomspace(1e-12, 1, 100))
    with pytest.raises(ValueError, match="k must be positive definite in float32"):
        lz.complexity(dense_operator(k.astype(np.float32)), np.ones(100))


@pytest.mark.parametrize("rank", [0, 60])
def test_a_small_eigenvalue_that_the_targets_hardly_show_is_detected(rank):
    # Rows 0 and 1 are nearly identical but have opposite labels.
    k, y = np.eye(500) / 2, np.ones(500)
    k[0, 1] = k[1, 0] = 0.5 - 1e-6
    y[0] = -1
    truth = y @ np.linalg.solve(k, y)
    solution = solve(dense_operator(k), y, tolerance=2e-3, rank=rank)
    assert abs(np.sum(solution.forms) - truth) <= 10 * solution.error.total * truth
    assert solution.error.total <= 2e-3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("trial", range(12))
def test_the_error_of_a_solution_is_not_underestimated(trial, dtype):
    rng = np.random.default_rng(trial)
    n, condition = int(rng.integers(50, 200)), 10 ** rng.uniform(1, 12)
    values = np.geomspace(1 / condition, 1, n)
    k, q = kernel_with(values, seed=trial)
    y = rng.normal(size=n)
    truth = np.sum((q.T @ y) ** 2 / values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = solve(dense_operator(k.astype(dtype)), y, tolerance=1e-4, rank=0)
    # An unknown error is reported as infinite.
    assert solution.error.total > 0
    if np.isfinite(solution.error.total):
        assert abs(np.sum(solution.forms) - truth) <= 10 * solution.error.total * truth
    if condition < 1e4:
        assert solution.error.total < 1e-2


@pytest.mark.parametrize("rank", [None, 0])
@pytest.mark.parametrize("seed", slow_unless(lambda seed: seed == 7, [7, 9, 10, 24]))
def test_the_error_includes_the_rounding_of_the_arithmetic(seed, rank):
    """For a kernel with a few large eigenvalues and a flat tail, the preconditioner cancels most of its input."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(135, 135)))[0]
    k = (q * np.concatenate([np.geomspace(1, 0.01, 10), np.full(125, 1e-8)])) @ q.T
    k = (k + k.T) / 2
    y = q[:, :5] @ rng.normal(size=5)
    solution = solve(dense_operator(k), y, tolerance=1e-8, rank=rank)
    # Compute the solution for exactly this matrix by refinement with residuals in extended precision.
    factor, x = scipy.linalg.cho_factor(k), np.zeros(135, np.longdouble)
    for _ in range(7):
        x = x + scipy.linalg.cho_solve(factor, (y - k.astype(np.longdouble) @ x).astype(float))
    true = float(y @ x)
    assert abs(solution.forms[0] - true) <= 10 * solution.error.total * true
    assert solution.error.storage >= 1e-16


@pytest.mark.parametrize("k", [np.zeros((50, 50)), -np.eye(50)])
def test_a_kernel_that_is_not_positive_is_refused(k):
    with pytest.raises(ValueError, match="k must be positive definite in float64"):
        lz.complexity(dense_operator(k), np.ones(50))


def test_a_small_eigenvalue_is_detected_with_many_targets():
    y = np.random.default_rng(5).normal(size=(500, 7))
    k = np.diag(np.linspace(0.3, 0.7, 500))
    pair = np.ix_([142, 143], [142, 143])
    k[pair] = [[0.5, 0.5 - 1e-6], [0.5 - 1e-6, 0.5]]
    w = np.zeros(500)
    w[142], w[143] = 0.5**0.5, -(0.5**0.5)
    y += np.outer(w, 1e-3 - w @ y)
    truth = np.sum(y * np.linalg.solve(k, y), axis=0)
    solution = solve(dense_operator(k), y, tolerance=2e-5)
    assert np.max(np.abs(solution.forms / truth - 1)) <= 10 * solution.error.total


def test_largest_eigenvalue():
    k, _ = kernel_with(np.concatenate([np.linspace(0, 0.9, 200), [1.0]]))
    assert abs(largest_eigenvalue(dense_operator(k)) - 1) < 1e-11


@pytest.mark.parametrize("rank", [0, 50])
def test_smallest_eigenvalue_of_a_solution(rank):
    k = KERNEL(unit_rows(400, 6))
    smallest = np.linalg.eigvalsh(k)[0]
    solution = solve(dense_operator(k), np.ones(400), tolerance=1e-8, rank=rank).lambda_min
    assert smallest <= solution * (1 + 1e-12)
    assert solution <= 1.05 * smallest


def test_a_matrix_too_large_to_be_factored_is_solved_by_products(monkeypatch):
    x, y = unit_rows(300, 10), np.sign(np.random.default_rng(1).normal(size=300))
    k = KERNEL(x)
    expected = lz.complexity(k, y)
    monkeypatch.setattr(sys.modules["lazynet.kernels._solve"], "FACTORED", 299)
    monkeypatch.setattr("scipy.linalg.cho_factor", None)
    assert abs(lz.complexity(k, y, tolerance=1e-8) - expected) <= 1e-8 * expected
