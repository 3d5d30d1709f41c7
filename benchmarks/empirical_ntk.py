"""Empirical tangent kernel: time and memory of lazynet compared with neural-tangents."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

import lazynet as lz
from benchmarks.timing import Report, interleaved, peak_memory, show_table
from lazynet.kernels import neural_tangents

# Two correct kernels in float32 differ by about 1e-6, relative to their norm.
TOLERANCE = 1e-4


class Setting(NamedTuple):
    """Settings of neural-tangents; the fastest setting depends on the implementation and the machine."""

    implementation: str
    vmap_axes: int | None
    trace_axes: tuple[int, ...]


# AUTO and STRUCTURED_DERIVATIVES do not work on current versions of JAX. Tracing over the last axis requires outputs of
# shape (n, 1).
IMPLEMENTATIONS = ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS")
# Default vmap_axes and trace_axes of neural-tangents.
DEFAULTS = (None, (-1,))
SETTINGS = tuple(Setting(*values) for values in product(IMPLEMENTATIONS, (0, None), ((), (-1,))))


class Problem(NamedTuple):
    """A network, its initial variables, and inputs of unit norm."""

    network: lz.TwoLayer
    variables: dict[str, Any]
    x: Array


def problem(n: int, d: int, m: int) -> Problem:
    """Return a relu network of width m, and n random rows of length d and unit norm in float32."""
    rows = np.random.default_rng(0).standard_normal((n, d))
    x = jax.numpy.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), "float32")
    network = lz.TwoLayer(width=m)
    return Problem(network, dict(network.init(jax.random.key(0), x)), x)


def peer_kernel(apply: Callable[..., Any], params: Any, x: Any, setting: Setting) -> Callable[[], Array]:
    """Return a jitted function that computes the kernel of `apply(params, x)` with neural-tangents."""
    nt = neural_tangents()
    kernel = jax.jit(
        nt.empirical_ntk_fn(
            apply,
            trace_axes=setting.trace_axes,
            vmap_axes=setting.vmap_axes,
            implementation=nt.NtkImplementation[setting.implementation],
        )
    )

    def call() -> Array:
        # This is the precision that lazynet uses; it makes no difference on a CPU.
        with jax.default_matmul_precision("highest"):
            return kernel(x, None, params)

    return call


def peer(given: Problem, setting: Setting) -> Callable[[], Array]:
    """Return a function that computes the kernel with neural-tangents."""
    network, variables, x = given

    def apply(params: Any, x: Array) -> Any:
        f: Any = network.apply({**variables, "params": params}, x)
        return f[:, None] if setting.trace_axes else f

    return peer_kernel(apply, variables["params"], x, setting)


def ours(given: Problem) -> Callable[[], np.ndarray]:
    """Return a function that computes the kernel with lazynet."""
    return lambda: lz.empirical_ntk(given.network, given.variables, given.x)


def for_memory(n: int, d: int, m: int, setting: tuple | None) -> Callable[[], Any]:
    """Return a contender's function for n rows after a warm-up call on 4 rows."""
    build = ours if setting is None else lambda given: peer(given, Setting(*setting))
    jax.block_until_ready(build(problem(4, d, m))())
    return build(problem(n, d, m))


def run(n: tuple[int, ...] = (128, 256), d: int = 64, m: int = 1024, rounds: int = 5, budget: float = 120.0) -> Report:
    """Time lazynet and neural-tangents.

    Args:
        n: Numbers of rows.
        d: Length of each row.
        m: Width of the network.
        rounds: Number of timed calls of each contender, after a first call that compiles.
        budget: Time in seconds after which no further round is started, for each number of rows.
    """
    notes = [
        "Times are in seconds. first: the first call, including compilation. cpu: shortest processor time of a call, "
        "summed over threads; it hardly depends on how busy the machine is. x: speed relative to the faster of the two "
        "peers; x dflt: relative to the faster peer with the default vmap_axes and trace_axes.",
        f"Each peer runs in the fastest of {len(SETTINGS) // 2} settings (the JSON lists all). peak MB: upper bound "
        "on the memory that a call in a new process adds after a warm-up.",
        "diff: Frobenius norm of the difference from lazynet's kernel, divided by the norm of that kernel.",
    ]
    settings = {"n": list(n), "d": d, "m": m, "rounds": rounds, "budget": budget, "activation": "relu"}
    rows = [row for size in n for row in rows_of(size, d, m, rounds, budget, notes)]
    return Report(settings, "float32", rows, notes)


