"""Test products that read half of a symmetric matrix against products with the full matrix."""

import threading
import time

import numpy as np
import pytest
from tolerance import assert_close
from unchecked import unchecked

from lazynet.kernels import _halves as halves
from lazynet.kernels._halves import ROWS, half_products
from lazynet.kernels._threads import in_threads

RNG = np.random.default_rng(0)


def symmetric(n, dtype):
    k = RNG.normal(size=(n, n))
    return (k + k.T).astype(dtype)


# The cases have fewer rows than a group, whole groups, or groups and a remainder; more strips than lanes; 17, 9 or 0
# vectors; and several chunks of columns.
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 3), (8, 8), (23, 2), (64, 17), (1203, 9), (40, 0), (2307, 2)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_symmetric_product(dtype, n, k):
    matrix, v = symmetric(n, dtype), RNG.normal(size=(n, k))
    above, below = half_products(matrix, v)
    # Sums are computed in float64, so only the matrix entries are rounded.
    assert_close(above + below, matrix.astype(np.float64) @ v)


@pytest.mark.parametrize("shape", [(3, 9), (16, 1), (20, 4200), (1100, 40)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_products_of_any_block(dtype, shape):
    block, right, left = (
        RNG.normal(size=shape).astype(dtype),
        RNG.normal(size=(shape[1], 3)),
        RNG.normal(size=(shape[0], 3)),
    )
    above, below = half_products(block, right, left)
    assert_close(above, block.astype(np.float64) @ right)
    assert_close(below, block.astype(np.float64).T @ left)


def test_many_lanes():
    matrix, v = symmetric(1500, "float64"), RNG.normal(size=(1500, 3))
    assert_close(sum(half_products(matrix, v, rows_per_lane=140)), matrix @ v)


def test_invalid_blocks_are_refused():
    block, right, left = np.ones((9, 16)), np.ones((16, 2)), np.ones((9, 2))
    for arrays in ((block, right[1:], left), (block, right, left[1:]), (block, right, left[:, :1]), (block, right)):
        with unchecked(), pytest.raises(ValueError, match="block must have a shape that matches"):
            half_products(*arrays)
    for entries in (block.astype(int), block.astype(">f8")):
        with unchecked(), pytest.raises(ValueError, match="block must have dtype float64 or float32"):
            half_products(entries, right, left)
    with unchecked(), pytest.raises(ValueError, match="block must have contiguous rows"):
        half_products(np.asfortranarray(block), right, left)


def test_the_other_half_is_not_read():
    matrix, v = symmetric(50, "float64"), RNG.normal(size=(50, 2))
    groups = np.arange(50) // ROWS
    half = np.where(groups[:, None] > groups, np.nan, matrix)
    assert_close(sum(half_products(half, v)), matrix @ v)


def test_rows_that_are_part_of_longer_ones():
    matrix, v = symmetric(40, "float64"), RNG.normal(size=(20, 2))
    assert_close(sum(half_products(matrix[20:, 20:], v)), matrix[20:, 20:] @ v)


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    matrix, v = symmetric(700, "float32"), RNG.normal(size=(700, 2))
    product = sum(half_products(matrix, v))
    monkeypatch.setattr(halves, "in_threads", lambda f, items: [f(item) for item in items])
    np.testing.assert_array_equal(sum(half_products(matrix, v)), product)


def test_threads_keep_the_order_and_nest():
    assert in_threads(lambda i: sum(in_threads(lambda j: i * j, range(5))), range(20)) == [10 * i for i in range(20)]
    assert in_threads(str, []) == []


def test_an_interrupt_does_not_wait_for_the_remaining_items():
    done = []

    def item(i):
        done.append(i)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        in_threads(item, range(1000))
    assert len(done) < 20


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda i: 1 / (i - 3), range(5))
