"""The interval of an error that was counted on a test set."""

import numpy as np
import scipy.stats
from jaxtyping import Float

from lazynet.theory._fits import CONFIDENCE


def binomial_interval(error: Float[np.ndarray, "..."], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of the probability behind a share of n independent examples (Clopper and Pearson 1934).

    It holds the probability at least as often as it says, whatever n.

    Args:
        error: shares, a whole number of n-ths each; NaN where there is none.
        n: number of examples, at least 1.

    >>> low, high = binomial_interval(np.array(0.0), 100)
    >>> float(low), round(float(high), 3)
    (0.0, 0.036)
    """
    counted, tail = np.round(np.asarray(error) * n), (1 - CONFIDENCE) / 2
    low = np.where(counted == 0, 0.0, scipy.stats.beta.ppf(tail, counted, n - counted + 1))
    high = np.where(counted == n, 1.0, scipy.stats.beta.ppf(1 - tail, counted + 1, n - counted))
    unknown = np.isnan(counted)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
