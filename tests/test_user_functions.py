"""Public functions trace the user's functions anew in each call, so changes in what these functions read matter."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import lazynet as lz
from lazynet import programs
from lazynet.programs import compiled, entry, is_fixed

X = np.random.default_rng(0).normal(size=(5, 6))
DATA = lz.Dataset(X, np.sign(X[:, 0]))
KEY = jax.random.key(0)
ALONE = lz.Measure(predictions=False, kernel_drift=False)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(6, 8, rngs=rngs)
        self.head = nnx.Linear(8, 1, rngs=rngs)


def test_a_module_that_a_function_closes_over_may_change():
    """The kernel of the last layer is the Gram matrix of its inputs, which NumPy computes here."""
    net = Net(nnx.Rngs(0))

    def last_layer(variables, rows):
        return jnp.tanh(net.body(rows.astype("float32"))) @ variables["params"]["w"].astype("float32")

    def right():
        hidden = np.tanh(X @ np.asarray(net.body.kernel[...], float) + np.asarray(net.body.bias[...], float))
        return hidden @ hidden.T

    variables = {"params": {"w": net.head.kernel[...]}}
    for _ in range(2):
        np.testing.assert_allclose(lz.empirical_ntk(last_layer, variables, X), right(), rtol=1e-5)
        net.body.kernel[...] = 2 * net.body.kernel[...]


class Own:
    def __init__(self):
        self.gain = 1.0

    def apply(self, variables, rows):
        return self.gain * (rows @ variables["params"]["w"])[:, 0]


def test_an_attribute_of_a_network_may_change():
    own, variables = Own(), {"params": {"w": jnp.ones((6, 1))}}
    before = lz.empirical_ntk(own, variables, X)
    own.gain = 3.0
    np.testing.assert_allclose(lz.empirical_ntk(own, variables, X), 9 * before, rtol=1e-6)


def test_the_shapes_of_a_network_may_change():
    """JAX finds the trace of a function that is not a method by its identity."""
    sizes = [2]
    own = SimpleNamespace(
        init=lambda key, rows: {"params": jnp.ones((rows.shape[1], sizes[-1]))},
        apply=lambda variables, rows: jnp.sum(rows @ variables["params"], axis=1),
    )
    for size in (2, 3):
        sizes.append(size)
        kernel = lz.empirical_ntk(own, own.init(KEY, X), X)
        np.testing.assert_allclose(kernel, size * X @ X.T, rtol=1e-5, atol=1e-5)


CONFIG = {}


def tuned(learning_rate):
    return optax.chain(optax.add_decayed_weights(CONFIG["decay"]), optax.sgd(learning_rate))


def huber(f, y):
    gap = jnp.abs(f - y)
    return jnp.where(gap < CONFIG["delta"], gap**2 / 2, CONFIG["delta"] * (gap - CONFIG["delta"] / 2))


def start(key, rows, width):
    return {"w": jax.random.normal(key, (width, rows.shape[1]))}


def outputs(params, rows):
    return CONFIG["gain"] * jnp.tanh(rows @ params["w"].T).sum(axis=1) / len(params["w"]) ** 0.5


HUBER = lz.losses.Loss("huber", huber, "mean")
MINE = lz.from_functions(start, outputs, width=16)
BUILT_IN = lz.TwoLayer(width=16)


@pytest.fixture(autouse=True)
def config():
    CONFIG.update(decay=0.0, delta=0.1, gain=1.0)


def measuring(gain):
    return dataclasses.replace(ALONE, own={"gain": gain})


CHANGES = {
    "optimizer": (BUILT_IN, {"optimizer": tuned}, "decay", 10.0),
    "loss": (BUILT_IN, {"loss": HUBER}, "delta", 10.0),
    "network": (MINE, {}, "gain", 3.0),
    "measure": (BUILT_IN, {"measure": measuring(lambda *_: jnp.asarray(CONFIG["gain"]))}, "gain", 3.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", CHANGES)
def test_a_run_uses_what_a_function_reads_at_the_call(part):
    """The run after a change equals a run with new functions, which JAX has not traced before."""
    network, options, name, value = CHANGES[part]

    def run(options, network):
        options = {"learning_rate": 0.01, "measure": ALONE, **options}
        found = lz.train(network, DATA, KEY, 3, **options).snapshots
        return found.gain.values if part == "measure" else found.train_loss.values

    before = run(options, network)
    CONFIG[name] = value
    after = run(options, network)
    assert not np.array_equal(before, after)
    made_later = {
        "optimizer": {"optimizer": lambda rate: optax.chain(optax.add_decayed_weights(10.0), optax.sgd(rate))},
        "loss": {"loss": lz.losses.Loss("huber", lambda f, y: (f - y) ** 2 / 2, "mean")},
        "network": {},
        "measure": {"measure": measuring(lambda *_: jnp.asarray(3.0))},
    }[part]
    if part == "network":
        network = lz.from_functions(start, lambda params, rows: outputs(params, rows), width=16)
    np.testing.assert_allclose(after, run(made_later, network), rtol=1e-5)


@pytest.mark.slow
def test_the_run_after_an_interrupted_one_is_as_before():
    """Ctrl-C while JAX traces the network, at its first call, halfway, and at its last call."""
    calls, interrupt_at = 0, 0

    def interrupted(params, rows):
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            raise KeyboardInterrupt
        return outputs(params, rows)

    network = lz.from_functions(start, interrupted, width=16)

    def run():
        nonlocal calls
        calls = 0
        found = lz.train(network, DATA, KEY, 3, learning_rate=0.01, measure=ALONE)
        return found.snapshots.train_loss.values

    expected = run()
    total = calls
    assert total > 2
    for interrupt_at in (1, total // 2, total):
        with pytest.raises(KeyboardInterrupt):
            run()
        interrupt_at = 0
        np.testing.assert_array_equal(run(), expected)


@pytest.mark.slow
def test_a_loss_of_a_prediction_may_change():
    def predicted():
        return lz.kernel_descent(np.eye(5), DATA.y_train, learning_rate=0.5, steps=4, loss=HUBER).train

    def flowed():
        return lz.kernel_flow(np.eye(5), DATA.y_train, times=[2.0], loss=HUBER).train

    before, flowed_before = predicted(), flowed()
    CONFIG["delta"] = 10.0
    # With this delta, the loss is half the mean of squares; the kernel is the identity, so examples are independent.
    expected = [(1 - (1 - 0.1) ** step) * DATA.y_train for step in range(5)]
    np.testing.assert_allclose(predicted(), expected, rtol=1e-6)
    np.testing.assert_allclose(flowed()[0], (1 - np.exp(-2 / 5)) * DATA.y_train, rtol=1e-4)
    assert np.abs(before - expected).max() > 0.1
    assert np.abs(flowed_before - flowed()).max() > 0.1


def test_a_monte_carlo_kernel_may_change():
    before = lz.monte_carlo_kernel(MINE.clone(width=32), X, starts=2).kernel
    CONFIG["gain"] = 3.0
    np.testing.assert_allclose(lz.monte_carlo_kernel(MINE.clone(width=32), X, starts=2).kernel, 9 * before, rtol=1e-5)


@pytest.mark.slow
def test_a_sweep_may_change():
    def sweep():
        options = {"learning_rate": 0.01, "measure": ALONE, "progress": False}
        return lz.sweep(MINE, DATA, [8], 2, 2, **options).train_loss.values[..., 0]

    before = sweep()
    CONFIG["gain"] = 0.0
    np.testing.assert_allclose(sweep(), 2.5)
    assert np.abs(before - 2.5).min() > 1e-3


@pytest.mark.slow
def test_a_registered_quantity_may_change():
    quantity = lz.Quantity("gain", "a number", measure=lambda *_: jnp.asarray(CONFIG["gain"]))
    lz.measures.register_quantity(quantity)
    try:
        for value in (1.0, 3.0):
            CONFIG["gain"] = value
            assert (lz.train(BUILT_IN, DATA, KEY, 1, measure=ALONE).snapshots.gain == value).all()
    finally:
        lz.measures.unregister_quantity("gain")


@pytest.fixture
def counted():
    """Return a compiled function with a static argument, an entry that calls it twice, and a list of its traces."""
    traces = []

    @compiled(static_argnames="network")
    def program(network, x, extra=None):
        traces.append(network)
        return network(x) if extra is None else network(x) + extra["a"]

    @entry
    def twice(network, x):
        return program(network, x) + program(network, x=x)

    return program, twice, traces


def plain(x):
    return CONFIG["gain"] * x


@pytest.mark.slow
def test_an_entry_traces_once_and_uses_an_equal_program_again(counted):
    _, twice, traces = counted
    x = jnp.ones(3)
    programs.release()
    for _ in range(3):
        np.testing.assert_array_equal(twice(plain, x), [2, 2, 2])
    assert len(traces) == 3
    assert len(programs._programs) == 1
    CONFIG["gain"] = 5.0
    np.testing.assert_array_equal(twice(plain, x), [10, 10, 10])
    assert len(programs._programs) == 2
    # Another shape needs another program, but a trace by the caller stores no program.
    assert twice(plain, jnp.ones(4)).shape == (4,)
    assert len(programs._programs) == 3
    np.testing.assert_array_equal(jax.jit(lambda x: twice(plain, x))(x), [10, 10, 10])
    np.testing.assert_array_equal(jax.grad(lambda x: twice(plain, x).sum())(x), [10, 10, 10])


def test_programs_with_other_names_of_results_are_other_programs():
    """Two programs may have the same text but different names of their results."""

    @compiled(static_argnames="network")
    def named(network, x):
        return {network(x): x}

    @entry
    def call(network, x):
        return named(network, x)

    assert set(call(lambda x: "a", jnp.ones(3))) == {"a"}
    assert set(call(lambda x: "b", jnp.ones(3))) == {"b"}


def test_programs_that_call_python_are_not_taken_for_each_other():
    @compiled(static_argnames="network")
    def called_back(network, x):
        return jax.pure_callback(network, jax.ShapeDtypeStruct((3,), "float32"), x)

    @entry
    def call(network, x):
        return called_back(network, x)

    for factor in (2.0, 3.0):
        np.testing.assert_array_equal(call(lambda x, factor=factor: np.float32(factor) * x, jnp.ones(3)), factor)


def test_large_constants_are_not_taken_for_each_other():
    @compiled(static_argnames="network")
    def multiplied(network, x):
        return network(x)

    @entry
    def call(network, x):
        return multiplied(network, x)

    for factor in (2.0, 3.0):
        matrix = factor * np.eye(1000, dtype=np.float32)
        np.testing.assert_array_equal(call(lambda x, matrix=matrix: jnp.asarray(matrix) @ x, jnp.ones(1000)), factor)


@pytest.mark.slow
def test_the_number_of_kept_programs_is_limited(counted, monkeypatch):
    monkeypatch.setattr(programs, "KEPT", 8)
    _, twice, _ = counted
    for i in range(programs.KEPT + 3):
        twice(lambda x, i=i: x + i, jnp.ones(2))
    assert len(programs._programs) == programs.KEPT
    programs.release()
    assert not programs._programs


@dataclasses.dataclass(frozen=True)
class Outside:
    number: float = 1.0


def test_what_can_change_is_told_from_what_cannot():
    fixed = [None, 1.0, "relu", np.ones(2), jnp.ones(2), [1, (2, 3)], {"a": jnp.tanh}, jax.nn.relu, BUILT_IN, DATA]
    fixed += [np.dtype("float32")]
    fixed += [lz.losses.logistic(), lz.Optimizer("sgd", momentum=0.9), lz.Measure(), lz.MLP(8, depth=3), optax.sgd]
    assert all(map(is_fixed, fixed))
    changing = [plain, lambda x: x, Own(), Outside(), MINE, HUBER, {"a": [plain]}, lz.Measure(own={"a": plain})]
    changing += [lz.TwoLayer(8, activation=plain), lz.TwoLayer(8, output_scale=lambda m: m**-0.5)]
    changing += [lz.Optimizer("sgd", schedule=plain), optax.sgd(0.1)]
    assert not any(map(is_fixed, changing))
