"""Test verdicts on synthetic results whose exponents and statuses are known."""

import json

import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet.experiment._settings import traits_record
from lazynet.theory import fit_exponent, judge

WIDTHS, STEPS, SEEDS = np.array([256, 1024, 4096]), np.array([0, 1, 10, 100]), 8
BOUNDED = ("max_neuron_displacement", "activation_flips", "kernel_drift")
GAPS = tuple(f"{gap}_gap_{part}" for gap in ("linearization", "start", "kernel") for part in ("train", "test"))


def power(exponent, level=1.0, noise=0.02, seed=0):
    """Return noisy values level * m^exponent, zero at the first step, of shape (width, seed, step)."""
    exponents = np.broadcast_to(exponent, len(STEPS))
    values = level * WIDTHS[:, None, None] ** exponents * np.ones((1, SEEDS, 1))
    values = values * np.exp(noise * np.random.default_rng(seed).normal(size=values.shape))
    values[..., 0] = 0
    return values


def made(**changes):
    """Return a result in which every prediction of NTK scaling holds, after replacing the given variables."""
    members = {"displacement": power(0.0), "relative_displacement": power(-0.5)}
    members |= {name: power(-0.5, seed=i) for i, name in enumerate((*BOUNDED, *GAPS))}
    members |= {name: values for name, values in changes.items() if np.ndim(values) == 3}
    table = {name: (("width", "seed", "step"), values) for name, values in members.items()}
    table["initial_kernel_error"] = (("width", "seed"), power(-0.5, seed=50)[..., 1])
    table["linearized_displacement"] = ("step", np.array([0, 1.1, 1.1, 1.1]))
    table["lemma_bound"] = (("width", "seed"), np.full((3, SEEDS), 200.0))
    table["path_bound"] = (("width", "seed", "step"), np.full((3, SEEDS, 4), 1.0))
    table |= {name: value for name, value in changes.items() if np.ndim(value) != 3}
    scales = {name: ("width", np.ones(3)) for name in ("init_scale", "output_scale", "learning_rate")}
    result = xr.Dataset(table, coords={"width": WIDTHS, "seed": range(SEEDS), "step": STEPS, **scales})
    settings = {"traits": traits_record(lz.TwoLayer(width=2)), "optimizer": "sgd", "proportional": True}
    result.attrs = {"kind": "sweep", "settings": json.dumps(settings)}
    return result.assign_coords(target_rms=2.0)


def test_everything_holds():
    verdict = lz.verify(made())
    assert len(verdict.rows) == 12
    assert {row.status for row in verdict.rows} == {"holds"}
    assert isinstance(verdict, lz.Verdict)
    assert verdict.passed
    assert verdict.widths == (256, 1024, 4096)
    assert verdict.seeds == SEEDS


@pytest.mark.parametrize("quantity", ["displacement", "relative_displacement"])
def test_an_equal_row_that_fails_fails_the_check(quantity):
    verdict = lz.verify(made(**{quantity: power(-0.25, level=0.5)}))
    assert verdict.row(quantity).status == "fails"
    assert verdict.row(quantity).note == ""
    assert not verdict.passed
    assert "not asymptotic" not in str(verdict)


def test_an_at_most_row_that_fails_says_so_only_if_its_slope_bends_towards_the_prediction():
    """A power law with another exponent fails at all widths; one with a correction may hold at larger widths."""
    falling = np.array([1.0, 4**-0.1, 4**-0.5])[:, None, None]
    for flips, bends in ((power(-0.25), False), (power(0.0) * falling, True), (power(-0.5) / falling, False)):
        verdict = lz.verify(made(activation_flips=flips))
        row = verdict.row("activation_flips")
        assert (row.status, row.bends) == ("fails", bends)
        assert (f"not asymptotic at these widths (local {row.local:+.2f})" in str(verdict)) == bends
        assert verdict.passed


def test_wide_intervals_are_undecided():
    verdict = lz.verify(made(displacement=power(0.0, level=0.5, noise=1.0)))
    row = verdict.row("displacement")
    assert row.high - row.low > 0.2
    assert row.status == "undecided"


def test_gaps_take_the_maximum_and_movement_the_last_step():
    exponents = np.array([0, -0.5, -0.5, -0.1])
    falling = power(exponents) * np.array([0, 1, 100, 1e-4])
    verdict = lz.verify(made(kernel_gap_train=falling, kernel_drift=falling))
    gap, drift = verdict.row("kernel_gap_train"), verdict.row("kernel_drift")
    assert (gap.reduction, drift.reduction) == ("maximum", "last")
    assert gap.fitted == pytest.approx(-0.5, abs=0.03)
    assert drift.fitted == pytest.approx(-0.1, abs=0.03)
    assert (gap.status, drift.status) == ("holds", "fails")
    assert verdict.row("initial_kernel_error").reduction == "start"
    level = falling[-1].max(axis=-1).mean() / 2.0
    assert verdict.levels["kernel_gap_train"] == pytest.approx(level)
    assert verdict.levels["kernel_drift"] == pytest.approx(falling[-1, :, -1].mean())


