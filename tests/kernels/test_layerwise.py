"""The empirical kernel of any network against the Jacobian that JAX gives of it."""

from math import prod
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from networks import FUNCTIONS, MODULES, Perceptron, arrays_of, together
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.kernels import _blockwise as blockwise
from lazynet.kernels._tracing import trace, uses
from lazynet.networks import Linearized
from lazynet.precision import float64


def rows(n, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape))


def drawn(network, x, dtype=np.float64):
    """Variables away from any start: what is fixed is positive, integers are 3."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.full(leaf.shape, 3, leaf.dtype)
        a = rng.normal(size=leaf.shape).astype(dtype)
        return a if path[0].key == "params" else 1 + np.abs(a)

    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, jnp.float32))
    return dict(jax.tree_util.tree_map_with_path(draw, shapes))


def jacobians(apply, variables, x):
    """Of each array (n, k, size), NumPy float64."""
    fixed = {name: value for name, value in variables.items() if name != "params"}

    def outputs(params, fixed, x):
        return apply({**fixed, "params": params}, x).reshape(len(x), -1)

    with float64():
        found = jax.tree.leaves(jax.jit(jax.jacrev(outputs))(variables["params"], fixed, x))
        return [np.asarray(j).reshape(*j.shape[:2], prod(j.shape[2:])) for j in found]


def dense(apply, variables, x):
    """The places of the arrays that are taken as those of dense layers."""
    leaves, structure = jax.tree.flatten(variables["params"])

    def outputs(leaves, row):
        return apply({**variables, "params": jax.tree.unflatten(structure, leaves)}, row)

    with float64():
        program = trace(outputs, leaves, jnp.asarray(x[:1]))
    return {place for place, use in uses(program, program.arguments[:-1], program.arguments[-1]).items() if use}


def parts_of(apply, variables, x1, x2):
    """What each array adds to the kernel of every pair of outputs, from the Jacobian."""
    both = jacobians(apply, variables, np.concatenate([x1, x2]))
    return [np.einsum("icp,jdp->icjd", j[: len(x1)], j[len(x1) :]) for j in both]


def average(kernel):
    return np.einsum("icjc->ij", kernel) / kernel.shape[1]


def check(network, variables, x):
    """Every form of the kernel against the Jacobian."""
    expected = parts_of(network.apply, variables, x, x)
    found = lz.empirical_ntk(network, variables, x, outputs="all", parts=True)
    for part, whole in zip(found.values(), expected, strict=True):
        assert_close(part, whole)
    whole = lz.empirical_ntk(network, variables, x[:2], x[2:])
    assert_close(whole, average(sum(expected))[:2, 2:])


@pytest.fixture(scope="module")
def functions():
    """Of each array of the functions: what it adds to the kernel, what it should add, and whether it is dense."""
    variables = {"params": {name: arrays_of(shapes) for name, (shapes, _, _) in FUNCTIONS.items()}}
    x = rows(5, 6)
    found = lz.empirical_ntk(together, variables, x, outputs="all", parts=True)
    expected = parts_of(together, variables, x, x)
    places = dense(together, variables, x)
    return {path: (found[path], expected[i], i in places) for i, path in enumerate(found)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, functions):
    shapes, _, expected = FUNCTIONS[name]
    for array in arrays_of(shapes):
        part, exact, is_dense = functions[f"{name}/{array}"]
        assert_close(part, exact)
        assert np.any(exact) == (
            (name, array) not in {("unused", "v"), ("stopped", "w"), ("empty", "v"), ("constant", "w")}
        )
        assert is_dense == (array in expected.split())


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    network, shape, general = MODULES[name]
    x = rows(5, *shape)
    variables = drawn(network, x)
    # flax's normalization mixes dtypes.
    with jax.numpy_dtype_promotion("standard"):
        check(network, variables, x)
        taken = dense(network.apply, variables, x)
    paths = sorted(traverse_util.flatten_dict(variables["params"], sep="/"))
    assert {path for place, path in enumerate(paths) if place not in taken} == set(general.split())


@pytest.fixture(scope="module")
def mixed():
    """A network with dense layers and one array shared between layers, its variables, 11 rows, and the kernel."""

    def apply(variables, x):
        p = variables["params"]
        h = jnp.tanh(jnp.tanh(x @ p["w"] + p["b"][None]) @ p["s"])
        return jnp.tanh(h @ p["s"]) @ p["v"]

    variables = {"params": arrays_of("w b:6 s v:6,2")}
    x = rows(11, 6)
    return apply, variables, x, sum(parts_of(apply, variables, x, x))


@pytest.mark.parametrize("most", [1, 4, 5, 11])
@pytest.mark.parametrize("held", [1, 2, 99])
def test_blocks(mixed, most, held, monkeypatch):
    apply, variables, x, expected = mixed
    monkeypatch.setattr(blockwise, "BLOCK", most)
    plan = blockwise.plan_blocks
    monkeypatch.setattr(blockwise, "plan_blocks", lambda *given: plan(*given)._replace(held=held))
    symmetric = lz.empirical_ntk(apply, variables, x, outputs="all")
    assert_close(symmetric, expected)
    np.testing.assert_array_equal(symmetric, symmetric.transpose(2, 3, 0, 1))
    np.testing.assert_array_equal(lz.empirical_ntk(apply, variables, x), lz.empirical_ntk(apply, variables, x).T)
    assert_close(lz.empirical_ntk(apply, variables, x[:4], x[2:]), average(expected)[:4, 2:])
    assert_close(lz.empirical_ntk(apply, variables, x, x[:3]), average(expected)[:, :3])


def test_a_symmetric_kernel_takes_half_of_the_products_and_is_so_however_they_round(mixed, monkeypatch):
    apply, variables, x, expected = mixed
    monkeypatch.setattr(blockwise, "BLOCK", 2)
    calls = []

    def rounded(*arguments, **options):
        programs = right(*arguments, **options)

        def product(*layers):
            calls.append(1)
            noise = 1e-9 * rows(2, 1, 2, 1, seed=len(calls))
            return {place: np.asarray(block) + noise for place, block in programs.product(*layers).items()}

        return programs._replace(product=product)

    right = blockwise.Blockwise._compile
    monkeypatch.setattr(blockwise.Blockwise, "_compile", rounded)
    kernel = lz.empirical_ntk(apply, variables, x)
    assert len(calls) == 6 * 7 / 2
    assert_close(kernel, average(expected), ulps=1e8)
    np.testing.assert_array_equal(kernel, kernel.T)


def test_memory_is_kept(mixed):
    apply, variables, x, expected = mixed
    with float64():
        blocks = blockwise.Blockwise(apply, jax.tree.map(jnp.asarray, variables), "all", False)
        least = sum(blocks.needed(1, (6,)))
        plans = []
        for memory in np.geomspace(least, 50 * least, 6).astype(int).tolist():
            rows, held = blocks.plan(len(x), (6,), memory)
            beside, each = blocks.needed(rows, (6,))
            assert beside + held * each <= memory
            plans.append((rows, held))
            if memory < 3 * least:
                assert_close(blocks(x, None, memory=memory, dtype="float64")[0], expected)
        with pytest.raises(ValueError, match=r"One row of the empirical kernel .* takes 0.00 GB, but 0.00 GB"):
            blocks.plan(len(x), (6,), least - 1)
    # More memory means larger blocks.
    assert plans == sorted(plans)
    assert plans[0] == (1, 1)
    assert plans[-1] == (11, 1)


def test_what_a_program_takes_is_counted():
    """Of a dense layer with a bias and one without, by hand: both factors of each for 32 rows, the bias for nothing."""
    d, m, k, n = 64, 128, 3, 32

    def apply(variables, x):
        p = variables["params"]
        return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]

    with float64():
        variables = jax.tree.map(jnp.asarray, {"params": {"w": rows(d, m), "b": np.zeros(m), "v": rows(m, k)}})
        beside, each = blockwise.Blockwise(apply, variables, "average", False).needed(n, (d,))
    assert each == 8 * n * (d + k * m + m + k * k)
    least = 8 * (d * m + m + m * k + n * d) + each
    assert least < beside < 4 * least


def test_too_little_memory_is_refused(mixed):
    apply, variables, x, _ = mixed
    with pytest.raises(ValueError, match=r"One row of the empirical kernel against one row takes .* GB, but 0.00 GB"):
        lz.empirical_ntk(apply, variables, x, memory=100)


def test_a_two_layer_network_goes_by_blocks_where_memory_is_short():
    network, x = lz.TwoLayer(width=512), rows(64, 6)
    variables = drawn(network, x)
    whole = lz.empirical_ntk(network, variables, x)
    assert_close(lz.empirical_ntk(network, variables, x, memory=300_000), whole)
    with pytest.raises(ValueError, match="One row of the empirical kernel"):
        lz.empirical_ntk(network, variables, x, memory=1000)


@pytest.mark.parametrize("outputs", ["average", "all"])
def test_parts_add_up_and_are_called_by_their_path(outputs):
    network, x = Perceptron(widths=(7,), outputs=2), rows(4, 5)
    variables = drawn(network, x)
    parts = lz.empirical_ntk(network, variables, x, parts=True, outputs=outputs)
    assert list(parts) == ["Dense_0/bias", "Dense_0/kernel", "Dense_1/bias", "Dense_1/kernel"]
    assert_close(sum(parts.values()), lz.empirical_ntk(network, variables, x, outputs=outputs))
    # A bias moves one output alone, by as much for every row.
    one = np.ones((4, 4)) if outputs == "average" else np.einsum("ij,cd->icjd", np.ones((4, 4)), np.eye(2))
    assert_close(parts["Dense_1/bias"], one)


@pytest.mark.parametrize("train", ["hidden", "readout", "both"])
def test_parts_of_the_two_layer_network(train):
    network, x = lz.TwoLayer(width=16, outputs=2, train=train, readout="gaussian"), rows(4, 5)
    variables = drawn(network, x)
    parts = lz.empirical_ntk(network, variables, x, parts=True)
    assert list(parts) == (["hidden", "readout"] if train == "both" else [train])
    assert_close(sum(parts.values()), lz.empirical_ntk(network, variables, x))


def test_float32():
    network, x = Perceptron(outputs=2), rows(6, 5).astype("float32")
    variables = drawn(network, x, "float32")
    exact = lz.empirical_ntk(network, variables, x, dtype="float64")
    found = lz.empirical_ntk(network, variables, x)
    assert found.dtype == exact.dtype == np.float64
    assert_close(found, exact, dtype="float32")
    # Otherwise it was computed in float64.
    assert np.abs(found - exact).max() > 1e-9
    single = lz.empirical_ntk(network, variables, x, dtype="float32")
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, found)
    assert not jax.config.jax_enable_x64


def test_a_linearized_network_has_the_kernel_of_its_origin():
    network, x = Perceptron(outputs=2), rows(4, 5)
    linear, start = Linearized(network), drawn(network, x)
    at = linear.at(start)
    assert dense(linear.apply, at, x) == set(range(6))
    moved = {**at, "params": jax.tree.map(lambda a: a + 1, at["params"])}
    assert_close(lz.empirical_ntk(linear, moved, x), lz.empirical_ntk(network, start, x))


def test_a_number_that_is_an_output():
    found = lz.empirical_ntk(lambda variables, x: x[:, 0] * variables["params"], {"params": np.ones(())}, rows(4, 6))
    assert_close(found, np.outer(rows(4, 6)[:, 0], rows(4, 6)[:, 0]))


def test_a_network_without_a_hash():
    network = SimpleNamespace(apply=lambda variables, x: x @ variables["params"]["w"])
    found = lz.empirical_ntk(network, {"params": {"w": rows(6, 1)}}, rows(4, 6))
    assert_close(found, rows(4, 6) @ rows(4, 6).T)


def test_a_network_is_traced_once():
    traces = []

    def apply(variables, x):
        traces.append(x.shape)
        return x @ variables["params"]["w"]

    variables = {"params": arrays_of("w")}
    for _ in range(3):
        lz.empirical_ntk(apply, variables, rows(5, 6))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda p, x: (x @ p["w"]).sum(), r"gives float64 \(\) for one row, but must give floats"),
        (lambda p, x: (x @ p["w"])[None], r"gives float64 \(1, 1, 6\) for one row"),
        (lambda p, x: (x @ p["w"]).astype(complex), r"gives complex128 \(1, 6\)"),
        (lambda p, x: (x @ p["w"], x), "gives a tuple for one row"),
        (lambda p, x: jnp.sin(x), "has no array that the outputs of network depend on"),
    ],
)
def test_other_outputs_are_refused(function, sentence):
    with pytest.raises(ValueError, match=sentence):
        lz.empirical_ntk(lambda variables, x: function(variables["params"], x), {"params": arrays_of("w")}, rows(3, 6))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"network": 3}, r"network is a int, but must be or have a function apply\(variables, x\)"),
        ({"variables": {"fixed": {}}}, "variables has 'fixed', but must have 'params'"),
        ({"variables": {"params": {"a": {"b": np.arange(3)}}}}, "has int64 at 'a/b', but must have arrays of floats"),
        ({"variables": {"params": {"a": 1.0}}}, "has a float at 'a', but must have arrays of floats"),
        ({"x1": np.ones(6)}, r"x1 has shape \(6,\), but must have rows \(n, d\), at least one"),
        ({"x1": np.ones((0, 6))}, r"x1 has shape \(0, 6\), but must have rows"),
        ({"x2": np.ones((2, 5))}, r"x2 has shape \(2, 5\), but must have rows \(6,\) as x1 has"),
        ({"x2": np.ones((0, 6))}, r"x2 has shape \(0, 6\), but must have rows .* at least one"),
    ],
)
def test_bad_arguments_are_refused(change, sentence):
    given = {"network": lambda variables, x: x @ variables["params"]["w"], "variables": {"params": arrays_of("w")}}
    with unchecked(), pytest.raises(ValueError, match=sentence):
        lz.empirical_ntk(**{**given, "x1": rows(3, 6), **change})
