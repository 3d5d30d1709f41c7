"""Compiled programs are released, so that their number stays bounded, but the caller's own programs are kept."""

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet import programs
from lazynet.execution import _runner as runner

DATA = lz.load_dataset("digits", n_train=8, n_test=4)
MAPS = Path("/proc/self/maps")


def maps():
    """Return the number of memory maps of this process; each compiled program takes some."""
    return MAPS.read_bytes().count(b"\n") if MAPS.exists() else 0


def sweep(widths):
    measure = lz.Measure(predictions=False, kernel_drift=False)
    lz.sweep(lz.TwoLayer(width=2), DATA, widths, 1, 2, learning_rate=0.1, measure=measure)


@pytest.fixture(scope="module")
def released():
    """Return the numbers of memory maps around each release in a sweep over widths, and a function of the caller."""
    counts, release = [], programs.release
    own = jax.jit(lambda x: jnp.sin(x) + 1)
    own(jnp.ones(3)), own(jnp.ones(4))

    def counted():
        before = maps()
        release()
        gc.collect()
        counts.append((before, maps()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "release", counted)
        patch.setattr(runner, "MOST_PROGRAMS", 1)
        # No other test has networks of these widths, so none of their programs is compiled yet.
        sweep([82, 84, 86])
    return counts, own


@pytest.mark.slow
def test_programs_are_released_before_each_width_beyond_the_limit(released):
    assert len(released[0]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.exists(), reason="memory maps exist only on Linux")
def test_memory_maps_stay_flat_over_widths(released):
    counts = released[0]
    freed = [before - after for before, after in counts]
    # Every release frees the programs compiled since the previous one, except small ones that JAX keeps.
    assert min(freed) > 0
    assert counts[-1][1] - counts[0][1] < 0.5 * sum(freed[1:])


@pytest.mark.slow
def test_the_callers_own_programs_stay(released):
    assert released[1]._cache_size() == 2


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


@pytest.mark.slow
def test_a_function_runs_once_for_arguments_that_cannot_change():
    calls = []

    @programs.once
    def counted(value, number):
        calls.append(number)
        return number

    assert [counted(np.tanh, 1), counted(np.tanh, 1), counted(np.tanh, 2)] == [1, 1, 2]
    assert calls == [1, 2]
    changing = lambda z: z  # noqa: E731
    assert [counted(changing, 3), counted(changing, 3)] == [3, 3]
    assert calls == [1, 2, 3, 3]


def test_the_least_recently_used_programs_are_freed(monkeypatch):
    """Otherwise, each new static argument, such as a network with another scale, would add programs forever."""
    monkeypatch.setattr(programs, "KEPT", 8)
    traces = []

    @programs.compiled(static_argnames="factor")
    def scaled(x, factor):
        traces.append(factor)
        return factor * x

    programs.release()
    for factor in range(programs.KEPT + 3):
        scaled(jnp.ones(2), factor)
        # A program that was used recently is kept.
        assert float(scaled(jnp.ones(2), 0)[0]) == 0
    assert scaled._cache_size() == programs.KEPT
    assert traces == list(range(programs.KEPT + 3))
    scaled(jnp.ones(2), programs.KEPT + 2)
    assert len(traces) == programs.KEPT + 3
    scaled(jnp.ones(2), factor=1)
    assert traces[-1] == 1
    programs.release()
    assert scaled._cache_size() == 0


def test_shapes_beyond_the_limit_free_programs():
    @programs.compiled
    def doubled(x):
        return 2 * x

    programs.release()
    for n in range(1, 4):
        doubled(jnp.ones(n))
    assert doubled._cache_size() == 3
    programs._free(2)
    assert doubled._cache_size() == 0
    assert float(doubled(jnp.ones(()))) == 2
