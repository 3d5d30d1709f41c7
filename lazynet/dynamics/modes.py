"""Which modes of the kernel a residual excites: all of them by diagonalising, or the few that matter by Lanczos.

A basis of depth m predicts a residual r~(t) that obeys r~' = -K r~ up to the defect beta |e_m' q(t)| along the next
basis vector, q(t) the coordinates of r~. Kernel dynamics never amplify (eta lambda <= 2), so the error at time t is at
most the integral of the defect up to t: a bound, not a guess, and it needs nothing but T (for descent the integral is
a sum; Saad 1992, section 4, for the exponential).
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.dynamics.laws import Law, descent_residual
from lazynet.kernels import Error, KernelOperator, Spectrum, dense_operator, largest_eigenvalue_of, spectrum
from lazynet.kernels.krylov import Column, Lanczos
from lazynet.plan import available_memory, check_fits
from lazynet.typing import SquareKernel

EXACT = 1000  # up to so many examples all modes are found about as quickly as the few
DEPTH = 1000  # the deepest basis
SAMPLES = 1000  # steps at which a defect that changes sign is looked at: the first, and as many by the logarithm
NEGATIVE = 1e-6  # an eigenvalue more negative than this share of the largest is not rounding
EPS = np.finfo(float).eps / 2
TOLERANCE = {"float64": 1e-5, "float32": 1e-4}


class Modes(NamedTuple):
    """Eigenvalues (m,), vectors (n, m) and what one output's residual has along each, (m,)."""

    values: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray


def modes_of(
    k: SquareKernel | Spectrum | KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> tuple[list[Modes], Error]:
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
        check_not_negative(found.values)
        weights = found.vectors.T @ residual
        modes = [Modes(*found, column) for column in weights.T]
        return modes, Error(0.0, _storage(modes, law, rounding, diagonal))
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    return _by_krylov(operator, residual, law, tolerance or TOLERANCE[operator.dtype.name], progress)


def check_tolerance(tolerance: float | None) -> None:
    """Refuse a tolerance that is not positive."""
    if tolerance is not None and not 0 < tolerance < np.inf:
        raise ValueError(f"tolerance is {tolerance}, but must be positive and finite.")


def _by_krylov(
    k: KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    tolerance: float,
    progress: Callable[[int, float], None] | None,
) -> tuple[list[Modes], Error]:
    size = float(np.linalg.norm(residual))
    # Two bases' worth: the vectors, and the modes made of them.
    check_fits(f"A Krylov basis of {len(residual)} rows", 2 * 8 * 64 * residual.size, available_memory())
    if law.learning_rate is not None and size > 0:
        # Asked of a random vector, because the residual may have next to nothing along the largest.
        _check_converges(largest_eigenvalue_of(k, k.n), law)
    process, truncation, check = Lanczos(k, residual), np.inf, 8
    limit = min(DEPTH, int(available_memory() / (2 * 8 * residual.size)))
    while not process.complete and process.depth < limit:
        process.deepen()
        if process.depth < check and not process.complete:
            continue
        check = process.depth + max(2, process.depth // 20)
        for column in process.columns:
            if column.depth:
                check_not_negative(column.ritz[0])
        truncation = float(np.linalg.norm([_truncation(column, law) for column in process.columns])) / size
        if progress is not None:
            progress(process.depth, truncation)
        # The other half is for rounding.
        if truncation <= tolerance / 2:
            break
    if process.complete:
        truncation = 0.0
    # A kernel has no negative eigenvalue, but its rounded entries may.
    spectra = [column.spectrum() for column in process.columns]
    modes = [
        Modes(np.maximum(values, 0), vectors, column.weights)
        for (values, vectors), column in zip(spectra, process.columns, strict=True)
    ]
    storage = _storage(modes, law, k.rounding, float(k.diagonal().max()))
    error = Error(truncation, storage)
    if not error.total <= tolerance:
        _warn(error, tolerance, k, _storage(modes, law, 0.0, 0.0))
    return modes, error


def _warn(error: Error, tolerance: float, k: KernelOperator, in_float64: float) -> None:
    why = f"{error.truncation:.1e} of it from stopping, {error.storage:.1e} from rounding"
    if error.truncation <= tolerance and k.rounding:
        enough = "would be enough" if in_float64 <= tolerance else f"would leave {in_float64:.1e}"
        why += f" entries to {k.dtype}; float64 {enough}"
    elif error.truncation <= tolerance:
        why += "; no dtype has more"
    warnings.warn(
        f"Predictions may be wrong by {error.total:.1e} of norm(y - f0), above the tolerance {tolerance:.1e}: {why}.",
        stacklevel=6,
    )


def check_not_negative(values: np.ndarray) -> None:
    """Refuse a kernel with these eigenvalues if one of them is negative beyond rounding."""
    if values.size and values.min() < -NEGATIVE * np.abs(values).max():
        raise ValueError(
            f"k has a negative eigenvalue, {values.min():.3g} or below, beside the largest, {values.max():.3g}, but a "
            "kernel has none."
        )


def _check_converges(lambda_max: float, law: Law) -> None:
    if law.learning_rate is not None and law.learning_rate * lambda_max > law.limit:
        factor = "2 (1 + momentum)" if law.momentum else "2"
        raise ValueError(
            f"learning_rate is {law.learning_rate:.6g}, above {factor} / lambda_max = {law.limit / lambda_max:.6g}, "
            'where descent diverges and products alone cannot follow it; use method="exact".'
        )


def _truncation(column: Column, law: Law) -> float:
    """The integral of the defect up to the last time; of one sign where no mode overshoots, so that it is a sum."""
    if column.complete:
        return 0.0
    values, defect, end = np.maximum(column.ritz[0], 0), column.weights * column.defect, float(law.time.max())
    if law.learning_rate is None or (law.learning_rate * values.max() <= 1 and not law.momentum):
        decay = law.decay(values, np.array([end]))[0]
        zero = np.abs(values) * end < 1e-8
        return float(abs(np.sum(defect * np.where(zero, end, (1 - decay) / np.where(zero, 1.0, values)))))
    # Modes that overshoot change sign from step to step: every step while they may last, then by the trapezoid rule.
    eta = law.learning_rate
    steps = np.unique(np.geomspace(1, max(1.0, end / eta), SAMPLES).round())
    steps = np.union1d(np.arange(min(SAMPLES, int(end / eta) + 1)), steps)
    sizes = np.abs(descent_residual(values, eta, steps, law.momentum) @ defect)
    return float(law.amplification * eta * (np.trapezoid(sizes, steps) + sizes[0]))


def _storage(modes: list[Modes], law: Law, rounding: float, diagonal: float) -> float:
    """What rounding does up to the last time: the integral of norm(E r), E the error of K, over norm(r_0).

    Entries rounded independently give norm(E r) about rounding * norm(r) * (largest norm of a column), which is at most
    sqrt(lambda_max K_ii); float64 arithmetic adds eps lambda_max norm(r).
    """
    size = np.sqrt(sum(np.sum(mode.weights**2) for mode in modes))
    largest = max((float(mode.values.max()) for mode in modes if mode.values.size), default=0.0)
    end = float(law.time.max())
    if not size > 0 or not end > 0:
        return 0.0
    time = np.concatenate([[0.0], np.geomspace(end * 1e-9, end, 300)])
    left = np.sqrt(sum(np.sum((mode.weights * law.decay(mode.values, time)) ** 2, axis=1) for mode in modes)) / size
    per_time = law.amplification * (rounding * np.sqrt(largest * diagonal) + EPS * largest)
    return float(per_time * np.trapezoid(left, time) + max(rounding, EPS))
