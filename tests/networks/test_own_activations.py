"""Test user-defined activation functions in networks and in sweeps."""

import json
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unchecked import unchecked

import lazynet as lz
from lazynet.networks import get_activation, traits


def same_tanh(z):
    return jnp.tanh(z)


WIDTHS = (16, 64)


@pytest.fixture(scope="module")
def data():
    return lz.load_dataset("digits", n_train=32, n_test=8)


@pytest.fixture(scope="module")
def swept(data):
    """Return a function that runs sweeps and computes each of them only once."""

    @cache
    def sweep_with(activation, family=lz.TwoLayer, widths=(16,), **more):
        network, kernels = family(width=16, activation=activation, **more), family is lz.TwoLayer
        measure = lz.Measure(predictions=kernels, kernel_drift=kernels)
        return lz.sweep(network, data, list(widths), seeds=1, steps=10, measure=measure, progress=False)

    return sweep_with


@pytest.mark.slow
def test_a_function_of_jax_is_the_name_that_it_has(swept):
    named, given = swept("tanh", widths=WIDTHS).isel(width=[0]), swept(jnp.tanh)
    assert json.loads(given.attrs["settings"])["activation"] == "tanh"
    assert set(named.data_vars) == set(given.data_vars)
    for name in named.data_vars:
        np.testing.assert_array_equal(given[name], named[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "more"),
    [
        (lz.TwoLayer, {"widths": WIDTHS}),
        (lz.MLP, {"depth": 2}),
    ],
)
def test_a_function_gives_what_the_name_gives(swept, family, more):
    named, given = swept("tanh", family, **more), swept(same_tanh, family, **more)
    # Bounds need a Lipschitz constant, which is unknown for a user-defined function.
    missing = {"lemma_bound", "path_bound"} if family is lz.TwoLayer else set()
    assert set(named.data_vars) - set(given.data_vars) == missing
    for name in given.data_vars:
        tolerance = {"rtol": 1e-3, "atol": 2e-5} if "gap" in name or "flips" in name else {"rtol": 2e-5, "atol": 1e-5}
        np.testing.assert_allclose(given[name], named[name], err_msg=name, **tolerance)
    assert json.loads(given.attrs["settings"])["activation"] == "same_tanh"


@pytest.mark.slow
def test_a_verdict_and_a_figure_of_a_function(swept):
    named, given = swept("tanh", widths=WIDTHS), swept(same_tanh, widths=WIDTHS)
    rows = [{row.quantity: row.predicted for row in lz.verify(result).rows} for result in (named, given)]
    assert rows[0] == rows[1]
    assert "same_tanh" in lz.plot(given)._suptitle.get_text()


def test_what_is_unknown_of_a_function_is_left_out():
    entry = get_activation(same_tanh)
    assert (entry.name, entry.lipschitz, entry.homogeneous, entry.relu_parts) == ("same_tanh", None, None, None)
    assert not entry.is_named
    network = traits(lz.TwoLayer(8, activation=same_tanh))
    assert (network.neuron_gradient, network.scaling.homogeneous, network.custom) == (None, None, True)


@pytest.mark.slow
def test_functions_stand_on_an_axis_by_their_names(swept, data):
    axes = {"activation": ["tanh", same_tanh]}
    measure = lz.Measure(predictions=False, kernel_drift=False)
    result = lz.sweep(lz.TwoLayer(width=16), data, [16], 1, 10, axes=axes, measure=measure, progress=False)
    assert result.activation.values.tolist() == ["tanh", "same_tanh"]
    alone = swept(same_tanh, widths=WIDTHS).isel(width=[0])
    np.testing.assert_array_equal(result.train_loss.sel(activation="same_tanh"), alone.train_loss)
    traits_of_points = json.loads(result.attrs["settings"])["traits"]
    assert [record["scaling"]["homogeneous"] for record in traits_of_points] == [False, None]


@pytest.mark.slow
def test_a_stored_sweep_tells_functions_of_one_name_apart(data, tmp_path):
    """A user-defined activation with kinks has no infinite-width kernel, but without predictions none is needed."""

    def sweep_with(slope, resume):
        def activation(z):
            return jnp.clip(slope * z, -1, 1)

        network = lz.TwoLayer(width=8, activation=activation)
        options = {
            "learning_rate": 0.1,
            "measure": lz.Measure(predictions=False, kernel_drift=False),
            "progress": False,
        }
        return lz.sweep(network, data, [8], 1, 5, out=lz.RunFolder(tmp_path / "run", resume=resume), **options)

    first = sweep_with(1.0, False)
    np.testing.assert_array_equal(sweep_with(1.0, True).train_loss, first.train_loss)
    with pytest.raises(ValueError, match="network_values"):
        sweep_with(2.0, True)


REFUSED = {
    "unknown name": ("rely", "got 'rely'"),
    "no function": (3, "got 3"),
    "mixes entries": (jax.nn.softmax, "got softmax, which mixes the entries of its argument"),
    "other shape": (jnp.sum, "got sum, which does not return an array with the shape and dtype of its argument"),
    "other dtype": (jnp.signbit, "got signbit, which does not"),
    "not of jax": (np.tanh, "got tanh, which fails on an array of shape"),
    "fails": (lambda z: z @ z, "got <lambda>, which fails on an array of shape"),
    "unhashable": (type("Unhashable", (), {"__call__": lambda self, z: z, "__hash__": None})(), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_activation_is_refused(name):
    activation, message = REFUSED[name]
    for family in (lz.TwoLayer, lz.MLP, partial(lz.ConvNet, filter_size=2)):
        with unchecked(), pytest.raises(ValueError, match=f"activation must be .*{re.escape(message)}"):
            family(8, activation=activation)
