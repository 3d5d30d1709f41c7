"""Test the boundaries and the collapse of curves whose exponents are known."""

import numpy as np
import pytest

import lazynet as lz
from lazynet.experiment._settings import traits_record
from lazynet.networks import Centered, get_parametrization
from lazynet.studies.laziness_map._boundary import (
    boundary_exponent,
    bracket,
    collapse_spread,
    fit_boundary,
    mean_of_most,
    sharpest_collapse,
    why_steeper,
)
from lazynet.theory import Scaling

WIDTHS = np.array([64, 128, 256, 512, 1024, 2048])
SCALES = 2.0 ** np.arange(-9, 5)


def changes(power, noise=0.0, seeds=8):
    """Return noisy kernel changes of shape (widths, scales, seeds).

    For x = m^power alpha, they fall as 1 / x where x is small and as 1 / x^2 where x is large.
    """
    x = WIDTHS[:, None] ** power * SCALES
    smooth = 1 / (x * (1 + x / 4))
    return smooth[:, :, None] * np.exp(noise * np.random.default_rng(0).normal(size=(*smooth.shape, seeds)))


@pytest.mark.parametrize("power", [0.5, 0.75, 0.0])
def test_the_boundary_of_known_curves(power):
    found = fit_boundary(WIDTHS, [SCALES] * 6, list(changes(power)), 0.3)
    # The boundary is the solution x of 1 / (x (1 + x / 4)) = 0.3.
    x = 2 * (-1 + np.sqrt(1 + 1 / 0.3))
    np.testing.assert_allclose(found.scale, x * WIDTHS**-power, rtol=0.03)
    assert found.fit.exponent == pytest.approx(-power, abs=0.01)
    assert found.fit.local == pytest.approx(-power, abs=0.05)
    np.testing.assert_allclose([found.low, found.high], [found.scale] * 2, rtol=1e-12)


def test_intervals_hold_what_is_true_about_as_often_as_they_say():
    x, held, exponents = 2 * (-1 + np.sqrt(1 + 1 / 0.3)), 0, 0
    fine = x * WIDTHS[:, None] ** -0.5 * 2.0 ** np.linspace(-2, 2, 33)
    smooth = 1 / (np.sqrt(WIDTHS)[:, None] * fine)
    smooth /= 1 + np.sqrt(WIDTHS)[:, None] * fine / 4
    random = np.random.default_rng(1)
    for _ in range(60):
        # Each seed has one random factor of mean 1 for all scales of a width, so seed means approximate the curve.
        of_seed = 1 + 0.3 * random.normal(size=(6, 1, 8))
        found = fit_boundary(WIDTHS, list(fine), list(smooth[:, :, None] * of_seed), 0.3)
        true = x * WIDTHS**-0.5
        held += np.sum((found.low <= true) & (true <= found.high))
        exponents += found.fit.low <= -0.5 <= found.fit.high
    # Bootstrap intervals from eight seeds are slightly too narrow.
    assert 0.84 < held / 360 < 0.97
    assert 0.8 < exponents / 60 <= 1


def test_a_boundary_that_is_not_there_is_not_a_number():
    curves = list(changes(0.5))
    curves[2] = curves[2] * 1e9
    found = fit_boundary(WIDTHS, [SCALES] * 6, curves, 0.3)
    assert np.isnan([found.scale[2], found.low[2], found.high[2]]).all()
    assert found.fit.exponent == pytest.approx(-0.5, abs=0.01)
    none = fit_boundary(WIDTHS, [SCALES] * 6, [np.zeros((14, 3))] * 6, 0.3)
    assert np.isnan(none.fit.exponent)
    # A single seed gives no interval.
    alone = fit_boundary(WIDTHS, [SCALES] * 6, [curve[:, :1] for curve in changes(0.5)], 0.3)
    assert np.isfinite(alone.scale).all()
    assert np.isnan([alone.fit.low, *alone.low]).all()


def test_brackets_take_the_last_fall_and_leave_out_what_is_unknown():
    scales = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert bracket(scales, np.array([5.0, 2.0, 0.5, 0.2, 0.1]), 1.0) == (2, 4)
    assert bracket(scales, np.array([5.0, 0.5, 2.0, 0.2, 0.1]), 1.0) == (4, 8)
    assert bracket(scales, np.array([5.0, 2.0, np.nan, 0.2, 0.1]), 1.0) == (2, 8)
    assert bracket(scales, np.array([5.0, 2.0, 1.5, 1.2, 1.1]), 1.0) is None
    assert bracket(scales, np.array([0.5, 0.4, 0.3, 0.2, 0.1]), 1.0) is None
    assert bracket(scales, np.full(5, np.nan), 1.0) is None


def test_curves_collapse_at_their_exponent_and_nowhere_else():
    means = changes(0.5).mean(axis=-1)
    assert collapse_spread(WIDTHS, SCALES, means, 0.5) < 0.02
    assert collapse_spread(WIDTHS, SCALES, means, 0.3) > 0.2
    assert sharpest_collapse(WIDTHS, SCALES, means, 0.4) == pytest.approx(0.5, abs=0.006)
    # Curves that share no value of the control parameter are not compared.
    assert np.isnan(collapse_spread(WIDTHS, SCALES[:3], means[:, :3], 2.0))


def test_a_steeper_boundary_is_explained_where_signs_alone_flip():
    def reason(network):
        return why_steeper({"traits": traits_record(network)})

    assert "flip" in reason(lz.TwoLayer(8))
    assert "flip" in reason(Centered(lz.TwoLayer(8, symmetric=False)))
    assert not reason(lz.TwoLayer(8, train="both"))
    assert not reason(lz.TwoLayer(8, activation="tanh"))
    assert not reason(lz.MLP(8, train="hidden"))


@pytest.mark.parametrize(
    ("name", "depth", "train", "expected"),
    [
        ("ntk", 1, "both", -0.5),
        ("ntk", 1, "hidden", -0.5),
        ("ntk", 3, "both", -0.5),
        ("mean-field", 1, "both", 0.0),
        ("maximal-update", 2, "both", 0.0),
        # Relative to its size, the readout moves more than the kernel; the measured exponent is -1, not the -3/2 of
        # first order.
        ("standard", 1, "both", np.nan),
        # The kernel does not change if only the readout is trained.
        ("ntk", 1, "readout", np.nan),
    ],
)
def test_the_exponent_of_a_boundary_follows_from_the_parametrization(name, depth, train, expected):
    parametrization = get_parametrization(name)
    # Learning rates scale as 1 / lambda_max, so that what is learned in one step does not depend on the width.
    rates = {"standard": -1.0}.get(name, parametrization.learning_rate * -1.0)
    scaling = Scaling(0.0, 0.0, rates, True, True, train, True, parametrization, depth, (), False)
    np.testing.assert_equal(boundary_exponent(scaling), expected)


def test_a_boundary_is_predicted_of_no_network_that_is_not_known():
    assert np.isnan(boundary_exponent(None))


def test_means_are_of_half_at_least():
    nan = np.nan
    means = mean_of_most(np.array([[1.0, 2, 3, 4], [1, 2, nan, nan], [5, nan, nan, nan], [nan] * 4]))
    np.testing.assert_array_equal(means, [2.5, 1.5, nan, nan])


def test_one_width_collapses_on_nothing():
    means = changes(0.5).mean(axis=-1)[:1]
    assert np.isnan(collapse_spread(WIDTHS[:1], SCALES, means, 0.5))
    assert np.isnan(sharpest_collapse(WIDTHS[:1], SCALES, means, 0.5))
