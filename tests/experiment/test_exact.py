"""The tests that are marked "exact", in a process that compiles as users do."""

import subprocess
import sys
from pathlib import Path

import pytest
from compilation import of_users

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_programs_of_users_agree_to_rounding():
    """Starts that are drawn by different programs have the same bits, and so on."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "tests"],
        cwd=ROOT,
        env=of_users(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
