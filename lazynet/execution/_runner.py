"""The loop over the cells of a sweep: those that are stored are read, the others computed and stored."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax

from lazynet.execution._checkpoint import Budget, OutOfTime
from lazynet.execution._progress import Progress
from lazynet.execution._store import RunFolder
from lazynet.experiment._cell import Cell, compute_cell
from lazynet.experiment._devices import agreed, is_first
from lazynet.experiment._limits import Limits
from lazynet.experiment._result import Pack
from lazynet.experiment._shared_inputs import Prepared, prepare
from lazynet.experiment._study import Rates, Study
from lazynet.training._keys import member_key

# JAX lets go of no program by itself, and those of a width take about 20 MB; beyond so many widths all are let go.
COMPILED = 8


def deadline_of(max_seconds: float | None, out: str | Path | None) -> float:
    """When the time is over, on the clock `time.monotonic`."""
    if max_seconds is None:
        return float("inf")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds is {max_seconds}, but must be positive.")
    if out is None:
        raise ValueError("max_seconds is set, but out names no folder from which to go on.")
    return time.monotonic() + max_seconds


def all_cells(
    study: Study,
    packs: list[Pack],
    rates: list[Rates],
    limits: Limits,
    run: RunFolder | None,
    shown: bool,
    shard: tuple[int, int] | None,
    deadline: float,
) -> list[Cell]:
    """The cells of a shard's packs in their order; on the first process, where there are several.

    Raises:
        OutOfTime: if the deadline is over.
    """
    units = [units_of(study, pack) for pack in packs]
    mine = share_of(units, shard or (1, 1))
    dtype = study.points[0].training.dtype
    cells = []
    prepared: dict[tuple, Prepared] = {}
    compiled: set[tuple] = set()
    with Progress(sum(units[number] for number in mine), len(mine), dtype, shown and is_first()) as bar:
        for number in mine:
            pack = packs[number]
            cell = None if run is None else run.get(number)
            stored = cell is not None
            # What the first process has read is nobody's work.
            if not agreed(stored):
                if agreed(time.monotonic() >= deadline):
                    raise OutOfTime
                point = study.points[pack.point]
                if len(compiled | {(pack.width, point.of_program)}) > COMPILED:
                    jax.clear_caches()
                    compiled.clear()
                compiled.add((pack.width, point.of_program))
                # Neither learning rates nor labels change how members step.
                alike = point.of_kernel, point.training
                if alike not in prepared:
                    prepared = {key: value for key, value in prepared.items() if key[0] == point.of_kernel}
                    prepared[alike] = prepare(point.network, point.data, point.training)
                cell = _computed(
                    study, pack, number, rates[pack.point][pack.width], limits, prepared[alike], run, bar, deadline
                )
                if run is not None:
                    run.put(number, cell)
            if cell is not None:
                losses = cell.variables["train_loss"][:, -1].tolist()
                bar.finished(units[number] if stored else 0, pack.width, pack.seeds, losses)
                cells.append(cell)
    return cells


def share_of(units: Sequence[int], shard: tuple[int, int]) -> list[int]:
    """The cells of shard k of N: those that take most first, each goes to the shard that has least to do."""
    part, parts = shard
    loads, mine = [0] * parts, []
    for number in sorted(range(len(units)), key=lambda number: -units[number]):
        least = loads.index(min(loads))
        loads[least] += units[number]
        if least == part - 1:
            mine.append(number)
    return sorted(mine)


def _computed(
    study: Study,
    pack: Pack,
    number: int,
    rate: float,
    limits: Limits,
    prepared: Prepared,
    run: RunFolder | None,
    bar: Progress,
    deadline: float,
) -> Cell:
    point = study.points[pack.point]
    network = point.network.clone(width=pack.width)
    limits.check_rate(point, pack.width, rate)
    # Of members that stop nobody knows how many steps were taken.
    stops = point.training.stop is not None
    flops = None if stops else replace(prepared.stepper, network=network).operations(prepared.arrays)
    # Of members on several hosts no process has all.
    alone = jax.process_count() == 1
    kept = Budget(run.checkpoint(number), deadline) if run is not None and alone else None
    return compute_cell(
        network,
        point.data,
        [member_key(pack.width, seed) for seed in pack.seeds],
        point.training,
        rate,
        prepared,
        limits.at(point, pack.width),
        bar.of_cell(pack.width, pack.width * point.data.n_train, flops),
        kept,
    )


def units_of(study: Study, pack: Pack) -> int:
    """What a cell takes, about, against the others: units times examples times steps of its members."""
    point = study.points[pack.point]
    return pack.width * point.data.n_train * point.training.steps * len(pack.seeds)
