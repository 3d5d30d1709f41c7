"""Run a sweep on two hosts, disturb it in various ways, and resume it.

Two processes with two CPU devices each act as the hosts. In a disturbed sweep, each process that is not killed must end
within 90 seconds, print one sentence and exit with code 2, or with code 3 if a time limit is reached. The resumed sweep
must equal an undisturbed sweep bit for bit. Filling a disk requires permission to mount a tmpfs, which root has. The
script exits with code 1 if anything else happens.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

# Maximum duration of a disturbed sweep and of an undisturbed sweep, in seconds.
SECONDS, PATIENCE = 90, 600


class Situation(NamedTuple):
    """A disturbance of a sweep, and how the processes must end.

    Attributes:
        hosts: Arguments of `run_host` for each host that the undisturbed sweep does not have.
        codes: Expected exit code of each host.
        killed: The host that is killed after the first cell is stored, or None.
        size: Size of the disk that stores the sweep, such as "20k", or None for a disk with enough space.
    """

    hosts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    codes: tuple[int, int] = (2, 2)
    killed: int | None = None
    size: str | None = None


UNDISTURBED = Situation(codes=(0, 0))
SITUATIONS = {
    "disk full on the first": Situation(size="20k"),
    "disk too small to begin": Situation(size="8k"),
    "a measure raises on the second": Situation(({}, {"raises": True})),
    "a measure raises on the first": Situation(({"raises": True}, {})),
    "other steps": Situation(({}, {"steps": 999})),
    "invalid steps on the second": Situation(({}, {"steps": 0})),
    "time limit on the first": Situation(({"max_seconds": 0.5}, {}), (3, 3)),
    "time limit on the second": Situation(({}, {"max_seconds": 0.5}), (3, 3)),
    "second killed": Situation(codes=(2, -signal.SIGKILL), killed=1),
    "first killed": Situation(codes=(-signal.SIGKILL, 2), killed=0),
}


def run_host(
    address: str, host: int, out: str, steps: int = 500, raises: bool = False, max_seconds: float | None = None
) -> int:
    """Run one of the two hosts and return its exit code."""
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, 2, host)

    import jax.numpy as jnp

    import lazynet as lz

    def largest(network: Any, variables: Any, variables_0: Any, data: Any) -> Any:
        if raises and list(Path(out).glob("cells/*.npz")):
            raise ValueError("the measure fails")
        return jnp.abs(variables["params"]["hidden"]).max()

    data = lz.load_dataset("digits", n_train=16, n_test=4)
    measure = lz.Measure(predictions=False, own={"largest": largest})
    try:
        folder = lz.RunFolder(out, resume=True, max_seconds=max_seconds)
        lz.sweep(lz.TwoLayer(8), data, [8, 16], 4, steps, measure=measure, out=folder, progress=False)
    except TimeoutError as error:
        print(f"lazynet: {error}", file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        print(f"lazynet: {error}", file=sys.stderr)
        return 2
    return 0


class End(NamedTuple):
    """How the processes ended: exit codes, printed text, and seconds since they were started or one was killed."""

    codes: tuple[int | None, ...]
    printed: tuple[str, ...]
    seconds: float


def run_hosts(out: Path, situation: Situation = UNDISTURBED) -> End:
    """Run both hosts, and kill one if the situation requires it; a process that hangs has the exit code None."""
    limit = PATIENCE if situation == UNDISTURBED else SECONDS
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(host) for host in (0, 1)]
        processes = []
        for host, (log, more) in enumerate(zip(logs, situation.hosts, strict=True)):
            words = [sys.executable, __file__, "--host", json.dumps([address, host, str(out)]), json.dumps(more)]
            with log.open("w") as file:
                processes.append(subprocess.Popen(words, stdout=file, stderr=file, env=environment))
        begin = time.monotonic()
        if situation.killed is not None:
            while not list(out.glob("cells/*.npz")) and time.monotonic() < begin + PATIENCE:
                time.sleep(0.05)
            processes[situation.killed].kill()
            begin = time.monotonic()
        codes: list[int | None] = []
        for process in processes:
            try:
                codes.append(process.wait(max(0.0, begin + limit - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(None)
        return End(tuple(codes), tuple(log.read_text() for log in logs), time.monotonic() - begin)


def sentence(printed: str) -> str:
    """Return the last message from lazynet that a process printed, or an empty string."""
    sentences = [line for line in printed.splitlines() if line.startswith("lazynet: ")]
    return sentences[-1] if sentences else ""


def equal(one: Path, other: Path) -> bool:
    """Return whether the results of two sweeps are equal bit for bit."""
    import xarray

    with (
        xarray.open_dataset(one / "result.nc", engine="h5netcdf") as a,
        xarray.open_dataset(other / "result.nc", engine="h5netcdf") as b,
    ):
        return set(a) == set(b) and all(a[name].values.tobytes() == b[name].values.tobytes() for name in a)


def holds(name: str, undisturbed: Path, folder: Path) -> bool:
    """Disturb a sweep, resume it, print how both runs ended, and return whether both ended correctly."""
    situation, out = SITUATIONS[name], folder / "run"
    if situation.size is not None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={situation.size}", "none", folder], check=True)
    try:
        disturbed = run_hosts(out, situation)
        right = disturbed.codes == situation.codes
        for code, printed in zip(disturbed.codes, disturbed.printed, strict=True):
            right &= code == -signal.SIGKILL or (bool(sentence(printed)) and "Traceback" not in printed)
        if situation.size is not None:
            subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
        stored = len(list(out.glob("cells/*.npz")))
        resumed = run_hosts(out)
        same = resumed.codes == (0, 0) and equal(undisturbed, out)
    finally:
        if situation.size is not None:
            subprocess.run(["umount", folder], check=True)
    print(
        f"{name:31} {disturbed.seconds:5.1f} s  exit codes {disturbed.codes}, {stored} cells stored; "
        f"resumed: exit codes {resumed.codes}, {'same' if same else 'DIFFERENT'} bits",
        flush=True,
    )
    for host, printed in enumerate(disturbed.printed):
        print(f"    host {host}: {sentence(printed)}", flush=True)
    if not (right and same):
        print(*disturbed.printed, *resumed.printed, sep="\n")
    return right and same


def main() -> int:
    """Run the script, and return 1 if any situation ended in an unexpected way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--situations", nargs="+", choices=list(SITUATIONS), default=list(SITUATIONS))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.host:
        return run_host(*json.loads(arguments.host[0]), **json.loads(arguments.host[1]))
    if not arguments.inside and any(SITUATIONS[name].size for name in arguments.situations):
        return subprocess.run(["unshare", "--mount", sys.executable, *sys.argv, "--inside"]).returncode
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        end = run_hosts(undisturbed)
        print(f"{'undisturbed':31} {end.seconds:5.1f} s  exit codes {end.codes}", flush=True)
        if end.codes != (0, 0):
            print(*end.printed, sep="\n")
            return 1
        right = []
        for number, name in enumerate(arguments.situations):
            place = Path(folder) / str(number)
            place.mkdir()
            right.append(holds(name, undisturbed, place))
    return int(not all(right))


if __name__ == "__main__":
    raise SystemExit(main())
