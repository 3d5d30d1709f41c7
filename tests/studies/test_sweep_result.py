"""Test every variable of a sweep against descent, kernels and formulas written out in NumPy."""

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import INSTALLED
from reference import SLOPE, VALUE

import lazynet as lz
from lazynet.experiment import make_training
from lazynet.precision import float64
from lazynet.training._keys import member_key, start_key

STEPS, WIDTHS, SEEDS = 30, (16, 32), (0, 1)
DATA = lz.load_dataset("digits", n_train=24, n_test=10)
THREE = lz.load_dataset("digits", classes=(0, 1, 2), n_train=18, n_test=8)
GAPS = ("linearization_gap", "start_gap", "kernel_gap")
KERNEL = ("train_loss", "test_loss", "train_error", "test_error")
CASES = {
    "relu": (lz.TwoLayer(width=16), DATA),
    "three outputs": (lz.TwoLayer(width=16, outputs=3, activation="tanh", output_scale=1.5), THREE),
    "readout": (lz.TwoLayer(width=16, train="readout", activation="softplus", symmetric=False), DATA),
    "both": (
        lz.TwoLayer(16, 3, "gelu", train="both", symmetric=False, readout="gaussian", init_scale=0.7),
        THREE,
    ),
}
# Sweeps with these settings share their compiled programs.
SETTINGS = {"seeds": len(SEEDS), "steps": STEPS, "dtype": "float64", "progress": False}


@cache
def swept(name):
    network, data = CASES[name]
    return lz.sweep(network, data, WIDTHS if name == "relu" else WIDTHS[:1], **SETTINGS)


