"""The runner for all studies: it reads stored cells, computes and stores missing cells, and assembles the result."""

import heapq
import json
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lazynet import programs
from lazynet.arguments import check_flag, check_path
from lazynet.execution._checkpoint import Budget, OutOfTime
from lazynet.execution._folder import RunFolder
from lazynet.execution._progress import Progress, TaskProgress
from lazynet.execution._provenance import versions
from lazynet.execution._store import Arrays, Store, difference, finished_store, open_store
from lazynet.hosts import agreed, is_first, of_all, several, together, working
from lazynet.typing import Result

# Maximum number of values of `Task.program` for which compiled programs are kept. Once this number is reached, all
# compiled programs are released before programs for another value are compiled. JAX itself never frees compiled
# programs, and the programs for one width take about 20 MB.
MOST_PROGRAMS = 8


class Task(NamedTuple):
    """The computation of one cell.

    Attributes:
        key: Name of the cell's file, unique within the study.
        name: Name shown in the progress bar.
        units: Amount of work in the task, in the same units for all tasks.
        compute: Function (progress, checkpoint) -> arrays. It reports its progress to the progress display, and it may
            resume from the checkpoint.
        program: Key that identifies the compiled programs that the task uses.
        group: Name of the task's group. Tasks in the same group run in the same shard. By default, each task forms its
            own group.
        losses: Function (arrays) -> final losses of the cell's networks, keyed by network name, for the progress bar.
    """

    key: str
    name: str
    units: int
    compute: Callable[[TaskProgress, Budget | None], Arrays]
    program: Hashable = None
    group: str = ""
    losses: Callable[[Arrays], dict[str, float]] = lambda arrays: {}


class Output(NamedTuple):
    """The functions that turn the cells of a study into a result and its files.

    Attributes:
        assemble: Function (record, cells) -> labeled result, where `cells` lists the arrays of each cell in order.
        files: Function (result) -> contents of the files to write when the study ends, keyed by file name.
    """

    assemble: Callable[[dict[str, Any], list[Arrays]], Result]
    files: Callable[[Result], dict[str, bytes]]