@pytest.mark.parametrize(
    ("exponents", "held"),
    [((-0.5, -0.5, -0.5), 100), ((-0.5, -0.5, -0.1), 10), ((-0.5, -0.1, -0.5), 1), ((-0.1, -0.5, -0.5), None)],
)
def test_last_step_held_is_contiguous_from_the_first(exponents, held):
    values = power(np.array([0, *exponents]))
    row = lz.verify(made(activation_flips=values)).row("activation_flips")
    assert row.last_step_held == held
    assert [fit.step for fit in row.by_step] == [1, 10, 100]
    for i, fit in enumerate(row.by_step, start=1):
        expected = fit_exponent(WIDTHS, values[..., i])
        assert (fit.fitted, fit.low, fit.high) == expected[:3]
        assert fit.status == judge(expected, "at most", -0.5, 0.1)


def test_the_band_decides():
    result = made(displacement=power(0.2, level=0.05))
    assert lz.verify(result).row("displacement").status == "fails"
    wide = lz.verify(result, band=0.3)
    assert wide.row("displacement").status == "holds"
    assert wide.row("displacement").band == 0.3


@pytest.mark.parametrize("band", [0.0, -0.1, np.nan, np.inf])
def test_a_band_must_be_positive_and_finite(band):
    with pytest.raises(ValueError, match=r"^band must be positive and finite"):
        lz.verify(made(), band=band)


def test_one_seed_is_undecided():
    verdict = lz.verify(made().isel(seed=[0]))
    assert {row.status for row in verdict.rows} == {"undecided"}
    assert verdict.row("displacement").fitted == pytest.approx(0, abs=0.05)
    assert "none" in str(verdict)


def test_one_width_has_levels_alone():
    verdict = lz.verify(made().isel(width=[-1]))
    assert verdict.rows == ()
    assert verdict.levels == lz.verify(made()).levels


def test_diverged_members_do_not_count():
    """A member that is NaN from some step on must not contribute its maximum over earlier steps."""
    values = power(-0.5)
    before = lz.verify(made(kernel_gap_train=values)).row("kernel_gap_train")
    values[0, 3, 1] = 1e6
    values[0, 3, 2:] = np.nan
    after = lz.verify(made(kernel_gap_train=values)).row("kernel_gap_train")
    assert after.status == "undecided"
    assert after.fitted == pytest.approx(before.fitted, abs=0.02)


def test_a_width_that_diverged_whole_is_left_out():
    values = power(0.0)
    values[0] = np.nan
    row = lz.verify(made(displacement=values)).row("displacement")
    assert row.status == "undecided"
    assert row.fitted == pytest.approx(0.0, abs=0.02)


def test_unknown_row():
    with pytest.raises(ValueError, match=r"^quantity must be one of displacement, .*, got 'nothing'"):
        lz.verify(made()).row("nothing")


def test_json_has_all_of_it():
    verdict = lz.verify(made(activation_flips=power(-0.25)).isel(seed=[0, 1]))
    record = json.loads(verdict.to_json())
    assert set(record) == {
        "rows",
        "inequalities",
        "levels",
        "band",
        "widths",
        "seeds",
        "diverged",
        "forecasts",
        "passed",
    } | {
        "regimes",
        "tolerance",
        "steps",
        "answer",
        "verified",
    }
    assert record["verified"] is None
    row = record["rows"][0]
    assert set(row) == {
        *("quantity", "relation", "predicted", "fitted", "low", "high", "local"),
        *("band", "reduction", "status", "last_step_held", "by_step", "bends"),
    }
    assert row["quantity"] == "displacement"
    assert row["fitted"] == verdict.rows[0].fitted
    assert set(row["by_step"][0]) == {"step", "fitted", "low", "high", "status"}
    assert set(record["inequalities"][0]) >= {"name", "left", "right", "ratio", "status"}
    assert record["levels"] == verdict.levels
    one = lz.verify(made().isel(seed=[0])).to_json()
    assert "NaN" not in one
    assert json.loads(one)["rows"][0]["low"] is None


def test_table_says_it_all():
    text = str(lz.verify(made(activation_flips=power(-0.25))))
    for word in ("relative_displacement", "<= -0.50", "maximum", "holds", "Levels at width 4096", "Lemma C.1"):
        assert word in text


