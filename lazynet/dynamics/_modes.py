"""Which modes of the kernel a residual excites: all of them by diagonalizing, or the few that matter by Lanczos.

A Krylov basis predicts a residual r~(t) that obeys r~' = -K r~ up to a defect along the next block of the basis, known
from the coordinates of r~ alone. Kernel dynamics never amplify (eta lambda <= 2), so the error at time t is at most the
integral of the defect's norm up to t, for descent its sum over steps (Saad 1992, section 4, for the exponential), with
momentum 1 / (1 - mu) times that. Where steps are too many for each to count, the trapezoid rule estimates that bound.
"""

import warnings
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.dynamics._laws import Law, descent_residual
from lazynet.kernels import Error, KernelOperator, Spectrum, dense_operator, spectrum
from lazynet.kernels._krylov import EPS, Lanczos, basis_limit, check_tolerance, with_random_columns
from lazynet.kernels._operators import error_norm
from lazynet.kernels._threads import narrow_products
from lazynet.typing import SquareKernel

EXACT = 1000  # up to so many examples all modes are found about as quickly as the few
SAMPLES = 1000  # steps at which a defect that changes sign is looked at: the first, and as many by the logarithm
NEGATIVE = 1e-6  # an eigenvalue more negative than this share of the largest is not rounding
TOLERANCE = {"float64": 1e-5, "float32": 1e-4}


