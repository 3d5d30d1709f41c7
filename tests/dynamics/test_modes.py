"""Krylov predictions on kernels with given spectra: accuracy, error estimates and refusals."""

import warnings

import numpy as np
import pytest
from marks import slow_unless
from problems import kernel_with
from reference import unit_rows
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics import _modes as modes
from lazynet.kernels import CrossOperator, dense_operator, kernel_operator, spectrum
from lazynet.kernels import _krylov as krylov

KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))


def exact_prediction(values, q, y, factors):
    """Return predictions that start at zero if mode i keeps the fraction factors[s, i] of its residual."""
    return np.einsum("ij,sj,j...->si...", q, 1 - factors, q.T @ y)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("law", ["descent", "flow"])
def test_krylov_agrees_with_exact(law, outputs):
    x, x_test = unit_rows(150, 8), unit_rows(11, 8, seed=1)
    rng = np.random.default_rng(2)
    y, f0 = (rng.normal(size=(150, outputs) if outputs > 1 else 150) for _ in range(2))
    f0_test = rng.normal(size=(11, outputs) if outputs > 1 else 11)
    k, k_test = KERNEL(x), KERNEL(x_test, x)
    eta, steps = 1 / np.linalg.eigvalsh(k)[-1], np.array([0, 1, 7, 50, 3000])

    def predict(kernel, test, **options):
        shared = {"f0": f0, "f0_test": f0_test, "k_test": test, **options}
        if law == "flow":
            return lz.kernel_flow(kernel, y, times=eta * steps, **shared)
        return lz.kernel_descent(kernel, y, learning_rate=eta, steps=steps, **shared)

    exact = predict(k, k_test, method="exact")
    assert exact.error.truncation == 0
    scale = np.linalg.norm(y - f0)
    operator, cross = kernel_operator(KERNEL, x), CrossOperator(KERNEL, x_test, x, "float64")
    for kernel, test in ((k, k_test), (operator, cross)):
        trajectory = predict(kernel, test, method="krylov", tolerance=1e-10)
        assert trajectory.error.total <= 1e-10
        assert_close(trajectory.train, exact.train, scale=1e-10 * scale / np.finfo(float).eps, ulps=1)
        assert_close(trajectory.test, exact.test, scale=1e-8 * scale / np.finfo(float).eps, ulps=1)
        np.testing.assert_array_equal(trajectory.time, exact.time)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("trial", range(6))
def test_the_estimated_error_bounds_the_true_error(trial, dtype):
    rng = np.random.default_rng(trial)
    n, condition = int(rng.integers(50, 200)), 10 ** rng.uniform(1, 12)
    values = np.sort(
        n / 4 * [np.geomspace(1 / condition, 1, n), 1 / np.arange(1, n + 1) ** rng.uniform(1, 4)][trial % 2]
    )
    k, q = kernel_with(values, seed=trial)
    y = rng.normal(size=(n, 2)) if trial % 3 else q[:, -4:] @ rng.normal(size=(4, 2))
    eta = rng.uniform(0.3, 1.9) / values[-1]
    steps = np.unique(np.geomspace(1, 10 ** rng.uniform(2, 6), 30).round())
    for tolerance in (None, 1e-3, 1e-8):
        for law in ("descent", "flow"):
            with warnings.catch_warnings():
                # Float32 cannot reach 1e-8; another test covers the warning.
                warnings.simplefilter("ignore")
                options = {"method": "krylov", "tolerance": tolerance}
                if law == "descent":
                    factors = (1 - eta * values) ** steps[:, None]
                    trajectory = lz.kernel_descent(k.astype(dtype), y, learning_rate=eta, steps=steps, **options)
                else:
                    factors = np.exp(-np.outer(eta * steps, values))
                    trajectory = lz.kernel_flow(k.astype(dtype), y, times=eta * steps, **options)
            worst = np.linalg.norm(
                trajectory.train - exact_prediction(values, q, y, factors), axis=(1, 2)
            ).max() / np.linalg.norm(y)
            assert worst <= 10 * trajectory.error.total
            if dtype == "float64" and tolerance == 1e-3:
                assert trajectory.error.total <= tolerance


def test_a_warning_names_the_dtype_that_reaches_the_tolerance():
    values = np.geomspace(1e-3, 1, 100) * 25
    k, _ = kernel_with(values)
    y = np.random.default_rng(0).normal(size=100)
    options = {"learning_rate": 1 / 25, "steps": [1, 10_000], "method": "krylov", "tolerance": 1e-7}
    with pytest.warns(
        UserWarning,
        match="above the tolerance of 1.0e-07: .* stored in float32; with float64 entries, the error would be within",
    ):
        lz.kernel_descent(k.astype(np.float32), y, **options)
    with pytest.warns(UserWarning, match="already stored at the highest precision"):
        lz.kernel_descent(k, y, **options | {"tolerance": 1e-14})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lz.kernel_descent(k, y, **options)


