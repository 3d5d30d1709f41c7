"""The parts of a reproduction, stored in a folder so that an interrupted reproduction can be resumed."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import lazynet as lz
from lazynet.execution import Arrays, Output, Store, Task, open_store, result_files, run
from lazynet.measures import label_result
from lazynet.typing import Result

REPRODUCTION = "reproduction"
# Subfolder in which the parts are stored.
PARTS = "parts"


class Work:
    """The named parts of a reproduction.

    A part is read from the folder if it is stored there, and computed otherwise. Within a `with` statement, the folder
    is locked against other processes.
    """

    def __init__(
        self,
        paper: str,
        size: str,
        folder: Path | None = None,
        report: Callable[[str], None] = lambda part: None,
        max_seconds: float | None = None,
    ) -> None:
        """Start or resume a reproduction.

        Args:
            paper: Name of the paper's module.
            size: Name of the reproduction's size.
            folder: Folder in which to store the parts, or None to keep them in memory.
            report: Function that is called before each part with a text that contains the part's number and name.
            max_seconds: Time limit in seconds for parts that are stored in a folder. After this time, no new part or
                cell is started, sweeps store their state, and a TimeoutError is raised.

        Raises:
            ValueError: If the folder contains a different reproduction or results from a different version of the code.
        """
        self._folder, self._report, self._count, self._stack = folder, report, 0, ExitStack()
        self._deadline = inf if max_seconds is None else time.monotonic() + max_seconds
        if folder is None:
            self._request: dict[str, str] = {}
            return
        # The request for a part does not describe the code that computes the part, so a hash of the code is added.
        sources = b"".join(file.read_bytes() for file in sorted(Path(lz.__file__).parent.rglob("*.py")))
        code = hashlib.sha256(sources).hexdigest()[:16]
        self._request = {"paper": paper, "size": size, "code": code, "jax": version("jax")}
        self._store = Store(folder, REPRODUCTION, json.dumps(self._request))
        if self._store.content:
            self._store.check()

    def __enter__(self) -> "Work":
        """Lock the folder.

        Raises:
            ValueError: If the folder is being used by another process or contains anything but this reproduction.
        """
        if self._folder is not None:
            folder = lz.RunFolder(self._folder, resume=True)
            self._store = self._stack.enter_context(open_store(folder, REPRODUCTION, json.dumps(self._request)))
        return self

    def __exit__(self, *error: Any) -> None:
        """Unlock the folder."""
        self._stack.__exit__(*error)

    @property
    def out_of_time(self) -> bool:
        """True if the time limit has been reached."""
        return time.monotonic() >= self._deadline

    def sweep(self, name: str, network: lz.TwoLayer, data: lz.Dataset, *args: Any, **more: Any) -> Result:
        """Return the result of `lazynet.sweep` with the given arguments."""
        return lz.sweep(network, data, *args, out=self._begin(name), progress=False, **more)

    def modes(self, name: str, network: lz.TwoLayer, data: lz.Dataset, *args: Any, **more: Any) -> Result:
        """Return the result of `lazynet.mode_residuals` with the given arguments."""
        return lz.mode_residuals(network, data, *args, out=self._begin(name), progress=False, **more)

    def arrays(self, name: str, compute: Callable[..., Arrays], **axes: Sequence[Any]) -> Arrays:
        """Return the arrays that `compute` returns, reading them from the folder if they are already stored there.

        Args:
            name: Name of the part.
            compute: Function that returns arrays whose shapes do not depend on its arguments.
            **axes: Values of each argument of `compute`. The arrays for each combination of values are computed and
                stored separately.

        Returns:
            The arrays, with the axes as their first dimensions.
        """
        request = json.dumps({**self._request, "part": name, "axes": {axis: list(axes[axis]) for axis in axes}})
        result: Any = run(Part(request, compute, axes), self._begin(name), progress=False)
        return {str(variable): values.values for variable, values in result.data_vars.items()}

    def _begin(self, name: str) -> lz.RunFolder | None:
        """Report the start of a part and return the part's folder, or None if parts are kept in memory.

        Raises:
            TimeoutError: If the time limit has been reached and the part is not finished.
        """
        self._count += 1
        self._report(f"{self._count}. {name}")
        if self._folder is None:
            return None
        if self._count == 1:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store.begin({}, [])
        path = self._folder / PARTS / name
        if self.out_of_time and not (path / "result.nc").exists():
            raise TimeoutError(
                f"The time limit was reached before part {name!r} could start. Resume the reproduction to continue."
            )
        left = None if self._deadline == inf else max(self._deadline - time.monotonic(), 1e-3)
        return lz.RunFolder(path, resume=True, max_seconds=left)


@dataclass(frozen=True)
class Part:
    """A part of a reproduction that computes arrays.

    The part is a study with one task for each combination of argument values.

    Attributes:
        text: The part's request as JSON text.
        compute: Function that returns the arrays of a task.
        axes: Values of each argument of `compute`.
    """

    kind: ClassVar[str] = "arrays"
    dtype: ClassVar[str] = "float64"
    text: str
    compute: Callable[..., Arrays]
    axes: dict[str, Sequence[Any]]

    @property
    def output(self) -> Output:
        """The functions that assemble the arrays into a dataset and return the contents of the files to write."""
        return Output(self._assemble, result_files)

    def request(self) -> str:
        """Return the request as JSON text."""
        return self.text

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return an empty record, because parts have nothing to record."""
        return {}

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return a task for each combination of argument values."""
        return [self._task(number, values) for number, values in enumerate(product(*self.axes.values()))]

    def _task(self, number: int, values: tuple[Any, ...]) -> Task:
        """Return the task that computes the arrays for one combination of argument values."""
        given = dict(zip(self.axes, values, strict=True))
        return Task(f"{number:06d}", str(number), 1, lambda progress, checkpoint: self.compute(**given))

    def _assemble(self, record: dict[str, Any], cells: list[Arrays]) -> Result:
        """Stack the arrays of all tasks along the axes."""
        import xarray

        shape = tuple(len(values) for values in self.axes.values())
        variables = {}
        for name in cells[0]:
            stacked = np.stack([cell[name] for cell in cells])
            dims = [
                *(f"axis_{axis}" for axis in self.axes),
                *(f"{name}_dim_{axis}" for axis in range(stacked.ndim - 1)),
            ]
            variables[name] = (dims, stacked.reshape(shape + stacked.shape[1:]))
        result = xarray.Dataset(variables)
        label_result(result, self.kind)
        return result
