"""Closed-form learning curves of kernel modes under gradient flow and gradient descent on the squared loss."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Above the stability limit, gradient descent diverges, so infinite predictions are correct.
allow_overflow = np.errstate(over="ignore", invalid="ignore")


class Law(NamedTuple):
    """Dynamics of kernel modes, and the times at which to predict them.

    Attributes:
        time: Times, shape (s,).
        step: Integer gradient-descent steps, shape (s,), or None for gradient flow.
        learning_rate: Learning rate of gradient descent, or None for gradient flow.
        momentum: Momentum of gradient descent.
        ridge: Coefficient beta of the penalty 1/2 beta ||theta - theta_0||^2. In terms of c, with f = f_0 + K c, it
            adds beta c to the gradient. Along a mode with eigenvalue lambda, y - f_0 - (K + beta) c decays like an
            unpenalized residual with eigenvalue lambda + beta, and f - f_0 tends to lambda / (lambda + beta) times
            y - f_0.
    """

    time: Float[np.ndarray, " s"]
    step: Int[np.ndarray, " s"] | None = None
    learning_rate: float | None = None
    momentum: float = 0.0
    ridge: float = 0.0

    @property
    def amplification(self) -> float:
        """Upper bound 1 / (1 - mu) on the displacement of a mode by a unit impulse, at any later step.

        After j steps, the impulse has displaced the mode by s_j = sum_{i<j} z+^(j-1-i) z-^i, where z+ and z- are the
        characteristic roots and z+ z- = mu. If the mode is stable, the sum of the magnitudes of the terms is largest
        for |z+| = 1 and |z-| = mu, so |s_j| <= sum_i mu^i.
        """
        return 1 / (1 - self.momentum)

    @property
    def limit(self) -> float:
        """Largest value of learning_rate * (eigenvalue + ridge) for which gradient descent does not diverge."""
        return 2 * (1 + self.momentum)

    def growth(self, values: np.ndarray) -> np.ndarray:
        """Return the learned fraction of each mode at each time, shape (s, m)."""
        grown = self._growth(values + self.ridge)
        # A mode with eigenvalue zero is not learned, even if its coefficient diverges.
        return np.where(values == 0, 0.0, grown * (values / (values + self.ridge))) if self.ridge else grown

    def coefficients(self, values: np.ndarray) -> np.ndarray:
        """Return the learned fraction of each mode divided by its eigenvalue, shape (s, m).

        The result is zero where the eigenvalue is zero, because such a mode does not affect the predictions. If
        K = Z Z' and v is the eigenvector of the mode, then Z' v = 0, so the product of the test kernel Z_test Z' with v
        is zero too.
        """
        zero = values == 0
        return np.where(zero, 0.0, self._growth(values + self.ridge) / np.where(zero, 1.0, values + self.ridge))

    def _growth(self, rates: np.ndarray) -> np.ndarray:
        """Return 1 minus the decay of modes with the given rates (eigenvalue + ridge), shape (s, m)."""
        if self.learning_rate is None or self.step is None:
            # A mode whose rate is zero is not learned, even at infinite time.
            return -np.expm1(-np.outer(np.minimum(self.time, np.finfo(float).max), rates))
        return descent_growth(rates, self.learning_rate, self.step, self.momentum)

    def decay(self, values: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Return the magnitude of the undecayed fraction of each mode at arbitrary times, shape (len(time), m).

        With a ridge, the decaying quantity is y - f_0 - (K + beta) c.
        """
        values = values + self.ridge
        if self.learning_rate is None:
            return np.exp(-np.outer(time, values))
        if self.momentum:
            return np.abs(
                descent_residual(values, self.learning_rate, np.round(time / self.learning_rate), self.momentum)
            )
        return _power(np.abs(1 - self.learning_rate * values), time / self.learning_rate)

    def remaining(self, values: np.ndarray) -> np.ndarray:
        """Return the signed unlearned fraction of each mode at each time, shape (s, m)."""
        shifted = values + self.ridge
        if self.learning_rate is None or self.step is None:
            left = np.exp(-np.outer(np.minimum(self.time, np.finfo(float).max), shifted))
        else:
            left = descent_residual(shifted, self.learning_rate, self.step, self.momentum)
        if not self.ridge:
            return left
        return (values * left + self.ridge) / shifted


@allow_overflow
def descent_growth(
    values: np.ndarray, learning_rate: float, steps: np.ndarray, momentum: float = 0.0
) -> Float[np.ndarray, "s m"]:
    """Return the learned fraction of each mode after k steps, computed without cancellation.

    The fraction is 1 - (1 - eta lambda_i)^k for plain gradient descent. With momentum, the fraction is 1 - r_k, where
    r_{k+1} = (1 + mu - eta lambda) r_k - mu r_{k-1} and r_0 = r_{-1} = 1 (Polyak 1964, equation (9)).
    """
    contraction = learning_rate * values
    if momentum:
        return _momentum_growth(contraction, momentum, np.asarray(steps, np.float64)[:, None])
    safe = np.where(contraction < 1, contraction, 0.5)
    slow = -np.expm1(np.multiply.outer(steps, np.log1p(-safe)))
    fast = 1 - np.power.outer(1 - contraction, steps).T
    return np.where(contraction < 1, slow, fast)


