"""The loop over the cells of a sweep: those that are stored are read, the others computed and stored."""

import time
from dataclasses import replace
from pathlib import Path

import jax

from lazynet.sweep.cells import Cell, compute_cell
from lazynet.sweep.checkpoint import Budget, OutOfTime
from lazynet.sweep.devices import agreed, is_first
from lazynet.sweep.limits import Limits
from lazynet.sweep.prepared import Prepared, prepare
from lazynet.sweep.progress import Progress
from lazynet.sweep.result import Pack
from lazynet.sweep.store import RunFolder
from lazynet.sweep.study import Rates, Study
from lazynet.training.keys import member_key

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
    part, parts = shard or (1, 1)
    mine = list(enumerate(packs))[part - 1 :: parts]
    cells = []
    prepared: dict[tuple, Prepared] = {}
    compiled: set[tuple] = set()
    with Progress(sum(_units(study, pack) for _, pack in mine), len(mine), shown and is_first()) as bar:
        for number, pack in mine:
            cell = None if run is None else run.get(number)
            stored = cell is not None
            # What the first process has read is nobody's work.
            if not agreed(stored):
                if agreed(time.monotonic() >= deadline):
                    raise OutOfTime
                point = study.points[pack.point]
                if len(compiled | {(pack.width, point.of_kernel)}) > COMPILED:
                    jax.clear_caches()
                    compiled.clear()
                compiled.add((pack.width, point.of_kernel))
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
                bar.finished(_units(study, pack) if stored else 0, pack.width, pack.seeds, losses)
                cells.append(cell)
    return cells


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
    flops = replace(prepared.path, network=network).operations(prepared.arrays)
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


def _units(study: Study, pack: Pack) -> int:
    """What a cell takes, about, against the others: units times examples times steps of its members."""
    point = study.points[pack.point]
    return pack.width * point.data.n_train * point.training.steps * len(pack.seeds)
