"""Test fits of exponents with a leading correction, on synthetic values and on networks."""

import numpy as np
import pytest
import scipy.stats
from unchecked import unchecked

import lazynet as lz
from lazynet.studies.sweep._table import corrections_text
from lazynet.theory import Fit, fit_correction, fit_exponent, judge, seeds_needed

WIDTHS = np.array([64, 128, 256, 512, 1024, 2048, 4096])


def synthetic(p=-0.5, b=-3.0, q=0.5, noise=0.0, seeds=8, seed=0):
    values = 2.0 * WIDTHS**p * (1 + b * WIDTHS**-q)
    random = np.random.default_rng(seed).normal(size=(len(WIDTHS), seeds))
    return values[:, None] * np.exp(noise * random)


@pytest.mark.parametrize(("b", "q"), [(-3.0, 0.5), (5.0, 0.5), (0.0, 0.5), (30.0, 1.0), (-7.5, 0.5), (100.0, 0.5)])
def test_the_exponent_under_a_correction_is_recovered(b, q):
    fit = fit_correction(WIDTHS, synthetic(b=b, q=q), power=q)
    assert fit.exponent == pytest.approx(-0.5, abs=1e-6)
    assert fit.amplitude == pytest.approx(2.0, rel=1e-4)
    assert fit.correction == pytest.approx(b, abs=1e-4 * max(1, abs(b)))
    assert fit.at(300.0) == pytest.approx(2 * 300**-0.5 * (1 + b * 300**-q), rel=1e-6)
    assert (fit.low, fit.high) == pytest.approx((fit.exponent,) * 2, abs=1e-9)
    if b:
        assert abs(fit_exponent(WIDTHS, synthetic(b=b, q=q)).exponent + 0.5) > 0.05


def test_the_power_of_the_correction_is_recovered():
    fit = fit_correction(WIDTHS, synthetic(b=60.0, q=1.0), power=None)
    assert fit.power == pytest.approx(1.0, abs=1e-3)
    assert fit.exponent == pytest.approx(-0.5, abs=1e-3)


@pytest.mark.slow
def test_intervals_contain_the_exponent():
    """At least 51 of 60 intervals must contain the exponent, whatever the number of seeds."""
    for seeds in (3, 16):
        fits = [fit_correction(WIDTHS, synthetic(noise=0.05, seeds=seeds, seed=trial)) for trial in range(60)]
        assert sum(fit.low <= -0.5 <= fit.high for fit in fits) >= 51


def test_the_correction_does_not_hide_behind_noise():
    """With noise of 0.5%, all six intervals must contain -1/2, and at most two of them may be unbounded."""
    fits = [fit_correction(WIDTHS, synthetic(b=b, noise=0.005, seed=2)) for b in (-7.0, -2.0, 0.0, 5.0, 20.0, 100.0)]
    assert all(fit.low <= -0.5 <= fit.high for fit in fits)
    assert sum(np.isinf(fit.low) for fit in fits) <= 2


def test_a_short_interval_is_that_of_the_linearized_fit():
    """For little noise, finite-difference derivatives and the variances of the means give the same interval."""
    values = synthetic(b=5.0, noise=1e-4)
    fit, logs, steps = fit_correction(WIDTHS, values), np.log(values), 1e-4

    def model(p, log_a, b):
        return log_a + p * np.log(WIDTHS) + np.log1p(b * WIDTHS**-0.5)

    at = np.array([fit.exponent, np.log(fit.amplitude), fit.correction])
    jacobian = np.stack([(model(*(at + e)) - model(*(at - e))) / (2 * steps) for e in steps * np.eye(3)], axis=1)
    parts = np.linalg.pinv(jacobian)[0] ** 2 * logs.var(axis=1, ddof=1) / logs.shape[1]
    degrees = parts.sum() ** 2 / np.sum(parts**2 / (logs.shape[1] - 1))
    half = scipy.stats.t.ppf(0.975, degrees) * np.sqrt(parts.sum())
    np.testing.assert_allclose([fit.exponent - fit.low, fit.high - fit.exponent], half, rtol=0.01)


def test_means_that_do_not_determine_the_exponent_say_so():
    fit = fit_correction(WIDTHS[:4], synthetic(noise=0.5, seeds=3)[:4])
    assert (fit.low, fit.high) == (-np.inf, np.inf)
    with pytest.raises(ValueError, match=r"^fit must have a bounded confidence interval, got \[-inf, inf\]"):
        seeds_needed(fit, 3, 0.1)
    [row] = corrections_text({"displacement": fit}, 3, 0.1)[-1:]
    assert "not determined" in row


