"""Sweeps: time of lazynet compared with loops in the style of the documentation of optax and neural-tangents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import lazynet as lz
from benchmarks.timing import Report, Timing, interleaved, show_table
from lazynet.experiment import packs_of
from lazynet.kernels import neural_tangents
from lazynet.losses import squared
from lazynet.precision import arithmetic
from lazynet.training import Member, batch_key, choose_stepper, member_key, simulate, snapshot_steps, start_key


class Problem(NamedTuple):
    """The common task: full-batch gradient descent on 1/2 sum (f - y)^2 with equal starts and learning rates."""

    data: lz.Dataset
    seeds: int
    steps: int
    learning_rate: float

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """Training inputs (n, d), targets (n,) and test inputs, in float32."""
        return tuple(jnp.asarray(a, "float32") for a in (self.data.x_train, self.data.y_train, self.data.x_test))


def problem(n: int, d: int, n_test: int, seeds: int, steps: int) -> Problem:
    """Return a problem with random rows of unit norm, random labels, and the learning rate 1 / lambda_max."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n + n_test, d))
    x, y = rows / np.linalg.norm(rows, axis=1, keepdims=True), rng.choice([-1.0, 1.0], n + n_test)
    data = lz.Dataset(x[:n], y[:n], x[n:], y[n:], name="random")
    kernel: Any = lz.analytic_kernel(lz.TwoLayer(width=2))
    return Problem(data, seeds, steps, 1 / float(np.linalg.eigvalsh(kernel(data.x_train))[-1]))


def starts(given: Problem, network: lz.TwoLayer) -> list[dict[str, Any]]:
    """Return the initial variables of all members."""
    x = given.arrays[0]
    return [dict(network.init(start_key(member_key(network.width, seed)), x)) for seed in range(given.seeds)]


class Loop(NamedTuple):
    """The loop of optax's "Getting started" page: an optimizer, and a jitted step that is called from Python."""

    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[Any, Any, Array]]


