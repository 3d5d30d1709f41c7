"""Test empirical tangent kernels of two-layer networks against their Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_unless
from reference import SLOPE, TRAINED, VALUE
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.kernels import average_ntk
from lazynet.kernels._average import active_on_both
from lazynet.kernels._empirical import _average_bytes
from lazynet.precision import float64


def rows(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def drawn(network, d):
    """Return random float64 arrays for the network's variables, drawn independently of its initialization."""
    arrays = {"hidden": rows(network.width, d, seed=7), "readout": rows(network.width, network.outputs, seed=8)}
    trained = {name for name in arrays if network.train in (name, "both")}
    params, fixed = ({name: arrays[name] for name in sorted(names)} for names in (trained, arrays.keys() - trained))
    return {"params": params, "fixed": fixed} if fixed else {"params": params}


def jacobian(network, variables, x):
    """Return the Jacobian of the network's formula, of shape (n, k, parameters), computed in NumPy."""
    arrays = {name: a for collection in variables.values() for name, a in collection.items()}
    scale, z, k = network.output_scale / np.sqrt(network.width), x @ arrays["hidden"].T, network.outputs
    slopes = np.einsum("rc,ir,ij->icrj", arrays["readout"], SLOPE[network.activation](z), x)
    values = np.einsum("ir,ce->icre", VALUE[network.activation](z), np.eye(k))
    parts = {"hidden": slopes, "readout": values}
    return scale * np.concatenate([parts[name].reshape(len(x), k, -1) for name in variables["params"]], axis=2)


def test_the_jacobian_is_that_of_the_module():
    network, x = lz.TwoLayer(width=12, outputs=3, activation="gelu", train="both", output_scale=1.3), rows(5, 4)
    variables = drawn(network, 4)
    with float64():
        parts = jax.jit(jax.jacrev(lambda params: network.apply({"params": params}, x)))(variables["params"])
    stacked = np.concatenate([np.asarray(part).reshape(5, 3, -1) for part in parts.values()], axis=2)
    assert_close(jacobian(network, variables, x), stacked)


