"""Test Theorem 5.1 of Arora et al. 2019 for the networks of a sweep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet.studies.sweep import population_bounds
from lazynet.theory import population_bound

DATA = lz.load_dataset("digits", n_train=32, n_test=50)
ALONE = lz.Measure(predictions=False, kernel_drift=False)
SMALL = {"measure": ALONE, "snapshots": 2, "progress": False}


@pytest.mark.slow
@pytest.mark.parametrize(("symmetric", "widths"), [(False, [256]), (True, [64, 256])])
def test_the_bound_of_a_sweep_is_that_of_each_network(symmetric, widths):
    network = lz.TwoLayer(width=2, init_scale=0.5, symmetric=symmetric)
    result = lz.sweep(network, DATA, widths, 2, 20, measure=ALONE)
    found = population_bounds(result, 0.1)
    assert found.dims == ("width", "seed", "step")
    assert (found > result.test_error).all()
    one = result.sel(width=256, seed=1).isel(step=-1)
    expected = population_bound(
        min(1.0, float(one.residual_norm) / np.sqrt(32)),
        32,
        float(one.displacement),
        0.1,
        width=256,
        radius=float(one.max_neuron_displacement),
        init_scale=0.5,
        symmetric=symmetric,
    )
    assert float(found.sel(width=256, seed=1)[-1]) == pytest.approx(expected, rel=1e-6)


def test_the_training_loss_in_it_is_no_smaller_than_the_true_one(key):
    run = lz.train(lz.TwoLayer(width=256), DATA, key, 20, measure=ALONE)
    far = np.minimum(1, np.abs(run.snapshots.train_prediction.values - DATA.y_train)).mean(axis=1)
    assert (far <= np.minimum(1, np.sqrt(2 * run.snapshots.train_loss.values / 32)) + 1e-6).all()


@pytest.mark.slow
def test_a_diverged_network_has_no_bound():
    with pytest.warns(UserWarning, match="learning_rate is"):
        result = lz.sweep(lz.TwoLayer(width=2), DATA, [64], 2, 50, learning_rate=1e8)
    assert np.isnan(population_bounds(result).values[0, 0, -1])


@pytest.mark.slow
@pytest.mark.parametrize("network", [{"activation": "tanh"}, {"train": "both"}, {"output_scale": 2.0}])
def test_other_networks_are_refused(network):
    result = lz.sweep(lz.TwoLayer(width=2, **network), DATA, [8], 1, 3, **SMALL)
    with pytest.raises(ValueError, match=next(iter(network))):
        population_bounds(result)


@pytest.mark.slow
def test_several_points_are_refused():
    result = lz.sweep(lz.TwoLayer(width=2), DATA, [8], 1, 3, axes={"init_scale": [0.5, 1.0]}, **SMALL)
    with pytest.raises(ValueError, match=r"^result must have no axes"):
        population_bounds(result)
    assert population_bounds(result.sel(init_scale=0.5)).dims == ("width", "seed", "step")


@pytest.mark.whole
def test_what_the_theorem_does_not_cover_is_refused():
    def start(key, width):
        hidden = 1e-3 * jax.random.normal(key, (width, 64))
        return {
            "params": {"hidden": hidden},
            "fixed": {"readout": jnp.where(jnp.arange(width) % 2, 1.0, -1.0)[:, None]},
        }

    network = lz.TwoLayer(width=2, symmetric=False)
    own = lz.sweep(lz.with_start(network, start), DATA, [8], 1, 3, learning_rate=0.1, **SMALL)
    with pytest.raises(ValueError, match=r"^result must come from networks with lazynet's own initialization"):
        population_bounds(own)
    far = lz.Dataset(10 * DATA.x_train, DATA.y_train, 10 * DATA.x_test, DATA.y_test)
    with pytest.raises(
        ValueError, match=r"^result must come from inputs of unit norm, got training rows with norms from 10 to 10"
    ):
        population_bounds(lz.sweep(network, far, [8], 1, 3, learning_rate=0.001, **SMALL))
    first, second = (
        lz.sweep(lz.TwoLayer(width=2, init_scale=scale), DATA, [width], 2, 3, learning_rate=0.1, **SMALL)
        for scale, width in ((1.0, 8), (0.1, 16))
    )
    both = xr.concat([first, second], "width", data_vars="minimal", coords="minimal", compat="equals", join="outer")
    with pytest.raises(ValueError, match=r"^result must contain members of one sweep only, got width 16"):
        population_bounds(both)
    with pytest.raises(ValueError, match=r"^result must contain the variable displacement"):
        population_bounds(first.drop_vars("displacement"))
    with pytest.raises(ValueError, match=r"^result must contain at least one seed"):
        population_bounds(first.isel(seed=[]))
    # A scale may be a function of the width.
    function = lz.TwoLayer(width=2, init_scale=lambda width: 0.8 / width)
    one = lz.sweep(function, DATA, [8], 2, 3, learning_rate=0.1, **SMALL)
    other = lz.sweep(lz.TwoLayer(width=2, init_scale=0.1), DATA, [8], 2, 3, learning_rate=0.1, **SMALL)
    np.testing.assert_allclose(population_bounds(one), population_bounds(other))
    # The value that was selected must stay, because the bound depends on it.
    scales = lz.sweep(network, DATA, [8], 1, 3, axes={"init_scale": [0.5, 1.0]}, **SMALL)
    with pytest.raises(ValueError, match=r"^result must have the coordinate init_scale"):
        population_bounds(scales.isel(init_scale=0, drop=True))
