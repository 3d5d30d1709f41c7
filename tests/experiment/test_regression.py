"""Kernel regression with each network's own kernels, compared with Jacobians and least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from unchecked import unchecked

import lazynet as lz
from lazynet.dynamics import kernel_regression
from lazynet.experiment import MemberStatus
from lazynet.kernels import spectrum
from lazynet.precision import float64
from lazynet.theory import binomial_interval
from lazynet.training._keys import member_key, start_key

EVEN_ODD = ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))
DATA = lz.load_dataset("digits", classes=EVEN_ODD, n_train=40, n_test=60)
REGRESSION = lz.Measure(regression=True)
# All sweeps of this network share programs, because they have the same width, members and rows.
RELU = lz.TwoLayer(16, train="both", output_scale=0.3)
THREE = lz.load_dataset("digits", classes=(3, 8, 9), n_train=30, n_test=40)


def kernel_by_hand(network, variables, data):
    """Return the mean of J J' over outputs in float64."""
    with float64():
        cast = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), variables)
        fixed = {name: value for name, value in cast.items() if name != "params"}
        x = jnp.asarray(np.concatenate([data.x_train, data.x_test]))
        jacobian = jax.jit(jax.jacrev(lambda params: network.apply({**fixed, "params": params}, x)))(cast["params"])
        rows = [np.asarray(leaf).reshape(len(x), data.outputs, -1) for leaf in jax.tree.leaves(jacobian)]
        flat = np.concatenate(rows, axis=-1)
    return np.einsum("ikp,jkp->ij", flat, flat[: data.n_train]) / data.outputs


def error_by_hand(k, data):
    f = k[data.n_train :] @ np.linalg.pinv(k[: data.n_train], hermitian=True) @ data.y_train
    if data.outputs == 1:
        return np.mean(f * data.y_test <= 0)
    return np.mean(f.argmax(axis=1) != data.y_test.argmax(axis=1))


@pytest.mark.whole
@pytest.mark.parametrize(
    ("network", "data"),
    [
        (RELU, DATA),
        (lz.TwoLayer(16, train="both", activation="tanh", outputs=3, symmetric=False), THREE),
        (lz.MLP(16, 2, activation="erf"), DATA),
    ],
)
def test_errors_and_drift_are_those_of_kernels_by_hand(network, data):
    result = lz.sweep(network, data, [16], seeds=2, steps=100, measure=REGRESSION)
    rate = result.learning_rate.values
    seed = 1
    run = lz.train(network, data, member_key(16, seed), 100, learning_rate=float(np.ravel(rate)[-1]))
    before = kernel_by_hand(network, network.init(start_key(member_key(16, seed)), data.x_train.astype("f4")), data)
    after = kernel_by_hand(network, run.variables, data)
    at = result.sel(width=16, seed=seed)
    n = data.n_train
    drift = np.linalg.norm(after[n:] - before[n:]) / np.linalg.norm(before[n:])
    assert float(at.test_kernel_drift) == pytest.approx(drift, rel=1e-3)
    assert drift > 1e-3
    # One test example may lie on the decision boundary, where rounding decides its class.
    assert float(at.regression_error_start) == pytest.approx(error_by_hand(before, data), abs=1.5 / data.n_test)
    assert float(at.regression_error_end) == pytest.approx(error_by_hand(after, data), abs=1.5 / data.n_test)
    kernel = lz.analytic_kernel(network)
    limit = np.concatenate([kernel(data.x_train), kernel(data.x_test, data.x_train)])
    assert float(result.regression_error_limit) == pytest.approx(error_by_hand(limit, data), abs=1e-9)
    for name in ("start", "end", "limit"):
        error, low, high = (result[f"regression_error_{name}{end}"].values for end in ("", "_low", "_high"))
        assert ((low <= error) & (error <= high)).all()


