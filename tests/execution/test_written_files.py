"""If a file cannot be written, the old file stays, no draft is left, and the error names the file."""

import os
import resource

import pytest

from lazynet.execution._files import write_file


@pytest.fixture
def little_space():
    """Limit the size of files to 100 bytes, so that longer writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path, little_space):
    file = tmp_path / "settings.json"
    write_file(file, b"before")
    with pytest.raises(OSError, match=r"settings\.json"):
        write_file(file, bytes(1000))
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_user_allows(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_file(tmp_path / "file", b"content")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
