"""Small studies that cover what lazynet computes, written in the current API.

Each function in STUDIES returns its results as arrays, keyed by name. In this folder, only the two modules with studies
call lazynet.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from arrays import Arrays, as_array, of_dataset, of_json, of_text, of_tree, prefixed
from flax import nnx

import lazynet as lz
import lazynet.measures
from lazynet.data import cache_folder
from lazynet.experiment._packing import FILE, machine
from lazynet.kernels import neural_tangents

WIDTHS = [16, 64]


def packing_file() -> tuple[Path, str]:
    """Return the file that stores the number of bytes in a pack of networks, and this machine's key in it."""
    return cache_folder() / FILE, machine()


def digits(*classes: int, n_train: int = 24, n_test: int = 12) -> lz.Dataset:
    """Return a few digits, from classes 0 and 1 if no classes are given."""
    return lz.load_dataset("digits", classes=classes or (0, 1), n_train=n_train, n_test=n_test)


def plane() -> lz.Dataset:
    """Return more than twice as many points as dimensions, so that training updates weights, not pre-activations."""
    return lz.sphere(32, 8, 6, jax.random.key(5))


def swept(network: Any, data: lz.Dataset, widths: Any = WIDTHS, seeds: Any = 3, steps: int = 12, **options: Any) -> Any:
    """Run a sweep that writes to a folder, and return its result, verdict and packs as arrays."""
    options = {"snapshots": 5, "progress": False} | options
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        arrays = of_dataset(lz.sweep(network, data, widths, seeds, steps, out=out, **options))
        packs = json.loads((out / "settings.json").read_text())["record"]["packs"]
        arrays |= prefixed("verdict", of_json(out / "verdict.json"))
    arrays["packs/point_and_width"] = as_array([pack[:2] for pack in packs])
    return arrays | prefixed("packs/seeds", of_tree({i: as_array(pack[2]) for i, pack in enumerate(packs)}))


def stepped(stepper: str) -> lz.Optimizer:
    """Return plain gradient descent with the given stepper."""
    return lz.Optimizer("sgd", stepper=stepper)


def of_run(run: lz.Run) -> Arrays:
    """Return the status, snapshots and variables of a run of `lz.train`."""
    arrays = of_dataset(run.snapshots) | {"status": as_array(run.status)}
    return (
        arrays
        | prefixed("variables", of_tree(dict(run.variables)))
        | prefixed("variables_0", of_tree(dict(run.variables_0)))
    )


# Sweeps of two-layer networks.


def hidden() -> Arrays:
    """Sweep a relu network whose hidden layer is trained by full-batch descent on its weights; write no folder."""
    return of_dataset(lz.sweep(lz.TwoLayer(width=16), plane(), WIDTHS, 4, 20, snapshots=6, progress=False))


def rotated() -> Arrays:
    """Sweep with descent in the row space of the inputs, and measure sharpness."""
    return swept(lz.TwoLayer(width=16), digits(), optimizer=stepped("hidden"), measure=lz.Measure(sharpness=True))


def preactivation() -> Arrays:
    """Sweep with descent on pre-activations, for few points with many features and no symmetric initialization."""
    data = lz.gaussian_mixture(10, 6, 40, jax.random.key(1))
    return swept(lz.TwoLayer(width=16, symmetric=False), data)


def autodiff() -> Arrays:
    """Sweep with plain gradient descent by automatic differentiation."""
    return swept(lz.TwoLayer(width=16, activation="tanh"), digits(), optimizer=stepped("autodiff"))


def both() -> Arrays:
    """Sweep a network whose two layers are both trained."""
    return swept(lz.TwoLayer(width=16, train="both", symmetric=False), digits())


def readout() -> Arrays:
    """Sweep a network of which only the readout is trained, on mini-batches."""
    return swept(lz.TwoLayer(width=16, train="readout", activation="erf"), digits(), batch_size=6)


def delayed() -> Arrays:
    """Sweep with mini-batches, and update the weights of the hidden layer only once per block of steps."""
    return swept(lz.TwoLayer(width=16), digits(), steps=15, batch_size=3, optimizer=stepped("delayed"))


def batches() -> Arrays:
    """Sweep over batch sizes, including the full batch."""
    return swept(lz.TwoLayer(width=16), digits(), [32], 2, axes={"batch_size": [8, 24]})


