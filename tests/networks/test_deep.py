"""Test deep and convolutional networks against their formulas in NumPy, and their initializations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_unless
from scipy import special
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet.networks import PARAMETRIZATIONS, initial_shapes, traits
from lazynet.precision import arithmetic

X = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
FUNCTIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "erf": special.erf}


def start(network, x=X, seed=0):
    return dict(network.init(jax.random.key(seed), jnp.asarray(x)))


def arrays_of(variables):
    return {name: np.asarray(a, np.float64) for part in variables.values() for name, a in part.items()}


@pytest.mark.parametrize(
    ("parametrization", "activation", "train"),
    slow_unless(
        lambda case: case[1] == "relu",
        [
            (parametrization, activation, ("hidden", "readout", "both")[(i + j) % 3])
            for i, parametrization in enumerate(PARAMETRIZATIONS)
            for j, activation in enumerate(FUNCTIONS)
        ],
    ),
)
def test_deep_network_is_its_formula(activation, parametrization, train):
    m, (first, middle, last) = 6, PARAMETRIZATIONS[parametrization].forward
    scales = {"init_scale": 1.3, "output_scale": lambda m: 0.7 * m, "bias_scale": 0.4}
    network = lz.MLP(m, 3, 2, activation, train, parametrization=parametrization, **scales)
    variables = start(network)
    a = arrays_of(variables)
    hidden, readout = ["hidden_1", "hidden_2", "hidden_3"], ["readout"]
    trained = {"hidden": hidden, "readout": readout, "both": hidden + readout}
    assert sorted(variables["params"]) == trained[train]
    h, entering = X.astype(np.float64), []
    for layer, power in ((1, first), (2, middle), (3, middle)):
        entering.append(m**-power * h @ a[f"hidden_{layer}"].T + a[f"bias_{layer}"])
        h = FUNCTIONS[activation](entering[-1])
    expected = 0.7 * m * m**-last * h @ a["readout"]
    assert_close(network.apply(variables, X), expected, dtype="float32")
    for found, z in zip(traits(network).preactivations(variables, jnp.asarray(X)), entering, strict=True):
        assert_close(found, z, dtype="float32")


@pytest.mark.parametrize("bias_scale", [0.0, 0.4])
def test_biases_are_trained_on_request(bias_scale):
    """Biases that start at zero exist only if they are trained; training them does not change the initial weights."""
    network = lz.MLP(6, 2, activation="tanh", train="hidden", bias_scale=bias_scale, train_bias=True)
    variables, without = start(network), start(network.clone(train_bias=False))
    assert sorted(variables["params"]) == ["bias_1", "bias_2", "hidden_1", "hidden_2"]
    assert ("bias_1" in without["fixed"]) == (bias_scale > 0)
    for name, array in arrays_of(without).items():
        np.testing.assert_array_equal(arrays_of(variables)[name], array)
    assert bool(variables["params"]["bias_1"].any()) == (bias_scale > 0)
    params = {**variables["params"], "bias_1": jnp.arange(6.0), "bias_2": -jnp.arange(6.0)}
    a = arrays_of({"params": params, "fixed": variables["fixed"]})
    h = np.tanh(X @ a["hidden_1"].T + np.arange(6))
    f = np.tanh(h @ a["hidden_2"].T / np.sqrt(6) - np.arange(6)) @ a["readout"][:, 0] / np.sqrt(6)
    assert_close(network.apply({**variables, "params": params}, X), f, dtype="float32")


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_starts_have_the_variances_of_the_parametrization(parametrization):
    m, exponents = 300, PARAMETRIZATIONS[parametrization].init
    a = arrays_of(start(lz.MLP(m, 2, 40, bias_scale=0.5, init_scale=1.7, parametrization=parametrization)))
    scales = {"hidden_1": 1.7, "hidden_2": 1.7, "readout": 1.0, "bias_1": 0.5, "bias_2": 0.5}
    places = {"hidden_1": 0, "bias_1": 0, "readout": 2}
    for name, scale in scales.items():
        std = scale * m ** -exponents[places.get(name, 1)]
        # The standard deviation of N draws has a relative standard error of 1 / sqrt(2 N).
        assert abs(a[name].std() / std - 1) < 5 / np.sqrt(2 * a[name].size), name


@pytest.mark.slow
def test_the_start_is_the_same_in_both_dtypes():
    network = lz.MLP(8, 2)
    narrow = start(network)
    with jax.enable_x64(True):
        wide = start(network, X.astype(np.float64))
        assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {np.dtype("float64")}
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float64), b), narrow, wide)


def test_relu_networks_of_one_function_in_three_parametrizations():
    """Initial outputs depend on the forward exponents a and the initialization exponents b only through a + b."""
    outputs = {}
    for name in ("ntk", "standard", "maximal-update"):
        network = lz.MLP(16, 3, parametrization=name)
        outputs[name] = np.asarray(network.apply(start(network), X))
    assert_close(outputs["standard"], outputs["ntk"], dtype="float32")
    # The readout has a + b = 1 in the maximal-update parametrization, and a + b = 1/2 in the other two.
    assert_close(16**0.5 * outputs["maximal-update"], outputs["ntk"], dtype="float32")


def test_three_layer_network_of_allen_zhu():
    network = lz.ThreeLayer(64, outputs=2)
    variables = start(network)
    a, x = arrays_of(variables), X.astype(np.float64)
    assert sorted(variables["params"]) == ["hidden_1", "hidden_2"]
    n = np.maximum(x @ a["hidden_1"].T + a["bias_1"], 0) @ a["hidden_2"].T
    assert_close(network.apply(variables, X), np.maximum(n + a["bias_2"], 0) @ a["readout"], dtype="float32")
    assert abs(a["hidden_2"].std() * 8 - 1) < 0.1
    assert abs(a["readout"].std() - 1) < 0.3
    assert sorted(start(network.clone(train="readout"))["params"]) == ["readout"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"bias_scale": -1.0}, "bias_scale must be finite and nonnegative, got -1.0"),
        ({"train_bias": 1}, "train_bias must be True or False, got 1"),
        ({"train_bias": True, "train": "readout"}, "train_bias must be False if train is 'readout', got True"),
        ({"parametrization": "ntp"}, "parametrization must be one of ntk, standard, .* got 'ntp'"),
        ({"parametrization": lz.Parametrization((0.0, 0.0), (0.0, 0.0, 0.0), 0.0)}, "three finite numbers"),
        ({"activation": "selu"}, "activation must be one of .* got 'selu'"),
        ({"init_scale": 0.0}, "init_scale must be positive .* got 0.0"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"depth": 2.5}, "depth must be .* got 2.5"),
        ({"depth": True}, "depth must be .* got True"),
        ({"parametrization": lz.Parametrization((np.nan, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)}, "finite numbers"),
    ],
)
def test_what_is_no_deep_network_is_refused(changes, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        lz.MLP(**{"width": 4, **changes})


def test_a_three_layer_network_has_three_layers():
    with pytest.raises(ValueError, match="depth must be 2 for ThreeLayer, got 3"):
        lz.ThreeLayer(4, depth=3)


@pytest.mark.parametrize(
    ("image", "stride"),
    [(None, 2), ((4, 3), 1), ((4, 3), 2), ((2, 3, 2), 1)],
)
def test_convolution_is_that_of_jax(image, stride):
    r = 3 if image is None else 2
    network = lz.ConvNet(
        6, filter_size=r, stride=stride, image=image, outputs=2, activation="tanh", train="both", symmetric=False
    )
    variables = start(network)
    w, readout = (np.asarray(variables["params"][name]) for name in ("hidden", "readout"))
    height, width, channels = (12, 1, 1) if image is None else (*image, 1)[:3]
    tall = (r, 1) if image is None else (r, r)
    # The weights of a filter are ordered with channels first, but JAX needs (rows, columns, channels).
    filters = w.reshape(6, *tall, channels) if channels == 1 else np.moveaxis(w.reshape(6, channels, *tall), 1, -1)
    convolved = jax.jit(jax.lax.conv_general_dilated, static_argnums=(2, 3), static_argnames="dimension_numbers")
    z = convolved(
        X.reshape(5, height, width, channels),
        np.moveaxis(filters, 0, -1),
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = np.tanh(np.asarray(z, np.float64)).mean(axis=(1, 2)) @ readout / 6**0.5
    assert_close(network.apply(variables, X), expected)


def test_a_convolution_of_one_patch_is_a_two_layer_network():
    conv, dense = lz.ConvNet(8, filter_size=12), lz.TwoLayer(8)
    moved = jax.tree.map(lambda a: np.asarray(a) * np.linspace(0.5, 1.5, len(a), dtype=a.dtype)[:, None], start(conv))
    assert_close(conv.apply(moved, X), dense.apply(moved, X))
    assert np.abs(np.asarray(dense.apply(moved, X))).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filter_size": 0}, "filter_size must be .* got 0"),
        ({"stride": 0}, "stride must be .* got 0"),
        ({"image": (2, 2)}, "sides of at least filter_size = 3"),
        ({"image": (4,)}, "image must be"),
        ({"image": (4, 3, 0)}, "image must be"),
        ({"filter_size": 2.5}, "filter_size must be .* got 2.5"),
        ({"image": (4, 4)}, "x must have 16 features to match image"),
        ({"filter_size": 13}, "x must have at least filter_size = 13 features"),
    ],
)
def test_what_is_no_convolutional_network_is_refused(changes, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        start(lz.ConvNet(**{"width": 4, **changes}))


def test_shapes_are_traced_once_for_each_dtype(monkeypatch):
    traced, init = [], lz.MLP.init
    monkeypatch.setattr(lz.MLP, "init", lambda *args: traced.append(None) or init(*args))
    network = lz.MLP(width=13, depth=2)
    shapes = [initial_shapes(network, (3,), dtype) for dtype in ("float32", np.dtype("float32"), np.int32)]
    assert len(traced) == 2
    with arithmetic("float64"):
        shapes += [initial_shapes(network, (3,), dtype) for dtype in ("float64", "int32")]
    for found, dtype in zip(shapes, ("float32", "float32", "float32", "float64", "float64"), strict=True):
        assert [leaf.shape for leaf in jax.tree.leaves(found)] == [(13, 3), (13, 13), (13, 1)]
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(dtype)}
