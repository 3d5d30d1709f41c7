"""Empirical tangent kernel of a deep network: time and memory of lazynet against neural-tangents."""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import lazynet as lz
from benchmarks.empirical_ntk import IMPLEMENTATIONS, Setting, asked, check_agreement, megabytes
from benchmarks.timing import Report, Timing, interleaved, peak_memory, show_table

# Over outputs, the last axis, the kernel is averaged or not.
TRACED: dict[str, tuple[int, ...]] = {"average": (-1,), "all": ()}


class Perceptron(nn.Module):
    """Dense layers without biases, relu between them."""

    width: int
    layers: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(self.layers - 1):
            x = nn.relu(nn.Dense(self.width, use_bias=False)(x))
        return nn.Dense(self.outputs, use_bias=False)(x)


class Problem(NamedTuple):
    """A network at its start and unit rows."""

    network: Perceptron
    variables: dict[str, Any]
    x: np.ndarray


def problem(n: int, d: int, m: int, layers: int, k: int) -> Problem:
    """A relu network of so many dense layers of width m, and n random unit rows of length d, float32."""
    rows = np.random.default_rng(0).standard_normal((n, d))
    x = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    network = Perceptron(m, layers, k)
    return Problem(network, dict(network.init(jax.random.key(0), x[:1])), x)


def peer(given: Problem, setting: Setting) -> Callable[[], Array]:
    """The kernel by neural-tangents."""
    network, variables, x = given
    return asked(lambda params, x: network.apply({"params": params}, x), variables["params"], x, setting)


def ours(given: Problem, outputs: Literal["average", "all"]) -> Callable[[], np.ndarray]:
    """The kernel by lazynet, through the public function."""
    return lambda: lz.empirical_ntk(given.network, given.variables, given.x, outputs=outputs, dtype="float32")


def for_memory(
    n: int, sizes: dict[str, int], outputs: Literal["average", "all"], setting: tuple | None
) -> Callable[[], Any]:
    """A contender's call, in a process that has imported and started everything on a small network before."""

    def build(given: Problem) -> Callable[[], Any]:
        return ours(given, outputs) if setting is None else peer(given, Setting(*setting))

    jax.block_until_ready(build(problem(4, **{**sizes, "m": 8}))())
    return build(problem(n, **sizes))


def jacobian_difference(sizes: dict[str, int], outputs: Literal["average", "all"]) -> float:
    """Largest difference of a small kernel, in float64, from the one of the Jacobian by jax, over its largest entry."""
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
    found = lz.empirical_ntk(network, variables, x, outputs=outputs, dtype="float64")
    return float(np.abs(found - kernel).max() / np.abs(kernel).max())


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
    """Time both.

    Args:
        n: number of rows for lazynet.
        d: length of a row.
        m: width of the network.
        layers: its dense layers.
        k: its outputs.
        outputs: the average over outputs, all of them, or both.
        peer_rows: number of rows for neural-tangents.
        rounds: timed calls of each, after the one that compiles.
        budget: seconds after which no further round starts.

    Raises:
        RuntimeError: if the kernels differ.
    """
    sizes = {"d": d, "m": m, "layers": layers, "k": k}
    notes = [
        f"Seconds; neural-tangents on {peer_rows} rows. x by n^2: its best, scaled to {n} rows by the square of the "
        "number of rows, as its products grow, over that of lazynet; x by n: scaled by the number of rows, as its "
        "Jacobians grow, which is less than what it takes.",
        "Peers run in the faster of 2 settings each (both in the JSON). peak MB: of one first call, above what its own "
        "process held before; an upper bound.",
        f"diff: of neural-tangents' kernel from lazynet's on {peer_rows} rows, over the norm of that; of lazynet's "
        "from the Jacobian's on 6 rows at width 32 in float64, over its largest entry.",
    ]
    settings = {"n": n, **sizes, "peer_rows": peer_rows, "rounds": rounds, "budget": budget, "activation": "relu"}
    rows = [row for each in outputs for row in rows_of(n, sizes, each, peer_rows, rounds, budget / len(outputs))]
    return Report(settings, "float32", rows, notes)


def rows_of(
    n: int,
    sizes: dict[str, int],
    outputs: Literal["average", "all"],
    peer_rows: int,
    rounds: int,
    budget: float,
) -> list[dict[str, Any]]:
    """A row for lazynet and one for each implementation of neural-tangents."""
    few = problem(peer_rows, **sizes)
    tried: dict[Setting, Timing] = {}
    for setting in (Setting(*values, TRACED[outputs]) for values in product(IMPLEMENTATIONS, (0, None))):
        # One after the other: each takes gigabytes.
        tried.update(interleaved({setting: peer(few, setting)}, rounds, budget / 5))
    fastest = {
        name: min((s for s in tried if s.implementation == name), key=lambda s: tried[s].best)
        for name in IMPLEMENTATIONS
    }
    mine = interleaved({"lazynet": ours(problem(n, **sizes), outputs)}, rounds, budget / 5)["lazynet"]
    small = ours(few, outputs)()
    best = min(tried[setting].best for setting in fastest.values())

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
        theirs = np.asarray(tried[setting].result)
        # Theirs is (n, n, k, k).
        difference = check_agreement(name, theirs if outputs == "average" else theirs.transpose(0, 2, 1, 3), small)
        others = [{**s._asdict(), "best_seconds": t.best} for s, t in tried.items() if s.implementation == name]
        found = row(name, peer_rows, tried[setting], setting, difference)
        table.append({**found, **setting._asdict(), "tried": others})
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
