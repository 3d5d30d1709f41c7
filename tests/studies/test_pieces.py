"""Test results that were selected, joined or reordered with xarray, and members that stopped early."""

import jax
import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet.studies.sweep import population_bounds, speed_gap

DATA = lz.load_dataset("digits", n_train=16, n_test=8)
OPTIONS = {"learning_rate": 0.2, "progress": False, "snapshots": [0, 1, 2, 4, 8, 16, 32, 64]}


@pytest.fixture(scope="module")
def whole():
    return lz.sweep(lz.TwoLayer(width=8), DATA, [32, 64, 128], 3, 64, **OPTIONS)


PIECES = {
    "widths in another order": lambda whole: whole.isel(width=[2, 0, 1]),
    "seeds in another order": lambda whole: whole.isel(seed=[1, 2, 0]),
    "joined again": lambda whole: xr.concat(
        [whole.isel(width=[2]), whole.isel(width=[0, 1])], "width", "minimal", "minimal", compat="equals"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_the_order_does_not_matter(piece, whole):
    other = PIECES[piece](whole)
    assert lz.verify(other).to_json() == lz.verify(whole).to_json()
    xr.testing.assert_allclose(speed_gap(other), speed_gap(whole))
    xr.testing.assert_allclose(population_bounds(other), population_bounds(whole))


@pytest.mark.slow
def test_one_seed_and_one_width_without_their_dimensions(whole):
    verdict = lz.verify(whole.isel(seed=0))
    assert verdict.seeds == 1
    assert verdict.row("displacement").fitted == lz.verify(whole.isel(seed=[0])).row("displacement").fitted
    single = lz.verify(whole.isel(width=-1))
    assert single.rows == ()
    assert single.widths == (128,)
    assert single.levels == pytest.approx(lz.verify(whole).levels)
    assert "exponents need at least two widths" in str(single)
    assert "+nan" not in str(single)
    assert speed_gap(whole.isel(seed=0)).shape == (3, 1)


def test_the_speed_gap_is_between_the_norms_of_residuals(whole):
    """Compare the gap of Theorem 4.1 of Arora et al. 2019 with explicit gradient descent on the kernel."""
    k = lz.analytic_kernel(lz.TwoLayer(width=8))(DATA.x_train)
    residual, norms = DATA.y_train, [np.linalg.norm(DATA.y_train)]
    for _ in range(64):
        residual = residual - 0.2 * k @ residual
        norms.append(np.linalg.norm(residual))
    far = np.abs(whole.residual_norm.transpose("width", "seed", "step") - np.array(norms)[whole.step])
    gap = speed_gap(whole)
    assert gap.dims == ("width", "seed")
    np.testing.assert_allclose(gap, far.max("step"), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^result must contain the variable kernel_train_loss"):
        speed_gap(whole.drop_vars("kernel_train_loss"))


@pytest.mark.parametrize(
    "changes", [{"loss": "logistic"}, {"optimizer": lz.Optimizer(momentum=0.5)}, {"batch_size": 4}], ids=str
)
def test_the_speed_gap_is_refused_where_the_theorem_does_not_apply(changes):
    result = lz.sweep(lz.TwoLayer(width=8), DATA, [32], 1, 4, **OPTIONS | {"snapshots": [0, 4]} | changes)
    assert "kernel_train_loss" in result
    with pytest.raises(ValueError, match=r"^result must come from plain full-batch gradient descent"):
        speed_gap(result)


def test_what_is_missing_or_twice_there_is_told(whole):
    with pytest.raises(ValueError, match=r"^result must have the coordinates width, .*, but seed is missing"):
        lz.verify(whole.mean("seed", keep_attrs=True))
    with pytest.raises(ValueError, match=r"^result must contain each width only once, got \[32, 32, 64\]"):
        lz.verify(whole.isel(width=[0, 0, 1]))


@pytest.fixture(scope="module")
def stopped():
    """Return a sweep over the smallest and the largest width in which each network stops early, at its own step."""
    return lz.sweep(lz.TwoLayer(width=8), DATA, [32, 128], 3, 64, stop=lz.Stop(loss=3.0), **OPTIONS)


@pytest.mark.slow
def test_a_stopped_member_counts_until_it_stopped(stopped, whole):
    whole = whole.isel(width=[0, 2])
    assert (stopped.stopped_step < 64).all()
    trained = (stopped.step <= stopped.stopped_step) & (whole.step <= whole.step)
    gap = abs(whole.residual_norm - np.sqrt(2 * whole.kernel_train_loss))
    expected = gap.where(trained).max("step").transpose("width", "seed")
    np.testing.assert_allclose(speed_gap(stopped), expected, rtol=1e-6)
    # After a network stops, the kernel's predicted residual is far from that of the network.
    assert (abs(stopped.residual_norm - np.sqrt(2 * stopped.kernel_train_loss)).max("step") > 2 * expected).all()


def test_a_row_holds_no_longer_than_the_members_train(stopped):
    first = int(stopped.stopped_step.min())
    for row in lz.verify(stopped).rows:
        assert row.last_step_held is None or row.last_step_held <= first
        for fit in row.by_step:
            members = stopped.stopped_step >= fit.step
            assert np.isnan(fit.fitted) == (members.any("seed").sum() < 2) or np.isnan(row.fitted)
            assert fit.status != "holds" or bool(members.all())


@pytest.mark.slow
def test_modes_follow_the_kernel_until_the_network_stops():
    network = lz.TwoLayer(width=4096)
    options = {"stop": lz.Stop(loss=3.0), "learning_rate": 0.2, "measure": lz.Measure(False, kernel_drift=False)}
    run = lz.train(network, DATA, jax.random.key(0), 64, **options)
    assert run.status == "stopped"
    last = int(run.snapshots.stopped_step)
    modes = lz.mode_residuals(run, lz.analytic_kernel(network)(DATA.x_train), DATA.y_train)
    assert modes.step.values.max() <= last < 64
    assert (modes.last_step_held == modes.step.values.max()).all()


@pytest.mark.slow
def test_a_network_that_moves_at_all_widths_is_not_called_lazy():
    """In mean-field scaling, everything scales as predicted, but the kernel changes at every width."""
    network = lz.TwoLayer(8, activation="tanh", output_scale=lambda m: m**-0.5, train="both")
    options = {"learning_rate": lambda m: 0.02 * m, "measure": lz.Measure(predictions=False), "progress": False}
    result = lz.sweep(network, DATA, [16, 64], 3, 20, **options)
    verdict = lz.verify(result)
    assert not verdict.lazy_limit
    assert any(row.status == "holds" for row in verdict.rows)
    table = str(verdict)
    assert "scales as predicted" in table
    assert "they are not lazy" in table
    assert "holds" not in table.replace("holds to step", "")
    assert "non-lazy" in lz.plot(result)._suptitle.get_text()


def test_few_seeds_and_widths_are_weak_evidence(whole):
    assert "weak evidence: only 2 seeds" in str(lz.verify(whole.isel(seed=[0, 1])))
    assert "weak evidence: only 2 widths" in str(lz.verify(whole.isel(width=[0, 1])))
    assert "weak evidence" not in str(lz.verify(whole))


@pytest.mark.slow
def test_a_result_without_step_0_is_judged_at_all_its_steps(whole):
    later = whole.isel(step=slice(1, None))
    verdict, expected = lz.verify(later), lz.verify(whole)
    assert [row.last_step_held for row in verdict.rows] == [row.last_step_held for row in expected.rows]
    assert [row.by_step for row in verdict.rows] == [row.by_step for row in expected.rows]
    # A violation at the first of these steps is found.
    path = later.copy(deep=True)
    path.max_neuron_displacement[0, 0, 0] = 10 * path.path_bound[0, 0, 0]
    assert not lz.verify(path).passed
    lz.plot(later).draw_without_rendering()


@pytest.mark.slow
def test_results_that_were_joined_badly_are_refused(whole):
    pieces = [whole.isel(step=slice(0, 3)), whole.isel(step=slice(3, None))]
    joined = xr.concat(pieces, "step", data_vars="all", coords="minimal", compat="override")
    with pytest.raises(
        ValueError, match=r"^result must not have the dimension step in its variable (stopped_step|status)\."
    ):
        lz.verify(joined)
    with pytest.raises(ValueError, match=r"^result must have a numeric coordinate seed"):
        lz.verify(whole.assign_coords(seed=[str(seed) for seed in whole.seed.values]))
