"""Kernel modes that contribute to a residual, found by full diagonalization or by the Lanczos process.

A Krylov basis yields an approximate residual r~(t) that satisfies dr~/dt = -K r~ up to a defect along the next block
of the basis. The defect can be computed from the coordinates of r~ alone. Gradient flow and stable gradient descent
(eta lambda <= 2 without momentum) do not amplify errors. For gradient flow, the error at time t is therefore at most
the integral of the norm of the defect from 0 to t (see Saad 1992, section 4, on the matrix exponential). For gradient
descent, the integral becomes a sum over steps, and momentum multiplies the bound by 1 / (1 - mu). If there are too many
steps to sum over, the trapezoid rule estimates the sum.

With a ridge beta, r~ denotes y - f_0 - (K + beta) c, which decays with K + beta. If a mode with eigenvalue lambda has
since decayed by the factor x, an earlier defect changes f_0 + K c by x + (1 - x) beta / (lambda + beta) times the
defect. The magnitude of this factor is at most 1, so the same bound holds.
"""

import warnings
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.arguments import check_choice
from lazynet.dynamics._laws import Law, descent_residual, zero_below_rounding
from lazynet.kernels import (
    EPS,
    Error,
    KernelOperator,
    Lanczos,
    Spectrum,
    basis_limit,
    check_tolerance,
    dense_operator,
    error_norm,
    narrow_products,
    spectrum,
    with_random_columns,
)
from lazynet.typing import SquareKernel

EXACT = 1000  # maximum number of examples for which diagonalization is about as fast as Lanczos
SAMPLES = 1000  # number of initial steps, and number of log-spaced steps, at which an oscillating defect is sampled
# Negative eigenvalues whose magnitude is at most this fraction of the largest magnitude are attributed to rounding.
NEGATIVE = 1e-6
MOMENTS = 16  # maximum number of points in time at which the sensitivity of oscillating modes is computed
FORGOTTEN = 50.0  # product of time and eigenvalue beyond which a mode has fully decayed in float64
TOLERANCE = {"float64": 1e-5, "float32": 1e-4}


