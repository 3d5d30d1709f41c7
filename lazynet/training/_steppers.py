"""How a member takes one step: any optimizer and loss by autodiff, or plain descent written out by hand.

A stepper turns variables into a state, steps the state, and reads variables back. Its methods are pure and traced; what
they need of the data comes in as arguments, never closed over.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lazynet.losses import Loss
from lazynet.networks import HiddenLayer, Network, gradient_operations, hidden_layer_of, value_and_slope, weights
from lazynet.training._keys import epoch_order
from lazynet.training._units import ONE_DEVICE, Units
from lazynet.typing import AnyArray, Variables

Optimizer = Callable[[float | Array], optax.GradientTransformation]
State = Any
# Arrays that all members share: at least "x" (n, d), "y" and the scalar "learning_rate".
Shared = dict[str, Array]


class Member(NamedTuple):
    """One network of a sweep: its start, its key for the order of batches, and what its measures compare with."""

    variables: Variables
    key: Array
    context: Any


@runtime_checkable
class Stepper(Protocol):
    """The pure functions of a training stepper, and the data it needs."""

    @property
    def network(self) -> Any:
        """What is trained."""
        ...

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What members share of the inputs, computed once on the host in float64."""
        ...

    def start(self, member: Member, shared: Shared) -> State:
        """The state at step 0."""
        ...

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """The state after step t, and before it the loss and the squared norm of its gradient."""
        ...

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The network's variables at this state."""
        ...

    def known(self, state: State) -> dict[str, Array]:
        """What the stepper itself knows of this state, by the names of the result."""
        ...

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """The network's outputs, (n,) or (n, k)."""
        ...

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Floating-point operations of the large matrix products of one member's step, from what `share` gave."""
        ...