def test_a_basis_that_is_too_small_warns(monkeypatch):
    monkeypatch.setattr(krylov, "LARGEST", 20)
    k, _ = kernel_with(np.geomspace(1e-3, 1, 200))
    with pytest.warns(UserWarning, match="from truncation"):
        trajectory = lz.kernel_flow(k, np.ones(200), times=[1e4], method="krylov")
    assert trajectory.error.truncation > 1e-5


def test_the_default_method(monkeypatch):
    monkeypatch.setattr(modes, "EXACT", 140)
    for n, exact in ((140, True), (141, False)):
        k, y = KERNEL(unit_rows(n, 12)), np.ones(n)
        trajectory = lz.kernel_flow(k, y, times=[1.0])
        assert (trajectory.error.truncation == 0) == exact
        assert lz.kernel_flow(k, y, times=[1.0], method="exact").error.truncation == 0
        assert lz.kernel_flow(dense_operator(k), y, times=[1.0], method="krylov").error.truncation > 0


def test_a_zero_residual_stays_zero():
    k = KERNEL(unit_rows(30, 4))
    for method in ("exact", "krylov"):
        trajectory = lz.kernel_flow(k, np.zeros(30), times=[0.0, 1.0], k_test=k[:3], method=method)
        assert not trajectory.train.any()
        assert not trajectory.test.any()
        assert trajectory.error.total == 0
    # One of two outputs starts at its targets.
    both = lz.kernel_flow(k, np.stack([np.zeros(30), np.ones(30)], 1), times=[1.0], k_test=k[:3], method="krylov")
    assert not both.train[..., 0].any()
    assert both.train[..., 1].any()


def test_progress():
    reports = []
    k = KERNEL(unit_rows(60, 5))
    lz.kernel_flow(k, np.ones(60), times=[100.0], method="krylov", progress=lambda *at: reports.append(at))
    assert reports
    assert reports[-1][1] <= 1e-5


def test_bad_arguments_are_refused():
    k, y = KERNEL(unit_rows(30, 4)), np.ones(30)
    with unchecked(), pytest.raises(ValueError, match=r"^method must be"):
        lz.kernel_flow(k, y, times=[1.0], method="magic")
    for tolerance in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"^tolerance "):
            lz.kernel_flow(k, y, times=[1.0], tolerance=tolerance)
    indefinite, _ = kernel_with(np.linspace(-0.25, 1, 30))
    for method in ("exact", "krylov"):
        with pytest.raises(
            ValueError, match=r"^k must be positive semidefinite, got eigenvalues ranging from -0\.2\d+"
        ):
            lz.kernel_flow(indefinite, np.random.default_rng(0).normal(size=30), times=[1.0], method=method)
        with pytest.raises(ValueError, match=r"^k "):
            lz.kernel_flow(np.triu(k), y, times=[1.0], method=method)
        with pytest.raises(ValueError, match=r"^k "):
            lz.kernel_flow(np.full((30, 30), np.nan), y, times=[1.0], method=method)
        with unchecked(), pytest.raises(ValueError, match=r"^y "):
            lz.kernel_flow(k, y[:-1], times=[1.0], method=method)
    with pytest.raises(ValueError, match=r"^k_test must be"):
        lz.kernel_flow(k, y, times=[1.0], k_test=CrossOperator(KERNEL, unit_rows(2, 4), unit_rows(29, 4), "float64"))
    with pytest.raises(ValueError, match=r"^method must be 'exact' or None for a Spectrum"):
        lz.kernel_flow(spectrum(k), y, times=[1.0], method="krylov")
    with pytest.raises(ValueError, match=r"^steps must be at most"):
        lz.kernel_descent(k, y, learning_rate=0.1, steps=np.array([1e20]))
    limit = 2 / np.linalg.eigvalsh(k)[-1]
    with pytest.raises(ValueError, match=r"^learning_rate must be at most 2 / lambda_max = .* for method='krylov'"):
        lz.kernel_descent(k, y, learning_rate=1.01 * limit, steps=[10], method="krylov")


@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_negative_eigenvalues_are_accepted_only_if_rounding_explains_them(method):
    """Rounding to float32 moves eigenvalues by about 1e-7 of the largest one."""
    y = np.random.default_rng(0).normal(size=30)
    rounded, indefinite = (kernel_with(np.r_[lowest, np.linspace(0.1, 2, 29)])[0] for lowest in (-2e-7, -2e-5))
    assert np.isfinite(lz.kernel_flow(rounded, y, times=[1.0], method=method).train).all()
    with pytest.raises(ValueError, match=r"^k must be positive semidefinite"):
        lz.kernel_flow(indefinite, y, times=[1.0], method=method)