class Reference:
    """Gradient descent of one member in NumPy, with every quantity of the sweep's result at every step."""

    def __init__(self, network, data, width, seed, rate):
        network = network.clone(width=width)
        with float64():
            # Compile `init` as a sweep does; without jit, the last bit of sqrt(2) kappa is rounded differently.
            variables = dict(jax.jit(network.init)(start_key(member_key(width, seed)), jnp.asarray(data.x_train)))
        both = {**variables["params"], **variables.get("fixed", {})}
        self.network, self.data = network, data
        self.w0, self.a0 = np.asarray(both["hidden"], np.float64), np.asarray(both["readout"], np.float64)
        self.c = float(network.output_scale) / np.sqrt(width)
        k0, k0_test = (self.start_kernel(x, data.x_train) for x in (data.x_train, data.x_test))
        y, n = data.y_train.reshape(data.n_train, -1), data.n_train
        k, kernel = y.shape[1], lz.analytic_kernel(network)
        limit, limit_test = kernel(data.x_train), kernel(data.x_test, data.x_train)
        w, a = self.w0.copy(), self.a0.copy()
        f0, f0_test = self.predict(w, a, data.x_train), self.predict(w, a, data.x_test)
        own, own_test, lim, lim_test = f0, f0_test, f0, f0_test
        moved = np.zeros_like(f0)  # sum over steps of eta times the residual at infinite width
        path, self.rows = 0.0, []
        for _ in range(STEPS + 1):
            f, f_test = self.predict(w, a, data.x_train), self.predict(w, a, data.x_test)
            residual = f - y
            self.rows.append(self.measure(w, a, f, f_test, own, own_test, lim, lim_test))
            self.rows[-1] |= {
                "linearized_displacement": np.sqrt(np.sum(moved * (limit @ moved))),
                "path_bound": rate * self.c * path * np.linalg.norm(data.x_train, 2) * np.sqrt(k),
                "kernel_drift": np.linalg.norm(self.kernel(w, a) - self.kernel(self.w0, self.a0))
                / np.linalg.norm(self.kernel(self.w0, self.a0)),
            }
            path += np.linalg.norm(residual)
            gw, ga = self.gradient(w, a, residual)
            w, a = w - rate * gw, a - rate * ga
            r_own, r_lim = (own - y).reshape(-1), lim - y
            own = own - rate * (k0.reshape(n * k, n * k) @ r_own).reshape(n, k)
            own_test = own_test - rate * (k0_test.reshape(-1, n * k) @ r_own).reshape(-1, k)
            moved = moved + rate * r_lim
            lim, lim_test = lim - rate * limit @ r_lim, lim_test - rate * limit_test @ r_lim
        average = np.einsum("icjc->ij", k0) / k
        self.initial_kernel_error = np.linalg.norm(average - limit) / np.linalg.norm(limit)
        values = np.linalg.eigvalsh(limit)
        slope = {"tanh": 1.0, "erf": 2 / np.sqrt(np.pi), "relu": 1.0, "gelu": 1.1289041451851548, "softplus": 1.0}
        self.lemma = 4 * np.sqrt(n) * np.linalg.norm(f0 - y) / values[0] * self.c * np.sqrt(k)
        self.lemma *= slope[network.activation]
        self.limit = {
            "lambda_min": values[0],
            "lambda_max": values[-1],
            "label_norm": np.sqrt(np.sum(y * np.linalg.solve(limit, y))),
            "complexity": lz.complexity(limit, data.y_train),
        }
        for row in self.rows:
            row["path_bound"] *= slope[network.activation]

    def predict(self, w, a, x):
        return self.c * VALUE[self.network.activation](x @ w.T) @ a

    def gradient(self, w, a, residual):
        x, z = self.data.x_train, self.data.x_train @ w.T
        gw = self.c * ((residual @ a.T) * SLOPE[self.network.activation](z)).T @ x
        ga = self.c * VALUE[self.network.activation](z).T @ residual
        train = self.network.train
        return (gw if train != "readout" else 0 * w), (ga if train != "hidden" else 0 * a)

    def kernel(self, w, a):
        x, z = self.data.x_train, self.data.x_train @ w.T
        slope, value = SLOPE[self.network.activation](z), VALUE[self.network.activation](z)
        hidden = (x @ x.T) * ((slope * np.mean(a**2, axis=1)) @ slope.T)
        train = self.network.train
        return self.c**2 * ((hidden if train != "readout" else 0) + (value @ value.T if train != "hidden" else 0))

    def start_kernel(self, x1, x2):
        """Return the initial kernel for all pairs of outputs, of shape (n1, k, n2, k)."""
        (slope1, value1), (slope2, value2) = (
            [table[self.network.activation](x @ self.w0.T) for table in (SLOPE, VALUE)] for x in (x1, x2)
        )
        outputs = self.a0.shape[1]
        hidden = np.einsum("ij,ir,jr,rc,rd->icjd", x1 @ x2.T, slope1, slope2, self.a0, self.a0, optimize=True)
        readout = np.einsum("ij,cd->icjd", value1 @ value2.T, np.eye(outputs))
        train = self.network.train
        return self.c**2 * ((hidden if train != "readout" else 0) + (readout if train != "hidden" else 0))

    def measure(self, w, a, f, f_test, own, own_test, lim, lim_test):
        data, train = self.data, self.network.train
        trained = [(w, self.w0)] * (train != "readout") + [(a, self.a0)] * (train != "hidden")
        moved = np.sqrt(sum(np.sum((now - start) ** 2) for now, start in trained))
        unit, unit_0 = trained[0]
        x = data.x_train
        found = {
            "displacement": moved,
            "relative_displacement": moved / np.sqrt(sum(np.sum(start**2) for _, start in trained)),
            "max_neuron_displacement": np.max(np.linalg.norm(unit - unit_0, axis=1)),
            "activation_flips": np.mean((x @ w.T > 0) != (x @ self.w0.T > 0)),
        }
        parts = (("train", data.y_train, f, own, lim), ("test", data.y_test, f_test, own_test, lim_test))
        for part, y, f, own, lim in parts:
            y = y.reshape(len(y), -1)
            for name, one, other in zip(GAPS, (f, own, f), (own, lim, lim), strict=True):
                found[f"{name}_{part}"] = np.sqrt(np.mean((one - other) ** 2))
            for prefix, g in (("", f), ("kernel_", lim)):
                found[f"{prefix}{part}_loss"] = 0.5 * np.sum((g - y) ** 2)
                wrong = y * g <= 0 if y.shape[1] == 1 else np.argmax(g, 1) != np.argmax(y, 1)
                found[f"{prefix}{part}_error"] = np.mean(wrong)
        found["residual_norm"] = np.sqrt(2 * found["train_loss"])
        return found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, id=name.replace(" ", "_"), marks=[] if name == "relu" else pytest.mark.slow)
        for name in CASES
    ],
)
def case(request):
    network, data = CASES[request.param]
    widths = WIDTHS if request.param == "relu" else WIDTHS[:1]
    result = swept(request.param)
    rate = float(result.learning_rate[0])
    return network, data, result, {(m, s): Reference(network, data, m, s, rate) for m in widths for s in SEEDS}


