"""Momentum compared with plain iteration and iteration with 60 digits, and the error estimate of the Krylov method."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from problems import kernel_with
from tolerance import assert_close

import lazynet as lz
from lazynet.dynamics._laws import Law, descent_growth

STEPS = np.array([0, 1, 2, 3, 10, 100, 1000, 10_000])


def iterate(k, y, f0, learning_rate, momentum, steps):
    """Return the coefficients after every step of descent with momentum."""
    c, v = np.zeros_like(y), np.zeros_like(y)
    coefficients = [c]
    for _ in range(steps):
        v = momentum * v + f0 + k @ c - y
        c = c - learning_rate * v
        coefficients.append(c)
    return np.stack(coefficients)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_momentum_agrees_with_the_iteration(momentum, method):
    """The eigenvalues range from zero to near the stability limit, with real, double and complex roots."""
    values = np.r_[0.0, np.geomspace(1e-8, 1, 29)]
    k, _ = kernel_with(values)
    rng = np.random.default_rng(0)
    y, f0, f0_test = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)), rng.normal(size=(5, 2))
    k_test = rng.normal(size=(5, 30)) @ k
    rate = 1.9 * (1 + momentum)
    coefficients = iterate(k, y, f0, rate, momentum, 10_000)[STEPS]
    starts = {"f0": f0, "k_test": k_test, "f0_test": f0_test}
    trajectory = lz.kernel_descent(
        k, y, learning_rate=rate, steps=STEPS, momentum=momentum, method=method, tolerance=1e-9, **starts
    )
    np.testing.assert_allclose(trajectory.time, rate * STEPS, rtol=1e-15)
    np.testing.assert_allclose(trajectory.train, f0 + k @ coefficients, rtol=0, atol=1e-9)
    np.testing.assert_allclose(trajectory.test, f0_test + k_test @ coefficients, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [1e-9, 0.9, 0.999])
def test_modes_agree_with_an_iteration_of_sixty_digits(momentum):
    """The eigenvalues are zero, near both double roots, at the stability limit, and beyond it."""
    near, far = (1 - np.sqrt(momentum)) ** 2, (1 + np.sqrt(momentum)) ** 2
    near_double = [
        factor * edge for edge in (near, far) for factor in (1, 1 - 1e-15, 1 + 1e-15, 1 - 1e-8, 1 + 1e-8, 1.001)
    ]
    small = [0.0, 1e-40, 1e-14, 1e-6, near / 2, 2 * near]
    values = np.array([*small, 0.5, 1 + momentum, 1.5, 2 * (1 + momentum), *near_double])
    grown = descent_growth(values, 1.0, STEPS, momentum)
    for value, learned in zip(values, grown.T, strict=True):
        with localcontext() as context:
            context.prec = 60
            before, residual, exact = Decimal(1), Decimal(1), []
            a, mu = Decimal(float(value)), Decimal(momentum)
            for step in range(STEPS[-1] + 1):
                if step in STEPS:
                    exact.append(float(1 - residual))
                before, residual = residual, (1 + mu - a) * residual - mu * before
        # After k steps, an oscillating mode amplifies the rounding of its eigenvalue by k, or by k^2 at a double root.
        size = np.maximum.accumulate(np.maximum(1, np.abs(exact)))
        np.testing.assert_allclose(learned / size, exact / size, rtol=0, atol=1e-8)
        if value <= near:
            np.testing.assert_allclose(learned, exact, rtol=1e-11 / (1 - momentum) ** 0.5, atol=0)


def test_a_mode_with_eigenvalue_zero_moves_nothing():
    """The features of such a mode vanish on the training inputs; only an inconsistent test kernel contains it."""
    trajectory = lz.kernel_descent(
        np.diag([1.0, 0.0]), np.ones(2), learning_rate=0.5, steps=[2], momentum=0.5, k_test=np.eye(2)
    )
    np.testing.assert_array_equal(trajectory.test[0, 1], 0.0)
    np.testing.assert_array_equal(trajectory.train[0, 1], 0.0)


@pytest.mark.parametrize("trial", range(4))
def test_the_estimated_error_bounds_the_true_error(trial):
    rng = np.random.default_rng(trial)
    n, momentum = int(rng.integers(50, 150)), rng.uniform(0.1, 0.98)
    values = n / 4 * np.geomspace(10 ** rng.uniform(-10, -1), 1, n)
    k, q = kernel_with(values, seed=trial)
    y, rate = rng.normal(size=n), rng.uniform(0.1, 1.9) * (1 + momentum) / values[-1]
    steps = np.unique(np.geomspace(1, 10 ** rng.uniform(1, 4), 20).round())
    exact = (descent_growth(values, rate, steps, momentum) * (q.T @ y)) @ q.T
    for dtype, tolerance in (("float64", 1e-3), ("float64", 1e-7), ("float32", 1e-2)):
        trajectory = lz.kernel_descent(
            k.astype(dtype), y, learning_rate=rate, steps=steps, momentum=momentum, method="krylov", tolerance=tolerance
        )
        assert trajectory.error.total <= tolerance
        assert np.linalg.norm(trajectory.train - exact, axis=1).max() <= 10 * trajectory.error.total * np.linalg.norm(y)


def test_the_amplification_bounds_every_stable_mode():
    """The truncation error estimate relies on |s_k| <= (1 - mu^k) / (1 - mu), where s_k is a mode's amplification."""
    for momentum in (0.1, 0.9, 0.99):
        values = np.linspace(0, 2 * (1 + momentum), 401)
        before, push, total = np.zeros(401), np.ones(401), 1.0
        for step in range(1, 400):
            assert (np.abs(push) <= total * (1 + 1e-9)).all()
            before, push = push, (1 + momentum - values) * push - momentum * before
            total += momentum**step
        assert total <= Law(np.zeros(1), None, 1.0, momentum).amplification


def test_momentum_raises_the_stability_limit():
    k, _ = kernel_with(np.linspace(0.1, 1, 30))
    y = np.ones(30)
    stable = lz.kernel_descent(k, y, learning_rate=3.7, steps=[5000], momentum=0.9)
    np.testing.assert_allclose(stable.train[0], y, atol=1e-9)
    lz.kernel_descent(k, y, learning_rate=3.7, steps=[50], momentum=0.9, method="krylov")
    wild = lz.kernel_descent(k, y, learning_rate=3.9, steps=[100_000], momentum=0.9)
    assert not np.isfinite(wild.train).any()
    with pytest.raises(ValueError, match=r"^learning_rate must be at most 2 \(1 \+ momentum\) / lambda_max = 3\.8"):
        lz.kernel_descent(k, y, learning_rate=3.9, steps=[50], momentum=0.9, method="krylov")


def test_tiny_momentum_agrees_with_plain_descent():
    k, y = np.diag([1.0, 0.5]), np.ones(2)
    plain, tiny = (
        lz.kernel_descent(k, y, learning_rate=1.0, momentum=mu, steps=[0, 1, 2, 9]).train for mu in (0.0, 1e-20)
    )
    assert_close(tiny, plain)
