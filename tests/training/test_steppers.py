"""Test that three steppers take the same steps: by autodiff, on the hidden weights, and on the pre-activations."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from reference import targets, unit_rows
from simulations import Blocks, descend, low_rank_rows, train
from tolerance import assert_close

from lazynet import losses
from lazynet.networks import MLP, TwoLayer
from lazynet.training import (
    AutodiffStepper,
    HiddenStepper,
    Optimizer,
    PreactivationStepper,
    Units,
    choose_stepper,
)
from lazynet.training._steppers import row_space
from lazynet.training._units import MOST_BLOCKS

SNAPSHOTS = [0, 1, 17, 50]


def steppers(network):
    return {
        "autodiff": AutodiffStepper(network, losses.squared(), optax.sgd),
        "hidden": HiddenStepper(network),
        "preactivation": PreactivationStepper(network),
    }


# Inputs with n > d, inputs with d >= 2 n, and inputs of rank 3 in 9 dimensions.
INPUTS = {"tall": unit_rows(10, 4), "wide": unit_rows(6, 20), "low rank": low_rank_rows(12, 9, 3)}
WIDTHS = {"tall": 1500, "wide": 3000, "low rank": 1009}


def case(inputs, activation, outputs, width=None, output_scale=1.3):
    width = width or WIDTHS[inputs]
    x = INPUTS[inputs]
    network = TwoLayer(
        width=width, outputs=outputs, activation=activation, symmetric=width % 2 == 0, output_scale=output_scale
    )
    # At this learning rate, most modes are learned in fifty steps.
    y, rate = targets(len(x), outputs), 0.3 / output_scale**2
    return network, x, y, rate


# Every stepper is tested on every kind of input, and with one and with several outputs. The derivatives of all
# activations are tested in networks/test_activations.py.
CASES = [
    ("autodiff", "tall", "relu", 1),
    ("autodiff", "wide", "sin", 3),
    ("autodiff", "low rank", "softplus", 3),
    ("hidden", "tall", "erf", 3),
    ("hidden", "wide", "tanh", 1),
    ("hidden", "low rank", "gelu", 1),
    ("preactivation", "tall", "leaky_relu", 1),
    ("preactivation", "wide", "relu", 3),
    ("preactivation", "low rank", "sigmoid", 1),
]


def test_the_cases_cover_all_inputs_and_outputs():
    for name in ("autodiff", "hidden", "preactivation"):
        own = [case for case in CASES if case[0] == name]
        assert {inputs for _, inputs, _, _ in own} == set(INPUTS)
        assert {outputs for *_, outputs in own} == {1, 3}


def fast(*cases):
    """Return all cases, with all except the given ones marked as slow."""
    return [case if case in cases else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stepper", "inputs", "activation", "outputs"),
    fast(("autodiff", "tall", "relu", 1), ("hidden", "low rank", "gelu", 1), ("preactivation", "wide", "relu", 3)),
)
def test_every_stepper_agrees_with_a_numpy_loop(stepper, inputs, activation, outputs, key):
    network, x, y, rate = case(inputs, activation, outputs)
    start, outcome = train(steppers(network)[stepper], network, [key], x, y, rate, SNAPSHOTS)
    first = jax.tree.map(lambda leaf: leaf[0], start)
    f, w, root_sum = descend(network, first, x, y, rate, SNAPSHOTS)
    assert np.linalg.norm(f[-1] - f[0]) > 0.5
    np.testing.assert_allclose(outcome.records["f"][0], f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outcome.records["hidden"][0], w, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outcome.records["loss_root_sum"][0], root_sum, rtol=1e-9, atol=0)
    # The first snapshot contains the initial weights, and the last one the final weights.
    np.testing.assert_array_equal(outcome.records["hidden"][:, 0], start["params"]["hidden"])
    np.testing.assert_array_equal(outcome.variables["params"]["hidden"], outcome.records["hidden"][:, -1])
    np.testing.assert_array_equal(outcome.variables["fixed"]["readout"], start["fixed"]["readout"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stepper", "width", "blocks"),
    [
        ("hidden", 101, 4),
        ("preactivation", 2, 1),
        ("hidden", 576, MOST_BLOCKS),
        ("preactivation", 101, 4),
    ],
)
def test_results_do_not_depend_on_the_division_into_blocks(stepper, width, blocks, key):
    """The cases are blocks of unequal size, one small block, and the largest number of blocks."""
    network, x, y, rate = case("tall", "relu", 3, width)
    divided = replace(steppers(network)[stepper], units=Blocks(number=blocks))
    start, outcome = train(divided, network, [key], x, y, rate, [0, 5])
    f, w, _ = descend(network, jax.tree.map(lambda leaf: leaf[0], start), x, y, rate, [0, 5])
    np.testing.assert_allclose(outcome.records["f"][0], f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outcome.records["hidden"][0], w, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stepper", ["hidden", "autodiff", "preactivation"])
def test_float32_agrees_with_float64(stepper, key):
    """Each step adds a few rounding errors to f, which descent does not amplify: at most 64 + 50 * 16 ulps in all."""
    network, x, y, rate = case("low rank", "tanh", 1, 2048)
    x = x.astype(np.float32).astype(np.float64)
    start, single = train(steppers(network)[stepper], network, [key], x, y, rate, SNAPSHOTS, "float32")
    f, w, root_sum = descend(network, jax.tree.map(lambda leaf: leaf[0], start), x, y, rate, SNAPSHOTS)
    assert single.variables["params"]["hidden"].dtype == np.float32
    assert_close(single.records["f"][0], f, dtype="float32", ulps=64 + 50 * 16)
    assert_close(single.records["hidden"][0], w, dtype="float32", ulps=64 + 50 * 16)
    assert_close(single.records["loss_root_sum"][0], root_sum, dtype="float32", ulps=64 + 50 * 16)


def test_row_space():
    for x, rank in ((unit_rows(10, 4), 4), (unit_rows(6, 20), 6), (low_rank_rows(12, 9, 3), 3)):
        basis = row_space(x)
        assert basis.shape == (x.shape[1], rank)
        assert_close(basis.T @ basis, np.eye(rank))
        assert_close(x @ basis @ basis.T, x)
    # Columns of zeros and duplicate rows do not increase the rank.
    x = np.concatenate([unit_rows(5, 4), np.zeros((5, 3))], axis=1)
    assert row_space(np.concatenate([x, x])).shape == (7, 4)


def test_blocks_of_units():
    for width, number in ((1, 1), (1024, 1), (1025, 2), (1500, 2), (5000, 5), (2**14, 16), (2**15 + 3, 16)):
        blocks = Units().split(np.arange(width)[:, None], width)
        np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], np.arange(width))
        assert len(blocks) == Units().blocks(width) == number
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
        assert Units().lengths(width) == {width, *map(len, blocks)}


def test_blocks_over_several_devices_are_those_of_one_device():
    for devices, width, number in ((2, 2**14, 8), (8, 2**18, 2), (16, 2**16, 1), (3, 3 * 2**12, 4), (32, 2**20, 1)):
        shared = Units(Mesh(np.array(jax.devices()[:1] * devices).reshape(1, devices), ("member", "neuron")))
        local = np.arange(width // devices)
        blocks = shared.split(local, width)
        np.testing.assert_array_equal(np.concatenate(blocks), local)
        assert len(blocks) == shared.blocks(width) == number
        assert shared.lengths(width) == {width, *(devices * len(block) for block in blocks)}
        if devices * number <= MOST_BLOCKS:
            assert {len(block) for block in blocks} == {len(block) for block in Units().split(np.arange(width), width)}


@pytest.mark.parametrize(
    ("n", "d", "rank", "expected"),
    [
        (10, 4, 4, HiddenStepper),  # 2 n^2 = 200 operations on pre-activations, 4 n rank = 160 on hidden weights
        (10, 5, 5, HiddenStepper),  # equal numbers of operations
        (10, 6, 6, PreactivationStepper),
        (10, 30, 10, PreactivationStepper),
        (10, 30, 5, HiddenStepper),
        (10, 30, 6, PreactivationStepper),
    ],
)
def test_the_stepper_with_the_fewest_operations_is_chosen(n, d, rank, expected):
    x = low_rank_rows(n, d, rank)
    assert type(choose_stepper(TwoLayer(width=4), losses.squared(), Optimizer("sgd"), None, x)) is expected


X = unit_rows(4, 3)
MEAN_SQUARED = losses.Loss("squared", losses.squared().per_example, "mean")
SGD = Optimizer("sgd")
NOT_PLAIN = {
    "loss": (TwoLayer(width=4), losses.logistic(), SGD, None),
    "mean": (TwoLayer(width=4), MEAN_SQUARED, SGD, None),
    "momentum": (TwoLayer(width=4), losses.squared(), Optimizer("sgd", momentum=0.9), None),
    "weight decay": (TwoLayer(width=4), losses.squared(), Optimizer("sgd", weight_decay=0.1), None),
    "batches": (TwoLayer(width=4), losses.squared(), SGD, 2),
    "readout": (TwoLayer(width=4, train="readout"), losses.squared(), SGD, None),
    "both": (TwoLayer(width=4, train="both"), losses.squared(), SGD, None),
    "other network": (MLP(width=4, depth=2), losses.squared(), SGD, None),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_other_training_uses_autodiff(case):
    network, loss, optimizer, batch_size = NOT_PLAIN[case]
    for name in ("hidden", "preactivation") if case == "batches" else ("hidden", "preactivation", "delayed"):
        with pytest.raises(ValueError, match=r"^stepper must be 'auto' or a stepper that supports these settings"):
            choose_stepper(network, loss, replace(optimizer, stepper=name), batch_size, X)
    for name in ("auto", "autodiff"):
        chosen = choose_stepper(network, loss, replace(optimizer, stepper=name), batch_size, X)
        assert type(chosen) is AutodiffStepper
        assert chosen.loss is loss
        assert chosen.batch_size == batch_size


def test_a_custom_optimizer_uses_autodiff():
    def optimizer(rate):
        return optax.sgd(rate, 0.5)

    assert choose_stepper(TwoLayer(width=4), losses.squared(), optimizer, None, X).optimizer is optimizer


@pytest.mark.parametrize(
    ("name", "expected"),
    [("autodiff", AutodiffStepper), ("hidden", HiddenStepper), ("preactivation", PreactivationStepper)],
)
def test_a_stepper_can_be_chosen_by_name(name, expected):
    chosen = choose_stepper(TwoLayer(width=4), losses.squared(), Optimizer("sgd", stepper=name), None, X)
    assert type(chosen) is expected
