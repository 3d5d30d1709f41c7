"""The members of a sweep are independent of each other, and those that diverge are recorded."""

import io
import warnings
from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np
import pytest

import lazynet as lz
from lazynet.experiment import _reference as reference
from lazynet.experiment import share_inputs
from lazynet.training import snapshot_steps
from lazynet.training._keys import member_key

DATA = lz.load_dataset("digits", n_train=24, n_test=10)
# Linear in its parameters, so a member diverges exactly if the learning rate is above its 2 / lambda_max(K_0).
LINEAR = lz.TwoLayer(width=8, train="readout")


@pytest.mark.slow
@pytest.mark.exact
def test_a_member_does_not_depend_on_the_others():
    """A member is the same in a larger sweep; use float64, because rounding depends on the packing."""
    network = lz.TwoLayer(width=8)
    rate = 0.05
    whole = lz.sweep(network, DATA, [16, 8], 2, 40, learning_rate=rate, dtype="float64")
    alone = lz.sweep(network, DATA, [8], [1], 40, learning_rate=rate, dtype="float64")
    for name in alone:
        one, other = alone[name].values, whole.sel(width=[8], seed=[1])[name].values
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12, err_msg=name)
    assert whole.width.values.tolist() == [8, 16]
    seeds = whole.train_loss.isel(step=-1).values
    assert len(np.unique(seeds)) == seeds.size


@pytest.mark.slow
@pytest.mark.exact
def test_the_start_is_the_same_in_both_dtypes():
    network = lz.TwoLayer(width=16, init_scale=0.7, readout="gaussian", train="both")
    options, dtypes = {"measure": lz.Measure(kernel_drift=False)}, ("float32", "float64")
    runs = [lz.train(network, DATA, member_key(16, 3), 1, dtype=dtype, **options) for dtype in dtypes]
    starts = [jax.tree.leaves(run.variables_0) for run in runs]
    for single, double in zip(*starts, strict=True):
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(np.asarray(single, np.float64), np.asarray(double))


