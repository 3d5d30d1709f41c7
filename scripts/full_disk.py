"""Run every command on a disk that fills up, in a separate mount namespace, and continue once there is space.

Each command must finish if its files fit on the disk. Otherwise, it must print one sentence and exit with code 2; it
must not print a traceback or be killed by a signal. After the disk has grown, the same command must finish, with
--resume if the first run left a folder. The script requires permission to mount a tmpfs, which root has. It exits with
code 1 if anything else happens.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = ("8k", "200k", "2m")
DATA = ("--n-train", "16", "--n-test", "4")
SWEEP = ("sweep", *DATA, "--widths", "8", "16", "--seeds", "2", "--steps", "3")
COMMANDS: dict[str, tuple[str, ...]] = {
    "sweep": SWEEP,
    "infinite-width": ("infinite-width", *DATA, "--steps", "10", "--snapshots", "3"),
    "merge": (*SWEEP, "--shard", "1/1"),
    "reproduce": ("reproduce", "li2018", "--size", "tiny"),
    "map": ("map",),
    "ensemble": ("ensemble",),
}
# Script that runs a study that has no command.
STUDY = """
import sys, warnings
import lazynet as lz
data = lz.load_dataset("digits", n_train=16, n_test=4)
out = lz.RunFolder(sys.argv[2], resume="--resume" in sys.argv)
try:
    if sys.argv[1] == "map":
        lz.laziness_map(lz.TwoLayer(2, train="both"), data, [8, 16], [0.3, 30.0], seeds=1, steps=200, out=out)
    else:
        lz.line_ensemble(lz.TwoLayer(8, symmetric=False), data, data.x_train[:2], [8], seeds=4, steps=5, out=out)
except (OSError, ValueError) as error:
    print(f"lazynet: {error}", file=sys.stderr)
    sys.exit(2)
"""


def call(command: str, out: Path, *flags: str) -> subprocess.CompletedProcess:
    """Run a command or a study that writes to the folder `out`."""
    if command in ("map", "ensemble"):
        arguments = [sys.executable, "-c", STUDY, command, str(out), *flags]
    else:
        arguments = [sys.executable, "-m", "lazynet", *COMMANDS[command], "--out", str(out), *flags]
    return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def judged(name: str, done: subprocess.CompletedProcess) -> bool:
    """Print the outcome, and return whether the command finished, or printed one sentence and exited with code 2."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("lazynet: ")]
    good = done.returncode == 0 or (done.returncode == 2 and len(said) == 1 and "Traceback" not in done.stderr)
    print(f"{name:26} exit {done.returncode:4}  {(said or lines or ['finished'])[-1][:130]}", flush=True)
    if not good:
        print(done.stderr[-2000:])
    return good


def on_a_full_disk(command: str, size: str) -> bool:
    """Run a command on a small disk, then on a larger one, and return whether both runs ended as they should."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
        try:
            out = Path(folder) / "run"
            good = judged(f"{command}, {size}", done := call(command, out))
            if command == "merge" and done.returncode == 0:
                merged = subprocess.run(
                    [sys.executable, "-m", "lazynet", "merge", str(out)], capture_output=True, text=True
                )
                good &= judged(f"{command}, {size}, merged", merged)
            subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
            # Without a folder, there is nothing to resume. Shards resume without the flag.
            flags = ["--resume"] if out.exists() and command != "merge" else []
            again = call(command, out, *flags)
            good &= judged(f"{command}, {size}, again", again) and again.returncode == 0
            if command == "merge":
                merged = subprocess.run(
                    [sys.executable, "-m", "lazynet", "merge", str(out)], capture_output=True, text=True
                )
                good &= judged(f"{command}, {size}, merged again", merged) and merged.returncode == 0
        finally:
            subprocess.run(["umount", folder], check=True)
    return good


def main() -> int:
    """Run the script, and return 1 if any command ended in an unexpected way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        return subprocess.run(["unshare", "--mount", sys.executable, *sys.argv, "--inside"]).returncode
    found = [on_a_full_disk(command, size) for command in arguments.commands for size in arguments.sizes]
    return int(not all(found))


if __name__ == "__main__":
    raise SystemExit(main())