def named(result, word):
    return next(i for i in lz.verify(result).inequalities if word in i.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "bound"),
    [("linearized", "linearized_displacement"), ("Lemma", "lemma_bound"), ("path", "path_bound")],
)
def test_a_bound_below_the_measurement_fails(word, bound):
    result = made()
    assert named(result, word).status == "holds"
    ratio = named(result, word).ratio
    assert ratio > 1
    small = result.assign({bound: result[bound] / ratio * 0.99})
    assert named(small, word).status == "fails"
    assert named(small, word).ratio == pytest.approx(0.99)
    assert not lz.verify(small).passed
    just = result.assign({bound: result[bound] / ratio * 1.01})
    assert named(just, word).status == "holds"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "bound"),
    [("linearized", "linearized_displacement"), ("Lemma", "lemma_bound"), ("path", "path_bound")],
)
def test_real_bounds_hold_and_shrunk_ones_fail(word, bound, real):
    found = named(real, word)
    assert found.status == "holds"
    assert named(real.assign({bound: real[bound] / (1.001 * found.ratio)}), word).status == "fails"


@pytest.fixture(scope="module")
def real():
    data = lz.load_dataset("digits", n_train=32, n_test=8)
    return lz.sweep(lz.TwoLayer(width=64), data, [64, 256], 2, 30)


@pytest.mark.slow
def test_the_path_bound_is_an_equality_on_one_example():
    """On one example, all steps of a unit are parallel, so the bound is an equality; rounding must not break it."""
    data = lz.Dataset(np.array([[0.6, 0.8]]), np.array([1.0]))
    found = named(lz.sweep(lz.TwoLayer(width=64), data, [64], 2, 20), "path")
    assert found.ratio == pytest.approx(1, abs=1e-5)
    assert found.status == "holds"


def test_first_inequality_is_for_seed_means_at_widths_from_256():
    """A single seed or a narrower width may exceed the bound; the mean over seeds at widths from 256 on may not."""
    values = power(0.0)
    values[:, 0] *= 1.2
    assert named(made(displacement=values), "linearized").status == "holds"
    values = power(0.0)
    values[1, :, 2] = 1.1 * 1.05 * 1.01
    found = named(made(displacement=values), "linearized")
    assert found.status == "fails"
    assert found.right == pytest.approx(1.1 * 1.05)
    narrow = made(displacement=values)
    assert named(narrow.assign_coords(width=[64, 128, 255]), "linearized").status == "undecided"


def test_vacuous_is_more_than_a_hundred():
    result = made()
    ratio = named(result, "Lemma").ratio
    assert named(result, "Lemma").note == "vacuous"
    assert named(result.assign(lemma_bound=result.lemma_bound / ratio * 99), "Lemma").note == ""
    assert "vacuous" in str(lz.verify(result))


def test_a_bound_that_needs_an_inverse_that_is_not_there_is_undecided():
    result = made()
    found = named(result.assign(lemma_bound=result.lemma_bound * np.nan), "Lemma")
    assert found.status == "undecided"
    assert lz.verify(result.assign(lemma_bound=result.lemma_bound * np.nan)).passed
    assert not [i for i in lz.verify(result.drop_vars("path_bound")).inequalities if "path" in i.name]


def test_a_row_that_lost_members_is_not_said_to_hold():
    gap = power(-0.5)
    gap[1, 3, 2:] = np.nan
    status = np.zeros((3, SEEDS), np.int8)
    status[1, 3] = 1
    result = made(kernel_gap_train=gap)
    result["status"] = ("width", "seed"), status
    verdict = lz.verify(result)
    assert verdict.row("kernel_gap_train").status == "undecided"
    assert verdict.row("kernel_gap_train").last_step_held == 1
    assert verdict.row("kernel_gap_test").status == "holds"
    assert verdict.diverged == ((WIDTHS[1], 3),)
    assert not verdict.passed
    assert "1 of 24 members diverged" in str(verdict)
    assert "diverged" not in str(lz.verify(made()))


def test_gaps_of_zero_targets_have_no_level():
    result = made().assign_coords(target_rms=0.0)
    assert np.isnan(lz.verify(result).levels["kernel_gap_train"])


def test_withheld_predictions_are_said_to_be():
    result = made()
    result.attrs["settings"] = result.attrs["settings"].replace('"proportional": true', '"proportional": false')
    assert "no other exponent is predicted" in str(lz.verify(result))
    decay = made()
    decay.attrs["settings"] = json.dumps(json.loads(decay.attrs["settings"]) | {"weight_decay": 0.1})
    assert [row.quantity for row in lz.verify(decay).rows] == ["initial_kernel_error"]
    assert "no other exponent" not in str(lz.verify(made()))


@pytest.mark.parametrize(
    ("bias_scale", "scaled", "predicted"), [(0.0, True, True), (0.1, True, False), (0.1, False, True)]
)
def test_nothing_is_predicted_if_the_weights_but_not_the_biases_scale_with_the_width(bias_scale, scaled, predicted):
    """The function relu(kappa w.x + b) is kappa relu(w.x) only if b = 0."""
    network = lz.MLP(width=2, depth=1, train="hidden", bias_scale=bias_scale)
    result = made().assign_coords(init_scale=("width", WIDTHS ** (-0.25 if scaled else 0.0)))
    result.attrs["settings"] = json.dumps(json.loads(result.attrs["settings"]) | {"traits": traits_record(network)})
    assert bool(lz.verify(result).rows) == predicted
