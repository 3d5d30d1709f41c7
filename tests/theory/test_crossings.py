"""Test measured and predicted crossings against closed forms, and the coverage of their intervals."""

import numpy as np
import pytest

from lazynet.theory import crossing, fit_correction, predict_crossing

NEIGHBORS = np.array([3000, 3600, 4500])
PILOTS = np.array([64, 128, 256, 512, 1024, 2048])


def noisy(random, widths, means, seeds=8, spread=0.1):
    """Return values at each width and seed with the given means and relative spread."""
    return means[:, None] * np.exp(spread * random.normal(size=(len(widths), seeds)) - spread**2 / 2)


def test_a_power_law_crosses_where_it_equals_the_level():
    means = 7.0 * NEIGHBORS**-0.8
    measured = crossing(NEIGHBORS, means[:, None], level=0.01)
    assert measured.width == pytest.approx((700.0) ** (1 / 0.8), rel=1e-12)
    assert np.isnan([measured.low, measured.high]).all()


def test_the_ends_of_the_interval_are_where_the_interval_of_the_line_meets_the_level():
    import scipy.stats

    widths, random = np.array([3000, 4000]), np.random.default_rng(0)
    values = noisy(random, widths, 40.0 / widths, seeds=30, spread=0.2)
    found, x = crossing(widths, values, level=0.0115), np.log(widths)
    logs = np.log(values.mean(axis=1))
    variances = values.var(axis=1, ddof=1) / 30 / values.mean(axis=1) ** 2
    for end in (found.low, found.high):
        share = (np.log(end) - x[0]) / (x[1] - x[0])
        weights = np.array([1 - share, share])
        parts = weights**2 * variances
        degrees = parts.sum() ** 2 / np.sum(parts**2 / 29)
        half = scipy.stats.t.ppf(0.975, degrees) * parts.sum() ** 0.5
        assert abs(weights @ logs - np.log(0.0115)) == pytest.approx(half, rel=2e-3)
    assert found.low < found.width < found.high


def test_the_closest_third_width_takes_part_if_all_three_are_near():
    widths, means = np.array([1000, 3000, 3600, 4500, 9000]), np.array([0.04, 0.013, 0.011, 0.0092, 0.005])
    three = slice(1, 4)
    line = np.polyfit(np.log(widths[three]), np.log(means[three]), 1)
    expected = np.exp((np.log(0.01) - line[1]) / line[0])
    assert crossing(widths, means[:, None], 0.01).width == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("widths", [[1000, 1700], [1000], [1000, 1200]])
def test_widths_that_are_far_apart_or_on_one_side_have_no_crossing(widths):
    means = np.array([0.02, 0.009])[: len(widths)] * (2 if widths[-1] == 1200 else 1)
    assert np.isnan(crossing(np.array(widths), means[:, None], 0.01)).all()


def test_diverged_networks_have_no_crossing():
    values = np.array([[np.nan, 0.02], [0.009, 0.009]])
    assert np.isnan(crossing(np.array([1000, 1200]), values, 0.01)).all()
    assert np.isnan(predict_crossing(np.array([10, 20, 40, 80]), np.full((4, 2), np.inf), 0.01)).all()


def test_intervals_of_crossings_contain_the_crossing():
    random, inside = np.random.default_rng(1), 0
    for _ in range(200):
        found = crossing(NEIGHBORS, noisy(random, NEIGHBORS, 37.0 / NEIGHBORS), level=0.01)
        inside += found.low <= 3700 <= found.high
    assert inside >= 0.9 * 200


@pytest.mark.parametrize(
    "gap",
    [
        lambda m: 2 * m**-0.5,
        lambda m: 30 / (m + 400.0),
        lambda m: np.exp(-0.5 - 0.1 * np.log(m) - 0.04 * np.log(m) ** 2),
        lambda m: 2 * m**-0.5 * (1 + 4 * m**-0.5),
    ],
    ids=["power law", "bends", "parabola", "correction"],
)
def test_predicted_intervals_contain_the_crossing(gap):
    # The level is reached at twice the largest pilot.
    random, level, draws = np.random.default_rng(2), float(gap(4096.0)), 20
    found = [predict_crossing(PILOTS, noisy(random, PILOTS, gap(PILOTS.astype(float))), level) for _ in range(draws)]
    inside = sum(each.low <= 4096 <= each.high for each in found)
    assert inside >= 0.9 * draws
    assert np.median([each.high / each.low for each in found]) < 3
    assert 0.7 < np.median([each.width for each in found]) / 4096 < 1.4


