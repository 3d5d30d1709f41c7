"""File locks that tell a process whether another process is using the same folder."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import ReadWriteLock, Timeout

# Seconds to wait for a lock. A process that checks a lock holds it briefly, and a process that waits for a lock that
# others share keeps further processes from sharing it.
PATIENCE, SHARED_PATIENCE = 0.5, 2.0


@contextmanager
def locked(file: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock. The operating system releases it when the process ends, even if the process is killed.

    Args:
        file: The lock file, which is created if it does not exist.
        shared: Whether other processes may hold the lock at the same time, provided that they also share it.

    Raises:
        ValueError: If the file cannot be opened, or if another process holds the lock.
    """
    with _explained(file):
        lock = ReadWriteLock(file, is_singleton=False)
        try:
            if shared:
                lock.acquire_read(timeout=SHARED_PATIENCE)
            else:
                lock.acquire_write(timeout=PATIENCE)
        except Timeout:
            named = ", ".join(filter(None, holders(file.parent)))
            raise ValueError(
                f"Another process{f' ({named})' if named else ''} is using {str(file.parent)!r}; wait for it to finish "
                "or use a different folder."
            ) from None
    try:
        if not shared:
            _holder_file(file).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        if not shared:
            _holder_file(file).unlink(missing_ok=True)
        lock.close()


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock without sharing it. The file is neither created nor modified.

    Args:
        file: The lock file.

    Raises:
        ValueError: If the file cannot be opened.
    """
    if not file.exists():
        return False
    # A lock of filelock is a transaction in SQLite. Reading the file directly requires no permission to write to it.
    with _explained(file):
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=0)
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return True
        finally:
            connection.close()
    return False


def holders(folder: Path) -> list[str]:
    """Return the processes that use a folder, such as "process 4711 on node3", or "" for one whose name is unknown.

    Args:
        folder: The folder.
    """
    files = map(_holder_file, filter(is_locked, sorted(folder.glob("lock*"))))
    return [file.read_text() if file.exists() else "" for file in files]


def _holder_file(file: Path) -> Path:
    return file.with_name(f".{file.name}-holder")


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Raise a ValueError that tells what to do if a lock file cannot be opened."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        owner = _owner(file if file.exists() else file.parent)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"The lock file {str(file)!r}, which belongs to user {owner}, cannot be opened ({reason}). "
            f"Ask {owner} to run chmod a+rw on this file, or use a different folder."
        ) from error


def _owner(path: Path) -> str:
    """Return the name of the user who owns a file, or the numeric user ID if the user has no name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)
