"""Test measures against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from tolerance import assert_close
from unchecked import unchecked

from lazynet import measures
from lazynet.kernels import spectrum
from lazynet.precision import float64

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def run(measure, dtype, *arguments):
    """Return the value of a measure, compiled and computed in a single dtype as in the training program."""
    with float64():
        value = jax.jit(measure)(*jax.tree.map(lambda a: jnp.asarray(a, dtype), arguments))
        assert value.shape == ()
        assert value.dtype == dtype
        return np.asarray(value)


@DTYPES
def test_norm_and_displacement(dtype):
    start = {"hidden": normal(7, 3), "readout": normal(7, 2, seed=1)}
    now = {"hidden": normal(7, 3, seed=2), "readout": normal(7, 2, seed=3)}
    squares = sum(np.sum(leaf**2) for leaf in now.values())
    assert_close(run(measures.parameter_norm, dtype, now), np.sqrt(squares))
    squares = sum(np.sum((now[name] - start[name]) ** 2) for name in now)
    assert_close(run(measures.displacement, dtype, now, start), np.sqrt(squares))
    assert run(measures.displacement, dtype, start, start) == 0


@DTYPES
def test_max_neuron_displacement(dtype):
    w, start = normal(7, 3), normal(7, 3, seed=1)
    assert_close(run(measures.max_neuron_displacement, dtype, w, start), np.linalg.norm(w - start, axis=1).max())


@DTYPES
def test_activation_flips(dtype):
    w, start, x = normal(50, 3), normal(50, 3, seed=1), normal(11, 3, seed=2)
    expected = np.mean((w @ x.T > 0) != (start @ x.T > 0))
    assert 0.3 < expected < 0.7
    assert_close(run(measures.activation_flips, dtype, w, start, x), expected)
    assert run(measures.activation_flips, dtype, w, 3 * w, x) == 0
    assert run(measures.activation_flips, dtype, w, -w, x) == 1


def test_a_preactivation_of_zero_is_not_positive():
    x = np.eye(2)
    flips = run(measures.activation_flips, "float64", np.array([[0.0, 1.0]]), np.array([[-1.0, 0.0]]), x)
    # On example 0 the pre-activation goes from -1 to 0 (no flip); on example 1 it goes from 0 to 1 (a flip).
    assert flips == 0.5


@DTYPES
def test_relative_distance(dtype):
    k, reference = normal(5, 5), normal(5, 5, seed=1)
    expected = np.linalg.norm(k - reference) / np.linalg.norm(reference)
    assert_close(run(measures.relative_distance, dtype, k, reference), expected)
    assert abs(expected - np.linalg.norm(k - reference) / np.linalg.norm(k)) > 0.01


def test_rms():
    difference = normal(4, 3, 5, 2)
    assert_close(measures.rms(difference, 1), np.sqrt(np.mean(difference**2, axis=3)))
    assert_close(measures.rms(difference, 2), np.sqrt(np.mean(difference**2, axis=(2, 3))))


def test_zero_one_error_of_two_classes():
    y = np.array([1.0, 1.0, -1.0, -1.0])
    f = np.array([[0.1, -0.1, -3.0, 3.0], [2.0, 2.0, -2.0, -2.0], [0.0, 1.0, 0.0, -1.0]])
    # An output of zero counts as an error for either class.
    np.testing.assert_array_equal(measures.zero_one_error(f, y), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(measures.zero_one_error(f[None], y), [[0.5, 0.0, 0.5]])


@pytest.mark.parametrize("shift", [0.0, 1 / 3])
def test_zero_one_error_of_more_classes(shift):
    y = np.eye(3)[[0, 1, 2, 2]] - shift
    f = np.array([[5.0, 1, 1], [1, 5, 1], [1, 5, 1], [-3, -2, -1]])
    np.testing.assert_array_equal(measures.zero_one_error(np.stack([f, y, -y]), y), [0.25, 0.0, 1.0])


def test_zero_one_error_of_two_outputs():
    y = np.eye(2)[[0, 1]]
    assert measures.zero_one_error(np.array([[0.2, 0.1], [0.2, 0.1]]), y) == 0.5


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_residual_modes(outputs):
    k, y, u = normal(6, 6), normal(6, *outputs, seed=1), normal(3, 6, *outputs, seed=2)
    modes = measures.residual_modes(spectrum(k @ k.T), y, u)
    assert modes.shape == u.shape
    values, vectors = np.linalg.eigh(k @ k.T)
    for i, j in enumerate(np.argsort(-values)):
        for s in range(3):
            # The sign of an eigenvector is arbitrary.
            assert_close(np.abs(modes[s, i]), np.abs(vectors[:, j] @ (y - u[s])))
    assert_close(np.sum(modes**2, axis=1), np.sum((y - u) ** 2, axis=1))


@DTYPES
def test_the_gradient_of_coupled_neurons_is_the_pseudo_gradient(dtype):
    """The pseudo-gradient of Li and Liang 2018, Lemma 5.1, uses the initial activation pattern."""
    m, d, k, n = 200, 4, 3, 6
    start, x, a = normal(m, d), normal(n, d, seed=1), normal(m, k, seed=2)
    w, y = start + 0.2 * normal(m, d, seed=3), np.eye(k)[np.arange(n) % k]

    def loss(w, patterns):
        f = jnp.where(patterns, x @ w.T, 0.0) @ a
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(f), axis=1))

    with float64():
        outer_gradient = (np.asarray(jax.nn.softmax(jnp.asarray(np.maximum(x @ w.T, 0) @ a))) - y) / n
        true, pseudo = (((outer_gradient @ a.T) * (x @ pattern.T > 0)).T @ x for pattern in (w, start))
        # The hand-written gradient agrees with autodiff.
        np.testing.assert_allclose(true, jax.grad(loss)(jnp.asarray(w), x @ w.T > 0), atol=1e-12)
        expected = np.mean(np.all(np.isclose(true, pseudo, rtol=1e-12, atol=0), axis=1))
    assert 0.2 < expected < 0.9
    assert_close(run(measures.coupled_neurons, dtype, w, start, x), expected)
    assert run(measures.coupled_neurons, dtype, w, w, x) == 1
    assert run(measures.coupled_neurons, dtype, w, -w, x) == 0


def test_singular_values_and_leading_values():
    u, _ = np.linalg.qr(normal(30, 6))
    v, _ = np.linalg.qr(normal(8, 6, seed=1))
    expected = np.array([9.0, 7.0, 5.0, 0.1, 0.05, 0.04])
    values = measures.singular_values(u @ np.diag(expected) @ v.T)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [*expected, 0, 0], atol=1e-14)
    np.testing.assert_allclose(measures.singular_values((u @ np.diag(expected) @ v.T).T), values, atol=1e-14)
    assert measures.leading_values(values) == 3
    # A drop to values as small as rounding errors is ignored.
    assert measures.leading_values(np.array([1.0, 0.5, 0.2, 1e-9])) == 2
    assert measures.leading_values(np.ones(1)) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float16", "float32"])
def test_alignment_does_not_depend_on_the_dtype_of_labels(dtype):
    random = np.random.default_rng(0)
    y, a = random.integers(0, 10, 40), random.standard_normal((40, 40))
    expected = np.sum(a @ a.T * np.outer(y, y)) / np.linalg.norm(a @ a.T) / np.sum(y**2)
    assert float(measures.label_alignment(a @ a.T, y.astype(dtype))) == pytest.approx(expected, rel=1e-12)
    traced = jax.jit(measures.label_alignment)((a @ a.T).astype("float32"), y.astype(dtype))
    assert float(traced) == pytest.approx(expected, rel=1e-5)
    # Unsigned integers do not wrap around.
    assert float(measures.relative_distance(np.eye(2, dtype="uint8"), 2 * np.eye(2, dtype="uint8"))) == 0.5
    large = (1000 * np.diag([3, 4])).astype("int16")
    assert float(measures.label_alignment(large, np.ones(2))) == pytest.approx(7 / 10)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float16", 300), ("float32", 1e20), ("float32", 1e-20), ("float64", 1e160), ("float64", 1e-162)],
)
def test_squares_of_kernels_stay_in_range(dtype, scale):
    a, b = (scale * np.diag(entries).astype(dtype) for entries in ([1.0, 0.0], [0.0, 1.0]))
    assert float(measures.kernel_distance(a, b)) == 1
    assert float(measures.kernel_distance(a, np.diag([1.0, 0.0]).astype(dtype))) == 0
    assert measures.kernel_velocity(np.stack([a, b]), np.array([0.0, 0.5])) == 2
    assert float(measures.label_alignment(a + b, np.array([1.0, -1.0], dtype))) == pytest.approx(0.5**0.5, rel=1e-3)
    assert float(measures.relative_distance(3 * a, a)) == pytest.approx(2, rel=1e-3)
    # The square of this distance is out of range, but the distance is not.
    one = np.ones((2, 2), dtype)
    largest = np.float64(abs(a - one).max())
    expected = largest * np.linalg.norm((a - one) / largest) / 2
    assert float(measures.relative_distance(a, one)) == pytest.approx(expected, rel=1e-3)
    if dtype == "float64":
        return
    y = np.full(2, scale, dtype)
    assert float(measures.label_alignment(np.ones((2, 2), dtype), y)) == pytest.approx(1, rel=1e-3)


def test_wide_numbers_of_other_types_are_not_narrowed():
    random = np.random.default_rng(1)
    k = random.standard_normal((10, 10))
    other = k * (1 + 1e-8 * random.standard_normal((10, 10)))
    expected = float(measures.kernel_distance(k, other))
    assert 1e-17 < expected < 1e-15
    for convert in (xr.DataArray, np.ndarray.tolist):
        with unchecked():
            found = float(measures.kernel_distance(convert(k), convert(other)))
        assert found == pytest.approx(expected, rel=1e-6)
    with unchecked():
        found = measures.relative_distance(xr.DataArray(other), xr.DataArray(k))
    assert float(found) == pytest.approx(float(measures.relative_distance(other, k)), rel=1e-6)
    # 2^32 is 0 in int32.
    assert float(measures.kernel_distance(np.diag([2**32, 1]), np.diag([1, 0]))) == pytest.approx(2.0**-65, rel=1e-6)


def test_effective_rank():
    assert measures.effective_rank(np.full(4, 1e308)) == pytest.approx(4)
    assert measures.effective_rank(np.array([1e16, 1e-320])) == 1
    assert measures.effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    p = np.array([0.7, 0.2, 0.1])
    assert measures.effective_rank(10 * p) == pytest.approx(np.prod(p**-p))
    assert measures.effective_rank(np.array([5.0])) == 1
    assert np.isnan(measures.effective_rank(np.zeros(3)))
    # A negative value would make the entropy a wrong number.
    for refuses in (measures.effective_rank, measures.leading_values):
        with pytest.raises(
            ValueError, match=r"^values must be a nonempty one-dimensional array of finite nonnegative numbers"
        ):
            refuses(np.array([3.0, -1.0]))
    with pytest.raises(ValueError, match=r"^values must be in descending order"):
        measures.leading_values(np.array([1.0, 3.0]))


def test_an_unknown_prediction_is_neither_right_nor_wrong():
    y, f = np.array([1.0, -1.0]), np.array([[0.5, -0.5], [np.nan, -0.5], [np.inf, np.inf]])
    np.testing.assert_array_equal(measures.zero_one_error(f, y), [0.0, np.nan, np.nan])
    wide = np.eye(3)[None].repeat(2, axis=0)
    wide[1, 2, 0] = np.nan
    np.testing.assert_array_equal(measures.zero_one_error(wide, np.eye(3) - 1 / 3), [0.0, np.nan])


E = 1e-9
SMALL = {
    # Each value would be different in float32, which has no number between 1 and 1 + 1e-7.
    "displacement": (lambda: measures.displacement({"w": np.array([1 + E])}, {"w": np.array([1.0])}), E),
    "parameter_norm": (lambda: measures.parameter_norm([np.array([1 + E])]) - 1, E),
    "array_norms": (lambda: measures.array_norms([np.array([1 + E])])[0] - 1, E),
    "array_displacements": (lambda: measures.array_displacements([np.array([1 + E])], [np.array([1.0])])[0], E),
    "max_neuron_displacement": (lambda: measures.max_neuron_displacement(np.array([[1 + E]]), np.array([[1.0]])), E),
    "activation_flips": (lambda: measures.activation_flips(*flipped()), 1.0),
    "coupled_neurons": (lambda: measures.coupled_neurons(*flipped()), 0.0),
    "sign_changes": (lambda: measures.sign_changes([np.array([1e-60])], [np.array([-1e-60])]), 1.0),
    "relative_distance": (lambda: measures.relative_distance(np.array([[1 + E]]), np.array([[1.0]])), E),
    "kernel_distance": (lambda: measures.kernel_distance(np.diag([1.0, 1 + E]), np.eye(2)), E**2 / 8),
    "kernel_velocity": (lambda: measures.kernel_velocity(turning(), np.arange(2.0))[0], E**2 / 8),
    "label_alignment": (lambda: 1 - measures.label_alignment(np.ones((1, 1)), np.array([1 + E])), 0.0),
    "sharpness": (lambda: measures.sharpness(lambda w: w, np.array([1.0])) - 1, 0.0),
    "sharpness of small outputs": (lambda: measures.sharpness(lambda w: (1 + E) * w, np.array([1.0])) - 1, 2 * E),
    "taylor_gap": (
        lambda: measures.taylor_gap(Square(), {"params": 1 + 1e-6}, {"params": 1.0}, np.ones((1, 1))),
        1e-12,
    ),
    "singular_values": (lambda: measures.singular_values(np.diag([1 + E, 1.0]))[0] - 1, E),
}


class Square:
    def apply(self, variables, x):
        return variables["params"] ** 2 * x[:, 0]


def turning():
    """Return two kernels that differ by less than float32 can resolve."""
    return np.stack([np.diag([1.0, 1 + E]), np.eye(2)])


def flipped():
    """Return weights, initial weights and an input; float32 cannot resolve the change of the pre-activation."""
    return np.array([[1 + E, -1.0]]), np.array([[1 - E, -1.0]]), np.array([[1.0, 1.0]])


@pytest.mark.parametrize("name", SMALL)
def test_float64_is_kept(name):
    compute, expected = SMALL[name]
    assert float(np.asarray(compute())) == pytest.approx(expected, rel=1e-4, abs=1e-15 if expected == 0 else 0)


def test_all_measures_of_arrays_are_among_them():
    tested = {name.partition(" ")[0] for name in SMALL}
    other = {"zero_one_error", "rms", "residual_modes", "effective_rank", "leading_values", "current_kernel"}
    functions = {name for name in measures.__all__ if name.islower() and callable(getattr(measures, name))}
    catalog = {"catalog", "check_schema", "label_result", "reference", "register_quantity", "registered"}
    catalog |= {"settings_by_width", "unregister_quantity", "reserved_names"}
    assert functions - other - catalog <= tested


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float32", 1e-30), ("float32", 1e20), ("float64", 1e-170), ("float64", 1e170), ("float16", 300), ("int8", 1)],
)
def test_movements_stay_in_range(dtype, scale):
    w = (scale * np.array([[3, -4], [100, 0]])).astype(dtype)
    start = -w if dtype == "int8" else np.zeros_like(w)
    factor = scale * (2 if dtype == "int8" else 1)
    norm = 25 + 100**2
    for found, expected in (
        (measures.displacement({"a": w, "b": w}, {"a": start, "b": start}), (2 * norm) ** 0.5),
        (measures.array_displacements({"a": w}, {"a": start})[0], norm**0.5),
        (
            measures.max_neuron_displacement(w.astype(w.dtype if w.dtype.kind == "f" else float), start.astype(float)),
            100,
        ),
    ):
        assert float(found) / factor == pytest.approx(expected, rel=1e-3)
    assert float(measures.parameter_norm({"a": w})) / scale == pytest.approx(norm**0.5, rel=1e-3)


def test_shapes_that_would_be_broadcast_are_refused():
    w = np.ones((4, 3))
    for refuses in (measures.displacement, measures.array_displacements, measures.max_neuron_displacement):
        with (
            unchecked(),
            pytest.raises(ValueError, match=r"^start must have the same shapes as the current weights, got shape"),
        ):
            refuses(w, w[:1])
    with pytest.raises(ValueError, match=r"^k must have the shape \(1, 3\) of reference, got shape \(4, 3\)"):
        measures.relative_distance(w, w[:1])
    with pytest.raises(ValueError, match=r"^f must have shape \(3, 1\) or"):
        measures.zero_one_error(np.array([0.5, 0.2, -0.3]), np.array([[1.0], [-1.0], [-1.0]]))
    assert measures.rms(np.array([[100, 100]], np.int8), 1) == 100