@pytest.mark.parametrize(
    ("activation", "train", "outputs"),
    slow_unless(
        lambda case: case[0] in ("relu", "tanh"),
        [(activation, train, k) for activation in VALUE for train in TRAINED for k in (1, 3)],
    ),
)
def test_jacobian(activation, train, outputs):
    network = lz.TwoLayer(width=12, outputs=outputs, activation=activation, train=train, output_scale=1.3)
    x1, x2 = rows(5, 4), rows(5, 4, seed=1)
    variables = drawn(network, 4)
    j1, j2 = np.split(jacobian(network, variables, np.concatenate([x1, x2])), 2)
    for other, j in ((None, j1), (x2, j2)):
        expected = np.einsum("icp,jdp->icjd", j1, j)
        # Disable jit, because otherwise each network would compile its own program.
        with jax.disable_jit():
            average = lz.empirical_ntk(network, variables, x1, other)
        assert type(average) is np.ndarray
        trace = np.einsum("icjc->ij", expected) / outputs
        np.testing.assert_allclose(average, trace, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("outputs", slow_unless(lambda outputs: outputs == 3, [1, 3]))
@pytest.mark.parametrize("train", TRAINED)
def test_jacobian_of_all_outputs(train, outputs):
    network = lz.TwoLayer(width=12, outputs=outputs, activation="erf", train=train, output_scale=1.3)
    x1, x2 = rows(5, 4), rows(5, 4, seed=1)
    variables = drawn(network, 4)
    j1, j2 = np.split(jacobian(network, variables, np.concatenate([x1, x2])), 2)
    for other, j in ((None, j1), (x2, j2)):
        # With outputs="all", the program is compiled even if jit is disabled.
        with jax.disable_jit():
            full = lz.empirical_ntk(network, variables, x1, other, outputs="all")
        assert type(full) is np.ndarray
        assert_close(full, np.einsum("icp,jdp->icjd", j1, j))


@pytest.mark.slow
@pytest.mark.parametrize(("train", "d"), [("both", 1), ("hidden", 9)])
def test_other_numbers_of_rows_and_features(train, d):
    network = lz.TwoLayer(width=6, outputs=2, activation="gelu", train=train, symmetric=False)
    x1, x2 = rows(1, d), rows(4, d, seed=1)
    variables = drawn(network, d)
    j = jacobian(network, variables, np.concatenate([x1, x2]))
    expected = np.einsum("icp,jdp->icjd", j[:1], j[1:])
    assert_close(lz.empirical_ntk(network, variables, x1, x2, outputs="all"), expected)
    assert_close(lz.empirical_ntk(network, variables, x1, x2), np.einsum("icjc->ij", expected) / 2)


@pytest.mark.parametrize("m", [1, 32, 300])
def test_units_active_on_both(m):
    active1, active2 = rows(7, m) > 0, rows(4, m, seed=1) > 0
    expected = active1.astype(int) @ active2.T.astype(int)
    np.testing.assert_array_equal(jax.jit(active_on_both)(active1, active2), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "outputs", "train"),
    [("float32", 3, "both"), ("float64", 1, "hidden")],
)
def test_counting_the_active_units_gives_the_product(dtype, outputs, train, key):
    network = lz.TwoLayer(width=300, outputs=outputs, train=train, output_scale=0.7)
    x1, x2 = rows(9, 4).astype(dtype), rows(6, 4, seed=1).astype(dtype)
    with float64():
        variables = dict(jax.jit(network.init)(key, x1))
        for other in (None, x2):
            counted, product = (average_ntk(network, variables, x1, other, by_counting=b) for b in (True, False))
            assert_close(np.asarray(counted), np.asarray(product))
            np.testing.assert_array_equal(lz.empirical_ntk(network, variables, x1, other, dtype=dtype), counted)


@pytest.mark.slow
def test_readouts_of_several_sizes_are_not_counted(key):
    # The network has a readout of signs, but the readouts in the changed variables contain other values.
    network, x = lz.TwoLayer(width=12), rows(5, 4)
    start = jax.jit(network.init)(key, jnp.asarray(x, jnp.float32))
    variables = jax.tree.map(lambda a: np.asarray(a, np.float64), dict(start))
    for change in (lambda a: 2 * a, lambda a: np.where(np.arange(12)[:, None] == 3, 0.5, a), np.zeros_like):
        changed = {**variables, "fixed": jax.tree.map(change, variables["fixed"])}
        j = jacobian(network, changed, x)[:, 0]
        assert_close(lz.empirical_ntk(network, changed, x), j @ j.T)


@pytest.mark.parametrize(
    ("by_counting", "other"),
    slow_unless(lambda case: case == (True, 50), [(True, None), (False, None), (True, 50), (False, 50)]),
)
def test_the_bytes_of_the_average_are_a_bound(other, by_counting, key):
    network, x1 = lz.TwoLayer(width=256, outputs=2, train="both"), jnp.asarray(rows(40, 4), jnp.float32)
    x2 = None if other is None else jnp.asarray(rows(other, 4), jnp.float32)
    variables = dict(network.init(key, x1))
    program = average_ntk.lower(network, variables, x1, x2, by_counting=by_counting).compile()
    used = program.memory_analysis().temp_size_in_bytes
    assert used < _average_bytes(network, variables, x1, x2, "float32") < 5 * used


@pytest.mark.slow
def test_float32():
    network, x = lz.TwoLayer(width=64, outputs=3, activation="gelu", train="both"), rows(6, 4)
    variables = drawn(network, 4)
    for outputs in ("average", "all"):
        single = lz.empirical_ntk(network, variables, x, outputs=outputs, dtype="float32")
        assert type(single) is np.ndarray
        assert single.dtype == np.float32
        double = lz.empirical_ntk(network, variables, x, outputs=outputs)
        assert double.dtype == np.float64
        assert_close(single, double)
        # The float32 kernel must differ from the float64 kernel by rounding errors.
        assert np.abs(single - double).max() > 1e-9


