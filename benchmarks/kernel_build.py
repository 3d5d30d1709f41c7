"""Analytic kernel of one set of rows: time and memory of lazynet compared with neural-tangents."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

import lazynet as lz
from benchmarks.timing import Report, interleaved, peak_memory, show_table
from lazynet.kernels import BLOCK, neural_tangents

# Two correct kernels of unit rows in float32 differ by about 1e-7, or by 1e-4 on the diagonal because of the arccos in
# neural-tangents.
TOLERANCE = 1e-3


def rows(n: int, d: int) -> np.ndarray:
    """Return random rows of unit norm in float32."""
    x = np.random.default_rng(0).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def peer(x: np.ndarray) -> Callable[[], Array]:
    """Return a jitted function that computes the kernel of the hidden layer with neural-tangents."""
    stax = neural_tangents().stax
    d = x.shape[1]
    layers = stax.serial(stax.Dense(1, W_std=d**0.5, b_std=None), stax.Relu())[2]

    @jax.jit
    def kernel(x: Array) -> Array:
        return layers(x, None, get="ntk")

    on_device = jax.numpy.asarray(x)

    def call() -> Array:
        with jax.default_matmul_precision("highest"):
            return kernel(on_device)

    return call


def ours(x: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that computes the kernel with lazynet in float32."""
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    return lambda: kernel(x, dtype="float32")


def for_memory(n: int, d: int, contender: str) -> Callable[[], Any]:
    """Return a contender's function after loading the rows and making a warm-up call on some of them."""
    build = {"lazynet": ours, "neural-tangents": peer}[contender]
    x = rows(n, d)
    # The warm-up uses a full block and the same remainder, so that the measured call does not compile anything.
    jax.block_until_ready(build(x[: BLOCK + n % BLOCK])())
    return build(x)


def run(n: tuple[int, ...] = (2000, 10_000), d: int = 784, rounds: int = 5, budget: float = 300.0) -> Report:
    """Time lazynet and neural-tangents.

    Args:
        n: Numbers of rows.
        d: Length of each row.
        rounds: Number of timed calls of each contender, after a first call that compiles.
        budget: Time in seconds after which no further round is started, for each number of rows.

    Raises:
        RuntimeError: If the kernels differ.
    """
    notes = [
        "Times are in seconds. share: best time of lazynet divided by that of neural-tangents. peak: memory that a "
        "call in a new process adds after the rows are loaded and some of them are used for a warm-up, divided by the "
        "size of the result.",
    ]
    table = []
    for size in n:
        x = rows(size, d)
        timings = interleaved({"lazynet": ours(x), "neural-tangents": peer(x)}, rounds, budget)
        theirs, mine = np.asarray(timings["neural-tangents"].result), timings["lazynet"].result
        worst = float(np.abs(theirs - mine).max())
        if not worst <= TOLERANCE:
            raise RuntimeError(f"The kernels differ by {worst:.1e}; at most {TOLERANCE:.0e} is allowed.")
        for name, timing in timings.items():
            peak = peak_memory("benchmarks.kernel_build", "for_memory", n=size, d=d, contender=name)
            table.append(
                {
                    "n": size,
                    "contender": name,
                    "first_seconds": timing.first,
                    "best_seconds": timing.best,
                    "median_seconds": timing.median,
                    "share": timing.best / timings["neural-tangents"].best if name == "lazynet" else None,
                    "peak_over_result": None if peak is None else peak / (4 * size**2),
                    "difference": worst,
                }
            )
    return Report({"n": list(n), "d": d, "rounds": rounds, "budget": budget}, "float32", table, notes)


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "n": ("n", "d"),
        "contender": ("contender", ""),
        "first": ("first_seconds", ".2f"),
        "best": ("best_seconds", ".3f"),
        "share": ("share", ".2f"),
        "peak": ("peak_over_result", ".2f"),
        "diff": ("difference", ".0e"),
    }
    show_table("Analytic kernel of relu, d={d}".format(**report.settings), report.rows, columns, report.notes)
