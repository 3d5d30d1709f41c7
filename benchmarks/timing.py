"""Tools for the benchmarks: interleaved timing, the peak memory of a call, the environment, and output."""

import importlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

PACKAGES = ("jax", "jaxlib", "flax", "optax", "neural-tangents", "lazynet")
COMPILE_EVENTS = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
ROOT = Path(__file__).resolve().parents[1]


Name = TypeVar("Name", bound=Hashable)


class Report(NamedTuple):
    """Result of a benchmark.

    Attributes:
        settings: Settings of the benchmark.
        dtype: Dtype of the computation.
        rows: One flat dictionary for each row of the table.
        notes: Explanations of the columns.
    """

    settings: dict[str, Any]
    dtype: str
    rows: list[dict[str, Any]]
    notes: list[str]


class Timing(NamedTuple):
    """Timing of a contender.

    Attributes:
        first: Duration of the first call in seconds, including compilation.
        best: Shortest duration of a later call in seconds.
        median: Median duration of the later calls in seconds.
        cpu: Shortest processor time of a later call in seconds, summed over threads. It hardly depends on how
            busy the machine is.
        rounds: Number of later calls.
        result: Result of the first call.
    """

    first: float
    best: float
    median: float
    cpu: float
    rounds: int
    result: Any


def interleaved(
    contenders: dict[Name, Callable[[], Any]], rounds: int = 5, budget: float = 120.0
) -> dict[Name, Timing]:
    """Time contenders in turn, so that a period in which the machine is slow affects all of them.

    Each contender is called once to compile. In each round, each contender is called once untimed and once timed. A
    call ends when its result is ready.

    Args:
        contenders: Functions without arguments, keyed by name.
        rounds: Number of rounds.
        budget: Time in seconds after which no further round is started; at least one round is run.
    """
    firsts, results = {}, {}
    times: dict[Any, list[tuple[float, float]]] = {name: [] for name in contenders}
    begin = time.perf_counter()
    for name, call in contenders.items():
        firsts[name], _, results[name] = _timed(call)
    for _ in range(rounds):
        for name, call in contenders.items():
            # An untimed call refills the caches that the other contenders have emptied.
            _timed(call)
            times[name].append(_timed(call)[:2])
        if time.perf_counter() - begin > budget:
            break
    timings = {}
    for name in contenders:
        wall, cpu = np.transpose(times[name])
        best, median = float(wall.min()), float(np.median(wall))
        timings[name] = Timing(firsts[name], best, median, float(cpu.min()), len(wall), results[name])
    return timings


def _timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    begin, cpu_begin = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(call())
    return time.perf_counter() - begin, time.process_time() - cpu_begin, result


@contextmanager
def compilations() -> Iterator[list[float]]:
    """Yield a list that receives the duration in seconds of each lowering and compilation by XLA in this context."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event in COMPILE_EVENTS:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def peak_memory(module: str, build: str, **arguments: Any) -> int | None:
    """Return the number of bytes by which a call raises the peak memory of a new process, or None outside Linux.

    The number is an upper bound: it includes the compilation of the call, and may include memory that the warm-up has
    freed.

    Args:
        module: Name of a module.
        build: Name of the function in the module that makes a warm-up call and returns the function to measure.
        arguments: Arguments of the function `build`: numbers, strings, or containers of these.
    """
    code = f"from benchmarks.timing import _report_memory; _report_memory({module!r}, {build!r}, {arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _report_memory(module: str, build: str, arguments: dict[str, Any]) -> None:
    call = getattr(importlib.import_module(module), build)(**arguments)
    held = resident("VmRSS")
    jax.block_until_ready(call())
    peak = resident("VmHWM")
    print(json.dumps(None if held is None or peak is None else peak - held))


def resident(field: str) -> int | None:
    """Return the VmRSS or VmHWM of this process in bytes, or None outside Linux."""
    # getrusage would include the peak of the parent process.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _version(name: str) -> str | None:
    """Return the version of a package, or None if it is not installed, as neural-tangents need not be."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Return the versions, the device, the number of CPUs, and the load average."""
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
        "cpu_count": os.cpu_count(),
        "load_average": list(os.getloadavg()),
    }


def write_json(path: Path, name: str, report: Report, seconds: float) -> None:
    """Write the name, environment, report and total seconds as JSON; numbers that are not finite become null."""
    record = {"name": name, **environment(), "seconds": seconds, **report._asdict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_table(
    title: str, rows: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]], notes: list[str]
) -> None:
    """Print a table.

    Args:
        title: Title of the table.
        rows: One dictionary for each row.
        columns: Key and number format of each column, keyed by the heading of the column. Text columns have an empty
            format.
        notes: Lines to print below the table.
    """
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading, (_, style) in columns.items():
        table.add_column(heading, justify="right" if style else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if row[key] is None else format(row[key], style) for key, style in columns.values()))
    console = Console(width=100, highlight=False)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)
