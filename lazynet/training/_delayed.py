"""Mini-batch gradient descent on the hidden weights, which are read and written only once per block of steps."""

from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.losses import Loss
from lazynet.networks import Network, hidden_layer_of, value_and_slope, weights
from lazynet.training._keys import epoch_order
from lazynet.training._steppers import Member, Shared, State
from lazynet.typing import Variables

# BLOCK_FRACTION is the maximum ratio of the number of examples in a block to the number of input features. This limit
# keeps the correction for the steps within a block cheap compared with multiplying the weights by the inputs.
# MIN_BLOCK_STEPS is the smallest number of steps per block at which blocks save time.
BLOCK_FRACTION, MIN_BLOCK_STEPS = 0.25, 4


def steps_per_block(d: int, batch_size: int) -> int:
    """Return the number of steps per block for inputs with d features."""
    return max(1, int(BLOCK_FRACTION * d) // batch_size)


@dataclass(frozen=True)
class DelayedStepper:
    """Plain mini-batch gradient descent on any loss, with the hidden weights updated only once per block of steps.

    Let W be the weights at the start of a block, and G_s the gradient with respect to the pre-activations of batch X_s.
    The current weights are W - eta sum_s G_s X_s, where s runs over the steps taken so far in the block, and the
    pre-activations of the next batch X_t are W X_t' - eta sum_s G_s X_s X_t'. The weights do not fit in the cache, so
    they are read and written only once per block: a single product covers all rows of the block, and the Gram matrix of
    these rows is used to correct this product for the steps taken since the start of the block. The batches are the
    same as in `AutodiffStepper`.

    Attributes:
        network: Two-layer network whose hidden weights are trained.
        loss: Loss to minimize.
        batch_size: Number B of examples per step.
    """

    network: Network
    loss: Loss
    batch_size: int

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs unchanged."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Return the state at step 0.

        The state contains the weights at the start of the block, the block's pre-activations, gradients and example
        indices, and the order of the examples in the epoch.
        """
        hidden, x = weights(member.variables, "hidden"), shared["x"]
        block_size = steps_per_block(x.shape[1], self.batch_size) * self.batch_size
        empty = jnp.zeros((self.network.width, block_size), hidden.dtype)
        order = jnp.zeros(self._padded_epoch(x.shape), jnp.int32)
        return hidden, empty, empty, jnp.zeros(block_size, jnp.int32), order

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Take one gradient-descent step; if the step starts a block, first update the weights."""
        (n, d), size = shared["x"].shape, self.batch_size
        offset = t % (n // size) % steps_per_block(d, size) * size

        state = jax.lax.cond(offset == 0, lambda: self._begin_block(state, member, shared, t), lambda: state)
        hidden, z, gradients, rows, order = state
        x, rate = shared["x"][rows], shared["learning_rate"]

        def batch_slice(array: Array, axis: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, offset, size, axis)

        x_batch, y_batch = batch_slice(x, 0), shared["y"][batch_slice(rows, 0)]
        layer = hidden_layer_of(self.network)
        values, slopes = value_and_slope(layer.activation, batch_slice(z, 1) - rate * (gradients @ (x @ x_batch.T)))
        a, factor = weights(member.variables, "readout"), layer.factor
        scale = n / size if self.loss.reduction == "sum" else 1.0
        loss, outer_gradient = jax.value_and_grad(lambda f: scale * self.loss(f.T.reshape(y_batch.shape), y_batch))(
            factor * (a.T @ values)
        )
        gradient = factor * slopes * (a @ outer_gradient)
        gradients = jax.lax.dynamic_update_slice_in_dim(gradients, gradient, offset, 1)
        squared_norm = jnp.sum((gradient @ (x_batch @ x_batch.T)) * gradient)
        return (hidden, z, gradients, rows, order), loss, squared_norm

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Return the variables after all steps, including the steps in the current block."""
        return {**member.variables, "params": {"hidden": self._current_weights(state, shared)}}

    def quantities(self, state: State) -> dict[str, Array]:
        """Return an empty dictionary, because this stepper adds no quantities to the result."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """Return the outputs of `network.apply`."""
        return cast(Array, self.network.apply(variables, x))

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Return the number of operations per step: 4 B d m, plus 2 B m for each example in a block."""
        d = arrays["x"].shape[1]
        block_size = steps_per_block(d, self.batch_size) * self.batch_size
        return (4.0 * d + 2.0 * block_size) * self.batch_size * self.network.width

    def _padded_epoch(self, shape: tuple[int, ...]) -> int:
        """Return the number of examples in an epoch, rounded up to a multiple of the block size."""
        block_size = steps_per_block(shape[1], self.batch_size) * self.batch_size
        return -(-shape[0] // block_size) * block_size

    def _current_weights(self, state: State, shared: Shared) -> Array:
        hidden, _, gradients, rows, _ = state
        return hidden - shared["learning_rate"] * (gradients @ shared["x"][rows])

    def _begin_block(self, state: State, member: Member, shared: Shared, t: Array) -> State:
        """Return the state at the start of a block. The examples are reshuffled at the start of each epoch."""
        hidden, (x, (n, d)) = self._current_weights(state, shared), (shared["x"], shared["x"].shape)
        batches, padding = n // self.batch_size, self._padded_epoch((n, d)) - n

        def draw_order() -> Array:
            return jnp.pad(epoch_order(member.key, t // batches, n), (0, padding))

        order = jax.lax.cond(t % batches == 0, draw_order, lambda: state[-1])
        rows = jax.lax.dynamic_slice_in_dim(order, t % batches * self.batch_size, len(state[-2]))
        return hidden, hidden @ x[rows].T, jnp.zeros_like(state[2]), rows, order