def float64() -> Arrays:
    """Sweep over output scales in double precision, and measure sharpness."""
    return swept(
        lz.TwoLayer(width=16, train="both"),
        digits(),
        seeds=2,
        dtype="float64",
        axes={"output_scale": [0.5, 2.0]},
        measure=lz.Measure(sharpness=True),
    )


def adam() -> Arrays:
    """Sweep with Adam on the logistic loss."""
    return swept(lz.TwoLayer(width=16), digits(), optimizer="adam", loss="logistic", learning_rate=0.01)


def hinge() -> Arrays:
    """Sweep with an optimizer from optax on the hinge loss."""
    options = {"optimizer": lambda rate: optax.sgd(rate, momentum=0.5), "loss": "hinge", "learning_rate": 0.2}
    return swept(lz.TwoLayer(width=16), digits(), **options)


def momentum() -> Arrays:
    """Sweep with momentum on the squared loss."""
    return swept(
        lz.TwoLayer(width=16, init_scale=0.5), digits(), optimizer=lz.Optimizer("sgd", momentum=0.9), learning_rate=0.05
    )


def softmax() -> Arrays:
    """Sweep with three classes, the summed softmax loss and random initial readouts."""
    network = lz.TwoLayer(width=16, outputs=3, readout="gaussian", symmetric=False)
    return swept(network, digits(0, 1, 2), loss=lz.losses.softmax("sum"), learning_rate=0.2)


def outputs() -> Arrays:
    """Sweep with three classes, the squared loss and kernels for all outputs."""
    return swept(lz.TwoLayer(width=16, outputs=3, symmetric=False), digits(0, 1, 2))


def stop() -> Arrays:
    """Sweep with all criteria for early stopping."""
    criteria = lz.Stop(loss=2.0, gradient=1e-6, plateau=20)
    return swept(lz.TwoLayer(width=16), digits(), steps=60, stop=criteria)


def diverged() -> Arrays:
    """Sweep over two learning rates; at the larger one, training diverges."""
    return swept(lz.TwoLayer(width=16, train="both"), digits(), seeds=2, steps=40, axes={"learning_rate": [0.05, 4.0]})


def axes() -> Arrays:
    """Sweep over learning rates, label noise and numbers of examples."""
    options = {"axes": {"n_train": [12, 24], "learning_rate": [0.05, 0.1], "label_noise": [0.0, 0.5]}}
    return swept(lz.TwoLayer(width=16), digits(), seeds=2, steps=8, **options)


def activations() -> Arrays:
    """Sweep over activations and initial scales."""
    return swept(
        lz.TwoLayer(width=16), digits(), [32], 2, 8, axes={"activation": ["relu", "gelu"], "init_scale": [0.5, 1.0]}
    )


def mean_field() -> Arrays:
    """Sweep with an output scale and a learning rate that are functions of the width."""
    network = lz.TwoLayer(width=16, train="both", output_scale=lambda m: m**-0.5)
    return swept(network, digits(), learning_rate=lambda m: 0.02 * m)


def own_measures() -> Arrays:
    """Sweep with a user-defined measure and a measure from lazynet at chosen steps."""
    network = lz.TwoLayer(width=16)

    def largest(network: Any, variables: Any, variables_0: Any, data: Any) -> jax.Array:
        return jnp.max(jnp.abs(variables["params"]["hidden"] - variables_0["params"]["hidden"]), axis=0)

    measure = lz.Measure(own={"largest": largest, "kernel": lazynet.measures.current_kernel})
    return swept(network, digits(n_train=12), [16], 4, 12, snapshots=range(0, 13, 4), measure=measure)


def second_order() -> Arrays:
    """Sweep with Taylor polynomials of order 2 and kernel regression."""
    network = lz.TwoLayer(width=16, train="both", activation="tanh", symmetric=False)
    return swept(network, digits(), measure=lz.Measure(quadratic=True, regression=True))


def alone() -> Arrays:
    """Sweep without a comparison with kernels, and measure only some of the examples."""
    measure = lz.Measure(predictions=False, rows=10)
    return swept(lz.TwoLayer(width=16), digits(), measure=measure, learning_rate=0.1, batch_size=8)


def flow() -> Arrays:
    """Sweep with gradient flow."""
    network, measure = lz.TwoLayer(width=16, train="both"), lz.Measure(predictions=False)
    return swept(network, digits(), seeds=2, steps=30, optimizer="flow", measure=measure)


