"""Tests that are marked "exact", in a process that compiles as users do; those on several devices run in .ci/run."""

import subprocess
import sys
from pathlib import Path

import pytest
from compilation import of_users

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_programs_of_users_agree_to_rounding():
    """Files without the word have no such test; collecting all of them would take longer than the tests."""
    files = [path for path in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.exact" in path.read_text()]
    files = [path for path in files if path.name not in (Path(__file__).name, "test_devices.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", *files],
        cwd=ROOT,
        env=of_users(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
