"""Run sweeps on the devices of this process, alone or as one of several hosts; test_devices.py starts this script."""

import sys

import jax

if __name__ == "__main__":
    out, (devices, host, hosts, port), dtype = sys.argv[1], map(int, sys.argv[2:6]), sys.argv[6]
    jax.config.update("jax_num_cpu_devices", devices)
    if hosts > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", hosts, host)

import lazynet as lz
from lazynet import cli

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


# Width and number of members: four members to share, three that cannot be shared evenly, and one network to split.
SWEEPS = {"shared": (16, 4), "padded": (16, 3), "split": (8192, 1)}
IN_PROCESSES = ("padded", "split")


def sweep(name, dtype):
    (width, seeds), options = SWEEPS[name], {"dtype": dtype, "learning_rate": 0.05, "progress": False}
    if dtype == "float32":
        options["measure"] = lz.Measure(predictions=False, kernel_drift=False)
    return lz.sweep(lz.TwoLayer(width=8), DATA, [width], seeds, 20, **options)


if __name__ == "__main__":
    from lazynet.experiment import _devices as shared

    shared.NEURONS = 1024
    for name in IN_PROCESSES:
        result = sweep(name, dtype)
        if result is not None:
            result.to_netcdf(f"{out}/{name}.nc", engine="h5netcdf")
    if hosts > 1:
        # The folder already contains files, so the first host refuses it, and then every host must end.
        sys.exit(cli.main(["sweep", "--n-train", "16", "--widths", "8", "--steps", "5", "--out", out]))