def shards() -> Arrays:
    """Run a sweep in two shards and merge them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        for k in (1, 2):
            options = {"snapshots": 4, "progress": False, "out": lz.RunFolder(out, shard=(k, 2))}
            lz.sweep(lz.TwoLayer(width=16), digits(), WIDTHS, 4, 10, **options)
        return of_dataset(lz.merge_shards(out))


# Sweeps of other networks.


def deep() -> Arrays:
    """Sweep a network with three hidden layers, and compute kernel regression."""
    return swept(lz.MLP(width=16, depth=3), digits(), seeds=2, measure=lz.Measure(regression=True))


def maximal_update() -> Arrays:
    """Sweep a network with three outputs, biases and the maximal-update parametrization."""
    network = lz.MLP(16, depth=2, outputs=3, activation="tanh", bias_scale=0.1, parametrization="maximal-update")
    return swept(network, digits(0, 1, 2), seeds=2, steps=8)


def three_layer() -> Arrays:
    """Sweep the three-layer network of Allen-Zhu, Li and Liang."""
    return swept(lz.ThreeLayer(width=16), digits(), seeds=2, steps=8)


def convolutional() -> Arrays:
    """Sweep a network with one convolution."""
    network = lz.ConvNet(width=8, filter_size=3, stride=2, image=(8, 8))
    return swept(network, digits(n_train=16), [8, 16], 2, 8)


class Perceptron(nn.Module):
    """A flax module with two dense layers."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the outputs, shape (n, 1)."""
        return nn.Dense(1)(nn.tanh(nn.Dense(self.width)(x)))


def own_flax() -> Arrays:
    """Sweep a user-defined flax module."""
    return swept(lz.from_flax(Perceptron, parametrization="standard"), digits(), seeds=2, steps=10)


def own_nnx() -> Arrays:
    """Sweep a user-defined NNX module without a parametrization."""

    def make(width: int, rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Sequential(nnx.Linear(64, width, rngs=rngs), nnx.relu, nnx.Linear(width, 1, rngs=rngs))

    return swept(lz.from_nnx(make), digits(n_train=12), [16], 2, 8)


def own_stax() -> Arrays:
    """Sweep a stax network, whose analytic kernel stax provides."""
    stax = neural_tangents().stax
    network = lz.from_stax(lambda width: stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(1)))
    return swept(network, digits(n_train=12), [16], 2, 8)


def own_functions() -> Arrays:
    """Sweep a network defined by two functions."""

    def init(key: jax.Array, x: jax.Array, width: int) -> dict[str, jax.Array]:
        return {"w": jax.random.normal(key, (width, x.shape[1]))}

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(x @ params["w"].T), axis=1) / len(params["w"]) ** 0.5

    return swept(lz.from_functions(init, apply), digits(n_train=12), [16], 2, 8)


# Verdicts.


def verdict() -> Arrays:
    """Return a verdict with corrections to scaling and one with a narrow band, both as JSON and as text."""
    result = lz.sweep(lz.TwoLayer(width=16), digits(), [16, 32, 64, 128, 256], 4, 20, snapshots=6, progress=False)
    said = lz.verify(result, corrections=True)
    narrow = lz.verify(result, band=0.02)
    return (
        of_dataset(result)
        | prefixed("corrections", of_json(said.to_json()) | of_text(str(said)))
        | prefixed("narrow", of_json(narrow.to_json()) | of_text(str(narrow)))
    )


def deep_verdict() -> Arrays:
    """Return a sweep of a deep network and the text of its verdict, which treats the layers separately."""
    network = lz.MLP(width=16, depth=2)
    measure = lz.Measure(quadratic=True)
    result = lz.sweep(network, digits(n_train=12), [16, 32], 2, 8, snapshots=4, measure=measure, progress=False)
    return of_dataset(result) | of_text(str(lz.verify(result)))


# Other studies.


def laziness_map() -> Arrays:
    """Map width and output scale for two networks, one with zero and one with nonzero initial outputs."""
    data, scales = digits(1, 8, n_train=12), [0.1, 1.0, 10.0]
    options = {"seeds": 2, "fitted": 0.2, "steps": 2000, "progress": False}
    both_layers = lz.laziness_map(lz.TwoLayer(width=16, train="both"), data, WIDTHS, scales, change=0.3, **options)
    network = lz.TwoLayer(width=16, activation="tanh", symmetric=False)
    centered = lz.laziness_map(network, data, [16], scales[1:], change=0.1, **options)
    return prefixed("both", of_dataset(both_layers)) | prefixed("centered", of_dataset(centered))


