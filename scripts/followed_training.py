"""Compare wide networks with predictions of kernels, for momentum, mini-batches, other losses and a ridge.

Networks of several widths are trained on the digits. At every snapshot, their outputs on the training set are compared
with those of kernel descent, computed with `lazynet.kernel_descent` from the kernel of each network at initialization
("own") and from the infinite-width kernel ("analytic"). Gaps are divided by the RMS of the predicted change in the
outputs, except in the fits of width exponents. The script exits with code 1 if a gap at the largest width is too large,
if the gaps do not fall with the width, or if training did not progress far enough for a meaningful comparison.
"""

import argparse
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lazynet as lz

N, N_TEST, SEEDS = 128, 100, 3


class Case(NamedTuple):
    """A way of training, and the bounds that the networks must satisfy.

    Attributes:
        rate: Product of the learning rate and lambda_max + ridge, for the infinite-width kernel on the training set.
        options: Arguments of `lazynet.sweep`.
        classes: The digits to distinguish.
        own: Largest gap to the prediction of a network's own kernel.
        analytic: Largest gap to the prediction of the infinite-width kernel.
        loss: Largest final training loss. If None and without a ridge, the outputs must instead move by at least 90% of
            the RMS of the targets.
        ridge: The ridge divided by lambda_max.
    """

    rate: float
    options: dict[str, Any]
    classes: tuple[int, ...] = (0, 1)
    own: float = 0.005
    analytic: float = 0.05
    loss: float | None = None
    ridge: float = 0.0


HEAVY, NESTEROV = lz.Optimizer(momentum=0.9), lz.Optimizer(momentum=0.9, nesterov=True)
CASES = {
    "momentum": Case(0.1, {"optimizer": HEAVY}),
    "nesterov": Case(0.1, {"optimizer": NESTEROV}),
    "batches": Case(1.0, {"batch_size": 32}),
    "logistic": Case(128.0, {"loss": "logistic"}, loss=0.05),
    "softmax": Case(32.0, {"loss": "softmax"}, tuple(range(10)), own=0.02, analytic=0.13, loss=1.0),
    "ridge": Case(1.0, {"steps": 500}, analytic=0.04, ridge=0.1),
}


def outputs(network: Any, variables: Any, variables_0: Any, data: Any) -> jax.Array:
    """Return the outputs on the training set."""
    return network.apply(variables, data.x_train)


def rms(values: np.ndarray) -> np.ndarray:
    """Return the RMS at each snapshot."""
    return np.sqrt(np.mean(values.reshape(len(values), -1) ** 2, axis=1))


