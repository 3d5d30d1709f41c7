"""Test FlowStepper against kernel flow and against diffrax."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.precision import float64
from lazynet.training._flow import MAX_MOVE, FlowStepper

DATA = lz.load_dataset("digits", n_train=16, n_test=6)
LOSSES_ONLY = lz.Measure(kernel_drift=False)
FLOW = {"optimizer": "flow", "steps": 400, "snapshots": [1, 10, 40, 100, 200]}


def run_flow(network, **options):
    return lz.train(network, DATA, jax.random.key(0), **{**FLOW, **options})


def times(run):
    return run.snapshots.time.values


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lazy_network_follows_the_flow_of_its_own_kernel(dtype):
    network = lz.TwoLayer(width=1024, train="both", output_scale=50.0)
    run = run_flow(network, dtype=dtype, measure=LOSSES_ONLY)
    x = np.concatenate([DATA.x_train, DATA.x_test])
    k = lz.empirical_ntk(network, run.variables_0, x, DATA.x_train)
    predicted = lz.kernel_flow(k[:16], DATA.y_train, times=times(run), k_test=k[16:])
    assert times(run)[-1] * np.linalg.eigvalsh(k[:16])[-1] > 20
    np.testing.assert_allclose(run.snapshots.train_prediction, predicted.train, atol=3 * MAX_MOVE)
    np.testing.assert_allclose(run.snapshots.test_prediction, predicted.test, atol=3 * MAX_MOVE)


@pytest.mark.slow
def test_a_feature_learning_network_follows_the_differential_equation():
    network = lz.MLP(24, 2, output_scale=0.3)
    run = run_flow(network, dtype="float64", measure=lz.Measure(predictions=False))
    assert run.snapshots.kernel_drift[-1] > 0.3
    with float64():
        x, y = jnp.asarray(DATA.x_train), jnp.asarray(DATA.y_train)
        fixed = {name: value for name, value in run.variables_0.items() if name != "params"}

        def loss(params):
            return 0.5 * jnp.sum((network.apply({**fixed, "params": params}, x) - y) ** 2)

        def slope(t, params, args):
            return jax.tree.map(jnp.negative, jax.grad(loss)(params))

        params = jax.tree.map(jnp.asarray, run.variables_0["params"])
        controller = diffrax.PIDController(rtol=1e-4, atol=1e-6)
        end = float(times(run)[-1])
        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Tsit5(),
            0.0,
            end,
            None,
            params,
            stepsize_controller=controller,
            max_steps=50_000,
        )
        exact = jax.tree.map(lambda leaf: np.asarray(leaf[-1]), solved.ys)
    for name, expected in exact.items():
        moved = np.linalg.norm(expected - run.variables_0["params"][name])
        assert np.linalg.norm(run.variables["params"][name] - expected) < 0.04 * moved


def test_accepted_steps_are_short_and_lower_the_loss():
    network = lz.TwoLayer(64, train="both", output_scale=0.1)
    run = run_flow(network, steps=60, snapshots=range(61), measure=LOSSES_ONLY)
    f, loss = run.snapshots.train_prediction.values, run.snapshots.train_loss.values
    moves, accepted = np.abs(np.diff(f, axis=0)).max(axis=1), np.diff(times(run)) > 0
    assert moves.max() <= MAX_MOVE * (1 + 1e-3)
    assert accepted.sum() > 30
    assert (~accepted).any()
    assert (np.diff(loss)[accepted] < 0).all()
    assert (moves[~accepted] < 1e-6).all()


@pytest.mark.slow
def test_output_scales_share_a_program_with_results_of_their_own(monkeypatch):
    traced, descent = [], FlowStepper._descent

    def record_scale(self, params, member, shared):
        traced.append(self.network.output_scale)
        return descent(self, params, member, shared)

    monkeypatch.setattr(FlowStepper, "_descent", record_scale)
    scales = [0.1, 0.5, 10.0]
    # No other test uses this width, so the training program has not been compiled yet.
    measure = lz.Measure(predictions=False)
    options = {"widths": [18], "seeds": 2, "measure": measure, **FLOW, "steps": 50, "snapshots": [50]}
    separate = {}
    for scale in scales:
        separate[scale] = lz.sweep(lz.TwoLayer(2, train="both", output_scale=scale), DATA, **options)
        # The first run traces the training program, whose scale is 1; later runs trace only shapes, for the cost model.
        assert set(traced) == ({scale, 1.0} if scale == scales[0] else {scale})
        traced.clear()
    result = lz.sweep(lz.TwoLayer(2, train="both"), DATA, axes={"output_scale": scales}, **options)
    assert 1.0 not in traced
    for scale, alone in separate.items():
        for name in ("train_loss", "test_loss", "kernel_drift", "time"):
            np.testing.assert_array_equal(result[name].sel(output_scale=scale), alone[name])
    assert len(set(result.train_loss.isel(width=0, seed=0, step=-1).values.tolist())) == 3


@pytest.mark.slow
def test_a_network_without_a_gradient_does_not_move():
    # The inputs are nonnegative and the weights are negative, so both units are inactive on every row.
    network = lz.from_functions(
        lambda key, x, width: {"w": -jnp.abs(jax.random.normal(key, (width, x.shape[1])))},
        lambda params, x: jnp.sum(jax.nn.relu(x @ params["w"].T), axis=1),
        width=2,
    )
    options = {"learning_rate": 0.1, "steps": 5000, "snapshots": 3, "measure": LOSSES_ONLY}
    run = run_flow(network, stop=lz.Stop(gradient=1e-15), **options)
    assert run.status == "stopped"
    assert int(run.snapshots.stopped_step) == 0
    run = run_flow(network, **options)
    assert np.isfinite(run.snapshots.train_loss).all()
    assert (run.snapshots.displacement == 0).all()


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_flow_lowers_other_losses(loss):
    run = run_flow(lz.TwoLayer(64), loss=loss, learning_rate=1.0, measure=LOSSES_ONLY)
    assert run.snapshots.train_loss[-1] < 0.5 * run.snapshots.train_loss[0]
    assert (np.diff(run.snapshots.train_loss) <= 0).all()
