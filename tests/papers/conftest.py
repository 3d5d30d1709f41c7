"""A fixture that runs the reproduction of a paper at the smallest size, once for all tests of that paper."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import xarray as xr

from lazynet import cli
from lazynet.papers.work import Work


class Reproduced(NamedTuple):
    """A reproduction run from the command line: its folder, its printed output and its parts."""

    out: Path
    text: str
    work: Work

    def part(self, name):
        return xr.load_dataset(self.out / "parts" / name / "result.nc", engine="h5netcdf")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> Callable[[str], Reproduced]:
    """Return a function that runs the reproduction of a paper, or returns the one that was already run."""

    @cache
    def reproduction(paper):
        out = tmp_path_factory.mktemp(paper) / "run"
        with redirect_stdout(io.StringIO()) as text:
            assert cli.main(["reproduce", paper, "--size", "tiny", "--check", "--out", str(out)]) == 0
        return Reproduced(out, text.getvalue(), Work(paper, "tiny", out))

    return reproduction
