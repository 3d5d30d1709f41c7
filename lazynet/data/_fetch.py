"""Download of MNIST and Fashion-MNIST into the user's cache."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from lazynet.data._files import CHECKSUMS, IDX_FILES, cache_folder, check_name
from lazynet.data._formats import read_bytes

ADDRESSES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}


def _fetch_file(address: str, target: Path, checksum: str) -> None:
    """Put the decompressed file at `target`, in one step and only if its checksum is right."""
    import pooch

    # Not pooch.retrieve: its known hash is of the compressed file, and it would move that file into place unchecked.
    # A folder beside the target is on the same file system, where replacing is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        compressed, plain = Path(scratch) / f"{target.name}.gz", Path(scratch) / target.name
        pooch.HTTPDownloader()(address, str(compressed), None)
        try:
            content = read_bytes(compressed)
        except ValueError as error:
            raise ValueError(f"{target.name} was refused: what {address} sent is no whole gzip stream") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != checksum:
            raise ValueError(
                f"{target.name} was refused: its uncompressed sha256 must be {checksum}, but {address} sent {digest}"
            )
        plain.write_bytes(content)
        os.replace(plain, target)


def fetch_dataset(name: str, cache: Any = None, base_url: str | None = None) -> Path:
    """Fetch the files of "mnist" or "fashion-mnist" that the cache lacks, and check them.

    The sha256 of the uncompressed bytes is checked before a file gets its name; files that are there and right stay.

    Args:
        name: "mnist" or "fashion-mnist".
        cache: the base folder, a folder `name` is made in it; the user's cache by default.
        base_url: the address in front of the gzipped files' names; a public one by default.

    Returns:
        The folder that holds the four uncompressed files.

    Raises:
        ValueError: another name, or a file whose checksum is wrong (nothing is kept of it).
        FileNotFoundError: the download failed; the sentence says where to put the files instead.

    >>> fetch_dataset("digits")
    Traceback (most recent call last):
    ValueError: name must be one of mnist, fashion-mnist, got 'digits': the others are never fetched
    """
    check_name(name, tuple(ADDRESSES), ": the others are never fetched")
    folder = (cache_folder() if cache is None else Path(cache).expanduser()) / name
    base = ADDRESSES[name] if base_url is None else base_url.rstrip("/") + "/"
    for file, checksum in zip(IDX_FILES, CHECKSUMS[name], strict=True):
        target = folder / file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == checksum:
                continue
            _fetch_file(f"{base}{file}.gz", target, checksum)
        except OSError as error:  # also what the network library raises
            raise FileNotFoundError(
                f"{name} could not be fetched from {base} into {folder} ({type(error).__name__}): put "
                f"{', '.join(IDX_FILES)} there yourself, or in a folder that LAZYNET_DATA names"
            ) from error
    return folder