class Modes(NamedTuple):
    """Kernel modes, and the residuals along them.

    Attributes:
        values: Eigenvalues, shape (m,).
        basis: Orthonormal basis, shape (n, m).
        rotation: Coordinates of the eigenvectors in the basis, as columns, shape (m, m), or None if the basis vectors
            are themselves the eigenvectors.
        weights: Components of the k residuals along the eigenvectors, shape (m, k).
    """

    values: np.ndarray
    basis: np.ndarray
    rotation: np.ndarray | None
    weights: np.ndarray

    def combined(self, shares: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Return the residuals with their modes scaled by `shares`.

        Args:
            shares: Factors by which the modes are scaled, shape (s, m).
            basis: The basis, or the product of the test kernel with the basis, shape (rows, m).

        Returns:
            Residuals, shape (s, rows, k).
        """
        modes, outputs = self.weights.shape
        parts = (shares * self.weights.T[:, None, :]).reshape(outputs * len(shares), modes)
        if self.rotation is not None:
            parts = parts @ self.rotation.T
        return np.moveaxis((parts @ basis.T).reshape(outputs, len(shares), len(basis)), 0, -1)


def excited_modes(
    k: SquareKernel | Spectrum | KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    method: str | None,
    tolerance: float | None,
    progress: Callable[[int, float], None] | None,
) -> tuple[Modes, Error]:
    """Return the kernel modes that the residuals excite, and the error in predictions computed from these modes.

    Raises:
        ValueError: If an argument is invalid; see `lazynet.kernel_descent`.
    """
    check_choice("method", method, ("exact", "krylov"), optional=True)
    check_tolerance(tolerance)
    if isinstance(k, Spectrum) and method == "krylov":
        raise ValueError(
            f"method must be 'exact' or None for a Spectrum, got {method!r}. To use {method!r}, pass the kernel itself."
        )
    if isinstance(k, Spectrum) or method == "exact" or (method is None and len(residual) <= EXACT):
        if isinstance(k, Spectrum):
            operator, eigen, rounding, diagonal = None, k, 0.0, 0.0
        else:
            operator = k if isinstance(k, KernelOperator) else dense_operator(k)
            eigen = spectrum(operator.dense())
            rounding, diagonal = operator.rounding, float(operator.diagonal().max())
        norm = error_norm(rounding, diagonal, len(residual))
        check_not_negative(eigen.values, rounding=norm)
        values = zero_below_rounding(eigen.values, len(residual), norm)
        modes = Modes(values, eigen.vectors, None, eigen.vectors.T @ residual)
        error = Error(0.0, _storage_error(modes, law, rounding, diagonal))
        allowed = tolerance or TOLERANCE["float32" if rounding else "float64"]
        # Predictions that diverge have no meaningful error.
        if not error.total <= allowed and _converges(float(values.max(initial=0.0)), law):
            _warn_of_error(error, allowed, operator, _storage_error(modes, law, 0.0, 0.0), stacklevel=6)
        return modes, error
    operator = k if isinstance(k, KernelOperator) else dense_operator(k)
    with narrow_products():
        return _krylov_modes(operator, residual, law, tolerance or TOLERANCE[operator.dtype.name], progress)


def _krylov_modes(
    k: KernelOperator,
    residual: Float[np.ndarray, "n k"],
    law: Law,
    tolerance: float,
    progress: Callable[[int, float], None] | None,
) -> tuple[Modes, Error]:
    n, size = len(residual), float(np.linalg.norm(residual))
    limit, diagonal = basis_limit(n), float(k.diagonal().max())
    process, truncation, next_check = Lanczos(k, with_random_columns(residual)), np.inf, 6
    previous = process.depth, truncation
    while size > 0 and not process.complete and process.size <= limit:
        process.deepen()
        if process.depth < next_check and not process.complete:
            continue
        check_not_negative(process.ritz[0], rounding=error_norm(k.rounding, diagonal, n))
        if law.learning_rate is not None:
            _check_converges(float(process.ritz[0][-1]), law)
        truncation = _truncation_error(process, law, residual.shape[1]) / size
        if progress is not None:
            progress(process.depth, truncation)
        # Half of the tolerance is reserved for rounding error.
        if truncation <= tolerance / 2:
            break
        next_check = _next_check(previous, (process.depth, truncation), tolerance / 2)
        previous = process.depth, truncation
    if process.complete or not size > 0:
        truncation = 0.0
    if process.depth:
        weights = process.weights[:, : residual.shape[1]]
        values = zero_below_rounding(process.ritz[0], n, error_norm(k.rounding, diagonal, n))
        modes = Modes(values, process.basis[: process.multiplied].T, process.ritz[1], weights)
    else:
        modes = Modes(np.zeros(0), np.zeros((n, 0)), None, np.zeros((0, residual.shape[1])))
    storage = _storage_error(modes, law, k.rounding, diagonal)
    error = Error(truncation, storage)
    if not error.total <= tolerance:
        _warn_of_error(error, tolerance, k, _storage_error(modes, law, 0.0, 0.0), stacklevel=7)
    return modes, error


def _next_check(previous: tuple[int, float], current: tuple[int, float], goal: float) -> int:
    """Return the next depth at which to check the error, 80% of the way to the depth expected to meet the goal."""
    depth, error = current
    furthest = depth + max(1, depth // 3)
    if not 0 < error < previous[1] < np.inf:
        return furthest
    rate = max(np.log(previous[1] / error) / (depth - previous[0]), 1e-6)
    return min(furthest, depth + ceil(0.8 * np.log(error / goal) / rate))


def _warn_of_error(
    error: Error, tolerance: float, k: KernelOperator | None, storage_in_float64: float, stacklevel: int
) -> None:
    advice = ""
    if error.truncation <= tolerance and k is not None and k.rounding:
        sufficient = storage_in_float64 <= tolerance
        # A kernel stored in float64 may have entries that were computed at lower precision.
        stored = f"is stored in {k.dtype}" if k.dtype != np.float64 else "has rounded entries"
        advice = f" The kernel {stored}; with float64 entries, the error would be " + (
            "within the tolerance." if sufficient else f"{storage_in_float64:.1e}."
        )
    elif error.truncation <= tolerance:
        advice = " The kernel is already stored at the highest precision."
    warnings.warn(
        f"The predictions have an estimated error of {error.total:.1e} relative to norm(y - f0), above the tolerance "
        f"of {tolerance:.1e}: {error.truncation:.1e} from truncation and {error.storage:.1e} from rounding.{advice}",
        stacklevel=stacklevel,
    )


def check_not_negative(values: np.ndarray, name: str = "k", rounding: float = 0.0) -> None:
    """Check that no eigenvalue is more negative than rounding errors of the given norm can explain.

    Args:
        values: Eigenvalues, shape (m,).
        name: Name of the kernel in the error message.
        rounding: Estimated spectral norm of the rounding errors in the kernel.

    Raises:
        ValueError: If an eigenvalue is negative and its magnitude exceeds both `rounding` and 1e-6 times the largest
            eigenvalue magnitude.
    """
    if values.size and values.min() < -max(NEGATIVE * np.abs(values).max(), rounding):
        raise ValueError(
            f"{name} must be positive semidefinite, got eigenvalues ranging from {values.min():.3g} to "
            f"{values.max():.3g}."
        )


def _converges(lambda_max: float, law: Law) -> bool:
    return law.learning_rate is None or bool(law.learning_rate * (lambda_max + law.ridge) <= law.limit)


def _check_converges(lambda_max: float, law: Law) -> None:
    if law.learning_rate is not None and not _converges(lambda_max, law):
        factor = "2 (1 + momentum)" if law.momentum else "2"
        largest = "(lambda_max + ridge)" if law.ridge else "lambda_max"
        raise ValueError(
            f"learning_rate must be at most {factor} / {largest} = {law.limit / (lambda_max + law.ridge):.6g} for "
            f"method='krylov', got {law.learning_rate:.6g}. Use method='exact' to predict divergence."
        )


def _truncation_error(process: Lanczos, law: Law, outputs: int) -> float:
    """Return the norm of the defect over all outputs, integrated over time or, for gradient descent, summed over steps.

    With momentum, the sum is multiplied by 1 / (1 - mu).
    """
    values = np.maximum(process.ritz[0], 0)
    end = _last_time(values, law)
    if process.complete or not end > 0:
        return 0.0
    eta = law.learning_rate
    largest = float(values[-1]) + law.ridge
    if eta is None or (eta * largest <= 1 and not law.momentum):
        time = _decay_times(end, largest)
        left = law.decay(values, time)
    else:
        # Overshooting modes change sign at every step, so all early steps are sampled; later samples are increasingly
        # far apart.
        steps = np.unique(np.geomspace(1, max(1.0, end / eta), SAMPLES).round())
        steps = np.union1d(np.arange(min(SAMPLES, int(end / eta) + 1)), steps)
        time, left = eta * steps, descent_residual(values + law.ridge, eta, steps, law.momentum)
    weights = process.weights[:, :outputs]
    sizes = np.sqrt(sum(np.sum(((left * column) @ process.defect.T) ** 2, axis=1) for column in weights.T))
    return float(law.amplification * (np.trapezoid(sizes, time) + (0 if eta is None else eta * sizes[0])))


def _last_time(values: np.ndarray, law: Law) -> float:
    """Return the last time or, if earlier, the time by which gradient flow has learned all modes that it can learn."""
    end, positive = float(law.time.max()), values[values + law.ridge > 0] + law.ridge
    return min(end, FORGOTTEN / positive.min()) if law.learning_rate is None and positive.size else end


def _decay_times(end: float, largest: float) -> Float[np.ndarray, " s"]:
    """Return 0 followed by logarithmically spaced times that start before the fastest mode decays."""
    first = min(end, 1e-3 / largest) if largest > 0 else end
    return np.concatenate([[0.0], np.geomspace(first, end, 2 + int(30 * np.log10(end / first)))])


def _storage_error(modes: Modes, law: Law, rounding: float, diagonal: float) -> float:
    """Return the error caused by rounding, which changes K to K + E, as a fraction of norm(r_0).

    The change in the residual r at time t is at most the integral of norm(E r) up to t. If the entries of K are rounded
    independently, norm(E r) is about rounding * norm(r) times the largest column norm, which is at most
    sqrt(lambda_max max_i K_ii). The computed eigenvalues and eigenvectors are exact for a matrix that differs from K by
    at most `backward_error(n)` lambda_max, which adds `backward_error(n)` lambda_max norm(r) to the integrand.
    """
    size, positive = np.linalg.norm(modes.weights), modes.values[modes.values > 0]
    if not size > 0 or not positive.size:
        return 0.0
    # A residual along a mode with eigenvalue zero does not decay, but the errors that it causes in other modes decay at
    # those modes' rates. Zero eigenvalues are therefore replaced by the smallest positive eigenvalue.
    values = np.maximum(modes.values, positive.min())
    end = _last_time(values, law)
    if not end > 0:
        return 0.0
    largest, squares = float(values.max()), np.sum(modes.weights**2, axis=1)
    time = _decay_times(end, largest + law.ridge)
    left = law.decay(values, time)
    if law.momentum:
        integral = np.sqrt(_sensitivity(modes.values, law, np.trapezoid(left, time, axis=0)) ** 2 @ squares)
    else:
        integral = np.trapezoid(np.sqrt(left**2 @ squares), time)
    arithmetic = backward_error(len(modes.basis))
    error = rounding * np.sqrt(largest * diagonal) + arithmetic * largest
    return float(error * integral / size + max(rounding, arithmetic))


def _sensitivity(values: np.ndarray, law: Law, integral: np.ndarray) -> Float[np.ndarray, " m"]:
    """Return an estimate of how much the residual along each mode changes per unit change in the kernel.

    Let p_i be the unlearned fraction of mode i at a given time. To first order, a change E in the kernel changes the
    residual along mode i by E_ij (p_i - p_j) / (lambda_i - lambda_j) times the initial residual along mode j, summed
    over all j (Higham 2008, "Functions of matrices", theorem 3.11). With momentum, modes oscillate, and this quotient
    is usually far smaller than the integral of |p_i| over time, which serves as an upper bound if eigenvalues are
    close.

    Args:
        values: Eigenvalues, shape (m,).
        law: Dynamics of the modes.
        integral: Integral over time of |p_i| for each mode, shape (m,).
    """
    chosen = np.unique(np.linspace(0, len(law.time) - 1, MOMENTS).round().astype(int))
    gaps = np.abs(values[:, None] - values)
    np.fill_diagonal(gaps, np.inf)
    largest = np.zeros(len(values))
    for i in chosen:
        once = law._replace(time=law.time[i : i + 1], step=None if law.step is None else law.step[i : i + 1])
        # Amount by which each eigenvalue is increased, small enough that the phase of its mode hardly changes.
        step = values * 1e-5 / max(float(law.time[i]) * values.max(), 1.0)
        grown, after = once.growth(values)[0], once.growth(values + step)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.abs(grown[:, None] - grown) / gaps
            # Eigenvalues that were set to zero are not increased.
            within = np.where(values > 0, np.abs(after - grown) / step, 0.0)
        between = np.where(gaps > 0, between, np.where(values > 0, np.inf, 0.0))
        largest = np.fmax(largest, np.fmax(between.max(axis=0), within))
    return np.minimum(largest, law.amplification * integral)


def backward_error(n: int) -> float:
    """Return the relative backward error of the eigendecomposition of an n x n matrix in float64.

    LAPACK guarantees only that the error is at most a modestly growing function of n. For n from 5 to 400 and
    for uniform, clustered and power-law spectra, the largest measured values of norm(V L V' - K) / norm(K) and
    norm(V'V - I) were between 10 and 28 times the unit roundoff and grew roughly as n^(1/4). The value returned is at
    least 1.5 times these measured values.
    """
    return 12 * n**0.25 * EPS