def optax_loop(network: lz.TwoLayer, learning_rate: float) -> Loop:
    """Return a training loop that works for any member."""
    optimizer = optax.sgd(learning_rate)

    def compute_loss(params: Any, fixed: Any, x: Array, y: Array) -> Array:
        return jnp.sum(optax.l2_loss(outputs(network, params, fixed, x), y))

    @jax.jit
    def step(params: Any, opt_state: Any, fixed: Any, x: Array, y: Array) -> tuple[Any, Any, Array]:
        loss, grads = jax.value_and_grad(compute_loss)(params, fixed, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return Loop(optimizer, step)


def outputs(network: lz.TwoLayer, params: Any, fixed: Any, x: Array) -> Any:
    """Return the outputs (n,) of the network with the given trained and fixed variables."""
    return network.apply({"params": params, "fixed": fixed}, x)


def training_peer(given: Problem, network: lz.TwoLayer) -> Callable[[], list[Any]]:
    """Return a function that trains all members in Python loops over jitted steps and returns their parameters."""
    x, y, _ = given.arrays
    members, loop = starts(given, network), optax_loop(network, given.learning_rate)

    def call() -> list[Any]:
        trained = []
        for member in members:
            params = member["params"]
            opt_state = loop.optimizer.init(params)
            for _ in range(given.steps):
                params, opt_state, _ = loop.step(params, opt_state, member["fixed"], x, y)
            trained.append(params)
        return trained

    return call


def experiment_peer(given: Problem, network: lz.TwoLayer, snapshots: np.ndarray) -> Callable[[], list[Any]]:
    """Return a function that trains every member and compares it with its kernels, using neural-tangents and optax.

    At each snapshot, the function computes predictions and the drift of the empirical kernel. It also calls
    `gradient_descent_mse` with the member's own initial kernel, and with the given infinite-width kernel.
    """
    nt = neural_tangents()
    x, y, x_test = given.arrays
    members, loop = starts(given, network), optax_loop(network, given.learning_rate)
    kernel: Any = lz.analytic_kernel(network)
    rows, test_rows = given.data.x_train, given.data.x_test
    limit = [jnp.asarray(k, "float32") for k in (kernel(rows), kernel(test_rows, rows))]
    # The loss in neural-tangents is a mean over examples, whereas ours is a sum.
    times = jnp.asarray(snapshots * y.size, "float32")

    @jax.jit
    def apply(params: Any, fixed: Any, x: Array) -> Array:
        return outputs(network, params, fixed, x)[:, None]

    @jax.jit
    def ntk(params: Any, fixed: Any, x1: Array, x2: Array | None) -> Any:
        return nt.empirical_ntk_fn(lambda params, x: apply(params, fixed, x))(x1, x2, params)

    def predictions(k_train: Array, k_test: Array, f_train: Array, f_test: Array) -> Any:
        predict = nt.predict.gradient_descent_mse(k_train, y[:, None], learning_rate=given.learning_rate)
        return predict(times, f_train, f_test, k_test)

    def train_member(member: dict[str, Any]) -> dict[str, Any]:
        params, fixed = member["params"], member["fixed"]
        opt_state = loop.optimizer.init(params)
        f_train, f_test = apply(params, fixed, x), apply(params, fixed, x_test)
        k_0 = ntk(params, fixed, x, None)
        kernels: dict[str, Any] = {
            "linearized": predictions(k_0, ntk(params, fixed, x_test, x), f_train, f_test),
            "limit": predictions(*limit, f_train, f_test),
        }
        drift, path = [], []
        for t in range(snapshots[-1] + 1):
            if t in snapshots:
                drift.append(jnp.linalg.norm(ntk(params, fixed, x, None) - k_0) / jnp.linalg.norm(k_0))
                path.append((apply(params, fixed, x), apply(params, fixed, x_test)))
            params, opt_state, _ = loop.step(params, opt_state, fixed, x, y)
        return {**kernels, "drift": drift, "path": path}

    return lambda: [train_member(member) for member in members]


def nothing(variables: Any, member: Member, shared: dict[str, Array]) -> dict[str, Array]:
    """Return an empty dictionary, because only training is timed."""
    return {}


def training_ours(given: Problem, network: lz.TwoLayer, stepper: str) -> Callable[[], list[Any]]:
    """Return a function that trains all members with lazynet, in the packs of a sweep, and returns their parameters."""
    data = given.data
    chosen = choose_stepper(network, squared(), lz.Optimizer("sgd", stepper=stepper), None, data.x_train)
    # Use the hidden stepper without rotation into the row space.
    arrays = {"x": data.x_train, "rows": data.x_train} if stepper == "hidden" else chosen.share(data.x_train)
    arrays |= {"y": data.y_train, "learning_rate": given.learning_rate}
    shared = {name: jnp.asarray(value, "float32") for name, value in arrays.items()}
    variables = starts(given, network)
    packs = []
    for seeds in packs_of(range(given.seeds), network, data.n_train, data.dim):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(variables[seed] for seed in seeds))
        keys = jnp.stack([batch_key(member_key(network.width, seed)) for seed in seeds])
        packs.append(Member(stacked, keys, None))
    ends = np.array([0, given.steps])

    def call() -> list[Any]:
        with arithmetic("float32"):
            trained = [simulate(chosen, nothing, members, shared, ends).variables["params"] for members in packs]
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], pack)
            for pack in trained
            for i in range(len(jax.tree.leaves(pack)[0]))
        ]

    return call


def experiment_ours(given: Problem, widths: tuple[int, ...], snapshots: int) -> Callable[[], Any]:
    """Return a function that runs `lazynet.sweep` over the given widths."""
    rate = given.learning_rate
    return lambda: lz.sweep(
        lz.TwoLayer(width=2),
        given.data,
        widths,
        given.seeds,
        given.steps,
        learning_rate=rate,
        snapshots=snapshots,
        progress=False,
    )


def sgemm() -> Callable[[], Array]:
    """Return a function that multiplies two 2048 x 2048 matrices with jax.numpy.dot, to measure the machine's speed."""
    a, b = (jax.random.normal(key, (2048, 2048), "float32") for key in jax.random.split(jax.random.key(0)))
    dot = jax.jit(jnp.dot)
    return lambda: dot(a, b)


