"""Test training from given variables, and sweeps of networks with a custom initialization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unchecked import unchecked

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
X = jnp.asarray(DATA.x_train, "float32")
NETWORK = lz.TwoLayer(width=8, train="both")
KEY = lz.member_key(8, 0)
RATE = {"learning_rate": 0.02}
LOSSES = {"measure": lz.Measure(predictions=False, kernel_drift=False), **RATE}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_goes_on_where_another_ended(dtype):
    key = lz.member_key(8, 0)
    whole = lz.train(NETWORK, DATA, key, 20, snapshots=[10], dtype=dtype, **LOSSES)
    first = lz.train(NETWORK, DATA, key, 10, dtype=dtype, **LOSSES)
    second = lz.train(NETWORK, DATA, key, 10, dtype=dtype, variables=first.variables, **LOSSES)
    jax.tree.map(np.testing.assert_array_equal, second.variables_0, first.variables)
    near = {"rtol": 1e-12 if dtype == "float64" else 1e-5}
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(second.snapshots[name].values[[0, -1]], whole.snapshots[name].values[1:], **near)
    # The displacement is measured from the given variables.
    assert second.snapshots.displacement[0] == 0
    assert 0 < second.snapshots.displacement[-1] < whole.snapshots.displacement[-1]


@pytest.mark.slow
def test_the_kernel_drift_is_that_from_the_given_variables():
    first = lz.train(NETWORK, DATA, lz.member_key(8, 0), 10, **RATE)
    second = lz.train(NETWORK, DATA, lz.member_key(8, 0), 10, variables=first.variables, **RATE)
    before, after = (lz.empirical_ntk(NETWORK, run.variables, DATA.x_train) for run in (first, second))
    drift = np.linalg.norm(after - before) / np.linalg.norm(before)
    np.testing.assert_allclose(second.snapshots.kernel_drift[-1], drift, rtol=1e-4)


@pytest.mark.whole
def test_a_sweep_from_the_start_of_its_network_is_the_sweep_of_the_network():
    def start(key, width):
        return NETWORK.clone(width=width).init(key, X)

    own = lz.sweep(NETWORK, DATA, [8, 16], 2, 10, progress=False, **RATE)
    given = lz.sweep(lz.with_start(NETWORK, start), DATA, [8, 16], 2, 10, progress=False, **RATE)
    for name in ("train_loss", "test_loss", "displacement", "kernel_drift", "linearization_gap_train"):
        np.testing.assert_allclose(given[name], own[name], rtol=1e-3, atol=1e-6, err_msg=name)
    # For a custom initialization, the infinite-width kernel is unknown and no exponents are predicted.
    assert {"kernel_gap_train", "start_gap_train", "lambda_max"} <= set(own)
    assert not {"kernel_gap_train", "start_gap_train", "lambda_max"} & set(given)
    assert lz.analytic_kernel(lz.with_start(NETWORK, start)) is None
    assert not lz.verify(given).rows
    assert lz.verify(own).rows


def test_the_key_of_a_member_is_public():
    sweep = lz.sweep(NETWORK, DATA, [8], [3], 5, progress=False, **LOSSES)
    run = lz.train(NETWORK, DATA, lz.member_key(8, 3), 5, **LOSSES)
    np.testing.assert_allclose(run.snapshots.train_loss, sweep.train_loss.sel(width=8, seed=3), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lz.train(NETWORK, DATA, KEY, 2, variables=lz.TwoLayer(8).init(jax.random.key(0), X)),
            ValueError,
            r"^variables\['params'\] must have shape \(8, 1\) at 'readout' for this network, got no array",
        ),
        (lambda: lz.train(NETWORK, DATA, lz.member_key(8, 0), 2, variables={}), ValueError, "^variables must have the"),
        (lambda: lz.with_start(NETWORK, {}), ValueError, r"^start must be a function with the signature .*, got {}"),
        (lambda: lz.with_start({}, lambda key, width: {}), ValueError, "^network must have the attributes"),
        (lambda: lz.with_start(NETWORK, lambda key: {}).init(jax.random.key(0), X), TypeError, "positional argument"),
        (lambda: lz.member_key(0, 1), ValueError, "^width must be a positive integer, got 0"),
        (lambda: lz.member_key(8, 2**40), ValueError, "^seed must be at most 4294967295, got 1099511627776"),
    ],
)
def test_bad_starts_are_refused(call, error, message):
    with unchecked(), pytest.raises(error, match=message):
        call()
