"""Sweeps without predictions, with measures on some of the training examples, and with chosen snapshots."""

import io
import re

import jax
import numpy as np
import pytest
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.studies.sweep import population_bounds
from lazynet.training._keys import member_key

DATA = lz.load_dataset("digits", tuple(range(10)), n_train=60, n_test=20)
NETWORK = lz.TwoLayer(width=2, outputs=10, readout="gaussian", symmetric=False)
SGD = {"learning_rate": 1.0, "loss": "softmax", "batch_size": 8, "progress": False}
TRAINED = {name: value for name, value in SGD.items() if name != "progress"}
ALONE = lz.Measure(predictions=False)
NO_DRIFT = lz.Measure(kernel_drift=False)


@pytest.fixture(scope="module")
def compared():
    return lz.sweep(NETWORK, DATA, [16], 2, 20, **SGD)


@pytest.mark.slow
def test_without_predictions_the_rest_is_the_same(compared):
    both = lz.sweep(NETWORK, DATA, [16, 32], 2, 20, measure=ALONE, **SGD)
    alone = both.sel(width=[16])
    left_out = {
        *(f"{gap}_gap_{part}" for gap in ("linearization", "start", "kernel") for part in ("train", "test")),
        *(f"kernel_{part}_{score}" for part in ("train", "test") for score in ("loss", "error")),
        "linearized_displacement",
        "initial_kernel_error",
        "lambda_min",
        "lambda_max",
        "label_norm",
        "complexity",
    }
    assert set(compared) - set(alone) == left_out
    for name in alone:
        np.testing.assert_array_equal(alone[name], compared[name])
    assert {row.quantity for row in lz.verify(both).rows} >= {"relative_displacement", "kernel_drift"}


@pytest.mark.slow
def test_measures_look_at_the_first_examples(compared):
    seen = {}

    def rows(network, variables, start, data):
        seen["shapes"] = data.x_train.shape, data.y_train.shape, data.x_test.shape
        return data.x_train.sum()

    measure = lz.Measure(predictions=False, rows=12, own={"first_rows": rows})
    some = lz.sweep(NETWORK, DATA, [16], 2, 20, measure=measure, **SGD)
    assert seen["shapes"] == ((12, 64), (12, 10), (20, 64))
    assert_close(some.first_rows.values, np.full((1, 2, some.sizes["step"]), DATA.x_train[:12].sum()), dtype="float32")
    # Training still uses all examples.
    for name in ("test_loss", "test_error", "displacement", "max_neuron_displacement"):
        np.testing.assert_allclose(some[name], compared[name], rtol=1e-5)
    run = lz.train(
        NETWORK.clone(width=16),
        DATA,
        member_key(16, 1),
        20,
        **TRAINED,
    )
    f, y = run.snapshots.train_prediction.values[:, :12], DATA.y_train[:12]
    errors = np.mean(f.argmax(axis=-1) != y.argmax(axis=-1), axis=-1)
    np.testing.assert_allclose(some.train_error.sel(width=16, seed=1), errors)
    w, start = (variables["params"]["hidden"] for variables in (run.variables, run.variables_0))
    flips = np.mean((DATA.x_train[:12] @ w.T > 0) != (DATA.x_train[:12] @ start.T > 0))
    np.testing.assert_allclose(some.activation_flips.sel(width=16, seed=1)[-1], flips, atol=1e-6)
    kernels = [
        lz.empirical_ntk(NETWORK.clone(width=16), variables, DATA.x_train[:12])
        for variables in (run.variables, run.variables_0)
    ]
    drift = np.linalg.norm(kernels[0] - kernels[1]) / np.linalg.norm(kernels[1])
    np.testing.assert_allclose(some.kernel_drift.sel(width=16, seed=1)[-1], drift, rtol=1e-3)


