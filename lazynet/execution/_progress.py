"""Progress displays on stderr."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from math import inf, isnan
from types import TracebackType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.precision import arithmetic

SIDE = 2048
# Seconds between two lines in a log, and between two states of the line in a notebook.
LOG_PAUSE, NOTEBOOK_PAUSE = 30.0, 1.0
# Number of characters beside the text of a bar: the bar, the percentage, the time left, and the spaces between them.
BESIDE = 20 + 4 + 7 + 3


class Bar:
    """A progress bar in a terminal, which keeps its percentage and its remaining time in narrow terminals."""

    def __init__(self, total: int) -> None:
        """Draw the bar.

        Args:
            total: Total number of work units.
        """
        from rich import console, progress

        columns = (
            progress.BarColumn(bar_width=20),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}", markup=False),
        )
        self._bar = progress.Progress(*columns, console=console.Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=total)
        self._bar.start()

    def update(self, units: int, text: str) -> None:
        """Add completed work units and show a text, which is cut to the width of the terminal."""
        room = max(self._bar.console.width - BESIDE, 1)
        shown = text if len(text) <= room else f"{text[: room - 1]}…"
        self._bar.update(self._task, advance=units, description=shown)

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()


class Lines:
    """Plain lines on stderr: one every 30 seconds in a log, or one that is overwritten every second in a notebook."""

    def __init__(self, total: int) -> None:
        """Start the clock; nothing is written yet.

        Args:
            total: Total number of work units.
        """
        self._total, self._done = total, 0
        self._overwrite = "ipykernel" in sys.modules
        self._pause = NOTEBOOK_PAUSE if self._overwrite else LOG_PAUSE
        self._written, self._length = time.monotonic(), 0
        # The time and the completed units when the first work was reported, which may follow cells that were stored.
        self._base: tuple[float, int] | None = None

    def update(self, units: int, text: str) -> None:
        """Add completed work units, and write a line if the last one was written long enough ago."""
        now = time.monotonic()
        self._done += units
        if self._base is None and units:
            self._base = now, self._done
        if now - self._written < self._pause:
            return
        self._written = now
        self._write(f"lazynet: {self._done / max(self._total, 1):.0%}{self._left(now)}; {text}")

    def _left(self, now: float) -> str:
        """Return the time left in words, or nothing if it cannot be estimated yet."""
        if self._base is None or self._done <= self._base[1]:
            return ""
        seconds = (now - self._base[0]) * (self._total - self._done) / (self._done - self._base[1])
        return f", about {timedelta(seconds=round(seconds))} left"

    def _write(self, line: str) -> None:
        if self._overwrite:
            print("\r" + line.ljust(self._length), end="", file=sys.stderr, flush=True)
            self._length = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Remove the line in a notebook."""
        if self._length:
            print("\r" + " " * self._length, end="\r", file=sys.stderr, flush=True)


