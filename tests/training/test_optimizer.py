"""Test the transformations of optimizers and the settings that they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unchecked import unchecked

from lazynet.training import Optimizer, get_optimizer
from lazynet.training._optimizer import TRANSFORMATIONS

PARAMS, GRADIENT = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])


def updates(transformation, steps=3):
    """Return the updates of the first few steps for a constant gradient."""
    with jax.numpy_dtype_promotion("standard"):
        params, state, recorded = PARAMS, transformation.init(PARAMS), []
        for _ in range(steps):
            update, state = transformation.update(GRADIENT, state, params)
            params = optax.apply_updates(params, update)
            recorded.append(update)
    return np.stack(recorded)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_default_settings_are_those_of_optax(name):
    np.testing.assert_array_equal(updates(Optimizer(name)(0.1)), updates(TRANSFORMATIONS[name](0.1)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_optax(nesterov):
    expected = updates(optax.sgd(0.1, momentum=0.9, nesterov=nesterov))
    np.testing.assert_array_equal(updates(Optimizer("sgd", momentum=0.9, nesterov=nesterov)(0.1)), expected)


def test_weight_decay_is_added_to_the_gradient_before_the_momentum():
    velocity, params, expected = 0.0, np.asarray(PARAMS), []
    for _ in range(3):
        velocity = 0.9 * velocity + np.asarray(GRADIENT) + 0.01 * params
        expected.append(-0.1 * velocity)
        params = params + expected[-1]
    np.testing.assert_allclose(updates(Optimizer("sgd", momentum=0.9, weight_decay=0.01)(0.1)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_decoupled_weight_decay_is_that_of_optax(name):
    expected = updates(TRANSFORMATIONS[name](0.1, weight_decay=0.01))
    np.testing.assert_array_equal(updates(Optimizer(name, weight_decay=0.01)(0.1)), expected)


def test_a_schedule_multiplies_the_learning_rate():
    halved = updates(Optimizer("sgd", schedule=lambda step: 0.5**step)(0.1))
    np.testing.assert_allclose(halved, -0.1 * 0.5 ** np.arange(3)[:, None] * np.asarray(GRADIENT), rtol=1e-6)


def test_optimizers_by_name():
    assert get_optimizer("adam") == Optimizer("adam")
    assert get_optimizer(optax.sgd) == Optimizer("sgd")
    custom = Optimizer("sgd", momentum=0.5)
    assert get_optimizer(custom) is custom
    assert get_optimizer(optax.adam) is optax.adam
    with pytest.raises(ValueError, match=r"^optimizer must be one of sgd, "):
        get_optimizer(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "SGD"}, "name must be one of sgd, adam"),
        ({"stepper": "fast"}, "stepper must be one of auto, autodiff"),
        ({"momentum": 1.0}, "momentum must be a nonnegative number below 1"),
        ({"momentum": math.nan}, "momentum "),
        ({"nesterov": 1}, "nesterov must be True or False"),
        ({"nesterov": True}, "nesterov must be False if momentum is 0"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and nonnegative"),
        ({"weight_decay": math.inf}, "weight_decay "),
        ({"schedule": 0.5}, "schedule must be a function"),
        ({"name": "adam", "momentum": 0.9}, "momentum must be 0 for the optimizer 'adam'"),
        ({"name": "flow", "weight_decay": 0.1}, "weight_decay must be omitted for the optimizer 'flow'"),
        ({"name": "flow", "stepper": "autodiff"}, "stepper must be 'auto' for the optimizer 'flow'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with unchecked(), pytest.raises(ValueError, match=f"^{message}"):
        Optimizer(**settings)
