"""Momentum mode by mode: plain iteration, iteration in sixty digits, and Krylov predictions that know their error."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from problems import kernel_with
from tolerance import assert_close

import lazynet as lz
from lazynet.dynamics._laws import Law, descent_growth

STEPS = np.array([0, 1, 2, 3, 10, 100, 1000, 10_000])


def iterate(k, y, f0, learning_rate, momentum, steps):
    """Predictions after every step, and the coefficients that give them."""
    c, v = np.zeros_like(y), np.zeros_like(y)
    path = [c]
    for _ in range(steps):
        v = momentum * v + f0 + k @ c - y
        c = c - learning_rate * v
        path.append(c)
    return np.stack(path)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_momentum_is_the_iteration(momentum, method):
    """Eigenvalues from none to those of the largest learning rate, so that roots are real, double and complex."""
    values = np.r_[0.0, np.geomspace(1e-8, 1, 29)]
    k, _ = kernel_with(values)
    rng = np.random.default_rng(0)
    y, f0, f0_test = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)), rng.normal(size=(5, 2))
    k_test = rng.normal(size=(5, 30)) @ k
    rate = 1.9 * (1 + momentum)
    path = iterate(k, y, f0, rate, momentum, 10_000)[STEPS]
    starts = {"f0": f0, "k_test": k_test, "f0_test": f0_test}
    found = lz.kernel_descent(
        k, y, learning_rate=rate, steps=STEPS, momentum=momentum, method=method, tolerance=1e-10, **starts
    )
    np.testing.assert_allclose(found.time, rate * STEPS, rtol=1e-15)
    np.testing.assert_allclose(found.train, f0 + k @ path, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.test, f0_test + k_test @ path, rtol=0, atol=1e-8)


@pytest.mark.parametrize("momentum", [1e-9, 0.9, 0.999])
def test_modes_in_sixty_digits(momentum):
    """Near both double roots, without an eigenvalue, at the limit and beyond it; small shares to their last digits."""
    near, far = (1 - np.sqrt(momentum)) ** 2, (1 + np.sqrt(momentum)) ** 2
    beside = [factor * edge for edge in (near, far) for factor in (1, 1 - 1e-15, 1 + 1e-15, 1 - 1e-8, 1 + 1e-8, 1.001)]
    small = [0.0, 1e-40, 1e-14, 1e-6, near / 2, 2 * near]
    values = np.array([*small, 0.5, 1 + momentum, 1.5, 2 * (1 + momentum), *beside])
    grown = descent_growth(values, 1.0, STEPS, momentum)
    for value, found in zip(values, grown.T, strict=True):
        with localcontext() as context:
            context.prec = 60
            before, now, exact = Decimal(1), Decimal(1), []
            pull, mu = Decimal(float(value)), Decimal(momentum)
            for step in range(STEPS[-1] + 1):
                if step in STEPS:
                    exact.append(float(1 - now))
                before, now = now, (1 + mu - pull) * now - mu * before
        # Where a mode swings, a rounding of its eigenvalue shows after k steps as k of them, or k^2 at a double root.
        size = np.maximum.accumulate(np.maximum(1, np.abs(exact)))
        np.testing.assert_allclose(found / size, exact / size, rtol=0, atol=1e-8)
        if value <= near:
            np.testing.assert_allclose(found, exact, rtol=1e-11 / (1 - momentum) ** 0.5, atol=0)


def test_the_slope_at_an_eigenvalue_of_zero():
    for momentum in (0.0, 0.5, 0.99):
        law = Law(0.3 * STEPS, STEPS, 0.3, momentum)
        np.testing.assert_allclose(law.slope(), law.growth(np.array([1e-30]))[:, 0] / 1e-30, rtol=1e-12)
    path = lz.kernel_descent(
        np.diag([1.0, 0.0]), np.ones(2), learning_rate=0.5, steps=[2], momentum=0.5, k_test=np.eye(2)
    )
    # v: 1 and 1.5; c: 0.5 and 1.25, which only a kernel that does not fit its test kernel shows.
    np.testing.assert_allclose(path.test[0, 1], 1.25, rtol=1e-15)
    np.testing.assert_array_equal(path.train[0, 1], 0.0)


@pytest.mark.parametrize("trial", range(4))
def test_the_error_with_momentum_is_honest(trial):
    rng = np.random.default_rng(trial)
    n, momentum = int(rng.integers(50, 150)), rng.uniform(0.1, 0.98)
    values = n / 4 * np.geomspace(10 ** rng.uniform(-10, -1), 1, n)
    k, q = kernel_with(values, seed=trial)
    y, rate = rng.normal(size=n), rng.uniform(0.1, 1.9) * (1 + momentum) / values[-1]
    steps = np.unique(np.geomspace(1, 10 ** rng.uniform(1, 4), 20).round())
    exact = (descent_growth(values, rate, steps, momentum) * (q.T @ y)) @ q.T
    for dtype, tolerance in (("float64", 1e-3), ("float64", 1e-7), ("float32", 1e-2)):
        path = lz.kernel_descent(
            k.astype(dtype), y, learning_rate=rate, steps=steps, momentum=momentum, method="krylov", tolerance=tolerance
        )
        assert path.error.total <= tolerance
        assert np.linalg.norm(path.train - exact, axis=1).max() <= 10 * path.error.total * np.linalg.norm(y)


def test_a_push_is_amplified_as_said():
    """The bound behind the truncation error, |s_k| <= (1 - mu^k) / (1 - mu), over all stable modes."""
    for momentum in (0.1, 0.9, 0.99):
        values = np.linspace(0, 2 * (1 + momentum), 401)
        before, push, total = np.zeros(401), np.ones(401), 1.0
        for step in range(1, 400):
            assert (np.abs(push) <= total * (1 + 1e-9)).all()
            before, push = push, (1 + momentum - values) * push - momentum * before
            total += momentum**step
        assert total <= Law(np.zeros(1), None, 1.0, momentum).amplification


def test_momentum_diverges_later():
    k, _ = kernel_with(np.linspace(0.1, 1, 30))
    y = np.ones(30)
    stable = lz.kernel_descent(k, y, learning_rate=3.7, steps=[5000], momentum=0.9)
    np.testing.assert_allclose(stable.train[0], y, atol=1e-9)
    lz.kernel_descent(k, y, learning_rate=3.7, steps=[50], momentum=0.9, method="krylov")
    wild = lz.kernel_descent(k, y, learning_rate=3.9, steps=[100_000], momentum=0.9)
    assert not np.isfinite(wild.train).any()
    with pytest.raises(ValueError, match=r"above 2 \(1 \+ momentum\) / lambda_max = 3\.8, where descent diverges"):
        lz.kernel_descent(k, y, learning_rate=3.9, steps=[50], momentum=0.9, method="krylov")


def test_next_to_no_momentum_is_none():
    k, y = np.diag([1.0, 0.5]), np.ones(2)
    plain, tiny = (
        lz.kernel_descent(k, y, learning_rate=1.0, momentum=mu, steps=[0, 1, 2, 9]).train for mu in (0.0, 1e-20)
    )
    assert_close(tiny, plain)
