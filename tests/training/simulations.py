"""Helpers that train a pack of members with `lazynet.training.simulate`, or a single network with a NumPy loop."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from reference import SLOPE, VALUE, unit_rows

from lazynet.networks import weights
from lazynet.precision import float64
from lazynet.training import Member, Units, simulate


def low_rank_rows(n, d, rank, seed=0):
    basis = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(d, rank)))[0]
    return unit_rows(n, rank, seed) @ basis.T


@dataclass(frozen=True)
class Blocks(Units):
    """Hidden units that are divided into a given number of blocks."""

    number: int = 1

    def blocks(self, width):
        return self.number


class Recorder:
    """A measure that records the training predictions and the parameters, and counts its traces."""

    def __init__(self, network):
        self.network, self.traces = network, 0

    def __call__(self, variables, member, shared):
        self.traces += 1
        return {
            "f": self.network.apply(variables, shared["x"]),
            **{name: value for name, value in variables["params"].items()},
        }


@functools.cache
def recorder(network):
    """Return the cached recorder of a network; each additional recorder would need another compiled program."""
    return Recorder(network)


@functools.cache
def compiled_start(network):
    return jax.jit(network.init)


def members(network, keys, x, dtype="float64", change=lambda variables, i: variables):
    """Return stacked initial members for the given keys; `change` may alter the variables of each member."""
    init, x = compiled_start(network), np.asarray(x, dtype)
    starts = [change(jax.tree.map(np.asarray, dict(init(key, x))), i) for i, key in enumerate(keys)]
    return Member(jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *starts), jnp.stack(keys), None)


def share(stepper, x, y, learning_rate, dtype="float64"):
    arrays = {**stepper.share(x), "y": y, "learning_rate": learning_rate}
    return {name: jnp.asarray(value, dtype) for name, value in arrays.items()}


def train(stepper, network, keys, x, y, learning_rate, snapshots, dtype="float64", change=lambda v, i: v, measure=None):
    with float64() if dtype == "float64" else jax.default_matmul_precision("highest"):
        pack = members(network, keys, x, dtype, change)
        shared = share(stepper, x, y, learning_rate, dtype)
        outcome = simulate(stepper, measure or recorder(network), pack, shared, np.asarray(snapshots))
        return jax.tree.map(np.asarray, pack.variables), outcome


def descend(network, variables, x, y, learning_rate, snapshots):
    """Run gradient descent on 1/2 sum (f - y)^2 in NumPy; return f, W and the sum of sqrt(loss) at the snapshots."""
    w, a = (np.asarray(weights(variables, name), np.float64) for name in ("hidden", "readout"))
    c = network.output_scale / np.sqrt(network.width)
    records, root_sum = [], 0.0
    for step in range(max(snapshots) + 1):
        z = x @ w.T
        f = c * VALUE[network.activation](z) @ a
        if step in snapshots:
            records.append((f[:, 0] if network.outputs == 1 else f, w, root_sum))
        residual = f - y.reshape(f.shape)
        root_sum += np.sqrt(0.5 * np.sum(residual**2))
        w = w - learning_rate * c * ((residual @ a.T) * SLOPE[network.activation](z)).T @ x
    return [np.stack(column) for column in zip(*records, strict=True)]
