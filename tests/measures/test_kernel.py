"""Test the distance, velocity and alignment of kernels, for simple kernels and during training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.measures import current_kernel, kernel_distance, kernel_velocity, label_alignment
from lazynet.training import member_key


def test_distance_is_one_minus_the_cosine():
    k = np.diag([1.0, 2.0])
    assert float(kernel_distance(k, 3 * k)) == pytest.approx(0, abs=1e-6)
    assert float(kernel_distance(k, np.array([[0.0, 1.0], [1.0, 0.0]]))) == pytest.approx(1)
    turned = np.array([[1.0, 1.0], [1.0, 2.0]])
    assert float(kernel_distance(k, turned)) == pytest.approx(1 - 5 / np.sqrt(5 * 7), rel=1e-6)


def test_velocity_of_a_uniformly_rotating_kernel():
    """For a rotation by w t in the plane of two orthogonal kernels, the distance after a time dt is 1 - cos(w dt)."""
    first, second = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    times = np.array([0.0, 1.0, 3.0, 3.5])
    kernels = np.array([(2 + t) * (np.cos(0.2 * t) * first + np.sin(0.2 * t) * second) for t in times])
    steps = np.diff(times)
    np.testing.assert_allclose(kernel_velocity(kernels, times), (1 - np.cos(0.2 * steps)) / steps, rtol=1e-10)


def test_alignment_is_one_for_the_kernel_of_the_labels():
    y = np.array([1.0, -1.0, 1.0])
    assert float(label_alignment(np.outer(y, y), y)) == pytest.approx(1)
    # The alignment of the identity is 1 / sqrt(n) for any labels.
    assert float(label_alignment(np.eye(3), y)) == pytest.approx(3**-0.5)
    several = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert float(label_alignment(2 * several @ several.T, several)) == pytest.approx(1)


@pytest.mark.slow
def test_recorded_kernels_are_empirical_kernels_and_align_with_the_labels():
    data = lz.load_dataset("digits", n_train=16, n_test=4)
    # A small output scale leads to feature learning.
    network = lz.TwoLayer(width=64, train="both", symmetric=False, output_scale=0.1)
    run = lz.train(
        network,
        data,
        jax.random.key(0),
        300,
        measure=lz.Measure(kernel_drift=False, own={"kernel": current_kernel}),
        snapshots=6,
    )
    kernels = run.snapshots.kernel.values
    for variables, k in ((run.variables_0, kernels[0]), (run.variables, kernels[-1])):
        np.testing.assert_allclose(k, lz.empirical_ntk(network, variables, data.x_train), rtol=1e-4, atol=1e-6)
    before, after = (float(label_alignment(k, data.y_train)) for k in (kernels[0], kernels[-1]))
    assert after > before + 0.1
    velocity = kernel_velocity(kernels, run.snapshots.step.values.astype(float))
    assert velocity.shape == (len(kernels) - 1,)
    assert velocity.max() > 0


@pytest.mark.slow
def test_descent_with_the_kernel_at_step_t_is_training_of_the_network_linearized_at_step_t():
    """As in Fort et al. 2020, the kernel is frozen at step t and training continues."""
    data = lz.load_dataset("digits", n_train=16, n_test=4)
    network = lz.TwoLayer(width=64, train="both", symmetric=False, output_scale=0.3)
    options = {"learning_rate": 0.2, "dtype": "float64", "snapshots": 4, "measure": lz.Measure(kernel_drift=False)}
    run = lz.train(network, data, jax.random.key(0), 50, **options)
    continued = lz.train(lz.linearize(network, run.variables), data, jax.random.key(0), 100, **options)
    k = lz.empirical_ntk(network, run.variables, data.x_train)
    f = run.snapshots.train_prediction.values[-1]
    trajectory = lz.kernel_descent(k, data.y_train, learning_rate=0.2, steps=continued.snapshots.step.values, f0=f)
    np.testing.assert_allclose(continued.snapshots.train_prediction, trajectory.train, atol=1e-9)
    assert np.abs(trajectory.train[-1] - f).max() > 0.05
    assert jnp.isfinite(continued.snapshots.train_loss.values).all()


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "values"), [("output_scale", [0.1, 10.0]), ("activation", ["relu", "tanh"])])
def test_a_kernel_recorded_in_a_sweep_is_that_of_the_network_at_its_point(axis, values):
    x = np.random.default_rng(0).normal(size=(8, 6))
    data, network = lz.Dataset(x, np.sign(x[:, 0])), lz.TwoLayer(width=8, symmetric=False)
    measure = lz.Measure(predictions=False, own={"kernel": current_kernel})
    options = {"learning_rate": 1e-3, "measure": measure, "axes": {axis: values}, "progress": False}
    result = lz.sweep(network, data, [16], 2, 1, **options)
    for value in values:
        one = network.clone(width=16, **{axis: value})
        start = lz.train(one, data, member_key(16, 1), 1, learning_rate=1e-3).variables_0
        recorded = result.kernel.sel(width=16, seed=1, step=0, **{axis: value})
        np.testing.assert_allclose(recorded, lz.empirical_ntk(one, start, x), rtol=1e-4, atol=1e-5)
