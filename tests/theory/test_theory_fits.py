"""Test fitted exponents of synthetic power laws and verdicts on their confidence intervals."""

import numpy as np
import pytest
import scipy.stats

from lazynet.theory import Fit, fit_exponent, judge
from lazynet.theory._fits import bends_down

WIDTHS = 2.0 ** np.arange(6, 13)


def noisy(exponent, seeds, rng, spread=0.3, widths=WIDTHS):
    """Return a power law times log-normal noise of mean 1."""
    noise = np.exp(spread * rng.normal(size=(len(widths), seeds)) - spread**2 / 2)
    return 3.0 * widths[:, None] ** exponent * noise


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.25])
def test_exact_power_law(exponent):
    fit = fit_exponent(WIDTHS, np.tile(3.0 * WIDTHS[:, None] ** exponent, 4))
    np.testing.assert_allclose(fit, [exponent] * 4, atol=1e-12)


def test_exponent_is_least_squares_of_the_seed_mean():
    values = noisy(-0.5, 5, np.random.default_rng(0))
    fit = fit_exponent(WIDTHS, values)
    expected = np.polyfit(np.log(WIDTHS), np.log(values.mean(axis=1)), 1)[0]
    assert fit.exponent == pytest.approx(expected, abs=1e-12)
    ends = np.log(values[-2:].mean(axis=1))
    assert fit.local == pytest.approx((ends[1] - ends[0]) / np.log(2), abs=1e-12)


def test_interval_is_as_long_as_the_spread_of_the_exponent_demands():
    rng = np.random.default_rng(1)
    fits = [fit_exponent(WIDTHS, noisy(-0.5, 8, rng)) for _ in range(200)]
    width = np.median([fit.high - fit.low for fit in fits])
    sigma = np.std([fit.exponent for fit in fits])
    assert 3.5 * sigma < width < 4.7 * sigma


