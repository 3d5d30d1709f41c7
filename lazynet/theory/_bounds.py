"""Bounds of Arora, Du, Hu, Li and Wang 2019 on two-layer relu networks, with their constants.

Inputs have unit norm, w_r ~ N(0, kappa^2 I), a_r = +-1, and the hidden layer is trained.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import erf

from lazynet.typing import AnyArray


def neuron_movement_bound(n: float | int, width: int, residual_norm: Any, lambda_min: float) -> Any:
    """Lemma C.1: max_r ||w_r(k) - w_r(0)|| <= 4 sqrt(n) ||y - u(0)|| / (sqrt(m) lambda_min), at every step.

    Args:
        n: training examples; the sum of ||x_i||^2 where rows have another norm than 1.
        width: m.
        residual_norm: ||y - u(0)||, one or an array of them.
        lambda_min: the smallest eigenvalue of the kernel of infinite width.

    Returns:
        The bound, in units of the weights, for each residual norm; infinite for a kernel without inverse.

    >>> float(neuron_movement_bound(100, 10_000, 10.0, 0.5))
    8.0
    """
    # One that is not a number, of a kernel that is known to be singular, stays so.
    if lambda_min <= 0:
        return np.full(np.shape(residual_norm), np.inf)
    return 4 * np.sqrt(n) * residual_norm / (np.sqrt(width) * lambda_min)


def flips_bound(radius: float, init_scale: float = 1.0) -> float:
    """The expected share of signs of w_r'x that can flip when no unit moves by more than a radius, of unit rows x.

    P(|w'x| <= R) = erf(R / (sqrt(2) kappa)) <= 2 R / (sqrt(2 pi) kappa), the last of which is in the proof of Theorem
    4.1; this is the first.

    >>> round(flips_bound(0.1), 4)
    0.0797
    """
    return float(erf(radius / (np.sqrt(2) * init_scale)))


def concentration_bound(gram: AnyArray, units: int, delta: float = 0.05) -> float:
    """Lemma C.3 with its constant: with probability 1 - delta, ||H(0) - H||_F is at most this.

    An entry is x_i'x_j times a mean of independent zeros and ones, which is within sqrt(log(2 / d) / (2 m)) of its own
    mean with probability 1 - d (Hoeffding); d = 2 delta / (n (n + 1)) holds for all pairs at once.

    Args:
        gram: x_i'x_j, (n, n).
        units: independent ones among the units: half of the width where the start is symmetric.
        delta: the probability that the bound fails.

    Returns:
        The bound on the Frobenius norm.

    >>> import numpy as np
    >>> round(concentration_bound(np.eye(10), 1000), 4)
    0.1962
    """
    _check_probability(delta)
    n = len(gram)
    return float(np.linalg.norm(gram) * np.sqrt(np.log(n * (n + 1) / delta) / (2 * units)))


def rademacher_bound(
    n: int,
    width: int,
    movement: float | int,
    radius: float | int,
    init_scale: float = 1.0,
    delta: float = 0.05,
    *,
    symmetric: bool = False,
) -> float:
    """Lemma 5.4: the empirical Rademacher complexity of networks near a start is at most this.

    (B / sqrt(2 n)) (1 + (2 log(2 / delta) / m)^(1/4)) + 2 R^2 sqrt(m) / kappa + R sqrt(2 log(2 / delta)), with
    probability 1 - delta over the start, for ||W - W(0)||_F <= B and ||w_r - w_r(0)|| <= R.

    Args:
        n: training examples.
        width: m.
        movement: B.
        radius: R.
        init_scale: kappa.
        delta: the probability that the bound fails.
        symmetric: whether units are in pairs of the same start. Then m / 2 of them are independent, which the first
            term counts. The other two hold as they are: a unit whose sign flips adds R, and not the paper's 2 R.

    >>> round(rademacher_bound(1000, 100_000, movement=3.0, radius=0.0), 3)
    0.073
    """
    _check_probability(delta)
    log = np.log(2 / delta)
    features = movement / np.sqrt(2 * n) * (1 + (2 * log / (width / 2 if symmetric else width)) ** 0.25)
    return float(features + 2 * radius**2 * np.sqrt(width) / init_scale + radius * np.sqrt(2 * log))


def generalization_bound(train_loss: float, rademacher: float, n: int, delta: float = 0.05) -> float:
    """With probability 1 - delta the population loss is at most train_loss + 2 R + 3 sqrt(log(2 / delta) / (2 n)).

    For a loss in [0, 1] that is 1-Lipschitz in the prediction, such as min(1, |f - y|), and with `rademacher_bound`
    of radii that do not depend on the sample; see the proof of Theorem 5.1. A bound of 1 or more says nothing.

    >>> round(generalization_bound(0.0, 0.1, 10_000), 3)
    0.241
    """
    _check_probability(delta)
    return float(train_loss + 2 * rademacher + 3 * np.sqrt(np.log(2 / delta) / (2 * n)))


def population_bound(
    train_loss: float,
    n: int,
    movement: float | int,
    delta: float = 0.05,
    *,
    width: int | None = None,
    radius: float | int | None = None,
    init_scale: float = 1.0,
    symmetric: bool = False,
) -> float:
    """Theorem 5.1 with its constants: a bound on the population loss from the movement that was measured.

    `generalization_bound` with `rademacher_bound` asks for radii that do not depend on the sample. Here it holds at
    once for all whole B, the one that fails with the share 1 / (B (B + 1)) of delta, and for all R that are powers of
    2, with 1 / (3 (|log2 R| + 1)^2) of that; what was measured is rounded up to one of them.

    Args:
        train_loss: mean over training examples of a loss in [0, 1] that is 1-Lipschitz in the prediction.
        n: training examples.
        movement: ||W(k) - W(0)||_F; in the limit of width and time it is sqrt(y' H^-1 y).
        delta: the probability that the bound fails, half of it over the start, half over the sample.
        width: m; left out, the limit of infinite width.
        radius: max_r ||w_r(k) - w_r(0)||, given together with the width.
        init_scale: kappa.
        symmetric: whether units are in pairs of the same start.

    Returns:
        The bound; of 1 or more it is vacuous.

    Raises:
        ValueError: if delta is no probability, the movement is negative or infinite, or width and radius are not given
            together or do not fit the movement.

    >>> round(population_bound(0.0, 10_000, 27.0), 3)
    0.452
    """
    _check_probability(delta)
    if not 0 <= movement < np.inf:
        raise ValueError(f"movement is {movement}, but must be finite and not negative.")
    ball = max(1, int(np.ceil(movement)))
    share = delta / 2 / (ball * (ball + 1))
    if width is None and radius is None:
        return generalization_bound(train_loss, ball / np.sqrt(2 * n), n, share)
    if width is None or radius is None:
        raise ValueError("width and radius must be given together, for the bound of a network needs both.")
    if not movement / np.sqrt(width) * (1 - 1e-6) <= radius < np.inf or radius == 0:
        raise ValueError(f"radius is {radius}, but of {width} units that move {movement} one moves further.")
    power = int(np.ceil(np.log2(radius)))
    share /= 3 * (abs(power) + 1) ** 2
    near = rademacher_bound(n, width, ball, 2.0**power, init_scale, share, symmetric=symmetric)
    return generalization_bound(train_loss, near, n, share)


def unseen_share(power: int, dim: int) -> float:
    """How much of (beta'x)^p the kernel cannot learn on the sphere: root mean square, over that of the function.

    Without a bias the kernel has of odd functions only the linear ones (Basri et al. 2019), so that of an odd power all
    is left but its projection on beta'x; of even powers nothing is. With E z^2k = prod_j<k (2 j + 1) / (d + 2 j) of a
    coordinate z the share is sqrt(1 - (E z^(p+1))^2 / (E z^2 E z^2p)).

    >>> round(unseen_share(3, 3), 12), unseen_share(4, 3)
    (0.4, 0.0)
    """
    if power < 2 or power % 2 == 0:
        return 0.0

    def moment(order: int) -> float:
        steps = np.arange(order // 2)
        return float(np.prod((2 * steps + 1) / (dim + 2 * steps)))

    return float(np.sqrt(1 - moment(power + 1) ** 2 / (moment(2) * moment(2 * power))))


def power_bound(terms: Iterable[tuple[float, float, int]]) -> float:
    """Corollary 6.2: sqrt(y' H^-1 y) <= 3 sum_j p_j |alpha_j| ||beta_j||^p_j for y = sum_j alpha_j (beta_j'x)^p_j.

    Args:
        terms: (alpha_j, ||beta_j||, p_j) of each; p_j is 1 or even, for the kernel has no other odd powers.

    Returns:
        The bound, whatever n and d are.

    Raises:
        ValueError: if a power is odd and above 1, or below 1.

    >>> power_bound([(1.0, 1.0, 1), (0.5, 1.0, 4)])
    9.0
    """
    total = 0.0
    for alpha, norm, power in terms:
        if power < 1 or (power > 1 and power % 2):
            raise ValueError(f"a power is {power}, but must be 1 or even; the kernel has no other odd ones.")
        total += 3 * power * abs(alpha) * norm**power
    return total


def _check_probability(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, but must be a probability between 0 and 1.")
