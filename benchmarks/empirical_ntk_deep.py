"""Empirical tangent kernel of a deep network: time and memory of lazynet compared with neural-tangents."""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import lazynet as lz
from benchmarks.empirical_ntk import IMPLEMENTATIONS, Setting, check_agreement, megabytes, peer_kernel
from benchmarks.timing import Report, Timing, interleaved, peak_memory, show_table

# Output axes over which the kernel is averaged.
TRACED: dict[str, tuple[int, ...]] = {"average": (-1,), "all": ()}


class Perceptron(nn.Module):
    """A network of dense layers without biases, with relu between the layers."""

    width: int
    layers: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(self.layers - 1):
            x = nn.relu(nn.Dense(self.width, use_bias=False)(x))
        return nn.Dense(self.outputs, use_bias=False)(x)


class Problem(NamedTuple):
    """A network, its initial variables, and inputs of unit norm."""

    network: Perceptron
    variables: dict[str, Any]
    x: np.ndarray


def problem(n: int, d: int, m: int, layers: int, k: int) -> Problem:
    """Return a relu network with dense layers of width m, and n random rows of length d and unit norm."""
    rows = np.random.default_rng(0).standard_normal((n, d))
    x = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    network = Perceptron(m, layers, k)
    return Problem(network, dict(network.init(jax.random.key(0), x[:1])), x)


def peer(given: Problem, setting: Setting) -> Callable[[], Array]:
    """Return a function that computes the kernel with neural-tangents."""
    network, variables, x = given
    return peer_kernel(lambda params, x: network.apply({"params": params}, x), variables["params"], x, setting)


def ours(given: Problem, outputs: Literal["average", "all"]) -> Callable[[], np.ndarray]:
    """Return a function that computes the kernel with lazynet."""
    return lambda: lz.empirical_ntk(given.network, given.variables, given.x, outputs=outputs, dtype="float32")


def for_memory(
    n: int, sizes: dict[str, int], outputs: Literal["average", "all"], setting: tuple | None
) -> Callable[[], Any]:
    """Return a contender's function for n rows after a warm-up call on a small network."""

    def build(given: Problem) -> Callable[[], Any]:
        return ours(given, outputs) if setting is None else peer(given, Setting(*setting))

    jax.block_until_ready(build(problem(4, **{**sizes, "m": 8}))())
    return build(problem(n, **sizes))


def jacobian_difference(sizes: dict[str, int], outputs: Literal["average", "all"]) -> float:
    """Return the largest difference of lazynet's kernel from one computed with `jax.jacrev`, over the largest entry."""
    network, variables, x = problem(6, **{**sizes, "m": 32})
    with jax.enable_x64(True):
        params, rows = jax.tree.map(lambda a: jnp.asarray(a, "float64"), (variables["params"], x))
        jacobian = jax.jacrev(lambda params: network.apply({"params": params}, rows))(params)
        flat = np.concatenate(
            [np.asarray(j).reshape(len(x), sizes["k"], -1) for j in jax.tree.leaves(jacobian)], axis=2
        )
    kernel = np.einsum("icp,jdp->icjd", flat, flat)
    if outputs == "average":
        kernel = np.einsum("icjc->ij", kernel) / sizes["k"]
    ours = lz.empirical_ntk(network, variables, x, outputs=outputs, dtype="float64")
    return float(np.abs(ours - kernel).max() / np.abs(kernel).max())


