"""Run folders: of a prediction written whole, of a sweep cell by cell, so that a killed one goes on where it was."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazynet.execution._checkpoint import CellCheckpoint
from lazynet.execution._provenance import versions
from lazynet.experiment._cell import Cell
from lazynet.experiment._result import Pack
from lazynet.typing import Result

Settings = dict[str, Any]
# Parts of settings.json that the settings of a result do not have.
OWN = ("engine", "asked", "versions")
LOCK = "lock"
# Times that a lock is asked for, and seconds between them.
ATTEMPTS, PAUSE = 10, 0.05


class Status(NamedTuple):
    """How far a sweep in a folder is.

    Attributes:
        finished: cells that are stored whole.
        damaged: cells whose checksum does not hold, and which will be computed again.
        cells: cells in all.
        running: whether a process is at work on the folder.
        result: whether result.nc is there.
    """

    finished: int
    damaged: int
    cells: int
    running: bool
    result: bool


class RunFolder:
    """The folder of a sweep: settings.json, cells/ with finished cells, and in the end result.nc and verdict.json.

    Every file comes into being whole, by a rename. The name of a cell's file holds its number and the SHA-256 of its
    bytes.

    Attributes:
        settings: what settings.json says; empty where it is not there yet.
    """

    def __init__(self, path: str | Path, asked: str = "") -> None:
        """The folder as it is, and what the sweep is asked to do, as JSON."""
        self.path, self._asked = Path(path), asked
        self._cells, self._file = self.path / "cells", self.path / "settings.json"
        self.settings = self._read() if self._file.exists() else {}
        self._files = {int(file.name[:6]): file for file in self._cells.glob(f"{'[0-9]' * 6}-*.npz")}

    def _read(self) -> Settings:
        try:
            settings = json.loads(self._file.read_text())
            whole = settings.pop("hash") == _hash(settings)
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise ValueError(f"{str(self._file)!r} is damaged or was changed; name another folder.")
        return settings

    def begin(self, record: Settings) -> Settings:
        """Say what the sweep is, once; what was said first, by whichever shard.

        Raises:
            ValueError: if it was another sweep.
        """
        if not self.settings:
            record = {**record, "asked": json.loads(self._asked), "versions": versions()}
            content = json.dumps({**record, "hash": _hash(record)}, indent=1) + "\n"
            # The packing of the one that is first holds for all.
            with suppress(FileExistsError):
                write_file(self._file, content.encode(), link=True)
            self.settings = self._read()
        self.check(json.loads(self._asked))
        if self.settings["engine"]["keys"] != record["engine"]["keys"]:
            raise ValueError(
                f"{str(self.path)!r} holds members with other keys: another generator of jax.random is set."
            )
        if self.settings["versions"] != versions():
            warnings.warn(f"{str(self.path)!r} was begun with other versions, so digits may differ.", stacklevel=3)
        return self.settings

    def check(self, asked: Settings) -> None:
        """Refuse to go on with another sweep."""
        before = self.settings["asked"]
        # Scales are by width and data depend on all else, so they are the reason only where nothing else is.
        last = ("init_scale", "output_scale", "learning_rate", "data", "axes")
        for name in sorted(
            asked.keys() | before.keys(), key=lambda name: (name in last and 1 + last.index(name), name)
        ):
            now, then = asked.get(name), before.get(name)
            if now != then:
                said = "its data are others" if name == "data" else f"there {name} is {then!r}, and now it is {now!r}"
                raise ValueError(
                    f"out is {str(self.path)!r}, which belongs to another sweep: {said}; name a new folder."
                )

    @property
    def asked_settings(self) -> Settings:
        """The settings that the result has."""
        return {name: value for name, value in self.settings.items() if name not in OWN}

    @property
    def packs(self) -> list[Pack]:
        """The point, the width and the seeds of each cell; none where no sweep was begun."""
        return [Pack(*pack) for pack in self.settings.get("engine", {}).get("packs", [])]

    def read(self, number: int) -> Cell | None:
        """A cell that was stored whole."""
        file = self._files.get(number)
        return None if file is None else read_cell(file)

    def get(self, number: int) -> Cell | None:
        """A cell that was stored; one that is damaged is taken away."""
        cell, file = self.read(number), self._files.get(number)
        if cell is None and file is not None:
            warnings.warn(f"{file.name} in {str(self._cells)!r} is damaged, and is computed again.", stacklevel=4)
            file.unlink()
        return cell

    def put(self, number: int, cell: Cell) -> None:
        """Store a finished cell."""
        arrays: dict[str, Any] = {
            "number": np.asarray(number),
            "diverged_at": cell.diverged_at,
            "stopped_at": cell.stopped_at,
        }
        for group in ("variables", "limit_variables"):
            arrays |= {f"{group}/{name}": values for name, values in getattr(cell, group).items()}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        content = stream.getvalue()
        self._cells.mkdir(exist_ok=True)
        write_file(self._cells / f"{number:06d}-{hashlib.sha256(content).hexdigest()}.npz", content)
        self.checkpoint(number).clear()

    def checkpoint(self, number: int) -> CellCheckpoint:
        """Where a cell is kept while it is computed."""
        return CellCheckpoint(self.path / "checkpoints" / f"{number:06d}")

    def finish(self, result: Result, verdict: str) -> None:
        """Write the result and its verdict, as JSON."""
        write_file(self.path / "result.nc", bytes(result.to_netcdf(engine="h5netcdf")))
        write_file(self.path / "verdict.json", (verdict + "\n").encode())
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def status(self) -> Status:
        """How far the sweep is; every stored cell is read and checked."""
        whole = [read_cell(file) is not None for file in self._files.values()]
        result = (self.path / "result.nc").exists()
        return Status(sum(whole), len(whole) - sum(whole), len(self.packs), _is_locked(self.path / LOCK), result)


def read_cell(file: Path) -> Cell | None:
    """The cell in this file, None where its bytes are not those that were written, or those of another cell."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.stem.partition("-")[2]:
        return None
    groups: dict[str, dict[str, np.ndarray]] = {"variables": {}, "limit_variables": {}}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if int(arrays["number"]) != int(file.name[:6]):
            return None
        for name in arrays.files:
            group, _, variable = name.partition("/")
            if variable:
                groups[group][variable] = arrays[name]
        return Cell(**groups, diverged_at=arrays["diverged_at"], stopped_at=arrays["stopped_at"])