def test_divergence_of_a_weakly_excited_mode_is_refused():
    values = np.r_[np.linspace(0.5, 1, 299), 1.05]
    k, q = kernel_with(values)
    y = q[:, :299] @ np.ones(299) + 1e-6 * q[:, 299]
    with pytest.raises(ValueError, match=r"^learning_rate must be at most"):
        lz.kernel_descent(k, y, learning_rate=2.02 / 1.05, steps=[2000], method="krylov")


def test_divergence_of_a_weakly_excited_mode_of_many_outputs_is_refused():
    values = np.r_[np.linspace(0.5, 1, 299), 1.05]
    k, q = kernel_with(values)
    y = q[:, :299] @ np.random.default_rng(3).normal(size=(299, 10)) + 1e-6 * q[:, 299:]
    with pytest.raises(ValueError, match=r"^learning_rate must be at most"):
        lz.kernel_descent(k, y, learning_rate=2.02 / 1.05, steps=[1500], method="krylov")


@pytest.mark.parametrize("last", slow_unless(lambda last: last == 1e20, [0.0, 1e3, 1e20, 1e30]))
def test_times_far_beyond_the_last_mode(last):
    values = np.linspace(0.01, 1, 200)
    k, q = kernel_with(values)
    y = np.random.default_rng(1).normal(size=200)
    times = np.array([min(50.0, last), last])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trajectory = lz.kernel_flow(k, y, times=times, method="krylov")
    worst = np.linalg.norm(
        trajectory.train - exact_prediction(values, q, y, np.exp(-np.outer(times, values))), axis=1
    ).max()
    assert worst <= 10 * trajectory.error.total * np.linalg.norm(y)
    assert trajectory.error.total <= 1e-5
    steps = (times / 0.9).round()
    trajectory = lz.kernel_descent(k, y, learning_rate=0.9, steps=np.minimum(steps, 1e18), method="krylov")
    factors = (1 - 0.9 * values) ** np.minimum(steps, 1e18)[:, None]
    worst = np.linalg.norm(trajectory.train - exact_prediction(values, q, y, factors), axis=1).max()
    assert worst <= 10 * trajectory.error.total * np.linalg.norm(y)


def test_the_estimated_error_includes_asymmetry_of_the_kernel():
    values = np.geomspace(1e-3, 1, 200)
    k, q = kernel_with(values)
    noise = np.triu(np.random.default_rng(0).normal(size=k.shape), 1)
    noisy = k + 1e-6 * k.max() * (noise - noise.T)
    y = np.random.default_rng(1).normal(size=200)
    for method in ("exact", "krylov"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trajectory = lz.kernel_flow(noisy, y, times=[10.0, 1000.0], method=method)
        factors = np.exp(-np.outer([10.0, 1000.0], values))
        worst = np.linalg.norm(
            trajectory.train - exact_prediction(values, q, y, factors), axis=1
        ).max() / np.linalg.norm(y)
        assert worst <= 10 * trajectory.error.total


def test_half_precision_kernels_are_not_refused_as_indefinite():
    k, _ = kernel_with(np.geomspace(1e-6, 25, 150))
    with pytest.warns(UserWarning, match="with float64 entries, the error would be within the tolerance"):
        lz.kernel_flow(k.astype(np.float16), np.ones(150), times=[1.0], method="krylov")


def test_predictions_stay_bounded_if_rounding_makes_eigenvalues_negative():
    k, _ = kernel_with(np.geomspace(1e-12, 5, 150))
    with pytest.warns(UserWarning, match=r"^The predictions have an estimated error"):
        trajectory = lz.kernel_flow(k.astype(np.float32), np.ones(150), times=[1e14], method="krylov")
    assert np.linalg.norm(trajectory.train - 1) <= 1.01 * np.sqrt(150)


def test_the_estimated_error_includes_half_precision():
    k, y = KERNEL(unit_rows(100, 6)), np.random.default_rng(0).normal(size=100)
    eta = 1 / np.linalg.eigvalsh(k)[-1]
    exact = lz.kernel_descent(k, y, learning_rate=eta, steps=[1000])
    with pytest.warns(UserWarning, match="with float64 entries, the error would be within the tolerance"):
        rough = lz.kernel_descent(k.astype(np.float16), y, learning_rate=eta, steps=[1000], method="krylov")
    assert np.linalg.norm(exact.train - rough.train) <= 10 * rough.error.total * np.linalg.norm(y)


def test_a_basis_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(krylov, "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"^A Krylov basis of 30 rows"):
        lz.kernel_flow(KERNEL(unit_rows(30, 4)), np.ones(30), times=[1.0], method="krylov")