class Modes(NamedTuple):
    """Eigenvalues (m,), eigenvectors as a basis (n, m) times a rotation (m, m), weights of residuals along them (m, k).

    The rotation is None where the basis is made of the eigenvectors themselves.
    """

    values: np.ndarray
    basis: np.ndarray
    rotation: np.ndarray | None
    weights: np.ndarray

    def combined(self, shares: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """The residual with these shares of its modes (s, m), in a basis (n_any, m): (s, n_any, k)."""
        modes, outputs = self.weights.shape
        parts = (shares * self.weights.T[:, None, :]).reshape(outputs * len(shares), modes)
        if self.rotation is not None:
            parts = parts @ self.rotation.T
        return np.moveaxis((parts @ basis.T).reshape(outputs, len(shares), len(basis)), 0, -1)


def modes_of(
    k: SquareKernel | Spectrum | KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> tuple[Modes, Error]:
    """The modes of every output's residual, and the error of predictions made of them.

    Raises:
        ValueError: as `lazynet.kernel_descent` says.
    """
    if method not in ("exact", "krylov", None):
        raise ValueError(f"method is {method!r}, but must be 'exact' or 'krylov'.")
    check_tolerance(tolerance)
    if isinstance(k, Spectrum) and method == "krylov":
        raise ValueError('method is "krylov", but a spectrum has all modes; give the kernel itself.')
    if isinstance(k, Spectrum) or method == "exact" or (method is None and len(residual) <= EXACT):
        if isinstance(k, Spectrum):
            found, rounding, diagonal = k, 0.0, 0.0
        else:
            operator = k if isinstance(k, KernelOperator) else dense_operator(k)
            found = spectrum(operator.dense())
            rounding, diagonal = operator.rounding, float(operator.diagonal().max())
        check_not_negative(found.values, rounding=error_norm(rounding, diagonal, len(residual)))
        modes = Modes(*found, None, found.vectors.T @ residual)
        return modes, Error(0.0, _storage(modes, law, rounding, diagonal))
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    with narrow_products():
        return _by_krylov(operator, residual, law, tolerance or TOLERANCE[operator.dtype.name], progress)


def _by_krylov(
    k: KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    tolerance: float,
    progress: Callable[[int, float], None] | None,
) -> tuple[Modes, Error]:
    n, size = len(residual), float(np.linalg.norm(residual))
    limit, diagonal = basis_limit(n), float(k.diagonal().max())
    process, truncation, check = Lanczos(k, with_random_columns(residual)), np.inf, 6
    earlier = process.depth, truncation
    while size > 0 and not process.complete and process.size <= limit:
        process.deepen()
        if process.depth < check and not process.complete:
            continue
        check_not_negative(process.ritz[0], rounding=error_norm(k.rounding, diagonal, n))
        if law.learning_rate is not None:
            _check_converges(float(process.ritz[0][-1]), law)
        truncation = _truncation(process, law, residual.shape[1]) / size
        if progress is not None:
            progress(process.depth, truncation)
        # The other half is for rounding.
        if truncation <= tolerance / 2:
            break
        check = _next_check(earlier, (process.depth, truncation), tolerance / 2)
        earlier = process.depth, truncation
    if process.complete or not size > 0:
        truncation = 0.0
    if process.depth:
        # A kernel has no negative eigenvalue, but its rounded entries may.
        weights = process.weights[:, : residual.shape[1]]
        modes = Modes(np.maximum(process.ritz[0], 0), process.basis[: process.multiplied].T, process.ritz[1], weights)
    else:
        modes = Modes(np.zeros(0), np.zeros((n, 0)), None, np.zeros((0, residual.shape[1])))
    storage = _storage(modes, law, k.rounding, diagonal)
    error = Error(truncation, storage)
    if not error.total <= tolerance:
        _warn(error, tolerance, k, _storage(modes, law, 0.0, 0.0))
    return modes, error


def _next_check(earlier: tuple[int, float], now: tuple[int, float], goal: float) -> int:
    """The depth at which to look again: most of the way to where the error's decay so far would reach the goal."""
    depth, error = now
    furthest = depth + max(1, depth // 3)
    if not 0 < error < earlier[1] < np.inf:
        return furthest
    rate = max(np.log(earlier[1] / error) / (depth - earlier[0]), 1e-6)
    return min(furthest, depth + ceil(0.8 * np.log(error / goal) / rate))


def _warn(error: Error, tolerance: float, k: KernelOperator, in_float64: float) -> None:
    why = f"{error.truncation:.1e} of it from stopping, {error.storage:.1e} from rounding"
    if error.truncation <= tolerance and k.rounding:
        enough = "would be enough" if in_float64 <= tolerance else f"would leave {in_float64:.1e}"
        # Entries that came in half precision, or are symmetric to so much only, are kept in float64.
        why += f" entries to {k.dtype}; float64 {enough}" if k.dtype != np.float64 else f" entries; float64 {enough}"
    elif error.truncation <= tolerance:
        why += "; no dtype has more"
    warnings.warn(
        f"Predictions may be wrong by {error.total:.1e} of norm(y - f0), above the tolerance {tolerance:.1e}: {why}.",
        stacklevel=7,
    )


def check_not_negative(values: np.ndarray, name: str = "k", rounding: float = 0.0) -> None:
    """Refuse a kernel that has a negative eigenvalue beyond rounding, which may be of this norm."""
    if values.size and values.min() < -max(NEGATIVE * np.abs(values).max(), rounding):
        raise ValueError(
            f"{name} has a negative eigenvalue, {values.min():.3g} or below, beside the largest, {values.max():.3g}, "
            "but a kernel has none."
        )


def _check_converges(lambda_max: float, law: Law) -> None:
    if law.learning_rate is not None and law.learning_rate * lambda_max > law.limit:
        factor = "2 (1 + momentum)" if law.momentum else "2"
        raise ValueError(
            f"learning_rate is {law.learning_rate:.6g}, above {factor} / lambda_max = {law.limit / lambda_max:.6g}, "
            'where descent diverges and products alone cannot follow it; use method="exact".'
        )


def _truncation(process: Lanczos, law: Law, outputs: int) -> float:
    """The integral of the norm of the defect up to the last time, all outputs together; for descent the sum."""
    values, end = np.maximum(process.ritz[0], 0), float(law.time.max())
    if process.complete or not end > 0:
        return 0.0
    eta = law.learning_rate
    if eta is None or (eta * values[-1] <= 1 and not law.momentum):
        time = _times_up_to(end, float(values[-1]))
        left = law.decay(values, time)
    else:
        # Modes that overshoot change sign from step to step: every step while they may last, then some.
        steps = np.unique(np.geomspace(1, max(1.0, end / eta), SAMPLES).round())
        steps = np.union1d(np.arange(min(SAMPLES, int(end / eta) + 1)), steps)
        time, left = eta * steps, descent_residual(values, eta, steps, law.momentum)
    weights = process.weights[:, :outputs]
    sizes = np.sqrt(sum(np.sum(((left * column) @ process.defect.T) ** 2, axis=1) for column in weights.T))
    return float(law.amplification * (np.trapezoid(sizes, time) + (0 if eta is None else eta * sizes[0])))


def _times_up_to(end: float, largest: float) -> Float[np.ndarray, " s"]:
    """Times that see every mode decay: from before the fastest by the logarithm."""
    first = min(end, 1e-3 / largest) if largest > 0 else end
    return np.concatenate([[0.0], np.geomspace(first, end, 2 + int(30 * np.log10(end / first)))])


def _storage(modes: Modes, law: Law, rounding: float, diagonal: float) -> float:
    """What rounding does up to the last time: the integral of norm(E r), E the error of K, over norm(r_0).

    Entries rounded independently give norm(E r) about rounding * norm(r) * (largest norm of a column), which is at most
    sqrt(lambda_max K_ii); float64 arithmetic adds eps lambda_max norm(r).
    """
    size, end = np.linalg.norm(modes.weights), float(law.time.max())
    if not size > 0 or not end > 0:
        return 0.0
    largest = float(modes.values.max())
    time = _times_up_to(end, largest)
    squares = np.sum(modes.weights**2, axis=1)
    left = np.sqrt(law.decay(modes.values, time) ** 2 @ squares) / size
    per_time = law.amplification * (rounding * np.sqrt(largest * diagonal) + EPS * largest)
    return float(per_time * np.trapezoid(left, time) + max(rounding, EPS))