@contextmanager
def open_run(out: str | Path, asked: str, resume: bool, shard: tuple[int, int] | None) -> Iterator[RunFolder]:
    """The folder of a sweep, made or gone on with, for this process alone, or for one of each shard.

    Args:
        out: the folder.
        asked: what the sweep is asked to do, as JSON: a folder of another one is refused.
        resume: whether the folder may exist.
        shard: (k, N) for one of N processes that share the folder, which may exist.

    Raises:
        ValueError: if the folder exists where it may not, belongs to no sweep or to another one, or another process
            is at work on it.
    """
    path = Path(out)
    if path.exists() and not resume and shard is None:
        raise ValueError(f"out is {str(out)!r}, which exists already; name a new folder.")
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    own = nullcontext() if shard is None else _locked(path / f"{LOCK}-{shard[0]}-of-{shard[1]}")
    with _locked(path / LOCK, shared=shard is not None), own:
        for other in path.glob(f"{LOCK}-*-of-*"):
            if shard is not None and other.name.rpartition("-")[2] != str(shard[1]) and _is_locked(other):
                raise ValueError(f"{str(path)!r} is being computed in another number of shards: {other.name} is held.")
        run = RunFolder(path, asked)
        if run.settings:
            run.check(json.loads(asked))
        elif any(not file.name.startswith((LOCK, ".")) for file in path.iterdir()):
            raise ValueError(f"out is {str(out)!r}, which holds something else than a sweep; name another folder.")
        try:
            yield run
        except BaseException:
            if new and shard is None and not run.settings:
                # Nothing was begun.
                shutil.rmtree(path)
            raise


@contextmanager
def finished_run(out: str | Path) -> Iterator[RunFolder]:
    """The folder of a sweep whose shards are done, for this process alone.

    Raises:
        ValueError: if it holds no sweep, or a process is at work on it.
    """
    if not RunFolder(out).packs:
        raise ValueError(f"{str(out)!r} holds no sweep.")
    with _locked(Path(out) / LOCK):
        yield RunFolder(out)


def write_run(out: str | Path, result: Result, figures: dict[str, Any] | None = None) -> None:
    """Write settings.json, result.nc and, where given, figures/ to a new folder, all at once.

    Args:
        out: the folder; it must not exist.
        result: of `lazynet.predict`.
        figures: matplotlib figures by name.

    Raises:
        FileExistsError: if the folder came into being meanwhile; the run then stays in the folder that is named.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        settings = json.loads(result.attrs["settings"])
        settings["versions"] = versions()
        settings["hash"] = _hash(settings)
        (draft / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        result.to_netcdf(draft / "result.nc", engine="h5netcdf")
        write_figures(draft, figures or {})
        draft.chmod(0o755)
    except BaseException:
        shutil.rmtree(draft)
        raise
    try:
        # Unlike a rename, making the folder first fails where somebody else has made it, even if it is empty.
        out.mkdir()
        draft.replace(out)
    except OSError as error:
        raise FileExistsError(f"The folder {str(out)!r} exists by now; this run was left in {str(draft)!r}.") from error


def write_figures(out: str | Path, figures: dict[str, Any]) -> None:
    """Write matplotlib figures, by name, to the folder's figures/."""
    for name, figure in figures.items():
        folder = Path(out) / "figures"
        folder.mkdir(exist_ok=True)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=200)
        write_file(folder / f"{name}.png", stream.getvalue())


def _hash(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def write_file(file: Path, content: bytes, link: bool = False) -> None:
    """Write a file so that it is there whole or not at all, even if the power goes.

    Raises:
        FileExistsError: with `link`, if the file is there already.
    """
    handle, name = tempfile.mkstemp(prefix=".", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        if link:
            file.hardlink_to(draft)
        else:
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _locked(file: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock, which the system lets go of when the process ends, however it ends."""
    with open(file, "a") as lock:
        for left in reversed(range(ATTEMPTS)):
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise ValueError(
                        f"Another process is at work on {str(file.parent)!r}; wait for it, or name another folder."
                    ) from None
                # Who only looks whether it is held holds it for a moment.
                time.sleep(PAUSE)
        yield


def _is_locked(file: Path) -> bool:
    """Whether a process holds a lock, found out without writing anything."""
    if not file.exists():
        return False
    with open(file) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
