"""Test kernel operators against the matrices that they represent."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from reference import unit_rows
from tolerance import assert_close
from unchecked import unchecked

import lazynet as lz
from lazynet import plan
from lazynet.kernels import CrossOperator, dense_operator
from lazynet.kernels import _operators as operators
from lazynet.kernels import _storage as storage

KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))
N = 23


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Use blocks of 7 rows and panels of 3 rows, so that there are several of each and a remainder."""
    monkeypatch.setattr(operators, "BLOCK", 7)
    monkeypatch.setattr(operators, "PANEL", 3)


@pytest.mark.parametrize("storage", ["memory", "disk", "devices", "none"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operator_equals_its_matrix(dtype, storage):
    x, v = unit_rows(N, 5), np.random.default_rng(1).normal(size=(N, 2))
    k = lz.kernel_operator(KERNEL, x, dtype=dtype, storage=storage)
    matrix = KERNEL(x)
    assert (k.shape, k.dtype, k.storage) == ((N, N), np.dtype(dtype), storage)
    ulps = 64 if dtype == "float64" else 8
    assert_close(k.dense().astype(dtype), matrix, ulps=ulps)
    # Sums are computed in float64, so only the matrix entries are rounded.
    assert_close(k.product(v), k.dense() @ v)
    assert_close(k.diagonal(), np.diag(k.dense()))
    index = np.array([0, 6, 7, 20, 22])
    np.testing.assert_array_equal(k.columns(index), k.dense()[:, index])


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_given_matrix_keeps_its_dtype(dtype, on_host, monkeypatch):
    """The matrix stays on the host, or is distributed over devices as it would be over accelerators."""
    monkeypatch.setattr("lazynet.kernels._dense._stays_on_host", lambda matrix: on_host)
    matrix = KERNEL(unit_rows(N, 5)).astype(dtype)
    k = dense_operator(matrix)
    assert k.storage == ("memory" if on_host else "devices")
    assert k.dtype == np.dtype(dtype)
    assert k.rounding == (2.0**-24 if dtype == "float32" else 0)
    np.testing.assert_array_equal(k.dense(), matrix.astype(np.float64))
    assert_close(k.product(np.eye(N)), matrix.astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_result_does_not_depend_on_the_number_of_devices(dtype, monkeypatch):
    x, y = unit_rows(N, 5), np.random.default_rng(1).normal(size=N)
    flows = []
    for count in (1, 2):
        monkeypatch.setattr("lazynet.kernels._dense.float64_devices", lambda count=count: jax.local_devices()[:count])
        k = lz.kernel_operator(KERNEL, x, dtype=dtype, storage="devices")
        assert len({panel.device for panel in k._panels}) == count
        flows.append(lz.kernel_flow(k, y, times=[0.1, 1.0, 10.0], method="krylov", tolerance=1e-3).train)
    assert_close(flows[0], flows[1], ulps=256)


def test_too_little_device_memory_is_refused(monkeypatch):
    monkeypatch.setattr(storage, "device_memory", lambda devices: 8 * N * N - 1)
    with pytest.raises(ValueError, match=r"A kernel of 23 rows in float64 .* needs .* GB of device memory"):
        lz.kernel_operator(KERNEL, unit_rows(N, 5), storage="devices")


def test_cross_operator():
    x1, x2, v = unit_rows(9, 5), unit_rows(N, 5, seed=1), np.random.default_rng(1).normal(size=(N, 2))
    assert_close(CrossOperator(KERNEL, x1, x2, "float64").product(v), KERNEL(x1, x2) @ v)


def test_blocks_are_computed_once_or_each_time():
    calls = []

    def counted(*args, **options):
        calls.append(1)
        return KERNEL(*args, **options)

    x, v = unit_rows(N, 5), np.ones((N, 1))
    stored = lz.kernel_operator(counted, x)
    assert len(calls) == 10  # the upper triangle of 4 x 4 blocks
    stored.product(v)
    assert len(calls) == 10
    recomputed = lz.kernel_operator(counted, x, storage="none")
    assert len(calls) == 10
    recomputed.product(v)
    assert len(calls) == 20


def test_too_large_kernels_go_to_disk_or_are_refused(monkeypatch):
    monkeypatch.setattr(storage, "WORKING", 0)
    x = unit_rows(N, 5)
    needed = plan.symmetric_bytes(N, 8, 7)
    assert needed == 8 * (3 * 49 + 4 + 7 * 7 * 3 + 3 * 7 * 2)
    assert lz.kernel_operator(KERNEL, x, memory=needed).storage == "memory"
    assert lz.kernel_operator(KERNEL, x, memory=needed - 1).storage == "disk"

    def no_work(*args, **options):
        raise AssertionError("work was started")

    with pytest.raises(
        ValueError, match=r"A kernel of 23 rows in float64 .* needs 0\.00 GB of memory, but only 0\.00 GB is free\."
    ):
        lz.kernel_operator(no_work, x, storage="memory", memory=needed - 1)


def test_a_full_disk_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="of disk space, but only"):
        lz.kernel_operator(KERNEL, unit_rows(N, 5), storage="disk")


def test_progress_ends_at_one():
    shares = []
    lz.kernel_operator(KERNEL, unit_rows(N, 5), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_bad_input():
    x = unit_rows(N, 5)
    for inputs in (x[:0], x[0]):
        with unchecked(), pytest.raises(ValueError, match="x must be a nonempty array"):
            lz.kernel_operator(KERNEL, inputs)
    with pytest.raises(ValueError, match="x must be finite"):
        lz.kernel_operator(KERNEL, np.full((3, 2), np.nan))
    with unchecked(), pytest.raises(ValueError, match=r"x1 must be an array of shape \(n1, 5\)"):
        CrossOperator(KERNEL, x[:, :4], x, "float64")
    with pytest.raises(ValueError, match="x1 must be finite"):
        CrossOperator(KERNEL, x * np.inf, x, "float64")
    with pytest.raises(ValueError, match="dtype must be"):
        lz.kernel_operator(KERNEL, x, dtype="float16")
    with pytest.raises(ValueError, match="storage must be None or one of memory, disk, devices, none"):
        lz.kernel_operator(KERNEL, x, storage="cloud")
    with pytest.raises(ValueError, match=r"kernel must return finite values, got .* in rows 0 to 6"):
        lz.kernel_operator(lambda a, b=None, dtype=None: np.full((len(a), len(a if b is None else b)), np.nan), x)
    with pytest.raises(ValueError, match=r"kernel must return an array of shape \(7, 2\)"):
        lz.kernel_operator(lambda a, b=None, dtype=None: a @ a.T, x, storage="none").product(np.ones((N, 1)))
    with unchecked(), pytest.raises(ValueError, match=r"v must be an array of shape \(23, k\)"):
        dense_operator(KERNEL(x)).product(np.ones((N - 1, 1)))
    large = np.zeros((4, 4))
    large[0, 3], large[3, 0] = 1e308, -1e308
    with pytest.raises(ValueError, match="k must be symmetric"):
        dense_operator(large)
    with pytest.raises(ValueError, match="k must be symmetric"):
        dense_operator(np.triu(np.ones((4, 4), np.float32)))


@pytest.mark.slow
def test_available_memory_is_plausible():
    assert 1e6 < plan.available_memory() < 1e15
