"""Small files in place of the real data sets, and a machine on which none is installed."""

import pytest
from data_files import Tiny

from lazynet.data import _files as files


@pytest.fixture
def tiny():
    return Tiny()


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """No LAZYNET_DATA, no Debian package, an empty cache, and no way out to the network."""
    monkeypatch.delenv("LAZYNET_DATA", raising=False)
    monkeypatch.setattr(files, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    refused = {name: f"http://127.0.0.1:9/{name}/" for name in ("mnist", "fashion-mnist")}
    monkeypatch.setattr("lazynet.data._fetch.ADDRESSES", refused)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path
