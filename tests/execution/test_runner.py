"""The runner, tested with a study whose cells are numbers."""

import numpy as np
import pytest
import xarray as xr

import lazynet as lz
from lazynet.execution import Output, Task
from lazynet.execution import run as run_study


class Squares:
    """A study of the squares of three numbers; `computed` lists the cells that were computed."""

    kind, dtype = "sweep", "float64"
    output = Output(lambda record, cells: xr.Dataset({"square": ("i", [cell["a"] for cell in cells])}), lambda _: {})

    def __init__(self):
        self.computed = []

    def request(self):
        return "{}"

    def begin(self, stored):
        return stored or {"numbers": [1, 2, 3]}

    def tasks(self, record):
        return [Task(f"{i:06}", str(i), 1, lambda *_, i=i: self.square(i)) for i in record["numbers"]]

    def square(self, i):
        self.computed.append(i)
        return {"a": np.asarray(i**2)}


def test_no_cell_is_computed_after_the_time_limit(tmp_path):
    late = Squares()
    with pytest.raises(TimeoutError, match=r"max_seconds = 1e-09\) has been reached"):
        run_study(late, lz.RunFolder(tmp_path / "run", max_seconds=1e-9), progress=False)
    assert late.computed == []
    resumed, stored = Squares(), Squares()
    result = run_study(resumed, lz.RunFolder(tmp_path / "run", resume=True), progress=False)
    assert resumed.computed == [1, 2, 3]
    # If all cells are stored, the study finishes under any time limit.
    folder = lz.RunFolder(tmp_path / "run", resume=True, max_seconds=1e-9)
    xr.testing.assert_identical(run_study(stored, folder, progress=False), result)
    assert stored.computed == []
    assert result.square.values.tolist() == [1, 4, 9]
