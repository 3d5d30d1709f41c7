"""Test the regime of each width, the answer and its interval against plain loops and against broken gaps."""

import json

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from unchecked import unchecked

import lazynet as lz
from lazynet.experiment._settings import traits_record
from lazynet.studies.sweep._regime import coarse_snapshots
from lazynet.training import snapshot_steps

WIDTHS, STEPS, SEEDS = np.array([128, 512, 2048, 4096]), np.array([0, 1, 10, 100, 1000]), 4
# Suprema at the widths, as fractions of the RMS of the targets.
LEVELS = np.array([0.08, 0.04, 0.02, 0.01])
RMS, TEST_RMS = 2.0, 3.0


def gaps(levels=LEVELS, seeds=SEEDS, noise=0.02):
    """Return gaps of shape (width, seed, step) that grow to the given levels during training."""
    growth = np.array([0, 0.1, 0.2, 0.5, 1.0])
    values = RMS * np.asarray(levels)[:, None, None] * growth
    factors = np.exp(noise * np.random.default_rng(0).normal(size=(len(levels), seeds, 1)))
    return values * factors


def made(linearization=None, kernel=None, **changes):
    """Return a result with the given gaps on the training set, and gaps on the test set that are no larger."""
    linearization = gaps() if linearization is None else linearization
    table = {"linearization_gap_train": linearization, "linearization_gap_test": linearization}
    if kernel is not None:
        table |= {"kernel_gap_train": kernel, "kernel_gap_test": kernel}
    table |= changes
    seeds = linearization.shape[1]
    settings = {"traits": traits_record(lz.TwoLayer(width=2)), "proportional": True}
    result = xr.Dataset(
        {name: (("width", "seed", "step"), values) for name, values in table.items()},
        coords={"width": WIDTHS, "seed": range(seeds), "step": STEPS}
        | {name: ("width", np.ones(4)) for name in ("init_scale", "output_scale", "learning_rate")},
        attrs={"kind": "sweep", "settings": json.dumps(settings)},
    )
    return result.assign_coords(target_rms=RMS, test_target_rms=TEST_RMS)


def statuses(result, **options):
    return [row.status for row in lz.verify(result, **options).regimes if row.prediction == "linearization"]


def test_suprema_and_steps_are_those_of_plain_loops():
    random = np.random.default_rng(1)
    train, test = (random.uniform(0, 0.2, size=(4, SEEDS, 5)) for _ in range(2))
    train[..., 0] = test[..., 0] = 0
    result = made(train, linearization_gap_test=test)
    for row, of_train, of_test in zip(lz.verify(result, 0.04).regimes, train, test, strict=True):
        suprema = [
            max(max(a / RMS, b / TEST_RMS) for a, b in zip(of_train[seed], of_test[seed], strict=True))
            for seed in range(SEEDS)
        ]
        interval = scipy.stats.t.interval(0.95, SEEDS - 1, np.mean(suprema), scipy.stats.sem(suprema))
        np.testing.assert_allclose(row.supremum, np.mean(suprema), rtol=1e-12)
        np.testing.assert_allclose((row.low, row.high), np.maximum(interval, 0), rtol=1e-12)
        assert row.worst == pytest.approx(max(suprema))
        until = {"mean": 0, "low": 0, "high": 0}
        for k, step in enumerate(STEPS):
            running = [
                max(max(a / RMS, b / TEST_RMS) for a, b in zip(of_train[s][: k + 1], of_test[s][: k + 1], strict=True))
                for s in range(SEEDS)
            ]
            half = scipy.stats.t.ppf(0.975, SEEDS - 1) * scipy.stats.sem(running)
            for name, value in (("mean", 0.0), ("low", half), ("high", -half)):
                if np.mean(running) + value <= 0.04:
                    until[name] = max(until[name], step)
        assert (row.until, row.until_low, row.until_high) == (until["mean"], until["low"], until["high"])


def test_the_answer_names_the_width_and_the_level():
    verdict = lz.verify(made(kernel=gaps(2 * LEVELS)))
    assert verdict.answer == (
        "Over 1000 steps the network follows its linearization to 5% from width 512 on (width 128: until step 100); at "
        "width 4096 to 0.98% [0.95, 1.0]. It follows the infinite-width kernel to 5% from width 2048 on; at width 4096 "
        "to 2.0% [1.9, 2.0]. Snapshots are coarse: there is none between steps 1 and 10."
    )
    assert str(verdict).startswith(verdict.answer)
    assert verdict.to_json().count('"lazy"') == 5
    assert verdict._repr_html_().startswith(f"<p><strong>{verdict.answer}</strong></p><pre>")


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.08, 0.05, 0.02, 0.01), ["not lazy", "undecided", "lazy", "lazy"]),
        ((0.08, 0.06, 0.02, 0.01), ["not lazy", "not lazy", "lazy", "lazy"]),
        ((0.08, 0.04, 0.08, 0.01), ["not lazy", "lazy", "not lazy", "lazy"]),
        ((0.08, 0.08, 0.08, 0.08), ["not lazy"] * 4),
        ((0.01, 0.08, 0.01, 0.08), ["lazy", "not lazy", "lazy", "not lazy"]),
    ],
)
def test_larger_gaps_are_told(levels, expected):
    result = made(gaps(levels))
    assert statuses(result) == expected
    answer = lz.verify(result).answer
    claims = {"lazy": "follows its linearization to 5% from width ", "not lazy": "does not follow its linearization"}
    assert claims[expected[-1]] in answer
    if expected[1] == "lazy":
        assert "from width 4096 on (width 2048: until step 100)" in answer


