"""Test kernels in functions that JAX jits, batches and differentiates against the same kernels of concrete arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import Convolutional, Perceptron
from peer import neural_tangents
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.networks import Centered

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
# Two rows are parallel, one row is zero, and one row of X2 equals a row of X.
X, X2 = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(3, 4))
X[1], X[4], X2[0] = 2 * X[0], 0, X[2]
# Rows without parallel pairs, at which all kernels are differentiable. The first two rows are orthogonal.
A, B = RANDOM.normal(size=(3, 4)), np.concatenate([[[1.0, 1, 0, 0], [0, 0, 1, 1]], RANDOM.normal(size=(1, 4))])
A[0] = [0, 0, 1, -1]
WEIGHTS = RANDOM.normal(size=(3, 3))


def stax(width):
    layers = neural_tangents().stax
    return layers.serial(layers.Dense(width), layers.Relu(), layers.Dense(1))


def a_polynomial(z):
    return z**2 - z


NETWORKS = {
    "relu": lz.TwoLayer(width=8, train="both", init_scale=1.3, output_scale=0.7),
    "abs": lz.TwoLayer(width=8, activation="abs"),
    "erf": lz.MLP(width=8, depth=2, activation="erf", bias_scale=0.3, train_bias=True),
    "deep": lz.MLP(width=8, depth=3, activation="leaky_relu", parametrization="ntk", bias_scale=0.3),
    "convolutional": lz.ConvNet(width=8, filter_size=2, activation="gelu", train="both"),
    "stax": lz.from_stax(stax, width=8),
    "centered": Centered(lz.TwoLayer(width=8, activation="sin")),
    "tanh": lz.TwoLayer(width=8, activation="tanh", train="both"),
    "odd": lz.MLP(width=8, depth=2, activation="tanh"),
    "softplus": lz.MLP(width=8, depth=2, activation="softplus", parametrization="ntk"),
    "a polynomial": lz.TwoLayer(width=8, activation=a_polynomial),
}
SERIES = {"tanh", "odd", "softplus", "a polynomial"}


def cases(*names, slow):
    """Return the given cases; relu and erf are fast, and those with a series are whole unless named as slow."""
    marks = {"relu": (), "erf": ()} | {name: pytest.mark.whole for name in SERIES - set(slow)}
    return [pytest.param(name, marks=marks.get(name, pytest.mark.slow)) for name in names or NETWORKS]


def differences(function, x, step=1e-5):
    """Return the gradient of a function of an array, computed from central differences."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        gradient[place] = (function(x + moved) - function(x - moved)) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", cases(slow=[]))
def test_traced_analytic_kernels_have_the_same_values(name):
    kernel = lz.analytic_kernel(NETWORKS[name])
    # neural-tangents divides by the norms of the rows.
    x = X[:4] if name == "stax" else X
    expected = {"pair": kernel(x, X2), "square": kernel(x), "diagonal": np.diag(kernel(x))}
    # Squares of polynomials of standard deviations are sums of large terms.
    ulps = {"stax": 1e9} | dict.fromkeys(SERIES, 1e5)
    ulps = ulps.get(name, 512)

    @jax.jit
    def found(x, x2):
        by_row = jax.vmap(lambda row: kernel(row[None], x2)[0])(x)
        return {"pair": kernel(x, x2), "square": kernel(x), "diagonal": kernel.diagonal(x)}, by_row

    with jax.enable_x64(True):
        wide, by_row = found(jnp.asarray(x), jnp.asarray(X2))
        concrete = jax.jit(lambda x: kernel(x, X2))(jnp.asarray(x))
    narrow = found(jnp.asarray(x, jnp.float32), jnp.asarray(X2, jnp.float32))[0]
    scale = max(1.0, float(np.abs(expected["square"]).max()))
    for part, values in expected.items():
        assert wide[part].dtype == np.float64
        assert_close(wide[part], values, ulps=ulps, scale=scale)
        assert narrow[part].dtype == np.float32
        # Between parallel rows, the angle has an error of the square root of a rounding error.
        assert_close(narrow[part], values, ulps=1e4 if name == "stax" else 256, scale=scale)
    np.testing.assert_array_equal(wide["square"], wide["square"].T)
    assert_close(by_row, expected["pair"], ulps=ulps, scale=scale)
    assert_close(concrete, expected["pair"], ulps=ulps, scale=scale)


