"""Measure how often the 95% intervals of fitted exponents contain the true exponent, and how long they are.

The simulated values are log-normal, and their mean is a power law of the width. Each line gives the share of draws in
which the interval contains the exponent. The last line compares the length of the interval with that of a percentile
bootstrap over seeds.
"""

import argparse
from itertools import product

import numpy as np

from lazynet.theory import fit_exponent

EXPONENT = -0.5
WIDTHS = 2.0 ** np.arange(6, 13)
SPREADS = {
    "equal noise": np.full(7, 0.3),
    "6 times noisier at the largest width": np.geomspace(0.1, 0.6, 7),
    "6 times noisier at the smallest width": np.geomspace(0.6, 0.1, 7),
    "one width 5 times noisier": np.array([0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1]),
}
ALLOWED, LENGTH = 0.90, 1.25


def draw(random: np.random.Generator, widths: np.ndarray, spread: np.ndarray, seeds: int) -> np.ndarray:
    """Return log-normal values with mean width^(-1/2), shape (widths, seeds)."""
    noise = spread[:, None] * random.normal(size=(len(widths), seeds))
    return widths[:, None] ** EXPONENT * np.exp(noise - spread[:, None] ** 2 / 2)


def bootstrap_length(random: np.random.Generator, widths: np.ndarray, values: np.ndarray) -> float:
    """Return the length of the percentile interval over 2000 bootstrap samples of the seeds at each width."""
    logs = np.log(widths) - np.log(widths).mean()
    seeds = random.integers(values.shape[1], size=(len(widths), 2000, values.shape[1]))
    means = np.take_along_axis(values[:, None, :], seeds, axis=2).mean(axis=2)
    return float(np.subtract(*np.quantile(logs @ np.log(means) / np.sum(logs**2), [0.975, 0.025])))


def main() -> int:
    """Run the script, and return 1 if the intervals contain the exponent too rarely or are too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000, help="number of draws for each line (4000)")
    draws, failed = parser.parse_args().draws, False
    for (name, spread), count, seeds in product(SPREADS.items(), (2, 3, 7), (2, 3, 4, 8, 20)):
        chosen = np.round(np.linspace(0, 6, count)).astype(int)
        random, inside = np.random.default_rng(seeds), 0
        for _ in range(draws):
            fit = fit_exponent(WIDTHS[chosen], draw(random, WIDTHS[chosen], spread[chosen], seeds))
            inside += fit.low <= EXPONENT <= fit.high
        failed |= inside < ALLOWED * draws
        print(f"{name:38}  {count} widths  {seeds:2} seeds  {inside / draws:.3f}", flush=True)
    random, lengths = np.random.default_rng(0), []
    for _ in range(max(draws // 10, 10)):
        values = draw(random, WIDTHS, SPREADS["equal noise"], 8)
        fit = fit_exponent(WIDTHS, values)
        lengths.append((fit.high - fit.low, bootstrap_length(random, WIDTHS, values)))
    ratio = float(np.divide(*np.median(lengths, axis=0)))
    print(f"median length, 7 widths, 8 seeds: {ratio:.2f} times that of a percentile bootstrap")
    return int(failed or ratio > LENGTH)


if __name__ == "__main__":
    raise SystemExit(main())