def run(
    n: int = 512,
    d: int = 784,
    m: int = 1024,
    layers: int = 5,
    k: int = 10,
    outputs: tuple[Literal["average", "all"], ...] = ("average",),
    peer_rows: int = 32,
    rounds: int = 3,
    budget: float = 240.0,
) -> Report:
    """Time lazynet and neural-tangents.

    Args:
        n: Number of rows on which lazynet is timed.
        d: Length of each row.
        m: Width of the network.
        layers: Number of dense layers.
        k: Number of outputs.
        outputs: "average" for the average over outputs, "all" for all pairs of outputs, or both.
        peer_rows: Number of rows on which neural-tangents is timed.
        rounds: Number of timed calls of each contender, after a first call that compiles.
        budget: Time in seconds for all timed calls together; after it, no further round is started.

    Raises:
        RuntimeError: If the kernels differ.
    """
    sizes = {"d": d, "m": m, "layers": layers, "k": k}
    notes = [
        f"Times are in seconds; neural-tangents runs on {peer_rows} rows. x by n^2: its best time, scaled to {n} rows "
        "as n^2, like its matrix products, divided by lazynet's best time; x by n: the same, but scaled as n, like its "
        "Jacobians, which underestimates its time.",
        "Each peer runs in the faster of 2 settings (the JSON lists both). peak MB: upper bound on the memory that a "
        "call in a new process adds after a warm-up.",
        f"diff of neural-tangents: norm of the difference from lazynet's kernel on {peer_rows} rows, divided by the "
        "norm of that kernel. diff of lazynet: largest difference from the kernel of JAX's Jacobian on 6 rows at width "
        "32 in float64, divided by the largest entry.",
    ]
    settings = {"n": n, **sizes, "peer_rows": peer_rows, "rounds": rounds, "budget": budget, "activation": "relu"}
    share = budget / len(outputs)
    rows = [row for part in outputs for row in rows_of(n, sizes, part, peer_rows, rounds, share)]
    return Report(settings, "float32", rows, notes)


def rows_of(
    n: int,
    sizes: dict[str, int],
    outputs: Literal["average", "all"],
    peer_rows: int,
    rounds: int,
    budget: float,
) -> list[dict[str, Any]]:
    """Return one row for lazynet and one for each implementation of neural-tangents."""
    few = problem(peer_rows, **sizes)
    trials: dict[Setting, Timing] = {}
    for setting in (Setting(*values, TRACED[outputs]) for values in product(IMPLEMENTATIONS, (0, None))):
        # The settings are timed separately, because each of them needs gigabytes of memory.
        trials.update(interleaved({setting: peer(few, setting)}, rounds, budget / 5))
    fastest = {
        name: min((s for s in trials if s.implementation == name), key=lambda s: trials[s].best)
        for name in IMPLEMENTATIONS
    }
    mine = interleaved({"lazynet": ours(problem(n, **sizes), outputs)}, rounds, budget / 5)["lazynet"]
    small = ours(few, outputs)()
    best = min(trials[setting].best for setting in fastest.values())

    def row(name: str, count: int, timing: Timing, setting: Setting | None, difference: float) -> dict[str, Any]:
        options = {"n": count, "sizes": sizes, "outputs": outputs, "setting": setting and tuple(setting)}
        return {
            "n": count,
            "outputs": outputs,
            "contender": name,
            "first_seconds": timing.first,
            "best_seconds": timing.best,
            "median_seconds": timing.median,
            "rounds": timing.rounds,
            "speedup_squared": None if setting else best * (n / peer_rows) ** 2 / timing.best,
            "speedup_linear": None if setting else best * (n / peer_rows) / timing.best,
            "peak_mb": megabytes(peak_memory("benchmarks.empirical_ntk_deep", "for_memory", **options)),
            "difference": difference,
        }

    table = [row("lazynet", n, mine, None, jacobian_difference(sizes, outputs))]
    for name, setting in fastest.items():
        # The kernel of neural-tangents has shape (n, n, k, k).
        theirs = np.asarray(trials[setting].result)
        difference = check_agreement(name, theirs if outputs == "average" else theirs.transpose(0, 2, 1, 3), small)
        others = [{**s._asdict(), "best_seconds": t.best} for s, t in trials.items() if s.implementation == name]
        peer_row = row(name, peer_rows, trials[setting], setting, difference)
        table.append({**peer_row, **setting._asdict(), "trials": others})
    return table


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "outputs": ("outputs", ""),
        "contender": ("contender", ""),
        "n": ("n", "d"),
        "first": ("first_seconds", ".2f"),
        "best": ("best_seconds", ".3f"),
        "x by n^2": ("speedup_squared", ".0f"),
        "x by n": ("speedup_linear", ".0f"),
        "peak MB": ("peak_mb", ".0f"),
        "diff": ("difference", ".0e"),
    }
    title = "Empirical tangent kernel of {layers} dense layers, d={d}, m={m}, k={k}".format(**report.settings)
    show_table(title, report.rows, columns, report.notes)
