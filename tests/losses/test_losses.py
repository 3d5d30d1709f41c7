"""Test losses and their gradients against explicit formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
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
    """Return for each case the predictions, targets, loss of each example, and gradient of the summed loss."""
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
    # Losses are static arguments of compiled programs, so two instances of the same loss must compare equal and have
    # the same hash.
    assert losses.squared() == losses.squared()
    assert hash(losses.softmax()) == hash(losses.softmax())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="loss must be one of squared, logistic, softmax, hinge"):
        losses.get_loss("mse")
    with unchecked(), pytest.raises(ValueError, match="reduction must be one of sum, mean"):
        losses.logistic("max")


HOT = np.eye(3)[[0, 2, 1, 1]]
ALLOWED = {
    "signs for logistic": (losses.logistic(), np.array([1.0, -1.0])),
    "integers for hinge": (losses.hinge(), np.array([1, -1])),
    "one-hot": (losses.softmax(), HOT),
    "one-hot minus 1/k": (losses.softmax(), HOT - 1 / 3),
    "in float32": (losses.softmax(), (HOT - 1 / 3).astype(np.float32)),
    "probabilities": (losses.softmax(), np.array([[0.2, 0.8], [0.5, 0.5]])),
    "numbers": (losses.squared(), np.array([0.3, 7.0])),
    "numbers for one's own": (losses.Loss("own", lambda f, y: (f - y) ** 4), np.array([0.3, 7.0])),
}
REFUSED = {
    "0 and 1 for logistic": (losses.logistic(), [1.0, 0.0], r"y must be \+1 or -1 for the logistic loss, got 0 in "),
    "0 and 1 for hinge": (losses.hinge(), [0, 1], r"y must be \+1 or -1 for the hinge loss, got 0 in row 0"),
    "one-hot for logistic": (losses.logistic(), HOT, "y must have one target per example for the logistic loss, got 3"),
    "signs for softmax": (losses.softmax(), [1.0, -1.0], "y must have at least two targets per example"),
    "numbers for softmax": (losses.softmax(), 5 * HOT, "y must consist of probabilities or of one-hot rows minus 1/k"),
    "two ones": (losses.softmax(), [[1.0, 1.0, 0.0]], r"got \[1, 1, 0\] in row 0"),
    "sums of 0.9": (losses.softmax(), 0.9 * HOT, "y must consist of probabilities"),
    "negative": (losses.softmax(), [[1.5, -0.5]], "y must consist of probabilities"),
    "two values for one example": (losses.Loss("own", lambda f, y: jnp.tile(f, 2)), [1.0, 2.0], "one value per"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_targets_in_the_domain_of_a_loss(case):
    loss, y = ALLOWED[case]
    loss.check_targets(y)


@pytest.mark.parametrize("case", REFUSED)
def test_other_targets_are_refused(case):
    loss, y, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        loss.check_targets(np.asarray(y))


def test_the_domain_is_one_of_three():
    with unchecked(), pytest.raises(ValueError, match="domain must be one of numbers, signs, classes, got 'any'"):
        losses.Loss("own", lambda f, y: f, "sum", "any")


BAD = {"logistic": np.array([0.0, 1.0, 1.0, 0.0]), "hinge": np.array([0.0, 1.0, 1.0, 0.0]), "softmax": 5.0 * HOT}


@pytest.mark.parametrize("name", BAD)
def test_every_function_with_a_loss_refuses_them(name, tmp_path):
    y, k = BAD[name], np.eye(4)
    data, outputs = lz.Dataset(k, y), 1 if y.ndim == 1 else y.shape[1]
    network, options = lz.TwoLayer(width=8, outputs=outputs), {"learning_rate": 0.1, "loss": name}
    calls = [
        lambda: lz.kernel_descent(k, y, steps=2, **options),
        lambda: lz.kernel_flow(k, y, times=[1.0], loss=name),
        lambda: lz.train(network, data, jax.random.key(0), 2, **options),
        lambda: lz.sweep(network, data, [8], 1, 2, out=tmp_path / "run", **options),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^y(_train)? must .* for the {name} loss, got"):
            call()
    assert not (tmp_path / "run").exists()
