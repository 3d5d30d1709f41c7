"""Compiled programs are released: their number stays bounded, and the caller's own stay."""

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import lazynet as lz
from lazynet import programs
from lazynet.execution import _runner as runner

DATA = lz.load_dataset("digits", n_train=8, n_test=4)
MAPS = Path("/proc/self/maps")


def maps():
    """Return the number of memory maps of this process; each compiled program takes some."""
    return MAPS.read_bytes().count(b"\n")


def sweep(widths):
    measure = lz.Measure(predictions=False, kernel_drift=False)
    lz.sweep(lz.TwoLayer(width=2), DATA, widths, 1, 2, learning_rate=0.1, measure=measure)


@pytest.mark.skipif(not MAPS.exists(), reason="memory maps are Linux's")
def test_memory_maps_stay_flat_over_many_widths(monkeypatch):
    counts, release = [], programs.release

    def counted():
        before = maps()
        release()
        gc.collect()
        counts.append((before, maps()))

    monkeypatch.setattr(programs, "release", counted)
    monkeypatch.setattr(runner, "MOST_PROGRAMS", 4)
    # No other test has networks of these widths.
    sweep(range(62, 98, 2))
    assert len(counts) == 4
    freed = [before - after for before, after in counts]
    kept = [after - counts[0][1] for _, after in counts]
    # Every release frees the programs since the one before it.
    assert min(freed) > 0
    assert kept[-1] < 0.5 * sum(freed[1:])


def test_the_callers_own_programs_stay(monkeypatch):
    monkeypatch.setattr(runner, "MOST_PROGRAMS", 1)
    released, release = [], programs.release
    monkeypatch.setattr(programs, "release", lambda: released.append(True) or release())
    own = jax.jit(lambda x: jnp.sin(x) + 1)
    own(jnp.ones(3)), own(jnp.ones(4))
    assert own._cache_size() == 2
    sweep([2, 4, 6])
    assert len(released) == 2
    assert own._cache_size() == 2


def test_a_released_function_is_compiled_again():
    traces = []

    @programs.compiled
    def doubled(x):
        traces.append(x.shape)
        return 2 * x

    assert float(doubled(jnp.ones(()))) == float(doubled(jnp.ones(()))) == 2
    assert doubled._cache_size() == len(traces) == 1
    programs.release()
    assert doubled._cache_size() == 0
    assert float(doubled(jnp.ones(()))) == 2
