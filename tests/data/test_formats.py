import gzip
import re
import tracemalloc

import numpy as np
import pytest
from data_files import cifar_bytes, idx_bytes, tiny_images, write

from lazynet.data._formats import read_bytes, read_cifar10, read_idx

IMAGES = tiny_images(6, (4, 3), seed=0)
IDX = idx_bytes(IMAGES)  # a header of 16 bytes, and 72 bytes of pixels
COLORS, LABELS = tiny_images(3, (3072,), seed=1), np.array([9, 0, 3], np.uint8)
CIFAR = cifar_bytes(COLORS, LABELS)


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_idx_round_trip(tmp_path, name):
    array = read_idx(write(tmp_path / name, IDX), 3)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IMAGES)


@pytest.mark.parametrize("name", ["batch.bin", "batch.bin.gz"])
def test_cifar_round_trip_keeps_the_order_of_the_pixels(tmp_path, name):
    images, labels = read_cifar10(str(write(tmp_path / name, CIFAR)))
    np.testing.assert_array_equal(images, COLORS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (IDX[:-1], "is 87 bytes long, but its header implies 88 bytes."),
        (IDX[:16], "is 16 bytes long"),
        (IDX[:9], "is 9 bytes long, but its header alone takes 16 bytes."),
        (IDX + b"\0", "is more than 88 bytes long"),
        (idx_bytes(IMAGES[0]), "starts with 00000802, but should start with the magic number 00000803."),
        (bytes([0, 0, 9, 3]) + IDX[4:], "starts with 00000903"),
        (b"<html>", "starts with 3c68746d"),
        (b"", "is empty"),
    ],
    ids=["one byte short", "no content", "half a header", "one byte more", "dimensions", "type", "page", "empty"],
)
def test_a_bad_idx_file_is_refused_by_name(tmp_path, content, message, suffix):
    path = write(tmp_path / f"images{suffix}", content)
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")):
        read_idx(path, 3)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CIFAR[:-1], "is 9218 bytes long, but its length should be a positive multiple of 3073 bytes."),
        (CIFAR + b"\0", "is 9220 bytes long"),
        (CIFAR[:100], "is 100 bytes long"),
        (b"", "is 0 bytes long"),
        (cifar_bytes(COLORS, [1, 2, 10]), "has the label 10 at index 2"),
    ],
    ids=["one byte short", "one byte more", "part of an example", "empty", "label"],
)
def test_a_bad_cifar_file_is_refused_by_name(tmp_path, content, message, suffix):
    path = write(tmp_path / f"batch.bin{suffix}", content)
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")):
        read_cifar10(path)


def flipped(stream, position):
    return stream[:position] + bytes([stream[position] ^ 0xFF]) + stream[position + 1 :]


@pytest.mark.parametrize(
    ("read", "content"), [(lambda path: read_idx(path, 3), IDX), (read_cifar10, CIFAR)], ids=["idx", "cifar"]
)
@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream[:-4],
        lambda stream: stream[:5],
        lambda stream: flipped(stream, 0),
        lambda stream: flipped(stream, len(stream) // 2),
        lambda stream: flipped(stream, -6 + len(stream)),
        lambda stream: stream + b"more",
        lambda stream: stream[:10] + b"\x07" + stream[11:],
    ],
    ids=["half", "no length", "header only", "magic", "inside", "checksum", "trailing", "block type"],
)
def test_a_broken_gzip_stream_is_refused_by_name(tmp_path, read, content, damage):
    path = tmp_path / "file.gz"
    path.write_bytes(damage(gzip.compress(content)))
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a complete gzip stream")):
        read(path)


def test_a_small_file_that_holds_much_more_is_read_no_further_than_its_size(tmp_path):
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(IDX)
        for _ in range(64):
            stream.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is more than 88 bytes long, but its header implies 88 bytes\."):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
    assert len(read_bytes(path, 1000)) == 1001
    with pytest.raises(ValueError, match="its length should be a positive multiple of 3073 bytes"):
        read_cifar10(path)
