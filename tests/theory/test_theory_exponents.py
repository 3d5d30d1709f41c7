"""Test predicted exponents against the theorems and against sweeps with other scalings."""

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet.networks import PARAMETRIZATIONS
from lazynet.theory import Scaling, predicted_exponents

NTK = Scaling(0.0, 0.0, 0.0, symmetric=True, homogeneous=True, train="hidden")
GAPS = tuple(f"{gap}_gap_{part}" for gap in ("linearization", "start", "kernel") for part in ("train", "test"))
DATA = lz.load_dataset("digits", n_train=16, n_test=8)


def table(scaling):
    return {quantity: (relation, exponent) for quantity, relation, exponent in predicted_exponents(scaling)}


@pytest.mark.parametrize("train", ["hidden", "both"])
@pytest.mark.parametrize("homogeneous", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_ntk_scaling(symmetric, homogeneous, train):
    expected = {
        "displacement": ("equal", 0.0),
        "relative_displacement": ("equal", -0.5),
        **dict.fromkeys(("max_neuron_displacement", "activation_flips", "kernel_drift"), ("at most", -0.5)),
        **dict.fromkeys(GAPS, ("at most", -0.5)),
        "initial_kernel_error": ("at most", -0.5),
    }
    assert table(NTK._replace(symmetric=symmetric, homogeneous=homogeneous, train=train)) == expected


def test_a_trained_readout_has_no_linearization_gap():
    exponents = table(NTK._replace(train="readout"))
    assert exponents["kernel_gap_train"] == ("at most", -0.5)
    assert not {"activation_flips", "kernel_drift", "linearization_gap_train"} & set(exponents)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.5},  # training diverges
        {"learning_rate": -0.5},  # learning stops
        {"output": -0.75, "learning_rate": 1.5},  # weights move by more than their norm
        {"init": 0.25, "train": "both"},
        {"proportional": False},
    ],
    ids=str,
)
def test_otherwise_only_the_start_is_predicted(changes):
    assert table(NTK._replace(**changes)) == {"initial_kernel_error": ("at most", -0.5)}


def test_nothing_is_predicted_for_a_scale_in_an_inhomogeneous_activation():
    assert predicted_exponents(NTK._replace(init=-0.25, homogeneous=False)) == []


def test_mean_field_scaling():
    exponents = table(NTK._replace(output=-0.5, learning_rate=1.0))
    assert exponents["displacement"] == ("equal", 0.5)
    assert exponents["relative_displacement"] == ("equal", 0.0)
    assert exponents["kernel_gap_train"] == ("at most", 0.0)
    assert exponents["start_gap_train"] == ("at most", -0.5)


def test_an_asymmetric_start_makes_displacements_bounds():
    """The residual y - f_0 is proportional to f_0 only if f_0 is much larger than y."""
    exponents = table(NTK._replace(init=0.25, symmetric=False))
    assert exponents["displacement"] == ("at most", 0.25)
    assert exponents["relative_displacement"] == ("at most", -0.5)
    assert exponents["start_gap_train"] == ("at most", -0.25)
    assert table(NTK._replace(init=-0.25, symmetric=False))["displacement"] == ("at most", 0.0)
    assert table(NTK._replace(init=0.25))["displacement"] == ("equal", 0.0)
    assert table(NTK._replace(init=0.25))["relative_displacement"] == ("equal", -0.75)


def lambda_max(train):
    return np.linalg.eigvalsh(lz.analytic_kernel(lz.TwoLayer(width=2, train=train))(DATA.x_train))[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "init", "options"),
    [
        (-0.25, 0.25, {}),
        (-0.5, 0.0, {"activation": "tanh", "train": "both"}),
        (0.0, 0.2, {"symmetric": False}),
    ],
    ids=["between_and_large_start", "mean_field", "large_start_of_its_own"],
)
def test_sweeps_show_the_predicted_exponents(output, init, options):
    """With scales that are powers of the width, displacements have the predicted exponents and no prediction fails."""
    network = lz.TwoLayer(
        width=64, output_scale=lambda m: (m / 32) ** output, init_scale=lambda m: (m / 32) ** init, **options
    )
    highest = lambda_max(network.train)
    result = lz.sweep(
        network, DATA, [32, 256], 5, 30, learning_rate=lambda m: (m / 32) ** (-2 * output) / highest, snapshots=3
    )
    verdict = lz.verify(result)
    for name, predicted in (("displacement", -output), ("relative_displacement", -output - init - 0.5)):
        row = verdict.row(name)
        if network.symmetric:
            assert row.relation == "equal"
            assert row.predicted == pytest.approx(predicted, abs=1e-9)
            assert row.fitted == pytest.approx(predicted, abs=0.05)
        assert row.fitted <= row.predicted + 0.05
    # Exponents fitted to two widths are noisy, so rows of the verdict may be undecided but must not fail.
    assert [row.quantity for row in verdict.rows if row.status == "fails"] == []
    assert len(verdict.rows) == 12


