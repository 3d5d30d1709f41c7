"""Slips of a user either give the right result or are refused with a message that says what to do."""

import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from peer import neural_tangents
from unchecked import unchecked

import lazynet as lz

X = np.random.default_rng(0).normal(size=(6, 5))
Y = np.sign(X[:, 0])
DATA = lz.Dataset(X, Y)
KEY = jax.random.key(0)
NETWORK, DEEP = lz.TwoLayer(width=8), lz.MLP(width=8, depth=2)
ROWS = jnp.asarray(X, jnp.float32)
KERNEL = lz.analytic_kernel(NETWORK)
K = KERNEL(X)


class Torch:
    """A stand-in for an array of another library."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)

    def __getattr__(self, name):
        return "torch.float32" if name == "dtype" else getattr(self.array, name)

    def __len__(self):
        return len(self.array)


def variables_of(network):
    return network.init(KEY, ROWS)


TAKEN = {
    "rows as a list": (lambda: KERNEL(X.tolist()), lambda: K),
    "rows as a list, empirical": (
        lambda: lz.empirical_ntk(NETWORK, variables_of(NETWORK), X.tolist()),
        lambda: lz.empirical_ntk(NETWORK, variables_of(NETWORK), X),
    ),
    "rows as a list, operator": (lambda: lz.kernel_operator(KERNEL, X.tolist()).dense(), lambda: K),
    "a kernel as a list": (
        lambda: lz.kernel_flow(K.tolist(), Y, times=[1.0]).train,
        lambda: lz.kernel_flow(K, Y, times=[1.0]).train,
    ),
    "a kernel as a list, ensemble": (
        lambda: lz.kernel_ensemble(K.tolist(), Y, times=[1.0], start_covariance=K).train_mean,
        lambda: lz.kernel_ensemble(K, Y, times=[1.0], start_covariance=K).train_mean,
    ),
    "a kernel as a list, complexity": (lambda: lz.complexity(K.tolist(), Y.tolist()), lambda: lz.complexity(K, Y)),
    "a tensor": (lambda: KERNEL(Torch(X)), lambda: K),
    "a tensor, empirical": (
        lambda: lz.empirical_ntk(NETWORK, variables_of(NETWORK), Torch(X)),
        lambda: lz.empirical_ntk(NETWORK, variables_of(NETWORK), X),
    ),
    "a pickled kernel": (lambda: pickle.loads(pickle.dumps(KERNEL))(X), lambda: K),
    "a diagonal": (lambda: KERNEL.diagonal(np.tile(X, (30, 1))), lambda: np.tile(np.diag(K), 30)),
    "a network by name": (lambda: lz.analytic_kernel(network=NETWORK)(X), lambda: K),
}

REFUSED = {
    "features, two layers": (
        lambda: lz.empirical_ntk(NETWORK, variables_of(NETWORK), X[:, :3]),
        r"^variables\['params'\] must have shape \(8, 3\) at 'hidden' for this network, got \(8, 5\)",
    ),
    "features, deep": (
        lambda: lz.empirical_ntk(DEEP, variables_of(DEEP), X[:, :3]),
        r"^variables\['params'\] must have shape \(8, 3\) at 'hidden_1' for this network, got \(8, 5\)",
    ),
    "swapped": (
        lambda: lz.empirical_ntk(DEEP, X, variables_of(DEEP)),
        "^x1 must be an array of real numbers, got an array of object",
    ),
    "no parameters": (
        lambda: lz.empirical_ntk(lambda v, x: x[:, 0], {"params": {}}, X),
        r"^variables\['params'\] must contain at least one array, got none",
    ),
    "a number for a key": (lambda: lz.train(NETWORK, DATA, 0, 2), "^key must be a single JAX random key, got 0"),
    "a number for a key, mean": (lambda: lz.monte_carlo_kernel(NETWORK, X, starts=2, key=0), "^key must be a single"),
    "two keys": (lambda: lz.train(NETWORK, DATA, jax.random.split(KEY), 2), "^key must be a single JAX random key"),
    "data as a pair": (lambda: lz.sweep(NETWORK, (X, Y), [8], 1, 2), "^data must be a lazynet.Dataset, got"),
    "data as a name": (lambda: lz.sweep(NETWORK, "digits", [8], 1, 2), "^data must be a lazynet.Dataset, got 'digits'"),
    "a line search": (
        lambda: lz.train(NETWORK, DATA, KEY, 2, learning_rate=0.1, optimizer=lambda rate: optax.lbfgs(rate)),
        "^optimizer must return an optax optimizer that needs only gradients and parameters",
    ),
    "under jit": (
        lambda: jax.jit(lambda y: lz.label_projections(np.eye(4), y).eigenvalues)(jnp.asarray(Y)),
        "^y must be a concrete array, got a traced one",
    ),
    "a field of another network": (
        lambda: lz.from_stax(lambda m: None).clone(train="readout"),
        "^changes must be one of kind, .*, got 'train'",
    ),
    "a module": (
        lambda: lz.linearize(nn.Dense(1), {"params": {"w": ROWS}}),
        "^network must have the attributes width, outputs, clone, init and apply, got Dense",
    ),
}


@pytest.mark.parametrize("slip", TAKEN)
def test_taken_with_the_right_result(slip):
    found, right = TAKEN[slip]
    with unchecked():
        np.testing.assert_allclose(found(), right(), rtol=1e-6)


@pytest.mark.parametrize("slip", REFUSED)
def test_refused_in_a_sentence(slip):
    call, message = REFUSED[slip]
    with unchecked(), pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def result():
    return lz.sweep(NETWORK, DATA, [8, 16], 2, 3, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["width", "seed", "step"])
def test_a_verdict_on_a_piece_of_a_result(field, result):
    assert lz.verify(result.isel({field: 0})).levels
    with pytest.raises(ValueError, match=r"^result.attrs\['kind'\] must be one of sweep, "):
        lz.verify(result.drop_attrs())


@pytest.mark.slow
def test_the_diagonal_of_many_rows():
    x = np.random.default_rng(1).normal(size=(10**5, 3))
    diagonal = lz.analytic_kernel(lz.TwoLayer(width=8, train="both")).diagonal(x)
    # The diagonal is |x|^2, because E[relu'^2] = 1/2 and E[relu^2] = |x|^2 / 2.
    np.testing.assert_allclose(diagonal, np.sum(x**2, axis=1), rtol=1e-12)


def test_the_kernel_of_stax_and_the_covariance_have_a_diagonal():
    def layers(width):
        stax = neural_tangents().stax
        return stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(1))

    kernel = lz.analytic_kernel(lz.from_stax(layers))
    np.testing.assert_allclose(kernel.diagonal(X), np.diag(kernel(X)), rtol=1e-12)