@pytest.mark.whole
@pytest.mark.parametrize("name", cases(slow=["odd"]))
def test_derivatives_of_analytic_kernels_match_differences(name):
    kernel = lz.analytic_kernel(NETWORKS[name])
    with jax.enable_x64(True):
        total = jax.value_and_grad(lambda x: jnp.sum(WEIGHTS * kernel(x, jnp.asarray(B))))
        value, gradient = total(jnp.asarray(A))
    np.testing.assert_allclose(value, np.sum(WEIGHTS * kernel(A, B)), rtol=1e-9)
    expected = differences(lambda x: np.sum(WEIGHTS * kernel(x, B)), A)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.abs(expected).max())
    a, b, weights = (jnp.asarray(array, "float32") for array in (A, B, WEIGHTS))
    narrow = jax.jit(jax.grad(lambda x: jnp.sum(weights * kernel(x, b))))(a)
    np.testing.assert_allclose(narrow, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", cases("erf", "convolutional", "centered", "tanh", slow=["tanh"]))
def test_smooth_kernels_are_differentiable_twice_at_equal_rows(name):
    """The mixed second derivative at equal rows must be symmetric, positive and equal to a difference of gradients."""
    kernel = lz.analytic_kernel(NETWORKS[name])

    def slope(x1, x2):
        return jax.grad(lambda row: kernel(row[None], x2[None])[0, 0])(x1)

    row, step = A[1], 1e-5
    with jax.enable_x64(True):
        slope_of, mixed = jax.jit(slope), np.asarray(jax.jit(jax.jacfwd(slope, argnums=1))(row, row))
        ends = [[np.asarray(slope_of(row, row + sign * step * axis)) for sign in (1, -1)] for axis in np.eye(4)]
    expected = np.stack([(above - below) / (2 * step) for above, below in ends], axis=1)
    np.testing.assert_allclose(mixed, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(mixed, mixed.T, atol=1e-9)
    assert np.linalg.eigvalsh(mixed).min() > 0


def test_the_derivative_of_a_relu_kernel_at_parallel_rows_keeps_the_angle():
    """K(x, x) = |x|^2 / 2, whose derivative with respect to both arguments is x."""
    kernel = lz.analytic_kernel(lz.TwoLayer(width=8))
    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: kernel(x)[0, 0])(jnp.asarray(A[:1]))
    np.testing.assert_allclose(gradient, A[:1], rtol=1e-12)


@pytest.mark.slow
def test_beyond_the_largest_scale_the_result_is_nan():
    kernel = lz.analytic_kernel(NETWORKS["tanh"])
    rows = np.eye(2) * [[127.0], [129.0]]
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(kernel)(rows))
    np.testing.assert_array_equal(np.isnan(found), [[False, True], [True, True]])
    assert abs(found[0, 0] - kernel(rows[:1])[0, 0]) < 1e-9 * found[0, 0]


def test_kernels_of_concrete_arrays_can_be_computed_in_a_traced_function():
    network = lz.TwoLayer(width=8)
    variables = network.init(KEY, jnp.asarray(A))
    kernel, empirical = lz.analytic_kernel(network)(A), lz.empirical_ntk(network, variables, A)

    @jax.jit
    def both(factor):
        found = lz.analytic_kernel(network)(A), lz.empirical_ntk(network, variables, A)
        assert all(type(k) is np.ndarray for k in found)
        return [factor * jnp.asarray(k) for k in found]

    for found, expected in zip(both(2.0), (kernel, empirical), strict=True):
        np.testing.assert_allclose(found, 2 * expected, rtol=1e-6)


