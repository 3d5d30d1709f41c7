"""The stepper that performs plain gradient descent by updating the pre-activations instead of the weights."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.networks import weights
from lazynet.training._steppers import HiddenStepper, Member, Shared, State, outputs_first
from lazynet.typing import Variables


@dataclass(frozen=True)
class PreactivationStepper(HiddenStepper):
    """Plain full-batch gradient descent on the squared loss, carried out on the pre-activations: Z <- Z - eta c G X X'.

    This stepper is equivalent to `HiddenStepper`, which defines the symbols, but needs 2 * n^2 * m operations per step
    rather than 4 * n * rank * m, so it is cheaper if n < 2 * rank. The state includes the sum of G over all steps, from
    which the weights are recovered as W = W_0 - eta c (sum G) X.
    """

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs and their Gram matrix."""
        return {"x": x, "gram": x @ x.T}

    def start(self, member: Member, shared: Shared) -> State:
        """Return the state at step 0.

        The state has four parts: the blocks of the pre-activations, the blocks of the sum of G, the blocks of the
        slopes, and the outputs.
        """

        def begin(hidden: Array, readout: Array, x: Array) -> tuple[Any, ...]:
            z = [block @ x.T for block in self._blocks(hidden)]
            return z, [jnp.zeros_like(block) for block in z], *self._forward(z, readout)

        unit_arrays = weights(member.variables, "hidden"), weights(member.variables, "readout")
        z, total, slopes, terms = self.units.apply(begin, unit_arrays, (shared["x"],))
        return z, total, slopes, self._sum(terms)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Take one gradient-descent step."""

        def descend(
            z: list[Array],
            total: list[Array],
            slopes: list[Array],
            readout: Array,
            residual: Array,
            gram: Array,
            rate: Array,
        ) -> tuple[Any, ...]:
            back = self._back(slopes, readout, residual)
            products = [g @ gram for g in back]
            z = [block - rate * product for block, product in zip(z, products, strict=True)]
            total = [block + g for block, g in zip(total, back, strict=True)]
            squares = jnp.stack([jnp.sum(g * product) for g, product in zip(back, products, strict=True)])
            return z, total, *self._forward(z, readout), squares

        *unit_arrays, f = state
        residual = f - outputs_first(shared["y"])
        replicated = residual, shared["gram"], self._rate(shared)
        *unit_arrays, terms, squares = self.units.apply(
            descend, (*unit_arrays, weights(member.variables, "readout")), replicated
        )
        squared_norm = self._layer.factor**2 * jnp.sum(squares)
        return (*unit_arrays, self._sum(terms)), 0.5 * jnp.sum(residual**2), squared_norm

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Return the variables, computed from the initial weights and the sum of G over all steps."""
        total = self.units.apply(jnp.concatenate, (state[1],), ())
        hidden = member.variables["params"]["hidden"] - self._rate(shared) * (total @ shared["x"])
        return {**member.variables, "params": {"hidden": hidden}}

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Return the number of operations per step, 2 * n^2 * m."""
        return 2.0 * arrays["gram"].size * self.network.width
