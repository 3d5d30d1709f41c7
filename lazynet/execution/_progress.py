"""Progress on stderr: quiet where nobody watches a terminal."""

import sys
import time
from collections.abc import Callable, Sequence
from math import inf, isnan
from types import TracebackType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.precision import arithmetic

SIDE = 2048


class Progress:
    """A bar that says how many cells are done, how fast they are, how long it takes, and the best and worst network."""

    def __init__(self, total: int, cells: int, dtype: str, shown: bool = True) -> None:
        """A bar of this total of units of work in a dtype and these cells, hidden where stderr is not a terminal."""
        self._dtype = dtype
        self._total, self._cells, self._done = total, cells, 0
        self._shown = shown and sys.stderr.isatty()
        self._ends: tuple[Member, Member] | None = None

    def __enter__(self) -> "Progress":
        """Draw the bar, if it is shown."""
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
        """Take the bar away."""
        if self._shown:
            self._bar.stop()

    def of_cell(self, width: int, units: int, flops: float | None) -> Callable[[int], None]:
        """A function that is told of steps of members of this width, each so many units and operations, if known."""
        begun: float | None = None
        steps_since = 0

        def report(steps: int) -> None:
            nonlocal begun, steps_since
            if not self._shown:
                return
            now = time.perf_counter()
            rate = ""
            # Until the first report the program was compiled.
            if begun is None:
                begun = now
            elif flops is not None:
                steps_since += steps
                rate = self._rate(flops * steps_since / (now - begun))
            self._bar.update(self._task, advance=units * steps, description=self._said(f"width {width}{rate}"))

        return report

    def finished(self, units: int, width: int, seeds: Sequence[int], losses: Sequence[float]) -> None:
        """A cell is done, with these losses in the end and so many units that were not told of yet."""
        if not self._shown:
            return
        self._done += 1
        # Those that diverged are not numbers any more.
        known = [inf if isnan(loss) else loss for loss in losses]
        found = [Member(loss, width, seed) for loss, seed in zip(known, seeds, strict=True)]
        ends = [*found, *(self._ends or ())]
        self._ends = min(ends), max(ends)
        self._bar.update(self._task, advance=units, description=self._said(f"width {width}"))

    def _rate(self, flops: float) -> str:
        return f", {flops / 1e9:.3g} GFLOP/s ({flops / self._product:.0%} of a matrix product)"

    def _said(self, now: str) -> str:
        ends = ""
        if self._ends is not None:
            best, worst = self._ends
            ends = f"; loss {best} to {worst}"
        return f"{self._done} of {self._cells} cells; {now}{ends}"


class Member(NamedTuple):
    """A network by its loss in the end."""

    loss: float
    width: int
    seed: int

    def __str__(self) -> str:
        """The loss, and whose it is."""
        return f"{self.loss:.2g} (width {self.width}, seed {self.seed})"


def product_rate(dtype: str) -> float:
    """Operations a second of the devices' own product of two 2048 x 2048 matrices, all of them together."""
    with arithmetic(dtype):
        a = jnp.ones((SIDE, SIDE), dtype)
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            jax.block_until_ready(_product(a))
            seconds.append(time.perf_counter() - begin)
    # Devices of a CPU are one machine.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return devices * 2.0 * SIDE**3 / min(seconds)


@jax.jit
def _product(a: Array) -> Array:
    return a @ a


class Stages:
    """A line that says which stage a job is in and how far; as `Progress`, only on a terminal."""

    def __init__(self, shown: bool = True) -> None:
        """A line, hidden where stderr is not a terminal."""
        self._shown = shown and sys.stderr.isatty()

    def __enter__(self) -> "Stages":
        """Draw the line, if it is shown."""
        if self._shown:
            from rich import console

            self._status = console.Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._shown:
            self._status.stop()

    def tell(self, stage: str, amount: float | None = None) -> None:
        """Show a stage, and the share (below 1) or the number of products that is done of it, if known."""
        if self._shown:
            done = "" if amount is None else f": {amount:.0%}" if amount <= 1 else f": {amount:.0f} products"
            self._status.update(stage + done)
