"""Progress on stderr: quiet where nobody watches a terminal."""

import sys
from collections.abc import Callable
from types import TracebackType


class Progress:
    """A bar that counts units of work, width times step for each member."""

    def __init__(self, total: int, shown: bool = True) -> None:
        """A bar of this total, hidden where stderr is not a terminal."""
        self._total = total
        self._shown = shown and sys.stderr.isatty()

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

    def steps_of(self, width: int) -> Callable[[int], None]:
        """A function that is told of steps of members of this width."""

        def report(steps: int) -> None:
            if self._shown:
                self._bar.update(self._task, advance=width * steps, description=f"width {width}")

        return report


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

    def tell(self, stage: str, amount: float) -> None:
        """Show a stage, and the share (below 1) or the number of products that is done of it."""
        if self._shown:
            self._status.update(f"{stage}: {amount:.0%}" if amount <= 1 else f"{stage}: {amount:.0f} products")
