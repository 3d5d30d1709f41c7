"""Steppers, which train a member one step at a time, by autodiff or with a hand-written gradient.

A stepper turns variables into a state, advances the state, and turns it back into variables. The methods that do
this are pure and traced. They take data as arguments and never close over it; otherwise, compiled programs would store
the data as constants.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import PyTree

from lazynet.arrays import input_dtype
from lazynet.losses import Loss
from lazynet.networks import HiddenLayer, Model, Network, gradient_operations, hidden_layer_of, value_and_slope, weights
from lazynet.training._keys import epoch_order
from lazynet.training._optimizer import Optimizer, UpdateRule
from lazynet.training._units import ONE_DEVICE, Units
from lazynet.typing import AnyArray, Variables

# The state of a stepper, which can be any pytree of arrays.
State = Any
# Arrays shared by all members, including "x" (n, d), "y" and the scalar "learning_rate".
Shared = dict[str, Array]


class Member(NamedTuple):
    """A network to train.

    Attributes:
        variables: Initial variables.
        key: Random key for drawing the mini-batches.
        context: Pytree of arrays against which measurements are compared.
    """

    variables: Variables
    key: Array
    context: PyTree


@runtime_checkable
class Stepper(Protocol):
    """An algorithm that trains one member step by step.

    A stepper is a frozen dataclass with pure methods. Its network can be replaced using `dataclasses.replace`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def network(self) -> Model:
        """The network to train."""
        ...

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the arrays that all members share.

        The arrays are computed only once, on the host and in float64.

        Args:
            x: Training inputs, shape (n, d).

        Returns:
            The arrays, keyed by name.
        """
        ...

    def start(self, member: Member, shared: Shared) -> State:
        """Return the state at step 0.

        Args:
            member: Network to train.
            shared: Arrays that all members share.

        Returns:
            The state, a pytree of arrays.
        """
        ...

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Take step t.

        Args:
            state: State before the step.
            member: Network to train.
            shared: Arrays that all members share.
            t: Step number, a scalar integer array; the first step is 0.

        Returns:
            The state after the step, and the loss and squared gradient norm before the step.
        """
        ...

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Recover the network's variables from a state.

        Args:
            state: State to read.
            member: Network to train.
            shared: Arrays that all members share.

        Returns:
            The variables.
        """
        ...

    def quantities(self, state: State) -> dict[str, Array]:
        """Compute the quantities that can be read only from the stepper's state, such as the time along a flow.

        Args:
            state: State to read.

        Returns:
            The quantities, keyed by their names in the result.
        """
        ...

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """Compute the outputs of the network.

        Args:
            variables: Variables of the network.
            x: Inputs, shape (n, d).
            shared: Arrays that all members share.

        Returns:
            The outputs, shape (n,) or (n, k).
        """
        ...

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Count the operations in one step.

        Args:
            arrays: Arrays returned by `share`.

        Returns:
            The number of floating-point operations in the large matrix products.
        """
        ...


