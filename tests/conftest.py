"""Strict settings for all tests: shapes are checked, and implicit promotion of dtypes or ranks is an error."""

import atexit
import functools
import gc
import json
import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path

from compilation import EXACT

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Test workers share the processors; with more threads, NumPy's BLAS would lose a third of its time waiting for them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# All workers and all processes that tests start inherit these variables, so they share a cache of programs and fonts.
if "LAZYNET_TEST_CACHE" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="lazynet-test-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ |= {
        "LAZYNET_TEST_CACHE": CACHE,
        "JAX_COMPILATION_CACHE_DIR": CACHE + "/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # Matplotlib caches its list of fonts here, which takes seconds to build.
        "MPLCONFIGDIR": CACHE + "/matplotlib",
    }

# JAX would write the Python frames of each operation into its programs, which takes a tenth of the time of the tests.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Tests start processes that import lazynet, which takes a third longer without cached bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from typecheck import type_checks
from unchecked import unchecked

# Parts of the paths of slow tests in which types are checked, because no fast test calls the tested functions.
CHECKED = (
    "/papers/",
    "mode_residuals",
    "regression",
    "line_ensemble",
    "sweep_result",
    "measures/test_kernel",
    "test_pieces",
)
CHECKED += ("test_user_functions", "test_flow", "test_starts", "test_smooth", "test_adapters", "test_bounds")
# Exact tests are slow, so they run without type checks.
CHECKS = nullcontext() if EXACT else type_checks("lazynet")
CHECKS.__enter__()

# A conftest.py contains no examples, and pytest cannot collect two modules of the same name.
collect_ignore_glob = ["*conftest.py"]


def pytest_configure(config):
    """Import lazynet with type checks, except in the process that only distributes the tests among workers."""
    if config.getoption("dist") == "no":
        import jax

        import lazynet  # noqa: F401

        jax.config.update("jax_numpy_rank_promotion", "raise")
        jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Check types in fast tests, which call nearly all functions, but only in some slow tests, to save time."""
    fast = item.get_closest_marker("slow") is None
    with nullcontext() if fast or any(part in str(item.path) for part in CHECKED) else unchecked():
        return (yield)


def pytest_collection_finish():
    """Collect garbage rarely, because collections free little memory and took a twentieth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_unconfigure():
    """End the type checks only after all tests, because lazynet imports some modules only when it needs them."""
    CHECKS.__exit__(None, None, None)


# Docstrings whose examples train for more than a few seconds.
LONG_EXAMPLES = (
    "execution._folder.RunFolder",
    "experiment._measure.Measure",
    "measures._catalog.register_quantity",
    "studies._dispatch.merge_shards",
    "studies._dispatch.plot",
    "studies._dispatch.verify",
    "studies.laziness_map._api.laziness_map",
    "studies.line_ensemble._api.line_ensemble",
    "studies.mode_residuals._api.mode_residuals",
    "studies.required_width._api.required_width",
    "studies.sweep._api.sweep",
    "studies.sweep._population_bounds.population_bounds",
    "studies.sweep._speed_gap.speed_gap",
)

# Docstrings whose examples use neural-tangents.
PEER_EXAMPLES = ("kernels._door.neural_tangents", "networks._adapters.from_stax")


def pytest_collection_modifyitems(config, items):
    """Mark long examples and tests of reproductions, and select either the exact tests or all others."""
    from peer import INSTALLED

    chosen, others = [], []
    for item in items:
        if item.name.removeprefix("lazynet.") in LONG_EXAMPLES or "reproduced" in getattr(item, "fixturenames", ()):
            item.add_marker("whole")
        # pytest fails to skip examples whose line it does not know, so they are deselected.
        if not INSTALLED and item.name.removeprefix("lazynet.") in PEER_EXAMPLES:
            others.append(item)
            continue
        if item.get_closest_marker("whole"):
            item.add_marker("slow")
        (chosen if (item.get_closest_marker("exact") is not None) == EXACT else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.fixture(scope="session", autouse=True)
def one_context():
    """Lower all programs in one MLIR context; creating one for each would take a tenth of the time of the tests."""
    from jax._src.interpreters import mlir

    with pytest.MonkeyPatch.context() as patch:
        if not EXACT:
            patch.setattr(mlir, "make_ir_context", functools.cache(mlir.make_ir_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def measured_before(tmp_path_factory):
    """Store a size of packs, so that neither this process nor those that tests start measure it."""
    from lazynet import programs
    from lazynet.execution import _files as files
    from lazynet.experiment import _packing as packing

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        # Keep many programs, because the tests of a module reuse them; `few_programs` limits their number.
        patch.setattr(programs, "KEPT", 300)
        # Draw figures at low resolution, because nobody looks at them.
        patch.setattr(files, "DOTS_PER_INCH", 40)
        (cache / "lazynet").mkdir()
        (cache / "lazynet" / packing.FILE).write_text(json.dumps({packing.machine(): 8 * 2**20}))
        yield


# Number of memory maps above which programs are released. Each compiled program takes three of the 65530 that Linux
# allows a process, and XLA crashes if none is left.
MOST_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Release compiled programs after each module if the process has too many memory maps."""
    yield
    import jax

    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        from lazynet import programs

        programs.release()
        jax.clear_caches()


@pytest.fixture
def key(request):
    """Return a random key that differs between tests, and print its seed, so that a failure can be reproduced."""
    import jax

    seed = sum(map(ord, request.node.nodeid)) % 10_000
    print(f"seed of the key: {seed}")
    return jax.random.key(seed)
