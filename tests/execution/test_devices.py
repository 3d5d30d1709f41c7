"""Sweeps whose members or neurons are shared among devices and hosts, compared with sweeps on one device."""

import os
import re
import runpy
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from on_devices import IN_PROCESSES, sweep
from stored import DATA, MEASURE
from unchecked import unchecked

import lazynet as lz
from lazynet.experiment import _devices as devices
from lazynet.experiment import _members as members
from lazynet.experiment import make_training, share_inputs
from lazynet.training import HiddenStepper, Units
from lazynet.training._keys import member_key
from lazynet.training._units import BLOCK

SCRIPT = Path(__file__).with_name("on_devices.py")


@cache
def on_one_device(name, dtype):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "mesh_for", lambda members, width: None)
        return sweep(name, dtype)


def run(out, devices_each, hosts, dtype):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (out, devices_each, host, hosts, port, dtype))],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in range(hosts)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == (0 if hosts == 1 else 2), said
        assert (f"out must be a new folder, got '{out}'" in said) == (hosts > 1)
    return {name: xr.load_dataset(out / f"{name}.nc", engine="h5netcdf") for name in IN_PROCESSES}


@pytest.mark.parametrize(
    "name",
    [
        "shared",
        pytest.param("padded", marks=pytest.mark.slow),
        pytest.param("split", marks=[pytest.mark.slow, pytest.mark.exact]),
    ],
)
def test_sweeps_on_two_devices_agree_with_one(name):
    assert_agree(on_one_device(name, "float64"), sweep(name, "float64"), "float64")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices_each", "hosts", "dtype"),
    [
        pytest.param(8, 1, "float32", id="eight devices", marks=pytest.mark.whole),
        pytest.param(4, 2, "float64", id="two hosts of four", marks=pytest.mark.exact),
    ],
)
def test_sweeps_on_many_devices_agree_with_one(devices_each, hosts, dtype, tmp_path):
    for name, many in run(tmp_path, devices_each, hosts, dtype).items():
        assert_agree(on_one_device(name, dtype), many, dtype)


WIDTH_SWEEP = SCRIPT.parents[2] / "scripts" / "width_sweep.py"


@pytest.mark.whole
def test_the_script_for_several_hosts(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ["--n-train", "16", "--n-test", "6", "--widths", "8", "--seeds", "4", "--steps", "12", "--no-predictions"]
    flags += ["--out", "run"]
    processes = [
        subprocess.Popen(
            [sys.executable, WIDTH_SWEEP, "--hosts", address, "2", str(host), *flags],
            cwd=tmp_path,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in (0, 1)
    ]
    (first, told), (other, _) = (process.communicate(timeout=200) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], told
    assert "4 x cpu on 2 hosts" in told
    assert "Written to run" in first
    # Threads of the network library report their connections at the same time, so their lines may be mixed up.
    gloo = "[Gloo] Rank is connected to peer ranks. Expected number of connected peer ranks is"
    assert set(re.findall("[A-Za-z]+", other)) <= set(re.findall("[A-Za-z]+", gloo))
    result = xr.load_dataset(tmp_path / "run" / "result.nc", engine="h5netcdf")
    alone = lz.sweep(lz.TwoLayer(width=8), DATA, [8], 4, 12, measure=MEASURE, progress=False)
    np.testing.assert_allclose(result.train_loss, alone.train_loss, rtol=1e-5)


def test_the_script_ends_with_the_code_of_what_it_refuses(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["width_sweep.py", "--hosts", "127.0.0.1:1", "two", "0"])
    with pytest.raises(SystemExit, match=r"^--hosts must be empty, or the address of the first host"):
        runpy.run_path(str(WIDTH_SWEEP), run_name="__main__")
    monkeypatch.setattr(sys, "argv", ["width_sweep.py", "--widths", "0"])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(WIDTH_SWEEP), run_name="__main__")
    assert refused.value.code == 2
    assert "width must be a positive integer, got 0" in capsys.readouterr().err


def assert_agree(single, many, dtype):
    assert set(single) == set(many)
    for name in single:
        a, b = single[name].values.astype(float), many[name].values
        if dtype == "float32" and name == "activation_flips":
            # Rounding may flip the signs of pre-activations near zero.
            assert np.abs(a - b).max() <= 10 / (16 * single.width.values.min())
        else:
            # The compiler decides how small matrix products round, and a gap is the difference of two numbers of the
            # targets' size. The split network has large products, which round in the same way on all devices.
            scale = np.maximum(np.abs(a), 1.0 if "_gap_" in name and single.width[0] < BLOCK else 0.0)
            assert (np.abs(a - b) <= (1e-9 if dtype == "float64" else 1e-4) * scale).all(), name


def test_neurons_and_members_are_where_they_should_be(monkeypatch):
    eight = list(range(8))
    monkeypatch.setattr(jax, "devices", lambda: eight)
    monkeypatch.setattr(devices, "Mesh", lambda array, names: dict(zip(names, array.shape, strict=True)))
    with unchecked():
        assert devices.mesh_for(8, 64) == {"member": 8, "neuron": 1}
        assert devices.mesh_for(24, 2**20) == {"member": 8, "neuron": 1}
        assert devices.mesh_for(6, 64) == {"member": 6, "neuron": 1}
        assert devices.mesh_for(4, 2**15) == {"member": 4, "neuron": 2}
        assert devices.mesh_for(1, 2**15) == {"member": 1, "neuron": 8}
        assert devices.mesh_for(1, 2**15 - 1) is None
        assert devices.mesh_for(1, 2**10) is None
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        assert devices.mesh_for(6, 64) == {"member": 8, "neuron": 1}
        monkeypatch.setattr(jax, "devices", lambda: eight[:1])
        assert devices.mesh_for(6, 64) is None


def test_members_that_fill_devices_up_are_padded():
    assert devices.padded(5, None) == 5
    mesh = devices.mesh_for(2, 64)
    assert mesh.shape["member"] == 2
    assert [devices.padded(n, mesh) for n in (1, 2, 3)] == [2, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 1], ids=["member", "neuron"])
def test_every_device_has_its_share_by_one_program(seeds, monkeypatch, caplog):
    monkeypatch.setattr(devices, "NEURONS", 32)
    data, network = lz.load_dataset("digits", n_train=16, n_test=6), lz.TwoLayer(width=64)
    seen, simulate = [], members.simulate

    def recorded(stepper, measure, pack, *rest):
        layout = rest[-1]
        hidden = pack.variables["params"]["hidden"]
        seen.append((stepper, layout, {shard.device: shard.data.shape for shard in hidden.addressable_shards}))
        return simulate(stepper, measure, pack, *rest)

    monkeypatch.setattr(members, "simulate", recorded)
    training = make_training(
        5,
        loss="squared",
        optimizer=lz.Optimizer(stepper="hidden"),
        batch_size=None,
        snapshots=3,
        stop=None,
        measure=None,
        dtype="float32",
    )
    keys = [member_key(64, seed) for seed in range(seeds)]
    with jax.log_compiles():
        members.train_members(network, data, keys, training, 0.01, share_inputs(network, data, training, by_span=False))
    ((stepper, layout, shapes),) = seen
    assert shapes == dict.fromkeys(jax.devices(), (1, 64 if seeds == 2 else 32, 64))
    assert stepper == HiddenStepper(network, Units(None if seeds == 2 else layout.mesh))
    assert caplog.text.count("Finished XLA compilation of jit(_advance)") == 1
