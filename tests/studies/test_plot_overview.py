"""Test the figure of a sweep: what it must show, and sweeps that leave parts of it empty."""

import io

import jax
import numpy as np
import pytest

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


@pytest.fixture(scope="module")
def result():
    return lz.sweep(lz.TwoLayer(width=32), DATA, [32, 128, 512], 3, 20)


@pytest.fixture(scope="module")
def figure(result):
    return lz.plot(result)


def drawn(figure):
    """Draw a figure and return it; matplotlib reports some errors only when drawing."""
    figure.draw_without_rendering()
    return figure


def dashed(axes):
    return [line for line in axes.lines if line.is_dashed()]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.slow
def test_four_labeled_axes(figure):
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 6
    for axes in figure.axes:
        assert axes.get_xlabel() in ("step", "width")
        assert axes.get_ylabel()
        assert axes.get_title()
        assert axes.get_xscale() == "log"


@pytest.mark.slow
def test_loss_of_every_width_beside_the_kernels(figure, result):
    loss = figure.axes[2]
    assert [entry for entry in legend(loss) if entry.isdigit()] == ["32", "128", "512"]
    assert legend(loss)[-1] == "kernel"
    (kernel,) = dashed(loss)
    np.testing.assert_allclose(kernel.get_ydata(), result.kernel_train_loss[1:])
    np.testing.assert_allclose(kernel.get_xdata(), result.step[1:])
    solid = [line for line in loss.lines if line not in dashed(loss)]
    for line, width in zip(solid, result.width.values, strict=True):
        np.testing.assert_allclose(line.get_ydata(), result.train_loss.sel(width=width).mean("seed")[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("panel", "quantities"),
    [
        (3, {"kernel_gap_train": "max", "start_gap_train": "max", "linearization_gap_train": "max"}),
        (4, {"displacement": "last", "relative_displacement": "last", "kernel_drift": "last"}),
    ],
)
def test_quantities_against_width_with_fitted_and_predicted_slope(figure, result, panel, quantities):
    axes, verdict = figure.axes[panel], lz.verify(result)
    solid = [line for line in axes.lines if not line.is_dashed()]
    for quantity, how in quantities.items():
        values = result[quantity].max("step") if how == "max" else result[quantity].isel(step=-1)
        mean = values.mean("seed").values
        line = next(line for line in solid if np.allclose(line.get_ydata(), mean, rtol=1e-12, atol=0))
        row = verdict.row(quantity)
        assert line.get_label().endswith(f"{row.fitted:+.2f}")
        assert line.get_label() in legend(axes)
        theory = next(other for other in dashed(axes) if other.get_color() == line.get_color())
        (x0, x1), (y0, y1) = np.log(theory.get_xdata()), np.log(theory.get_ydata())
        assert (y1 - y0) / (x1 - x0) == pytest.approx(row.predicted)
        # The predicted line passes through the geometric mean of the measured values.
        assert (y0 + y1) / 2 == pytest.approx(np.log(mean).mean())


@pytest.mark.slow
def test_a_mean_too_large_to_draw_leaves_a_gap_and_no_seed_alone_is_left_out(result):
    result = result.copy(deep=True)
    result.relative_displacement[0, 0, -1] = 5e12  # the value of one seed at the first width is too large to draw
    result.relative_displacement[1, 0, -1] = 2e12  # the mean over three seeds is small enough to draw
    movement = lz.plot(result).figure.axes[4]
    line = next(line for line in movement.lines if line.get_label().startswith("relative: "))
    mean = result.relative_displacement.isel(step=-1).mean("seed").values
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, *mean[1:]])


@pytest.mark.slow
def test_exponents_against_step(figure, result):
    axes, verdict = figure.axes[5], lz.verify(result)
    row = verdict.row("relative_displacement")
    fitted = [fit.fitted for fit in row.by_step]
    assert any(np.allclose(line.get_ydata(), fitted) for line in axes.lines if len(line.get_ydata()) == len(fitted))
    theory = [line.get_ydata()[0] for line in dashed(axes) if line.get_color() == "black"]
    assert sorted(theory) == pytest.approx([-0.5, 0.0])


@pytest.mark.slow
def test_the_title_states_the_answer(figure, result):
    heading, *answer = figure.get_suptitle().splitlines()
    assert heading.startswith("relu on digits, n = ")
    assert f"{' '.join(answer)} It" in lz.verify(result).answer