def test_one_seed_decides_nothing():
    verdict = lz.verify(made(gaps(seeds=1)))
    assert {row.status for row in verdict.regimes} == {"undecided"}
    assert verdict.regimes[0].until_low is None
    assert (
        "may or may not follow its linearization to 5% at width 4096 (narrower widths: undecided); the largest gap"
        in verdict.answer
    )
    assert "[" not in verdict.answer


@pytest.mark.parametrize("seeds", [1, SEEDS])
def test_a_diverged_seed_makes_its_width_not_lazy(seeds):
    values = gaps(seeds=seeds)
    values[2, 0, 3:] = np.nan
    row = lz.verify(made(values), 0.9).regimes[2]
    assert (row.status, row.supremum, row.worst, row.until) == ("not lazy", np.inf, np.inf, 10)


def test_wrong_tolerances_are_refused():
    for tolerance in (0, 1, -0.1, float("nan"), "5%", True):
        with unchecked(), pytest.raises(ValueError, match=r"^tolerance must be a positive number below 1"):
            lz.verify(made(), tolerance)
    alone = made().drop_vars(["linearization_gap_train", "linearization_gap_test"])
    assert lz.verify(alone).answer == "No answer: the result has no predictions."
    with pytest.raises(ValueError, match=r"^tolerance must be omitted, because the result has no predictions"):
        lz.verify(alone, 0.05)


def test_snapshots_after_a_stop_do_not_count():
    values = gaps()
    values[3, 0, 3:] = 9.0
    stopped = np.full((4, SEEDS), 1000)
    stopped[3, 0] = 57
    result = made(values).assign(stopped_step=(("width", "seed"), stopped))
    row = lz.verify(result).regimes[3]
    own = values[3] / RMS
    assert row.supremum == pytest.approx(np.mean([own[0, 2], *own[1:, 4]]))
    assert (row.status, row.last, row.stopped) == ("lazy", 1000, True)
    assert lz.verify(result).answer.startswith("Over up to 1000 steps, until training stopped, the network follows")
    everywhere = lz.verify(result.assign(stopped_step=(("width", "seed"), np.full((4, SEEDS), 57))))
    assert {row.last for row in everywhere.regimes} == {10}
    assert everywhere.answer.startswith("Over up to 10 steps, until training stopped, the network follows")


def test_a_network_that_diverged_between_snapshots_is_not_lazy():
    values = gaps()
    values[3, 0, 3:] = np.nan
    stopped = np.full((4, SEEDS), 1000)
    stopped[3, 0] = 57
    row = lz.verify(made(values).assign(stopped_step=(("width", "seed"), stopped))).regimes[3]
    assert (row.status, row.supremum, row.last) == ("not lazy", np.inf, 1000)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (snapshot_steps(1000, 20), None),
        (snapshot_steps(10, 20), None),
        ([0, 1, 2, 3, 5, 8, 13], None),
        ([0, 1, 10, 100, 1000], (1, 10)),
        ([0, 1000], (0, 1000)),
        ([100, 150], (0, 100)),
    ],
)
def test_coarse_snapshots(steps, expected):
    assert coarse_snapshots(np.array(steps)) == expected


@pytest.mark.slow
def test_the_answer_of_a_sweep_uses_the_targets_of_each_part():
    data = lz.load_dataset("digits", n_train=16, n_test=6)
    data = lz.Dataset(data.x_train, data.y_train, data.x_test, 3 * data.y_test)
    result = lz.sweep(lz.TwoLayer(width=2), data, [8, 64], seeds=3, steps=20, progress=False)
    assert float(result.test_target_rms) == 3
    for row in lz.verify(result).regimes:
        gap = {"linearization": "linearization_gap", "infinite_width": "kernel_gap"}[row.prediction]
        at = result.sel(width=row.width)
        suprema = np.maximum(at[f"{gap}_train"].max("step"), at[f"{gap}_test"].max("step") / 3)
        assert row.supremum == pytest.approx(float(suprema.mean()))
    old = result.drop_vars("test_target_rms")
    assert lz.verify(old).answer.startswith("No answer: the result lacks the coordinate test_target_rms")
    with pytest.raises(ValueError, match=r"^tolerance must be omitted, because the result lacks the coordinate"):
        lz.verify(old, 0.1)
    alone = lz.verify(result.drop_vars(["linearization_gap_train", "linearization_gap_test"]))
    assert alone.answer.startswith("Over 20 steps the network")
    assert "linearization" not in alone.answer
    assert {row.prediction for row in alone.regimes} == {"infinite_width"}
