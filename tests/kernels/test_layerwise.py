"""Test empirical kernels of arbitrary networks against Jacobians from JAX."""

from math import prod
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from marks import slow_unless
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
    """Return random arrays for the network's variables; fixed floats are positive, and all integers are 3."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.full(leaf.shape, 3, leaf.dtype)
        a = rng.normal(size=leaf.shape).astype(dtype)
        return a if path[0].key == "params" else 1 + np.abs(a)

    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, jnp.float32))
    return dict(jax.tree_util.tree_map_with_path(draw, shapes))


def jacobians(apply, variables, x):
    """Return the Jacobian with respect to each array, of shape (n, k, size), in NumPy float64."""
    fixed = {name: value for name, value in variables.items() if name != "params"}

    def outputs(params, fixed, x):
        return apply({**fixed, "params": params}, x).reshape(len(x), -1)

    with float64():
        leaves = jax.tree.leaves(jax.jit(jax.jacrev(outputs))(variables["params"], fixed, x))
        return [np.asarray(j).reshape(*j.shape[:2], prod(j.shape[2:])) for j in leaves]


def dense(apply, variables, x):
    """Return the positions of the parameter arrays that are recognized as dense layers."""
    leaves, structure = jax.tree.flatten(variables["params"])

    def outputs(leaves, row):
        return apply({**variables, "params": jax.tree.unflatten(structure, leaves)}, row)

    with float64():
        program = trace(outputs, leaves, jnp.asarray(x[:1]))
    return {position for position, use in uses(program, program.arguments[:-1], program.arguments[-1]).items() if use}


def parts_of(apply, variables, x1, x2):
    """Return each array's contribution to the kernel of all pairs of outputs, computed from the Jacobian."""
    stacked = jacobians(apply, variables, np.concatenate([x1, x2]))
    return [np.einsum("icp,jdp->icjd", j[: len(x1)], j[len(x1) :]) for j in stacked]


def average(kernel):
    return np.einsum("icjc->ij", kernel) / kernel.shape[1]


def check(network, variables, x):
    """Compare each array's part of the kernel with the part computed from the Jacobian."""
    expected = parts_of(network.apply, variables, x[:2], x[2:])
    parts = lz.empirical_ntk(network, variables, x[:2], x[2:], outputs="all", parts=True)
    for part, expected_part in zip(parts.values(), expected, strict=True):
        assert_close(part, expected_part)


@pytest.fixture(scope="module")
def functions():
    """Return for each array its part of the kernel, the expected part, and whether it counts as a dense layer."""
    variables = {"params": {name: arrays_of(shapes) for name, (shapes, _, _) in FUNCTIONS.items()}}
    x = rows(5, 6)
    parts = lz.empirical_ntk(together, variables, x, outputs="all", parts=True)
    expected = parts_of(together, variables, x, x)
    positions = dense(together, variables, x)
    return {path: (part, expected[i], i in positions) for i, (path, part) in enumerate(parts.items())}


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    network, shape, general = MODULES[name]
    x = rows(5, *shape)
    variables = drawn(network, x)
    # The normalization layers of flax mix dtypes, so they need implicit promotion.
    with jax.numpy_dtype_promotion("standard"):
        check(network, variables, x)
        positions = dense(network.apply, variables, x)
    paths = sorted(traverse_util.flatten_dict(variables["params"], sep="/"))
    assert {path for position, path in enumerate(paths) if position not in positions} == set(general.split())


@pytest.fixture(scope="module")
def mixed():
    """Return a network in which two layers share an array, along with its variables, 11 input rows, and its kernel."""

    def apply(variables, x):
        p = variables["params"]
        h = jnp.tanh(jnp.tanh(x @ p["w"] + p["b"][None]) @ p["s"])
        return jnp.tanh(h @ p["s"]) @ p["v"]

    variables = {"params": arrays_of("w b:6 s v:6,2")}
    x = rows(11, 6)
    return apply, variables, x, sum(parts_of(apply, variables, x, x))


@pytest.mark.parametrize(("most", "held"), slow_unless(lambda case: case == (4, 2), [(1, 99), (4, 1), (4, 2), (11, 1)]))
def test_blocks(mixed, most, held, monkeypatch):
    apply, variables, x, expected = mixed
    monkeypatch.setattr(blockwise, "BLOCK", most)
    plan = blockwise.plan_blocks
    monkeypatch.setattr(blockwise, "plan_blocks", lambda *arguments: plan(*arguments)._replace(held=held))
    symmetric = lz.empirical_ntk(apply, variables, x, outputs="all")
    assert_close(symmetric, expected)
    np.testing.assert_array_equal(symmetric, symmetric.transpose(2, 3, 0, 1))
    averaged = lz.empirical_ntk(apply, variables, x)
    np.testing.assert_array_equal(averaged, averaged.T)
    assert_close(lz.empirical_ntk(apply, variables, x[:4], x[2:]), average(expected)[:4, 2:])
    assert_close(lz.empirical_ntk(apply, variables, x, x[:3]), average(expected)[:, :3])