@pytest.mark.slow
def test_values(case):
    """Every variable equals the reference at each width, seed and snapshot, up to rounding errors."""
    network, data, result, references = case
    assert float(result.learning_rate[0]) == pytest.approx(1 / float(result.lambda_max), rel=1e-14)
    names = [name for name in result if "step" in result[name].dims]
    assert len(names) >= 21
    for (m, s), reference in references.items():
        member = result.sel(width=m, seed=s) if "seed" in result.dims else result.sel(width=m)
        for name in names:
            for step in result.step.values:
                expected = reference.rows[step][name]
                if name.endswith("_error") and step == 0 and network.symmetric:
                    expected = 1 - 1 / max(2, data.outputs)
                found = float(member[name].sel(step=step))
                assert found == pytest.approx(expected, rel=1e-8, abs=1e-10), (name, m, s, step)
        assert float(member.initial_kernel_error) == pytest.approx(reference.initial_kernel_error, rel=1e-10)
        for name, expected in reference.limit.items():
            assert float(result[name]) == pytest.approx(expected, rel=1e-7), name
        if "lemma_bound" in result:
            assert float(member.lemma_bound) == pytest.approx(reference.lemma, rel=1e-7)


def test_names_dims_and_dtypes(case):
    network, _, result, _ = case
    member, cell = ("width", "seed", "step"), ("width", "seed")
    parts = ("train", "test")
    expected = {
        **{f"{part}_{what}": member for part in parts for what in ("loss", "error")},
        **{name: member for name in ("residual_norm", "displacement", "relative_displacement")},
        **{name: member for name in ("max_neuron_displacement", "activation_flips", "kernel_drift")},
        **{f"{gap}_{part}": member for gap in GAPS for part in parts},
        **dict.fromkeys(("initial_kernel_error", "status", "stopped_step"), cell),
        **{f"kernel_{name}": ("step",) if network.symmetric else member for name in KERNEL},
        "linearized_displacement": ("step",) if network.symmetric else member,
        **dict.fromkeys(("lambda_min", "lambda_max", "label_norm", "complexity"), ()),
    }
    if network.train == "hidden" and network.readout == "sign":
        expected |= {"path_bound": member, "lemma_bound": cell}
    assert {name: result[name].dims for name in result} == expected
    for name in result:
        wanted = {"status": np.int8, "stopped_step": np.int64}.get(name, np.float64)
        assert result[name].dtype == wanted, name
        assert result[name].attrs["long_name"]
        assert result[name].attrs["references"]
    assert result.width.values.tolist() == list(WIDTHS[: result.sizes["width"]])
    assert result.seed.values.tolist() == list(SEEDS)
    assert (result.status == 0).all()
    assert (result.stopped_step == STEPS).all()


def test_gaps_obey_the_triangle_inequality(case):
    result = case[2]
    for part in ("train", "test"):
        total = result[f"linearization_gap_{part}"] + result[f"start_gap_{part}"]
        assert (result[f"kernel_gap_{part}"] <= total + 1e-12).all()
        assert (result[f"kernel_gap_{part}"] >= abs(total - 2 * result[f"start_gap_{part}"]) - 1e-12).all()


def test_attributes_are_strings_and_numbers(case):
    attrs = case[2].attrs
    assert all(isinstance(value, str | float | int) for value in attrs.values())
    for name in ("jax", "flax", "optax", "lazynet", *(["neural_tangents"] if INSTALLED else [])):
        assert attrs[f"{name}_version"][0].isdigit()
    assert attrs["dtype"] == "float64"
    assert attrs["precision"] == "highest"
    assert float(case[2].target_rms) == pytest.approx(np.sqrt(np.mean(case[1].y_train ** 2)))


@pytest.mark.parametrize(("steps", "snapshots"), [(1000, 20), (30, 20), (1, 5), (7, 1)])
def test_snapshots_are_rounded_log_spaced_steps(steps, snapshots):
    from lazynet.training import snapshot_steps

    expected = {0, steps, *(round(10 ** (np.log10(steps) * i / max(1, snapshots - 1))) for i in range(snapshots))}
    assert snapshot_steps(steps, snapshots).tolist() == sorted(expected)


