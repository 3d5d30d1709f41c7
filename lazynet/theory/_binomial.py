"""Confidence intervals for error rates on a finite test set."""

import numpy as np
from jaxtyping import Float

from lazynet.arguments import check_count, described
from lazynet.arrays import float64_array
from lazynet.theory._fits import CONFIDENCE

# Largest number of examples accepted. Up to this limit, float64 represents every number of errors exactly.
MOST = 10**15


def binomial_interval(error: Float[np.ndarray, "..."], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% confidence interval for an error probability (Clopper and Pearson 1934).

    The interval is exact: for every n, it contains the true probability in at least 95% of cases.

    Args:
        error: Observed error rates, an array of any shape. Its entries must be multiples of 1 / n, or NaN for missing
            values.
        n: Number of independent examples, at least 1.

    Returns:
        Lower and upper ends of the intervals, each with the same shape as `error` and with NaN for missing values.

    Raises:
        ValueError: If an error rate is not between 0 and 1 or is clearly not a multiple of 1 / n (NaN is allowed), or
            if `n` is not an integer between 1 and 10^15.

    >>> import numpy as np
    >>> from lazynet.theory import binomial_interval
    >>> low, high = binomial_interval(np.array(0.0), 100)
    >>> float(low), round(float(high), 3)
    (0.0, 0.036)
    """
    # Importing scipy.stats takes longer than all other imports in this package combined, so the import is deferred.
    import scipy.stats

    n, rates = check_count("n", n, most=MOST), float64_array("error", error)
    if (rates < 0).any() or (rates > 1).any():
        raise ValueError(f"error must be between 0 and 1, got {described(error)}.")
    errors, tail = np.round(rates * n), (1 - CONFIDENCE) / 2
    # Rates may have been rounded to float32.
    if (np.abs(rates * n - errors) > 1e-3 + 1e-7 * errors).any():
        raise ValueError(
            f"error must consist of multiples of 1 / n = 1 / {n}, got {described(error)}. If it is a mean over seeds, "
            "pass the error rate of each seed instead."
        )
    low = np.where(errors == 0, 0.0, scipy.stats.beta.ppf(tail, errors, n - errors + 1))
    high = np.where(errors == n, 1.0, scipy.stats.beta.ppf(1 - tail, errors + 1, n - errors))
    missing = np.isnan(errors)
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)
