"""Binary formats of image data sets, read by hand and checked to the byte: nothing is unpickled."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

CIFAR_ROW = 1 + 3 * 32 * 32


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, decompressed when its name ends in .gz; ValueError when the stream is broken."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip stream, but it is cut short or corrupt: {error}") from error


def check_labels(path: Path, labels: np.ndarray) -> None:
    """Raise ValueError when a label of the file `path` is outside 0..9."""
    if (labels > 9).any():
        row = int(np.argmax(labels > 9))
        raise ValueError(f"{path} must hold labels from 0 to 9, but example {row} has the label {labels[row]}")


def read_idx(path: Any, ndim: int) -> UInt8[np.ndarray, "..."]:
    """Return the array of an IDX file of unsigned bytes, the format of MNIST.

    The header is two zero bytes, the type 8, the number of dimensions, and each dimension as a big-endian 32-bit
    number; the bytes follow in row-major order.

    Args:
        path: the file, gzipped when its name ends in .gz.
        ndim: the number of dimensions that it must have.

    Returns:
        A uint8 array with `ndim` dimensions.

    Raises:
        ValueError: a wrong magic number, a file that is cut short or has trailing bytes, a broken gzip stream.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    path = Path(path)
    content = read_bytes(path)
    header = 4 + 4 * ndim
    magic = bytes([0, 0, 8, ndim])
    if content[:4] != magic:
        raise ValueError(
            f"{path} must start with the magic number {magic.hex()}, but it starts with "
            f"{content[:4].hex() or 'nothing'}"
        )
    if len(content) < header:
        raise ValueError(f"{path} is cut short: expected a header of {header} bytes, found {len(content)} bytes")
    shape = tuple(int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        fault = "is cut short" if len(content) < expected else "has trailing bytes"
        raise ValueError(f"{path} {fault}: expected {expected} bytes by its header, found {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_cifar10(path: Any) -> tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"]]:
    """Return the images and labels of a file in CIFAR-10's binary layout.

    An example is one label byte and 1024 red, 1024 green and 1024 blue bytes; the features keep that order.

    Args:
        path: the file, gzipped when its name ends in .gz.

    Returns:
        Images, (n, 3072) uint8, and labels, (n,) uint8.

    Raises:
        ValueError: no example, a length that is no multiple of 3073 bytes, a label above 9, a broken gzip stream.

    Source: A. Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    path = Path(path)
    content = read_bytes(path)
    examples, rest = divmod(len(content), CIFAR_ROW)
    if examples == 0 or rest:
        whole = max(examples, 1) * CIFAR_ROW
        raise ValueError(
            f"{path} is cut short or has trailing bytes: expected {CIFAR_ROW} bytes for each example, such as {whole}, "
            f"found {len(content)}"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(examples, CIFAR_ROW)
    labels = rows[:, 0]
    check_labels(path, labels)
    return rows[:, 1:], labels