@dataclass(frozen=True)
class AutodiffStepper:
    """Stepper for any network, loss and optax optimizer, on the full batch or on mini-batches.

    In each epoch, a new permutation of the examples is drawn and divided into mini-batches; the last n mod B examples
    are left out of that epoch. The gradient of a summed loss is scaled by n / B.

    Attributes:
        network: Network to train.
        loss: Loss to minimize.
        optimizer: Function of the learning rate that returns an optax optimizer.
        batch_size: Number B of examples per step, or None for the full batch.
    """

    network: Model
    loss: Loss
    optimizer: UpdateRule
    batch_size: int | None = None

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs unchanged."""
        return {"x": x}

    def start(self, member: Member, shared: Shared) -> State:
        """Return the parameters, the optimizer state and, for mini-batches, the order of the examples in the epoch."""
        params = member.variables["params"]
        state = params, self.optimizer(shared["learning_rate"]).init(params)
        return state if self.batch_size is None else (*state, jnp.zeros(len(shared["x"]), jnp.int32))

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Take one step of the optimizer."""
        params, optimizer_state = state[:2]
        order = tuple(self._order(epoch, member.key, t) for epoch in state[2:])
        x, y, scale = self._batch(shared, t, *order)

        def objective(params: PyTree) -> Array:
            return self.loss(self.network.apply({**member.variables, "params": params}, x), y)

        loss, gradient = jax.value_and_grad(objective)(params)
        gradient = jax.tree.map(lambda g: scale * g, gradient)
        update, optimizer_state = self.optimizer(shared["learning_rate"]).update(gradient, optimizer_state, params)
        ridge = self.optimizer.ridge if isinstance(self.optimizer, Optimizer) else 0.0
        if ridge:
            # The optimizer has added this term itself. It also counts toward the norm of the gradient.
            start = member.variables["params"]
            gradient = jax.tree.map(lambda g, now, then: g + ridge * (now - then), gradient, params, start)
        squared_norm = _sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        return (optax.apply_updates(params, update), optimizer_state, *order), scale * loss, squared_norm

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Return the variables with the trained parameters."""
        return {**member.variables, "params": state[0]}

    def quantities(self, state: State) -> dict[str, Array]:
        """Return an empty dictionary, because this stepper adds no quantities to the result."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """Return the outputs of `network.apply`."""
        return self.network.apply(variables, x)

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Return the number of operations needed to compute one gradient on a batch."""
        (n, d), dtype = arrays["x"].shape, input_dtype(arrays["x"], "float32")
        # This method is called only for networks, not for their Taylor polynomials.
        return gradient_operations(cast(Network, self.network), self.batch_size or n, d, dtype)

    def _order(self, order: Array, key: Array, t: Array) -> Array:
        """Return the order of the examples in the epoch that contains step t."""
        batches = len(order) // (self.batch_size or len(order))
        # Drawing a permutation requires a sort, which can take longer than a step, so draw one only once per epoch.
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
    """Plain full-batch gradient descent on the squared loss, with a hand-written gradient for the hidden weights.

    With pre-activations Z = W X', residual r = f - y and G = sigma'(Z) * (a r'), a step is W <- W - eta c G X, where
    c = alpha / sqrt(m). The state includes the slopes sigma'(Z), so a step requires only two matrix products. The units
    are processed in blocks that fit in the cache. If the rank of the inputs is less than d, inputs and weights are
    rotated into the row space of the inputs, which changes neither Z nor the displacement of the weights.

    Attributes:
        network: Two-layer network whose hidden weights are trained.
        units: Partition of the hidden units into blocks.
    """

    network: Network
    units: Units = ONE_DEVICE

    def share(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs and their coordinates in their row space.

        If the rank of the inputs is less than d, the result also contains a basis of the row space, of shape (d, rank).
        """
        basis = row_space(x)
        if basis.shape[1] == x.shape[1]:
            return {"x": x, "rows": x}
        return {"x": x, "rows": x @ basis, "basis": basis}

    def start(self, member: Member, shared: Shared) -> State:
        """Return the row-space weights and the slopes, each as a list of blocks, and the outputs."""

        def begin(hidden: Array, readout: Array, rows: Array) -> tuple[Any, ...]:
            blocks = self._blocks(hidden)
            return blocks, *self._forward([block @ rows.T for block in blocks], readout)

        unit_arrays = self._rotated(member, shared), weights(member.variables, "readout")
        hidden, slopes, terms = self.units.apply(begin, unit_arrays, (shared["rows"],))
        return hidden, slopes, self._sum(terms)

    def step(self, state: State, member: Member, shared: Shared, t: Array) -> tuple[State, Array, Array]:
        """Take one gradient-descent step."""

        def descend(
            hidden: list[Array], slopes: list[Array], readout: Array, residual: Array, rows: Array, rate: Array
        ) -> tuple[Any, ...]:
            gradient = [g @ rows for g in self._back(slopes, readout, residual)]
            hidden = [block - rate * g for block, g in zip(hidden, gradient, strict=True)]
            forward = self._forward([block @ rows.T for block in hidden], readout)
            return hidden, *forward, jnp.stack([jnp.sum(g**2) for g in gradient])

        hidden, slopes, f = state
        residual = f - outputs_first(shared["y"])
        unit_arrays = hidden, slopes, weights(member.variables, "readout")
        replicated = residual, shared["rows"], self._rate(shared)
        hidden, slopes, terms, squares = self.units.apply(descend, unit_arrays, replicated)
        # The compiler removes the computation of this norm if no stopping criterion uses it.
        squared_norm = self._layer.factor**2 * jnp.sum(squares)
        return (hidden, slopes, self._sum(terms)), 0.5 * jnp.sum(residual**2), squared_norm

    def read(self, state: State, member: Member, shared: Shared) -> Variables:
        """Return the variables, with the displacement rotated back from the row space."""
        hidden = self.units.apply(jnp.concatenate, (state[0],), ())
        if "basis" in shared:
            hidden = member.variables["params"]["hidden"] + (hidden - self._rotated(member, shared)) @ shared["basis"].T
        return {**member.variables, "params": {"hidden": hidden}}

    def quantities(self, state: State) -> dict[str, Array]:
        """Return an empty dictionary, because this stepper adds no quantities to the result."""
        return {}

    def outputs(self, variables: Variables, x: Array, shared: Shared) -> Array:
        """Return the outputs, summed over blocks in the same order as in training."""

        def forward(hidden: Array, readout: Array, x: Array) -> Array:
            return self._forward([block @ x.T for block in self._blocks(hidden)], readout)[1]

        unit_arrays = weights(variables, "hidden"), weights(variables, "readout")
        f = self._sum(self.units.apply(forward, unit_arrays, (x,))).T
        return f[:, 0] if self.network.outputs == 1 else f

    def operations(self, arrays: dict[str, np.ndarray]) -> float:
        """Return the number of operations per step, 4 * n * rank * m."""
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
        """Sum the terms from all blocks to obtain the outputs, of shape (k, n)."""
        return self._layer.factor * self.units.total(terms)

    def _forward(self, z: list[Array], readout: Array) -> tuple[list[Array], Array]:
        """Return the slopes in each block, and the contributions of the blocks to the outputs.

        The contributions have shape (blocks, k, n).
        """
        values, slopes = zip(*(value_and_slope(self._layer.activation, block) for block in z), strict=True)
        # On a CPU, this product is ten times as fast as the transposed product.
        terms = jnp.stack([a.T @ block for a, block in zip(self._blocks(readout), values, strict=True)])
        # The slopes of relu are 0 or 1; storing them as bytes cuts memory traffic by a factor of four.
        return [block.astype(bool) if self._layer.binary_slope else block for block in slopes], terms

    def _back(self, slopes: list[Array], readout: Array, residual: Array) -> list[Array]:
        """Return the rows of the matrix G for the units in each block."""
        blocks = zip(slopes, self._blocks(readout), strict=True)
        return [block.astype(residual.dtype) * (a @ residual) for block, a in blocks]


def _sum(terms: Iterable[Array]) -> Array:
    return jnp.sum(jnp.stack(list(terms)))


def row_space(x: np.ndarray) -> np.ndarray:
    """Compute an orthonormal basis of the row space of a matrix.

    Args:
        x: Inputs, shape (n, d).

    Returns:
        The basis as columns, shape (d, rank), in the dtype of `x`. Singular values that are zero up to float64 rounding
        do not count toward the rank.
    """
    _, values, directions = np.linalg.svd(x, full_matrices=False)
    rank = int(np.sum(values > max(x.shape) * np.finfo(np.float64).eps * values[0]))
    return directions[:rank].T


def outputs_first(y: Array) -> Array:
    """Return the targets with shape (k, n), or (1, n) for a single output."""
    return y.reshape(y.shape[0], -1).T