def descent_residual(
    values: np.ndarray, learning_rate: float, steps: np.ndarray, momentum: float
) -> Float[np.ndarray, "s m"]:
    """Return the signed unlearned fraction of each mode after k steps."""
    if momentum:
        return 1 - descent_growth(values, learning_rate, steps, momentum)
    factor = 1 - learning_rate * values
    return np.where(np.outer(steps % 2, factor) < 0, -1, 1) * _power(np.abs(factor), steps)


def _power(factor: np.ndarray, steps: np.ndarray) -> Float[np.ndarray, "s m"]:
    """Return factor^steps, computed several times faster than with numpy.power."""
    return np.exp(np.outer(steps, np.log(np.maximum(factor, np.finfo(float).tiny))))


def _momentum_growth(a: np.ndarray, mu: float, k: np.ndarray) -> np.ndarray:
    """Return the learned fraction 1 - r_k of each mode after k steps, given a = eta lambda for each mode.

    The unlearned fraction is r_k = s_{k+1} - mu s_k, where s_k = (z+^k - z-^k) / (z+ - z-) and where z+ and z- are the
    roots of z^2 - (1 + mu - a) z + mu. The roots are complex for a between (1 - q)^2 and (1 + q)^2, with q = sqrt(mu).
    """
    q = np.sqrt(mu)
    near, far = ((1 - mu) / (1 + q)) ** 2, (1 + q) ** 2
    grown = np.empty((len(k), len(a)))
    branches = (
        (a <= near, _growth_at_positive_roots),
        ((a > near) & (a < far), _growth_at_complex_roots),
        (a >= far, _growth_at_negative_roots),
    )
    for columns, branch in branches:
        grown[:, columns] = branch(a[columns], mu, q, near, far, k)
    return grown


def _growth_at_positive_roots(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Return 1 - r_k as (1 - z+) (sum_{i<k} z+^i - z- s_k), in the notation of `_momentum_growth`.

    The factor 1 - z+ is computed accurately even for small a.
    """
    between = np.sqrt((near - a) * (far - a))
    short = 2 * a / (1 - mu + a + between)
    largest = 1 - short
    s = np.exp((k - 1) * np.log1p(-short)) * _geometric(between / largest, k)
    return short * (_geometric(short, k) - mu / largest * s)


def _growth_at_complex_roots(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Return 1 - r_k, in the notation of `_momentum_growth`, for the roots +-q exp(+-i psi), 0 < psi <= pi / 2."""
    # The formulas in terms of psi / 2 are accurate near both double roots.
    forward = a <= 1 + mu
    sine, cosine = (np.sqrt(np.where(forward, x, y) / (4 * q)) for x, y in ((a - near, far - a), (far - a, a - near)))
    psi = 2 * np.arctan2(sine, cosine)
    wave, shrunk = np.sin(k * psi) / (2 * sine * cosine), k * np.log(mu) / 2
    size = np.exp(shrunk)
    swing = 2 * np.sin(k * psi / 2) ** 2 - wave * ((1 - mu) / (1 + q) - 2 * sine**2)
    ahead = -np.expm1(shrunk) + size * swing
    back = 1 - _sign(k) * size * (np.cos(k * psi) + wave * (np.cos(psi) + q))
    return np.where(forward, ahead, back)


def _growth_at_negative_roots(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Return 1 - r_k, in the notation of `_momentum_growth`, for negative roots.

    Modes with a > 2 (1 + mu) diverge.
    """
    between = np.sqrt((a - near) * (a - far))
    largest = (a - 1 - mu + between) / 2
    gap = between / largest
    return 1 - _sign(k) * largest**k * (_geometric(gap, k + 1) + mu / largest * _geometric(gap, k))


def _geometric(gap: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return sum_{i<k} (1 - gap)^i."""
    # For a gap of 1, log1p(-gap) would be the logarithm of 0.
    safe = np.where(gap == 0, 0.5, np.minimum(gap, 1 - np.finfo(float).eps))
    return np.where(gap == 0, k, -np.expm1(k * np.log1p(-safe)) / safe)


def _sign(k: np.ndarray) -> np.ndarray:
    return 1 - 2 * (k % 2)


def zero_below_rounding(values: Float[np.ndarray, " m"], n: int, rounding: float = 0.0) -> Float[np.ndarray, " m"]:
    """Return the eigenvalues of a kernel, with those that are zero up to rounding set to zero.

    Args:
        values: Eigenvalues, shape (m,).
        n: Number of rows of the kernel.
        rounding: Estimated spectral norm of the rounding errors in the kernel's entries.
    """
    if not values.size:
        return values
    return np.where(values > max(n * np.finfo(float).eps * values.max(), rounding), values, 0.0)
