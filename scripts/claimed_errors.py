"""Compare the errors that kernel_descent and kernel_flow claim with their actual errors on random kernels.

The actual errors are computed with mpmath. For each kind of spectrum and each method, one line gives the smallest and
the median ratio of the claimed error to the actual error, and the share of problems in which the claimed error is at
most 1000 times the actual error or at most 1e-12. Both errors are relative to the norm of the targets. A claimed error
must never be smaller than the actual error.
"""

import argparse
import warnings
from collections import defaultdict

import mpmath
import numpy as np

import lazynet as lz

DIGITS, N = 60, 14
SHARP, NEGLIGIBLE, ENOUGH = 1000.0, 1e-12, 0.9
MOMENTA = (0.0, 0.5, 0.9, 0.99)
# Learning rates as fractions of the largest stable learning rate.
RATES = (0.05, 0.5, 0.9, 0.99, 0.9999995)
# Relative error of rounding mpmath's results to float64.
RESOLUTION = 1e-16


def clustered(random: np.random.Generator) -> np.ndarray:
    """Return a kernel with three clusters of eigenvalues."""
    centers = 10.0 ** random.uniform(-4, 1, size=3)
    spread = 10.0 ** random.uniform(-14, -3)
    return turned(random, centers[random.integers(3, size=N)] * (1 + spread * random.normal(size=N)))


def power_law(random: np.random.Generator) -> np.ndarray:
    """Return a kernel whose eigenvalues decay as a power law."""
    return turned(random, 10 * np.arange(1.0, N + 1) ** -random.uniform(1, 8))


def singular(random: np.random.Generator) -> np.ndarray:
    """Return a rank-deficient kernel whose entries, integers divided by 64, have no rounding errors."""
    factor = random.integers(-8, 9, size=(N, random.integers(1, N - 1)))
    return (factor @ factor.T) / 64.0


def turned(random: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix with the given eigenvalues, up to rounding."""
    vectors = np.linalg.qr(random.normal(size=(N, N)))[0]
    k = (vectors * values) @ vectors.T
    return (k + k.T) / 2


KINDS = {"clustered": clustered, "power law": power_law, "singular": singular}


def spectrum(k: np.ndarray) -> tuple[list, mpmath.matrix]:
    """Return the eigenvalues and eigenvectors of a matrix with DIGITS digits; negligible eigenvalues become zero."""
    values, vectors = mpmath.eigsy(mpmath.matrix(k.tolist()))
    limit = mpmath.mpf(10) ** (-DIGITS // 2) * max(map(abs, values))
    return [mpmath.mpf(0) if abs(value) < limit else value for value in values], vectors


def unlearned(value: mpmath.mpf, rate: float, momentum: float, steps: int) -> mpmath.mpf:
    """Return the share of a mode that gradient descent has not learned after `steps` steps.

    It is r_steps of the recursion r_{k+1} = (1 + mu - eta lambda) r_k - mu r_{k-1} with r_0 = r_{-1} = 1.
    """
    mu = mpmath.mpf(momentum)
    step = mpmath.matrix([[1 + mu - mpmath.mpf(rate) * value, -mu], [1, 0]])
    return (step**steps * mpmath.matrix([1, 1]))[0] if steps else mpmath.mpf(1)


def predicted(values: list, vectors: mpmath.matrix, y: np.ndarray, left: list[list]) -> np.ndarray:
    """Return the predictions, shape (times, n), from the unlearned share of each mode at each time."""
    modes = vectors.T * mpmath.matrix(y.tolist())
    rows = []
    for shares in left:
        learned = mpmath.matrix([(1 - share) * mode for share, mode in zip(shares, modes, strict=True)])
        rows.append([float(entry) for entry in vectors * learned])
    return np.array(rows)


def compare(random: np.random.Generator, kind: str) -> dict[str, tuple[float, float]]:
    """Return the claimed and the actual error of each method on one random problem."""
    k, y = KINDS[kind](random), random.normal(size=N)
    values, vectors = spectrum(k)
    largest = float(max(values))
    # Rounding may make a kernel indefinite; stop before modes with negative eigenvalues grow noticeably.
    last = min(1e4, 1e-3 / max(-float(min(values)), 1e-300))
    momentum = float(random.choice(MOMENTA))
    rate = float(random.choice(RATES)) * 2 * (1 + momentum) / largest
    steps = np.unique(np.geomspace(1, np.clip(last / rate, 2, 1e5), 8).round()).astype(int)
    times = np.geomspace(1e-2, last, 8)
    descent = predicted(values, vectors, y, [[unlearned(v, rate, momentum, int(s)) for v in values] for s in steps])
    flow = predicted(values, vectors, y, [[mpmath.exp(-mpmath.mpf(t) * v) for v in values] for t in times])
    found = {}
    for method in ("exact", "krylov"):
        descended = lz.kernel_descent(k, y, learning_rate=rate, steps=steps, momentum=momentum, method=method)
        paths = {"descent": (descended, descent), "flow": (lz.kernel_flow(k, y, times=times, method=method), flow)}
        for name, (path, right) in paths.items():
            actual = np.linalg.norm(path.train - right, axis=1).max() / np.linalg.norm(y)
            found[f"{name}, {method}"] = float(path.error.total), float(actual)
    return found


def main() -> int:
    """Run the script, and return 1 if a claimed error is below the actual error or is too often far above it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=300, help="number of random problems (300)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mpmath.mp.dps = DIGITS
    warnings.simplefilter("ignore", UserWarning)
    results = defaultdict(list)
    for i in range(arguments.problems):
        kind = list(KINDS)[i % len(KINDS)]
        for name, pair in compare(np.random.default_rng([arguments.seed, i]), kind).items():
            results[kind, name].append((i, *pair))
    failed = False
    for (kind, name), found in sorted(results.items()):
        problem, claimed, actual = np.array(found).T
        ratio = claimed / np.maximum(actual, RESOLUTION)
        low = (claimed < actual) & (actual > RESOLUTION)
        sharp = np.mean((claimed <= SHARP * actual) | (claimed <= NEGLIGIBLE))
        failed |= bool(low.any()) or sharp < ENOUGH
        worst = f"  too small in problems {problem[low].astype(int).tolist()}" if low.any() else ""
        ratios = f"smallest {ratio.min():9.2e}  median {np.median(ratio):9.2e}"
        print(f"{kind:10}  {name:16}  {ratios}  sharp {sharp:.2f}{worst}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
