"""Test that kernels refuse variables of another network and networks in which rows depend on each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.measures import current_kernel, taylor_gap
from lazynet.networks import Network

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)), jnp.float32)
KEY = jax.random.key(0)


def started(network, x=X):
    return jax.jit(network.init)(KEY, x)


class Flax(nn.Module):
    width: int = 8
    norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        # Normalize with the statistics of the batch, not with running averages, as batch norm does in training mode.
        x = (x - x.mean(axis=0, keepdims=True)) / (x.std(axis=0, keepdims=True) + 1e-3) if self.norm else x
        return nn.Dense(1)(nn.tanh(x))[:, 0]


def functions(width):
    return lz.from_functions(
        lambda key, x, width: {"w": jax.random.normal(key, (width, x.shape[1]))},
        lambda params, x: jnp.tanh(x @ params["w"].T).sum(axis=1),
        width=width,
    )


PAIRS = {
    "width": (lz.TwoLayer(width=64), lz.TwoLayer(width=32), "shape (64, 6) at 'hidden'"),
    "trained part": (lz.TwoLayer(width=64), lz.TwoLayer(width=64, train="both"), "no array at 'readout'"),
    "outputs": (lz.MLP(8, outputs=3), lz.MLP(8), "shape"),
    "depth": (lz.MLP(8, depth=3), lz.MLP(8, depth=2), "shape"),
    "flax": (Flax(8), Flax(16), "shape (8,) at 'Dense_0/bias'"),
    "functions": (functions(8), functions(16), "shape (8, 6) at 'w'"),
    "number of features": (lz.TwoLayer(width=64), None, "shape (64, 6) at 'hidden'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_variables_of_another_network_are_refused(pair):
    network, other, message = PAIRS[pair]
    variables = started(network, X[:, :5]) if other is None else started(other)
    with pytest.raises(ValueError, match=r"^variables\['params'\] must have .* These variables belong to another") as e:
        lz.empirical_ntk(network, variables, X)
    assert message in str(e.value)
    own = started(network)
    assert lz.empirical_ntk(network, own, X).shape == (5, 5)


@pytest.mark.parametrize("pair", PAIRS)
def test_expansions_and_their_gaps_refuse_them_too(pair):
    network, other, message = PAIRS[pair]
    variables = started(network, X[:, :5]) if other is None else started(other)
    own = started(network)
    if isinstance(network, Network):
        for expand in (lz.linearize, lz.quadratic):
            assert expand(network, own).init(KEY, X)["params"].keys() == own["params"].keys()
            with pytest.raises(ValueError, match="These variables belong to another network"):
                expand(network, variables).init(KEY, X)
    for now, start in ((variables, own), (own, variables)):
        with pytest.raises(ValueError, match="These variables belong to another network") as e:
            taylor_gap(network, now, start, X)
        assert message in str(e.value)
    assert taylor_gap(network, own, own, X) == 0


def test_arrays_that_are_not_trained_are_compared_too():
    network, other = lz.TwoLayer(width=8), lz.TwoLayer(width=8, outputs=2)
    wrong = {**started(network), "fixed": started(other)["fixed"]}
    with pytest.raises(ValueError, match=r"^variables\['fixed'\] must have shape \(8, 1\) at 'readout'"):
        lz.empirical_ntk(network, wrong, X)


BATCHED = {
    "flax": Flax(norm=True),
    "function": lambda variables, x: (x @ variables["params"]["w"]) - (x @ variables["params"]["w"]).mean(),
}


@pytest.mark.parametrize("kind", BATCHED)
def test_rows_that_see_each_other_are_refused(kind):
    network = BATCHED[kind]
    variables = started(network) if kind == "flax" else {"params": {"w": jnp.ones(6)}}
    with pytest.raises(ValueError, match="depends on other rows in the batch, as with batch norm"):
        lz.empirical_ntk(network, variables, X)
    with pytest.raises(ValueError, match="depends on other rows in the batch, as with batch norm"):
        lz.empirical_ntk(network, variables, X[:1], X[1:])


@pytest.mark.slow
def test_a_monte_carlo_kernel_refuses_them_too():
    with pytest.raises(ValueError, match="depends on other rows in the batch, as with batch norm"):
        lz.monte_carlo_kernel(Flax(norm=True), X, starts=2)


SEEN = "depends on other rows in the batch, as with batch norm"


def test_the_kernel_as_a_measure_refuses_them_too():
    own, data = lz.from_functions(zero_head, centered, width=8), lz.Dataset(X, np.sign(np.asarray(X[:, 0])))
    variables = dict(started(own))
    with pytest.raises(ValueError, match=SEEN):
        current_kernel(own, variables, variables, data)
    measure = lz.Measure(kernel_drift=False, own={"kernel": current_kernel})
    with pytest.raises(ValueError, match=SEEN):
        lz.train(own, data, KEY, 1, learning_rate=0.1, measure=measure)


def zero_head(key, x, width):
    return {"w": jax.random.normal(key, (x.shape[1], width)), "head": jnp.zeros((width,))}


def centered(params, x):
    """Return outputs minus their mean over the batch; with a head of zeros, as at initialization, all are zero."""
    hidden = jnp.tanh(x @ params["w"]) @ params["head"]
    return hidden - hidden.mean()


def test_they_are_found_although_the_last_layer_starts_at_zero():
    own, data = lz.from_functions(zero_head, centered, width=8), lz.Dataset(X, np.sign(np.asarray(X[:, 0])))
    with pytest.raises(ValueError, match=SEEN):
        lz.empirical_ntk(own, started(own), X)
    with pytest.raises(ValueError, match=SEEN):
        lz.train(own, data, KEY, 1, learning_rate=0.1)
