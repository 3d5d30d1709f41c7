"""The number of networks that run side by side in a pack."""

import json
from types import SimpleNamespace

import jax
import pytest

import lazynet as lz
from lazynet import programs
from lazynet.execution import _runner as runner
from lazynet.experiment import _packing as packing
from lazynet.experiment._packing import carried_bytes, measured_bytes, packs_of
from lazynet.networks import step_bytes

DATA = lz.load_dataset("digits", n_train=24, n_test=10)
EACH = step_bytes(lz.TwoLayer(width=16), 24, 64)


@pytest.mark.parametrize(
    ("members", "carried", "size"),
    [(6, 6, 6), (6, 5.9, 3), (6, 2, 2), (7, 6.9, 1), (1, 0.1, 1), (8, 100, 8)],
)
def test_packs_are_equal_and_no_larger_than_is_carried(members, carried, size, monkeypatch):
    monkeypatch.setattr(packing, "carried_bytes", lambda: int(carried * EACH))
    seeds = list(range(3, 3 + members))
    packs = packs_of(seeds, lz.TwoLayer(width=16), DATA.n_train, DATA.dim)
    assert [seed for pack in packs for seed in pack] == seeds
    assert {len(pack) for pack in packs} == {size}


def test_every_device_has_a_member(monkeypatch):
    monkeypatch.setattr(packing, "carried_bytes", lambda: 0)
    for count, size in ((1, 1), (2, 2), (4, 3), (8, 6)):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        assert {len(pack) for pack in packs_of(range(6), lz.TwoLayer(width=16), DATA.n_train, DATA.dim)} == {size}


@pytest.mark.slow
def test_the_measurement_finds_one_of_its_packs():
    each = 4 * packing.WIDTH * (packing.N + packing.D)
    assert measured_bytes(steps=1) in [each * size for size in packing.PACKS]


def slow_beyond(size):
    """Return steps and their clock; the time of a step is the number of members, doubled beyond `size` members."""

    def steps(path, variables, key, shared, number):
        now = len(variables["params"]["hidden"])
        clock.append(clock[-1] + number * now * (2 if now > size else 1))

    clock = [0.0]
    return steps, SimpleNamespace(perf_counter=lambda: clock[-1])


@pytest.mark.parametrize("size", [2, 4, 16])
def test_the_largest_pack_that_is_about_as_quick(size, monkeypatch):
    steps, clock = slow_beyond(size)
    monkeypatch.setattr(packing, "_steps", steps)
    monkeypatch.setattr(packing, "time", clock)
    assert measured_bytes() == size * 4 * packing.WIDTH * (packing.N + packing.D)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Return a list of the measurements that are taken, and the file that stores them."""
    taken = []

    def measure():
        taken.append(1000 + len(taken))
        return taken[-1]

    monkeypatch.setattr(packing, "measured_bytes", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packing._remembered.cache_clear()
    yield taken, tmp_path / "lazynet" / packing.FILE
    packing._remembered.cache_clear()


def test_a_measurement_is_remembered_by_machine(measured):
    taken, file = measured
    assert carried_bytes() == carried_bytes() == 1000
    packing._remembered.cache_clear()
    assert carried_bytes() == 1000
    assert json.loads(file.read_text()) == {packing.machine(): 1000}
    file.write_text(json.dumps({"another": 5}))
    packing._remembered.cache_clear()
    assert carried_bytes() == 1001
    assert json.loads(file.read_text()) == {"another": 5, packing.machine(): 1001}
    assert len(taken) == 2
    assert [path.name for path in file.parent.iterdir()] == [packing.FILE]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"%s": "much"}', '{"%s": -1}', '{"%s": null}', b"\xff\xfe"])
def test_a_damaged_file_is_measured_again(content, measured):
    _, file = measured
    file.parent.mkdir()
    content = content.replace("%s", packing.machine()).encode() if isinstance(content, str) else content
    file.write_bytes(content)
    assert carried_bytes() == 1000
    assert json.loads(file.read_text()) == {packing.machine(): 1000}


def test_a_cache_that_cannot_be_written_is_no_failure(measured, monkeypatch, tmp_path):
    (tmp_path / "lazynet").write_text("a file where the folder would be")
    assert carried_bytes() == 1000
    packing._remembered.cache_clear()
    assert carried_bytes() == 1001


def test_an_accelerator_is_bounded_by_its_memory(measured, monkeypatch):
    device = SimpleNamespace(platform="gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(packing, "device_memory", lambda devices: 2**33)
    assert carried_bytes() == 2**33 // 8
    assert not measured[0]


def compilations(caplog):
    return caplog.text.count("Finished XLA compilation of jit(_advance)")


@pytest.mark.slow
def test_a_width_is_compiled_once_and_released_beyond_a_number_of_programs(monkeypatch, caplog):
    released, release = [], programs.release

    def counted():
        released.append(compilations(caplog))
        release()

    def sweep(row, axes):
        # The programs of the sweep depend on this function, and so on `row`.
        def target(network, variables, variables_0, data):
            return data.y_train[row]

        measure = lz.Measure(predictions=False, kernel_drift=False, own={"target": target})
        with jax.log_compiles():
            caplog.clear()
            lz.sweep(lz.TwoLayer(width=8), DATA, [8, 10], 1, 2, snapshots=2, measure=measure, axes=axes)
        return compilations(caplog)

    monkeypatch.setattr(programs, "release", counted)
    monkeypatch.setattr(runner, "MOST_PROGRAMS", 2)
    axes = {"learning_rate": [0.01, 0.02], "label_noise": [0.0, 0.5]}
    assert sweep(0, axes) == 2
    assert sweep(0, axes) == 0
    assert released == []
    monkeypatch.setattr(runner, "MOST_PROGRAMS", 1)
    assert sweep(1, {"label_noise": [0.0, 0.5]}) == 2
    assert released == [1]


@pytest.mark.slow
def test_starts_of_all_scales_share_a_program(caplog):
    # No other test has a network of this width, so none of its programs is compiled yet.
    network, measure = lz.TwoLayer(width=22), lz.Measure(predictions=False, kernel_drift=False)
    with jax.log_compiles():
        lz.sweep(network, DATA, [22], 1, 2, snapshots=2, axes={"init_scale": [0.1, 0.5, 1.0]}, measure=measure)
    assert compilations(caplog) == 1
