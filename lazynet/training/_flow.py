"""Gradient flow: full-batch descent whose steps are as long as the network's outputs allow."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lazynet.losses import Loss
from lazynet.networks import gradient_operations
from lazynet.training._steppers import Member, Shared, State
from lazynet.typing import AnyArray, Variables

# No step moves an output by more than this share of the targets' RMS; the next is longer, or this one is tried again.
MOVE = 1e-2
LONGER, SHORTER = 1.1, 0.5


@dataclass(frozen=True)
class FlowStepper:
    """Euler steps of d theta / dt = -grad L, of any network and loss, with the rule of Geiger et al. 2019 (1906.08034).

    A step is taken if it lowers the loss and moves no training output by more than MOVE times the RMS of the targets;
    the first that is tried is the learning rate. One that is not taken counts as a step too. Descent far beyond the
    stability limit 2 / lambda_max of the current kernel raises the loss, so that steps stay about that limit, whatever
    becomes of the kernel.

    What is trained is alpha f with alpha among the shared arrays, so that all alpha have one program; `network` itself
    has none.
    """

    network: Any
    loss: Loss

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs as they are."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Parameters with loss, outputs and gradient there, the length of the next step and the time."""
        params, rate = member.variables["params"], shared["learning_rate"]
        return params, *self._descent(params, member, shared), rate, jnp.zeros_like(rate)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """One step, taken or not."""
        params, loss, f, gradient, rate, time = state
        moved = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
        there = moved, *self._descent(moved, member, shared)
        _, new_loss, new_f, _ = there
        # Whatever is not a number is not below either.
        short = jnp.max(jnp.abs(new_f - f)) <= MOVE * jnp.sqrt(jnp.mean(shared["y"] ** 2))
        taken = short & (new_loss < loss)
        square = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), there, (params, loss, f, gradient))
        time = jnp.where(taken, time + rate, time)
        return (*after, rate * jnp.where(taken, LONGER, SHORTER).astype(rate.dtype), time), loss, jnp.asarray(square)

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The variables with the trained parameters in place."""
        return {**member.variables, "params": state[0]}

    def known(self, state: State) -> dict[str, Array]:
        """The time, the sum of the steps that were taken."""
        return {"time": state[5]}

    def outputs(self, variables: Variables, x: AnyArray, shared: Shared) -> Array:
        """alpha f."""
        return shared["output_scale"] * self.network.apply(variables, x)

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Those of the gradient."""
        return gradient_operations(self.network, *arrays["x"].shape)

    def _descent(self, params: Any, member: Member, shared: Shared) -> tuple[Array, Array, Any]:
        """Loss, outputs and gradient."""

        def objective(params: Any) -> tuple[Array, Array]:
            f = self.outputs({**member.variables, "params": params}, shared["x"], shared)
            return self.loss(f, shared["y"]), f

        (loss, f), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return loss, f, gradient
