"""Fixtures: a small data set in MNIST's format, and an environment without any data set."""

import pytest
from data_files import Tiny

from lazynet.data import _files as files


@pytest.fixture
def tiny():
    return Tiny()


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """Remove every source of data: LAZYNET_DATA, Debian's packages, the cache and the network."""
    monkeypatch.delenv("LAZYNET_DATA", raising=False)
    monkeypatch.setattr(files, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    unreachable = {name: f"http://127.0.0.1:9/{name}/" for name in ("mnist", "fashion-mnist")}
    monkeypatch.setattr("lazynet.data._fetch.ADDRESSES", unreachable)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path