@runtime_checkable
class Study(Protocol):
    """The interface that a study provides to the runner."""

    @property
    def kind(self) -> str:
        """The kind of result that the study produces."""
        ...

    @property
    def dtype(self) -> str:
        """The dtype in which networks are trained."""
        ...

    def request(self) -> str:
        """Return the specification of the study.

        Returns:
            Canonical JSON, so that identical studies have identical specifications.
        """
        ...

    def begin(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the record of the study, which contains its settings, learning rates and start time.

        Args:
            stored: Record stored in the folder, or an empty dictionary for a new study.

        Returns:
            The record, a JSON-compatible dictionary.
        """
        ...

    def tasks(self, record: dict[str, Any]) -> list[Task]:
        """Return the tasks of the study.

        Args:
            record: Record of the study.

        Returns:
            One task for each cell, in the order of the cells.
        """
        ...

    @property
    def output(self) -> Output:
        """The functions that turn cells into a result and its files."""
        ...


def run(study: Study, folder: RunFolder | None, progress: bool) -> Result | None:
    """Run a study.

    Args:
        study: Study to run.
        folder: Folder in which to store the study, or None to store nothing.
        progress: Whether to show progress.

    Returns:
        The result, or None if the run computes only a shard or if this is not the first host.

    Raises:
        ValueError: If the folder cannot be used, if `progress` is not True or False, or if hosts are given different
            studies.
        TimeoutError: If the time limit is reached on any host.
        lazynet.hosts.HostStopped: If another host stops or stops responding.
    """
    check_flag("progress", progress)
    if several():
        shard = None if folder is None or folder.shard is None else list(folder.shard)
        check_same_on_all_hosts(study.kind, study.request(), shard=shard)
    limit = min(of_all(float("inf") if folder is None or folder.max_seconds is None else folder.max_seconds))
    deadline = time.monotonic() + limit
    with ExitStack() as stack:
        store = None
        with together():
            if folder is not None and is_first():
                store = stack.enter_context(open_store(folder, study.kind, study.request()))
        with together():
            record = json.loads(json.dumps(study.begin({} if store is None else store.record)))
            if store is not None:
                keys = [task.key for task in study.tasks(record)]
                record = store.begin(record, keys)
        # All hosts use the first host's record.
        record = agreed(record)
        try:
            cells = _run_tasks(study, record, store, folder, progress, deadline)
        except OutOfTime:
            raise TimeoutError(
                f"The time limit (max_seconds = {limit:g}) has been reached. Pass resume=True to resume the study."
            ) from None
        # The other hosts wait until the files are written, so that an error in writing them is raised on every host.
        with together():
            if (folder is not None and folder.shard is not None) or not is_first():
                return None
            result = study.output.assemble(record, cells)
            if store is not None:
                store.finish(study.output.files(result))
    return result


def assemble_shards(out: str | Path, output_of: Callable[[str], Output]) -> Result:
    """Assemble the result of a study from the cells that its shards have stored.

    The result files are written to the same folder.

    Args:
        out: The folder that all shards share.
        output_of: Function that returns the `Output` for a given kind of study. It raises a ValueError if shards of
            that kind of study cannot be merged.

    Returns:
        The result, an `xarray.Dataset`.

    Raises:
        ValueError: If the folder does not contain a study whose shards can be merged, if a process is still working on
            the study, if a cell is missing or damaged, or if settings.json is damaged or has been modified.
    """
    out = check_path("out", out)
    kind = Store(out).kind
    if not kind:
        raise ValueError(f"out must be a folder that contains a study, got {str(out)!r}.")
    output = output_of(kind)
    with finished_store(out) as store:
        if not store.keys:
            raise ValueError(
                f"out must contain a study with at least one cell, but the study in {str(out)!r} has none."
            )
        cells = {key: store.read(key) for key in store.keys}
        missing = [number for number, cell in enumerate(cells.values(), start=1) if cell is None]
        if missing:
            raise ValueError(
                f"{str(out)!r} is missing {len(missing)} of {len(cells)} cells; the first missing one is cell "
                f"{missing[0]}. To compute only the missing cells, run the study again with resume=True (--resume on "
                "the command line), or run its shards again."
            )
        result = output.assemble(store.record, [cell for cell in cells.values() if cell is not None])
        store.finish(output.files(result))
    return result


def share_of(units: Sequence[int], shard: tuple[int, int]) -> list[int]:
    """Return the indices of the tasks that belong to the given shard, a pair (k, N).

    Tasks are assigned in descending order of work, each to the shard that has the least work so far.
    """
    part, parts = shard
    # The work assigned to each shard so far. If there are more shards than tasks, the surplus shards get no tasks.
    loads, mine = [(0, number) for number in range(1, 1 + min(parts, len(units)))], []
    for task in sorted(range(len(units)), key=lambda task: -units[task]):
        work, least = loads[0]
        heapq.heapreplace(loads, (work + units[task], least))
        if least == part:
            mine.append(task)
    return sorted(mine)


def check_same_on_all_hosts(kind: str, request: str, **more: Any) -> None:
    """Raise an error on every host if the hosts are given different studies.

    Args:
        kind: The kind of study.
        request: The specification of the study as JSON.
        **more: Further settings that must be the same on all hosts.

    Raises:
        ValueError: If a host has a different study, setting or package version than the first host.
    """
    requests = of_all(json.loads(request) | versions() | {"study": kind} | more)
    for host, other in enumerate(requests):
        different = difference(other, requests[0])
        if different:
            raise ValueError(f"All hosts must be given the same study, but host {host} has {different}.")


def _tasks_of_shard(tasks: list[Task], shard: tuple[int, int]) -> list[Task]:
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.group or task.key, []).append(task)
    units = [sum(task.units for task in group) for group in groups.values()]
    members = list(groups.values())
    mine = {task.key for number in share_of(units, shard) for task in members[number]}
    return [task for task in tasks if task.key in mine]


def _run_tasks(
    study: Study,
    record: dict[str, Any],
    store: Store | None,
    folder: RunFolder | None,
    progress: bool,
    deadline: float,
) -> list[Arrays]:
    """Return the arrays of this shard's cells, in order.

    If there are several hosts, only the first one returns the arrays of cells that were already stored.
    """
    shard = (folder and folder.shard) or (1, 1)
    tasks = _tasks_of_shard(study.tasks(record), shard)
    compiled: set[Hashable] = set()
    cells: list[Arrays] = []
    with Progress(sum(task.units for task in tasks), len(tasks), progress and is_first()) as bar:
        for task in tasks:
            with together():
                arrays = None if store is None else store.take(task.key)
            stored = arrays is not None
            # If the first host has read the cell from the folder, no host computes it again.
            if not agreed(stored):
                if any(of_all(time.monotonic() >= deadline)):
                    raise OutOfTime
                if len(compiled | {task.program}) > MOST_PROGRAMS:
                    programs.release()
                    compiled.clear()
                compiled.add(task.program)
                # A cell that is computed on several hosts has no checkpoint, because no host holds its complete state.
                keep = store is not None and not several()
                budget = Budget(store.checkpoint(task.key), deadline) if store is not None and keep else None
                with working():
                    arrays = task.compute(bar.of_task(task.name), budget)
                    if store is not None:
                        store.put(task.key, arrays)
            if arrays is not None:
                bar.finished(task.units if stored else 0, task.name, task.losses(arrays))
                cells.append(arrays)
    return cells
