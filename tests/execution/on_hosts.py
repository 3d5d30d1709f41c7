"""Run one of two hosts that are disturbed; test_hosts.py starts this script and reads the JSON that it prints."""

import json
import os
import signal
import sys

import jax

import lazynet as lz
from lazynet import hosts


def sweep(out, steps=5, max_seconds=None, raises=False):
    def largest(network, variables, variables_0, data):
        if raises and os.path.exists(f"{out}/cells"):
            raise ValueError("the measure fails")
        return abs(variables["params"]["hidden"]).max()

    data = lz.load_dataset("digits", n_train=16, n_test=4)
    measure = lz.Measure(predictions=False, kernel_drift=False, own={"largest": largest})
    folder = lz.RunFolder(out, resume=True, max_seconds=max_seconds)
    lz.sweep(lz.TwoLayer(8), data, [8, 16], 2, steps, snapshots=2, measure=measure, out=folder, progress=False)


def disturb(is_second, out):
    """Run sweeps whose settings differ on the second host, and print the error that each one raises."""
    stages = {
        "arguments": {"steps": 0 if is_second else 5},
        "steps": {"steps": 6 if is_second else 5},
        "time": {"max_seconds": 1e-3 if is_second else None},
        "measure": {"raises": is_second},
        "after": {},
    }
    for stage, arguments in stages.items():
        try:
            sweep(f"{out}/{stage}", **arguments)
        except (OSError, ValueError) as error:
            print(json.dumps([stage, type(error).__name__, str(error)]), flush=True)
    return 2


def die(is_killed):
    """Die suddenly, or wait for a value from the host that died."""
    # Neither host works here, so each sends its beats in time.
    hosts.BEAT, hosts.SILENCE = 0.5, 3.0
    hosts.agreed(0)
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        hosts.of_all(0)
    except OSError as error:
        print(f"lazynet: {error}", file=sys.stderr)
    # The process exits with code 2 nevertheless, because the other host is lost.
    return 0


if __name__ == "__main__":
    address, host, out, killed = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, 2, host)
    hosts.SILENCE, hosts.GRACE = 8.0, 2.0
    sys.exit(disturb(host == 1, out) if killed == "none" else die(killed == str(host)))