def test_float32_inputs_are_computed_in_float32_and_returned_in_float64(key):
    network, x = lz.TwoLayer(width=64), rows(6, 4).astype(np.float32)
    variables = jax.tree.map(np.asarray, dict(jax.jit(network.init)(key, jnp.asarray(x))))
    kernel = lz.empirical_ntk(network, variables, x)
    assert kernel.dtype == np.float64
    assert np.array_equal(kernel, lz.empirical_ntk(network, variables, x, dtype="float32"))
    wide = lz.empirical_ntk(network, variables, x.astype(np.float64))
    assert np.array_equal(wide, lz.empirical_ntk(network, variables, x, dtype="float64"))
    assert 0 < np.abs(kernel - wide).max() < 1e-5


def test_numpy_float64_outside_of_the_context(key):
    network, x = lz.TwoLayer(width=8), jnp.asarray(rows(3, 4), jnp.float32)
    variables = jax.jit(network.init)(key, x)
    kernel = lz.empirical_ntk(network, variables, x)
    assert not jax.config.jax_enable_x64
    assert type(kernel) is np.ndarray
    assert kernel.dtype == (1 + kernel).dtype == kernel.sum().dtype == np.float64
    # Converting float32 inputs to float64 is exact, so it must not change the kernel.
    copies = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(variables))
    exact = lz.empirical_ntk(network, variables, x, dtype="float64")
    np.testing.assert_array_equal(exact, lz.empirical_ntk(network, copies, np.asarray(x, np.float64)))


def test_the_traceable_kernel_keeps_its_dtype(key):
    network, x = lz.TwoLayer(width=8, outputs=2, train="both"), jnp.asarray(rows(3, 4), jnp.float32)
    starts = jax.jit(jax.vmap(lambda k: dict(network.init(k, x))))(jax.random.split(key, 3))
    kernels = jax.vmap(lambda variables: average_ntk(network, variables, x, x))(starts)
    starts = jax.tree.map(np.asarray, starts)
    assert kernels.dtype == jnp.float32
    for i in range(3):
        start = jax.tree.map(lambda leaf, i=i: leaf[i], starts)
        assert_close(kernels[i], lz.empirical_ntk(network, start, x))


def test_bad_arguments_are_refused(key):
    network, x = lz.TwoLayer(width=8), jnp.ones((2, 3))
    variables = network.init(key, x)
    with unchecked(), pytest.raises(ValueError, match="outputs must be one of average, all, got"):
        lz.empirical_ntk(network, variables, x, outputs="trace")
    with unchecked(), pytest.raises(ValueError, match="dtype must be"):
        lz.empirical_ntk(network, variables, x, dtype="float16")


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_rows_out_of_the_range_of_float32_are_refused(scale, key):
    network, x = lz.TwoLayer(width=8, symmetric=False), np.eye(3)
    variables = network.init(key, jnp.asarray(x, jnp.float32))
    with pytest.raises(ValueError, match=r"^x1 must have rows whose squared norms are representable in float32"):
        lz.empirical_ntk(network, variables, (scale * x).astype("float32"))
    with pytest.raises(ValueError, match=r"^x2 must have rows whose squared norms are representable in float32"):
        lz.empirical_ntk(network, variables, x, scale * x, dtype="float32")
    in_float64 = lz.empirical_ntk(network, variables, scale * x)
    np.testing.assert_allclose(in_float64 / scale**2, lz.empirical_ntk(network, variables, x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^x1 must have rows whose squared norms are representable in float32"):
        lz.monte_carlo_kernel(network, scale * x, starts=2)
