"""Test residuals along the eigenvectors of a kernel, which linear and wide networks follow and narrow ones do not."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.kernels import spectrum
from lazynet.training import member_key, start_key

KEY = jax.random.key(0)
ALONE = lz.Measure(predictions=False, kernel_drift=False)


@pytest.fixture(scope="module")
def data():
    """Return digits with random labels, which have components in all modes."""
    digits = lz.load_dataset("digits", n_train=32, n_test=4)
    y = lz.label_noise(digits.y_train, 1.0, jax.random.key(5))
    return lz.Dataset(digits.x_train, y, digits.x_test, digits.y_test, name="noise")


@pytest.fixture(scope="module")
def analytic(data):
    return lz.analytic_kernel(lz.TwoLayer(width=2))(data.x_train)


@pytest.fixture(scope="module")
def narrow(data):
    return lz.train(lz.TwoLayer(width=32), data, KEY, 500, measure=ALONE)


def by_hand(k, y, run, learning_rate):
    """Return the residuals of a run and of kernel descent by mode, and their gap, in order of decreasing eigenvalue."""
    vectors = np.linalg.eigh(k)[1][:, ::-1]
    u = run.snapshots.train_prediction.values.astype(float)
    v, path = u[0], []
    for step in range(int(run.snapshots.step[-1]) + 1):
        if step in run.snapshots.step:
            path.append(v)
        v = v - learning_rate * k @ (v - y)
    one, other = (np.einsum("ji,sj...->si...", vectors, y - f) for f in (u, np.stack(path)))
    start = np.linalg.norm(one[0].reshape(len(y), -1), axis=1)
    scale = np.maximum(start, np.sqrt(np.mean(start**2)))
    return one, other, np.linalg.norm((one - other).reshape(*one.shape[:2], -1), axis=2) / scale


def check_table(run, k, y, learning_rate):
    table = lz.mode_residuals(run, k, y, tolerance=0.05)
    residual, kernel_residual, gap = by_hand(k, y, run, learning_rate)
    assert_close(np.abs(table.residual), np.abs(residual), ulps=1000)
    assert_close(np.abs(table.kernel_residual), np.abs(kernel_residual), ulps=1000)
    assert_close(table.gap, gap, ulps=1000)
    assert_close(table.eigenvalue, np.linalg.eigvalsh(k)[::-1])
    np.testing.assert_array_equal(table.mode, np.arange(1, len(k) + 1))
    steps = table.step.values
    for mode in range(len(k)):
        held = [step for j, step in enumerate(steps) if (gap[: j + 1, mode] <= 0.05).all()]
        assert table.last_step_held[mode] == held[-1]
    assert 0 < (table.last_step_held == steps[-1]).sum() < len(k)
    assert lz.mode_residuals(run, spectrum(k), y, tolerance=0.05).identical(table)


@pytest.mark.slow
def test_the_table_is_that_of_plain_iteration(narrow, data, analytic):
    check_table(narrow, analytic, data.y_train, 1 / np.linalg.eigvalsh(analytic)[-1])


@pytest.mark.slow
def test_a_network_that_is_linear_follows_its_own_kernel_in_every_mode():
    """The network has several outputs and does not start at zero."""
    data = lz.load_dataset("digits", (0, 1, 2), n_train=20, n_test=4)
    network = lz.TwoLayer(width=64, outputs=3, train="readout", symmetric=False)
    run = lz.train(network, data, KEY, 100, learning_rate=0.1, dtype="float64", measure=ALONE)
    own = lz.mode_residuals(run, lz.empirical_ntk(network, run.variables_0, data.x_train), data.y_train)
    assert own.gap.max() < 1e-10
    assert (own.last_step_held == 100).all()
    # The network does not follow the infinite-width kernel in every mode.
    check_table(run, lz.analytic_kernel(network)(data.x_train), data.y_train, 0.1)


def test_the_squares_of_all_modes_are_the_squared_residual(narrow, data, analytic):
    table = lz.mode_residuals(narrow, analytic, data.y_train)
    assert_close(np.sqrt((table.residual**2).sum("mode")), narrow.snapshots.residual_norm, dtype="float32")


@pytest.mark.whole
def test_a_wide_network_follows_the_kernel_and_a_narrow_one_leaves_it_small_eigenvalues_by_more(narrow, data, analytic):
    wide = lz.train(lz.TwoLayer(width=2**14), data, KEY, 500, measure=ALONE)
    wide = lz.mode_residuals(wide, analytic, data.y_train)
    assert (wide.last_step_held.sel(mode=slice(1, 16)) == 500).all()
    table = lz.mode_residuals(narrow, analytic, data.y_train)
    assert (table.last_step_held < 500).sum() >= 16
    worst = table.gap.max("step")
    assert worst.sel(mode=slice(17, None)).mean() > 1.5 * worst.sel(mode=slice(1, 16)).mean()
    assert (worst > wide.gap.max("step")).mean() > 0.9


def made(predictions, steps, learning_rate=0.5):
    """Return a run with the given training predictions."""
    import xarray

    dims = ("step", "train_example", "output")[: np.ndim(predictions)]
    table = {"train_prediction": (dims, np.asarray(predictions, np.float32))}
    settings = {
        "plain": True,
        "learning_rate": learning_rate,
        "traits": {"title": "relu"},
        "width": 1,
        "dataset": "none",
    }
    return lz.Run(
        {}, {}, xarray.Dataset(table, coords={"step": steps}, attrs={"settings": json.dumps(settings)}), "finished"
    )


def test_a_mode_that_comes_back_has_left_and_a_small_one_is_measured_by_the_average():
    """With K = diag(1, 0.5) and rate 0.5, kernel descent leaves 0.5^t and 0.75^t of the targets after t steps."""
    steps, k = np.array([0, 1, 2, 3]), np.diag([1.0, 0.5])
    y, exact = np.array([2.0, 0.02]), np.array([[1, 1], [0.5, 0.75], [0.25, 0.5625], [0.125, 0.421875]])
    off = np.zeros((4, 2))
    off[2, 0], off[3, 1] = 0.3, 0.1
    table = lz.mode_residuals(made(y - exact * y - off, steps), k, y)
    assert_close(np.abs(table.kernel_residual), exact * y, dtype="float32")
    # The gaps are 0.3 / 2 and 0.1 / sqrt((2^2 + 0.02^2) / 2).
    assert_close(table.gap.values[[2, 3], [0, 1]], [0.15, 0.1 / np.sqrt(2.0002)], dtype="float32")
    np.testing.assert_array_equal(table.last_step_held, [1, 3])
    np.testing.assert_array_equal(
        lz.mode_residuals(made(y - exact * y - off, steps), k, y, tolerance=0.05)["last_step_held"], [1, 2]
    )


def test_nothing_to_learn_is_no_division_by_zero():
    table = lz.mode_residuals(made(np.ones((3, 2)), [0, 1, 2]), np.eye(2), np.ones(2))
    assert not table.gap.any()
    np.testing.assert_array_equal(table.last_step_held, [2, 2])
    lz.plot(table).draw_without_rendering()


@pytest.mark.parametrize("learning_rate", [0.5, 500.0])
def test_what_diverges_leaves_every_mode(learning_rate):
    """At the smaller rate only the network diverges; at the larger rate kernel descent diverges too."""
    steps = [0, 1, 2, 200]
    u = np.zeros((4, 2, 2))
    u[1], u[2], u[3] = 1e30, [[np.inf, -np.inf], [1, 2]], np.nan
    table = lz.mode_residuals(made(u, steps, learning_rate), np.array([[2.0, 1.0], [1.0, 2.0]]), np.ones((2, 2)))
    np.testing.assert_array_equal(table.last_step_held, [0, 0])
    lz.plot(table).draw_without_rendering()


@pytest.mark.slow
def test_bad_arguments_are_refused(narrow, data, analytic):
    y = data.y_train
    for tolerance in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="tolerance must be positive and finite"):
            lz.mode_residuals(narrow, analytic, y, tolerance=tolerance)
    with unchecked(), pytest.raises(ValueError, match="y must be an array of shape"):
        lz.mode_residuals(narrow, analytic, y[:-1])
    with pytest.raises(ValueError, match=r"y must have the shape \(.*\) of the run's predictions"):
        lz.mode_residuals(narrow, analytic[:-1, :-1], y[:-1])
    with pytest.raises(ValueError, match="k must be symmetric"):
        lz.mode_residuals(narrow, np.triu(analytic), y)
    with pytest.raises(ValueError, match="k must be positive semidefinite"):
        lz.mode_residuals(narrow, analytic - np.eye(32), y)
    settings = json.loads(narrow.snapshots.attrs["settings"]) | {"plain": False}
    run = narrow._replace(snapshots=narrow.snapshots.assign_attrs(settings=json.dumps(settings)))
    with pytest.raises(ValueError, match="run must come from training with plain full-batch sgd on the squared loss"):
        lz.mode_residuals(run, analytic, y)


@pytest.fixture(scope="module")
def several(data):
    """Return the mode residuals of two widths and two seeds; the narrow networks depart from the kernel."""
    return lz.mode_residuals(lz.TwoLayer(width=2), data, [32, 256], 2, 60, dtype="float64")


@pytest.mark.slow
def test_several_networks_are_those_trained_one_at_a_time(several, data, analytic):
    run = lz.train(lz.TwoLayer(width=256), data, member_key(256, 1), 60, dtype="float64", measure=ALONE)
    alone, member = lz.mode_residuals(run, analytic, data.y_train), several.sel(width=256, seed=1)
    for name in ("residual", "kernel_residual", "gap", "eigenvalue"):
        assert member[name].dims == alone[name].dims
        np.testing.assert_allclose(member[name], alone[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(member.last_step_held, alone.last_step_held)
    assert 0 < (several.last_step_held.sel(width=32) < 60).mean() < 1
    assert (several.last_step_held.mean(["seed", "mode"]).diff("width") > 0).all()
    assert several.attrs["kind"] == "mode_residuals"
    assert several.residual.attrs["units"] == "targets"


@pytest.mark.slow
def test_several_networks_with_a_kernel_of_ones_own_and_several_outputs():
    """Networks that are linear in their parameters follow their own kernel, but not twice that kernel."""
    digits = lz.load_dataset("digits", (0, 1, 2), n_train=20, n_test=4)
    network = lz.TwoLayer(width=64, outputs=3, train="readout", symmetric=False)
    variables = network.init(start_key(member_key(64, 3)), jnp.asarray(digits.x_train))
    k = lz.empirical_ntk(network, variables, digits.x_train)
    options = {"learning_rate": 0.1, "dtype": "float64"}
    own = lz.mode_residuals(network, digits, [64], [3], 50, kernel=k, **options)
    assert own.residual.dims == ("width", "seed", "step", "mode", "output")
    assert own.gap.max() < 1e-8
    assert (own.last_step_held == 50).all()
    twice = lz.mode_residuals(network, digits, [64], [3], 50, kernel=spectrum(2 * k), **options)
    assert twice.gap.max() > 0.1
    np.testing.assert_allclose(twice.eigenvalue, 2 * own.eigenvalue)


@pytest.mark.slow
def test_several_networks_are_stored_resumed_and_shared_among_shards(several, data, tmp_path):
    given = (lz.TwoLayer(width=2), data, [32, 256], 2, 60)
    for shard in ((1, 2), (2, 2)):
        folder = lz.RunFolder(tmp_path / "run", shard=shard)
        assert lz.mode_residuals(*given, dtype="float64", out=folder, progress=False) is None
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("cells/*.npz")}
    assert len(cells) == 2
    assert lz.merge_shards(tmp_path / "run").drop_attrs().identical(several.drop_attrs())
    folder = lz.RunFolder(tmp_path / "run", resume=True)
    assert lz.mode_residuals(*given, dtype="float64", out=folder).drop_attrs().identical(several.drop_attrs())
    assert cells == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("cells/*.npz")}
    with pytest.raises(ValueError, match="tolerance"):
        lz.mode_residuals(*given, dtype="float64", tolerance=0.2, out=folder)


@pytest.mark.slow
def test_several_networks_that_diverge_are_reported(data):
    with (
        pytest.warns(UserWarning, match="learning_rate is 200 at width 32"),
        pytest.warns(UserWarning, match="2 of 2 networks of width 32 diverged"),
    ):
        result = lz.mode_residuals(lz.TwoLayer(width=2), data, [32], 2, 60, learning_rate=200.0, dtype="float64")
    assert (result.last_step_held == 0).all()


def test_bad_arguments_of_several_networks_are_refused(data, analytic):
    given = (lz.TwoLayer(width=2), data, [32], 2, 10)
    with pytest.raises(ValueError, match="tolerance must be positive and finite"):
        lz.mode_residuals(*given, tolerance=0.0)
    with pytest.raises(ValueError, match=r"kernel must have shape \(32, 32\)"):
        lz.mode_residuals(*given, kernel=analytic[:-1, :-1])
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        lz.mode_residuals(*given, kernel=np.triu(analytic))
    with pytest.raises(ValueError, match="kernel must be positive semidefinite"):
        lz.mode_residuals(*given, kernel=analytic - np.eye(32))
    network = lz.from_functions(
        lambda key, x, width: {"w": jax.random.normal(key, (x.shape[1],))}, lambda p, x: x @ p["w"]
    )
    with pytest.raises(ValueError, match="kernel must be given for a network without an analytic kernel"):
        lz.mode_residuals(network, *given[1:])


@pytest.mark.slow
def test_the_figure_of_several_networks(several):
    left, held = lz.plot(several).axes
    assert "width 256" in left.get_title()
    points = {line.get_label(): line for line in held.lines if not line.is_dashed()}
    for width in (32, 256):
        np.testing.assert_array_equal(
            points[str(width)].get_ydata(), several.last_step_held.sel(width=width).median("seed")
        )
    (learned,) = [line for line in held.lines if line.is_dashed()]
    np.testing.assert_allclose(learned.get_ydata(), several.eigenvalue[0] / several.eigenvalue, rtol=1e-6)
    share = (several.last_step_held.sel(width=256) == 60).mean().item()
    assert (
        f"{share:.0%} of the modes stay within 10% of the kernel to step 60 at width 256" in left.figure.get_suptitle()
    )


def test_the_settings_of_a_run_go_with_it(narrow):
    settings = json.loads(narrow.snapshots.attrs["settings"])
    assert (settings["dataset"], settings["n_train"], settings["width"], settings["steps"]) == ("noise", 32, 32, 500)
    assert settings["plain"] is True


@pytest.mark.slow
def test_the_figure(narrow, data, analytic):
    table = lz.mode_residuals(narrow, analytic, data.y_train)
    figure = lz.plot(table)
    left, held = figure.axes
    curves = [line for line in left.lines if not line.is_dashed()]
    dashed = [line for line in left.lines if line.is_dashed()]
    assert len(curves) == len(dashed) == 6
    start = np.abs(table.residual[0].values)
    # The figure shows the mode with the largest initial residual in each group: 1, 2, 3-4, 5-8, 9-16 and 17-32.
    ends = [0, 1, 2, 4, 8, 16, 32]
    chosen = [first + np.argmax(start[first:end]) + 1 for first, end in pairwise(ends)]
    assert [int(line.get_label()) for line in curves] == chosen
    for name, lines in (("residual", curves), ("kernel_residual", dashed)):
        for line, mode in zip(lines, (int(line.get_label()) for line in curves), strict=True):
            scale = max(start[mode - 1], np.sqrt(np.mean(start**2)))
            drawn = np.abs(table[name].sel(mode=mode)[1:]) / scale
            np.testing.assert_allclose(np.abs(line.get_ydata()), drawn, rtol=1e-10, atol=1e-12)
    points = {line.get_label(): line for line in held.lines}
    for label, chosen in (
        ("to the last step", table.last_step_held == 500),
        ("left before", table.last_step_held < 500),
    ):
        np.testing.assert_array_equal(points[label].get_xdata(), table.mode[chosen])
        np.testing.assert_array_equal(points[label].get_ydata(), table.last_step_held[chosen])
    (learned,) = [line for line in held.lines if line.is_dashed()]
    np.testing.assert_allclose(learned.get_ydata(), table.eigenvalue[0] / table.eigenvalue, rtol=1e-6)
    count = int((table.last_step_held == 500).sum())
    assert f"relu of width 32 on noise, n = 32:\n{count} of 32 modes stay within 10%" in figure.get_suptitle()
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_title()


@pytest.mark.slow
def test_runs_with_other_targets_or_without_their_start_are_refused():
    data, network = lz.load_dataset("digits", n_train=8, n_test=2), lz.TwoLayer(width=16)
    run, k = lz.train(network, data, member_key(16, 0), steps=10), lz.analytic_kernel(network)(data.x_train)
    whole = lz.mode_residuals(run, k, data.y_train)
    with unchecked():
        assert lz.mode_residuals(run, k.tolist(), data.y_train).identical(whole)
    for steps in (slice(2, None), slice(None, None, -1)):
        with pytest.raises(ValueError, match=r"^run must have snapshots that start at step 0, in ascending order"):
            lz.mode_residuals(run._replace(snapshots=run.snapshots.isel(step=steps)), k, data.y_train)
    with pytest.raises(ValueError, match=r"^y must contain the targets on which the network was trained"):
        lz.mode_residuals(run, k, (data.y_train + 1) / 2)
