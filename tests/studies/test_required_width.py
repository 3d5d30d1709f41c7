"""Test the search for the required width, on simulated gaps and on small networks."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from unchecked import unchecked

import lazynet as lz
from lazynet import cli
from lazynet.studies.required_width import _api as api
from lazynet.studies.required_width import _settings as settings
from lazynet.studies.required_width._run import MOST_TRAINED
from lazynet.studies.required_width._search import Goal, first_lazy, next_width, rounded
from lazynet.studies.sweep._regime import WidthRegime
from lazynet.theory import Crossing, crossing, predict_crossing

DATA = lz.load_dataset("digits", n_train=32, n_test=8)
NETWORK = lz.TwoLayer(width=2)
PILOTS = [16, 32, 64, 128]
# The gap falls to this tolerance beyond the largest pilot.
OPTIONS = {"tolerance": 0.026, "seeds": 4, "steps": 20, "pilots": PILOTS, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("width") / "run"


@pytest.fixture(scope="module")
def found(folder):
    return lz.required_width(NETWORK, DATA, out=folder, **OPTIONS)


def regime(width, mean, error, tolerance):
    low, high = mean - error, mean + error
    status = "lazy" if high <= tolerance else "not lazy" if low > tolerance else "undecided"
    return WidthRegime("linearization", width, mean, low, high, high, 0, 0, 0, 10, False, status)


@pytest.mark.parametrize("predicted", [0.5, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("exponent", [-0.35, -0.7, -1.0])
@pytest.mark.parametrize("spread", [0.02, 0.05])
def test_the_search_brackets_the_crossing_and_ends_close_to_it(predicted, exponent, spread):
    random, goal, true = np.random.default_rng(0), Goal(0.01, "linearization", 10**6), 4200

    def trained(width):
        mean = 0.01 * (width / true) ** exponent * np.exp(0.3 * spread * random.normal())
        return regime(width, mean, spread * mean, 0.01)

    rows = [trained(width) for width in (512, 1024, 2048)]
    guess = Crossing(predicted * true, np.nan, np.nan)
    rounds = 0
    while (width := next_width(rows, guess, goal)) is not None:
        assert width not in [row.width for row in rows]
        rows = sorted([*rows, trained(width)], key=lambda row: row.width)
        rounds += 1
    assert rounds <= MOST_TRAINED
    required = rows[first_lazy(rows)]
    assert required.high <= 0.01
    # The upper end of the interval must be within the tolerance.
    assert true <= required.width <= 1.3 * true * (1 + spread) ** (-1.3 / exponent)
    widths = np.array([row.width for row in rows])
    assert np.isfinite(crossing(widths, np.array([[row.supremum] for row in rows]), 0.01).width)


def test_the_search_stays_within_the_largest_width():
    rows = [regime(width, 4.2 / width, 0.1 / width, 0.001) for width in (512, 1024)]
    guess = Crossing(4200.0, 3000.0, 6000.0)
    assert next_width(rows, guess, Goal(0.001, "linearization", 4001)) is None
    assert next_width(rows, guess, Goal(0.001, "linearization", 4251)) == 4250


def test_widths_are_rounded_to_even_numbers():
    assert [rounded(width) for width in (1.2, 17.0, 100.0, 4190.0, 11_100.0)] == [2, 16, 100, 4224, 11_008]
    assert rounded(math.inf) == rounded(1e15)


@pytest.mark.slow
def test_the_networks_are_those_of_a_sweep_with_one_learning_rate(found):
    widths = found.width.values
    assert set(PILOTS) < set(widths.tolist())
    rate = 1 / np.linalg.eigvalsh(lz.analytic_kernel(NETWORK)(DATA.x_train))[-1]
    np.testing.assert_allclose(found.learning_rate, rate, rtol=1e-12)
    sweep = lz.sweep(
        NETWORK,
        DATA,
        widths.tolist(),
        4,
        20,
        learning_rate=float(found.learning_rate[0]),
        measure=lz.Measure(kernel_drift=False),
    )
    for name in ("train_loss", "linearization_gap_train", "kernel_gap_test", "status"):
        np.testing.assert_array_equal(found[name], sweep[name])
    # A verdict on the sweep gives the same regimes.
    regimes = [row for row in lz.verify(sweep, 0.026).regimes if row.prediction == "linearization"]
    assert lz.verify(found).regimes == tuple(regimes)
    lazy = [row.width for row in regimes if row.high <= 0.026]
    assert int(found.required_width) == min(lazy)
    assert lazy == widths[widths >= min(lazy)].tolist()
    assert found.pilot.values.tolist() == [int(width in PILOTS) for width in widths]


@pytest.mark.slow
def test_predictions_and_crossings_are_those_of_the_suprema(found):
    parts = [found[f"linearization_gap_{part}"] / found[rms] for part, rms in api_parts()]
    suprema = np.maximum(*parts).max("step").values
    is_pilot = found.pilot.values == 1
    expected = predict_crossing(found.width.values[is_pilot], suprema[is_pilot], 0.026)
    assert tuple(float(found[f"predicted_width{end}"]) for end in ("", "_low", "_high")) == expected
    measured = crossing(found.width.values, suprema, 0.026)
    assert tuple(float(found[f"crossing{end}"]) for end in ("", "_low", "_high")) == measured
    assert np.isfinite(measured.width)


def api_parts():
    return (("train", "target_rms"), ("test", "test_target_rms"))


@pytest.mark.slow
def test_the_answer_names_the_widths(found):
    verdict = lz.verify(found)
    assert verdict.answer.startswith(
        f"Over 20 steps the network follows its linearization to 2.6% from width {int(found.required_width)} on"
    )
    assert "The mean gap equals the tolerance at width" in verdict.answer
    assert f"; at width {int(found.required_width)} to " in verdict.answer
    assert f"From widths up to 128, {int(float(f'{float(found.predicted_width):.3g}'))} [" in verdict.answer
    assert "Width exponents" not in str(verdict)
    assert verdict.lazy
    with pytest.raises(ValueError, match="tolerance must be omitted"):
        lz.verify(found, 0.1)


@pytest.mark.slow
def test_the_figure_is_drawn(found):
    figure = lz.plot(found)
    assert len(figure.axes) == 2
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[-2:] == ["pilots", "trained later"]
    assert "Over 20 steps the network follows its linearization" in figure.get_suptitle().replace("\n", " ")


@pytest.mark.slow
def test_the_prediction_is_stored_before_wider_networks_are_trained(tmp_path, monkeypatch, found):
    run, seen = settings.run, []

    def watched(study, folder, progress):
        seen.append((study.spec.widths[0], (tmp_path / "run/prediction-linearization-0.026.json").exists()))
        return run(study, folder, progress)

    monkeypatch.setattr(settings, "run", watched)
    again = lz.required_width(NETWORK, DATA, out=tmp_path / "run", **OPTIONS)
    assert [stored for _, stored in seen] == [False] * len(PILOTS) + [True] * (len(seen) - len(PILOTS))
    assert len(seen) > len(PILOTS)
    xr.testing.assert_identical(again.drop_attrs(), found.drop_attrs())
    content = json.loads((tmp_path / "run/prediction-linearization-0.026.json").read_text())
    assert content["width"] == float(found.predicted_width)
    assert content["pilots"] == PILOTS


@pytest.mark.whole
def test_a_search_that_runs_out_of_time_resumes_to_the_same_result(tmp_path, found, monkeypatch):
    with pytest.raises(TimeoutError):
        lz.required_width(NETWORK, DATA, out=lz.RunFolder(tmp_path / "run", max_seconds=1e-6), **OPTIONS)
    run, trained = settings.run, []

    def stopped(study, folder, progress):
        trained.append(study.spec.widths[0])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return run(study, folder, progress)

    resumed = lz.RunFolder(tmp_path / "run", resume=True)
    monkeypatch.setattr(settings, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        lz.required_width(NETWORK, DATA, out=resumed, **OPTIONS)
    again = lz.required_width(NETWORK, DATA, out=resumed, **OPTIONS)
    xr.testing.assert_identical(again.drop_attrs(), found.drop_attrs())
    stored = xr.load_dataset(tmp_path / "run/result.nc", engine="h5netcdf")
    xr.testing.assert_identical(stored.drop_attrs(), found.drop_attrs())


@pytest.mark.slow
def test_another_tolerance_uses_the_trained_networks_again(folder, found, monkeypatch):
    cells = {path: path.stat().st_mtime_ns for path in folder.rglob("cells/*.npz")}
    looser = OPTIONS | {"tolerance": 0.06}
    result = lz.required_width(NETWORK, DATA, out=lz.RunFolder(folder, resume=True), **looser)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("cells/*.npz")}
    assert cells.items() <= after.items()
    assert result.attrs["tolerance"] == 0.06
    assert float(result.crossing) < float(found.crossing)
    with pytest.raises(ValueError, match="has steps = 20 instead of 21"):
        lz.required_width(NETWORK, DATA, out=lz.RunFolder(folder, resume=True), **OPTIONS | {"steps": 21})


def test_a_smallest_pilot_that_is_lazy_is_the_answer():
    result = lz.required_width(NETWORK, DATA, 0.9, **{k: v for k, v in OPTIONS.items() if k != "tolerance"})
    assert result.width.values.tolist() == [16]
    assert int(result.required_width) == 16
    assert np.isnan(float(result.predicted_width))
    assert lz.verify(result).answer.endswith("No narrower width was trained.")


def test_a_width_beyond_the_largest_is_predicted_and_not_verified():
    result = lz.required_width(NETWORK, DATA, max_width=128, **OPTIONS | {"tolerance": 0.01})
    assert result.width.values.tolist() == PILOTS
    assert np.isnan(float(result.required_width))
    assert float(result.predicted_width) > 128
    answer = lz.verify(result).answer
    assert answer.startswith(
        "Over 20 steps the network is predicted to follow its linearization to 1% from about width "
    )
    assert answer.endswith("This is not verified, because the predicted width exceeds max_width = 128.")


@pytest.mark.slow
def test_too_little_memory_is_named(monkeypatch):
    check = settings.check_memory_of

    def refuse(spec):
        if spec.widths[-1] > 128:
            raise ValueError("Training 4 networks needs 1 TB of memory.")
        check(spec)

    monkeypatch.setattr(settings, "check_memory_of", refuse)
    result = lz.required_width(NETWORK, DATA, **OPTIONS)
    assert "does not fit in memory: Training 4 networks needs 1 TB of memory." in lz.verify(result).answer


@pytest.mark.slow
def test_mean_field_networks_say_that_the_gap_does_not_fall():
    network = lz.TwoLayer(width=2, output_scale=lambda width: width**-0.5)
    result = lz.required_width(network, DATA, **OPTIONS | {"learning_rate": lambda width: 0.2 * width})
    answer = lz.verify(result).answer
    assert answer.startswith(
        "No width is predicted for which the network follows its linearization to 2.6% over 20 steps,"
    )
    assert "because theory predicts that the gap does not fall with the width; between widths 32 and 128, its" in answer
    assert np.isnan(float(result.required_width))
    assert len(lz.plot(result).axes) == 2


@pytest.mark.filterwarnings("ignore:learning_rate is")
@pytest.mark.slow
def test_a_rate_at_which_networks_diverge_is_named():
    result = lz.required_width(NETWORK, DATA, **OPTIONS | {"learning_rate": 20.0, "steps": 400})
    assert lz.verify(result).answer.startswith("No width is predicted for which the network follows its linearization")
    assert "because networks of width 128 or their predictions diverged." in lz.verify(result).answer
    assert len(lz.plot(result).axes) == 2


@pytest.mark.whole
def test_a_network_without_analytic_kernel_keeps_the_default_rate_of_the_largest_pilot():
    import flax.linen as nn

    class Perceptron(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.tanh(nn.Dense(self.width)(x)))

    family = lz.from_flax(Perceptron, parametrization="standard")
    options = OPTIONS | {"pilots": [16, 32, 64], "tolerance": 0.05}
    result = lz.required_width(family, DATA, **options)
    assert (result.width > 64).any()
    pilots = lz.sweep(family, DATA, [16, 32, 64], 4, 1, measure=lz.Measure(kernel_drift=False)).learning_rate
    # In the standard parametrization, the rate is proportional to 1 / width.
    np.testing.assert_allclose(result.learning_rate, pilots[-1].item() * 64 / result.width, rtol=1e-12)
    with pytest.raises(ValueError, match="of must be 'linearization' for a network without an analytic kernel"):
        lz.required_width(family, DATA, of="infinite_width", **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"tolerance": 1.0}, "tolerance must be"),
        ({"of": "kernel"}, "of must be one of linearization, infinite_width"),
        ({"seeds": 1}, "seeds must contain at least two seeds"),
        ({"pilots": []}, "pilots must contain at least one width"),
        ({"max_width": 8}, "max_width must be at least 128, the largest pilot width, got 8"),
        ({"max_width": 8, "pilots": None}, "max_width must be at least 64 unless pilots are given, got 8"),
        ({"max_width": 0}, "max_width must be a positive integer"),
        (
            {"of": "infinite_width", "optimizer": "adam", "learning_rate": 0.1},
            "of must be 'linearization' unless the optimizer is 'sgd'",
        ),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"pilots": [31, 64, 128]}, "each width in pilots must be a width of the network, got 31: width must be even"),
    ],
)
def test_wrong_arguments_are_refused_before_work_starts(changes, message, monkeypatch, tmp_path):
    monkeypatch.setattr(api, "run_search", lambda search: pytest.fail("the search started"))
    with pytest.raises(ValueError, match=message):
        lz.required_width(NETWORK, DATA, out=tmp_path / "run", **OPTIONS | changes)
    assert not (tmp_path / "run").exists()


def test_a_shard_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"out\.shard must be None"):
        lz.required_width(NETWORK, DATA, out=lz.RunFolder(tmp_path / "run", shard=(1, 2)), **OPTIONS)


COMMAND = ["width", "--n-train", "32", "--n-test", "8", "--classes", "0", "1", "--seeds", "4", "--steps", "20"]


@pytest.mark.slow
def test_the_command_prints_one_object(capsys, tmp_path, found):
    flags = ["--pilots", *map(str, PILOTS), "--tolerance", "0.06", "--out", str(tmp_path / "run")]
    assert cli.main([*COMMAND, *flags, "--json", "--check"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verified"] is True
    assert content["low"] < content["predicted"] < content["high"]
    assert 0 < content["gap"] <= 0.06
    assert content["width"] > content["crossing"] > 16
    assert (tmp_path / "run/figures/required_width.png").exists()
    assert cli.main(["status", str(tmp_path / "run")]) == 0
    assert "required_width" in capsys.readouterr().out


def test_the_command_says_null_when_nothing_is_verified(capsys):
    flags = [*COMMAND, "--pilots", "16", "32", "64", "--max-width", "64", "--tolerance", "0.001"]
    assert cli.main([*flags, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["width"], content["verified"], content["gap"]) == (None, False, None)
    assert cli.main([*flags, "--check"]) == 1
    assert "This is not verified" in capsys.readouterr().out
    assert cli.main([*COMMAND, "--tolerance", "2"]) == 2
    assert cli.main([*COMMAND, "--plan"]) == 0
    assert "Training 4 networks of width 2048" in capsys.readouterr().out


@pytest.mark.slow
def test_results_that_were_cut_are_refused_and_others_may_be_in_any_order(found):
    backward = found.isel(width=slice(None, None, -1), seed=slice(None, None, -1))
    assert lz.verify(backward).answer == lz.verify(found).answer
    for cut in ({"width": [0, 1]}, {"step": slice(0, 3)}, {"seed": [0]}, {"width": -1}, {"seed": 0}):
        for function in (lz.verify, lz.plot):
            with pytest.raises(ValueError, match="must be a whole result"):
                function(found.isel(cut))
    for name in ("required_width", "crossing_low", "linearization_gap_train"):
        lacking = found.drop_vars([name] if name != "linearization_gap_train" else [name, "linearization_gap_test"])
        with pytest.raises(ValueError, match=f"but {name} is missing"):
            lz.verify(lacking)
    without = found.copy()
    without.attrs = {name: value for name, value in found.attrs.items() if name != "tolerance"}
    with pytest.raises(ValueError, match="but tolerance is missing"):
        lz.verify(without)
    with pytest.raises(ValueError, match="band must be positive"):
        lz.verify(found, band=-1.0)


@pytest.mark.slow
def test_a_verdict_passes_only_if_a_width_was_verified(found):
    assert lz.verify(found).passed
    assert lz.verify(found).verified is True
    unverified = lz.required_width(NETWORK, DATA, **OPTIONS | {"tolerance": 0.001, "max_width": 128})
    assert not lz.verify(unverified).passed


@pytest.mark.whole
def test_a_damaged_prediction_is_replaced(tmp_path, found):
    out = lz.RunFolder(tmp_path / "run", resume=True)
    lz.required_width(NETWORK, DATA, out=out, **OPTIONS)
    file = tmp_path / "run/prediction-linearization-0.026.json"
    content = file.read_text()
    for damage in ("{", '{"width": -5, "low": 0, "high": 2}'):
        file.write_text(damage)
        with pytest.warns(UserWarning, match="is damaged and will be replaced"):
            again = lz.required_width(NETWORK, DATA, out=out, **OPTIONS)
        assert float(again.predicted_width) == float(found.predicted_width)
        assert file.read_text() == content
    # A prediction that was stored by an earlier version stays.
    file.write_text(content.replace(f'"width": {float(found.predicted_width)!r}', '"width": 150.0'))
    again = lz.required_width(NETWORK, DATA, out=out, **OPTIONS)
    assert float(again.predicted_width) == 150.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pilots": 5}, "pilots must be"),
        ({"pilots": [16, 16]}, "pilots must be distinct"),
        ({"pilots": [0]}, "each width in pilots must be a positive integer"),
        ({"optimizer": "flow"}, "optimizer must not be 'flow'"),
        ({"learning_rate": lambda width: 0.1 if width <= 128 else -1.0}, "learning_rate"),
    ],
)
def test_more_wrong_arguments_are_named(changes, message):
    with unchecked(), pytest.raises(ValueError, match=message):
        lz.required_width(NETWORK, DATA, **OPTIONS | changes)


def test_a_network_that_is_none_is_named():
    with unchecked(), pytest.raises(ValueError, match="network must have the attributes"):
        lz.required_width(5, DATA, **OPTIONS)


def test_a_narrow_undecided_width_is_not_the_end():
    rows = [regime(4, 0.2, 0.01, 0.1), regime(8, 0.0999, 0.0012, 0.1)]
    assert next_width(rows, Crossing(8.0, np.nan, np.nan), Goal(0.1, "linearization", 64)) == 10