class Progress:
    """A display of the number of finished cells, the speed, the time left, and the best and worst loss."""

    def __init__(self, total: int, cells: int, shown: bool = True) -> None:
        """Create a display.

        Args:
            total: Total number of work units in all cells.
            cells: Number of cells.
            shown: Whether to show anything.
        """
        self._total, self._cells, self._done = total, cells, 0
        self._shown = shown
        self._extremes: tuple[Member, Member] | None = None

    def __enter__(self) -> "Progress":
        """Start the display."""
        if self._shown:
            self._display: Bar | Lines = (Bar if sys.stderr.isatty() else Lines)(self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""
        if self._shown:
            self._display.stop()

    def of_task(self, name: str) -> "TaskProgress":
        """Return the progress display for one task."""
        return TaskProgress(self, name)

    def advance(self, units: int, name: str, rate: float | None) -> None:
        """Add a task's completed work, and show the task's speed in floating-point operations per second."""
        if self._shown:
            text = "" if rate is None else f", {rate / 1e9:.3g} GFLOP/s"
            self._display.update(units, self._description(name + text))

    def stage(self, name: str, stage: str, amount: float) -> None:
        """Show the current stage of a task and the progress of this stage.

        If `amount` is at most 1, it is the fraction completed. Otherwise, it is the number of products with the kernel
        that have been computed so far.
        """
        if self._shown:
            done = f"{amount:.0%}" if amount <= 1 else f"{amount:.0f} products"
            self._display.update(0, self._description(f"{name}: {stage} {done}"))

    def finished(self, units: int, name: str, losses: dict[str, float]) -> None:
        """Show that a cell is finished.

        Args:
            units: Number of the cell's work units that the bar has not counted yet.
            name: Name of the cell's task.
            losses: Final losses of the cell's networks, keyed by network name.
        """
        if not self._shown:
            return
        self._done += 1
        # The loss of a diverged network is NaN, which counts as the worst loss.
        members = [Member(inf if isnan(loss) else loss, member) for member, loss in losses.items()]
        extremes = [*members, *(self._extremes or ())]
        self._extremes = (min(extremes), max(extremes)) if extremes else None
        self._display.update(units, self._description(name))

    def _description(self, name: str) -> str:
        text = f"{self._done} of {self._cells} cells; {name}"
        if self._extremes is None:
            return text
        best, worst = self._extremes
        return f"{text}; loss {best} to {worst}"


class TaskProgress:
    """The progress display for one task, which shows its completed steps and its speed."""

    def __init__(self, bar: Progress, name: str) -> None:
        """Create the display for a task.

        Args:
            bar: Progress bar of the study.
            name: Name of the task.
        """
        self._bar, self._name = bar, name

    def stage(self, stage: str, amount: float) -> None:
        """Show the current stage and its progress.

        Args:
            stage: Name of the stage.
            amount: The fraction completed if `amount` is at most 1; otherwise, the number of products with the kernel
                that have been computed so far.
        """
        self._bar.stage(self._name, stage, amount)

    def steps(self, units: int, flops: float | None) -> Callable[[int], None]:
        """Create a function that updates the display.

        Args:
            units: Number of work units per step.
            flops: Floating-point operations per step, or None if the number is unknown.

        Returns:
            A function to be called with the number of newly completed steps.
        """
        begin: float | None = None
        steps_since = 0

        def report(steps: int) -> None:
            nonlocal begin, steps_since
            now, rate = time.perf_counter(), None
            # Measure the speed from the first report onward, because the time before it includes compilation.
            if begin is None:
                begin = now
            elif flops is not None:
                steps_since += steps
                rate = flops * steps_since / (now - begin)
            self._bar.advance(units * steps, self._name, rate)

        return report


class Member(NamedTuple):
    """The final loss and the name of a network. Instances are ordered by loss."""

    loss: float
    name: str

    def __str__(self) -> str:
        """Return the loss and the name of the network."""
        return f"{self.loss:.2g} ({self.name})"


def product_rate(dtype: str, side: int = SIDE) -> float:
    """Estimate the combined matrix-multiplication speed of all devices from a measurement on one device.

    Args:
        dtype: Dtype of the matrices, "float32" or "float64".
        side: Number of rows and columns of the matrices that are multiplied in the measurement.

    Returns:
        The speed in floating-point operations per second.
    """
    with arithmetic(dtype):
        a = jnp.ones((side, side), dtype)
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            jax.block_until_ready(_product(a))
            seconds.append(time.perf_counter() - begin)
    # All CPU devices together count as one device, because they share the same cores.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return devices * 2.0 * side**3 / min(seconds)


@jax.jit
def _product(a: Array) -> Array:
    return a @ a


class Stages:
    """A status line that shows the current stage of a job if stderr is a terminal."""

    def __init__(self, shown: bool = True) -> None:
        """Create a status line.

        Args:
            shown: Whether to show the line. It is never shown if stderr is not a terminal.
        """
        self._shown = shown and sys.stderr.isatty()

    def __enter__(self) -> "Stages":
        """Show the status line."""
        if self._shown:
            from rich import console

            self._status = console.Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the status line."""
        if self._shown:
            self._status.stop()

    def tell(self, stage: str, amount: float | None = None) -> None:
        """Show the current stage and its progress.

        Args:
            stage: Name of the stage.
            amount: The fraction completed if `amount` is at most 1; otherwise, the number of products with the kernel
                that have been computed so far. If None, only the stage is shown.
        """
        if self._shown:
            done = "" if amount is None else f": {amount:.0%}" if amount <= 1 else f": {amount:.0f} products"
            self._status.update(stage + done)