@pytest.mark.slow
def test_suprema_and_steps_against_width(figure, result):
    verdict = lz.verify(result)
    suprema, until = figure.axes[:2]
    for axes, values in ((suprema, "supremum"), (until, "until")):
        curves = [container.lines[0] for container in axes.containers]
        assert legend(axes)[1:] == ["linearization", "infinite width"]
        for curve, prediction in zip(curves, ("linearization", "infinite_width"), strict=True):
            rows = [row for row in verdict.regimes if row.prediction == prediction]
            np.testing.assert_array_equal(curve.get_xdata(), [row.width for row in rows])
            np.testing.assert_allclose(curve.get_ydata(), [getattr(row, values) for row in rows])
    assert dashed(suprema)[0].get_ydata()[0] == verdict.tolerance
    assert dashed(until)[0].get_ydata()[0] == verdict.steps


GAPS = [f"{gap}_{part}" for gap in ("linearization_gap", "kernel_gap", "start_gap") for part in ("train", "test")]


@pytest.mark.slow
def test_without_predictions_the_title_states_the_finding(result):
    result = result.drop_vars(GAPS)
    verdict = lz.verify(result)
    figure = drawn(lz.plot(result))
    assert len(figure.axes) == 4
    title = figure.get_suptitle()
    assert "relu on digits" in title
    assert f"of {len(verdict.rows)} predicted exponents" in title
    assert f"{sum(row.status == 'holds' for row in verdict.rows)} hold" in title
    assert f"{verdict.levels['activation_flips']:.1%} of signs flipped at width 512" in title


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "words"),
    [(["activation_flips"], "of the kernel changed"), (["activation_flips", "kernel_drift"], "of the weights moved")],
)
def test_the_title_states_the_first_level_there_is(result, missing, words):
    assert f"{words} at width 512" in lz.plot(result.drop_vars(GAPS + missing)).get_suptitle()


@pytest.mark.slow
def test_a_band_over_seeds(figure, result):
    band = figure.axes[4].collections[0].get_datalim(figure.axes[4].transData)
    final = result.displacement.isel(step=-1)
    assert band.y0 == pytest.approx(float(final.min()))
    assert band.y1 == pytest.approx(float(final.max()))


def check_figure(result):
    """Draw the figure of a sweep, and check its number of axes and its legends."""
    figure = drawn(lz.plot(result))
    assert len(figure.axes) == 4 + 2 * bool(lz.verify(result).regimes)
    assert not [text for axes in figure.axes if axes.get_legend() for text in legend(axes) if "nan" in text]
    labels = legend(figure.axes[-4])
    assert [entry for entry in labels if entry.isdigit()] == [str(width) for width in result.width.values]
    assert ("kernel" in labels) == ("kernel_train_loss" in result)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["width", "seed"])
def test_one_width_and_one_seed_have_a_figure_too(result, part):
    check_figure(result.isel({part: [0]}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "training"),
    [
        # Training only the readout does not change the kernel, and each network has its own kernel prediction.
        ({"train": "readout", "symmetric": False, "output_scale": lambda m: m**-0.25}, {}),
        # A schedule has no infinite-width prediction, so only the linearization is compared.
        ({}, {"optimizer": lz.Optimizer("sgd", schedule=lambda step: 0.99**step), "learning_rate": 0.01}),
    ],
    ids=["own_start", "schedule"],
)
def test_other_sweeps_have_a_figure_too(options, training):
    with jax.numpy_dtype_promotion("standard"):
        result = lz.sweep(lz.TwoLayer(width=32, **options), DATA, [32, 128], 3, 20, **training)
    assert ("kernel_train_loss" in result) == (not training)
    check_figure(result)


@pytest.mark.slow
def test_zeros_and_diverged_widths_leave_no_trace(result):
    """Drawing must not warn of logarithms of zero or set infinite axis limits."""
    changed = result.copy(deep=True)
    changed.activation_flips[0] = 0
    changed.activation_flips[1, :2] = 0
    changed.displacement[2] = np.nan
    figure = drawn(lz.plot(changed))
    for axes in figure.axes:
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()
        assert max(map(abs, figure.axes[5].get_ylim())) < 100


@pytest.mark.slow
def test_networks_that_were_not_compared_have_no_empty_axes():
    more = {"learning_rate": 0.1, "measure": lz.Measure(predictions=False, rows=8), "progress": False}
    loss, gaps, *_ = lz.plot(lz.sweep(lz.TwoLayer(width=8), DATA, [8], 2, 5, **more)).axes
    assert not gaps.axison
    assert gaps.get_title() == "Not compared with the kernel"
    assert (loss.get_title(), loss.get_ylabel()) == ("Networks", "training loss, on 8 examples")