def test_without_noise_a_power_law_is_extrapolated_exactly_by_both_families():
    values = 2.0 * PILOTS[:, None] ** -0.5 * np.ones((1, 3))
    found = predict_crossing(PILOTS, values, level=0.02)
    # The parabola may bend downward even without noise, because it is allowed an error at the narrower widths.
    assert found.low < found.width <= 10_000 * 1.001
    assert found.high == pytest.approx(10_000, rel=0.01)
    assert fit_correction(PILOTS, values).at(found.high) == pytest.approx(0.02, rel=0.01)


def test_only_the_five_largest_widths_count_and_the_prediction_is_reproducible():
    values = noisy(np.random.default_rng(3), PILOTS, 2.0 * PILOTS**-0.5)
    first = predict_crossing(PILOTS, values, 0.02)
    shuffled = np.random.default_rng(4).permutation(6)
    assert predict_crossing(PILOTS[shuffled], values[shuffled], 0.02) == first
    other = values.copy()
    other[0] *= 5
    assert predict_crossing(PILOTS, other, 0.02) == first


def test_two_or_three_widths_are_extrapolated_by_a_line():
    widths = np.array([64, 128, 256])
    found = predict_crossing(widths, noisy(np.random.default_rng(5), widths, 2.0 * widths**-0.5), 0.05)
    assert found.low < 1600 < found.high
    assert predict_crossing(widths, 2.0 * widths[:, None] ** -0.5, 0.05).width == pytest.approx(1600)
    assert np.isnan(predict_crossing(widths[:1], np.ones((1, 4)), 0.05)).all()


def test_one_seed_and_families_that_disagree_give_no_nan():
    widths = np.array([64, 128, 256, 512])
    assert np.isfinite(predict_crossing(widths, np.array([0.3, 0.22, 0.17, 0.15])[:, None], 0.05).width)
    random = np.random.default_rng(9)
    for _ in range(60):
        means = np.exp(0.3 * random.normal(size=4)) * np.array([0.2, 0.15, 0.1, 0.09])
        found = predict_crossing(widths, noisy(random, widths, means, spread=random.uniform(0.01, 0.5)), 0.05)
        assert 0 <= found.low <= found.high
        assert not np.isnan(found.width)


def test_a_gap_that_levels_off_is_extrapolated_by_a_line_in_place_of_a_parabola():
    means = 0.05 + 10.0 / PILOTS
    found = predict_crossing(PILOTS, noisy(np.random.default_rng(7), PILOTS, means, spread=0.002), 0.04)
    # A power law through the two largest widths, whose errors are smallest, reaches the level later than 8192.
    assert 4096 < found.low < found.width < found.high


def test_ends_of_intervals_may_be_unbounded():
    widths = np.array([3000, 3600])
    found = crossing(widths, noisy(np.random.default_rng(8), widths, np.array([0.0101, 0.0099]), spread=0.5), 0.01)
    if np.isfinite(found.width):
        assert found.low == 0 or np.isinf(found.high)
    wide = crossing(widths, np.array([[0.011, 0.0095], [0.012, 0.0075]]), 0.01)
    assert (wide.low, wide.high) == (0.0, np.inf)


def test_a_gap_that_does_not_fall_crosses_nowhere():
    found = predict_crossing(PILOTS, noisy(np.random.default_rng(6), PILOTS, np.full(6, 0.3)), 0.01)
    assert np.isinf(found.high)
    assert found.width > 1e5


@pytest.mark.parametrize("function", [crossing, predict_crossing])
def test_wrong_levels_are_refused(function):
    for level in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="level must be"):
            function(PILOTS, np.ones((6, 2)), level)