@dataclass(frozen=True)
class AutodiffStepper:
    """Any network, loss and optax optimizer, on the full batch or on mini-batches.

    A mini-batch is a part of a permutation drawn anew for each epoch; the n modulo B examples that do not fill a batch
    are left out of that epoch. The gradient of a summed loss is scaled by n / B.
    """

    network: Any
    loss: Loss
    optimizer: Optimizer
    batch_size: int | None = None

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs as they are."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Parameters, the optimizer's own state, and with mini-batches the order of examples in this epoch."""
        params = member.variables["params"]
        state = params, self.optimizer(shared["learning_rate"]).init(params)
        return state if self.batch_size is None else (*state, jnp.zeros(len(shared["x"]), jnp.int32))

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """One step of the optimizer."""
        params, memory = state[:2]
        order = tuple(self._order(epoch, member.key, t) for epoch in state[2:])
        x, y, scale = self._batch(shared, t, *order)

        def objective(params: Any) -> Array:
            return self.loss(self.network.apply({**member.variables, "params": params}, x), y)

        loss, gradient = jax.value_and_grad(objective)(params)
        gradient = jax.tree.map(lambda g: scale * g, gradient)
        update, memory = self.optimizer(shared["learning_rate"]).update(gradient, memory, params)
        square = _sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        return (optax.apply_updates(params, update), memory, *order), scale * loss, square

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The variables with the trained parameters in place."""
        return {**member.variables, "params": state[0]}

    def known(self, state: State) -> dict[str, Array]:
        """Nothing."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """As the network applies itself."""
        return self.network.apply(variables, x)

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Those of the gradient on a batch."""
        n, d = arrays["x"].shape
        return gradient_operations(self.network, self.batch_size or n, d)

    def _order(self, order: Array, key: Array, t: Array) -> Array:
        """The order of examples in the epoch of step t, drawn where one begins: a sort, which few steps can afford."""
        batches = len(order) // (self.batch_size or len(order))
        return jax.lax.cond(t % batches == 0, lambda: epoch_order(key, t // batches, len(order)), lambda: order)

    def _batch(self, shared: Shared, t: Array, order: Array | None = None) -> tuple[Array, Array, float]:
        x, y = shared["x"], shared["y"]
        if order is None or self.batch_size is None:
            return x, y, 1.0
        n, size = x.shape[0], self.batch_size
        rows = jax.lax.dynamic_slice_in_dim(order, (t % (n // size)) * size, size)
        return x[rows], y[rows], n / size if self.loss.reduction == "sum" else 1.0


@dataclass(frozen=True)
class HiddenStepper:
    """Plain full-batch descent of the squared loss in the hidden weights, with the gradient written out.

    With r = f - y and G = sigma'(Z) * (a r'), a step is W <- W - eta c G X, c = alpha / sqrt(m). The slopes at
    pre-activations Z = W X' are kept, so that a step costs two matrix products. Units are in blocks, each of which is
    done with while it is in the cache. Inputs of rank below d are rotated to their row space, which leaves Z and the
    movement as they are.
    """

    network: Network
    units: Units = ONE_DEVICE

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs, and the inputs in their row space with its basis (d, rank) where the rank is below d."""
        basis = row_space(x)
        if basis.shape[1] == x.shape[1]:
            return {"x": x, "rows": x}
        return {"x": x, "rows": x @ basis, "basis": basis}

    def start(self, member: Member, shared: Shared) -> State:
        """Weights in the row space and slopes of each block, and outputs."""

        def begin(hidden: Array, readout: Array, rows: Array) -> tuple:
            blocks = self._blocks(hidden)
            return blocks, *self._forward([block @ rows.T for block in blocks], readout)

        of_units = self._rotated(member, shared), weights(member.variables, "readout")
        hidden, slopes, terms = self.units.each(begin, of_units, (shared["rows"],))
        return hidden, slopes, self._sum(terms)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """One step of descent."""

        def descend(hidden: Any, slopes: Any, readout: Array, residual: Array, rows: Array, rate: Array) -> tuple:
            gradient = [g @ rows for g in self._back(slopes, readout, residual)]
            hidden = [block - rate * g for block, g in zip(hidden, gradient, strict=True)]
            forward = self._forward([block @ rows.T for block in hidden], readout)
            return hidden, *forward, jnp.stack([jnp.sum(g**2) for g in gradient])

        hidden, slopes, f = state
        residual = f - _outputs_first(shared["y"])
        of_units, whole = (hidden, slopes, weights(member.variables, "readout")), (residual, shared["rows"])
        hidden, slopes, terms, squares = self.units.each(descend, of_units, (*whole, self._rate(shared)))
        # Where nobody asks for it the compiler leaves it out.
        square = self._layer.factor**2 * jnp.sum(squares)
        return (hidden, slopes, self._sum(terms)), 0.5 * jnp.sum(residual**2), square

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The variables, with the movement rotated back."""
        hidden = self.units.each(jnp.concatenate, (state[0],), ())
        if "basis" in shared:
            hidden = member.variables["params"]["hidden"] + (hidden - self._rotated(member, shared)) @ shared["basis"].T
        return {**member.variables, "params": {"hidden": hidden}}

    def known(self, state: State) -> dict[str, Array]:
        """Nothing."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """As training sums them up, block after block."""

        def forward(hidden: Array, readout: Array, x: Array) -> Array:
            return self._forward([block @ x.T for block in self._blocks(hidden)], readout)[1]

        of_units = weights(variables, "hidden"), weights(variables, "readout")
        f = self._sum(self.units.each(forward, of_units, (x,))).T
        return f[:, 0] if self.network.outputs == 1 else f

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """4 n rank m."""
        return 4.0 * arrays["rows"].size * self.network.width

    @property
    def _layer(self) -> HiddenLayer:
        return hidden_layer_of(self.network)

    def _rotated(self, member: Member, shared: Shared) -> AnyArray:
        hidden = weights(member.variables, "hidden")
        return hidden @ shared["basis"] if "basis" in shared else hidden

    def _blocks(self, units: AnyArray) -> list[Array]:
        return self.units.split(units, self.network.width)

    def _rate(self, shared: Shared) -> Array:
        return shared["learning_rate"] * self._layer.factor

    def _sum(self, terms: Array) -> Array:
        """Outputs (k, n) from those of each block."""
        return self._layer.factor * self.units.total(terms)

    def _forward(self, z: list[Array], readout: Array) -> tuple[list[Array], Array]:
        """Slopes of each block, and its part of the outputs (blocks, k, n).

        In this order the product with the readout takes a tenth of the time on a CPU.
        """
        values, slopes = zip(*(value_and_slope(self._layer.activation, block) for block in z), strict=True)
        terms = jnp.stack([a.T @ block for a, block in zip(self._blocks(readout), values, strict=True)])
        # Those of relu are 0 or 1, and in a byte each they take a quarter of the memory's time.
        return [block.astype(bool) if self._layer.binary_slopes else block for block in slopes], terms

    def _back(self, slopes: list[Array], readout: Array, residual: Array) -> list[Array]:
        """G of each block."""
        blocks = zip(slopes, self._blocks(readout), strict=True)
        return [block.astype(residual.dtype) * (a @ residual) for block, a in blocks]


@dataclass(frozen=True)
class PreactivationStepper(HiddenStepper):
    """The same descent on pre-activations, Z <- Z - eta c G X X', at 2 n^2 m a step: cheaper where 2 rank > n.

    The sum of G is kept, so that W = W_0 - eta c (sum G) X can be read whenever it is wanted.
    """

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs and their Gram matrix."""
        return {"x": x, "gram": x @ x.T}

    def start(self, member: Member, shared: Shared) -> State:
        """Pre-activations, the sum of G and slopes of each block, and outputs."""

        def begin(hidden: Array, readout: Array, x: Array) -> tuple:
            z = [block @ x.T for block in self._blocks(hidden)]
            return z, [jnp.zeros_like(block) for block in z], *self._forward(z, readout)

        of_units = weights(member.variables, "hidden"), weights(member.variables, "readout")
        z, total, slopes, terms = self.units.each(begin, of_units, (shared["x"],))
        return z, total, slopes, self._sum(terms)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """One step of descent."""

        def descend(
            z: Any, total: Any, slopes: Any, readout: Array, residual: Array, gram: Array, rate: Array
        ) -> tuple:
            back = self._back(slopes, readout, residual)
            moved = [g @ gram for g in back]
            z = [block - rate * move for block, move in zip(z, moved, strict=True)]
            total = [block + g for block, g in zip(total, back, strict=True)]
            squares = jnp.stack([jnp.sum(g * m) for g, m in zip(back, moved, strict=True)])
            return z, total, *self._forward(z, readout), squares

        *of_units, f = state
        residual = f - _outputs_first(shared["y"])
        of_units, whole = (*of_units, weights(member.variables, "readout")), (residual, shared["gram"])
        *of_units, terms, squares = self.units.each(descend, of_units, (*whole, self._rate(shared)))
        square = self._layer.factor**2 * jnp.sum(squares)
        return (*of_units, self._sum(terms)), 0.5 * jnp.sum(residual**2), square

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """The variables, from the start and the sum of G."""
        total = self.units.each(jnp.concatenate, (state[1],), ())
        hidden = member.variables["params"]["hidden"] - self._rate(shared) * (total @ shared["x"])
        return {**member.variables, "params": {"hidden": hidden}}

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """2 n^2 m."""
        return 2.0 * arrays["gram"].size * self.network.width


def _sum(terms: Iterable[Array]) -> Array:
    return jnp.sum(jnp.stack(list(terms)))


def row_space(x: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, rank) of the row space of x, in float64."""
    _, values, directions = np.linalg.svd(x, full_matrices=False)
    rank = int(np.sum(values > max(x.shape) * np.finfo(np.float64).eps * values[0]))
    return directions[:rank].T


def _outputs_first(y: Array) -> Array:
    return y.reshape(y.shape[0], -1).T