@pytest.fixture(scope="module")
def parameter_route():
    """Return a sweep, and the same sweep with the linearized networks trained in parameter space."""
    network, data = CASES["both"]
    with pytest.MonkeyPatch.context() as patch:
        # Import the private module, so that its constant and its function can be replaced.
        predictions = importlib.import_module("lazynet.experiment._predictions")
        patch.setattr(predictions, "LARGEST_EIGENPROBLEM", 0)
        kernels = []
        patch.setattr(predictions, "_own_descent", lambda *args: kernels.append(args))
        trained = lz.sweep(network, data, WIDTHS[:1], **SETTINGS)
        assert not kernels
    return swept("both"), trained


@pytest.mark.slow
def test_linearized_in_parameters_is_kernel_descent(parameter_route):
    direct, trained = parameter_route
    assert float(direct.linearization_gap_train.max()) > 1e-3
    for name in direct:
        np.testing.assert_allclose(trained[name], direct[name], rtol=0, atol=1e-10, err_msg=name)


OTHER = {
    "momentum": {"optimizer": lz.Optimizer(momentum=0.9)},
    # The size of Adam's steps is about the learning rate, which must decrease with the width.
    "adam": {"optimizer": "adam", "learning_rate": lambda m: 0.1 / m},
    "logistic": {"loss": "logistic"},
    "batches": {"batch_size": 7},
}


def test_other_training_is_not_plain():
    assert make_training(10, snapshots=2, dtype="float32").plain
    for settings in OTHER.values():
        options = {name: value for name, value in settings.items() if name != "learning_rate"}
        assert not make_training(10, snapshots=2, dtype="float32", **options).plain


def _other(*names):
    settings = {"learning_rate": 0.002}
    for name in names:
        settings |= OTHER[name]
    # Adam in optax relies on implicit dtype promotion.
    with jax.numpy_dtype_promotion("standard"):
        return lz.sweep(lz.TwoLayer(width=16), DATA, [64, 4096], 1, 10, **settings)


def _check_linearization(result):
    assert not {"path_bound", "lemma_bound"} & set(result)
    assert "initial_kernel_error" in result
    moved = float(np.sqrt(np.mean(result.residual_norm.isel(step=0) ** 2)) / np.sqrt(DATA.n_train))
    gap = result.linearization_gap_train.isel(seed=0, step=-1).values
    # The gap falls with the width and stays far below the initial residual; with a different order of batches, it would
    # not.
    assert 0 < gap[1] < 0.5 * gap[0]
    assert gap[1] < 0.005 * moved
    return moved


@pytest.mark.whole
def test_adam_has_no_limit_but_a_linearization():
    """Descent with the kernel of a linear output does not predict Adam, but the linearized network takes its steps."""
    result = _other("adam")
    for name in result:
        assert not name.startswith(("kernel_gap", "start_gap", "kernel_train", "kernel_test")), name
    assert "linearized_displacement" not in result
    _check_linearization(result)


@pytest.mark.whole
@pytest.mark.parametrize("names", [("momentum", "batches"), ("logistic",)], ids="-".join)
def test_other_training_has_a_limit_and_a_linearization(names):
    """Descent in the infinite-width kernel takes the steps of momentum, of mini-batches, and of the logistic loss."""
    result = _other(*names)
    moved = _check_linearization(result)
    start = result.start_gap_train.isel(seed=0, step=-1).values
    assert 0 < start[1] < 0.5 * start[0]
    assert start[1] < 0.02 * moved
    ratio = (result.displacement / result.linearized_displacement).isel(seed=0, step=-1).values
    assert abs(ratio[1] - 1) < 0.01


@pytest.mark.slow
def test_softmax_loss_and_its_linearization():
    result = lz.sweep(lz.TwoLayer(width=16, outputs=3), THREE, [1024], 1, 10, learning_rate=0.5, loss="softmax")
    assert float(result.train_loss[0, 0, 0]) == pytest.approx(np.log(3), rel=1e-6)
    assert float(result.train_loss[0, 0, -1]) < 1.0
    assert float(result.linearization_gap_train.max()) < 0.01


