"""Test that registrations suffice for a new network family and that the library does not check a network's class."""

import ast
import json
from dataclasses import fields
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet.networks import PARAMETRIZATIONS, LayerScaling, Network, Traits, traits
from lazynet.networks import __all__ as exported

FAMILIES = ("TwoLayer", "MLP", "ConvNet", "ThreeLayer")
PACKAGE = Path(lz.__file__).parent


class SkipNet(nn.Module):
    """The network f(x) = (1 / sqrt(m)) sum_r a_r tanh(w_r . x) + skip_scale v . x, with w, a and v trained."""

    width: int
    outputs: int = 1
    skip_scale: float = 0.5

    @nn.compact
    def __call__(self, x):
        def drawn(name, *shape):
            return self.param(name, lambda key: jax.random.normal(key, shape, jnp.float32).astype(x.dtype))

        w, a, v = drawn("w", self.width, x.shape[1]), drawn("a", self.width), drawn("v", x.shape[1])
        return jnp.tanh(x @ w.T) @ a / self.width**0.5 + self.skip_scale * x @ v


@traits.register(SkipNet)
def skip_traits(network):
    return Traits(
        name="SkipNet",
        title="tanh with a skip connection",
        fields=("outputs", "skip_scale"),
        custom=False,
        preactivations=lambda variables, x: [x @ variables["params"]["w"].T],
        neurons=lambda variables: variables["params"]["w"],
        scaling=LayerScaling(PARAMETRIZATIONS["ntk"], depth=1, homogeneous=False),
    )


@lz.analytic_kernel.register(SkipNet)
def skip_kernel(network):
    two_layer = lz.analytic_kernel(lz.TwoLayer(width=2, activation="tanh", train="both"))

    def kernel(x1, x2=None, dtype="float64"):
        x1, x2 = np.asarray(x1, dtype), np.asarray(x1 if x2 is None else x2, dtype)
        return two_layer(x1, x2) + network.skip_scale**2 * x1 @ x2.T

    return kernel


@pytest.fixture(scope="module")
def data():
    return lz.load_dataset("digits", n_train=32, n_test=8)


@pytest.fixture(scope="module")
def result(data):
    return lz.sweep(SkipNet(width=8), data, [64, 1024], seeds=4, steps=20)


@pytest.mark.slow
def test_the_kernel_of_a_new_family_is_used(result, data):
    expected = skip_kernel(SkipNet(8))(data.x_train)
    np.testing.assert_allclose(result.lambda_max, np.linalg.eigvalsh(expected)[-1], rtol=1e-10)
    assert float(result.initial_kernel_error.mean("seed").isel(width=-1)) < 0.1
    gap = result.kernel_gap_train.max("step").mean("seed").values
    assert gap[-1] < 0.5 * gap[0]


@pytest.mark.slow
def test_its_preactivations_and_neurons_are_measured(data):
    network = SkipNet(32)
    run = lz.train(network, data, jax.random.key(3), steps=50)
    before, after = (variables["params"]["w"] for variables in (run.variables_0, run.variables))
    signs = [np.sign(data.x_train.astype(np.float32) @ w.T) for w in (before, after)]
    flips = np.mean(signs[0] != signs[1])
    assert flips > 0
    assert float(run.snapshots.activation_flips[-1]) == pytest.approx(flips, abs=1e-3)
    furthest = np.linalg.norm(np.asarray(after) - np.asarray(before), axis=1).max()
    assert float(run.snapshots.max_neuron_displacement[-1]) == pytest.approx(furthest, rel=1e-5)


@pytest.mark.slow
def test_its_exponents_are_predicted(result):
    verdict = lz.verify(result)
    predicted = {row.quantity: (row.relation, row.predicted) for row in verdict.rows}
    # The initial output and the gradients of all arrays are of order 1, as in a two-layer network with NTK scaling.
    assert predicted["displacement"] == ("equal", 0)
    assert predicted["relative_displacement"] == ("equal", -0.5)
    assert {predicted[name] for name in ("activation_flips", "kernel_drift", "kernel_gap_train")} == {("at most", -0.5)}
    assert verdict.row("relative_displacement").fitted == pytest.approx(-0.5, abs=0.1)
    assert verdict.row("kernel_drift").status == "holds"


@pytest.mark.slow
def test_its_figure_and_settings_carry_its_name_and_fields(result):
    assert lz.plot(result)._suptitle.get_text().startswith("tanh with a skip connection on digits, n = 32:")
    settings = json.loads(result.attrs["settings"])
    assert (settings["network"], settings["skip_scale"], settings["layers"]) == ("SkipNet", 0.5, ["a", "v", "w"])
    assert "activation" not in settings


def test_fields_that_it_lacks_are_refused(data):
    with pytest.raises(ValueError, match=r"axes must be chosen from .* got 'activation'"):
        lz.sweep(SkipNet(8), data, [8], axes={"activation": ["relu"]})


@pytest.mark.parametrize(
    "network",
    [lz.TwoLayer(8), lz.MLP(8), lz.ThreeLayer(8), lz.ConvNet(8), SkipNet(8), lz.from_flax(lambda width: nn.Dense(1))],
)
def test_networks_follow_the_protocol(network):
    assert isinstance(network, Network)
    facts = traits(network)
    assert all(hasattr(network, name) for name in facts.fields)
    assert set(facts.start_fields) <= set(facts.fields)


def test_a_network_without_registrations_has_defaults():
    class Unregistered(nn.Module):
        width: int
        outputs: int = 1
        temperature: float = 1.0

    defaults = {field.name: field.default for field in fields(Traits)}
    facts = traits(Unregistered(8))
    assert (facts.name, facts.fields, facts.custom) == ("Unregistered", ("outputs", "temperature"), True)
    given = ("name", "title", "fields")
    assert all(getattr(facts, name) == default for name, default in defaults.items() if name not in given)


def modules():
    """Return the modules of the package that must not check a network's class."""
    inside = ("networks", "cli", "papers")
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in inside and path != PACKAGE / "__init__.py"
    ]


def registrations(tree):
    """Yield the syntax nodes in the decorators and arguments of a module's single-dispatch registrations."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            calls = [node for node in function.decorator_list if isinstance(node, ast.Call)]
            if any(isinstance(call.func, ast.Attribute) and call.func.attr == "register" for call in calls):
                for node in (*function.decorator_list, function.args):
                    yield from ast.walk(node)


def test_classes_stand_in_registrations_only():
    places = []
    for path in modules():
        tree = ast.parse(path.read_text())
        allowed = set(registrations(tree))
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in FAMILIES]
        names += [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in FAMILIES]
        places += [f"{path.name}:{node.lineno}" for node in names if node not in allowed]
    assert not places


def test_class_names_are_not_compared():
    classes = {name for name in exported if name[0].isupper() and not name.isupper()} | set(FAMILIES)
    places = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in classes:
                places.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                classes_asked_for = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                if classes_asked_for & classes:
                    places.append(f"{path.name}:{node.lineno}")
    assert not places
