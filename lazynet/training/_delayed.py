"""Mini-batch descent in the hidden weights that reads and writes them once in several steps."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.losses import Loss
from lazynet.networks import Network, hidden_layer_of, value_and_slope, weights
from lazynet.training._keys import epoch_order
from lazynet.training._steppers import Member, Shared, State
from lazynet.typing import Variables

# Examples of a block over features, so that the correction is small beside the products with all features; blocks of
# fewer steps than this save nothing.
SHARE, LEAST = 0.25, 4


def steps_of_block(d: int, batch_size: int) -> int:
    """Steps of a block, of inputs with d features."""
    return max(1, int(SHARE * d) // batch_size)


@dataclass(frozen=True)
class DelayedStepper:
    """Plain descent of any loss in the hidden weights on mini-batches, with weights that move once in several steps.

    With G_s the gradient in the pre-activations of batch X_s, weights after step t of a block are
    W - eta sum_s G_s X_s, so that a batch sees W X_t' - eta sum_s G_s X_s X_t'. Weights, which no cache holds, are thus
    read and written once a block: products with a block's rows are one, and what steps add is corrected by the Gram
    matrix of these rows. Batches are those of `AutodiffStepper`.
    """

    network: Network
    loss: Loss
    batch_size: int

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs as they are."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Weights at the start of a block, its pre-activations and gradients so far, its examples, and the order."""
        hidden, x = weights(member.variables, "hidden"), shared["x"]
        rows = steps_of_block(x.shape[1], self.batch_size) * self.batch_size
        empty = jnp.zeros((self.network.width, rows), hidden.dtype)
        order = jnp.zeros(self._padded(x.shape), jnp.int32)
        return hidden, empty, empty, jnp.zeros(rows, jnp.int32), order

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """One step of descent; at the first of a block weights take those of the block before."""
        (n, d), size = shared["x"].shape, self.batch_size
        place = t % (n // size) % steps_of_block(d, size) * size

        state = jax.lax.cond(place == 0, lambda: self._begun(state, member, shared, t), lambda: state)
        hidden, z, back, rows, order = state
        x, rate = shared["x"][rows], shared["learning_rate"]

        def of_batch(a: Array, axis: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(a, place, size, axis)

        own, y = of_batch(x, 0), shared["y"][of_batch(rows, 0)]
        layer = hidden_layer_of(self.network)
        values, slopes = value_and_slope(layer.activation, of_batch(z, 1) - rate * (back @ (x @ own.T)))
        a, factor = weights(member.variables, "readout"), layer.factor
        scale = n / size if self.loss.reduction == "sum" else 1.0
        loss, outward = jax.value_and_grad(lambda f: scale * self.loss(f.T.reshape(y.shape), y))(
            factor * (a.T @ values)
        )
        gradient = factor * slopes * (a @ outward)
        back = jax.lax.dynamic_update_slice_in_dim(back, gradient, place, 1)
        square = jnp.sum((gradient @ (own @ own.T)) * gradient)
        return (hidden, z, back, rows, order), loss, square

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The variables, with the steps of this block."""
        return {**member.variables, "params": {"hidden": self._moved(state, shared)}}

    def known(self, state: State) -> dict[str, Array]:
        """Nothing."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """As the network applies itself."""
        f: Any = self.network.apply(variables, x)
        return f

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """4 B d m, and 2 B m for each example of a block."""
        d = arrays["x"].shape[1]
        rows = steps_of_block(d, self.batch_size) * self.batch_size
        return (4.0 * d + 2.0 * rows) * self.batch_size * self.network.width

    def _padded(self, shape: tuple[int, ...]) -> int:
        """Examples of an epoch, with some more to fill its last block."""
        rows = steps_of_block(shape[1], self.batch_size) * self.batch_size
        return -(-shape[0] // rows) * rows

    def _moved(self, state: State, shared: Shared) -> Array:
        hidden, _, back, rows, _ = state
        return hidden - shared["learning_rate"] * (back @ shared["x"][rows])

    def _begun(self, state: State, member: Member, shared: Shared, t: Array) -> State:
        """The state where a block begins."""
        hidden, (x, (n, d)) = self._moved(state, shared), (shared["x"], shared["x"].shape)
        batches, padding = n // self.batch_size, self._padded((n, d)) - n

        def drawn() -> Array:
            return jnp.pad(epoch_order(member.key, t // batches, n), (0, padding))

        order = jax.lax.cond(t % batches == 0, drawn, lambda: state[-1])
        rows = jax.lax.dynamic_slice_in_dim(order, t % batches * self.batch_size, len(state[-2]))
        return hidden, hidden @ x[rows].T, jnp.zeros_like(state[2]), rows, order
