"""Test DelayedStepper, which updates weights once per block of steps, against steppers that update them every step."""

import jax
import numpy as np
import optax
import pytest
from reference import SLOPE, VALUE, targets, unit_rows
from simulations import members, recorder, share, train
from tolerance import assert_close

import lazynet as lz
from lazynet import losses
from lazynet.networks import TwoLayer
from lazynet.precision import float64
from lazynet.training import AutodiffStepper, DelayedStepper, Optimizer, Stop, choose_stepper, simulate
from lazynet.training._delayed import steps_per_block

# An epoch of 7 steps consists of a block of 5 steps and a block of 2; N mod SIZE examples are left out.
N, D, SIZE = 23, 60, 3
X = unit_rows(N, D)
STEPS = [0, 1, 4, 5, 6, 7, 8, 16, 30]
CASES = {
    "squared": (losses.squared(), 1, "relu"),
    "softmax": (losses.softmax(), 4, "tanh"),
    "sum": (losses.softmax("sum"), 3, "relu"),
    "logistic": (losses.logistic(), 1, "erf"),
}


def problem(case):
    loss, outputs, activation = CASES[case]
    network = TwoLayer(
        width=20, outputs=outputs, activation=activation, readout="gaussian", symmetric=False, output_scale=1.7
    )
    y = targets(N, outputs)
    if loss.name == "logistic":
        y = np.sign(y)
    elif loss.name == "softmax":
        y = np.eye(outputs)[np.arange(N) % outputs] - 1 / outputs
    return network, loss, y


def test_the_number_of_steps_per_block():
    assert (steps_per_block(D, SIZE), N // SIZE, N % SIZE) == (5, 7, 2)
    assert steps_per_block(784, 64) == 3
    assert steps_per_block(10, 16) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "size"),
    [
        pytest.param("squared", SIZE, id="blocks"),
        pytest.param("softmax", SIZE, id="blocks of a mean", marks=pytest.mark.slow),
        pytest.param("sum", 15, id="blocks of one", marks=pytest.mark.slow),
        pytest.param("logistic", N, id="an epoch a step", marks=pytest.mark.slow),
    ],
)
def test_delayed_steps_agree_with_autodiff(case, size, key):
    network, loss, y = problem(case)
    keys = list(jax.random.split(key))
    rate = 0.05 if loss.reduction == "sum" else 2.0
    _, expected = train(AutodiffStepper(network, loss, optax.sgd, size), network, keys, X, y, rate, STEPS)
    _, delayed = train(DelayedStepper(network, loss, size), network, keys, X, y, rate, STEPS)
    moved = np.linalg.norm(expected.records["hidden"][0, -1] - expected.records["hidden"][0, 0])
    assert moved > 0.3
    for name in ("hidden", "f", "loss_root_sum"):
        np.testing.assert_allclose(delayed.records[name], expected.records[name], rtol=0, atol=1e-11)


def test_delayed_steps_agree_with_a_numpy_loop(key):
    network, loss, y = problem("squared")
    # Train two members, as the other tests do, so that all of them share compiled programs.
    start, outcome = train(DelayedStepper(network, loss, SIZE), network, [key, key], X, y, 0.2, STEPS)
    w, a = (np.asarray(start[group][name][0]) for group, name in (("params", "hidden"), ("fixed", "readout")))
    c, recorded = 1.7 / np.sqrt(20), []
    for t in range(STEPS[-1] + 1):
        if t in STEPS:
            recorded.append(w)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, t // 7), N))
        rows = order[t % 7 * SIZE : (t % 7 + 1) * SIZE]
        z = X[rows] @ w.T
        residual = c * VALUE["relu"](z) @ a - y[rows, None]
        w = w - 0.2 * c * N / SIZE * ((residual @ a.T) * SLOPE["relu"](z)).T @ X[rows]
    np.testing.assert_allclose(outcome.records["hidden"][0], recorded, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_delayed_steps_in_float32_agree_with_float64(key):
    network, loss, y = problem("softmax")
    x = X.astype(np.float32).astype(np.float64)
    keys = list(jax.random.split(key))
    _, single = train(DelayedStepper(network, loss, SIZE), network, keys, x, y, 2.0, STEPS, "float32")
    _, double = train(DelayedStepper(network, loss, SIZE), network, keys, x, y, 2.0, STEPS, "float64")
    assert_close(single.records["hidden"], double.records["hidden"], dtype="float32", ulps=64 + 30 * 16)


def test_snapshots_within_a_block_do_not_change_the_steps(key):
    network, loss, y = problem("softmax")
    keys = list(jax.random.split(key))
    _, every = train(DelayedStepper(network, loss, SIZE), network, keys, X, y, 2.0, range(31), "float32")
    _, some = train(DelayedStepper(network, loss, SIZE), network, keys, X, y, 2.0, [0, 30], "float32")
    np.testing.assert_array_equal(every.records["hidden"][:, [0, -1]], some.records["hidden"])


@pytest.mark.slow
def test_the_gradient_criterion_stops_at_the_step_of_autodiff(key):
    network, loss, y = problem("softmax")
    stopped = []
    for stepper in (AutodiffStepper(network, loss, optax.sgd, SIZE), DelayedStepper(network, loss, SIZE)):
        with float64():
            pack = members(network, list(jax.random.split(key)), X)
            stop = Stop(gradient=0.05)
            outcome = simulate(
                stepper, recorder(network), pack, share(stepper, X, y, 2.0), np.array([0, 400]), stop=stop
            )
        stopped.append((outcome.stopped_at.tolist(), outcome.records["hidden"]))
    assert stopped[0][0] == stopped[1][0]
    assert 0 < max(stopped[0][0]) < 400
    np.testing.assert_allclose(stopped[0][1], stopped[1][1], rtol=0, atol=1e-10)


def test_the_delayed_stepper_is_chosen_for_long_blocks():
    network, loss = TwoLayer(width=4, outputs=3), losses.softmax()
    wide, narrow = unit_rows(40, 64), unit_rows(40, 60)
    assert choose_stepper(network, loss, Optimizer("sgd"), 4, wide) == DelayedStepper(network, loss, 4)
    others = [
        choose_stepper(network, loss, Optimizer("sgd"), 4, narrow),
        choose_stepper(network, loss, Optimizer("sgd", stepper="autodiff"), 4, wide),
        choose_stepper(network, loss, Optimizer("sgd", momentum=0.9), 4, wide),
        choose_stepper(network, loss, Optimizer("adam"), 4, wide),
        choose_stepper(network.clone(train="both"), loss, Optimizer("sgd"), 4, wide),
    ]
    assert {type(stepper) for stepper in others} == {AutodiffStepper}
    assert type(choose_stepper(network, loss, Optimizer("sgd", stepper="delayed"), 4, narrow)) is DelayedStepper


@pytest.mark.slow
def test_a_sweep_with_the_delayed_stepper_agrees_with_autodiff():
    data = lz.mixture(40, 20, 64, jax.random.key(0), 3, 2)
    network = TwoLayer(width=2, outputs=3, readout="gaussian", symmetric=False)
    settings = {"learning_rate": 3.0, "loss": "softmax", "batch_size": 4, "dtype": "float64", "progress": False}
    measure = lz.Measure(predictions=False, kernel_drift=False)
    delayed, expected = (
        lz.sweep(network, data, [16], 2, 25, optimizer=Optimizer("sgd", stepper=name), measure=measure, **settings)
        for name in ("auto", "autodiff")
    )
    for name in ("train_loss", "test_loss", "displacement"):
        np.testing.assert_allclose(delayed[name], expected[name], rtol=1e-9, atol=1e-12)
