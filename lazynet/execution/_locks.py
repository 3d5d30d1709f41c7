"""File locks that tell a process whether another process is using the same folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Number of attempts to acquire a lock, and seconds between attempts.
ATTEMPTS, PAUSE = 10, 0.05


@contextmanager
def _opened(file: Path, mode: str) -> Iterator[Any]:
    """Open a lock file.

    Raises:
        ValueError: If the file cannot be opened, for example because it belongs to another user.
    """
    try:
        lock = open(file, mode)  # noqa: SIM115
    except OSError as error:
        owner = _owner(file if file.exists() else file.parent)
        raise ValueError(
            f"The lock file {str(file)!r}, which belongs to user {owner}, cannot be opened ({error.strerror}). "
            f"Ask {owner} to run chmod a+rw on this file, or use a different folder."
        ) from error
    with lock:
        yield lock


def _owner(path: Path) -> str:
    """Return the name of the user who owns a file, or the numeric user ID if the user has no name."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


@contextmanager
def locked(file: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock. The operating system releases it when the process ends, even if the process is killed.

    Args:
        file: The lock file, which is created if it does not exist.
        shared: Whether other processes may hold the lock at the same time, provided that they also share it.

    Raises:
        ValueError: If the file cannot be opened, or if another process holds the lock.
    """
    with _opened(file, "a") as lock:
        for left in reversed(range(ATTEMPTS)):
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise ValueError(
                        f"Another process is using {str(file.parent)!r}; wait for it to finish or use a different "
                        "folder."
                    ) from None
                # A process that merely checks the lock acquires it briefly, so a later attempt may succeed.
                time.sleep(PAUSE)
        yield


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock. The lock file is not created if it does not exist.

    Args:
        file: The lock file.

    Raises:
        ValueError: If the file cannot be opened.
    """
    if not file.exists():
        return False
    with _opened(file, "r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
