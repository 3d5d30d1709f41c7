"""Compare predicted widths with measured crossings, for several disjoint sets of seeds.

For each set of seeds, `lazynet.required_width` predicts the width at which the gap falls to a tolerance, from widths up
to 2048, and then trains networks near that width. The script prints whether the interval of each prediction contains
the crossing measured with the same seeds. It exits with code 1 if fewer than 80% of the intervals do, if the median of
high / low exceeds --ratio, or if the median prediction differs from the median crossing by more than 20%.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import lazynet as lz

# The tolerance for each prediction that networks may follow.
TOLERANCES = {"linearization": 0.01, "infinite_width": 0.02}


def main() -> int:
    """Run the searches, print their outcomes, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=TOLERANCES, default="linearization", help="prediction to follow")
    parser.add_argument("--tolerance", type=float, help="by default 0.01 for linearization, 0.02 for infinite_width")
    parser.add_argument("--first", type=int, default=100, help="first seed of the first set")
    parser.add_argument("--sets", type=int, default=10, help="number of sets, with 8 seeds each")
    parser.add_argument("--steps", type=int, default=1000, help="number of training steps")
    parser.add_argument("--pilots", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048], help="pilot widths")
    parser.add_argument("--ratio", type=float, default=2.2, help="largest median of high / low")
    parser.add_argument("--out", type=Path, help="folder for the searches; existing searches are resumed")
    flags = parser.parse_args()
    tolerance = TOLERANCES[flags.of] if flags.tolerance is None else flags.tolerance
    data = lz.load_dataset("digits", classes=(0, 1), n_train=256, n_test=100)
    rows = []
    for number in range(flags.sets):
        seeds = range(flags.first + 8 * number, flags.first + 8 * (number + 1))
        out = None if flags.out is None else lz.RunFolder(flags.out / f"seeds-{seeds[0]}", resume=True)
        result = lz.required_width(
            lz.TwoLayer(width=2), data, tolerance, flags.of, seeds, flags.steps, pilots=flags.pilots, out=out
        )
        names = "crossing", "predicted_width", "predicted_width_low", "predicted_width_high", "required_width"
        crossing, predicted, low, high, required = (float(result[name]) for name in names)
        rows.append((crossing, predicted, low, high))
        trained = result.width.values[result.pilot.values == 0].tolist()
        print(
            f"seeds {seeds[0]}-{seeds[-1]}: predicted {predicted:.0f} [{low:.0f}, {high:.0f}] ({high / low:.2f}), "
            f"crossing {crossing:.0f} {'inside' if low <= crossing <= high else 'OUTSIDE'}; required width "
            f"{required:.0f}, trained {trained}",
            flush=True,
        )
    crossings, predictions, lows, highs = np.array(rows).T
    inside = int(np.sum((lows <= crossings) & (crossings <= highs)))
    ratio, off = np.median(highs / lows), np.median(predictions) / np.median(crossings)
    print(
        f"{inside} of {flags.sets} intervals contain the crossing; median high / low {ratio:.2f}; median prediction "
        f"{np.median(predictions):.0f}, {off:.3f} times the median crossing"
    )
    return 0 if inside >= 0.8 * flags.sets and ratio <= flags.ratio and abs(off - 1) <= 0.2 else 1


if __name__ == "__main__":
    sys.exit(main())
