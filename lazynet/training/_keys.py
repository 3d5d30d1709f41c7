"""Random keys for sweep members, initial weights, mini-batches, label noise and data subsets."""

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.arguments import check_count

# Largest width or seed from which a key can be derived; JAX folds 32-bit integers into keys.
MOST_IN_KEY = 2**32 - 1
START, BATCHES, LABEL_NOISE, SUBSAMPLE = range(4)


def member_key(width: int, seed: int) -> Array:
    """Return the random key for a member of a sweep, fold_in(fold_in(key(0), width), seed).

    Args:
        width: Number of units, m.
        seed: Seed of the member.

    Returns:
        A typed JAX key. With this key, `lazynet.train` trains the network that a sweep trains at this width and seed.

    Raises:
        ValueError: If the width or the seed is not an integer, or is too small or too large.

    >>> import jax, lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=16, n_test=8)
    >>> run = lz.train(lz.TwoLayer(width=16), data, lz.member_key(16, seed=3), steps=5)
    >>> run.status
    'finished'
    """
    check_count("width", width, most=MOST_IN_KEY)
    check_count("seed", seed, 0, most=MOST_IN_KEY)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), width), seed)


def start_key(key: Array) -> Array:
    """Return the key for drawing the initial weights of a member.

    Args:
        key: Key of the member, as returned by `member_key`.

    Returns:
        A typed JAX key.
    """
    return jax.random.fold_in(key, START)


def batch_key(key: Array) -> Array:
    """Return the key for drawing the mini-batches of a member.

    Args:
        key: Key of the member, as returned by `member_key`.

    Returns:
        A typed JAX key.
    """
    return jax.random.fold_in(key, BATCHES)


def noise_key() -> Array:
    """Return the key for drawing the label noise. The key is the same for every width and seed."""
    return jax.random.fold_in(jax.random.key(0), LABEL_NOISE)


def subsample_key() -> Array:
    """Return the key for drawing nested subsets of a data set, in which larger subsets contain smaller ones."""
    return jax.random.fold_in(jax.random.key(0), SUBSAMPLE)


def epoch_order(key: Array, epoch: Array, n: int) -> Array:
    """Return the order of the examples in an epoch, as an int32 array of shape (n,)."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n).astype(jnp.int32)
