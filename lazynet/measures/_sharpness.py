"""Largest eigenvalue of the empirical kernel, computed without forming the kernel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree

from lazynet.precision import keeps_float64
from lazynet.typing import AnyArray

# Maximum number of kernel-vector products. The Lanczos process converges within this many if the second-largest
# eigenvalue is at least 1% smaller than the largest.
PRODUCTS = 32


@keeps_float64
def sharpness(outputs: Callable[[PyTree], Array], params: PyTree) -> AnyArray:
    """Return the largest eigenvalue of J J', where J is the Jacobian of all outputs with respect to the parameters.

    If the part of the Hessian that vanishes with the residual is neglected, full-batch gradient descent on the squared
    loss is stable for learning rates up to 2 / lambda_max, where lambda_max is this eigenvalue (Cohen et al. 2021,
    section 2). The eigenvalue is computed by the Lanczos process with full reorthogonalization. Up to rounding error,
    the result is a lower bound. Each product of J J' with a vector requires one forward and one backward pass.

    Args:
        outputs: Function that maps parameters to the outputs on the training set, shape (n,) or (n, k).
        params: Parameters, a pytree of arrays.

    Returns:
        A scalar.

    >>> import jax.numpy as jnp
    >>> from lazynet.measures import sharpness
    >>> round(float(sharpness(lambda w: jnp.array([3.0, 1.0]) * w, jnp.ones(2))), 4)
    9.0
    """
    f, push = jax.linearize(outputs, params)
    pull = jax.linear_transpose(push, params)
    size, shape = f.size, f.shape
    products = min(PRODUCTS, size)
    start = jax.random.normal(jax.random.key(0), (size,), jnp.float32).astype(f.dtype)

    def step(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, tridiagonal, q = state
        basis = basis.at[i].set(q)
        (gradient,) = pull(q.reshape(shape))
        w = push(gradient).reshape(-1)
        tridiagonal = tridiagonal.at[i, i].set(q @ w)
        for _ in range(2):
            w = w - (basis @ w) @ basis
        norm = jnp.linalg.norm(w)
        # The Lanczos process ends once the basis spans the Krylov space of the initial vector.
        is_running = norm > size * jnp.finfo(f.dtype).eps * jnp.abs(tridiagonal).max()
        beta = jnp.where(is_running, norm, 0)
        # At the last step, the matrix has no row or column i + 1, so entries with this index are dropped.
        tridiagonal = tridiagonal.at[i, i + 1].set(beta, mode="drop").at[i + 1, i].set(beta, mode="drop")
        return basis, tridiagonal, jnp.where(is_running, w / norm, 0)

    empty = jnp.zeros((products, size), f.dtype), jnp.zeros((products, products), f.dtype)
    _, tridiagonal, _ = jax.lax.fori_loop(0, products, step, (*empty, start / jnp.linalg.norm(start)))
    return jnp.linalg.eigvalsh(tridiagonal)[-1]