def line_ensemble() -> Arrays:
    """Compare networks on a line through two inputs with the infinite-width ensemble."""
    data = digits(n_train=12, n_test=0)
    network = lz.MLP(width=16, depth=2, activation="tanh", init_scale=1.5**0.5)
    places = np.linspace(-1.0, 2.0, 7)
    options = {"seeds": 5, "steps": 10, "places": places, "progress": False}
    arrays = prefixed("deep", of_dataset(lz.line_ensemble(network, data, data.x_train[:2], WIDTHS, **options)))
    network = lz.TwoLayer(width=16, symmetric=False)
    return arrays | prefixed(
        "two", of_dataset(lz.line_ensemble(network, data, data.x_train[:2], [16], dtype="float64", **options))
    )


def predict() -> Arrays:
    """Predict kernel descent on whole data sets, with one output and with several."""
    data = digits(n_train=64, n_test=20)
    one = lz.infinite_width(lz.TwoLayer(width=2), data, steps=1000, snapshots=10)
    several = lz.infinite_width(lz.MLP(2, outputs=3), digits(0, 1, 2), steps=500, snapshots=5, dtype="float64")
    return prefixed("one", of_dataset(one)) | prefixed("several", of_dataset(several))


def train() -> Arrays:
    """Train one network, and project its residual onto the modes of its kernels."""
    data, network = digits(), lz.TwoLayer(width=64)
    run = lz.train(network, data, jax.random.key(3), 30, snapshots=8, measure=lz.Measure(sharpness=True))
    kernels = {
        "analytic": lz.analytic_kernel(network)(data.x_train),
        "empirical": lz.empirical_ntk(network, run.variables_0, data.x_train),
    }
    arrays = of_run(run)
    for name, k in kernels.items():
        arrays |= prefixed(f"modes_{name}", of_dataset(lz.mode_residuals(run, k, data.y_train)))
    return arrays


def train_outputs() -> Arrays:
    """Train a deep network with several outputs by Nesterov momentum on mini-batches and by plain descent."""
    data, network = digits(0, 1, 2), lz.MLP(width=16, depth=2, outputs=3)
    nesterov = lz.Optimizer("sgd", momentum=0.9, nesterov=True)
    noisy = lz.train(network, data, jax.random.key(4), 12, batch_size=8, optimizer=nesterov, learning_rate=0.01)
    plain = lz.train(network, data, jax.random.key(4), 12, snapshots=5, dtype="float64")
    modes = lz.mode_residuals(plain, lz.analytic_kernel(network)(data.x_train), data.y_train, tolerance=0.05)
    return prefixed("noisy", of_run(noisy)) | prefixed("plain", of_run(plain)) | prefixed("modes", of_dataset(modes))


def train_flow() -> Arrays:
    """Train one network by gradient flow until a stop criterion holds."""
    network = lz.TwoLayer(width=32, train="both", activation="softplus")
    stop = lz.Stop(loss=3.0)
    return of_run(lz.train(network, digits(), jax.random.key(6), 100, optimizer="flow", stop=stop, snapshots=4))


def polynomials() -> Arrays:
    """Expand a network around trained variables, and train the Taylor polynomials like networks."""
    data, network = digits(), lz.TwoLayer(width=32, train="both", activation="tanh", symmetric=False)
    run = lz.train(network, data, jax.random.key(7), 10, snapshots=3)
    arrays: Arrays = {}
    for expand in (lz.linearize, lz.quadratic):
        polynomial = expand(network, run.variables)
        trained = lz.train(polynomial, data, jax.random.key(8), 12, snapshots=4)
        arrays |= prefixed(expand.__name__, of_run(trained))
    return arrays


