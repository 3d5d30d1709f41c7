"""Test the compiled training program: packs, calls, traces, divergence, mini-batches and optimizers."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import targets, unit_rows
from simulations import Blocks, Recorder, members, recorder, share, train
from tolerance import assert_close

import lazynet as lz
from lazynet import losses
from lazynet.networks import Linearized, TwoLayer
from lazynet.precision import float64
from lazynet.training import (
    NEVER,
    AutodiffStepper,
    HiddenStepper,
    Member,
    Optimizer,
    PreactivationStepper,
    simulate,
    snapshot_steps,
)
from lazynet.training import _program as program

N, D = 8, 5
X, Y = unit_rows(N, D), targets(N)
NETWORK = TwoLayer(width=256)
STEPPERS = {
    "autodiff": AutodiffStepper(NETWORK, losses.squared(), optax.sgd),
    "hidden": HiddenStepper(NETWORK),
    "preactivation": PreactivationStepper(NETWORK),
}
EVERY_STEPPER = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)


def test_snapshot_steps():
    for steps, snapshots in ((1000, 20), (1, 5), (7, 1), (3, 50), (10**6, 20)):
        expected = {0, steps} | {round(steps ** (i / max(snapshots - 1, 1))) for i in range(snapshots)}
        chosen = snapshot_steps(steps, snapshots)
        assert chosen.dtype == np.int64
        assert set(chosen.tolist()) == expected
        assert np.all(np.diff(chosen) > 0)
        assert (chosen[0], chosen[-1]) == (0, steps)


@EVERY_STEPPER
def test_data_and_steps_cause_no_new_trace(stepper, key):
    measure = Recorder(NETWORK)
    before = program._advance._cache_size()
    train(stepper, NETWORK, [key, key], X, Y, 0.3, [0, 3, 4, 20], "float32", measure=measure)
    traced = measure.traces
    assert program._advance._cache_size() == before + 1
    keys = list(jax.random.split(key))
    train(stepper, NETWORK, keys, unit_rows(N, D, seed=5), -Y, 0.1, [0, 1, 2, 30, 31], "float32", measure=measure)
    assert measure.traces == traced
    assert program._advance._cache_size() == before + 1
    # Steppers that compare equal share a compiled program.
    train(type(stepper)(**vars(stepper)), NETWORK, keys, X, Y, 0.1, [0, 1], "float32", measure=measure)
    assert measure.traces == traced


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("hidden", "float32"),
        ("autodiff", "float64"),
        ("preactivation", "float64"),
    ],
)
def test_results_do_not_depend_on_the_division_into_calls(name, dtype, key, monkeypatch):
    run = lambda: train(STEPPERS[name], NETWORK, [key], X, Y, 0.3, [0, 5, 60], dtype)[1]  # noqa: E731
    outcomes = [run()]
    monkeypatch.setattr(program, "CALL_SECONDS", 1e-12)
    outcomes.append(run())
    monkeypatch.setattr(program, "CALL_SECONDS", 1e9)
    outcomes.append(run())
    for other in outcomes[1:]:
        for name, record in outcomes[0].records.items():
            np.testing.assert_array_equal(other.records[name], record, err_msg=name)
        jax.tree.map(np.testing.assert_array_equal, other.variables, outcomes[0].variables)


def test_progress_counts_every_step(key, monkeypatch):
    reported = []
    with jax.default_matmul_precision("highest"):
        pack = members(NETWORK, [key], X, "float32")
        shared = share(STEPPERS["hidden"], X, Y, 0.1, "float32")
        monkeypatch.setattr(program, "CALL_SECONDS", 1e-12)
        simulate(STEPPERS["hidden"], recorder(NETWORK), pack, shared, np.array([0, 2, 9]), reported.append)
    assert reported == [1] * 9


@EVERY_STEPPER
def test_members_of_a_pack_agree_with_members_trained_alone(stepper, key):
    keys = list(jax.random.split(key, 3))
    start, pack = train(stepper, NETWORK, keys, X, Y, 0.3, [0, 10, 100])
    for i in range(3):
        _, alone = train(stepper, NETWORK, keys[i : i + 1], X, Y, 0.3, [0, 10, 100])
        for name in ("f", "hidden"):
            np.testing.assert_allclose(pack.records[name][i], alone.records[name][0], rtol=0, atol=2e-14)
    assert np.abs(start["params"]["hidden"][0] - start["params"]["hidden"][1]).max() > 0.1
    # The program must not donate the buffers of the initial variables.
    np.testing.assert_array_equal(pack.records["hidden"][:, 0], start["params"]["hidden"])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("hidden", "float64"),
        ("autodiff", "float64"),
        ("hidden", "float32"),
        ("preactivation", "float32"),
    ],
)
def test_a_diverging_member_is_flagged_and_does_not_affect_others(name, dtype, key):
    """Scaling the readout by sqrt(20) scales the kernel, and so its largest eigenvalue, by 20."""
    keys = list(jax.random.split(key, 3))
    stepper = STEPPERS[name]
    rate = 1 / np.linalg.eigvalsh(lz.analytic_kernel(NETWORK)(X))[-1]

    def louder(variables, i):
        factor = 20**0.5 if i == 1 else 1.0
        return {**variables, "fixed": {"readout": factor * variables["fixed"]["readout"]}}

    snapshots = [0, 1, 20, 150]
    _, healthy = train(stepper, NETWORK, keys, X, Y, rate, snapshots, dtype)
    _, broken = train(stepper, NETWORK, keys, X, Y, rate, snapshots, dtype, louder)
    np.testing.assert_array_equal(healthy.diverged_at, [NEVER] * 3)
    for i in (0, 2):
        assert broken.diverged_at[i] == NEVER
        for record, values in healthy.records.items():
            np.testing.assert_array_equal(broken.records[record][i], values[i], err_msg=record)
    step = int(broken.diverged_at[1])
    assert 1 < step < 150
    # Train again to record the losses at the flagged step and at the step before it.
    last = [0, step - 1, step]
    _, alone = train(stepper, NETWORK, keys, X, Y, rate, last, dtype, louder)
    loss = 0.5 * np.sum((alone.records["f"][1] - Y) ** 2, axis=1)
    assert loss[1] <= 1e12 * (loss[0] + 1)
    assert not loss[2] <= 1e12 * (loss[0] + 1) or np.isclose(loss[2], 1e12 * (loss[0] + 1), rtol=1e-3)
    assert alone.diverged_at[1] == NEVER


def test_an_infinite_loss_counts_as_divergence(key):
    network = TwoLayer(width=4)
    stepper = AutodiffStepper(network, losses.Loss("infinite", lambda f, y: f * 0 + jnp.inf), optax.sgd)
    _, outcome = train(stepper, network, [key], X, Y, 0.1, [0, 2])
    assert outcome.diverged_at[0] == 0


def test_the_sum_of_root_losses_in_float32_is_compensated(key):
    """A plain float32 sum of 20,000 equal terms has a relative error of about 1e-5."""
    network = TwoLayer(width=2)
    stepper = AutodiffStepper(network, losses.Loss("constant", lambda f, y: 0 * f + 0.1 / N), optax.sgd)
    _, outcome = train(stepper, network, [key], X, Y, 0.1, [0, 1, 20_000], "float32")
    first = outcome.records["loss_root_sum"][0, 1]
    np.testing.assert_allclose(outcome.records["loss_root_sum"][0], [0, first, 20_000 * first], rtol=3e-8)


@dataclass(frozen=True)
class Coordinates:
    """A linear network f(x) = x . theta; for basis vectors x, a step moves only the coordinates in its batch."""

    def apply(self, variables, x):
        return x @ variables["params"]["theta"]


def parameters(variables, member, shared):
    return variables["params"]


def batches(key, n, size, steps, reduction="sum", dtype="float32"):
    """Return theta at every step, of shape (steps + 1, n), trained from 0 toward targets of 1."""
    loss = losses.Loss("own", losses.squared().per_example, reduction)
    stepper = AutodiffStepper(Coordinates(), loss, optax.sgd, size)
    pack = Member({"params": {"theta": jnp.zeros((1, n), dtype)}}, key[None], None)
    shared = share(stepper, np.eye(n), np.ones(n), 0.25, dtype)
    return simulate(stepper, parameters, pack, shared, np.arange(steps + 1)).records["theta"][0]


@pytest.mark.parametrize("size", [3, 5, 10])
def test_every_epoch_is_a_permutation(size, key):
    n, epochs = 10, 4
    steps = n // size
    moved = np.diff(batches(key, n, size, epochs * steps), axis=0) != 0
    np.testing.assert_array_equal(moved.sum(axis=1), size)
    by_epoch = moved.reshape(epochs, steps, n)
    # No example occurs twice in an epoch; n mod `size` examples are left out.
    assert by_epoch.sum(axis=1).max() == 1
    if size < n:
        assert len({epoch.tobytes() for epoch in by_epoch}) == epochs


def test_batches_depend_on_the_key_alone(key):
    first, again, other = (batches(k, 10, 3, 9) for k in (key, key, jax.random.fold_in(key, 1)))
    np.testing.assert_array_equal(first, again)
    assert np.any((first != 0) != (other != 0))


def test_batches_are_the_same_in_both_dtypes(key):
    single = batches(key, 10, 3, 9)
    with float64():
        double = batches(key, 10, 3, 9, dtype="float64")
    np.testing.assert_array_equal(single != 0, double != 0)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 10 / 4), ("mean", 1 / 4)])
def test_the_gradient_of_a_batch_is_scaled(reduction, factor, key):
    moved = batches(key, 10, 4, 1, reduction)[1]
    assert_close(np.sort(moved), np.array([0.0] * 6 + [0.25 * factor] * 4), dtype="float32")


def test_the_loss_of_a_batch_estimates_the_loss_of_the_full_batch(key):
    stepper = AutodiffStepper(Coordinates(), losses.squared(), optax.sgd, 4)
    pack = Member({"params": {"theta": jnp.zeros((1, 10))}}, key[None], None)
    shared = share(stepper, np.eye(10), np.ones(10), 0.1, "float32")
    outcome = simulate(stepper, lambda variables, member, shared: {}, pack, shared, np.array([0, 1]))
    np.testing.assert_allclose(outcome.records["loss_root_sum"][0], [0, np.sqrt(0.5 * 10)], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "loss", "train_part"),
    [
        ("momentum", "squared", "hidden"),
        ("adam", "squared", "both"),
        ("adam", "logistic", "readout"),
    ],
)
def test_optimizers_agree_with_optax(name, loss, train_part, key):
    network = TwoLayer(width=32, activation="gelu", train=train_part, symmetric=False)
    loss = losses.get_loss(loss)
    optimizer = Optimizer("sgd", momentum=0.9) if name == "momentum" else Optimizer(name)
    stepper = AutodiffStepper(network, loss, optimizer)
    # Adam in optax relies on implicit dtype promotion.
    with jax.numpy_dtype_promotion("standard"):
        start, outcome = train(stepper, network, [key], X, Y, 0.05, [0, 1, 30])
    plain = {"momentum": optax.sgd(0.05, momentum=0.9), "adam": optax.adam(0.05)}[name]
    with float64(), jax.numpy_dtype_promotion("standard"):
        start = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), start)
        params, x, y, root_sum = start["params"], jnp.asarray(X), jnp.asarray(Y), 0.0
        optimizer_state = plain.init(params)

        @jax.jit
        def step(params, state):
            of_params = jax.value_and_grad(lambda params: loss(network.apply({**start, "params": params}, x), y))
            value, gradient = of_params(params)
            update, state = plain.update(gradient, state, params)
            return optax.apply_updates(params, update), state, value

        for _ in range(30):
            params, optimizer_state, value = step(params, optimizer_state)
            root_sum += np.sqrt(float(value))
        for array, value in params.items():
            assert np.abs(np.asarray(value - start["params"][array])).max() > 1e-3
            np.testing.assert_allclose(outcome.records[array][0, -1], value, rtol=0, atol=1e-10)
    np.testing.assert_allclose(outcome.records["loss_root_sum"][0, -1], root_sum, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "train_part"),
    [
        ("gelu", "both"),
        ("relu", "hidden"),
    ],
)
def test_the_linearized_network_follows_kernel_descent(activation, train_part, key):
    """Kernel descent with the initial kernel and outputs must give the network's training and test predictions."""
    network = TwoLayer(width=24, activation=activation, train=train_part, symmetric=False, output_scale=1.3)
    x_test = unit_rows(6, D, seed=4)
    linear = Linearized(network)
    stepper = AutodiffStepper(linear, losses.squared(), optax.sgd)
    with float64():
        start = dict(jax.jit(network.init)(key, X))
        pack = jax.tree.map(lambda leaf: leaf[None], Member(linear.at(start), key, None))
        f0, f0_test = (np.asarray(network.apply(start, jnp.asarray(x))) for x in (X, x_test))
        k, k_test = lz.empirical_ntk(network, start, X), lz.empirical_ntk(network, start, x_test, X)
        rate, snapshots = 1 / np.linalg.eigvalsh(k)[-1], np.array([0, 1, 10, 200])
        shared = {**share(stepper, X, Y, rate), "x_test": jnp.asarray(x_test)}

        def measure(variables, member, shared):
            return {name: linear.apply(variables, shared[name]) for name in ("x", "x_test")}

        records = simulate(stepper, measure, pack, shared, snapshots).records
    arguments = {"learning_rate": rate, "steps": snapshots, "f0": f0, "k_test": k_test, "f0_test": f0_test}
    expected = lz.kernel_descent(k, Y, **arguments)
    assert np.abs(f0).max() > 0.1
    np.testing.assert_allclose(records["x"][0], expected.train, rtol=0, atol=1e-10)
    np.testing.assert_allclose(records["x_test"][0], expected.test, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_wide_networks_follow_their_kernel(key):
    """The gap to kernel descent with the analytic kernel shrinks as the inverse square root of the width."""
    k = lz.analytic_kernel(TwoLayer(width=2))(X)
    rate, snapshots = 1 / np.linalg.eigvalsh(k)[-1], [0, 5, 40]
    predicted = lz.kernel_descent(k, Y, learning_rate=rate, steps=snapshots).train
    gaps = []
    for width in (64, 64 * 16):
        network = TwoLayer(width=width)
        _, outcome = train(HiddenStepper(network), network, list(jax.random.split(key, 4)), X, Y, rate, snapshots)
        gaps.append(np.sqrt(np.mean((outcome.records["f"] - predicted) ** 2)))
    # At 16 times the width, the gap is a quarter as large; with four members, the ratio is known to a factor of two.
    assert 2 < gaps[0] / gaps[1] < 8


def test_a_checkpoint_with_other_blocks_is_not_resumed(key):
    """A job may resume on a different number of devices, which changes the blocks of units."""

    saved = {}

    class InMemory:
        def __init__(self, stored):
            self.stored = stored

        def load(self):
            return self.stored

        def due(self):
            return self.stored is None

        def save(self, step, arrays):
            saved.update(arrays)

    blocks, one_block = (HiddenStepper(NETWORK, Blocks(number=number)) for number in (4, 1))
    pack, shared = members(NETWORK, [key], X, "float32"), share(blocks, X, Y, 0.1, "float32")
    measure, steps = Recorder(NETWORK), np.array([0, 2, 9])
    first = simulate(blocks, measure, pack, shared, steps, checkpoint=InMemory(None))
    assert 0 < saved["done"] < 9
    with pytest.warns(UserWarning, match=r"^A checkpoint was saved with a different number of devices"):
        restarted = simulate(one_block, measure, pack, shared, steps, checkpoint=InMemory(dict(saved)))
    np.testing.assert_allclose(restarted.records["f"], first.records["f"], rtol=1e-5, atol=1e-6)
    resumed = simulate(blocks, measure, pack, shared, steps, checkpoint=InMemory(dict(saved)))
    np.testing.assert_array_equal(resumed.records["f"], first.records["f"])
