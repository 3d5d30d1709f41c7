"""How each mode of a kernel is learned under the squared loss: closed forms in time for flow, descent and momentum."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lazynet.kernels import Spectrum

# A learning rate beyond the limit diverges, which is the true answer and not an error.
may_diverge = np.errstate(over="ignore", invalid="ignore")


class Law(NamedTuple):
    """How modes are learned.

    Attributes:
        time: (s,) times.
        step: (s,) integers for descent, None for flow.
        learning_rate: of descent, None for flow.
        momentum: of descent.
    """

    time: Float[np.ndarray, " s"]
    step: Int[np.ndarray, " s"] | None = None
    learning_rate: float | None = None
    momentum: float = 0.0

    @property
    def amplification(self) -> float:
        """What a push of size 1 at one step may come to later: 1 / (1 - mu).

        It moves a mode by s_j = sum_{i<j} z+^(j-1-i) z-^i, with z+ z- = mu. Where the mode is stable, the mean of the
        terms is largest for |z+| = 1, so that |s_j| <= sum mu^i.
        """
        return 1 / (1 - self.momentum)

    @property
    def limit(self) -> float:
        """The largest learning_rate * eigenvalue that does not diverge."""
        return 2 * (1 + self.momentum)

    def growth(self, values: np.ndarray) -> np.ndarray:
        """The share of each mode that is learned at the times, (s, m)."""
        if self.learning_rate is None or self.step is None:
            return -np.expm1(-np.outer(self.time, values))
        return descent_growth(values, self.learning_rate, self.step, self.momentum)

    def slope(self) -> Float[np.ndarray, " s"]:
        """The derivative of `growth` at the eigenvalue zero, (s,)."""
        if self.learning_rate is None or self.step is None or not self.momentum:
            return self.time
        left = -np.expm1(self.step * np.log(self.momentum)) * self.amplification
        return self.learning_rate * self.amplification * (self.step - self.momentum * left)

    def decay(self, values: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The size of what is left of each mode, (len(time), m), at any time."""
        if self.learning_rate is None:
            return np.exp(-np.outer(time, values))
        if self.momentum:
            return np.abs(
                descent_residual(values, self.learning_rate, np.round(time / self.learning_rate), self.momentum)
            )
        return _power(np.abs(1 - self.learning_rate * values), time / self.learning_rate)


@may_diverge
def descent_growth(
    values: np.ndarray, learning_rate: float, steps: np.ndarray, momentum: float = 0.0
) -> Float[np.ndarray, "s m"]:
    """The share of each mode that is learned after k steps, without cancellation.

    1 - (1 - eta lambda_i)^k for plain descent; with momentum 1 - r_k, where
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
    """What is left of each mode after k steps, with its sign."""
    if momentum:
        return 1 - descent_growth(values, learning_rate, steps, momentum)
    factor = 1 - learning_rate * values
    return np.where(np.outer(steps % 2, factor) < 0, -1, 1) * _power(np.abs(factor), steps)


def _power(factor: np.ndarray, steps: np.ndarray) -> Float[np.ndarray, "s m"]:
    """factor^steps, several times faster than by NumPy's own power."""
    return np.exp(np.outer(steps, np.log(np.maximum(factor, np.finfo(float).tiny))))


def _momentum_growth(a: np.ndarray, mu: float, k: np.ndarray) -> np.ndarray:
    """1 - r_k from the roots of z^2 - (1 + mu - a) z + mu, which are real up to (1 - q)^2, q = sqrt(mu).

    With s_k = (z+^k - z-^k) / (z+ - z-), r_k = s_{k+1} - mu s_k.
    """
    q = np.sqrt(mu)
    near, far = ((1 - mu) / (1 + q)) ** 2, (1 + q) ** 2
    grown = np.empty((len(k), len(a)))
    for chosen, branch in ((a <= near, _slow), ((a > near) & (a < far), _swinging), (a >= far, _fast)):
        grown[:, chosen] = branch(a[chosen], mu, q, near, far, k)
    return grown


def _slow(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Two positive roots: (1 - z+) (sum_{i<k} z+^i - z- s_k), whose factor is exact for small a."""
    between = np.sqrt((near - a) * (far - a))
    short = 2 * a / (1 - mu + a + between)
    largest = 1 - short
    s = np.exp((k - 1) * np.log1p(-short)) * _geometric(between / largest, k)
    return short * (_geometric(short, k) - mu / largest * s)


def _swinging(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Roots +-q exp(+-i psi), psi up to pi / 2, from its half, which is exact near both double roots."""
    forward = a <= 1 + mu
    sine, cosine = (np.sqrt(np.where(forward, x, y) / (4 * q)) for x, y in ((a - near, far - a), (far - a, a - near)))
    psi = 2 * np.arctan2(sine, cosine)
    wave, shrunk = np.sin(k * psi) / (2 * sine * cosine), k * np.log(mu) / 2
    size = np.exp(shrunk)
    swing = 2 * np.sin(k * psi / 2) ** 2 - wave * ((1 - mu) / (1 + q) - 2 * sine**2)
    ahead = -np.expm1(shrunk) + size * swing
    back = 1 - _sign(k) * size * (np.cos(k * psi) + wave * (np.cos(psi) + q))
    return np.where(forward, ahead, back)


def _fast(a: np.ndarray, mu: float, q: float, near: float, far: float, k: np.ndarray) -> np.ndarray:
    """Two negative roots, one of them beyond -1 from a = 2 (1 + mu) on."""
    between = np.sqrt((a - near) * (a - far))
    largest = (a - 1 - mu + between) / 2
    gap = between / largest
    return 1 - _sign(k) * largest**k * (_geometric(gap, k + 1) + mu / largest * _geometric(gap, k))


def _geometric(gap: np.ndarray, k: np.ndarray) -> np.ndarray:
    """sum_{i<k} (1 - gap)^i."""
    # A gap of 1 would ask for the logarithm of 0.
    safe = np.where(gap == 0, 0.5, np.minimum(gap, 1 - np.finfo(float).eps))
    return np.where(gap == 0, k, -np.expm1(k * np.log1p(-safe)) / safe)


def _sign(k: np.ndarray) -> np.ndarray:
    return 1 - 2 * (k % 2)


@may_diverge
def linearized_displacement(k: Spectrum, residual: np.ndarray, learning_rate: float, steps: np.ndarray) -> np.ndarray:
    """Distance that the parameters of the linearized network move in k steps, (s,).

    sqrt(sum_i (1 - (1 - eta lambda_i)^k)^2 (v_i' r_0)^2 / lambda_i): the norm of eta Z r summed over steps (Arora et
    al. 2019, section 5.2, where k goes to infinity and the value to sqrt(y' K^-1 y)).
    """
    grown = descent_growth(k.values, learning_rate, steps)
    modes = np.sum((k.vectors.T @ residual.reshape(len(residual), -1)) ** 2, axis=1)
    squares = grown * over_eigenvalue(grown, k.values, learning_rate * steps) * modes
    # An eigenvalue that rounding made negative must not make a norm imaginary.
    return np.sqrt(np.maximum(np.sum(squares, axis=1), 0))


def over_eigenvalue(grown: np.ndarray, values: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """grown / lambda, and its limit, the slope, where an eigenvalue is exactly zero."""
    zero = values == 0
    return np.where(zero, slope[:, None], grown / np.where(zero, 1.0, values))
