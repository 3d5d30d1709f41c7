"""The commands that work on a study's folder: `verify`, `plot`, `merge` and `status`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import lazynet as lz
from lazynet.cli._common import OptionalFloat, OptionalPath, Switch, print_json, width_search_progress
from lazynet.cli._reports import check_verdict, report, write_plots
from lazynet.execution import RESULT, Store
from lazynet.papers.work import PARTS, REPRODUCTION
from lazynet.studies.laziness_map import GRID
from lazynet.studies.laziness_map import KIND as MAP
from lazynet.studies.required_width import KIND as REQUIRED_WIDTH
from lazynet.studies.sweep import check_tolerance
from lazynet.typing import Result


def load_result(path: Path) -> Result:
    """Return the result of a finished study.

    Args:
        path: The study's folder, or the file result.nc.

    Raises:
        ValueError: If there is no result, or if it is not a result of lazynet.
    """
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{str(path)!r} does not contain the result of a finished study; see lazynet status {path}.")
    import xarray as xr

    result = xr.load_dataset(file, engine="h5netcdf")
    if "kind" not in result.attrs:
        raise ValueError(f"{str(file)!r} is not a result of lazynet.")
    return result


@dataclass
class Verify:
    """Print the verdict on a finished study: whether its networks are lazy, and which predictions of theory hold."""

    run_path: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(name="run", metavar="RUN")]]
    """Folder of the study, originally passed as --out, or a file result.nc."""
    tolerance: OptionalFloat = None
    """Largest gap at which networks count as lazy, as a fraction of the RMS of the targets; by default 0.05."""
    check: Switch = False
    """Exit with code 1 if an exponent predicted without <= fails, an inequality fails, a network diverges or, with
    --tolerance, the largest width is not lazy or is undecided; or if no width was verified."""
    json: Switch = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        """Print the verdict and return the exit code."""
        if self.tolerance is not None:
            check_tolerance(self.tolerance)
        result = load_result(self.run_path)
        check_verdict(result.attrs["kind"])
        return report(result, None, self.json, self.check, self.tolerance)


@dataclass
class Plot:
    """Draw the figures of a finished study again."""

    run_path: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(name="run", metavar="RUN")]]
    """Folder of the study, originally passed as --out, or a file result.nc."""
    tolerance: OptionalFloat = None
    """Largest gap at which the networks of a sweep count as lazy; by default 0.05."""
    out: OptionalPath = None
    """Folder in which to write the figures, by default the folder of the study."""

    def run(self) -> int:
        """Draw the figures, print their paths, and return the exit code."""
        result = load_result(self.run_path)
        folder = self.out or (self.run_path if self.run_path.is_dir() else self.run_path.parent)
        for file in write_plots(result, folder, self.tolerance):
            print(file)
        return 0


@dataclass
class Merge:
    """Assemble the result of a study from the cells that its shards have stored in a folder."""

    folder: tyro.conf.Positional[Path]
    """Folder of the study, passed to the shards as --out."""
    check: Switch = False
    """Exit with code 1 if an exponent predicted without <= fails, an inequality fails, or a network diverges."""
    json: Switch = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        """Assemble and print the result, and return the exit code."""
        kind = Store(self.folder).kind
        if self.check and kind:
            check_verdict(kind)
        return report(lz.merge_shards(self.folder), self.folder, self.json, self.check)


@dataclass
class Status:
    """Print the progress of the study stored in a folder, or the progress of each part of a reproduction."""

    folder: tyro.conf.Positional[Path]
    """Folder of the study or the reproduction, originally passed as --out."""
    json: Switch = False
    """Print one JSON object."""

    def run(self) -> int:
        """Check the stored cells, print the progress, and return the exit code."""
        store = Store(self.folder)
        if store.kind == REPRODUCTION:
            return self._print_parts()
        if not store.kind:
            raise ValueError(f"{str(self.folder)!r} does not contain a study.")
        status, how, cells = store.status(), "run its command again with --resume", "cells"
        if store.kind == MAP:
            # Report progress only for the sweep over the map's grid, because the number of later sweeps is not known in
            # advance.
            grid = Store(self.folder / GRID).status()
            status = grid._replace(running=status.running, result=status.result, holders=status.holders)
            how, cells = "call lazynet.laziness_map again with lazynet.RunFolder(..., resume=True)", "cells of the grid"
        if store.kind == REQUIRED_WIDTH:
            status = width_search_progress(self.folder, status)
        if self.json:
            print_json(kind=store.kind, **status._asdict())
            return 0
        print(f"{store.kind}: {status.finished} of {status.cells} {cells} are stored, {status.damaged} are damaged.")
        if status.running:
            print(f"A process is using the study{f' ({named})' if (named := ', '.join(status.holders)) else ''}.")
        elif status.finished == status.cells and not status.result and store.kind not in (MAP, REQUIRED_WIDTH):
            print(f"All cells are stored. To assemble the result, run lazynet merge {self.folder}.")
        elif status.finished < status.cells or not status.result:
            print(f"No process is using the study. To continue, {how}.")
        else:
            print("The study is finished.")
        return 0

    def _print_parts(self) -> int:
        """Print the progress of each part of a reproduction, and return the exit code."""
        parts = {part.name: Store(part).status() for part in sorted((self.folder / PARTS).glob("*"))}
        if self.json:
            print_json(kind=REPRODUCTION, parts={name: status._asdict() for name, status in parts.items()})
            return 0
        for name, status in parts.items():
            print(f"{name}: {status.finished} of {status.cells} cells are stored, {status.damaged} are damaged.")
        return 0
