"""Measure the memory of a process that runs sweeps with different settings, then trains with different measures.

Compiled programs of earlier settings are freed, so memory stops growing once the limit on the number of programs is
reached. Each line gives the memory of the process. The script exits with code 1 if the second half of the sweeps or of
the training runs adds more than 20 MB. It requires Linux, where /proc/self/statm reports the memory.
"""

import argparse
import gc
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

import lazynet as lz

MOST = 20.0


def used() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def grown(name: str, count: int, call: Callable[[int], object]) -> float:
    """Call a function with different settings, and return the memory that the second half of the calls adds, in MB."""
    call(0)
    memory = [used()]
    for i in range(1, count):
        call(i)
        memory.append(used())
        if (i + 1) % 10 == 0:
            print(f"{i + 1:4} {name}: {memory[-1]:6.0f} MB", flush=True)
    growth = memory[-1] - memory[count - 1 - count // 2]
    print(f"The last {count // 2} {name} add {growth:.1f} MB.", flush=True)
    return growth


def main() -> int:
    """Run the script, and return 1 if memory keeps growing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="number of sweeps and of runs (40)")
    count = parser.parse_args().count
    data = lz.load_dataset("digits", n_train=32, n_test=8)

    def sweep(i: int) -> object:
        return lz.sweep(lz.TwoLayer(16, init_scale=1 + i / 100), data, [16, 32], seeds=1, steps=3, progress=False)

    def train(i: int) -> object:
        measure = lz.Measure(own={"constant": lambda *_: jnp.asarray(float(i))})
        return lz.train(lz.TwoLayer(16), data, jax.random.key(0), 3, learning_rate=0.1, measure=measure)

    growths = [grown("sweeps", count, sweep), grown("runs", count, train)]
    return int(max(growths) > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
