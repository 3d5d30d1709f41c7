"""A function that adds label noise by redrawing a fraction of the labels at random."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import ArrayLike

from lazynet.arguments import check_key, check_number
from lazynet.data._labels import class_targets, is_labels
from lazynet.programs import entry
from lazynet.typing import Real


@entry
def label_noise(y: ArrayLike, portion: Real, key: Array) -> Float[np.ndarray, "n *k"]:
    """Choose round(portion * n) labels without replacement, and redraw them uniformly from all classes.

    A redrawn label may equal the old one, so about n * portion * (1 - 1/k) labels change if there are k classes. For a
    given key, the examples chosen for a smaller fraction are also chosen for any larger fraction, and they get the same
    new labels.

    Args:
        y: Labels, array-like of shape (n,) with values +1 and -1, or (n, k) with one-hot rows minus 1/k.
        portion: Fraction of the labels that are redrawn, between 0 and 1.
        key: JAX random key that determines the chosen examples and their new labels.

    Returns:
        A new float64 array with the same shape as `y`.

    Raises:
        ValueError: If `y` does not encode classes, `portion` is not between 0 and 1, or `key` is not a random key.

    Source: Arora et al. 2019, appendix A, Figure 2.

    >>> import jax
    >>> label_noise([1, 1, -1, -1], 0.0, jax.random.key(0))
    array([ 1.,  1., -1., -1.])
    """
    if not is_labels(y):
        raise ValueError(
            "y must contain class labels, either +1 and -1 in an array of shape (n,), or one-hot rows minus 1/k in an "
            "array of shape (n, k)."
        )
    fraction = check_number("portion", portion, maximum=1.0)
    noisy = np.array(y, dtype=np.float64)
    n, classes = len(noisy), 2 if noisy.ndim == 1 else noisy.shape[1]
    key_chosen, key_labels = jax.random.split(check_key(key))
    # With an explicit int32 dtype, the draws do not depend on whether 64-bit types are enabled.
    chosen = np.asarray(jax.random.permutation(key_chosen, jnp.arange(n, dtype=jnp.int32)))[: round(fraction * n)]
    labels = np.asarray(jax.random.randint(key_labels, (n,), 0, classes, dtype=jnp.int32))
    redrawn = np.eye(2)[labels] - 0.5 if noisy.ndim == 2 and classes == 2 else class_targets(labels, classes)
    noisy[chosen] = redrawn[chosen]
    return noisy
