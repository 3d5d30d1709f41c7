"""Sweeps that leave comparisons out, look at some of the training examples, or at chosen steps."""

import re

import jax
import numpy as np
import pytest
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.studies.sweep import population_bounds

DATA = lz.load_dataset("digits", tuple(range(10)), n_train=60, n_test=20)
NETWORK = lz.TwoLayer(width=2, outputs=10, readout="gaussian", symmetric=False)
SGD = {"learning_rate": 1.0, "loss": "softmax", "batch_size": 8, "progress": False}
TRAINED = {name: value for name, value in SGD.items() if name != "progress"}


@pytest.fixture(scope="module")
def compared():
    return lz.sweep(NETWORK, DATA, [16, 32], 2, 20, **SGD)


def test_without_comparison_the_rest_is_the_same(compared):
    alone = lz.sweep(NETWORK, DATA, [16, 32], 2, 20, compare=False, **SGD)
    left_out = {
        "linearization_gap_train",
        "linearization_gap_test",
        "initial_kernel_error",
        "lambda_min",
        "lambda_max",
        "label_norm",
        "complexity",
    }
    assert set(compared) - set(alone) == left_out
    for name in alone:
        np.testing.assert_array_equal(alone[name], compared[name])
    assert {row.quantity for row in lz.verify(alone).rows} >= {"relative_displacement", "kernel_drift"}


def test_measures_look_at_the_first_examples(compared):
    seen = {}

    def rows(variables, start, data):
        seen["shapes"] = data.x_train.shape, data.y_train.shape, data.x_test.shape
        return data.x_train.sum()

    more = {"compare": False, "measured": 12, "measures": {"rows": rows}}
    some = lz.sweep(NETWORK, DATA, [16, 32], 2, 20, **more, **SGD)
    assert seen["shapes"] == ((12, 64), (12, 10), (20, 64))
    assert_close(some.rows.values, np.full((2, 2, some.sizes["step"]), DATA.x_train[:12].sum()), dtype="float32")
    # All were trained on.
    for name in ("test_loss", "test_error", "displacement", "max_neuron_displacement"):
        np.testing.assert_allclose(some[name], compared[name], rtol=1e-5)
    run = lz.train(
        NETWORK.clone(width=32),
        DATA,
        lz.training.keys.member_key(32, 1),
        20,
        **TRAINED,
    )
    f, y = run.snapshots.train_prediction.values[:, :12], DATA.y_train[:12]
    errors = np.mean(f.argmax(axis=-1) != y.argmax(axis=-1), axis=-1)
    np.testing.assert_allclose(some.train_error.sel(width=32, seed=1), errors)
    w, start = (variables["params"]["hidden"] for variables in (run.variables, run.variables_0))
    flips = np.mean((DATA.x_train[:12] @ w.T > 0) != (DATA.x_train[:12] @ start.T > 0))
    np.testing.assert_allclose(some.activation_flips.sel(width=32, seed=1)[-1], flips, atol=1e-6)
    kernels = [
        lz.empirical_ntk(NETWORK.clone(width=32), variables, DATA.x_train[:12])
        for variables in (run.variables, run.variables_0)
    ]
    drift = np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[1])
    np.testing.assert_allclose(some.kernel_drift.sel(width=32, seed=1)[-1], drift, rtol=1e-3)


def test_one_network_looks_at_the_first_examples(key):
    whole, some = (
        lz.train(NETWORK.clone(width=16), DATA, key, 5, learning_rate=1.0, loss="softmax", measured=measured)
        for measured in (None, 7)
    )
    assert some.snapshots.train_prediction.shape == (6, 7, 10)
    np.testing.assert_allclose(
        some.snapshots.train_prediction, whole.snapshots.train_prediction[:, :7], rtol=1e-5, atol=1e-6
    )


def test_snapshots_at_chosen_steps(compared):
    chosen = lz.sweep(NETWORK, DATA, [16, 32], 2, 20, snapshots=np.array([6, 3, 6]), compare=False, **SGD)
    assert chosen.step.values.tolist() == [0, 3, 6, 20]
    common = compared.sel(step=[0, 3, 6, 20])
    for name in ("train_loss", "displacement", "activation_flips"):
        np.testing.assert_array_equal(chosen[name], common[name])


@pytest.mark.parametrize("four", [np.int64(4), np.array(4)])
def test_a_number_of_snapshots_may_be_numpys(four):
    with unchecked():
        steps = lz.train(NETWORK.clone(width=8), DATA, jax.random.key(0), 8, **TRAINED, snapshots=four).snapshots.step
    assert steps.values.tolist() == [0, 1, 2, 4, 8]


def test_a_bound_asks_for_all_examples():
    more = {"learning_rate": 0.1, "compare": False, "progress": False}
    digits = lz.load_dataset("digits", n_train=32, n_test=8)
    bound = population_bounds(lz.sweep(lz.TwoLayer(width=2), digits, [16], 1, 4, **more))
    assert np.isfinite(bound).all()
    with pytest.raises(ValueError, match="The loss of all training examples is needed, but the sweep measured 8"):
        population_bounds(lz.sweep(lz.TwoLayer(width=2), digits, [16], 1, 4, measured=8, **more))


def test_a_stored_sweep_of_chosen_steps_goes_on(tmp_path):
    more = {"snapshots": range(0, 21, 5), "compare": False, "measured": 9, "out": tmp_path / "run", "resume": True}
    first, again = (lz.sweep(NETWORK, DATA, [16], 2, 20, **more, **SGD) for _ in range(2))
    assert first.step.values.tolist() == [0, 5, 10, 15, 20]
    assert first.drop_attrs().identical(again.drop_attrs())
    with pytest.raises(ValueError, match="measured"):
        lz.sweep(NETWORK, DATA, [16], 2, 20, **more | {"measured": 10}, **SGD)


def test_nothing_of_the_size_of_the_data_is_planned(monkeypatch):
    """What a kernel of all examples would take is refused only where it is asked for."""
    monkeypatch.setattr("lazynet.plan.SMALL", 0)
    monkeypatch.setattr("lazynet.plan.available_memory", lambda: 40_000)
    with pytest.raises(ValueError, match="Diagonalizing the infinite-width kernel of 60 training rows"):
        lz.sweep(NETWORK, DATA, [16], 1, 2, **SGD)
    assert lz.sweep(NETWORK, DATA, [16], 1, 2, compare=False, measured=5, **SGD).sizes["width"] == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"measured": 5}, "measured is 5, but networks are compared with their kernels on all training examples"),
        ({"measured": 5, "compare": False, "learning_rate": None, "loss": "squared"}, "learning_rate is left out, but"),
        ({"compare": "no"}, "compare is 'no', but must be True or False."),
        ({"snapshots": [True]}, "snapshots has True, but every step must be a whole number from 0 to 20."),
        ({"measured": 61, "compare": False}, "measured is 61, but must be at most n_train = 60."),
        ({"measured": 0, "compare": False}, "measured is 0, but must be a whole number of at least 1."),
        ({"snapshots": [3, 21]}, "snapshots has 21, but every step must be a whole number from 0 to 20."),
        ({"snapshots": [2.5]}, "snapshots has 2.5, but every step must be a whole number from 0 to 20."),
        ({"snapshots": 0}, "snapshots is 0, but must be a whole number of at least 1."),
    ],
)
def test_what_cannot_be_measured_is_refused(more, said):
    with unchecked(), pytest.raises(ValueError, match=re.escape(said)):
        lz.sweep(NETWORK, DATA, [16], 1, 20, **SGD | more)
