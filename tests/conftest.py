"""Strict JAX under test: shapes are checked, dtypes and ranks are never promoted silently, warnings are errors."""

import atexit
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
# Workers share the processors; threads of NumPy's BLAS that wait for each other take a third of the time of its work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# One cache of programs and fonts for the run: its workers and the processes that tests start inherit the variables.
if "LAZYNET_TEST_CACHE" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="lazynet-test-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ |= {
        "LAZYNET_TEST_CACHE": CACHE,
        "JAX_COMPILATION_CACHE_DIR": CACHE + "/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # The list of fonts, which takes seconds to make.
        "MPLCONFIGDIR": CACHE + "/matplotlib",
    }

# The Python frames of each operation, which JAX writes into its programs, take a tenth of the time of the tests.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Processes that tests start import lazynet, which takes a third longer without its bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from typecheck import type_checks
from unchecked import unchecked

# Slow tests of functions that no fast test calls.
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
# Exact tests are slow.
CHECKS = nullcontext() if EXACT else type_checks("lazynet")
CHECKS.__enter__()

# Files such as this one hold no examples, and those of two folders cannot be collected under one name.
collect_ignore_glob = ["*conftest.py"]


def pytest_configure(config):
    """Import lazynet with type checks, except in the process that hands the tests out to others."""
    if config.getoption("dist") == "no":
        import jax

        import lazynet  # noqa: F401

        jax.config.update("jax_numpy_rank_promotion", "raise")
        jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Check types in fast tests, which call nearly all functions; in slow ones, checks take a tenth of the time."""
    fast = item.get_closest_marker("slow") is None
    with nullcontext() if fast or any(part in str(item.path) for part in CHECKED) else unchecked():
        return (yield)


def pytest_collection_finish():
    """Collect garbage seldom: collections find little and took a twentieth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_unconfigure():
    """Check types until the last module is imported, such as those of the papers, which lazynet imports when needed."""
    CHECKS.__exit__(None, None, None)


# Examples of docstrings that train for more than a few seconds.
SLOW_EXAMPLES = (
    "execution._folder.RunFolder",
    "experiment._training.Measure",
    "measures._catalog.register_quantity",
    "studies._dispatch.merge_shards",
    "studies._dispatch.verify",
    "studies.laziness_map._api.laziness_map",
    "studies.line_ensemble._api.line_ensemble",
    "studies.mode_residuals._api.mode_residuals",
    "studies.sweep._speed_gap.speed_gap",
)


def pytest_collection_modifyitems(config, items):
    """Mark slow examples, which cannot carry a decorator, and select the exact tests or all others."""
    chosen, others = [], []
    for item in items:
        if item.name.removeprefix("lazynet.") in SLOW_EXAMPLES or item.get_closest_marker("whole"):
            item.add_marker("slow")
        (chosen if (item.get_closest_marker("exact") is not None) == EXACT else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.fixture(scope="session", autouse=True)
def measured_before(tmp_path_factory):
    """How much a pack may go through is not measured, here and in processes that tests start."""
    from lazynet import programs
    from lazynet.execution import _files as files
    from lazynet.experiment import _packing as packing

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        # Tests of one module use many programs again; `few_programs` bounds their number.
        patch.setattr(programs, "KEPT", 300)
        # Nobody looks at the figures of the tests.
        patch.setattr(files, "DOTS_PER_INCH", 40)
        (cache / "lazynet").mkdir()
        (cache / "lazynet" / packing.FILE).write_text(json.dumps({packing.machine(): 8 * 2**20}))
        yield


# Each compiled program takes three of the 65530 memory maps that Linux gives a process; XLA crashes without one.
MOST_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Compiled programs are let go of between modules where a process has many."""
    yield
    import jax

    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        from lazynet import programs

        programs.release()
        jax.clear_caches()


@pytest.fixture
def key(request):
    """A key that differs from test to test and is printed, so that a failure can be run again."""
    import jax

    seed = sum(map(ord, request.node.nodeid)) % 10_000
    print(f"seed of the key: {seed}")
    return jax.random.key(seed)
