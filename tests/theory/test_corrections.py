"""Exponents with their leading correction, on synthetic values and on networks."""

import numpy as np
import pytest

import lazynet as lz
from lazynet.theory import Fit, fit_correction, fit_exponent, seeds_needed

WIDTHS = np.array([64, 128, 256, 512, 1024, 2048, 4096])


def synthetic(p=-0.5, b=-3.0, q=0.5, noise=0.0, seeds=8, seed=0):
    values = 2.0 * WIDTHS**p * (1 + b * WIDTHS**-q)
    random = np.random.default_rng(seed).normal(size=(len(WIDTHS), seeds))
    return values[:, None] * np.exp(noise * random)


@pytest.mark.parametrize(("b", "q"), [(-3.0, 0.5), (5.0, 0.5), (0.0, 0.5), (30.0, 1.0)])
def test_the_exponent_under_a_correction_is_recovered(b, q):
    fit = fit_correction(WIDTHS, synthetic(b=b, q=q), power=q)
    assert fit.exponent == pytest.approx(-0.5, abs=0.01)
    assert fit.amplitude == pytest.approx(2.0, rel=0.1)
    assert fit.correction == pytest.approx(b, abs=0.05 * max(1, abs(b)))
    assert fit.at(300.0) == pytest.approx(2 * 300**-0.5 * (1 + b * 300**-q), rel=1e-2)
    if b:
        assert abs(fit_exponent(WIDTHS, synthetic(b=b, q=q)).exponent + 0.5) > 0.05


def test_the_power_of_the_correction_is_recovered():
    fit = fit_correction(WIDTHS, synthetic(b=60.0, q=1.0), power=None)
    assert fit.power == 1.0
    assert fit.exponent == pytest.approx(-0.5, abs=0.02)


def test_intervals_contain_the_exponent():
    """At least 24 of 30 intervals with 16 seeds must; with fewer seeds, bootstrap intervals are too narrow."""
    inside = 0
    for trial in range(30):
        fit = fit_correction(WIDTHS, synthetic(noise=0.1, seeds=16, seed=trial))
        inside += fit.low <= -0.5 <= fit.high
    assert inside >= 24


def test_the_interval_has_tails_of_two_and_a_half_percent():
    """One of three seeds is larger at the largest width. A bootstrap sample repeats it 3 times with probability 1/27.

    This is more than 2.5% and less than 5%, so a 95% interval reaches to samples of 3 repetitions, and a 90% interval
    only to samples of 2. The other end, without the larger seed, has probability 8/27.
    """
    values = synthetic(seeds=3)
    values[-1, 0] *= 1.05
    fit = fit_correction(WIDTHS, values)
    ends = [fit_correction(WIDTHS, values[:, [i]]).exponent for i in (1, 0)]
    assert ends[0] < fit.exponent < ends[1]
    assert [fit.low, fit.high] == pytest.approx(ends, abs=1e-9)


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
    with pytest.raises(ValueError, match=r"^fit must have a confidence interval"):
        seeds_needed(Fit(-0.5, np.nan, np.nan, -0.5), 1, 0.1)


@pytest.fixture(scope="module")
def result():
    digits, measure = (
        lz.load_dataset("digits", n_train=64, n_test=16),
        lz.Measure(predictions=False, kernel_drift=False),
    )
    return lz.sweep(lz.TwoLayer(width=64), digits, [64, 128, 512, 1024], 8, 400, measure=measure, snapshots=[400])


@pytest.mark.slow
def test_flips_that_are_not_asymptotic_extrapolate_towards_theory(result):
    """Their slope over these widths is above -0.45; the corrected exponent is closer to -1/2."""
    flips = result.activation_flips.isel(step=-1).values
    slope, corrected = fit_exponent(result.width.values, flips), fit_correction(result.width.values, flips)
    assert slope.exponent > -0.45
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
    with pytest.raises(KeyError, match="sharpness"):
        verdict.correction("sharpness")
