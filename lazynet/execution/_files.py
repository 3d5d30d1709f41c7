"""Atomic file writes, and the files that make up a result."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from lazynet.typing import Result

# Resolution of the figures, in dots per inch.
DOTS_PER_INCH = 200


def write_file(file: Path, content: bytes, link: bool = False) -> None:
    """Write a file atomically, so that it is never left partially written, even after a power failure.

    Args:
        file: Path of the file. Its folder must exist.
        content: Contents of the file.
        link: Whether to raise an error instead of replacing the file if it already exists.

    Raises:
        FileExistsError: If `link` is True and the file exists.
        OSError: If the file cannot be written, for example because the disk is full. An existing file is not changed.
    """
    handle, name = tempfile.mkstemp(prefix=".", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o666 & ~_umask())
        if link:
            file.hardlink_to(draft)
        else:
            draft.replace(file)
    except OSError as error:
        # The operating system's error for a full disk does not name the file, so the name is added.
        if error.errno is not None and error.filename is None:
            error.filename = str(file)
        raise
    finally:
        draft.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_figures(out: str | Path, figures: dict[str, Any]) -> list[Path]:
    """Write figures as PNG files to the figures/ subfolder of a given folder.

    Args:
        out: Path of the folder, which is created if it does not exist.
        figures: Matplotlib figures, keyed by file name without the extension.

    Returns:
        The paths of the files.
    """
    folder = Path(out) / "figures"
    for name, figure in figures.items():
        folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
        write_file(folder / f"{name}.png", stream.getvalue())
    return [folder / f"{name}.png" for name in figures]


def result_files(result: Result) -> dict[str, bytes]:
    """Convert a result to the contents of a netCDF file.

    Args:
        result: Result to store, an `xarray.Dataset`.

    Returns:
        A dictionary that maps the file name result.nc to the contents of the file.
    """
    return {"result.nc": bytes(result.to_netcdf(engine="h5netcdf"))}
