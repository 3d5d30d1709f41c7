"""Losses and their gradients against explicit formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tolerance import assert_close
from unchecked import unchecked

from lazynet import losses
from lazynet.precision import float64

N, OUTPUTS = 9, 4


def predictions(columns=None, seed=0):
    return 2 * np.random.default_rng(seed).normal(size=N if columns is None else (N, columns))


def labels():
    return np.random.default_rng(1).choice([-1.0, 1.0], size=N)


def one_hot():
    return np.eye(OUTPUTS)[np.random.default_rng(1).integers(OUTPUTS, size=N)]


def cases():
    """Return, by name: predictions, targets, loss of each example, gradient of the summed loss."""
    f, y = predictions(), labels()
    wide, hot = predictions(OUTPUTS), one_hot()
    log_sum = special.logsumexp(wide, axis=1)
    softmax = np.sum(hot * (log_sum[:, None] - wide), axis=1), special.softmax(wide, axis=1) - hot
    return {
        "squared": (f, y, 0.5 * (f - y) ** 2, f - y),
        "squared, several outputs": (wide, hot, 0.5 * np.sum((wide - hot) ** 2, axis=1), wide - hot),
        "logistic": (f, y, np.log1p(np.exp(-y * f)), -y * special.expit(-y * f)),
        "softmax": (wide, hot, *softmax),
        "softmax, centered targets": (wide, hot - 1 / OUTPUTS, *softmax),
        "hinge": (f, y, np.maximum(0, 1 - y * f), np.where(y * f < 1, -y, 0.0)),
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", cases())
def test_formula_and_gradient(case, dtype):
    f, y, values, gradient = cases()[case]
    name = case.split(",")[0]
    with float64():
        f, y = jnp.asarray(f, dtype), jnp.asarray(y, dtype)
        assert_close(losses.LOSSES[name]().per_example(f, y), values)
        for reduction, factor in (("sum", 1.0), ("mean", 1 / N)):
            if name == "squared":
                if reduction == "mean":
                    continue
                loss = losses.squared()
            else:
                loss = getattr(losses, name)(reduction)
            value, loss_gradient = jax.value_and_grad(loss)(f, y)
            assert value.dtype == loss_gradient.dtype == dtype
            assert value.shape == ()
            assert_close(value, factor * np.sum(values))
            assert_close(loss_gradient, factor * gradient)


def test_default_reductions():
    assert losses.squared().reduction == "sum"
    assert {losses.LOSSES[name]().reduction for name in ("logistic", "softmax", "hinge")} == {"mean"}


def test_large_margins_do_not_overflow():
    f, y = jnp.array([800.0, -800.0]), jnp.array([1.0, 1.0])
    assert_close(losses.logistic("sum").per_example(f, y), np.array([0.0, 800.0]))
    value, gradient = jax.value_and_grad(losses.logistic("sum"))(f, y)
    assert value == 800
    assert_close(gradient, np.array([0.0, -1.0]))


def test_losses_by_name():
    for name in losses.LOSSES:
        assert losses.get_loss(name).name == name
    own = losses.Loss("own", lambda f, y: jnp.abs(f - y), "mean")
    assert losses.get_loss(own) is own
    assert own(jnp.array([1.0, 3.0]), jnp.array([0.0, 0.0])) == 2
    # Losses are static arguments of compiled programs, so equal losses must compare and hash equal.
    assert losses.squared() == losses.squared()
    assert hash(losses.softmax()) == hash(losses.softmax())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="loss must be one of squared, logistic, softmax, hinge"):
        losses.get_loss("mse")
    with unchecked(), pytest.raises(ValueError, match="reduction must be 'sum' or 'mean'"):
        losses.logistic("max")
