"""Sweeps of deep and user-defined networks, compared with the two-layer network and with direct computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import neural_tangents

import lazynet as lz
from lazynet.experiment import _predictions as predictions
from lazynet.networks import traits
from lazynet.training._keys import member_key, start_key

DATA = lz.load_dataset("digits", n_train=12, n_test=5)
TWO = lz.TwoLayer(width=8, activation="tanh", train="both", symmetric=False)
DEEP = lz.MLP(width=8, depth=2)
# Sweeps of the same network share programs, because they have the same widths, members and dtype.
SWEEP = {"widths": [8, 16], "seeds": 3, "steps": 30, "snapshots": 4, "dtype": "float64"}
NO_DRIFT = lz.Measure(kernel_drift=False)
ALONE = lz.Measure(predictions=False, kernel_drift=False)


def own(network=TWO, kernel=None, **options):
    """Return a network of lazynet in the form of a user-defined network."""

    def init(key, x, width):
        return network.clone(width=width).init(key, x)["params"]

    def apply(params, x):
        return network.clone(width=len(params["readout"])).apply({"params": params}, x)

    return lz.from_functions(init, apply, kernel, **options)


def last(result, name):
    return result[name].isel(step=-1).values


@pytest.fixture(scope="module")
def of_own():
    return lz.sweep(
        own(kernel=lz.analytic_kernel(TWO), parametrization="ntk"),
        DATA,
        **SWEEP,
        learning_rate=0.05,
    )


@pytest.fixture(scope="module")
def deep():
    return lz.sweep(DEEP, DATA, **SWEEP)


@pytest.mark.slow
def test_a_network_of_ones_own_gives_what_the_two_layer_network_gives(of_own):
    expected, result = lz.sweep(TWO, DATA, **SWEEP, learning_rate=0.05), of_own
    # The units and pre-activations of a user-defined network are not known.
    assert set(expected.data_vars) - set(result.data_vars) == {"max_neuron_displacement", "activation_flips"}
    layered = {"layer_kernel_drift", "layer_displacement", "layer_relative_displacement"}
    assert set(result.data_vars) - set(expected.data_vars) == layered
    for name in set(result.data_vars) & set(expected.data_vars):
        np.testing.assert_allclose(result[name].values, expected[name].values, rtol=1e-8, atol=1e-10, err_msg=name)
    assert result.layer.values.tolist() == ["hidden", "readout"]
    rows = {row.quantity: (row.predicted, row.relation) for row in lz.verify(result).rows}
    assert rows["kernel_drift"] == (pytest.approx(-0.5), "at most")


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        lz.MLP(width=8, depth=2, activation="tanh", outputs=2),
        lz.ConvNet(width=8, image=(8, 8), stride=2, outputs=2, train="both", symmetric=False),
    ],
    ids=["deep", "convolutional"],
)
def test_measures_of_layers_are_those_by_hand(network):
    data = lz.load_dataset("digits", classes=(0, 1, 2), n_train=12, n_test=5)
    data = lz.Dataset(data.x_train, data.y_train[:, :2], data.x_test, data.y_test[:, :2])
    key = member_key(8, 3)
    run = lz.train(network, data, key, steps=20, learning_rate=0.05, snapshots=[20], dtype="float64")
    now, start, x = run.variables, run.variables_0, data.x_train
    names = sorted(start["params"])
    moved = [np.linalg.norm(now["params"][name] - start["params"][name]) for name in names]
    at_end = run.snapshots.isel(step=-1)
    np.testing.assert_allclose(at_end.layer_displacement, moved, rtol=1e-10)
    norms = [np.linalg.norm(start["params"][name]) for name in names]
    np.testing.assert_allclose(at_end.layer_relative_displacement, np.divide(moved, norms), rtol=1e-10)
    np.testing.assert_allclose(at_end.displacement, np.linalg.norm(moved), rtol=1e-10)
    k, k_0 = (lz.empirical_ntk(network, variables, x, parts=True) for variables in (now, start))
    drifts = [np.linalg.norm(k[name] - k_0[name]) / np.linalg.norm(k_0[name]) for name in names]
    np.testing.assert_allclose(at_end.layer_kernel_drift, drifts, rtol=1e-8)
    whole, whole_0 = sum(k.values()), sum(k_0.values())
    np.testing.assert_allclose(
        at_end.kernel_drift, np.linalg.norm(whole - whole_0) / np.linalg.norm(whole_0), rtol=1e-8
    )
    before, after = (traits(network).preactivations(variables, jnp.asarray(x)) for variables in (start, now))
    flips = np.concatenate([np.ravel((a > 0) != (b > 0)) for a, b in zip(before, after, strict=True)])
    assert flips.any()
    np.testing.assert_allclose(at_end.activation_flips, flips.mean(), rtol=1e-12)


@pytest.mark.slow
def test_trained_and_diagonalized_linearizations_of_a_deep_network_agree(deep, monkeypatch):
    monkeypatch.setattr(predictions, "LARGEST_EIGENPROBLEM", 0)
    trained, by_kernel = lz.sweep(DEEP, DATA, **SWEEP | {"widths": [16]}), deep.sel(width=[16])
    for name in ("linearization_gap_train", "linearization_gap_test", "start_gap_test", "initial_kernel_error"):
        assert by_kernel[name].values.max() > 1e-4
        np.testing.assert_allclose(trained[name], by_kernel[name], rtol=1e-6, atol=1e-10)


@pytest.mark.slow
def test_kernels_that_grow_with_the_width_have_learning_rates_that_fall(deep):
    growing = lz.ThreeLayer(width=8)
    grown = lz.sweep(growing, DATA, [8, 16], seeds=2, steps=2, snapshots=2, measure=NO_DRIFT)
    for network, result, falls in ((growing, grown, True), (DEEP, deep, False)):
        rates = [float(rate) for rate in result.learning_rate.broadcast_like(result.width)]
        assert rates[0] / rates[1] == pytest.approx(2.0 if falls else 1.0)
        assert result.lambda_max.dims == (("width",) if falls else ())
        for i, width in enumerate((8, 16)):
            k = lz.analytic_kernel(network.clone(width=width))(DATA.x_train)
            highest = float(result.lambda_max[i] if falls else result.lambda_max)
            assert highest == pytest.approx(np.linalg.eigvalsh(k)[-1], rel=1e-10)
            # The learning rate is the largest that is stable at every width.
            assert rates[i] * highest < 1 + 1e-9


@pytest.mark.slow
def test_a_deep_network_in_standard_parametrization_learns_at_every_width():
    network = lz.MLP(width=8, depth=2, parametrization="standard", activation="tanh", init_scale=1.0)
    result = lz.sweep(network, DATA, [64, 512], seeds=9, steps=30, snapshots=[30], measure=ALONE)
    losses = last(result, "train_loss").mean(axis=1)
    assert losses.max() / losses.min() < 1.6
    verdict = lz.verify(result)
    for name, predicted in (("hidden_1", -1.5), ("hidden_2", -1.0), ("readout", -0.5)):
        row = verdict.row(f"layer_relative_displacement[{name}]")
        assert row.predicted == pytest.approx(predicted)
        assert row.fitted == pytest.approx(predicted, abs=0.15)


@pytest.mark.whole
def test_the_network_of_lee_moves_as_published():
    """In Figure 1 of Lee et al. (2019), relative movement falls as m^(-1/2) in the outer layers, as 1 / m in others."""
    result = lz.sweep(lz.MLP(width=8, depth=3), DATA, [64, 512], seeds=5, steps=20, snapshots=[20])
    verdict = lz.verify(result)
    middle = {f"layer_relative_displacement[hidden_{i}]": -1.0 for i in (2, 3)}
    ends = {f"layer_relative_displacement[{name}]": -0.5 for name in ("hidden_1", "readout")}
    for name, predicted in (middle | ends).items():
        row = verdict.row(name)
        assert (row.relation, row.predicted) == ("equal", pytest.approx(predicted))
        assert row.fitted == pytest.approx(predicted, abs=0.15)
    assert verdict.row("kernel_drift").fitted < -0.4
    assert verdict.row("initial_kernel_error").fitted == pytest.approx(-0.5, abs=0.2)


@pytest.mark.slow
def test_a_stored_sweep_of_ones_own_is_resumed_and_another_network_is_refused(tmp_path):
    options = SWEEP | {"learning_rate": 0.05, "measure": ALONE, "out": lz.RunFolder(tmp_path / "run", resume=True)}
    first = lz.sweep(own(), DATA, **options)
    without_prediction = lz.verify(first)
    assert without_prediction.rows == ()
    assert "no exponent is predicted" in str(without_prediction)
    for cell in (tmp_path / "run" / "cells").iterdir():
        if cell.name.startswith("000001"):
            cell.unlink()
    again = lz.sweep(own(), DATA, **options)
    assert first.identical(again.assign_attrs(first.attrs))
    with pytest.raises(ValueError, match="network_values ="):
        lz.sweep(own(TWO.clone(activation="erf")), DATA, **options)


@pytest.mark.slow
def test_a_field_that_a_network_lacks_is_no_axis():
    with pytest.raises(ValueError, match=r"^axes must be chosen from output_scale, .*, got 'init_scale'"):
        lz.sweep(own(), DATA, [8], seeds=1, steps=2, axes={"init_scale": [0.5, 1.0]})
    options = SWEEP | {"widths": [8], "measure": ALONE}
    grid = lz.sweep(own(), DATA, **options, axes={"output_scale": [0.5, 1.0]}, learning_rate=0.05)
    assert grid.displacement.dims == ("width", "seed", "step", "output_scale")
    with pytest.raises(ValueError, match=r"^network .*width"):
        lz.sweep(jnp.tanh, DATA, [8], seeds=1, steps=2)


@pytest.mark.slow
def test_members_of_deep_networks_do_not_depend_on_each_other(deep):
    alone = lz.sweep(DEEP, DATA, **SWEEP | {"widths": [16], "seeds": [1]})
    for name in ("train_loss", "layer_displacement", "kernel_gap_train"):
        np.testing.assert_allclose(alone[name].values[0, 0], deep[name].values[1, 1], rtol=1e-12, atol=1e-13)
    options = {"snapshots": 4, "learning_rate": float(deep.learning_rate[0]), "dtype": "float64", "measure": ALONE}
    run = lz.train(DEEP.clone(width=16), DATA, member_key(16, 1), SWEEP["steps"], **options)
    np.testing.assert_allclose(run.snapshots.train_loss, deep.train_loss.values[1, 1], rtol=1e-12)
    assert jax.tree.map(jnp.shape, run.variables["params"]) == {
        "hidden_1": (16, 64),
        "hidden_2": (16, 16),
        "readout": (16, 1),
    }


@pytest.mark.slow
def test_a_network_that_leaves_its_width_out_of_account_is_refused():
    same = lz.from_functions(
        lambda key, x, width: jax.random.normal(key, (x.shape[1],)), lambda params, x: jnp.tanh(x @ params)
    )
    with pytest.raises(ValueError, match="number of parameters at widths 8 and 16"):
        lz.sweep(same, DATA, [8, 16], seeds=1, steps=2)
    lz.sweep(same, DATA, [8], seeds=1, steps=2, learning_rate=0.01, measure=ALONE)


@pytest.mark.whole
def test_a_kernel_of_stax_is_that_of_each_width():
    stax = neural_tangents().stax

    def make(width):
        options = {"parameterization": "standard", "b_std": None}
        return stax.serial(stax.Dense(width, **options), stax.Relu(), stax.Dense(1, **options))

    network = lz.from_stax(make, parametrization="standard")
    result = lz.sweep(network, DATA, [16, 256], seeds=1, steps=2, snapshots=2, measure=NO_DRIFT)
    for i, width in enumerate((16, 256)):
        k = lz.analytic_kernel(network.clone(width=width))(DATA.x_train)
        assert float(result.lambda_max[i]) == pytest.approx(np.linalg.eigvalsh(k)[-1], rel=1e-10)
    assert float(result.lambda_max[1] / result.lambda_max[0]) > 4
    assert result.initial_kernel_error.values.max() < 1


@pytest.mark.slow
def test_another_kernel_is_refused_on_resume(tmp_path):
    options = SWEEP | {"widths": [8], "learning_rate": 0.05, "measure": NO_DRIFT}
    options["out"] = lz.RunFolder(tmp_path / "run", resume=True)
    first, second = (own(kernel=lambda a, b=None, c=c: c * a @ (a if b is None else b).T) for c in (1, 2))
    lz.sweep(first, DATA, **options)
    with pytest.raises(ValueError, match="kernel_values ="):
        lz.sweep(second, DATA, **options)


@pytest.mark.slow
def test_networks_of_chen_learn_at_every_width_at_an_output_scale_that_grows():
    network = lz.MLP(width=8, depth=2, parametrization="chen", output_scale=lambda m: m**0.5)
    result = lz.sweep(network, DATA, [32, 256], seeds=3, steps=40, snapshots=2, measure=ALONE)
    first, last_rate = (float(rate) for rate in result.learning_rate.broadcast_like(result.width))
    assert first / last_rate == pytest.approx(8)
    assert last(result, "train_loss").max() < 0.05 * result.train_loss.isel(step=0).values.min()
    assert len(lz.verify(result).rows) > 5


@pytest.mark.slow
def test_one_hidden_layer_is_deep_enough():
    result = lz.sweep(lz.MLP(width=8, depth=1), DATA, [32, 256], seeds=15, steps=20, snapshots=[20], measure=ALONE)
    rows = {row.quantity: row for row in lz.verify(result).rows}
    assert "kernel_drift" not in rows
    for name in ("hidden_1", "readout"):
        assert rows[f"layer_relative_displacement[{name}]"].predicted == -0.5
        assert rows[f"layer_relative_displacement[{name}]"].fitted == pytest.approx(-0.5, abs=0.15)


@pytest.mark.slow
def test_linearizations_that_diverge_have_no_gap():
    """The learning rate exceeds 2 / lambda_max for some members' kernels, but not for the infinite-width kernel."""
    network = lz.ThreeLayer(width=16)
    highest = np.linalg.eigvalsh(lz.analytic_kernel(network)(DATA.x_train))[-1]
    init, grows = jax.jit(network.init), []
    for seed in range(6):
        variables = dict(init(start_key(member_key(16, seed)), jnp.asarray(DATA.x_train, "float32")))
        own_highest = np.linalg.eigvalsh(lz.empirical_ntk(network, variables, DATA.x_train))[-1]
        grows.append(1.7 / highest > 2 / own_highest)
    # Choose one member that diverges and one that does not.
    seeds = [grows.index(True), grows.index(False)]
    options = {"seeds": seeds, "steps": 600, "snapshots": 4, "learning_rate": 1.7 / highest, "measure": NO_DRIFT}
    with pytest.warns(UserWarning, match="At width 16, 1 of 2 linearizations diverge"):
        result = lz.sweep(network, DATA, [16], **options)
    assert np.isnan(last(result, "linearization_gap_train")[0]).tolist() == [True, False]