def test_a_symmetric_kernel_takes_half_of_the_products_and_is_exactly_symmetric(mixed, monkeypatch):
    apply, variables, x, expected = mixed
    monkeypatch.setattr(blockwise, "BLOCK", 2)
    calls = []

    def rounded(*arguments, **options):
        programs = compile_programs(*arguments, **options)

        def product(*layers):
            calls.append(1)
            noise = 1e-9 * rows(2, 1, 2, 1, seed=len(calls))
            return {position: np.asarray(block) + noise for position, block in programs.product(*layers).items()}

        return programs._replace(product=product)

    compile_programs = blockwise.Blockwise._compile
    monkeypatch.setattr(blockwise.Blockwise, "_compile", rounded)
    kernel = lz.empirical_ntk(apply, variables, x)
    assert len(calls) == 6 * 7 / 2
    assert_close(kernel, average(expected), ulps=1e8)
    np.testing.assert_array_equal(kernel, kernel.T)


@pytest.mark.slow
def test_memory_limit_is_respected(mixed):
    apply, variables, x, expected = mixed
    with float64():
        blocks = blockwise.Blockwise(apply, jax.tree.map(jnp.asarray, variables), "all", False)
        least = sum(blocks.needed(1, (6,)))
        plans = []
        for memory in np.geomspace(least, 50 * least, 6).astype(int).tolist():
            rows, held = blocks.plan(len(x), (6,), memory)
            working, per_block = blocks.needed(rows, (6,))
            assert working + held * per_block <= memory
            plans.append((rows, held))
            if memory < 3 * least:
                assert_close(blocks(x, None, memory=memory, dtype="float64")[0], expected)
        with pytest.raises(ValueError, match="The empirical kernel for a single pair of rows needs"):
            blocks.plan(len(x), (6,), least - 1)
    # More memory must never lead to smaller blocks.
    assert plans == sorted(plans)
    assert plans[0] == (1, 1)
    assert plans[-1] == (11, 1)


def test_the_bytes_of_a_program_are_counted():
    """A block holds both factors of each dense layer for 32 rows, and nothing in addition for the bias."""
    d, m, k, n = 64, 128, 3, 32

    def apply(variables, x):
        p = variables["params"]
        return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"]

    with float64():
        variables = jax.tree.map(jnp.asarray, {"params": {"w": rows(d, m), "b": np.zeros(m), "v": rows(m, k)}})
        working, per_block = blockwise.Blockwise(apply, variables, "average", False).needed(n, (d,))
    assert per_block == 8 * n * (d + k * m + m + k * k)
    least = 8 * (d * m + m + m * k + n * d) + per_block
    assert least < working < 4 * least


def test_too_little_memory_is_refused(mixed):
    apply, variables, x, _ = mixed
    with pytest.raises(ValueError, match="The empirical kernel for a single pair of rows"):
        lz.empirical_ntk(apply, variables, x, memory=100)


def test_a_two_layer_network_is_computed_in_blocks_if_memory_is_short():
    network, x = lz.TwoLayer(width=512), rows(64, 6)
    variables = drawn(network, x)
    kernel = lz.empirical_ntk(network, variables, x)
    assert_close(lz.empirical_ntk(network, variables, x, memory=300_000), kernel)
    with pytest.raises(ValueError, match="The empirical kernel for a single pair"):
        lz.empirical_ntk(network, variables, x, memory=1000)


@pytest.mark.parametrize("outputs", ["average", "all"])
def test_parts_add_up_and_are_named_by_path(outputs):
    network, x = Perceptron(widths=(7,), outputs=2), rows(4, 5)
    variables = drawn(network, x)
    parts = lz.empirical_ntk(network, variables, x, parts=True, outputs=outputs)
    assert list(parts) == ["Dense_0/bias", "Dense_0/kernel", "Dense_1/bias", "Dense_1/kernel"]
    assert_close(sum(parts.values()), lz.empirical_ntk(network, variables, x, outputs=outputs))
    # Each bias of the last layer shifts one output by the same amount for every row.
    expected = np.ones((4, 4)) if outputs == "average" else np.einsum("ij,cd->icjd", np.ones((4, 4)), np.eye(2))
    assert_close(parts["Dense_1/bias"], expected)


