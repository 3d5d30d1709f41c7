"""A process that runs sweeps on devices of its own, alone or as one of several hosts; started by test_devices.py."""

import sys

import jax

if __name__ == "__main__":
    out, (devices, host, hosts, port), dtypes = sys.argv[1], map(int, sys.argv[2:6]), sys.argv[6:]
    jax.config.update("jax_num_cpu_devices", devices)
    if hosts > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", hosts, host)

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=6)


def sweeps(dtype):
    """Four members to share, three that no number of devices divides, and a network wide enough to split."""
    options = {"dtype": dtype, "learning_rate": 0.05, "progress": False}
    yield lz.sweep(lz.TwoLayer(width=8), DATA, [8, 16], 4, 40, **options)
    yield lz.sweep(lz.TwoLayer(width=8), DATA, [16], 3, 40, **options)
    yield lz.sweep(lz.TwoLayer(width=8), DATA, [16_384], 1, 20, **options)


if __name__ == "__main__":
    from lazynet.experiment import _devices as shared

    shared.NEURONS = 1024
    for dtype in dtypes:
        for i, result in enumerate(sweeps(dtype)):
            if result is not None:
                result.to_netcdf(f"{out}/{dtype}-{i}.nc", engine="h5netcdf")