def test_trained_biases_in_the_ntk_parametrization_move_like_weights():
    scaling = Scaling(0.0, 0.0, 0.0, False, True, "both", depth=2, layers=("bias_1", "bias_2"), train_bias=True)
    exponents = table(scaling)
    assert exponents["layer_relative_displacement[bias_1]"] == ("equal", -0.5)
    assert exponents["layer_relative_displacement[bias_2]"] == ("equal", -0.5)
    without = table(scaling._replace(train_bias=False, layers=()))
    assert without.items() <= exponents.items()


def test_trained_biases_dominate_if_the_weights_have_small_multipliers():
    """With multipliers m^(-1), gradients with respect to the hidden weights are smaller than those of the biases."""
    small = lz.Parametrization((1.0, 1.0, 0.5), (-1.0, -0.5, 0.0), 0.0)
    scaling = Scaling(0.0, 0.0, 0.0, True, True, "hidden", parametrization=small)
    assert list(table(scaling)) == ["initial_kernel_error"]
    assert table(scaling._replace(train_bias=True))["displacement"] == ("at most", 0.0)


def test_nothing_is_predicted_if_random_biases_dominate_the_preactivations():
    """Without biases, the second layer of a mean-field network has pre-activations of order m^(-1/2)."""
    field = Scaling(0.0, 0.0, 1.0, False, True, "both", parametrization=PARAMETRIZATIONS["mean-field"], depth=2)
    assert list(table(field)) == ["initial_kernel_error"]
    assert table(field._replace(biased=True, train_bias=True)) == {}
    assert table(NTK._replace(biased=True)) == table(NTK)


@pytest.mark.whole
def test_sweeps_with_trained_biases_show_the_predicted_exponents():
    network = lz.MLP(width=32, depth=2, bias_scale=0.5, train_bias=True)
    verdict = lz.verify(lz.sweep(network, DATA, [32, 256], 5, 30, snapshots=3))
    assert [row.quantity for row in verdict.rows if row.status == "fails"] == []
    for name in ("bias_1", "bias_2"):
        row = verdict.row(f"layer_relative_displacement[{name}]")
        assert row.predicted == -0.5
        assert row.fitted == pytest.approx(-0.5, abs=0.15)


@pytest.mark.whole
def test_biases_that_are_not_trained_at_a_point_have_no_prediction_there():
    network, measure = lz.MLP(width=8, depth=1, bias_scale=0.5), lz.Measure(predictions=False)
    axes = {"train_bias": [False, True]}
    result = lz.sweep(network, DATA, [8, 16], 2, 5, snapshots=2, measure=measure, axes=axes, learning_rate=0.1)
    for train_bias in (False, True):
        names = [row.quantity for row in lz.verify(result.sel(train_bias=train_bias)).rows]
        assert ("layer_relative_displacement[bias_1]" in names) == train_bias


@pytest.mark.slow
def test_biases_that_start_at_zero_have_no_relative_displacement():
    network = lz.MLP(width=8, depth=1, train_bias=True)
    result = lz.sweep(network, DATA, [8, 16], 2, 5, snapshots=2, measure=lz.Measure(predictions=False))
    names = [row.quantity for row in lz.verify(result).rows if "[" in row.quantity]
    assert names == ["layer_relative_displacement[hidden_1]", "layer_relative_displacement[readout]"]
    assert np.isnan(result.layer_relative_displacement.sel(layer="bias_1")).all()
    assert (result.layer_displacement.sel(layer="bias_1", step=5) > 0).all()


@pytest.mark.slow
def test_the_displacement_of_adam_is_not_predicted():
    """Adam's steps do not shrink with the gradient, so the displacement grows with the width (exponent about +0.19)."""
    # Adam in optax relies on implicit dtype promotion.
    with jax.numpy_dtype_promotion("standard"):
        measure = lz.Measure(kernel_drift=False)
        options = {"learning_rate": 0.001, "optimizer": "adam", "snapshots": 2, "measure": measure}
        result = lz.sweep(lz.TwoLayer(width=64), DATA, [16, 256], 1, 10, **options)
    assert [row.quantity for row in lz.verify(result).rows] == ["initial_kernel_error"]
    moved = result.displacement.isel(step=-1).mean("seed").values
    assert moved[1] > 1.5 * moved[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("init", "large"),
        ("output", None),
        ("learning_rate", np.nan),
        ("train", "all"),
        ("depth", 0),
        ("symmetric", "no"),
        ("layers", "hidden_1"),
        ("depth", 10**7),
    ],
)
def test_a_scaling_with_wrong_entries_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^scaling\.{name} must be "):
        predicted_exponents(NTK._replace(**{name: value}))
    with pytest.raises(ValueError, match=r"^parametrization must be "):
        predicted_exponents(NTK._replace(parametrization="largest"))
