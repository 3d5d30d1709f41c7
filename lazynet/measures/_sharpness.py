"""The largest eigenvalue of the current empirical kernel, without forming it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# Of the kernel with a vector: enough for an eigenvalue that stands apart from the next by a hundredth of itself.
PRODUCTS = 32


def sharpness(outputs: Callable[[Any], Array], params: Any) -> Array:
    """lambda_max of J J', J the Jacobian of all outputs of all examples in the parameters: a scalar.

    Full-batch descent on the squared loss is stable up to eta = 2 / lambda_max (Cohen et al. 2021, section 2; without
    the part of the Hessian that vanishes with the residual). Lanczos with full reorthogonalization, never above the
    true value but for rounding; each of its products runs the network forward and backward once.

    Args:
        outputs: the network's outputs (n,) or (n, k) on the training set, as a function of its parameters.
        params: its parameters.
    """
    f, push = jax.linearize(outputs, params)
    pull = jax.linear_transpose(push, params)
    size, shape = f.size, f.shape
    products = min(PRODUCTS, size)
    start = jax.random.normal(jax.random.key(0), (size,), jnp.float32).astype(f.dtype)

    def step(i: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, tridiagonal, q = found
        basis = basis.at[i].set(q)
        (moved,) = pull(q.reshape(shape))
        w = push(moved).reshape(-1)
        tridiagonal = tridiagonal.at[i, i].set(q @ w)
        for _ in range(2):
            w = w - (basis @ w) @ basis
        norm = jnp.linalg.norm(w)
        # Nothing is left where the start holds no further eigenvector.
        live = norm > size * jnp.finfo(f.dtype).eps * jnp.abs(tridiagonal).max()
        beta = jnp.where(live, norm, 0)
        # What would lie outside is left out.
        tridiagonal = tridiagonal.at[i, i + 1].set(beta, mode="drop").at[i + 1, i].set(beta, mode="drop")
        return basis, tridiagonal, jnp.where(live, w / norm, 0)

    empty = jnp.zeros((products, size), f.dtype), jnp.zeros((products, products), f.dtype)
    _, tridiagonal, _ = jax.lax.fori_loop(0, products, step, (*empty, start / jnp.linalg.norm(start)))
    return jnp.linalg.eigvalsh(tridiagonal)[-1]
