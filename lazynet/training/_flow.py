"""Gradient flow: full-batch gradient descent with a step size that adapts to how far the outputs move."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree

from lazynet.arrays import input_dtype
from lazynet.losses import Loss
from lazynet.networks import Network, gradient_operations
from lazynet.training._steppers import Member, Shared, State
from lazynet.typing import AnyArray, Variables

# Maximum change in an output per step, as a fraction of the RMS of the targets.
MAX_MOVE = 1e-2
# Factors that multiply the step size after an accepted step and after a rejected step.
GROWTH, SHRINKAGE = 1.1, 0.5


@dataclass(frozen=True)
class FlowStepper:
    """Adaptive Euler steps along the gradient flow d theta / dt = -grad L, for any network and loss.

    The step size is chosen as in Geiger et al. 2019 (arXiv:1906.08034). A step is accepted if it lowers the loss and
    moves no training output by more than MAX_MOVE times the RMS of the targets. Rejected steps also count as steps. The
    learning rate is the size of the first step. A step larger than the stability limit 2 / lambda_max of the current
    kernel raises the loss, so the step size stays below or near that limit as the kernel changes.

    The trained function is alpha f. The output scale alpha is a shared array, so that a single compiled program can be
    used for all scales; `network` itself has output scale 1.

    Attributes:
        network: Network to train.
        loss: Loss to minimize.
    """

    network: Network
    loss: Loss

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs unchanged."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Return the parameters, their loss, outputs and gradient, the size of the next step, and the time."""
        params, rate = member.variables["params"], shared["learning_rate"]
        return params, *self._descent(params, member, shared), rate, jnp.zeros_like(rate)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Try one step; if it is rejected, keep the parameters and shorten the next step."""
        params, loss, f, gradient, rate, time = state
        new_params = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
        proposal = new_params, *self._descent(new_params, member, shared)
        _, new_loss, new_f, _ = proposal
        # Comparisons with NaN are false, so a step that leads to a NaN loss is rejected.
        is_short = jnp.max(jnp.abs(new_f - f)) <= MAX_MOVE * jnp.sqrt(jnp.mean(shared["y"] ** 2))
        accepted = is_short & (new_loss < loss)
        squared_norm = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))
        after = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, (params, loss, f, gradient))
        time = jnp.where(accepted, time + rate, time)
        next_rate = rate * jnp.where(accepted, GROWTH, SHRINKAGE).astype(rate.dtype)
        return (*after, next_rate, time), loss, jnp.asarray(squared_norm)

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Return the variables with the trained parameters."""
        return {**member.variables, "params": state[0]}

    def quantities(self, state: State) -> dict[str, Array]:
        """Return the time, which is the sum of the accepted step sizes."""
        return {"time": state[5]}

    def outputs(self, variables: Variables, x: AnyArray, shared: Shared) -> Array:
        """Return the scaled outputs alpha f."""
        return shared["output_scale"] * self.network.apply(variables, x)

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Return the number of operations needed to compute one gradient."""
        (n, d), dtype = arrays["x"].shape, input_dtype(arrays["x"], "float32")
        return gradient_operations(self.network, n, d, dtype)

    def _descent(self, params: PyTree, member: Member, shared: Shared) -> tuple[Array, Array, PyTree]:
        """Return the loss, outputs and gradient at the given parameters."""

        def objective(params: PyTree) -> tuple[Array, Array]:
            f = self.outputs({**member.variables, "params": params}, shared["x"], shared)
            return self.loss(f, shared["y"]), f

        (loss, f), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return loss, f, gradient
