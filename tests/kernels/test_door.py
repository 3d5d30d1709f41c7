"""Test that neural-tangents can be imported with the installed JAX, without side effects."""

import os
import subprocess
import sys
import textwrap
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer import ABSENT, INSTALLED

from lazynet.kernels import _door as door
from lazynet.kernels._door import NAMES, neural_tangents, resolve

needs_neural_tangents = pytest.mark.skipif(not INSTALLED, reason=ABSENT)


def in_fresh_process(program, *folders):
    """Run a program in a new interpreter that treats warnings as errors, with the given folders first on its path."""
    path = os.pathsep.join([*map(str, folders), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def bound_by_neural_tangents(name):
    """Return the object that neural-tangents imported under the given name."""
    source = neural_tangents()._src
    attribute = name.rsplit(".", 1)[1]
    if attribute == "Primitive":
        return source.utils.rules.Primitive
    if attribute == "zeros_like_p":
        # neural-tangents keeps the primitive zeros_like only as a key of STRUCTURE_RULES.
        (primitive,) = [p for p in source.utils.rules.STRUCTURE_RULES if p is not None and p.name == "zeros_like"]
        return primitive
    return getattr(source.empirical, attribute.removeprefix("safe_"))


@needs_neural_tangents
@pytest.mark.parametrize(("name", "source"), NAMES.items())
def test_table_matches_the_installed_jax(name, source):
    intended = resolve(source)
    assert bound_by_neural_tangents(name) is intended
    # The name is added to JAX only while neural-tangents is imported. If JAX itself has the name, it must refer to the
    # same object.
    try:
        present = resolve(name)
    except (ModuleNotFoundError, AttributeError):
        return
    assert present is intended


def test_public_objects_are_the_private_ones():
    for name, source in NAMES.items():
        if source.startswith("jax.extend.core."):
            assert resolve(source) is resolve(f"jax._src.core.{name.rsplit('.', 1)[1]}")


@needs_neural_tangents
@pytest.mark.slow
def test_import_has_no_side_effects(tmp_path):
    fake = tmp_path / "tensorflow"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise RuntimeError('tensorflow was imported')")
    (tmp_path / "tf2jax.py").write_text("raise RuntimeError('tf2jax was imported')")
    process = in_fresh_process(
        """
        import sys, threading, jax
        import lazynet
        from lazynet.kernels import neural_tangents
        # Modules that are slow to import are imported only where they are needed.
        assert not {"tensorflow", "neural_tangents", "scipy.stats", "scipy.cluster", "matplotlib"} & set(sys.modules)
        config = dict(jax.config.values)
        opened = []
        threads = [threading.Thread(target=lambda: opened.append(neural_tangents())) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(opened) == 4 and len(set(map(id, opened))) == 1
        assert opened[0].__version__ == "0.6.5"
        assert not {"tensorflow", "tf2jax", "jax.util"} & set(sys.modules)
        assert dict(jax.config.values) == config
        assert jax.numpy.ones(1).dtype == "float32"
        assert not hasattr(jax.core, "Jaxpr") and not hasattr(jax.interpreters.ad, "zeros_like_p")
        """,
        tmp_path,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@needs_neural_tangents
def test_a_failed_import_removes_the_names(monkeypatch):
    def refuse(name):
        if name == "neural_tangents":
            raise ImportError("refused")
        return original(name)

    original = door.importlib.import_module
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(door.importlib, "import_module", refuse)
    with pytest.raises(ImportError, match="refused"):
        neural_tangents.__wrapped__()
    assert "jax.util" not in sys.modules
    assert not hasattr(jax.core, "Jaxpr")


def test_where_the_library_is_not_installed_the_error_tells_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(door.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"^neural-tangents is not installed\. Install it .* pip install --no-deps neural"
    ):
        neural_tangents.__wrapped__()


def test_an_earlier_import_is_reused(monkeypatch):
    mine = ModuleType("neural_tangents")
    monkeypatch.setitem(sys.modules, "neural_tangents", mine)
    assert neural_tangents.__wrapped__() is mine


def two_layer(weights, x):
    return jnp.tanh(x @ weights[0].T) @ weights[1]


@pytest.fixture
def weights_and_rows(key):
    shapes = (7, 3), (7, 1), (4, 3)
    *weights, x = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key, 3), shapes, strict=True))
    return weights, x


@needs_neural_tangents
@pytest.mark.slow
@pytest.mark.parametrize("method", ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"])
@pytest.mark.filterwarnings("ignore:size requires ndarray:DeprecationWarning")  # a harmless warning in neural-tangents
def test_empirical_kernel(method, weights_and_rows):
    nt = neural_tangents()
    weights, x = weights_and_rows
    kernel_fn = nt.empirical_ntk_fn(two_layer, implementation=nt.NtkImplementation[method])
    kernel = jax.jit(kernel_fn, static_argnums=1)(x, None, weights)
    jacobian = jax.jit(jax.jacobian(lambda w: two_layer(w, x)[:, 0]))(weights)
    rows = np.concatenate([np.asarray(part).reshape(4, -1) for part in jacobian], axis=1)
    np.testing.assert_allclose(kernel, rows @ rows.T, rtol=1e-4, atol=1e-5)


@needs_neural_tangents
@pytest.mark.slow
def test_stax_and_predict(weights_and_rows):
    nt = neural_tangents()
    x = weights_and_rows[1]
    kernel_fn = nt.stax.serial(nt.stax.Dense(1), nt.stax.Erf(), nt.stax.Dense(1))[2]
    kernel = jax.jit(lambda x: kernel_fn(x, None, "ntk"))(x)
    y = jnp.ones((4, 1))
    predicted = nt.predict.gradient_descent_mse(kernel, y)(3.0, 0 * y)
    # The loss of neural-tangents is a mean over n = 4 examples, so its time t corresponds to time t / 4 of lazynet.
    eigenvalues, vectors = np.linalg.eigh(np.asarray(kernel, np.float64))
    flow = vectors @ ((1 - np.exp(-eigenvalues * 3.0 / 4)) * (vectors.T @ np.ones(4)))
    np.testing.assert_allclose(predicted[:, 0], flow, rtol=1e-4, atol=1e-5)
