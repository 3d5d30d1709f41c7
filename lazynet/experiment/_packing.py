"""Choose how many members to train together.

On CPUs, the choice is based on a benchmark; on accelerators, it is based on the available memory.
"""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.data import cache_folder
from lazynet.networks import Network, step_bytes, timing_network
from lazynet.plan import device_memory
from lazynet.training import HiddenStepper, Member
from lazynet.typing import Variables

FILE = "packing.json"
# Benchmark settings: width of the members, number of rows, number of features, pack sizes, and number of steps for the
# largest pack.
WIDTH, N, D, PACKS, STEPS = 512, 256, 64, (2, 4, 8, 16), 8
# The benchmark selects the largest pack whose speed is at least this fraction of the fastest pack's speed.
WITHIN = 0.9
# On an accelerator, the members of a pack may together use a fraction SHARE of the memory. The variables, state and
# measurements of a member are assumed to take up HELD times the number of bytes that one of its steps reads and writes.
SHARE, HELD = 0.5, 4


def packs_of(seeds: Sequence[int], network: Network, n: int, d: int, dtype: Any = "float32") -> list[list[int]]:
    """Split the seeds into packs of equal size that share one program and are as large as is efficient.

    A pack with at most one member per device is always allowed.

    Args:
        seeds: Seeds of the members.
        network: Network with the same width as the members.
        n: Number of examples per step.
        d: Number of features per example.
        dtype: Dtype of the examples, which is an integer type for token ids.

    Returns:
        The seeds of each pack, in the given order.
    """
    sizes = [size for size in range(1, len(seeds) + 1) if len(seeds) % size == 0]
    if len(sizes) > 1:
        each, most = step_bytes(network, n, d, dtype), carried_bytes()
        sizes = [size for size in sizes if size <= jax.device_count() or size * each <= most]
    return [list(seeds[i : i + sizes[-1]]) for i in range(0, len(seeds), sizes[-1])]


def carried_bytes() -> int:
    """Return the number of bytes that a pack may read and write per step."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return int(SHARE * device_memory(devices)) * jax.process_count() // HELD
    return _remembered(cache_folder() / FILE, machine())


def machine() -> str:
    """Return a description of the hardware and software for which a benchmark result is valid."""
    return f"{jax.local_devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}"


@cache
def _remembered(file: Path, on: str) -> int:
    """Return the stored benchmark result for this machine; if there is none, run the benchmark and store the result."""
    stored: dict[str, int] = {}
    with suppress(OSError, ValueError):
        read = json.loads(file.read_text())
        stored = {name: value for name, value in read.items() if type(value) is int} if type(read) is dict else {}
    if stored.get(on, 0) <= 0:
        stored[on] = measured_bytes()
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as draft:
                json.dump(stored, draft, indent=1)
            os.replace(draft.name, file)
    return stored[on]


def measured_bytes(steps: int = STEPS) -> int:
    """Run the benchmark and return the bytes read and written per step by the largest pack that is fast enough.

    The benchmark takes a few seconds.

    Args:
        steps: Number of steps for the largest pack.
    """
    network = timing_network(WIDTH)
    stepper = HiddenStepper(network)
    with jax.default_matmul_precision("highest"):
        x = jnp.linspace(-1.0, 1.0, N * D, dtype="float32").reshape(N, D)
        shared = {"x": x, "rows": x, "y": x[:, 0], "learning_rate": jnp.zeros((), "float32")}
        key = jax.random.key(0)
        member = jax.tree.map(np.asarray, dict(jax.jit(network.init)(key, x)))
        members = {
            size: jax.tree.map(lambda leaf, size=size: np.broadcast_to(leaf, (size, *leaf.shape)), member)
            for size in PACKS
        }
        seconds = dict.fromkeys(PACKS, float("inf"))
        # The first of these rounds includes compilation, so only the fastest round counts.
        for _ in range(4):
            for size in PACKS:
                begin = time.perf_counter()
                jax.block_until_ready(_steps(stepper, members[size], key, shared, steps * max(PACKS) // size))
                seconds[size] = min(seconds[size], time.perf_counter() - begin)
    best = min(seconds.values())
    return step_bytes(network, N, D) * max(size for size in PACKS if WITHIN * seconds[size] <= best)


@partial(jax.jit, static_argnames="stepper")
def _steps(
    stepper: HiddenStepper, variables: Variables, key: Array, shared: dict[str, Array], steps: Array | int
) -> Array:
    def train(variables: Variables) -> Array:
        member = Member(variables, key, None)

        def step(t: Array, state: tuple) -> tuple:
            return stepper.step(state, member, shared, t)[0]

        return jax.lax.fori_loop(0, steps, step, stepper.start(member, shared))[-1]

    return jax.vmap(train)(variables)