@pytest.mark.parametrize("train", ["hidden", "readout", "both"])
def test_parts_of_the_two_layer_network(train):
    network, x = lz.TwoLayer(width=16, outputs=2, train=train, readout="gaussian"), rows(4, 5)
    variables = drawn(network, x)
    parts = lz.empirical_ntk(network, variables, x, parts=True)
    assert list(parts) == (["hidden", "readout"] if train == "both" else [train])
    assert_close(sum(parts.values()), lz.empirical_ntk(network, variables, x))


@pytest.mark.slow
def test_float32():
    network, x = Perceptron(outputs=2), rows(6, 5).astype("float32")
    variables = drawn(network, x, "float32")
    exact = lz.empirical_ntk(network, variables, x, dtype="float64")
    kernel = lz.empirical_ntk(network, variables, x)
    assert kernel.dtype == exact.dtype == np.float64
    assert_close(kernel, exact, dtype="float32")
    # A smaller difference from the float64 kernel would show that this kernel was also computed in float64.
    assert np.abs(kernel - exact).max() > 1e-9
    single = lz.empirical_ntk(network, variables, x, dtype="float32")
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, kernel)
    assert not jax.config.jax_enable_x64


def test_a_linearized_network_has_the_kernel_of_its_origin():
    network, x = Perceptron(outputs=2), rows(4, 5)
    linear, start = Linearized(network), drawn(network, x)
    at = linear.at(start)
    assert dense(linear.apply, at, x) == set(range(6))
    moved = {**at, "params": jax.tree.map(lambda a: a + 1, at["params"])}
    assert_close(lz.empirical_ntk(linear, moved, x), lz.empirical_ntk(network, start, x))


def test_a_number_that_is_an_output():
    kernel = lz.empirical_ntk(lambda variables, x: x[:, 0] * variables["params"], {"params": np.ones(())}, rows(4, 6))
    assert_close(kernel, np.outer(rows(4, 6)[:, 0], rows(4, 6)[:, 0]))


def test_a_network_without_a_hash():
    network = SimpleNamespace(apply=lambda variables, x: x @ variables["params"]["w"])
    kernel = lz.empirical_ntk(network, {"params": {"w": rows(6, 1)}}, rows(4, 6))
    assert_close(kernel, rows(4, 6) @ rows(4, 6).T)


def test_a_network_is_traced_once_in_each_call():
    """Each call traces the network three times to check that rows are independent, and once for all blocks."""
    traces = []

    def apply(variables, x):
        traces.append(x.shape)
        return x @ variables["params"]["w"]

    variables = {"params": arrays_of("w")}
    for _ in range(3):
        lz.empirical_ntk(apply, variables, rows(5, 6))
    assert traces.count((1, 6)) == 3 * 3
    assert traces.count((2, 6)) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda p, x: (x @ p["w"]).sum(),
            r"network must return floats .* got float64 of shape \(\)\.",
        ),
        (lambda p, x: (x @ p["w"])[None], r"got float64 of shape \(1, 1, 6\)"),
        (lambda p, x: (x @ p["w"]).astype(complex), r"got complex128 of shape \(1, 6\)"),
        (lambda p, x: (x @ p["w"], x), "got tuple"),
        (lambda p, x: jnp.sin(x), r"variables\['params'\] must contain arrays that the network's outputs depend on"),
    ],
)
def test_other_outputs_are_refused(function, message):
    with pytest.raises(ValueError, match=message):
        lz.empirical_ntk(lambda variables, x: function(variables["params"], x), {"params": arrays_of("w")}, rows(3, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": 3}, r"network must be a function or have an apply\(variables, x\) method, got int"),
        ({"variables": {"fixed": {}}}, "variables must have the key 'params'"),
        ({"variables": {"params": {"a": {"b": np.arange(3)}}}}, "must contain only float arrays, got int64 at 'a/b'"),
        ({"variables": {"params": {"a": 1.0}}}, "got float at 'a'"),
        ({"x1": np.ones(6)}, "x1 must be a nonempty array"),
        ({"x1": np.ones((0, 6))}, "x1 must be a nonempty array"),
        ({"x2": np.ones((2, 5))}, r"x2 must be a nonempty array with rows of shape \(6,\) to match x1"),
        ({"x2": np.ones((0, 6))}, "x2 must be a nonempty array"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"network": lambda variables, x: x @ variables["params"]["w"], "variables": {"params": arrays_of("w")}}
    with unchecked(), pytest.raises(ValueError, match=message):
        lz.empirical_ntk(**{**arguments, "x1": rows(3, 6), **change})
