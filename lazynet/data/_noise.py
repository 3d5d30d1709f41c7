"""Label noise: a portion of the labels is drawn anew."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lazynet.data._checks import check_key
from lazynet.data._labels import class_targets, is_labels


def label_noise(y: Any, portion: Any, key: Any) -> Float[np.ndarray, "n *k"]:
    """Return the labels with round(portion * n) of them, chosen without replacement, drawn anew over all classes.

    A new label may be the old one, so about portion * (1 - 1/k) of the labels change. With one key, the examples
    chosen for a smaller portion are among those for a larger one, and get the same new labels.

    Args:
        y: labels, (n,) of +1 and -1 or (n, k) of one-hot minus 1/k.
        portion: from 0 to 1.
        key: a key of jax.random, on which alone the choice and the new labels depend.

    Returns:
        A new float64 array shaped like `y`.

    Raises:
        ValueError: `y` holds no labels, `portion` is outside 0..1, or `key` is no key.

    Source: Arora et al. 2019, appendix A, Figure 2.

    >>> import jax
    >>> label_noise([1, 1, -1, -1], 0.0, jax.random.key(0))
    array([ 1.,  1., -1., -1.])
    """
    if not is_labels(y):
        raise ValueError("y must hold labels, +1 and -1 or rows of one-hot minus 1/k, got other values or none")
    if not isinstance(portion, int | float | np.number) or not 0 <= portion <= 1:
        raise ValueError(f"portion must be a number from 0 to 1, got {portion!r}")
    noisy = np.array(y, dtype=np.float64)
    n, classes = len(noisy), 2 if noisy.ndim == 1 else noisy.shape[1]
    key_chosen, key_labels = jax.random.split(check_key(key))
    # int32 whatever the precision setting, so that the draws do not depend on it.
    chosen = np.asarray(jax.random.permutation(key_chosen, jnp.arange(n, dtype=jnp.int32)))[: round(float(portion) * n)]
    labels = np.asarray(jax.random.randint(key_labels, (n,), 0, classes, dtype=jnp.int32))
    redrawn = np.eye(2)[labels] - 0.5 if noisy.ndim == 2 and classes == 2 else class_targets(labels, classes)
    noisy[chosen] = redrawn[chosen]
    return noisy