@pytest.mark.slow
def test_one_network_looks_at_the_first_examples(key):
    whole, some = (
        lz.train(
            NETWORK.clone(width=16),
            *(DATA, key, 5),
            learning_rate=1.0,
            loss="softmax",
            measure=lz.Measure(kernel_drift=False, rows=rows),
        )
        for rows in (None, 7)
    )
    assert some.snapshots.train_prediction.shape == (6, 7, 10)
    np.testing.assert_allclose(
        some.snapshots.train_prediction, whole.snapshots.train_prediction[:, :7], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_snapshots_at_chosen_steps(compared):
    chosen = lz.sweep(NETWORK, DATA, [16], 2, 20, snapshots=np.array([6, 3, 6]), measure=ALONE, **SGD)
    assert chosen.step.values.tolist() == [0, 3, 6, 20]
    common = compared.sel(step=[0, 3, 6, 20])
    for name in ("train_loss", "displacement", "activation_flips"):
        np.testing.assert_array_equal(chosen[name], common[name])


@pytest.mark.slow
@pytest.mark.parametrize("four", [np.int64(4), np.array(4)])
def test_a_number_of_snapshots_may_be_numpys(four):
    options = TRAINED | {"snapshots": four, "measure": NO_DRIFT}
    with unchecked():
        run = lz.train(NETWORK.clone(width=16), DATA, jax.random.key(0), 8, **options)
    steps = run.snapshots.step
    assert steps.values.tolist() == [0, 1, 2, 4, 8]


@pytest.mark.slow
def test_a_bound_needs_all_examples():
    options = {"learning_rate": 0.1, "progress": False}
    digits = lz.load_dataset("digits", n_train=32, n_test=8)
    measure = lz.Measure(predictions=False, kernel_drift=False)
    bound = population_bounds(lz.sweep(lz.TwoLayer(width=2), digits, [16], 1, 4, measure=measure, **options))
    assert np.isfinite(bound).all()
    measure = lz.Measure(predictions=False, kernel_drift=False, rows=8)
    with pytest.raises(ValueError, match=r"^result must contain the loss on all training examples"):
        population_bounds(lz.sweep(lz.TwoLayer(width=2), digits, [16], 1, 4, measure=measure, **options))


@pytest.mark.slow
def test_a_stored_sweep_of_chosen_steps_is_resumed(tmp_path):
    def sweep(rows):
        measure, folder = lz.Measure(predictions=False, rows=rows), lz.RunFolder(tmp_path / "run", resume=True)
        return lz.sweep(NETWORK, DATA, [16], 2, 20, snapshots=range(0, 21, 5), measure=measure, out=folder, **SGD)

    first, again = sweep(12), sweep(12)
    assert first.step.values.tolist() == [0, 5, 10, 15, 20]
    assert first.drop_attrs().identical(again.drop_attrs())
    with pytest.raises(ValueError, match=r"measure = {.*'rows': 12"):
        sweep(10)


@pytest.mark.slow
def test_nothing_of_the_size_of_the_data_is_planned(monkeypatch):
    """The kernel of all examples is refused only if it is needed."""
    monkeypatch.setattr("lazynet.plan.SMALL", 0)
    monkeypatch.setattr("lazynet.plan.available_memory", lambda: 60_000)
    with pytest.raises(ValueError, match="Diagonalizing the infinite-width kernel of 60 training rows"):
        lz.sweep(NETWORK, DATA, [16], 1, 2, **SGD)
    measure = lz.Measure(predictions=False, rows=12)
    assert lz.sweep(NETWORK, DATA, [16], 2, 2, measure=measure, **SGD).sizes["width"] == 1


@pytest.mark.slow
def test_without_kernel_drift_the_rest_is_the_same(compared):
    result = lz.sweep(NETWORK, DATA, [16], 2, 20, measure=NO_DRIFT, **SGD)
    assert set(compared) - set(result) == {"kernel_drift"}
    for name in result:
        np.testing.assert_array_equal(result[name], compared[name], err_msg=name)
    lz.plot(result).savefig(io.BytesIO())


@pytest.mark.slow
def test_without_kernel_drift_no_kernel_is_computed():
    """Neither the kernel of a deep network nor of its layers is in the result."""
    options = {"steps": 3, "learning_rate": 0.05, "measure": lz.Measure(predictions=False, kernel_drift=False)}
    result = lz.sweep(lz.MLP(width=8, depth=2, outputs=DATA.outputs), DATA, [8], 1, **options)
    assert not {"kernel_drift", "layer_kernel_drift"} & set(result)
    assert "layer_displacement" in result


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        ({"rows": 5}, {}, "measure.rows must be None if measure.predictions is True, got 5. The predictions need"),
        (
            {"rows": 5, "predictions": False},
            {"learning_rate": None, "loss": "squared"},
            "learning_rate must be given if measure.rows is set, got None. The default learning rate needs",
        ),
        ({"predictions": "no"}, {}, "measure.predictions must be True or False, got 'no'."),
        ({"kernel_drift": 1}, {}, "measure.kernel_drift must be True or False, got 1."),
        ({"rows": 61, "predictions": False}, {}, "measure.rows must be at most n_train = 60, got 61."),
        ({"rows": 0, "predictions": False}, {}, "measure.rows must be a positive integer, got 0."),
        ({"own": {"a b": len}}, {}, "each name in measure.own must be an identifier that is not reserved"),
        ({"own": {"mine": 3}}, {}, "measure.own must map names to functions"),
        ({}, {"snapshots": [True]}, "each step in snapshots must be an integer from 0 to 20, got True."),
        ({}, {"snapshots": [3, 21]}, "each step in snapshots must be an integer from 0 to 20, got 21."),
        ({}, {"snapshots": [2.5]}, "each step in snapshots must be an integer from 0 to 20, got 2.5."),
        ({}, {"snapshots": 0}, "snapshots must be a positive integer, got 0."),
        ({}, {"measure": "all"}, "measure must be a lazynet.Measure, got 'all'."),
    ],
)
def test_measures_that_cannot_be_are_refused(measure, options, message):
    with unchecked(), pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        lz.sweep(NETWORK, DATA, [16], 1, 20, **SGD | {"measure": lz.Measure(**measure)} | options)


def test_a_single_network_has_no_prediction(key):
    for name in ("quadratic", "regression"):
        with pytest.raises(ValueError, match=f"^measure.{name} must be False for a single network, got True"):
            lz.train(NETWORK, DATA, key, 5, measure=lz.Measure(**{name: True}), **TRAINED)
