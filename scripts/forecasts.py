"""Compare forecasts from initial weights with trained networks, for several activations and widths.

The script exits with code 1 if a forecast of the linearization gap, averaged over seeds, is off by more than 25% for
tanh or by more than a factor of 1.7 for softplus at any snapshot after step 10, if a third-order Taylor polynomial is
off by more than 25%, or if a forecast of the flips of a ReLU network is off by more than 20% at width 1024 or 10% at
width 4096.
"""

import argparse
import sys

import numpy as np

import lazynet as lz

GAPS = {"tanh": ([512, 1024, 2048], 1.25), "softplus": ([512, 1024, 2048], 1.7)}
CUBIC, CUBIC_WIDTHS = 1.25, [1024, 2048]
FLIPS = {1024: 0.2, 4096: 0.1}


def report(name: str, width: int, ratios: np.ndarray, low: float, high: float) -> bool:
    """Print the range of ratios, and return whether it is within the bounds."""
    within = bool(ratios.min() >= low and ratios.max() <= high)
    print(
        f"{name}, width {width}: forecast / measured from {ratios.min():.3f} to {ratios.max():.3f}, allowed from "
        f"{low:.3f} to {high:.3f}{'' if within else ': FAILED'}",
        flush=True,
    )
    return within


def main() -> int:
    """Compare forecasts with sweeps, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, default=256, help="number of training examples")
    parser.add_argument("--steps", type=int, default=1000, help="number of training steps")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--no-cubic", action="store_true", help="skip the third-order polynomials")
    flags = parser.parse_args()
    data = lz.load_dataset("digits", classes=(0, 1), n_train=flags.n_train, n_test=100)
    passed = True
    for activation, (widths, factor) in GAPS.items():
        network = lz.TwoLayer(width=2, activation=activation, symmetric=False)
        sweep = lz.sweep(network, data, widths, flags.seeds, flags.steps, progress=False)
        orders = (None,) if flags.no_cubic else (None, 3)
        for order in orders:
            chosen, allowed = (widths, factor) if order is None else (CUBIC_WIDTHS, CUBIC)
            forecast = lz.forecast(network, data, chosen, flags.seeds, flags.steps, order=order, progress=False)
            for width in chosen:
                late = sweep.step.values > 10
                largest = [
                    np.maximum(*(result[f"linearization_gap_{part}"].sel(width=width) for part in ("train", "test")))
                    for result in (forecast, sweep)
                ]
                means = [gap.mean("seed").values[late] for gap in largest]
                name = activation if order is None else f"{activation}, third order"
                low = 1 / allowed if allowed > 1.5 else 2 - allowed
                passed &= report(name, width, means[0] / means[1], low, allowed)
    relu = lz.TwoLayer(width=2)
    sweep = lz.sweep(relu, data, list(FLIPS), flags.seeds, flags.steps, progress=False)
    forecast = lz.forecast(relu, data, list(FLIPS), flags.seeds, flags.steps, progress=False)
    late = sweep.step.values > 10
    for width, allowed in FLIPS.items():
        ratios = (forecast.activation_flips / sweep.activation_flips).sel(width=width).values[:, late]
        passed &= report("flips of relu", width, ratios, 1 - allowed, 1 + allowed)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
