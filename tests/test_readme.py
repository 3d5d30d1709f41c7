"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_table_of_functions_names_what_there_is():
    import lazynet as lz

    named = set(re.findall(r"`lz\.(\w+)", README.read_text()))
    assert named <= set(lz.__all__)