EMPIRICAL = {
    "two layers": (lz.TwoLayer(width=8, train="both", outputs=2), X),
    "deep": (lz.MLP(width=6, depth=2, activation="tanh", bias_scale=0.3, train_bias=True), X),
    "flax": (Perceptron(outputs=2), X),
    "images": (Convolutional(), RANDOM.normal(size=(3, 6, 6, 1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EMPIRICAL)
def test_traced_empirical_kernels_have_the_same_values(name):
    network, x = EMPIRICAL[name]
    variables = network.init(KEY, jnp.asarray(x, jnp.float32))

    @jax.jit
    def found(variables, x, x2):
        kernel = lz.empirical_ntk
        return kernel(network, variables, x, x2), [
            kernel(network, variables, x, outputs=outputs, parts=parts)
            for outputs in ("average", "all")
            for parts in (False, True)
        ]

    pair, squares = found(variables, jnp.asarray(x, jnp.float32), jnp.asarray(x[:2], jnp.float32))
    expected = [
        lz.empirical_ntk(network, variables, x, outputs=outputs, parts=parts)
        for outputs in ("average", "all")
        for parts in (False, True)
    ]
    assert pair.dtype == jnp.float32
    assert_close(pair, lz.empirical_ntk(network, variables, x, x[:2]), dtype="float32")
    jax.tree.map(lambda a, b: assert_close(a, b, dtype="float32"), squares, expected)
    np.testing.assert_array_equal(squares[0], squares[0].T)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), dict(variables))
        kernel = jax.jit(lambda v: lz.empirical_ntk(network, v, x))(wide)
        assert kernel.dtype == np.float64
        assert_close(kernel, expected[0])


def test_empirical_kernels_of_many_networks_and_their_derivatives():
    network, x = lz.MLP(width=6, depth=2, activation="tanh"), A
    keys = jax.random.split(KEY, 3)
    starts = jax.vmap(lambda key: dict(network.init(key, jnp.asarray(x, jnp.float32))))(keys)
    members = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], float), starts) for i in range(3)]
    kernels = jax.vmap(lambda variables: lz.empirical_ntk(network, variables, x))(starts)
    for kernel, variables in zip(kernels, members, strict=True):
        assert_close(kernel, lz.empirical_ntk(network, variables, x), dtype="float32")

    def total(variables, x):
        return (WEIGHTS * lz.empirical_ntk(network, variables, x)).sum()

    with jax.enable_x64(True):
        gradients = jax.grad(total, (0, 1))(members[0], jnp.asarray(x))
    by_variables, by_rows = jax.tree.map(np.asarray, gradients)
    direction, step = jax.tree.map(lambda leaf: RANDOM.normal(size=leaf.shape), members[0]), 1e-5
    ends = [
        total(jax.tree.map(lambda leaf, v, sign=sign: leaf + sign * step * v, members[0], direction), x)
        for sign in (1, -1)
    ]
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, v: np.sum(g * v), by_variables, direction)))
    np.testing.assert_allclose(along, (ends[0] - ends[1]) / (2 * step), rtol=1e-7)
    moved = RANDOM.normal(size=x.shape)
    ends = [total(members[0], x + sign * step * moved) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(by_rows * moved), (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


@pytest.mark.slow
def test_token_ids_stay_integers_in_traced_functions():
    def bag(variables, x):
        assert jnp.issubdtype(x.dtype, jnp.integer)
        return variables["params"]["table"][x].mean(axis=1)

    ids, variables = np.array([[0, 1], [1, 1]]), {"params": {"table": np.array([0.5, -1.0])}}
    expected = lz.empirical_ntk(bag, variables, ids)
    found = jax.jit(lambda ids: lz.empirical_ntk(bag, variables, ids))(jnp.asarray(ids))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(expected, [[0.5, 0.5], [0.5, 1.0]])


def test_wrong_arguments_are_refused_while_tracing():
    network, x = lz.TwoLayer(width=8), jnp.asarray(X, jnp.float32)
    variables, kernel = network.init(KEY, x), lz.analytic_kernel(network)

    def normalized(variables, x):
        hidden = x @ variables["params"]["hidden"].T
        return ((hidden - hidden.mean(axis=0, keepdims=True)) / (1 + hidden.std(axis=0, keepdims=True))).sum(axis=1)

    with unchecked():
        for function, message in (
            (
                lambda x: kernel(x, dtype="float64"),
                "^dtype must be 'float32' or None for traced arrays if JAX's 64-bit",
            ),
            (lambda x: kernel(x[0]), r"^x1 must be a nonempty array of shape \(n, d\), got shape \(4,\)"),
            (lambda x: kernel(x, x[:, :2]), "^x2 must have rows of length 4 to match x1, got length 2"),
            (lambda x: kernel(x > 0), "^x1 must be an array of real numbers, got a traced array of dtype bool"),
            (lambda x: kernel(x, dtype="float16"), "^dtype must be one of float64, float32"),
            (lambda x: lz.empirical_ntk(network, variables, x, memory=10**9), "^memory must be None for traced arrays"),
            (lambda x: lz.empirical_ntk(network, variables, x[:, :2]), "These variables belong to another network"),
            (lambda x: lz.empirical_ntk(normalized, variables, x), "depends on other rows in the batch"),
            (lambda x: lz.complexity(np.eye(5), x[:, 0]), "^y must be a concrete array, got"),
        ):
            print(message)
            with pytest.raises(ValueError, match=message):
                jax.jit(function)(x)


@pytest.mark.parametrize(
    "name", cases("relu", "abs", "deep", "erf", "convolutional", "tanh", "odd", "softplus", slow=["odd"])
)
def test_zero_rows_do_not_spoil_derivatives(name):
    """Derivatives at other rows must be right; activations that are differentiable must be so at the zero row too."""
    kernel, other = lz.analytic_kernel(NETWORKS[name]), np.concatenate([B[:2], np.zeros((1, 4))])
    rows = np.concatenate([np.zeros((1, 4)), A[1:]])
    with jax.enable_x64(True):
        total = jax.jit(jax.grad(lambda x: jnp.sum(WEIGHTS * kernel(x, jnp.asarray(other)))))
        gradient, expected = total(jnp.asarray(rows)), differences(lambda x: np.sum(WEIGHTS * kernel(x, other)), rows)
    smooth = name not in ("relu", "abs", "deep")
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[not smooth :], expected[not smooth :], atol=1e-6 * np.abs(expected).max())


@pytest.mark.whole
def test_second_derivatives_of_a_series_at_a_zero_row_are_nan():
    kernel = lz.analytic_kernel(NETWORKS["softplus"])
    with jax.enable_x64(True):
        hessian = jax.jit(jax.hessian(lambda row, x: kernel(row[None], x).sum()))
        assert np.isnan(hessian(jnp.zeros(4), A)).all()
        assert np.isfinite(hessian(jnp.asarray(B[0]), A)).all()


@pytest.mark.whole
@pytest.mark.parametrize("activation", ["silu", "softplus", "tanh", a_polynomial])
def test_series_keep_their_accuracy_at_all_scales_in_float32(activation):
    kernel = lz.analytic_kernel(lz.TwoLayer(width=8, activation=activation, train="readout"))
    for scale in (0.1, 1.0, 20.0):
        x = scale * A / np.linalg.norm(A, axis=1, keepdims=True)
        expected, found = kernel(x), jax.jit(kernel)(jnp.asarray(x, jnp.float32))
        assert_close(found, expected, dtype="float32", ulps=64 * max(1, scale**2))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sin", "erf", "gelu"])
def test_kernels_of_short_rows_have_small_relative_errors_in_float32(activation):
    kernel = lz.analytic_kernel(lz.TwoLayer(width=8, activation=activation, train="readout"))
    for scale in (1e-4, 1e-2, 1.0, 30.0):
        x = scale * A / np.linalg.norm(A, axis=1, keepdims=True)
        size = np.sqrt(np.diag(kernel(x)))[:, None]
        found = np.asarray(jax.jit(kernel)(jnp.asarray(x, jnp.float32)), float)
        np.testing.assert_allclose(found / size / size.T, kernel(x) / size / size.T, atol=1e-6 * max(1, scale**2))


@pytest.mark.slow
def test_dtypes_in_64_bit_mode_follow_the_arguments():
    x = jnp.asarray(A, jnp.float32)
    for name in ("relu", "erf", "convolutional"):
        kernel = lz.analytic_kernel(NETWORKS[name])
        with jax.enable_x64(True):
            assert jax.jit(kernel)(x).dtype == np.float32
            assert jax.jit(kernel, static_argnames="dtype")(jnp.asarray(A), dtype="float32").dtype == np.float32
            assert jax.jit(kernel)(x, jnp.asarray(B)).dtype == np.float64
            assert jax.jit(kernel)(jnp.asarray(A, jnp.bfloat16)).dtype == np.float32
            assert jax.jit(kernel)(jnp.arange(8).reshape(2, 4)).dtype == np.float64
        assert jax.jit(kernel)(jnp.arange(8).reshape(2, 4)).dtype == np.float32


def test_networks_that_close_over_traced_values():
    network, x = lz.TwoLayer(width=8), jnp.asarray(A, jnp.float32)
    variables = network.init(KEY, x)
    kernel = lz.empirical_ntk(network, variables, x)

    def scaled(s):
        return lz.empirical_ntk(lambda v, x: s * network.apply(v, x), variables, x)

    np.testing.assert_allclose(jax.jacfwd(scaled)(3.0), 6 * kernel, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(scaled)(3.0), 9 * kernel, rtol=1e-5)


def test_numbers_and_activations_must_not_be_traced():
    for fields, message in (
        (lambda s: {"init_scale": s}, "init_scale must be positive and finite at width 8, got a value that JAX traces"),
        (lambda s: {"activation": lambda z: jnp.tanh(s * z)}, "got <lambda>, which depends on values that JAX traces"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            jax.jit(lambda s, fields=fields: jnp.asarray(lz.TwoLayer(width=8, **fields(s)).width))(1.0)


def test_a_kernel_computed_with_numpy_is_refused_while_tracing():
    network = lz.from_functions(
        lambda key, x, width: {"w": jnp.ones(x.shape[1])},
        lambda params, x: x @ params["w"],
        kernel=lambda x1, x2=None: np.asarray(x1) @ np.asarray(x1 if x2 is None else x2).T,
    )
    kernel = lz.analytic_kernel(network)
    np.testing.assert_allclose(kernel(A), A @ A.T)
    with pytest.raises(ValueError, match="must be concrete arrays for this network, got traced ones"):
        jax.jit(kernel)(jnp.asarray(A))


@pytest.mark.slow
def test_recurrent_networks_run_in_float32_in_64_bit_mode():
    class Recurrent(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.RNN(nn.GRUCell(3))(x[..., None])[:, -1])

    network, x = Recurrent(), A
    variables = network.init(KEY, jnp.asarray(x, jnp.float32))
    expected = lz.empirical_ntk(network, variables, x)
    with jax.enable_x64(True):
        found = jax.jit(lambda x: lz.empirical_ntk(network, variables, x))(jnp.asarray(x))
    assert_close(found, expected, dtype="float32")


def test_batches_of_token_ids_that_see_each_other_are_refused_while_tracing():
    def mixing(variables, x):
        values = variables["params"]["table"][x].mean(axis=1)
        return values - values.mean()

    ids, variables = jnp.asarray([[0, 1], [1, 1]]), {"params": {"table": jnp.asarray([0.5, -1.0])}}
    with pytest.raises(ValueError, match="depends on other rows in the batch"):
        jax.jit(lambda ids: lz.empirical_ntk(mixing, variables, ids))(ids)
