"""Movement of weights and activations; traceable, in the dtype of their arguments."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from lazynet.typing import AnyArray


def parameter_norm(params: Any) -> Array:
    """||theta|| = sqrt(sum over all trained arrays of the squared Frobenius norm), a scalar."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))


def displacement(params: Any, start: Any) -> Array:
    """||theta - theta_0||, over all trained arrays; the left side of Arora et al. 2019, Lemma 5.3."""
    return parameter_norm(jax.tree.map(lambda now, before: now - before, params, start))


def max_neuron_displacement(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"]) -> Array:
    """max_r ||w_r - w_r(0)||, the left side of Arora et al. 2019, Lemma C.1."""
    return jnp.sqrt(jnp.max(jnp.sum((w - start) ** 2, axis=1)))


def activation_flips(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"], x: Float[AnyArray, "n d"]) -> Array:
    """Share of the pairs (unit, example) whose pre-activation w_r . x_i has another sign than at the start.

    Du et al. 2018, section 5, Figure 1(b); a pre-activation of exactly zero counts as not positive.
    """
    return jnp.mean(((x @ w.T > 0) != (x @ start.T > 0)).astype(w.dtype))
