"""Data sets are downloaded from a local server."""

import functools
import gc
import gzip
import hashlib
import os
import re
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from data_files import IDX_NAMES, Tiny, write

from lazynet.data import _files as files
from lazynet.data import fetch_dataset, load_dataset
from lazynet.data._fetch import _fetch_file


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(bare_machine):
    """Serve a folder over HTTP, and return the folder and its address."""
    folder = bare_machine / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published(server, tiny, monkeypatch):
    """Serve the small data set, gzipped, and register its checksums."""
    folder, address = server
    tiny.save(folder, ".gz")
    checksums = tuple(hashlib.sha256(content).hexdigest() for content in tiny.contents.values())
    monkeypatch.setitem(files.CHECKSUMS, "mnist", checksums)
    return folder, address


@pytest.mark.parametrize("slash", ["", "/"])
def test_files_are_fetched_decompressed_and_found(published, bare_machine, tiny, slash):
    cache = bare_machine / "cache" / "lazynet"
    assert fetch_dataset("mnist", base_url=published[1] + slash) == cache / "mnist"
    assert {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()} == tiny.contents
    assert load_dataset("mnist").n_train == 8


def test_loading_fetches_missing_files(published, bare_machine, monkeypatch):
    monkeypatch.setattr("lazynet.data._fetch.ADDRESSES", {"mnist": published[1] + "/"})
    data = load_dataset("mnist", (4, 6))
    assert data.n_test == 4
    assert (bare_machine / "cache/lazynet/mnist").is_dir()
    with pytest.raises(FileNotFoundError, match="mnist was not found"):
        load_dataset("mnist", root=bare_machine / "other")


def test_correct_files_are_kept_and_damaged_files_replaced(published, tmp_path, tiny):
    folder, address = published
    here = fetch_dataset("mnist", tmp_path / "here", address)
    for name in IDX_NAMES[:3]:
        (folder / f"{name}.gz").unlink()
    (here / IDX_NAMES[3]).write_bytes(b"wrong")
    before = (here / IDX_NAMES[0]).stat().st_mtime_ns
    fetch_dataset("mnist", tmp_path / "here", address)
    assert (here / IDX_NAMES[0]).stat().st_mtime_ns == before
    assert (here / IDX_NAMES[3]).read_bytes() == tiny.contents[IDX_NAMES[3]]


@pytest.mark.parametrize(
    "sent", [gzip.compress(b"other"), gzip.compress(b"other")[:-3], b"no gzip"], ids=["checksum", "cut short", "plain"]
)
def test_a_damaged_download_is_discarded(published, tmp_path, sent):
    folder, address = published
    (folder / f"{IDX_NAMES[0]}.gz").write_bytes(sent)
    with pytest.raises(
        ValueError, match=f"^The download of {IDX_NAMES[0]} from {address}/{IDX_NAMES[0]}.gz was discarded"
    ):
        fetch_dataset("mnist", tmp_path / "here", address)
    assert list((tmp_path / "here" / "mnist").iterdir()) == []


def test_a_damaged_download_replaces_no_cached_file(published, tmp_path, tiny):
    folder, address = published
    here = tmp_path / "here" / "mnist"
    tiny.save(here)
    (here / IDX_NAMES[1]).write_bytes(b"an older file")
    write(folder / f"{IDX_NAMES[1]}.gz", b"other")
    with pytest.raises(ValueError, match="SHA-256"):
        fetch_dataset("mnist", tmp_path / "here", address)
    assert {path.name for path in here.iterdir()} == set(IDX_NAMES)
    assert (here / IDX_NAMES[1]).read_bytes() == b"an older file"


def test_real_checksums_refuse_other_files(server, tmp_path):
    Tiny().save(server[0], ".gz")
    for name in ("mnist", "fashion-mnist"):
        with pytest.raises(ValueError, match="SHA-256"):
            fetch_dataset(name, tmp_path, server[1])


def test_a_network_failure_names_the_folder_for_the_files(server, tmp_path):
    folder = tmp_path / "mnist"
    missing = f"mnist could not be downloaded from {server[1]}/ to {folder} (HTTPError). Place the files train-images"
    with pytest.raises(FileNotFoundError, match=re.escape(missing)):
        fetch_dataset("mnist", tmp_path, server[1])
    assert list((tmp_path / "mnist").iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"\(ConnectionError\)"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize("name", ["digits", "cifar10", "svhn"])
def test_other_sets_are_never_fetched(name, tmp_path):
    with pytest.raises(ValueError, match="name must be 'mnist' or 'fashion-mnist', got"):
        fetch_dataset(name, tmp_path)


def test_checksums_match_the_real_files():
    if "LAZYNET_DATA" not in os.environ:
        pytest.skip("needs real data: LAZYNET_DATA is not set")
    for name, checksums in files.CHECKSUMS.items():
        paths = files.find_files(name, Path(os.environ["LAZYNET_DATA"]))
        assert paths is not None
        digests = [hashlib.sha256(files.read_bytes(path)).hexdigest() for path in paths.train + paths.test]
        np.testing.assert_array_equal(digests, checksums)


class Endless(Handler):
    """A handler that sends bytes forever, either as fast as it can or one every tenth of a second."""

    sent, over = 0, False

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        try:
            while not self.over:
                if self.path == "/slow":
                    time.sleep(0.1)
                self.wfile.write(b"0" * (1 if self.path == "/slow" else 2**16))
                type(self).sent += 2**16
        except OSError:
            pass


# pooch does not close the connection of a failed download; the garbage collector does so with a warning.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", ["fast", "slow"])
def test_a_download_that_does_not_end_is_given_up(path, tmp_path):
    """A fast download ends after the known number of bytes, and a slow one after a time limit."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        target, address = tmp_path / "file", f"http://127.0.0.1:{server.server_port}/{path}"
        Endless.sent, Endless.over = 0, False
        with pytest.raises(OSError, match={"fast": "larger than expected", "slow": "more than 0.5 seconds"}[path]):
            _fetch_file(address, target, "", 1000, seconds=0.5 if path == "slow" else 60.0)
        assert Endless.sent < 2**24
        assert list(tmp_path.iterdir()) == []
    finally:
        Endless.over = True
        server.shutdown()
        server.server_close()
        for thread in threading.enumerate():
            if thread.name.startswith("lazynet download"):
                thread.join(10)
        gc.collect()
