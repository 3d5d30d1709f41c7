"""Readers for the binary IDX and CIFAR-10 formats. They check the length of every file and never unpickle data."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

CIFAR_ROW = 1 + 3 * 32 * 32


# Maximum number of bytes in a file. The largest expected file, train.bin with 50,000 CIFAR-10 images, takes 154 MB.
MOST_BYTES = 2**28


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the contents of a file, decompressed if its name ends in .gz.

    Args:
        path: Path of the file.
        most: Expected maximum length of the contents in bytes. Longer contents are cut off after `most` + 1 bytes,
            so that callers can detect files that are too large.

    Raises:
        ValueError: If the gzip stream is damaged.
    """
    # The number of bytes is limited because a small compressed file can expand to gigabytes.
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            return bytes(stream.read(most + 1))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip stream ({error}). Download the file again.") from error


def check_labels(path: Path, labels: np.ndarray) -> None:
    """Check the labels that were read from a file.

    Raises:
        ValueError: If a label is above 9.
    """
    if (labels > 9).any():
        row = int(np.argmax(labels > 9))
        raise ValueError(f"{path} has the label {labels[row]} at index {row}, but labels range from 0 to 9.")


def read_idx(path: str | os.PathLike[str], ndim: int) -> UInt8[np.ndarray, "..."]:
    """Read an IDX file of unsigned bytes, the format used by MNIST.

    The header consists of two zero bytes, the type code 8, the number of dimensions, and the size of each dimension as
    a big-endian 32-bit integer. The data follow in row-major order.

    Args:
        path: File to read, gzipped if its name ends in .gz.
        ndim: Expected number of dimensions.

    Returns:
        A uint8 array with `ndim` dimensions.

    Raises:
        ValueError: If the magic number is wrong, the file is truncated or has trailing bytes, or the gzip stream is
            damaged.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    path = Path(path)
    header = 4 + 4 * ndim
    content = read_bytes(path, header)
    magic = bytes([0, 0, 8, ndim])
    if content[:4] != magic:
        beginning = f"starts with {content[:4].hex()}" if content else "is empty"
        raise ValueError(
            f"{path} {beginning}, but should start with the magic number {magic.hex()}. Download the file again."
        )
    if len(content) < header:
        raise ValueError(
            f"{path} is {len(content)} bytes long, but its header alone takes {header} bytes. Download the file again."
        )
    shape = tuple(int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4))
    expected = header + math.prod(shape)
    content = read_bytes(path, min(expected, MOST_BYTES))
    if len(content) != expected:
        size = f"more than {len(content) - 1}" if len(content) > min(expected, MOST_BYTES) else len(content)
        raise ValueError(
            f"{path} is {size} bytes long, but its header implies {expected} bytes. Download the file again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_cifar10(path: str | os.PathLike[str]) -> tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"]]:
    """Read a file in the binary format of CIFAR-10.

    Each example consists of a label byte followed by 1024 red, 1024 green and 1024 blue bytes. The features keep this
    order.

    Args:
        path: File to read, gzipped if its name ends in .gz.

    Returns:
        Images of shape (n, 3072) and labels of shape (n,), both uint8.

    Raises:
        ValueError: If the file is empty or too large, its length is not a multiple of 3073 bytes, a label is above 9,
            or the gzip stream is damaged.

    Source: A. Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    path = Path(path)
    content = read_bytes(path)
    examples, rest = divmod(len(content), CIFAR_ROW)
    if examples == 0 or rest or len(content) > MOST_BYTES:
        size = f"more than {MOST_BYTES}" if len(content) > MOST_BYTES else len(content)
        raise ValueError(
            f"{path} is {size} bytes long, but its length should be a positive multiple of {CIFAR_ROW} bytes. "
            "Download the file again."
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(examples, CIFAR_ROW)
    labels = rows[:, 0]
    check_labels(path, labels)
    return rows[:, 1:], labels
