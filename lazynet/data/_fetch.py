"""Functions that download MNIST and Fashion-MNIST to the user's cache."""

import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from lazynet.arguments import check_path, described
from lazynet.data._files import CHECKSUMS, IDX_FILES, SIZES, cache_folder, check_name
from lazynet.data._formats import read_bytes

ADDRESSES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}


# Time limits in seconds: the first applies to the download of a file, the second to each wait for data from the server.
SECONDS, PATIENCE = 1800.0, 30.0


class _Limit:
    """Progress bar that aborts a download once it exceeds `most` bytes or the event `over` is set."""

    total = 0

    def __init__(self, most: float, over: threading.Event) -> None:
        self._left, self._over = most, over

    def update(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise OSError("The download is larger than expected.")
        if self._over.is_set():
            raise OSError("The download is too slow.")

    def reset(self) -> None:
        # After a download, pooch calls `reset` and then calls `update` with the total length. The limit is lifted here
        # so that this last call, which counts all bytes a second time, does not abort the download.
        self._left = float("inf")

    def close(self) -> None:
        pass


def _download(address: str, target: Path, most: int, seconds: float) -> None:
    """Download a file, but abort if it has more than `most` bytes or if the download takes more than `seconds` seconds.

    Raises:
        OSError: If the server cannot be reached, sends too many bytes, or is too slow.
    """
    import pooch

    over, errors = threading.Event(), list[BaseException]()
    download: Any = pooch.HTTPDownloader(progressbar=_Limit(float(most), over), timeout=PATIENCE)

    def run() -> None:
        try:
            download(address, str(target), None)
        except BaseException as error:
            errors.append(error)

    # A socket timeout restarts with each byte received, so it does not limit the duration of the whole download.
    # Therefore, the download runs in a thread that is abandoned if the server is too slow.
    thread = threading.Thread(target=run, name="lazynet download", daemon=True)
    thread.start()
    thread.join(seconds)
    over.set()
    if errors:
        raise errors[0]
    if thread.is_alive():
        raise TimeoutError(f"The download took more than {seconds:g} seconds.")


def _fetch_file(address: str, target: Path, checksum: str, size: int, seconds: float = SECONDS) -> None:
    """Download a gzipped file, decompress it, and move it to `target` if its checksum is correct.

    Args:
        address: URL of the file.
        target: Path of the uncompressed file.
        checksum: SHA-256 checksum of the uncompressed file.
        size: Size of the uncompressed file in bytes.
        seconds: Time limit for the download in seconds.

    Raises:
        ValueError: If the download is not a gzip stream, or the checksum is wrong.
        OSError: If the download fails.
    """
    # pooch.retrieve would verify only the compressed file, and would move the decompressed file into place unchecked.
    # os.replace is atomic only within a file system, so the temporary folder is a sibling of the target.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        compressed, plain = Path(scratch) / f"{target.name}.gz", Path(scratch) / target.name
        # Besides adding a header, gzip enlarges incompressible data by less than 0.1%.
        _download(address, compressed, size + size // 1000 + 2**16, seconds)
        try:
            content = read_bytes(compressed, size)
        except ValueError as error:
            raise ValueError(
                f"The download of {target.name} from {address} was discarded because it is not a complete gzip "
                "stream. Try again, or download the file from a different source."
            ) from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != checksum:
            raise ValueError(
                f"The download of {target.name} from {address} was discarded because the SHA-256 checksum of the "
                f"uncompressed file is {digest} instead of {checksum}. Try again, or download the file from a "
                "different source."
            )
        plain.write_bytes(content)
        os.replace(plain, target)


def fetch_dataset(name: str, cache: str | os.PathLike[str] | None = None, base_url: str | None = None) -> Path:
    """Download any MNIST or Fashion-MNIST files that are not yet in the cache.

    The SHA-256 checksum of each uncompressed file is verified before the file is moved into place. Files that are
    already in the cache are kept if their checksums are correct.

    Args:
        name: "mnist" or "fashion-mnist".
        cache: Folder in which the subfolder `name` is created. Defaults to the user's cache.
        base_url: URL of the folder that contains the gzipped files. Defaults to a public mirror.

    Returns:
        The folder that contains the four uncompressed files.

    Raises:
        ValueError: If `name` is neither "mnist" nor "fashion-mnist", if `cache` is not a path, if `base_url` is not a
            string, or if a downloaded file is damaged, in which case the file is discarded.
        FileNotFoundError: If the download fails.

    >>> fetch_dataset("digits")
    Traceback (most recent call last):
    ValueError: name must be 'mnist' or 'fashion-mnist', got 'digits'. Other data sets cannot be downloaded.
    """
    check_name(name, tuple(ADDRESSES), " Other data sets cannot be downloaded.")
    folder = (cache_folder() if cache is None else check_path("cache", cache)) / name
    if not isinstance(base_url, str | None):
        raise ValueError(f"base_url must be a string, got {described(base_url)}.")
    base = ADDRESSES[name] if base_url is None else base_url.rstrip("/") + "/"
    for file, checksum, size in zip(IDX_FILES, CHECKSUMS[name], SIZES, strict=True):
        target = folder / file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == checksum:
                continue
            _fetch_file(f"{base}{file}.gz", target, checksum, size)
        except OSError as error:  # includes the exceptions raised by requests
            raise FileNotFoundError(
                f"{name} could not be downloaded from {base} to {folder} ({type(error).__name__}). Place "
                f"the files {', '.join(IDX_FILES)} in that folder, or set LAZYNET_DATA to the folder that contains "
                "them."
            ) from error
    return folder