def kernels() -> Arrays:
    """Compute analytic and empirical kernels, complexities and label projections."""
    data, key = digits(0, 1, 2, n_train=12), jax.random.key(9)
    x = jnp.asarray(data.x_train, "float32")
    networks = {
        "two": lz.TwoLayer(width=16, outputs=3, train="both", init_scale=1.5),
        "gelu": lz.TwoLayer(width=16, outputs=3, activation="gelu"),
        "deep": lz.MLP(width=16, depth=3, outputs=3, bias_scale=0.1),
        "three": lz.ThreeLayer(width=16, outputs=3),
        "convolutional": lz.ConvNet(width=16, outputs=3, image=(8, 8), stride=2),
    }
    arrays: Arrays = {}
    for name, network in networks.items():
        kernel, variables = lz.analytic_kernel(network), network.init(key, x)
        k = kernel(data.x_train)
        found = {
            "analytic": k,
            "analytic_test": kernel(data.x_test, data.x_train),
            "empirical": lz.empirical_ntk(network, variables, data.x_test, data.x_train),
            "all_outputs": lz.empirical_ntk(network, variables, x[:4], outputs="all"),
            "parts": lz.empirical_ntk(network, variables, data.x_train, parts=True),
            "complexity": lz.complexity(k, data.y_train),
            "projections": lz.label_projections(k, data.y_train),
        }
        arrays |= prefixed(name, of_tree(found))
    mean = lz.monte_carlo_kernel(networks["two"], data.x_train[:4], starts=5)
    module, rows = Perceptron(width=16), data.x_train
    own = lz.empirical_ntk(module, module.init(key, x), rows)
    return arrays | prefixed("monte_carlo", of_tree(mean)) | {"own_flax": as_array(own)}


def dynamics() -> Arrays:
    """Compute kernel predictions for descent, for flow and over random initializations."""
    data, network = digits(), lz.TwoLayer(width=2, symmetric=False)
    kernel = lz.analytic_kernel(network)
    k, k_test, y = kernel(data.x_train), kernel(data.x_test, data.x_train), data.y_train
    descent: dict[str, Any] = {"learning_rate": 0.05, "steps": [0, 1, 5, 20], "k_test": k_test}
    order = np.arange(24).reshape(4, 6)[np.arange(20) % 4]
    operator = lz.kernel_operator(kernel, data.x_train, dtype="float32")
    rows = np.concatenate([data.x_train, data.x_test])
    found = {
        "descent": lz.kernel_descent(k, y, **descent),
        "momentum": lz.kernel_descent(k, y, momentum=0.9, **descent),
        "logistic": lz.kernel_descent(k, y, loss="logistic", **descent),
        "batches": lz.kernel_descent(k, y, batches=order, **descent),
        "krylov": lz.kernel_descent(operator, y, method="krylov", **descent),
        "flow": lz.kernel_flow(k, y, times=[0.0, 0.5, 5.0], k_test=k_test, f0=0.1),
        "logistic_flow": lz.kernel_flow(k, y, times=[0.0, 0.5, 5.0], k_test=k_test, loss="logistic"),
        "ensemble": lz.kernel_ensemble(k, y, times=[0.0, 1.0], start_covariance=rows @ rows.T, k_test=k_test),
    }
    return of_tree(found)


def data() -> Arrays:
    """Create data sets of every kind."""
    key = jax.random.key(11)
    sets = {
        "digits": digits(),
        "sphere": lz.sphere(6, 3, 4, key, targets="signs"),
        "gaussian_mixture": lz.gaussian_mixture(6, 3, 4, key, components=3),
        "mixture": lz.mixture(30, 10, 20, key, classes=3),
        "xor": lz.xor(8, 4, key),
    }
    found = {
        name: {part: getattr(made, part) for part in ("x_train", "y_train", "x_test", "y_test")}
        for name, made in sets.items()
    }
    noisy = lz.label_noise(sets["digits"].y_train, 0.5, key)
    return of_tree(found) | {"noise": as_array(noisy)}


STUDIES: tuple[Callable[[], Arrays], ...] = (
    hidden,
    rotated,
    preactivation,
    autodiff,
    both,
    readout,
    delayed,
    batches,
    float64,
    adam,
    hinge,
    momentum,
    softmax,
    outputs,
    stop,
    diverged,
    axes,
    activations,
    mean_field,
    own_measures,
    second_order,
    alone,
    flow,
    shards,
    deep,
    maximal_update,
    three_layer,
    convolutional,
    own_flax,
    own_nnx,
    own_stax,
    own_functions,
    verdict,
    deep_verdict,
    laziness_map,
    line_ensemble,
    predict,
    train,
    train_outputs,
    train_flow,
    polynomials,
    kernels,
    dynamics,
    data,
)