def test_it_says_what_training_with_the_kernel_ends_at():
    kernel = lz.analytic_kernel(lz.TwoLayer(2))
    k, k_test = kernel(THREE.x_train), kernel(THREE.x_test, THREE.x_train)
    found = kernel_regression(k, THREE.y_train, k_test)
    path = lz.kernel_flow(k, THREE.y_train, times=[1e7], k_test=k_test)
    np.testing.assert_allclose(found, path.test[0], atol=1e-8)
    np.testing.assert_array_equal(found, kernel_regression(spectrum(k), THREE.y_train, k_test))


def test_modes_without_an_eigenvalue_are_left_out():
    rows = np.random.default_rng(0).normal(size=(9, 4))
    k = rows @ rows.T
    y = np.arange(9.0)
    weights = np.linalg.lstsq(rows, y, rcond=None)[0]
    np.testing.assert_allclose(kernel_regression(k, y, k[:3]), rows[:3] @ weights, atol=1e-10)
    with pytest.raises(ValueError, match="k_test must be a matrix"), unchecked():
        kernel_regression(k, y, k[:, :3])


@pytest.mark.slow
def test_a_network_that_diverged_has_no_kernel_at_the_end():
    with pytest.warns(UserWarning, match="kernel descent diverges"):
        result = lz.sweep(RELU, DATA, [16], seeds=2, steps=300, learning_rate=1e4, measure=REGRESSION)
    # Both members count as diverged, although the weights of one of them are finite.
    assert (result.status == MemberStatus.DIVERGED).all()
    assert np.isnan(result.regression_error_end).all()
    assert np.isnan(result.regression_error_end_low).all()
    assert np.isfinite(result.regression_error_start).all()


@pytest.mark.slow
def test_over_an_axis_each_point_is_its_own():
    network, options = RELU, {"seeds": 2, "steps": 20}
    both = lz.sweep(network, DATA, [16], axes={"n_train": [20, 40]}, measure=REGRESSION, **options)
    alone = lz.sweep(network, DATA, [16], measure=REGRESSION, **options)
    assert both.regression_error_limit.dims == ("n_train",)
    for name in ("regression_error_limit", "regression_error_end_high", "test_kernel_drift"):
        np.testing.assert_allclose(both[name].sel(n_train=40), alone[name], rtol=1e-6)
    assert "regression_error_limit" not in lz.sweep(
        network, DATA, [16], measure=lz.Measure(predictions=False, kernel_drift=False, regression=True), **options
    )
    assert "test_kernel_drift" not in lz.sweep(network, DATA, [16], **options)


def test_intervals_are_those_of_the_exact_binomial_test():
    for n, counts in ((7, range(8)), (200, (0, 1, 13, 100, 199, 200))):
        low, high = binomial_interval(np.array(list(counts)) / n, n)
        for count, *ends in zip(counts, low, high, strict=True):
            exact = scipy.stats.binomtest(count, n).proportion_ci(0.95, method="exact")
            np.testing.assert_allclose(ends, exact, atol=1e-12)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            lz.Dataset(np.eye(4), [1.0, -1, 1, -1]),
            {},
            "measure.regression = True requires test examples",
        ),
        (
            lz.Dataset(np.eye(4), [0.5, 2, 3, 4], np.eye(4), np.ones(4)),
            {},
            "measure.regression = True requires test examples",
        ),
        (DATA, {"rows": 5, "predictions": False}, "measure.rows must be None if measure.regression is True, got 5"),
    ],
)
def test_regression_that_cannot_be_is_refused(data, options, message):
    measure = lz.Measure(regression=True, **options)
    with pytest.raises(ValueError, match=f"^{message}"):
        lz.sweep(lz.TwoLayer(16), data, [16], seeds=1, steps=5, learning_rate=0.1, measure=measure)


@pytest.mark.parametrize(("rate", "n"), [(0.5, 1), (0.25, 2), (0.013, 100)])
def test_rates_between_multiples_have_no_interval(rate, n):
    with pytest.raises(ValueError, match=r"^error must consist of multiples of 1 / n"):
        binomial_interval(np.array(rate), n)
