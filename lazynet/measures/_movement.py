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


def array_norms(params: Any) -> Float[Array, " arrays"]:
    """The Frobenius norm of each trained array."""
    return jnp.stack([jnp.sqrt(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(params)])


def array_displacements(params: Any, start: Any) -> Float[Array, " arrays"]:
    """||W_l - W_l(0)|| of each trained array (Lee et al. 2019, Figure 1)."""
    return array_norms(jax.tree.map(lambda now, before: now - before, params, start))


def max_neuron_displacement(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"]) -> Array:
    """max_r ||w_r - w_r(0)||, the left side of Arora et al. 2019, Lemma C.1."""
    return jnp.sqrt(jnp.max(jnp.sum((w - start) ** 2, axis=1)))


def activation_flips(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"], x: Float[AnyArray, "n d"]) -> Array:
    """Share of the pairs (unit, example) whose pre-activation w_r . x_i has another sign than at the start.

    Du et al. 2018, section 5, Figure 1(b), and the coupling of Li and Liang 2018, section 7; a pre-activation of
    exactly zero counts as not positive.
    """
    return sign_changes([jnp.asarray(x @ w.T)], [jnp.asarray(x @ start.T)])


def sign_changes(now: list[Array], before: list[Array]) -> Array:
    """Share of the pre-activations of all layers together whose sign is another than before."""
    total = sum(z.size for z in now)
    shares = [jnp.mean(((z > 0) != (z0 > 0)).astype(z.dtype)) for z, z0 in zip(now, before, strict=True)]
    return sum((z.size / total * share for z, share in zip(now, shares, strict=True)), jnp.zeros_like(shares[0]))


def coupled_neurons(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"], x: Float[AnyArray, "n d"]) -> Array:
    """Share of the units r whose w_r . x_i has the sign of the start on every example.

    Of relu networks these are the units whose gradient on these examples is the pseudo-gradient, with the patterns of
    the start, whatever the outputs are: Li and Liang 2018, Lemma 5.1, there for one example to a component.
    """
    return jnp.mean(~jnp.any(_flipped(w, start, x), axis=0), dtype=w.dtype)


def _flipped(w: AnyArray, start: AnyArray, x: AnyArray) -> Array:
    return (x @ w.T > 0) != (x @ start.T > 0)