def run(
    what: str = "training",
    widths: tuple[int, ...] = (64, 256, 1024, 4096, 8192),
    n: int = 512,
    d: int = 64,
    seeds: int = 8,
    steps: int = 100,
    snapshots: int = 20,
    stepper: str = "auto",
    rounds: int = 5,
    budget: float = 300.0,
) -> Report:
    """Time lazynet and the loops at each width.

    Args:
        what: "training" for training only, or "experiment" to include kernels, drift and predictions at the snapshots.
        widths: Numbers of hidden units.
        n: Number of training examples.
        d: Number of features.
        seeds: Number of networks at each width.
        steps: Number of steps of full-batch gradient descent.
        snapshots: Number of log-spaced snapshots in the experiment.
        stepper: Stepper with which lazynet trains: "auto" for the fastest stepper, or "hidden" for one that takes
            4 n d m operations per step, without rotation into the row space or updates of pre-activations.
        rounds: Number of timed calls of each contender, after a first call that compiles.
        budget: Time in seconds after which no further round is started, for each width.
    """
    if what not in ("training", "experiment"):
        raise ValueError(f"what must be training or experiment, got {what!r}.")
    given = problem(n, d, 100, seeds, steps)
    rows = []
    for width in widths:
        network = lz.TwoLayer(width=width)
        if what == "training":
            contenders: dict[str, Callable[[], Any]] = {
                "lazynet": training_ours(given, network, stepper),
                "loop": training_peer(given, network),
                "sgemm": sgemm(),
            }
        else:
            contenders = {
                "lazynet": experiment_ours(given, (width,), snapshots),
                "loop": experiment_peer(given, network, snapshot_steps(steps, snapshots)),
            }
        timings = interleaved(contenders, rounds, budget)
        rate = 2 * 2048**3 / timings["sgemm"].best if "sgemm" in timings else None
        distance = difference(what, timings["lazynet"].result, timings["loop"].result)
        rows += [{**row(width, name, timings, given, rate), "difference": distance} for name in ("lazynet", "loop")]
    notes = [
        "Times are in seconds. x: best time of the loop divided by that of the contender. share: rate of operations, "
        "at 4 n d m per step and seed, divided by that of jax.numpy.dot.",
        "diff: relative difference of the trained weights, or of the last kernel drift.",
    ]
    if what == "experiment" and len(widths) > 1:
        total = interleaved({"lazynet": experiment_ours(given, widths, snapshots)}, rounds, budget)["lazynet"]
        rows += totals(rows, total)
        notes.append(
            "all: one sweep of lazynet over all widths, already compiled, compared with the sum of the loop's times."
        )
    settings = {"what": what, "widths": list(widths), "n": n, "d": d, "seeds": seeds, "steps": steps}
    settings |= {"stepper": stepper, "snapshots": snapshots, "rounds": rounds, "budget": budget}
    return Report(settings, "float32", rows, notes)


def difference(what: str, ours: Any, theirs: Any) -> float:
    """Return the largest relative difference of the trained weights, or of the kernel drift at the last snapshot."""
    if what == "training":
        weights = (np.stack([member["hidden"] for member in members]) for members in (ours, theirs))
        pairs = zip(*weights, strict=True)
        return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)
    drift = np.array([float(member["drift"][-1]) for member in theirs])
    return float(np.abs(ours.kernel_drift.values[0, :, -1] / drift - 1).max())


def totals(rows: list[dict[str, Any]], total: Timing) -> list[dict[str, Any]]:
    """Return the rows for all widths together: one sweep with lazynet, and the total times of the loop."""
    loops = [row for row in rows if row["contender"] == "loop"]
    sums = {name: sum(row[name] for row in loops) for name in ("first_seconds", "best_seconds", "median_seconds")}
    ours = {"first_seconds": total.first, "best_seconds": total.best, "median_seconds": total.median}
    same = {"width": "all", "sgemm_share": None, "difference": max(row["difference"] for row in loops)}
    return [
        {**same, "contender": name, **seconds, "speedup": sums["best_seconds"] / seconds["best_seconds"]}
        for name, seconds in (("lazynet", ours), ("loop", sums))
    ]


def row(width: int, name: str, timings: dict[str, Timing], given: Problem, rate: float | None) -> dict[str, Any]:
    """Return the row for one contender at one width."""
    timing, data = timings[name], given.data
    operations = 4.0 * data.n_train * data.dim * width * given.steps * given.seeds
    return {
        "width": width,
        "contender": name,
        "first_seconds": timing.first,
        "best_seconds": timing.best,
        "median_seconds": timing.median,
        "speedup": timings["loop"].best / timing.best,
        "sgemm_share": None if rate is None else operations / timing.best / rate,
    }


def show(report: Report) -> None:
    """Print the table."""
    columns = {
        "width": ("width", ""),
        "contender": ("contender", ""),
        "first": ("first_seconds", ".2f"),
        "best": ("best_seconds", ".3f"),
        "x": ("speedup", ".2f"),
        "share": ("sgemm_share", ".2f"),
        "diff": ("difference", ".0e"),
    }
    show_table(f"Sweeps: {report.settings['what']}", report.rows, columns, report.notes)
