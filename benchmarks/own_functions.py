"""Overhead of a user-defined function: repeated calls with a named activation and with an equivalent function.

On every call, lazynet traces and lowers any program that contains a user-defined function, so that changes to the
function take effect. A compiled program is reused if its text is unchanged.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lazynet as lz
from benchmarks.timing import Report, compilations, interleaved, show_table

KEY = jax.random.key(0)
CALLS = ("empirical_ntk", "train", "sweep")


def own_tanh(z: Any) -> Any:
    """Compute tanh; lazynet cannot know that this function always behaves the same way."""
    return jnp.tanh(z)


def calls(activation: Any, data: lz.Dataset, width: int, steps: int) -> dict[str, Callable[[], Any]]:
    """Return one function for each entry of `CALLS`; it makes that call for networks with the given activation."""
    network = lz.MLP(width=width, depth=2, activation=activation)
    variables = network.init(KEY, jnp.asarray(data.x_train, jnp.float32))
    training = {"steps": steps, "learning_rate": 0.1, "measure": lz.Measure(predictions=False)}
    return {
        "empirical_ntk": lambda: lz.empirical_ntk(network, variables, data.x_train),
        "train": lambda: lz.train(network, data, KEY, **training).snapshots.train_loss.values,
        "sweep": lambda: lz.sweep(network, data, [width, 2 * width], 2, progress=False, **training).train_loss.values,
    }


def run(n: int = 64, width: int = 64, steps: int = 20, rounds: int = 7, budget: float = 120.0) -> Report:
    """Time calls with a named activation and with an equivalent user-defined function, alternating between the two.

    Args:
        n: Number of training examples.
        width: Width of the network, which has two hidden layers.
        steps: Number of training steps.
        rounds: Number of timed calls of each kind, after a first call that compiles.
        budget: Time limit in seconds for each lazynet function; no new round starts after it has elapsed.

    Raises:
        RuntimeError: If the two kinds of calls give different results.
    """
    x = np.random.default_rng(0).standard_normal((n, 16))
    data = lz.Dataset(x, np.sign(x[:, 0]))
    named, own = (calls(activation, data, width, steps) for activation in ("tanh", own_tanh))
    table = []
    for name in CALLS:
        timings = interleaved({"named": named[name], "own": own[name]}, rounds, budget)
        if not np.allclose(timings["named"].result, timings["own"].result, rtol=1e-5):
            raise RuntimeError(f"The results of {name} differ.")
        with compilations() as seconds:
            own[name]()
        table.append(
            {
                "call": name,
                "named_seconds": timings["named"].best,
                "own_seconds": timings["own"].best,
                "overhead_seconds": timings["own"].best - timings["named"].best,
                "lowerings": len(seconds),
                "lowering_seconds": sum(seconds),
            }
        )
    notes = [
        "Best times of repeated calls in seconds. overhead: own minus named. lowerings: number of lowerings in a "
        "repeated call with the user-defined function, and their total time. Nothing is recompiled; any "
        "recompilation would be included in the count.",
    ]
    settings = {"n": n, "width": width, "steps": steps, "rounds": rounds, "budget": budget}
    return Report(settings, "float32", table, notes)


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "call": ("call", ""),
        "named": ("named_seconds", ".3f"),
        "own": ("own_seconds", ".3f"),
        "overhead": ("overhead_seconds", ".3f"),
        "lowerings": ("lowerings", "d"),
        "their time": ("lowering_seconds", ".3f"),
    }
    show_table(
        "Overhead of a user-defined function, n={n}".format(**report.settings), report.rows, columns, report.notes
    )
