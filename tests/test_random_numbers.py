"""Random numbers do not depend on JAX's settings for random numbers."""

import jax
import numpy as np
import pytest
import xarray as xr

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=12, n_test=6)
SETTINGS = {
    "not partitionable": lambda: jax.threefry_partitionable(False),
    "another generator": lambda: jax.default_prng_impl("rbg"),
}


def sweep(**options):
    options |= {"measure": lz.Measure(kernel_drift=False), "progress": False}
    return lz.sweep(lz.TwoLayer(8), DATA, [8], 2, 4, batch_size=5, learning_rate=0.1, **options)


@pytest.fixture(scope="module")
def expected():
    return sweep()


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_seed_is_the_same_network_under_all_settings(setting, expected, tmp_path):
    with SETTINGS[setting]():
        xr.testing.assert_identical(sweep(out=tmp_path / "run").drop_attrs(), expected.drop_attrs())
    again = sweep(out=lz.RunFolder(tmp_path / "run", resume=True))
    xr.testing.assert_identical(again.drop_attrs(), expected.drop_attrs())


@pytest.mark.parametrize("setting", SETTINGS)
def test_data_are_the_same_under_all_settings(setting):
    key = jax.random.key(3)

    def drawn():
        return [
            lz.load_dataset("digits", n_train=12, n_test=6).x_train,
            lz.sphere(6, 2, 3, key).x_train,
            lz.gaussian_mixture(6, 2, 3, key).x_train,
            lz.xor(6, 2, key).x_train,
            lz.label_noise(DATA.y_train, 1.0, key),
        ]

    before = drawn()
    with SETTINGS[setting]():
        after = drawn()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_key_of_another_generator_is_its_own():
    """A run with a key of another generator is the same under all settings, and differs from one with a default key."""
    key = jax.random.key(0, impl="rbg")
    runs = [lz.train(lz.TwoLayer(8), DATA, key, 2)]
    with jax.default_prng_impl("rbg"):
        runs.append(lz.train(lz.TwoLayer(8), DATA, jax.random.key(0), 2))
    losses = [run.snapshots.test_prediction.values for run in runs]
    np.testing.assert_array_equal(*losses)
    other = lz.train(lz.TwoLayer(8), DATA, jax.random.key(0), 2).snapshots.test_prediction.values
    assert not np.array_equal(losses[0][-1], other[-1])
