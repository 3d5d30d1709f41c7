"""The files of a study: its record, one file for each finished cell, and its result, all written atomically."""

import hashlib
import io
import json
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazynet.execution._checkpoint import CellCheckpoint
from lazynet.execution._files import write_file
from lazynet.execution._folder import RunFolder
from lazynet.execution._locks import holders, is_locked, locked
from lazynet.execution._provenance import environment, versions

# A cell's arrays, keyed by name.
Arrays = dict[str, np.ndarray]
LOCK, RESULT = "lock", "result.nc"
# File with the hashes of the study and of its result files, written after the result files.
FINISHED = "finished.json"
SHA256_DIGITS = 64
# Settings that are derived from other settings. A difference in one of them is reported only if no other setting
# differs.
DERIVED = ("snapshots", "scales", "rates", "learning_rate", "data", "axes")


class Status(NamedTuple):
    """The progress of the study stored in a folder.

    Attributes:
        finished: Number of cells that are stored and intact.
        damaged: Number of stored cells that are damaged or belong to another study, and will be recomputed.
        cells: Total number of cells.
        running: Whether a process is using the folder.
        result: Whether result.nc is intact and belongs to this study.
        holders: The processes that use the folder, such as "process 4711 on node3".
    """

    finished: int
    damaged: int
    cells: int
    running: bool
    result: bool
    holders: tuple[str, ...] = ()


