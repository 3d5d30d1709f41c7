"""Displacements of weights and changes in activations.

JAX can trace all functions in this module. Their results have the dtype of the inputs, and NumPy float64 arrays are not
cast to float32. In norms, integers and floating-point numbers of fewer than 32 bits are first converted to a wider
floating-point dtype, and squares do not overflow or underflow.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from lazynet.measures._gaps import binary_exponent, promoted, scaled
from lazynet.precision import keeps_float64
from lazynet.typing import AnyArray


@keeps_float64
def parameter_norm(params: PyTree) -> AnyArray:
    """Return the Euclidean norm ||theta|| of all parameters.

    Args:
        params: Pytree of arrays.

    Returns:
        A scalar.
    """
    leaves = [promoted(leaf)[0] for leaf in jax.tree.leaves(params)]
    if not leaves:
        return jnp.zeros(())
    largest = reduce(jnp.maximum, [jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves])
    exponent = binary_exponent(largest)
    return jnp.ldexp(jnp.sqrt(sum(jnp.sum(jnp.ldexp(leaf, -exponent) ** 2) for leaf in leaves)), exponent)


@keeps_float64
def displacement(params: PyTree, start: PyTree) -> AnyArray:
    """Return the displacement ||theta - theta_0|| of all parameters (Arora et al. 2019, Lemma 5.3).

    Args:
        params: Parameters theta, a pytree of arrays.
        start: Initial parameters theta_0.

    Returns:
        A scalar.
    """
    return parameter_norm(jax.tree.map(_change, params, start))


def _change(now: AnyArray, before: AnyArray) -> AnyArray:
    if jnp.shape(now) != jnp.shape(before):
        raise ValueError(
            f"start must have the same shapes as the current weights, got shape {jnp.shape(before)} instead of "
            f"{jnp.shape(now)}."
        )
    now, before = promoted(now, before)
    return now - before


@keeps_float64
def array_norms(params: PyTree) -> Float[AnyArray, " arrays"]:
    """Return the Frobenius norm of each array.

    Args:
        params: Pytree of arrays.

    Returns:
        Norms in the order of `jax.tree.leaves`.
    """
    return jnp.stack([parameter_norm(leaf) for leaf in jax.tree.leaves(params)])


@keeps_float64
def array_displacements(params: PyTree, start: PyTree) -> Float[AnyArray, " arrays"]:
    """Return the displacement ||W_l - W_l(0)|| of each array (Lee et al. 2019, Figure 1).

    Args:
        params: Parameters, a pytree of arrays.
        start: Initial parameters.

    Returns:
        Frobenius norms in the order of `jax.tree.leaves`.
    """
    return array_norms(jax.tree.map(_change, params, start))


@keeps_float64
def max_neuron_displacement(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"]) -> AnyArray:
    """Return the largest displacement of any unit, max_r ||w_r - w_r(0)|| (Arora et al. 2019, Lemma C.1).

    Args:
        w: Weights, shape (m, d).
        start: Initial weights, shape (m, d).

    Returns:
        A scalar.
    """
    change, exponent = scaled(_change(w, start))
    return jnp.ldexp(jnp.sqrt(jnp.max(jnp.sum(change**2, axis=1))), exponent)


@keeps_float64
def activation_flips(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"], x: Float[AnyArray, "n d"]) -> AnyArray:
    """Return the fraction of pre-activations w_r . x_i whose signs differ from their initial signs.

    Du et al. 2018 plot this fraction in Figure 1(b), and Li and Liang 2018 call it coupling in section 7. A
    pre-activation of zero counts as negative.

    Args:
        w: Weights, shape (m, d).
        start: Initial weights, shape (m, d).
        x: Inputs, shape (n, d).

    Returns:
        The fraction of (unit, example) pairs for which the signs differ, a scalar.
    """
    return sign_changes([jnp.asarray(x @ w.T)], [jnp.asarray(x @ start.T)])


@keeps_float64
def sign_changes(now: list[AnyArray], before: list[AnyArray]) -> AnyArray:
    """Return the fraction of pre-activations, counted over all layers, whose signs have changed.

    Args:
        now: Current pre-activations of each layer, shape (n, ...).
        before: Earlier pre-activations, with the same shapes.

    Returns:
        A scalar. A pre-activation of zero counts as negative.
    """
    total = sum(z.size for z in now)
    fractions = [jnp.mean(((z > 0) != (z0 > 0)).astype(z.dtype)) for z, z0 in zip(now, before, strict=True)]
    return sum(
        (z.size / total * fraction for z, fraction in zip(now, fractions, strict=True)), jnp.zeros_like(fractions[0])
    )


@keeps_float64
def coupled_neurons(w: Float[AnyArray, "m d"], start: Float[AnyArray, "m d"], x: Float[AnyArray, "n d"]) -> AnyArray:
    """Return the fraction of units whose pre-activations keep their initial signs for every example.

    In a ReLU network, the gradient of such a unit equals its pseudo-gradient, which is the gradient computed with the
    initial activation pattern. This is true regardless of the network's outputs (Li and Liang 2018, Lemma 5.1, which is
    stated for one example per component).

    Args:
        w: Weights, shape (m, d).
        start: Initial weights, shape (m, d).
        x: Inputs, shape (n, d).

    Returns:
        A scalar.
    """
    return jnp.mean(~jnp.any(_flipped(w, start, x), axis=0), dtype=w.dtype)


def _flipped(w: AnyArray, start: AnyArray, x: AnyArray) -> AnyArray:
    return (x @ w.T > 0) != (x @ start.T > 0)
