"""Threads of the host, for work in NumPy and machine code that lets go of Python's lock."""

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

# BLAS has one setting for all threads: whoever comes last finds, and leaves, what was there before the first.
NARROW = RLock()
FEW = 1000  # rows of a square matrix that one thread decomposes about as soon as several


@contextmanager
def narrow_products(rows: int = 1) -> Iterator[None]:
    """One thread for BLAS: its others, of no use to narrow products, would keep cores busy for a while after each.

    They are of little use to square matrices of few rows, too; where there are more rows, they stay.
    """
    if rows > FEW:
        yield
        return
    with NARROW, ThreadpoolController().limit(limits=1, user_api="blas"):
        yield


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "lazynet")


# A process that forks keeps no threads.
os.register_at_fork(after_in_child=_helpers.cache_clear)


def in_threads(f: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What f gives of each item, in order. The caller's thread works too, because others take a while to wake."""
    items = list(items)
    results: dict[int, Result] = {}
    numbers, stopped = count(), Event()

    def work() -> None:
        while not stopped.is_set() and (i := next(numbers)) < len(items):
            results[i] = f(items[i])

    helpers = []
    # A thread that outlives the main one finds no helpers any more.
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