def gaps(case: Case, width: int, order_of: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Train networks of one width, and compare them with the predictions of their kernels.

    Args:
        case: How to train them.
        width: Number of hidden units.
        order_of: Number added to the seed whose mini-batches the predictions use; 0 for the right ones.

    Returns:
        The largest gap of each seed to the predictions of its own kernel and of the infinite-width kernel, shape
        (2, seed); the same gaps divided by the predicted movement at their snapshots; and reasons why training has not
        progressed far enough.
    """
    data = lz.load_dataset("digits", classes=case.classes, n_train=N, n_test=N_TEST)
    network = lz.TwoLayer(width=width, outputs=data.outputs)
    k = lz.analytic_kernel(network)(data.x_train)
    largest = float(np.linalg.eigvalsh(k)[-1])
    ridge, options = case.ridge * largest, {"steps": 200, **case.options}
    if ridge:
        options["optimizer"] = lz.Optimizer(ridge=ridge)
    rate = case.rate / (largest + ridge)
    measure = lz.Measure(predictions=False, kernel_drift=False, own={"outputs": outputs})
    result = lz.sweep(network, data, [width], SEEDS, learning_rate=rate, measure=measure, progress=False, **options)
    optimizer = options.get("optimizer", lz.Optimizer())
    descent: dict[str, Any] = {
        "learning_rate": rate,
        "steps": result.step.values,
        "momentum": optimizer.momentum,
        "nesterov": optimizer.nesterov,
        "ridge": optimizer.ridge,
        "loss": options.get("loss", "squared"),
    }
    largest_gaps, relative = np.zeros((2, SEEDS)), np.zeros((2, SEEDS))
    lacking = []
    for seed in range(SEEDS):
        f = result.outputs.values[0, seed] - result.outputs.values[0, seed, :1]
        size = options.get("batch_size")
        if size is not None:
            descent["batches"] = lz.batch_order(width, seed + order_of, N, size, options["steps"])
        key = jax.random.fold_in(lz.member_key(width, seed), 0)
        variables = dict(network.init(key, jnp.asarray(data.x_train, jnp.float32)))
        own = lz.empirical_ntk(network, variables, data.x_train, outputs="all" if data.outputs > 1 else "average")
        for i, kernel in enumerate(np.asarray(kernel, np.float64) for kernel in (own, k)):
            predicted = lz.kernel_descent(kernel, data.y_train, **descent).train
            gap = rms(f - predicted)[1:]
            largest_gaps[i, seed], relative[i, seed] = np.max(gap), np.max(gap / rms(predicted)[1:])
            if ridge:
                # The network must end near the limit of its own kernel, the analytic prediction near its own limit.
                lacking += why_not_regularized(kernel, data.y_train, ridge, f[-1] if i == 0 else predicted[-1])
        loss = float(result.train_loss[0, seed, -1])
        if case.loss is not None and loss > case.loss:
            lacking.append(f"the training loss of seed {seed} ends at {loss:.3f}, above {case.loss}")
        moved = float(rms(f[-1:])[0] / np.sqrt(np.mean(data.y_train**2)))
        if case.loss is None and not ridge and moved < 0.9:
            lacking.append(f"the outputs of seed {seed} moved by only {moved:.2f} times the RMS of the targets")
    return largest_gaps, relative, lacking


def why_not_regularized(k: np.ndarray, y: np.ndarray, ridge: float, f: np.ndarray) -> list[str]:
    """Return the reasons for which outputs are far from kernel ridge regression, or close to the targets.

    The targets are the limit without a ridge.
    """
    limit = k @ np.linalg.solve(k + ridge * np.eye(len(k)), y)
    size, reasons = float(np.linalg.norm(limit)), []
    if np.linalg.norm(f - limit) > 0.01 * size:
        reasons.append(f"the outputs end {np.linalg.norm(f - limit) / size:.2%} from kernel ridge regression")
    if np.linalg.norm(f - y) < 0.1 * size:
        reasons.append(f"the outputs end {np.linalg.norm(f - y) / size:.2%} from the limit without a ridge")
    return reasons


def main() -> int:
    """Compare networks with predictions in each case, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="ways of training")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="widths")
    parser.add_argument("--factor", type=float, default=1.0, help="multiply the bounds, which hold at width 16384")
    parser.add_argument(
        "--order-of",
        type=int,
        default=0,
        help="number added to the seed whose batches predictions use",
    )
    flags = parser.parse_args()
    failed = False
    for name in flags.cases:
        case, means = CASES[name], []
        for width in sorted(flags.widths):
            absolute, relative, lacking = gaps(case, width, flags.order_of)
            means.append(absolute.mean(axis=1))
            own, analytic = relative.max(axis=1)
            print(f"{name}, width {width}: own {own:.2%}, analytic {analytic:.2%} of the movement", flush=True)
        slopes = np.polyfit(np.log(sorted(flags.widths)), np.log(means), 1)[0] if len(means) > 1 else (-1.0, -1.0)
        print(f"{name}: width exponents {slopes[0]:.2f} (own) and {slopes[1]:.2f} (analytic)", flush=True)
        checks = {
            "own": own <= flags.factor * case.own,
            "analytic": analytic <= flags.factor * case.analytic,
            "exponents": slopes[0] <= -0.5 and slopes[1] <= -0.3,
        }
        wrong = [check for check, passed in checks.items() if not passed] + lacking
        if wrong:
            print(f"{name}: FAILED ({'; '.join(wrong)})", flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
