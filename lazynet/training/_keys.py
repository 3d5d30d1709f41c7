"""Where every random number comes from: one key for each (width, seed), one fold for each use."""

import jax
import jax.numpy as jnp
from jax import Array

START, BATCHES, LABEL_NOISE, SUBSAMPLE = range(4)


def member_key(width: int, seed: int) -> Array:
    """The key of one member, fold_in(fold_in(key(0), width), seed)."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), width), seed)


def start_key(key: Array) -> Array:
    """The key that draws a member's weights."""
    return jax.random.fold_in(key, START)


def batch_key(key: Array) -> Array:
    """The key that orders a member's mini-batches."""
    return jax.random.fold_in(key, BATCHES)


def noise_key() -> Array:
    """The key that draws label noise: one draw for a sweep, the same for every width and seed."""
    return jax.random.fold_in(jax.random.key(0), LABEL_NOISE)


def subsample_key() -> Array:
    """The key that chooses examples of a data set: those of a smaller number are among those of a larger one."""
    return jax.random.fold_in(jax.random.key(0), SUBSAMPLE)


def epoch_order(key: Array, epoch: Array, n: int) -> Array:
    """The order (n,) of examples in an epoch, int32."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n).astype(jnp.int32)