SPREADS = {
    "equal": np.full(7, 0.3),
    "noisier at one end": np.geomspace(0.1, 0.6, 7),
    "noisier at the other end": np.geomspace(0.6, 0.1, 7),
    "one noisy width": np.array([0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seeds"), [(2, 2), (2, 20), (3, 3), (3, 8), (7, 2), (7, 8)])
@pytest.mark.parametrize("spread", SPREADS)
def test_interval_covers_the_true_exponent(spread, count, seeds):
    """The script scripts/coverage.py checks that at least 90% of 4000 intervals contain the true exponent."""
    chosen = np.round(np.linspace(0, 6, count)).astype(int)
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(300):
        fit = fit_exponent(WIDTHS[chosen], noisy(-0.5, seeds, rng, SPREADS[spread][chosen, None], WIDTHS[chosen]))
        covered += fit.low <= -0.5 <= fit.high
    # At a coverage of 90%, three standard errors of 300 draws are 0.052.
    assert covered >= 0.848 * 300


def test_interval_of_two_widths_is_that_of_welch():
    """Compare with the interval of scipy for the difference of two means with Welch's degrees of freedom."""
    rng = np.random.default_rng(7)
    values = 1e6 + rng.normal(size=(2, 5)) * [[1.0], [3.0]]
    fit = fit_exponent(np.array([1.0, np.e]), values)
    expected = scipy.stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    # For such small relative errors, the logarithm is nearly linear.
    np.testing.assert_allclose(1e6 * np.array([fit.low, fit.high]), expected, rtol=1e-5)


def test_the_order_of_the_widths_does_not_matter():
    values = noisy(-0.5, 4, np.random.default_rng(8))
    order = [3, 0, 6, 2, 5, 1, 4]
    np.testing.assert_allclose(fit_exponent(WIDTHS[order], values[order]), fit_exponent(WIDTHS, values), rtol=1e-12)


@pytest.mark.parametrize(("bend", "expected"), [(-0.3, True), (0.0, False), (0.3, False)])
def test_slopes_that_fall_beyond_their_intervals_bend_down(bend, expected):
    logs = np.log(WIDTHS / WIDTHS[0])
    values = np.exp(bend * logs**2 / 4)[:, None] * noisy(0.0, 8, np.random.default_rng(9), spread=0.05)
    assert bends_down(WIDTHS, values) == expected
    assert not bends_down(WIDTHS[:2], values[:2])
    assert not bends_down(WIDTHS, values[:, :1])


def test_interval_shrinks_with_the_seeds():
    rng = np.random.default_rng(2)
    few, many = (fit_exponent(WIDTHS, noisy(-0.5, seeds, rng)) for seeds in (4, 64))
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_interval_is_the_same_each_time():
    values = noisy(-0.5, 4, np.random.default_rng(3))
    assert fit_exponent(WIDTHS, values) == fit_exponent(WIDTHS, values)


def test_one_seed_has_no_interval():
    fit = fit_exponent(WIDTHS, 2 * WIDTHS[:, None] ** -0.5)
    assert fit.exponent == pytest.approx(-0.5)
    assert np.isnan([fit.low, fit.high]).all()


def test_one_width_has_no_exponent():
    assert np.isnan(fit_exponent(WIDTHS[:1], np.ones((1, 4)))).all()


def test_diverged_members_are_left_out():
    values = np.tile(3.0 * WIDTHS[:, None] ** -0.5, 4)
    values[2, 1] = np.nan
    values[0] = np.nan
    np.testing.assert_allclose(fit_exponent(WIDTHS, values), [-0.5] * 4, atol=1e-12)
    values[:-1] = np.nan
    assert np.isnan(fit_exponent(WIDTHS, values)).all()


def test_a_width_with_a_diverged_member_keeps_its_other_members():
    values = noisy(-0.5, 5, np.random.default_rng(6))
    values[0, 1] = np.nan
    expected = np.polyfit(np.log(WIDTHS), np.log(np.nanmean(values, axis=1)), 1)[0]
    assert fit_exponent(WIDTHS, values).exponent == pytest.approx(expected, abs=1e-12)


def test_a_mean_of_zero_has_no_exponent():
    values = np.ones((len(WIDTHS), 4))
    values[3] = 0
    assert np.isnan(fit_exponent(WIDTHS, values)).all()


@pytest.mark.parametrize(("row", "low", "high"), [(0, False, True), (-1, True, False)])
def test_zeros_make_the_interval_unbounded(row, low, high):
    """Zeros at the smallest width allow any larger exponent, and zeros at the largest width any smaller one."""
    values = noisy(-0.5, 4, np.random.default_rng(4))
    values[row, :3] = 0
    fit = fit_exponent(WIDTHS, values)
    assert np.isfinite(fit.exponent)
    assert (fit.low == -np.inf, fit.high == np.inf) == (low, high)


def test_zeros_at_both_ends_leave_the_exponent_undecided():
    values = noisy(-0.5, 3, np.random.default_rng(5))
    values[[0, -1], :2] = 0
    fit = fit_exponent(WIDTHS, values)
    assert (fit.low, fit.high) == (-np.inf, np.inf)
    assert judge(fit, "equal", -0.5, 0.1) == judge(fit, "at most", -0.5, 0.1) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "equal", "at_most"),
    [
        (-0.58, -0.42, "holds", "holds"),
        (-0.6, -0.4, "holds", "holds"),
        (-0.62, -0.45, "undecided", "holds"),
        (-0.55, -0.35, "undecided", "undecided"),
        (-0.35, -0.30, "fails", "fails"),
        (-0.90, -0.70, "fails", "holds"),
        (-0.90, -0.20, "undecided", "undecided"),
        (-np.inf, -0.45, "undecided", "holds"),
        (-np.inf, -0.70, "fails", "holds"),
        (-0.55, np.inf, "undecided", "undecided"),
        (-0.2, np.inf, "fails", "fails"),
        (np.nan, np.nan, "undecided", "undecided"),
    ],
)
def test_judge(low, high, equal, at_most):
    # Adding 1e-9 protects borderline cases from rounding errors in -0.5 +- 0.1.
    fit = Fit((low + high) / 2, low, high, 0.0)
    assert judge(fit, "equal", -0.5, 0.1 + 1e-9) == equal
    assert judge(fit, "at most", -0.5, 0.1 + 1e-9) == at_most
