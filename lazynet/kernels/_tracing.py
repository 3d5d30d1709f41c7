"""What a network does with each of its parameter arrays, read from its trace."""

from collections.abc import Callable, Sequence
from itertools import count
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

# Calls that compute what is inside of them and no more.
CALLS = ("jit", "checkpoint", "remat2")
# Steps that change the order, the shape or the sign of the entries, or their dtype.
REARRANGEMENTS = frozenset(
    ("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "neg", "reshape", "rev", "squeeze", "transpose")
)

# A value of a program: its number, or a literal.
Value = Any


class Step(NamedTuple):
    """An operation on numbered values."""

    equation: JaxprEqn
    inputs: list[Value]
    outputs: list[int]

    @property
    def name(self) -> str:
        """The name of its primitive."""
        return self.equation.primitive.name

    @property
    def given(self) -> list[Any]:
        """Shapes and dtypes of its inputs."""
        return [atom.aval for atom in self.equation.invars]

    @property
    def made(self) -> list[Any]:
        """Shapes and dtypes of its outputs."""
        return [variable.aval for variable in self.equation.outvars]


class Program(NamedTuple):
    """A function as operations in order; calls are written out, so that every use of a value is seen."""

    arguments: list[int]
    constants: dict[int, Any]
    steps: list[Step]
    results: list[Value]

    def zeros(self, value: int) -> jax.Array:
        """Zeros of the shape and dtype of a value that a step gives."""
        made = next(step.made[step.outputs.index(value)] for step in self.steps if value in step.outputs)
        return jnp.zeros(made.shape, made.dtype)


class Dense(NamedTuple):
    """An array W that enters once, as y = W a + ... or y = W + ...; dy/dW = a, or 1, up to the order of entries.

    Attributes:
        output: the value y.
        input: the value a; None for 1.
        scales: "mul" or "div" with a number that multiplies or divides W.
    """

    output: int
    input: Value | None
    scales: tuple[tuple[str, Value], ...]


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """The program of a function at the shapes and dtypes of these arguments."""
    numbers = count()
    constants: dict[int, Any] = {}
    steps: list[Step] = []

    def number(variables: Sequence[Any], names: dict[Any, Value]) -> list[int]:
        new = [next(numbers) for _ in variables]
        names.update(zip(variables, new, strict=True))
        return new

    def walk(called: Any, inputs: list[Value]) -> list[Value]:
        # Calls hold a jaxpr with its constants, or a bare one that has none.
        jaxpr = getattr(called, "jaxpr", called)
        names: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        constants.update(zip(number(jaxpr.constvars, names), getattr(called, "consts", ()), strict=True))

        def read(atoms: Sequence[Any]) -> list[Value]:
            return [atom if isinstance(atom, Literal) else names[atom] for atom in atoms]

        for equation in jaxpr.eqns:
            values = read(equation.invars)
            if equation.primitive.name in CALLS and "jaxpr" in equation.params:
                names.update(zip(equation.outvars, walk(equation.params["jaxpr"], values), strict=True))
            else:
                steps.append(Step(equation, values, number(equation.outvars, names)))
        return read(jaxpr.outvars)

    closed = jax.make_jaxpr(function)(*arguments)
    given = [next(numbers) for _ in closed.jaxpr.invars]
    return Program(given, constants, steps, walk(closed, given))


def evaluate(program: Program, arguments: Sequence[Any], shifts: dict[int, Any]) -> Callable[[Value], Any]:
    """Run a program with shifts added to some of its values; gives a function that reads the values."""
    known = {**program.constants, **dict(zip(program.arguments, arguments, strict=True))}

    def read(value: Value) -> Any:
        return value.val if isinstance(value, Literal) else known[value]

    for step in program.steps:
        primitive = step.equation.primitive
        found = primitive.bind(*map(read, step.inputs), **primitive.get_bind_params(step.equation.params))
        outputs = found if primitive.multiple_results else [found]
        for value, output in zip(step.outputs, outputs, strict=True):
            known[value] = output + shifts[value] if value in shifts else output
    return read


def uses(program: Program, arrays: Sequence[int], x: int) -> dict[int, Dense | None]:
    """How each array that a program uses enters: as in a dense layer, once and in no other way, or else None.

    It is None for an array that enters twice, that is used entry by entry, or that goes where this does not look (a
    loop, a convolution, a function with its own derivative).
    """
    # Each value that is an array, rearranged and scaled: the array and the scales.
    disguised: dict[int, tuple[int, tuple[tuple[str, Value], ...]]] = {array: (array, ()) for array in arrays}
    varying = _reached_from(program, x)
    readers = _readers(program)
    found: dict[int, list[Dense | None]] = {array: [] for array in arrays}
    for step in program.steps:
        for position, value in enumerate(step.inputs):
            if isinstance(value, Literal) or value not in disguised:
                continue
            array, scales = disguised[value]
            further = _scales(step, position, varying)
            # Of two arrays in one sum or product, only one can go on under this name.
            if further is not None and step.outputs[0] not in disguised:
                disguised[step.outputs[0]] = array, scales + further
            else:
                found[array].append(_dense(step, position, scales, readers))
    for value in program.results:
        if not isinstance(value, Literal) and value in disguised:
            found[disguised[value][0]].append(None)
    return {array: every[0] if len(every) == 1 else None for array, every in found.items() if every}


def _reached_from(program: Program, x: int) -> set[int]:
    """The values that depend on x."""
    reached = {x}
    for step in program.steps:
        if any(not isinstance(value, Literal) and value in reached for value in step.inputs):
            reached.update(step.outputs)
    return reached


def _readers(program: Program) -> dict[int, int]:
    """How often each value that a step gives is read."""
    readers = {output: 0 for step in program.steps for output in step.outputs}
    for value in [value for step in program.steps for value in step.inputs] + list(program.results):
        if not isinstance(value, Literal) and value in readers:
            readers[value] += 1
    return readers


def _scales(step: Step, position: int, varying: set[int]) -> tuple[tuple[str, Value], ...] | None:
    """How a step scales the entries of its input at this position, if it gives just them; None if it does not."""
    same = len(step.made) == 1 and step.made[0].size == step.given[position].size
    if not same or not jnp.issubdtype(step.made[0].dtype, jnp.floating):
        return None
    if step.name in REARRANGEMENTS:
        return () if position == 0 else None
    if step.name not in ("add", "sub", "mul", "div"):
        return None
    other = step.inputs[1 - position]
    if step.name in ("add", "sub"):
        # What is added is the same for every example, as in W - W_0 of a linearized network.
        return () if isinstance(other, Literal) or other not in varying else None
    is_factor = step.given[1 - position].size == 1 and (step.name, position) != ("div", 1)
    return ((step.name, other),) if is_factor else None


def _dense(step: Step, position: int, scales: tuple[tuple[str, Value], ...], readers: dict[int, int]) -> Dense | None:
    """The use of an array at this position of a step, if it is that of a dense layer."""
    if step.name not in ("dot_general", "add", "sub", "add_any"):
        return None
    output, other = step.outputs[0], step.inputs[1 - position]
    if step.name == "dot_general":
        contracted, _ = step.equation.params["dimension_numbers"]
        summed = contracted[1 - position]
        rows = prod(size for axis, size in enumerate(step.given[1 - position].shape) if axis not in summed)
        return Dense(output, other, scales) if rows == 1 else None
    if len({value.size for value in step.given + step.made}) > 1:
        return None
    # A sum moves as the term beside the array does, so that a bias shares the gradient of its layer's product.
    shared = not isinstance(other, Literal) and readers.get(other) == 1
    return Dense(other if shared else output, None, scales)