@pytest.mark.slow
def test_without_test_rows():
    result = lz.sweep(lz.TwoLayer(width=16), lz.Dataset(DATA.x_train, DATA.y_train), [16], **SETTINGS)
    assert np.isnan(result.test_loss).all()
    assert not [name for name in result if name.endswith("gap_test")]
    np.testing.assert_allclose(result.train_loss, swept("relu").train_loss.sel(width=[16]), rtol=1e-12)
    assert "relative_displacement" in lz.verify(result).levels


@pytest.mark.slow
def test_errors_of_targets_that_are_no_labels_are_unknown():
    data = lz.Dataset(DATA.x_train, 0.7 * DATA.y_train, DATA.x_test, DATA.y_test)
    result = lz.sweep(lz.TwoLayer(width=16), data, [16], **SETTINGS)
    for name in ("train_error", "test_error", "kernel_train_error", "kernel_test_error"):
        assert np.isnan(result[name]).all(), name
    assert np.isfinite(result.train_loss).all()


@pytest.mark.slow
def test_scales_that_depend_on_the_width():
    """Each width has its own kernel and learning rate, as in a sweep of that width alone with constant scales."""
    first = float(swept("relu").learning_rate[0])
    # All scales are 1 at the smaller width.
    network = lz.TwoLayer(16, output_scale=lambda m: (m / 16) ** -0.25, init_scale=lambda m: (m / 16) ** 0.1)

    def rate(m):
        return first * (m / 16) ** 0.5

    result = lz.sweep(network, DATA, WIDTHS, learning_rate=rate, **SETTINGS)
    assert result.lambda_max.dims == ("width",)
    assert result.kernel_train_loss.dims == ("width", "step")
    fixed = lz.TwoLayer(32, output_scale=2**-0.25, init_scale=2**0.1)
    for m, alone in ((16, swept("relu")), (32, lz.sweep(fixed, DATA, [32], learning_rate=rate(32), **SETTINGS))):
        assert alone.kernel_train_loss.dims == ("step",)
        for name in alone:
            one, other = result[name].sel(width=m), alone[name]
            other = other.sel(width=m) if "width" in other.dims else other
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12, err_msg=name)
    for scale, value in (("learning_rate", rate), ("output_scale", network.output_scale)):
        np.testing.assert_allclose(result[scale], [value(m) for m in WIDTHS])


def test_label_noise_is_one_draw_for_all_members():
    from lazynet.training._keys import noise_key

    noisy = lz.label_noise(DATA.y_train, 0.5, noise_key())
    assert (noisy != DATA.y_train).any()
    data = lz.Dataset(DATA.x_train, noisy, DATA.x_test, DATA.y_test)
    by_hand = lz.sweep(lz.TwoLayer(width=16), data, [16], **SETTINGS)
    drawn = lz.sweep(lz.TwoLayer(width=16), DATA, [16], axes={"label_noise": [0.5]}, **SETTINGS)
    for name in by_hand:
        np.testing.assert_array_equal(drawn[name], by_hand[name])


@pytest.mark.slow
def test_train_is_the_sweeps_member():
    sweep = swept("relu")
    run = lz.train(lz.TwoLayer(width=32), DATA, member_key(32, 1), STEPS, dtype="float64")
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 32), 1)
    again = lz.train(lz.TwoLayer(width=32), DATA, key, STEPS, dtype="float64")
    assert run.status == "finished"
    assert int(run.snapshots.stopped_step) == STEPS
    member = sweep.sel(width=32, seed=1)
    for name in run.snapshots:
        if name in sweep:
            np.testing.assert_allclose(run.snapshots[name], member[name], rtol=1e-12, atol=1e-13, err_msg=name)
        np.testing.assert_array_equal(run.snapshots[name], again.snapshots[name])
    network = lz.TwoLayer(width=32)
    with float64():
        last = np.asarray(network.apply(run.variables, jnp.asarray(DATA.x_test)))
        first = np.asarray(network.apply(run.variables_0, jnp.asarray(DATA.x_test)))
    np.testing.assert_allclose(run.snapshots.test_prediction[-1], last, atol=1e-13)
    np.testing.assert_allclose(run.snapshots.test_prediction[0], first, atol=1e-13)
    assert run.snapshots.train_prediction.shape == (len(sweep.step), DATA.n_train)
