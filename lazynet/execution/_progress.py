"""Progress displays on stderr, shown only if stderr is a terminal."""

import sys
import time
from collections.abc import Callable
from math import inf, isnan
from types import TracebackType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.precision import arithmetic

SIDE = 2048


class Progress:
    """A progress bar that shows the number of finished cells, the speed, the time left, and the best and worst loss."""

    def __init__(self, total: int, cells: int, dtype: str, shown: bool = True) -> None:
        """Create a progress bar.

        Args:
            total: Total number of work units in all cells.
            cells: Number of cells.
            dtype: Dtype of the computations. The bar reports their speed as a percentage of the speed of a matrix
                product in this dtype.
            shown: Whether to show the bar. It is never shown if stderr is not a terminal.
        """
        self._dtype = dtype
        self._total, self._cells, self._done = total, cells, 0
        self._shown = shown and sys.stderr.isatty()
        self._extremes: tuple[Member, Member] | None = None

    def __enter__(self) -> "Progress":
        """Draw the progress bar."""
        if self._shown:
            from rich import console, progress

            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TaskProgressColumn(),
                progress.TimeRemainingColumn(),
            )
            self._product = product_rate(self._dtype)
            self._bar = progress.Progress(*columns, console=console.Console(stderr=True), transient=True)
            self._task = self._bar.add_task("starting", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the progress bar."""
        if self._shown:
            self._bar.stop()

    def of_task(self, name: str) -> "TaskProgress":
        """Return the progress display for one task."""
        return TaskProgress(self, name)

    def advance(self, units: int, name: str, rate: float | None) -> None:
        """Add a task's completed work, and show the task's speed in floating-point operations per second."""
        if self._shown:
            text = (
                "" if rate is None else f", {rate / 1e9:.3g} GFLOP/s ({rate / self._product:.0%} of a matrix product)"
            )
            self._bar.update(self._task, advance=units, description=self._description(name + text))

    def stage(self, name: str, stage: str, amount: float) -> None:
        """Show the current stage of a task and the progress of this stage.

        If `amount` is at most 1, it is the fraction completed. Otherwise, it is the number of products with the kernel
        that have been computed so far.
        """
        if self._shown:
            done = f"{amount:.0%}" if amount <= 1 else f"{amount:.0f} products"
            self._bar.update(self._task, description=self._description(f"{name}: {stage} {done}"))

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
        self._bar.update(self._task, advance=units, description=self._description(name))

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
