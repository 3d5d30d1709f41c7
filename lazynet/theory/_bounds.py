"""Bounds from Arora, Du, Hu, Li and Wang 2019 for two-layer ReLU networks, with explicit constants.

The bounds assume that the inputs have unit norm, that the initial weights are w_r ~ N(0, kappa^2 I) and a_r = +-1, and
that only the hidden layer is trained.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import erf

from lazynet.arguments import as_number, check_count, check_flag, check_number, check_sequence, described
from lazynet.arrays import float64_array
from lazynet.typing import AnyArray

# Largest values accepted for counts, for distances, and for powers.
MOST = 10**15
FARTHEST = 1e100
MOST_POWER = 1000


def neuron_movement_bound(
    n: float | int, width: int, residual_norm: float | np.ndarray, lambda_min: float
) -> float | np.ndarray:
    """Return the bound from Lemma C.1 on the displacement of any hidden unit at any step.

    At every step k, max_r ||w_r(k) - w_r(0)|| <= 4 sqrt(n) ||y - u(0)|| / (sqrt(m) lambda_min) (Arora et al. 2019,
    Lemma C.1).

    Args:
        n: Number of training examples, or the sum of ||x_i||^2 if the inputs do not have unit norm.
        width: Width m.
        residual_norm: Norm of the initial residual, ||y - u(0)||, a number or an array.
        lambda_min: Smallest eigenvalue of the infinite-width kernel on the training set.

    Returns:
        The bound, in the units of the weights and with the same shape as `residual_norm`. It is NaN where `lambda_min`
        or `residual_norm` is NaN, and otherwise infinite if `lambda_min` is zero or negative.

    Raises:
        ValueError: If `n` is not a nonnegative number, if `width` is not a positive integer, if `residual_norm` is not
            numeric or contains a negative number, or if `lambda_min` is not a number. NaN is allowed in the last two.

    >>> from lazynet.theory import neuron_movement_bound
    >>> float(neuron_movement_bound(100, 10_000, 10.0, 0.5))
    8.0
    """
    n, width = check_number("n", n), _count("width", width)
    norm = float64_array("residual_norm", residual_norm)[()]
    if np.any(norm < 0):
        raise ValueError(f"residual_norm must not be negative, got {described(residual_norm)}.")
    smallest = as_number(lambda_min)
    if smallest is None:
        raise ValueError(f"lambda_min must be a number, got {described(lambda_min)}.")
    # A NaN `lambda_min` indicates a singular kernel and results in a NaN bound.
    if smallest <= 0:
        return np.where(np.isnan(norm), np.nan, np.inf)[()]
    result: float | np.ndarray = 4 * np.sqrt(n) * norm / (np.sqrt(width) * smallest)
    return result


def flips_bound(radius: float, init_scale: float = 1.0) -> float:
    """Return the expected fraction of signs of w_r . x that can flip if no unit moves farther than `radius`.

    The fraction is P(|w . x| <= R) = erf(R / (sqrt(2) kappa)) for inputs x of unit norm. The proof of Theorem 4.1 of
    Arora et al. 2019 uses the upper bound 2 R / (sqrt(2 pi) kappa) on this fraction.

    Args:
        radius: Maximum displacement R of any unit.
        init_scale: Initial scale kappa of the weights.

    Returns:
        A fraction between 0 and 1.

    Raises:
        ValueError: If `radius` is not a nonnegative number, or if `init_scale` is not positive.

    >>> from lazynet.theory import flips_bound
    >>> round(flips_bound(0.1), 4)
    0.0797
    """
    radius, init_scale = (
        check_number("radius", radius, maximum=FARTHEST),
        check_number("init_scale", init_scale, positive=True),
    )
    return float(erf(radius / (np.sqrt(2) * init_scale)))


def concentration_bound(gram: AnyArray, units: int, delta: float = 0.05) -> float:
    """Return the bound from Lemma C.3 on the distance ||H(0) - H||_F between the initial kernel and its limit.

    H is the infinite-width limit of the initial kernel H(0). The bound (Arora et al. 2019, Lemma C.3) holds with
    probability at least 1 - delta. An entry of H(0) is x_i . x_j times the mean of m independent Bernoulli variables.
    By Hoeffding's inequality, this mean deviates from its expectation by at most sqrt(log(2 / d) / (2 m)) with
    probability at least 1 - d. Setting d = 2 delta / (n (n + 1)) allows a union bound over all n (n + 1) / 2 pairs.

    Args:
        gram: Gram matrix of the inputs, shape (n, n).
        units: Number of independent units m: the width, or half the width for symmetric initialization.
        delta: Probability that the bound fails.

    Returns:
        Bound on the Frobenius norm.

    Raises:
        ValueError: If `gram` is not a square matrix of finite numbers, if `units` is not a positive integer, or if
            `delta` is not between 0 and 1.

    >>> import numpy as np
    >>> from lazynet.theory import concentration_bound
    >>> round(concentration_bound(np.eye(10), 1000), 4)
    0.1962
    """
    delta, units = _probability(delta), _count("units", units)
    gram = float64_array("gram", gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size or not np.isfinite(gram).all():
        raise ValueError(f"gram must be a nonempty square matrix of finite numbers, got {described(gram)}.")
    n = len(gram)
    # Dividing by the largest entry keeps the squares in range.
    largest = np.abs(gram).max() or 1.0
    norm = largest * np.linalg.norm(gram / largest)
    return float(norm * np.sqrt((np.log(n * (n + 1)) - np.log(delta)) / (2 * units)))


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
    """Return the bound from Lemma 5.4 on the empirical Rademacher complexity of networks near initialization.

    If ||W - W(0)||_F <= B and ||w_r - w_r(0)|| <= R, the complexity is at most
    (B / sqrt(2 n)) (1 + (2 log(2 / delta) / m)^(1/4)) + 2 R^2 sqrt(m) / kappa + R sqrt(2 log(2 / delta)) with
    probability at least 1 - delta over the initialization (Arora et al. 2019, Lemma 5.4).

    Args:
        n: Number of training examples.
        width: Width m.
        movement: Upper bound B on the displacement ||W - W(0)||_F of the weights.
        radius: Largest displacement R of any unit.
        init_scale: Initial scale kappa of the weights.
        delta: Probability that the bound fails.
        symmetric: Whether the units are initialized in identical pairs. If so, only m / 2 units are independent, which
            increases the first term. The other terms remain valid, because a unit whose sign flips contributes only R,
            whereas the paper allows for 2 R.

    Returns:
        Bound on the Rademacher complexity.

    Raises:
        ValueError: If `n` or `width` is not a positive integer, if `movement` or `radius` is negative, if `init_scale`
            is not positive, or if `delta` is not between 0 and 1.

    >>> from lazynet.theory import rademacher_bound
    >>> round(rademacher_bound(1000, 100_000, movement=3.0, radius=0.0), 3)
    0.073
    """
    n, width, delta = _count("n", n), _count("width", width), _probability(delta)
    movement, radius = (
        check_number("movement", movement, maximum=FARTHEST),
        check_number("radius", radius, maximum=FARTHEST),
    )
    init_scale = check_number("init_scale", init_scale, positive=True)
    check_flag("symmetric", symmetric)
    log = np.log(2) - np.log(delta)
    features = movement / np.sqrt(2 * n) * (1 + (2 * log / (width / 2 if symmetric else width)) ** 0.25)
    return float(features + 2 * radius**2 * np.sqrt(width) / init_scale + radius * np.sqrt(2 * log))


def generalization_bound(train_loss: float, rademacher: float, n: int, delta: float = 0.05) -> float:
    """Return the bound train_loss + 2 R + 3 sqrt(log(2 / delta) / (2 n)) on the population loss.

    The bound holds with probability at least 1 - delta for a loss in [0, 1] that is 1-Lipschitz in the prediction, such
    as min(1, |f - y|) (Arora et al. 2019, proof of Theorem 5.1).

    Args:
        train_loss: Mean loss on the training set.
        rademacher: Empirical Rademacher complexity R of a function class that does not depend on the sample.
        n: Number of training examples.
        delta: Probability that the bound fails.

    Returns:
        Bound on the population loss, vacuous if it is 1 or more.

    Raises:
        ValueError: If `train_loss` or `rademacher` is negative, if `n` is not a positive integer, or if `delta` is not
            between 0 and 1.

    >>> from lazynet.theory import generalization_bound
    >>> round(generalization_bound(0.0, 0.1, 10_000), 3)
    0.241
    """
    train_loss, rademacher = check_number("train_loss", train_loss), check_number("rademacher", rademacher)
    n, delta = _count("n", n), _probability(delta)
    return float(train_loss + 2 * rademacher + 3 * np.sqrt((np.log(2) - np.log(delta)) / (2 * n)))


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
    """Return the bound from Theorem 5.1 on the population loss, based on the measured displacement of the weights.

    Combining `generalization_bound` with `rademacher_bound` requires radii B and R that do not depend on the sample.
    This bound (Arora et al. 2019, Theorem 5.1) holds simultaneously for all positive integers B and all R that
    are powers of two. Each B is allotted the fraction 1 / (B (B + 1)) of delta, and each R is allotted the fraction
    1 / (3 (|log2 R| + 1)^2) of that amount. The measured displacements are rounded up to such values of B and R.

    Args:
        train_loss: Mean loss on the training set, for a loss in [0, 1] that is 1-Lipschitz in the prediction.
        n: Number of training examples.
        movement: Displacement ||W(k) - W(0)||_F, which tends to sqrt(y' H^-1 y) as width and time go to infinity.
        delta: Probability that the bound fails, split equally between the initialization and the sample.
        width: Width m, or None for the infinite-width limit.
        radius: Largest displacement of a unit, max_r ||w_r(k) - w_r(0)||. It must be given if `width` is given, and
            omitted otherwise.
        init_scale: Initial scale kappa of the weights.
        symmetric: Whether the units are initialized in identical pairs.

    Returns:
        Bound on the population loss, vacuous if it is 1 or more.

    Raises:
        ValueError: If `train_loss` is negative, if `n` or `width` is not a positive integer, if `delta` is not between
            0 and 1, if `init_scale` is not positive, if `movement` is negative or not finite, if only one of `width`
            and `radius` is given, or if `radius` is zero, not finite or less than `movement` / sqrt(`width`).

    >>> from lazynet.theory import population_bound
    >>> round(population_bound(0.0, 10_000, 27.0), 3)
    0.452
    """
    train_loss, n, delta = check_number("train_loss", train_loss), _count("n", n), _probability(delta)
    movement = check_number("movement", movement, maximum=FARTHEST)
    init_scale = check_number("init_scale", init_scale, positive=True)
    check_flag("symmetric", symmetric)
    ball = max(1, int(np.ceil(movement)))
    share = delta / 2 / (ball * (ball + 1))
    if width is None and radius is None:
        # If the share underflows, infinity is a valid, though vacuous, bound.
        return generalization_bound(train_loss, ball / np.sqrt(2 * n), n, share) if share else np.inf
    if width is None or radius is None:
        raise ValueError(
            f"width and radius must either both be given or both be omitted, got {described(width)} and "
            f"{described(radius)}."
        )
    width, radius = _count("width", width), check_number("radius", radius, positive=True, maximum=FARTHEST)
    smallest = movement / np.sqrt(width)
    if not smallest * (1 - 1e-6) <= radius:
        raise ValueError(f"radius must be at least movement / sqrt(width) = {smallest:.6g}, got {radius}.")
    power = int(np.ceil(np.log2(radius)))
    share /= 3 * (abs(power) + 1) ** 2
    if share == 0:
        return np.inf
    with np.errstate(over="ignore"):
        near = rademacher_bound(n, width, ball, 2.0**power, init_scale, share, symmetric=symmetric)
    return generalization_bound(train_loss, near, n, share) if np.isfinite(near) else np.inf


def unseen_share(power: int, dim: int) -> float:
    """Return the fraction of (beta . x)^p that the kernel of a two-layer ReLU network cannot learn on the unit sphere.

    Without a bias, the only odd functions that the kernel can represent are linear (Basri et al. 2019). It can
    learn an even power completely, but only the linear part of an odd power, that is, the projection of the odd power
    onto beta . x. A coordinate z of a point distributed uniformly on the sphere has the moments
    E z^(2k) = prod_{j<k} (2 j + 1) / (d + 2 j), so the fraction is sqrt(1 - (E z^(p+1))^2 / (E z^2 E z^(2p))).

    Args:
        power: Power p.
        dim: Dimension d of the inputs.

    Returns:
        Root mean square of the part that the kernel cannot learn, divided by the root mean square of the function.

    Raises:
        ValueError: If `power` is not an integer between 0 and 1000, or if `dim` is not a positive integer.

    >>> from lazynet.theory import unseen_share
    >>> round(unseen_share(3, 3), 12), unseen_share(4, 3)
    (0.4, 0.0)
    """
    power, dim = check_count("power", power, 0, MOST_POWER), _count("dim", dim)
    if power < 2 or power % 2 == 0:
        return 0.0

    def log_moment(order: int) -> float:
        steps = np.arange(order // 2)
        return float(np.log((2 * steps + 1) / (dim + 2 * steps)).sum())

    log_share = 2 * log_moment(power + 1) - log_moment(2) - log_moment(2 * power)
    return float(np.sqrt(max(0.0, -np.expm1(log_share))))


def power_bound(terms: Sequence[tuple[float, float, int]]) -> float:
    """Return an upper bound on sqrt(y' H^-1 y) for targets y that are a sum of powers.

    H is the infinite-width kernel on the training set. For y = sum_j alpha_j (beta_j . x)^p_j, the bound is
    3 sum_j p_j |alpha_j| ||beta_j||^p_j (Arora et al. 2019, Corollary 6.2). It does not depend on the number or the
    dimension of the examples.

    Args:
        terms: One tuple (alpha_j, ||beta_j||, p_j) for each term of the sum. Each p_j must be 1 or a positive even
            number.

    Returns:
        Bound on sqrt(y' H^-1 y).

    Raises:
        ValueError: If `terms` is not a list of triples of finite numbers, if a norm is negative, or if a power is
            neither 1 nor a positive even integer of at most 1000.

    >>> from lazynet.theory import power_bound
    >>> power_bound([(1.0, 1.0, 1), (0.5, 1.0, 4)])
    9.0
    """
    total = 0.0
    for term in check_sequence("terms", terms, "tuples (alpha, norm of beta, power)"):
        entries = check_sequence("each term in terms", term, "three numbers")
        alpha = as_number(entries[0]) if len(entries) == 3 else None
        if alpha is None or not np.isfinite(alpha):
            raise ValueError(
                "each term in terms must be a tuple (alpha, norm of beta, power) of finite numbers, got "
                f"{described(term)}."
            )
        norm = check_number("each norm in terms", entries[1])
        power = check_count("each power in terms", entries[2], 1, MOST_POWER)
        if power > 1 and power % 2:
            raise ValueError(f"each power in terms must be 1 or a positive even integer, got {power}.")
        if alpha and norm:
            # A term may be in range even if its factors are not, so it is computed from their logarithms if necessary.
            with np.errstate(over="ignore", under="ignore"):
                term = abs(alpha) * np.float64(norm) ** power
                if not 0 < term < np.inf:
                    term = np.exp(np.log(abs(alpha)) + power * np.log(norm))
            total += 3 * power * float(term)
    return total


def _probability(delta: float) -> float:
    return check_number("delta", delta, positive=True, below=1.0)


def _count(name: str, value: int) -> int:
    return check_count(name, value, most=MOST)
