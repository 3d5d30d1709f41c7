"""Random keys for sweep members, initial weights, mini-batches, label noise and data subsets."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.arguments import check_count
from lazynet.plan import check_memory
from lazynet.programs import compiled, entry

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


@entry
def batch_order(width: int, seed: int, n: int, batch_size: int, steps: int) -> np.ndarray:
    """Return the examples in each mini-batch on which a sweep trains a member.

    In each epoch, the examples are permuted at random and divided into batches; the last n mod B examples of the
    permutation are not used in that epoch. The order depends on the width and the seed, but not on other settings.

    Args:
        width: Number of units, m.
        seed: Seed of the member.
        n: Number of training examples.
        batch_size: Number B of examples in a batch, at most n.
        steps: Number of training steps.

    Returns:
        Indices of the examples as int32, shape (steps, B), as `lazynet.kernel_descent` expects them.

    Raises:
        ValueError: If an argument is not an integer or is outside its allowed range, or if the result does not fit in
            memory.

    >>> import lazynet as lz
    >>> lz.batch_order(64, seed=0, n=8, batch_size=4, steps=2).shape
    (2, 4)
    """
    check_count("n", n, most=MOST_IN_KEY // 2)
    check_count("batch_size", batch_size, most=n)
    check_count("steps", steps, most=MOST_IN_KEY // 2)
    key = member_key(width, seed)
    check_memory(f"The batches of {steps} steps", 8 * (steps * batch_size + 4 * n))
    return batch_order_of(batch_key(key), n, batch_size, steps)


def batch_order_of(key: Array, n: int, batch_size: int, steps: int) -> np.ndarray:
    """Return the examples in each step's mini-batch; see `batch_order`.

    Args:
        key: Key for drawing the mini-batches of a member, as returned by `batch_key`.
        n: Number of training examples.
        batch_size: Number B of examples in a batch.
        steps: Number of training steps.

    Returns:
        Indices of the examples as int32, shape (steps, B).
    """
    batches = n // batch_size
    epochs = np.arange(-(-steps // batches), dtype=np.int32)
    orders = np.asarray(_orders(key, epochs, n))[:, : batches * batch_size]
    return orders.reshape(-1, batch_size)[:steps]


@compiled(static_argnames="n")
def _orders(key: Array, epochs: Array | np.ndarray, n: int) -> Array:
    return jax.lax.map(lambda epoch: epoch_order(key, epoch, n), jnp.asarray(epochs))
