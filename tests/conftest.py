"""Strict JAX under test: shapes are checked, dtypes and ranks are never promoted silently, warnings are errors."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

with install_import_hook("lazynet", "beartype.beartype"):
    import lazynet  # noqa: F401

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key(request):
    """A key that differs from test to test and is printed, so that a failure can be run again."""
    seed = sum(map(ord, request.node.nodeid)) % 10_000
    print(f"seed of the key: {seed}")
    return jax.random.key(seed)