@pytest.mark.slow
def test_a_kernel_of_zero_has_no_default_learning_rate():
    dead = lz.from_functions(
        lambda key, x, width: {"a": jnp.zeros((width,)), "w": 1e-3 * jax.random.normal(key, (width, x.shape[1]))},
        lambda params, x: (x @ params["w"].T) @ params["a"] * 0.0,
    )
    with pytest.raises(ValueError, match=r"^learning_rate must be given if the kernel's largest eigenvalue"):
        lz.sweep(dead, DATA, [8], seeds=1, steps=2)


@pytest.mark.slow
def test_layers_without_a_kernel_at_the_start_have_no_drift():
    network = lz.from_functions(
        lambda key, x, width: {"a": jnp.zeros((width,)), "w": jax.random.normal(key, (width, x.shape[1]))},
        lambda params, x: jnp.tanh(x @ params["w"].T) @ params["a"],
    )
    measure = lz.Measure(predictions=False)
    result = lz.sweep(network, DATA, [8], seeds=2, steps=5, learning_rate=0.01, measure=measure)
    assert np.isnan(last(result, "layer_kernel_drift")[..., 1]).all()
    assert np.isfinite(last(result, "layer_kernel_drift")[..., 0]).all()
    assert np.isnan(last(result, "layer_relative_displacement")[..., 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("network", [own(), DEEP], ids=["own", "deep"])
def test_every_network_has_its_picture(network):
    measure = lz.Measure(kernel_drift=False, quadratic=True)
    figure = lz.plot(lz.sweep(network, DATA, **SWEEP | {"widths": [8]}, learning_rate=0.05, measure=measure))
    said = [text.get_text() for axes in figure.axes[:-1] for text in axes.get_legend().get_texts()]
    assert any("quadratic" in text for text in said)
    assert any(text.startswith("readout, relative") for text in said)


@pytest.mark.slow
def test_fixed_biases_scale_with_the_weights_unless_the_weights_have_a_scale_of_their_own():
    """Pre-activations and biases of "chen" both shrink as m^(-1/2), which is only a change of units under relu."""
    network = lz.MLP(width=8, depth=1, parametrization="chen", bias_scale=0.5, init_scale=1.3)
    options = {"widths": [16, 32], "seeds": 1, "steps": 2, "snapshots": 2, "measure": ALONE}
    assert len(lz.verify(lz.sweep(network, DATA, **options)).rows) > 1
    scaled = network.clone(init_scale=lambda m: m**-0.25)
    assert lz.verify(lz.sweep(scaled, DATA, **options)).rows == ()
