"""Host threads for NumPy functions and machine code that release Python's global interpreter lock."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from threading import Event, RLock
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

# The BLAS thread limit is a process-wide setting, so only one thread may change and restore it at a time.
NARROW = RLock()
FEW = 1000  # maximum number of rows for which one thread decomposes a square matrix about as fast as several threads


@contextmanager
def narrow_products(rows: int = 1) -> Iterator[None]:
    """Limit BLAS to one thread inside the context.

    Additional threads do not speed up products with only a few vectors, but they keep spinning after each product.
    Decompositions of small square matrices do not benefit from additional threads either. If `rows` exceeds `FEW`, the
    number of threads is left unchanged.

    Args:
        rows: Number of rows of the largest square matrix that is decomposed inside the context.

    Returns:
        A context manager.
    """
    if rows > FEW:
        yield
        return
    with NARROW, _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    """Return a controller for the BLAS libraries of NumPy and SciPy, which are loaded when lazynet is imported."""
    return ThreadpoolController()


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "lazynet")


# Threads do not survive a fork, so a child process must create a new pool.
os.register_at_fork(after_in_child=_helpers.cache_clear)


def in_threads(f: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply a function to each item in parallel.

    The calling thread takes part in the work, because pool threads take a while to wake up. An exception raised by `f`
    is propagated to the caller.

    Args:
        f: Function of one item. It should release the global interpreter lock.
        items: Items to process.

    Returns:
        The results, in the order of the items.
    """
    items = list(items)
    results: dict[int, Result] = {}
    numbers, stopped = count(), Event()

    def work() -> None:
        while not stopped.is_set() and (i := next(numbers)) < len(items):
            results[i] = f(items[i])

    helpers = []
    # Once the main thread has exited, the pool no longer accepts work.
    with suppress(RuntimeError):
        helpers += [_helpers().submit(work) for _ in range(min(len(items), os.cpu_count() or 1) - 1)]
    try:
        work()
    except BaseException:
        stopped.set()
        raise
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    return [results[i] for i in range(len(items))]