class Store:
    """The files of a study: settings.json, one file in cells/ for each finished cell, and finally result.nc.

    Every file is written under a temporary name and then renamed. The name of a cell's file contains the cell's
    key and the SHA-256 hash of the file's contents.

    Attributes:
        path: Path of the folder.
        content: The contents of settings.json, or an empty dictionary if the study has not begun.
    """

    def __init__(self, path: str | Path, kind: str = "", request: str = "{}") -> None:
        """Read the current state of a folder.

        Args:
            path: Path of the folder.
            kind: The kind of study.
            request: The specification of the study as canonical JSON.
        """
        self.path, self._kind, self._request = Path(path), kind, json.loads(request)
        self._cells, self._file = self.path / "cells", self.path / "settings.json"
        self.content: dict[str, Any] = self._read() if self._file.exists() else {}
        files = self._cells.glob("*.npz")
        self._files = {file.stem[: -SHA256_DIGITS - 1]: file for file in files if not file.name.startswith(".")}
        self._opened: tuple[int, int] | None = None

    def hold(self) -> None:
        """Record the lock file's identity, so that nothing is written if another folder later replaces this one."""
        self._opened = _identity(self.path / LOCK)

    def _check_same_folder(self) -> None:
        """Raise a ValueError if the folder has been renamed, removed or replaced since it was opened."""
        if self._opened is not None and _identity(self.path / LOCK) != self._opened:
            raise ValueError(
                f"out must not be renamed, removed or replaced while a study runs, but {str(self.path)!r} was. If the "
                "folder still exists under another name, resume the study there."
            )

    @property
    def _study(self) -> str:
        """The hash of the study's settings, record and cell keys. The hash is stored in every cell's file."""
        request = self.content.get("request")
        return _hash({"kind": self.kind, "request": request, "record": _lasting(self.record), "cells": self.keys})

    @property
    def kind(self) -> str:
        """The kind of study in the folder, or an empty string if the study has not begun."""
        return str(self.content.get("kind", ""))

    @property
    def record(self) -> dict[str, Any]:
        """The record of the study, or an empty dictionary if the study has not begun."""
        record: dict[str, Any] = self.content.get("record", {})
        return record

    @property
    def keys(self) -> list[str]:
        """The keys of all cells, or an empty list if the study has not begun."""
        return list(self.content.get("cells", ()))

    def begin(self, record: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        """Store the record of the study unless one is already stored, and return the stored record.

        Args:
            record: Record of the study.
            keys: Keys of all cells.

        Returns:
            The stored record.

        Raises:
            ValueError: If the folder contains a different study, if its settings have been modified, or if the study
                was started with a different random number generator.

        Warns:
            UserWarning: If the study was started with different package versions or environment variables.
        """
        self._check_same_folder()
        if not self.content:
            content = {
                "kind": self._kind,
                "record": record,
                "cells": keys,
                "request": self._request,
                "versions": versions(),
                "environment": environment(),
            }
            text = json.dumps({**content, "hash": _hash(content)}, indent=1) + "\n"
            # If another shard has just written the file, its record is used, so that all shards divide the networks
            # into packs in the same way.
            with suppress(FileExistsError):
                write_file(self._file, text.encode(), link=True)
            self.content = self._read()
        self.check()
        if self.record.get("keys") != record.get("keys"):
            raise ValueError(
                f"{str(self.path)!r} was created with a different jax.random generator, so its networks have different "
                "random keys. Use a different folder."
            )
        # Packs are not compared, because different machines may group the same networks into different packs.
        if _hash(_lasting(self.record, "packs")) != _hash(_lasting(record, "packs")):
            raise self._modified()
        self.check_cells()
        if self.content["versions"] != versions():
            warnings.warn(
                f"{str(self.path)!r} was created with different package versions, so results may differ slightly.",
                stacklevel=3,
            )
        if self.content.get("environment", "") != environment():
            warnings.warn(
                f"{str(self.path)!r} was created with different environment variables, "
                f"{self.content.get('environment', '')!r} instead of {environment()!r}, so results may differ "
                "slightly.",
                stacklevel=3,
            )
        return self.record

    def check_cells(self) -> None:
        """Raise a ValueError if cells are stored but none of them belongs to this study."""
        studies = [study for study in map(_study_of, self._files.values()) if study is not None]
        if studies and self._study not in studies:
            raise self._modified()

    def _modified(self) -> ValueError:
        return ValueError(f"{str(self._file)!r} is damaged or has been modified; use a different folder.")

    def check(self) -> None:
        """Raise a ValueError if the folder contains a different study."""
        if self.kind != self._kind:
            raise ValueError(
                f"out must be the folder of a study of kind {self._kind}, got {str(self.path)!r}, which contains a "
                f"study of kind {self.kind}."
            )
        different = difference(self.content["request"], self._request)
        if different:
            raise ValueError(
                f"out must be the folder of this study, but the study in {str(self.path)!r} has {different}."
            )

    def read(self, key: str) -> Arrays | None:
        """Read the arrays of a cell.

        Args:
            key: Key of the cell.

        Returns:
            The arrays, or None if the cell is not stored or its file is damaged or belongs to another study.
        """
        file = self._files.get(key)
        return None if file is None else read_arrays(file, self._study)

    def take(self, key: str) -> Arrays | None:
        """Read the arrays of a cell, and delete the cell's file if the file is damaged or belongs to another study.

        Args:
            key: Key of the cell.

        Returns:
            The arrays, or None if the cell is not stored or its file was deleted.

        Warns:
            UserWarning: If the file is damaged or belongs to another study.
        """
        arrays, file = self.read(key), self._files.get(key)
        if arrays is None and file is not None:
            warnings.warn(
                f"{file.name} in {str(self._cells)!r} is damaged or belongs to another study, so its cell will be "
                "recomputed.",
                stacklevel=4,
            )
            file.unlink()
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Store a finished cell.

        Args:
            key: Key of the cell.
            arrays: Arrays of the cell.
        """
        self._check_same_folder()
        stream = io.BytesIO()
        named: dict[str, Any] = {"key": np.asarray(key), "study": np.asarray(self._study), **arrays}
        np.savez(stream, **named)
        content = stream.getvalue()
        self._cells.mkdir(exist_ok=True)
        write_file(self._cells / f"{key}-{hashlib.sha256(content).hexdigest()}.npz", content)
        self.checkpoint(key).clear()

    def checkpoint(self, key: str) -> CellCheckpoint:
        """Return the checkpoint for a cell that is being computed.

        Args:
            key: Key of the cell.

        Returns:
            The checkpoint.
        """
        return CellCheckpoint(self.path / "checkpoints" / key)

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the result files and remove the checkpoints.

        Args:
            files: File contents, keyed by file name.
        """
        self._check_same_folder()
        for name, content in files.items():
            write_file(self.path / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_file(self.path / FINISHED, json.dumps({"study": self._study, "files": digests}).encode())
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def status(self) -> Status:
        """Read and check every stored cell.

        Returns:
            The progress of the study.
        """
        keys = self.keys
        stored = [self.read(key) is not None for key in self._files if key in keys]
        using = holders(self.path)
        return Status(
            sum(stored), len(stored) - sum(stored), len(keys), bool(using), self._finished(), tuple(filter(None, using))
        )

    def _finished(self) -> bool:
        """Return whether result.nc is the file that `finish` wrote for this study."""
        result, finished = self.path / RESULT, self.path / FINISHED
        if not (result.is_file() and finished.is_file()):
            return False
        try:
            content = json.loads(finished.read_bytes())
            study, digest = content["study"], content["files"][RESULT]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return bool(study == self._study and digest == hashlib.sha256(result.read_bytes()).hexdigest())

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._file.read_text())
            intact = content.pop("hash") == _hash(content) and _is_study(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise self._modified()
        return content


def _is_study(content: dict[str, Any]) -> bool:
    """Return whether the contents of settings.json have the form in which `Store.begin` writes them."""
    forms = {"kind": str, "record": dict, "cells": list, "request": dict, "versions": dict}
    begun = content["record"].get("begun", 0.0)
    return (
        all(isinstance(content[name], form) for name, form in forms.items())
        and all(isinstance(key, str) for key in content["cells"])
        # The start time must be one that Python can represent as a date, up to about 2.5e11 seconds after the epoch.
        and isinstance(begun, int | float)
        and 0 <= begun < 2.5e11
    )


def _lasting(record: dict[str, Any], *further: str) -> dict[str, Any]:
    """Return a copy of a record without the start time and without the entries that have the given names."""
    return {name: value for name, value in record.items() if name not in ("begun", *further)}


def _study_of(file: Path) -> str | None:
    """Return the hash of the study to which a cell's file belongs, or None if the file cannot be read."""
    arrays = _loaded(file.read_bytes(), ("study",))
    return None if arrays is None else str(arrays["study"])


def _loaded(content: bytes, names: tuple[str, ...] = ()) -> Arrays | None:
    """Return the named arrays in a file, or all arrays by default; return None if the arrays cannot be read."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays.files}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None


def _identity(file: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of a file, or None if there is no such file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def read_arrays(file: Path, study: str) -> Arrays | None:
    """Return the arrays in a cell's file, or None if the file is damaged or belongs to a different cell or study."""
    content, (key, _, digest) = file.read_bytes(), file.stem.rpartition("-")
    if hashlib.sha256(content).hexdigest() != digest:
        return None
    arrays = _loaded(content)
    if arrays is None or not {"key", "study"} <= arrays.keys():
        return None
    if (str(arrays.pop("key")), str(arrays.pop("study"))) != (key, study):
        return None
    return arrays


def difference(other: dict[str, Any], own: dict[str, Any]) -> str:
    """Describe the first setting in which another request differs from this one.

    Args:
        other: The settings of the other request.
        own: The settings of this request.

    Returns:
        The description, or an empty string if the requests are equal.
    """
    for name in sorted(own.keys() | other.keys(), key=_precedence):
        if own.get(name) != other.get(name):
            return "different data" if name == "data" else f"{name} = {other.get(name)!r} instead of {own.get(name)!r}"
    return ""


def _precedence(name: str) -> tuple[bool, bool, str]:
    """Return a sort key for settings that puts derived settings last and the optimizer before its fields."""
    return name in DERIVED or name.endswith("_values"), name != "optimizer", name


@contextmanager
def open_store(folder: RunFolder, kind: str, request: str) -> Iterator[Store]:
    """Open the folder of a study and lock it.

    If the study is divided into shards, the processes that compute different shards share the folder's lock, and each
    process also locks its own shard.

    Args:
        folder: Folder of the study.
        kind: The kind of study.
        request: The specification of the study as canonical JSON. A study already in the folder must have the same
            specification.

    Yields:
        The store. The folder stays locked until the context exits.

    Raises:
        ValueError: If the folder must be new but already exists, contains anything other than this study, or is in use
            by another process.
    """
    path, shard = Path(folder.path), folder.shard
    folder.check()
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    own = nullcontext() if shard is None else locked(path / f"{LOCK}-{shard[0]}-of-{shard[1]}")
    with locked(path / LOCK, shared=shard is not None), own:
        for other in path.glob(f"{LOCK}-*-of-*"):
            if shard is not None and other.name.rpartition("-")[2] != str(shard[1]) and is_locked(other):
                raise ValueError(
                    f"Another process is using {str(path)!r} with a different number of shards and holds the lock "
                    f"{other.name!r}; wait for it to finish or use the same number of shards."
                )
        store = Store(path, kind, request)
        store.hold()
        if store.content:
            store.check()
        elif any(not file.name.startswith((LOCK, ".")) for file in path.iterdir()):
            raise ValueError(f"out must be a new folder or the folder of this study, got {str(path)!r}.")
        try:
            yield store
        except BaseException:
            if new and shard is None and not store.content:
                # The study failed before its settings were stored, so the new folder is removed.
                shutil.rmtree(path)
            raise


@contextmanager
def finished_store(out: str | Path) -> Iterator[Store]:
    """Open the folder of a study whose shards have finished, and lock it for this process.

    Raises:
        ValueError: If a process is still working on the study, or if settings.json is damaged or has been modified.
    """
    with locked(Path(out) / LOCK):
        store = Store(out)
        store.hold()
        store.check_cells()
        yield store


def _hash(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
