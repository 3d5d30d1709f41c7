"""Kill several studies and a reproduction at random moments, resume them, and compare the results bit for bit.

    python scripts/kill_and_resume.py [--kills 5] [--seed 0] [map line modes limit reproduce ...]

Each study runs once without interruption, and once with SIGKILL sent at random moments. A run that finishes before the
signal does not count as killed. A line ensemble also runs in two shards. The script exits with code 1 if any result
differs.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

STUDIES = {
    "map": """
import lazynet as lz
data = lz.load_dataset("digits", classes=(1, 8), n_train=32, n_test=32)
network = lz.TwoLayer(width=64, train="both")
folder = lz.RunFolder(OUT, resume=True)
lz.laziness_map(network, data, [64, 128, 256], [0.1, 0.3, 1.0, 3.0, 10.0], seeds=4, out=folder, progress=False)
""",
    "line": """
import lazynet as lz
data = lz.load_dataset("digits", n_train=64, n_test=0)
network = lz.MLP(width=64, depth=3, activation="tanh", init_scale=1.5**0.5)
shard = SHARD
folder = lz.RunFolder(OUT, resume=True, shard=shard)
ends = data.x_train[:2]
lz.line_ensemble(network, data, ends, [64, 128, 256], seeds=12, steps=200, out=folder, progress=False)
""",
    "modes": """
import lazynet as lz
data = lz.load_dataset("digits", n_train=64, n_test=0)
folder = lz.RunFolder(OUT, resume=True)
lz.mode_residuals(lz.TwoLayer(width=2), data, [64, 256, 1024], seeds=8, steps=2000, out=folder, progress=False)
""",
    "limit": """
import lazynet as lz
data = lz.load_dataset("digits", classes=(4, 9), n_train=280, n_test=60)
lz.infinite_width(lz.TwoLayer(width=2), data, steps=10_000, out=lz.RunFolder(OUT, resume=True), progress=False)
""",
    "reproduce": """
import sys
from lazynet.cli import main
sys.exit(main(["reproduce", "arora2019", "--size", "tiny", "--out", OUT, "--resume", "--json"]))
""",
}

# JSON files that contain results.
REPORTS = ("verdict.json", "summary.json")


def main() -> int:
    """Run the studies named on the command line, and return 1 if any result differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="studies to run, by default all")
    parser.add_argument("--kills", type=int, default=5, help="number of kills per study (5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times of the kills (0)")
    arguments = parser.parse_args()
    moments, failed = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.studies or STUDIES:
            failed += check(name, Path(folder), arguments.kills, moments)
    return 1 if failed else 0


def check(name: str, folder: Path, kills: int, moments: random.Random) -> int:
    """Run one study with and without kills, and return the number of results that differ."""
    whole, killed = folder / f"{name}-whole", folder / f"{name}-killed"
    begin = time.monotonic()
    finish(start(name, whole))
    seconds = time.monotonic() - begin
    failed, done, early, longest = 0, 0, 0, 0.8 * seconds
    while done < kills:
        # The process may be killed while it is still importing packages.
        if kill_after(moments.uniform(longest / 8, longest), start(name, killed)):
            done += 1
            print(f"{name}: kill {done} of {kills}, {len(list(killed.rglob('*.npz')))} cells are stored", flush=True)
        else:
            # Most cells were already stored, or the uninterrupted run was slow because the machine was busy.
            early, longest = early + 1, 0.7 * longest
            failed += report(f"{name}, finished before the signal", whole, killed)
            # Let the study begin again in a new folder.
            shutil.rmtree(killed)
    finish(start(name, killed))
    print(f"{name}: {done} runs were killed, and {early} finished before the signal", flush=True)
    failed += report(f"{name}, killed {done} times (the uninterrupted run took {seconds:.0f} s)", whole, killed)
    if name == "line":
        parts = folder / "line-shards"
        for k in (1, 2):
            finish(start(name, parts, (k, 2)))
        finish(python(f"import lazynet as lz; lz.merge_shards({str(parts)!r})"))
        failed += report("line, in two shards", whole, parts)
    return failed


def start(name: str, out: Path, shard: tuple[int, int] | None = None) -> subprocess.Popen[bytes]:
    """Start a study in a separate process."""
    return python(f"OUT, SHARD = {str(out)!r}, {shard}\n{STUDIES[name]}")


def python(code: str) -> subprocess.Popen[bytes]:
    """Start a new process that runs Python code."""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)


def kill_after(seconds: float, process: subprocess.Popen[bytes]) -> bool:
    """Send SIGKILL to a process after some seconds, and return False if the process finished before the signal."""
    try:
        finish(process, seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        # The process may finish between the timeout and the signal.
        return process.wait() == -signal.SIGKILL
    return False


def finish(process: subprocess.Popen[bytes], seconds: float | None = None) -> None:
    """Wait for a process, by default without a time limit, and exit if the process fails."""
    if process.wait(seconds):
        raise SystemExit(f"A process failed with exit code {process.returncode}.")


def report(text: str, whole: Path, other: Path) -> int:
    """Print whether all results in two folders are equal, and return 1 if they differ."""
    names = {str(file.relative_to(folder)) for folder in (whole, other) for file in results(folder)}
    differing = sorted(name for name in names if not equal(whole / name, other / name))
    outcome = f"differ: {', '.join(differing)}" if differing or not names else "are equal bit for bit"
    print(f"{text}: {len(names)} results {outcome}", flush=True)
    return 1 if differing or not names else 0


def results(folder: Path) -> list[Path]:
    """Return all files that contain results, including those of single cells."""
    return [file for file in folder.rglob("*") if file.suffix in (".nc", ".npz") or file.name in REPORTS]


def equal(a: Path, b: Path) -> bool:
    """Return whether two files contain the same values, bit for bit."""
    if not (a.exists() and b.exists()):
        return False
    return contents(a) == contents(b) if a.name in REPORTS else arrays(a) == arrays(b)


def contents(file: Path) -> dict[str, Any]:
    """Return the contents of a verdict or summary, without the duration of the run."""
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "seconds"}


def arrays(file: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the data type, shape and bytes of every array in a file."""
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as content:
            values = {name: content[name] for name in content.files}
    else:
        with xr.open_dataset(file, engine="h5netcdf") as content:
            values = {str(name): np.asarray(variable.values) for name, variable in content.variables.items()}
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in values.items()}


if __name__ == "__main__":
    sys.exit(main())
