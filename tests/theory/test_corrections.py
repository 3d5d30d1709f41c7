"""Exponents with their leading correction, on values whose exponents are known and on networks."""

import numpy as np
import pytest

import lazynet as lz
from lazynet.theory import Fit, fit_correction, fit_exponent, seeds_needed

WIDTHS = np.array([64, 128, 256, 512, 1024, 2048, 4096])


def made(p=-0.5, b=-3.0, q=0.5, noise=0.0, seeds=8, seed=0):
    values = 2.0 * WIDTHS**p * (1 + b * WIDTHS**-q)
    random = np.random.default_rng(seed).normal(size=(len(WIDTHS), seeds))
    return values[:, None] * np.exp(noise * random)


@pytest.mark.parametrize(("b", "q"), [(-3.0, 0.5), (5.0, 0.5), (0.0, 0.5), (30.0, 1.0)])
def test_an_exponent_under_a_correction_is_found(b, q):
    found = fit_correction(WIDTHS, made(b=b, q=q), power=q)
    assert found.exponent == pytest.approx(-0.5, abs=0.01)
    assert found.amplitude == pytest.approx(2.0, rel=0.1)
    assert found.correction == pytest.approx(b, abs=0.05 * max(1, abs(b)))
    assert found.at(300.0) == pytest.approx(2 * 300**-0.5 * (1 + b * 300**-q), rel=1e-2)
    if b:
        assert abs(fit_exponent(WIDTHS, made(b=b, q=q)).exponent + 0.5) > 0.05


def test_the_power_is_found_too():
    found = fit_correction(WIDTHS, made(b=60.0, q=1.0), power=None)
    assert found.power == 1.0
    assert found.exponent == pytest.approx(-0.5, abs=0.02)


def test_intervals_cover_the_exponent_about_as_often_as_they_say():
    """Of 60 trials with 16 seeds; with fewer seeds a bootstrap is too narrow, as for slopes."""
    inside = 0
    for trial in range(60):
        found = fit_correction(WIDTHS, made(noise=0.1, seeds=16, seed=trial))
        inside += found.low <= -0.5 <= found.high
    assert inside >= 48


def test_where_nothing_can_be_fitted_nothing_is_said():
    assert np.isnan(fit_correction(WIDTHS[:3], made()[:3]).exponent)
    assert np.isnan(fit_correction(WIDTHS[:4], made()[:4], power=None).exponent)
    assert np.isnan(fit_correction(WIDTHS, -made()).exponent)
    alone = fit_correction(WIDTHS, made(seeds=1))
    assert np.isfinite(alone.exponent)
    assert np.isnan([alone.low, alone.high]).all()


def test_seeds_for_a_wanted_interval():
    few, many = (fit_exponent(WIDTHS, made(noise=0.3, seeds=seeds)) for seeds in (8, 128))
    wanted = (many.high - many.low) / 2
    assert 64 <= seeds_needed(few, 8, wanted) <= 256
    assert seeds_needed(many, 128, wanted) == 128
    with pytest.raises(ValueError, match="half_width is 0"):
        seeds_needed(few, 8, 0.0)
    with pytest.raises(ValueError, match="no interval"):
        seeds_needed(Fit(-0.5, np.nan, np.nan, -0.5), 1, 0.1)


def test_flips_that_are_not_asymptotic_extrapolate_towards_theory():
    """Their slope over these widths is above -0.4; with its correction it comes near -1/2."""
    data = lz.load_dataset("digits", n_train=64, n_test=16)
    widths = [64, 128, 256, 512, 1024, 2048]
    result = lz.sweep(lz.TwoLayer(width=64), data, widths, seeds=8, steps=400, compare=False, snapshots=[400])
    flips = result.activation_flips.isel(step=-1).values
    slope, corrected = fit_exponent(result.width.values, flips), fit_correction(result.width.values, flips)
    assert slope.exponent > -0.45
    assert corrected.low <= -0.45
    assert abs(corrected.exponent + 0.5) < abs(slope.exponent + 0.5)
    verdict = lz.verify(result, corrections=True)
    assert "corrections" in verdict.to_json()
    assert "corrections" not in lz.verify(result).to_json()
    assert verdict.correction("activation_flips") == corrected
    assert "activation_flips" in str(verdict).partition("infinite width")[2]
    with pytest.raises(KeyError, match="sharpness"):
        verdict.correction("sharpness")