def rows_of(n: int, d: int, m: int, rounds: int, budget: float, notes: list[str]) -> list[dict[str, Any]]:
    """Return one row for lazynet and one for each implementation of neural-tangents, all for a single size.

    Raises:
        RuntimeError: If the kernels differ.
    """
    given = problem(n, d, m)
    trials = interleaved({setting: peer(given, setting) for setting in SETTINGS}, rounds=2, budget=budget / 2)
    fastest = {
        name: min((s for s in SETTINGS if s.implementation == name), key=lambda s: trials[s].best)
        for name in IMPLEMENTATIONS
    }
    peers = {name: peer(given, setting) for name, setting in fastest.items()}
    timings = interleaved({"lazynet": ours(given), **peers}, rounds, budget / 2)
    done = timings["lazynet"].rounds
    if done < rounds:
        notes.append(f"n={n}: the budget of {budget:g} s ended after {done} of {rounds} rounds.")
    sizes = {"n": n, "d": d, "m": m}

    def row(name: str, setting: Setting | None) -> dict[str, Any]:
        timing = timings[name]
        return {
            **sizes,
            "contender": name,
            "first_seconds": timing.first,
            "best_seconds": timing.best,
            "median_seconds": timing.median,
            "cpu_seconds": timing.cpu,
            "rounds": timing.rounds,
            "speedup_best": None,
            "speedup_median": None,
            "speedup_cpu": None,
            "speedup_default": None,
            "peak_mb": megabytes(
                peak_memory("benchmarks.empirical_ntk", "for_memory", **sizes, setting=setting and tuple(setting))
            ),
            "relative_difference": check_agreement(name, timing.result, timings["lazynet"].result),
        }

    table = [row("lazynet", None)]
    for measure in ("best", "median", "cpu"):
        quickest = min(getattr(timings[name], measure) for name in peers)
        table[0][f"speedup_{measure}"] = quickest / getattr(timings["lazynet"], measure)
    by_default = min(trials[Setting(name, *DEFAULTS)].best for name in IMPLEMENTATIONS)
    table[0]["speedup_default"] = by_default / timings["lazynet"].best
    for name, setting in fastest.items():
        others = [{**s._asdict(), "best_seconds": t.best} for s, t in trials.items() if s.implementation == name]
        table.append({**row(name, setting), **setting._asdict(), "trials": others})
    return table


def check_agreement(name: str, kernel: Any, ours: np.ndarray) -> float:
    """Return the norm of the difference between two kernels, divided by the norm of lazynet's kernel.

    Raises:
        RuntimeError: If this ratio exceeds TOLERANCE.
    """
    difference = float(np.linalg.norm(np.asarray(kernel) - ours) / np.linalg.norm(ours))
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The kernels of lazynet and {name} differ by {difference:.1e} of their norm; the limit is {TOLERANCE:.0e}."
        )
    return difference


def megabytes(size: int | None) -> float | None:
    """Convert a number of bytes to MB."""
    return None if size is None else size / 1e6


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "n": ("n", "d"),
        "contender": ("contender", ""),
        "first": ("first_seconds", ".2f"),
        "best": ("best_seconds", ".4f"),
        "cpu": ("cpu_seconds", ".4f"),
        "x best": ("speedup_best", ".0f"),
        "x cpu": ("speedup_cpu", ".0f"),
        "x dflt": ("speedup_default", ".0f"),
        "peak MB": ("peak_mb", ".0f"),
        "diff": ("relative_difference", ".0e"),
    }
    show_table("Empirical tangent kernel, d={d}, m={m}".format(**report.settings), report.rows, columns, report.notes)