@contextmanager
def quiet():
    """Suppress the warning about a large learning rate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def thresholds():
    """Return 2 / lambda_max(K_0) for seeds 0 to 7."""
    from lazynet.training._keys import start_key

    found = []
    for seed in range(8):
        variables = dict(jax.jit(LINEAR.init)(start_key(member_key(8, seed)), DATA.x_train.astype("float32")))
        found.append(2 / np.linalg.eigvalsh(lz.empirical_ntk(LINEAR, variables, DATA.x_train))[-1])
    return np.array(found)


@pytest.fixture(scope="module")
def partly_diverged():
    limits = thresholds()
    order = np.argsort(limits)
    # The learning rate is between the fourth and the fifth threshold, so four members diverge.
    rate = float(np.sqrt(limits[order[3]] * limits[order[4]]))
    gone, well = sorted(map(int, order[:4])), sorted(map(int, order[4:]))
    with quiet():
        result = lz.sweep(LINEAR, DATA, [8], 8, 3000, learning_rate=rate, dtype="float64")
    return result, rate, gone, well


@pytest.mark.slow
def test_members_above_their_own_limit_diverge(partly_diverged):
    result, _, gone, well = partly_diverged
    status = result.status.sel(width=8)
    assert (status.sel(seed=gone) == 1).all()
    assert (status.sel(seed=well) == 0).all()
    assert result.status.attrs["flag_meanings"].split()[1] == "diverged"
    assert (result.stopped_step.sel(seed=well) == 3000).all()


@pytest.mark.slow
def test_a_diverged_member_is_nan_from_its_stopped_step_on(partly_diverged):
    result, _, gone, well = partly_diverged
    for name in result:
        if result[name].dims != ("width", "seed", "step"):
            continue
        for seed in gone:
            stopped = int(result.stopped_step.sel(width=8, seed=seed))
            assert 1 < stopped <= 3000
            values = result[name].sel(width=8, seed=seed)
            assert np.isnan(values.sel(step=result.step >= stopped)).all(), name
            assert not np.isnan(values.sel(step=result.step < stopped)).any(), name
        # The infinite-width prediction diverges at this learning rate too, and so do the gaps to it.
        if not name.startswith(("start_gap", "kernel_gap")):
            assert np.isfinite(result[name].sel(seed=well)).all(), name


@pytest.mark.slow
def test_members_beside_a_diverged_one_keep_their_bits(partly_diverged):
    """Replacing a diverged member by one with another seed does not change the others in the same pack."""
    _, rate, gone, well = partly_diverged
    with quiet():
        beside_diverged = lz.sweep(LINEAR, DATA, [8], [gone[0], well[0]], 3000, learning_rate=rate)
        beside_another = lz.sweep(LINEAR, DATA, [8], [well[1], well[0]], 3000, learning_rate=rate)
    assert int(beside_diverged.status.sum()) == 1
    assert int(beside_another.status.sum()) == 0
    for name in beside_diverged:
        if "seed" in beside_diverged[name].dims:
            one, other = (result[name].sel(seed=well[0]).values for result in (beside_diverged, beside_another))
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.slow
def test_the_verdict_and_the_figure_of_a_sweep_with_diverged_members(partly_diverged):
    result = partly_diverged[0]
    verdict = lz.verify(result)
    assert len(verdict.diverged) == 4
    table = str(verdict)
    assert "4 of 8 members diverged" in table
    assert all(row.quantity in table for row in verdict.rows)
    assert all(row.status != "holds" for row in verdict.rows if row.reduction != "start")
    assert np.isnan(verdict.levels["relative_displacement"]) == bool(result.displacement[0, :, -1].isnull().all())
    figure = lz.plot(result, verdict)
    assert "4 members diverged" in figure.get_suptitle()
    figure.savefig(io.BytesIO())


@pytest.mark.slow
def test_a_learning_rate_far_too_large_is_a_warning_that_names_the_limit():
    limit = 2 / np.linalg.eigvalsh(lz.analytic_kernel(LINEAR)(DATA.x_train))[-1]
    with pytest.warns(
        UserWarning, match=rf"learning_rate is 1000 at width 8, above 2 / lambda_max = {limit:.6g}"
    ) as caught:
        result = lz.sweep(LINEAR, DATA, [8], 2, 300, learning_rate=1000.0)
    assert len(caught) == 1
    assert (result.status == 1).all()
    verdict = lz.verify(result)
    assert not [row for row in verdict.rows if row.status != "undecided" and row.reduction != "start"]
    lz.plot(result, verdict).savefig(io.BytesIO())
    run = lz.train(LINEAR, DATA, member_key(8, 0), 300, learning_rate=1000.0)
    assert run.status == "diverged"
    assert int(run.snapshots.stopped_step) == int(result.stopped_step[0, 0])


@pytest.mark.slow
def test_a_learning_rate_too_large_at_one_width_only_is_a_warning():
    """The learning rate is above the limit at the narrowest width, but not at the widest."""
    with pytest.warns(UserWarning, match="at width 8, above 2 / lambda_max"):
        lz.sweep(LINEAR, DATA, [8, 16], 2, 2, learning_rate=lambda m: 10.0 if m == 8 else 0.01)


@pytest.mark.slow
def test_a_learning_rate_just_below_the_limit_is_no_warning():
    limit = 2 / np.linalg.eigvalsh(lz.analytic_kernel(LINEAR)(DATA.x_train))[-1]
    lz.sweep(LINEAR, DATA, [8], 2, 2, learning_rate=0.999 * limit)
    with pytest.warns(UserWarning, match="kernel descent diverges"):
        lz.sweep(LINEAR, DATA, [8], 2, 2, learning_rate=1.001 * limit)


def rows_with(extra):
    x = np.concatenate([DATA.x_train[:10], extra])
    return lz.Dataset(x, np.where(np.arange(len(x)) % 2 == 0, 1.0, -1.0))


@pytest.mark.parametrize(
    ("activation", "sign", "kind"), [("relu", 1, "identical"), ("erf", -1, "antipodal"), ("tanh", -1, "antipodal")]
)
def test_a_kernel_without_an_inverse_is_named_by_complexity(activation, sign, kind):
    data = rows_with(sign * DATA.x_train[3:4])
    with pytest.raises(ValueError, match=rf"rows 3 and 10 are {kind}"):
        lz.complexity(lz.analytic_kernel(lz.TwoLayer(width=16, activation=activation))(data.x_train), data.y_train)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "sign", "kind"), [("relu", 1, "identical"), ("erf", -1, "antipodal")])
def test_a_kernel_without_an_inverse_is_warned_of_in_a_sweep(activation, sign, kind):
    data = rows_with(sign * DATA.x_train[3:4])
    network = lz.TwoLayer(width=16, activation=activation)
    with pytest.warns(UserWarning, match=rf"treats training rows 3 and 10 as {kind}"):
        result = lz.sweep(network, data, [256], 1, 5, measure=lz.Measure(kernel_drift=False))
    for name in ("lambda_min", "label_norm", "complexity"):
        assert np.isnan(result[name])
    assert np.isfinite(result.linearized_displacement).all()
    statuses = {i.name: i.status for i in lz.verify(result).inequalities}
    assert next(status for name, status in statuses.items() if "Lemma" in name) == "undecided"
    assert next(status for name, status in statuses.items() if "path" in name) == "holds"


def test_antipodal_rows_are_nothing_to_relu():
    data = rows_with(-DATA.x_train[3:4])
    assert np.isfinite(lz.complexity(lz.analytic_kernel(lz.TwoLayer(width=16))(data.x_train), data.y_train))


@pytest.mark.slow
def test_snapshots_of_a_run_are_those_of_a_sweep():
    run = lz.train(LINEAR, DATA, member_key(8, 0), 50, snapshots=6)
    assert run.snapshots.step.values.tolist() == snapshot_steps(50, 6).tolist()


@pytest.mark.slow
def test_a_very_wide_network_follows_its_linearization_and_the_kernel():
    """At width 2^14 on 32 digits 0 and 1, both gaps stay below 1% of the targets' RMS at every snapshot."""
    data = lz.load_dataset("digits", n_train=32, n_test=16)
    result = lz.sweep(lz.TwoLayer(width=2**14), data, [2**14], 1, 60, snapshots=4)
    assert (result.train_error.isel(step=-1) == 0).all()
    for name in ("linearization_gap", "kernel_gap"):
        for part in ("train", "test"):
            gap = float(result[f"{name}_{part}"].max())
            assert 1e-5 < gap < 0.01 * float(result.target_rms), (name, part, gap)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "dtype", "options"),
    [
        (lz.TwoLayer(width=32), "float32", {}),
        pytest.param(
            lz.TwoLayer(width=32), "float64", {"measure": lz.Measure(sharpness=True)}, marks=pytest.mark.exact
        ),
        (lz.TwoLayer(width=31, outputs=2, train="both", readout="gaussian", symmetric=False), "float64", {}),
        pytest.param(
            lz.TwoLayer(width=32, train="readout", activation="erf", init_scale=0.5),
            "float64",
            {},
            marks=pytest.mark.exact,
        ),
    ],
)
def test_networks_see_the_space_of_their_inputs_only(network, dtype, options, monkeypatch):
    def sweep(by_span):
        shared = []

        def share(*arguments):
            shared.append(share_inputs(*arguments, by_span=by_span))
            return shared[-1]

        monkeypatch.setattr(reference, "share_inputs", share)
        data = lz.load_dataset("digits", n_train=20, n_test=7)
        if network.outputs == 2:
            data = replace(data, y_train=np.eye(2)[data.y_train.astype(int)], y_test=np.eye(2)[data.y_test.astype(int)])
        data = replace(data, x_test=np.concatenate([data.x_test[:6], data.x_train[:1]]))
        result = lz.sweep(network, data, [network.width], 2, 30, dtype=dtype, **options)
        (inputs,) = shared
        return result, inputs.arrays

    (spanned, arrays), (whole, _) = sweep(True), sweep(False)
    # The last test row is a training row.
    assert arrays["span"].shape == (64, 26)
    assert arrays["x"].shape == (20, 26)
    for name, values in whole.data_vars.items():
        size = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
        few = 1 / (32 * 20) if name == "activation_flips" else 0.0
        near = 1e-12 if dtype == "float64" else 3e-3 if name == "kernel_drift" else 1e-5
        np.testing.assert_allclose(spanned[name], values, rtol=0, atol=near * max(size, 1.0) + few, err_msg=name)


@pytest.mark.slow
def test_a_measure_sees_all_features():
    seen = []

    def rows(network, variables, variables_0, data):
        seen.append((variables["params"]["hidden"].shape, data.x_test.shape))
        return variables["params"]["hidden"][0, :3]

    data = lz.load_dataset("digits", n_train=20, n_test=7)
    measure = lz.Measure(predictions=False, kernel_drift=False, own={"first_rows": rows})
    lz.sweep(lz.TwoLayer(width=4), data, [4], 1, 3, measure=measure)
    assert set(seen) == {((4, 64), (7, 64))}


@pytest.mark.slow
def test_movements_that_float32_does_not_resolve_are_announced():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 4)), np.sign(random.normal(size=8))
    far = lz.Dataset(1e6 * x, y, 1e6 * x[:3], y[:3])
    with pytest.warns(UserWarning, match=r"^At width 16, the weights of 2 of 2 networks moved by only .* float32"):
        lz.sweep(lz.TwoLayer(width=2), far, [16], 2, 10, progress=False)
    lz.sweep(lz.TwoLayer(width=2), far, [16], 2, 10, dtype="float64", progress=False)