def test_a_fit_that_is_impossible_is_nan():
    assert np.isnan(fit_correction(WIDTHS[:3], synthetic()[:3]).exponent)
    assert np.isnan(fit_correction(WIDTHS[:4], synthetic()[:4], power=None).exponent)
    assert np.isnan(fit_correction(WIDTHS, -synthetic()).exponent)
    single_seed = fit_correction(WIDTHS, synthetic(seeds=1))
    assert np.isfinite(single_seed.exponent)
    assert np.isnan([single_seed.low, single_seed.high]).all()


def test_the_number_of_seeds_for_an_interval():
    few, many = (fit_exponent(WIDTHS, synthetic(noise=0.3, seeds=seeds)) for seeds in (8, 128))
    half_width = (many.high - many.low) / 2
    assert 64 <= seeds_needed(few, 8, half_width) <= 256
    assert seeds_needed(many, 128, half_width) == 128
    with pytest.raises(ValueError, match=r"^half_width must be positive"):
        seeds_needed(few, 8, 0.0)
    with pytest.raises(ValueError, match=r"^fit must have a bounded confidence interval"):
        seeds_needed(Fit(-0.5, np.nan, np.nan, -0.5), 2, 0.1)
    with pytest.raises(ValueError, match=r"^half_width must be large enough"):
        seeds_needed(few, 8, 1e-30)


def test_a_correction_that_rounding_hides_has_a_fit():
    constant = np.ones((4, 2))
    # At this power, the derivative of the squares is rounding noise.
    assert fit_correction(np.array([1, 2, 4, 8]), constant, 0.01).exponent == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match=r"^power must be between 0\.01 and 10, got 1e-300"):
        fit_correction(np.array([1, 2, 4, 8]), constant, 1e-300)
    with pytest.raises(ValueError, match=r"^widths must be distinct"):
        fit_correction(np.array([1, 2, 2, 8]), constant)


@pytest.fixture(scope="module")
def result():
    digits = lz.load_dataset("digits", n_train=16, n_test=4)
    measure = lz.Measure(predictions=False, kernel_drift=False)
    return lz.sweep(lz.TwoLayer(width=64), digits, [8, 32, 64, 256], 63, 50, measure=measure, snapshots=[50])


@pytest.mark.slow
def test_flips_that_are_not_asymptotic_extrapolate_towards_theory(result):
    """The slope of the flips over these widths is above -0.42; the corrected exponent is closer to -1/2."""
    flips = result.activation_flips.isel(step=-1).values
    slope, corrected = fit_exponent(result.width.values, flips), fit_correction(result.width.values, flips)
    assert slope.exponent > -0.42
    assert corrected.low <= -0.45
    assert abs(corrected.exponent + 0.5) < abs(slope.exponent + 0.5)


@pytest.mark.slow
def test_a_verdict_with_corrections(result):
    flips = result.activation_flips.isel(step=-1).values
    verdict = lz.verify(result, corrections=True)
    assert "corrections" in verdict.to_json()
    assert "corrections" not in lz.verify(result).to_json()
    assert verdict.correction("activation_flips") == fit_correction(result.width.values, flips)
    assert "activation_flips" in str(verdict).partition("infinite width")[2]
    with pytest.raises(ValueError, match="sharpness"):
        verdict.correction("sharpness")


@pytest.mark.parametrize("scale", [1e-162, 1e-158, 1e160])
def test_fits_do_not_depend_on_the_units(scale):
    values = synthetic(noise=0.1)
    np.testing.assert_allclose(fit_exponent(WIDTHS, scale * values), fit_exponent(WIDTHS, values), rtol=1e-9)
    np.testing.assert_allclose(
        fit_correction(WIDTHS, scale * values)[:3], fit_correction(WIDTHS, values)[:3], rtol=1e-6
    )


def test_values_of_corrections_and_numbers_of_seeds():
    fit = fit_correction(WIDTHS, synthetic())
    for width in (0, -3, 10**400, "wide", None):
        with unchecked(), pytest.raises(ValueError, match=r"^width must be positive and finite"):
            fit.at(width)
    # One seed has no interval.
    assert (
        seeds_needed(Fit(-0.5, -0.55, -0.45, -0.5), 4, 1.0) == seeds_needed(Fit(-0.5, -0.5, -0.5, -0.5), 4, 0.01) == 2
    )
    with pytest.raises(ValueError, match=r"^fit\.low must be at most fit\.high"):
        judge(Fit(-0.5, -0.4, -0.6, -0.5), "equal", -0.5, 0.02)
