"""Analysis of how a network uses each of its parameter arrays, based on a trace of the network."""

from collections.abc import Callable, Sequence
from itertools import count
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal

# Primitives that do nothing but call the function given by their "jaxpr" parameter.
CALLS = ("jit", "checkpoint", "remat2")
# Primitives that change only the order, shape, sign or dtype of the entries.
REARRANGEMENTS = frozenset(
    ("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "neg", "reshape", "rev", "squeeze", "transpose")
)

# A value in a program, represented by its number or by a literal.
Value = int | Literal
Scales = tuple[tuple[str, Value], ...]


class Step(NamedTuple):
    """One operation of a `Program`.

    Attributes:
        equation: Traced equation, which contains the primitive and its parameters.
        inputs: Inputs, each given by the number of a value or by a literal.
        outputs: Numbers of the outputs.
    """

    equation: JaxprEqn
    inputs: list[Value]
    outputs: list[int]

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.equation.primitive.name

    @property
    def input_types(self) -> list[Any]:
        """Shapes and dtypes of the inputs."""
        return [atom.aval for atom in self.equation.invars]

    @property
    def output_types(self) -> list[Any]:
        """Shapes and dtypes of the outputs."""
        return [variable.aval for variable in self.equation.outvars]


class Program(NamedTuple):
    """A function represented as a sequence of operations, with values identified by numbers.

    Functions called by the primitives in `CALLS` are inlined, so that uses of a value inside them are visible.

    Attributes:
        arguments: Numbers of the arguments.
        constants: Dictionary that maps the number of each constant to its value.
        steps: Operations in the order in which they are performed.
        results: Results, each given by the number of a value or by a literal.
    """

    arguments: list[int]
    constants: dict[int, Any]
    steps: list[Step]
    results: list[Value]

    def zeros(self, value: int) -> jax.Array:
        """Return zeros with the shape and dtype of the given value, which must be an output of a step."""
        kind = next(step.output_types[step.outputs.index(value)] for step in self.steps if value in step.outputs)
        return jnp.zeros(kind.shape, kind.dtype)


class Dense(NamedTuple):
    """The only use of an array W in a program, either in a dense layer y = W a + b or as a term of a sum y = W + b.

    Up to the order of the entries, dy/dW equals a in the first case and 1 in the second case.

    Attributes:
        output: The value y.
        input: The value a, or None in the second case.
        scales: Pairs ("mul", value) or ("div", value), one for each scalar value by which W is multiplied or divided.
    """

    output: int
    input: Value | None
    scales: Scales


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """Trace a function for the shapes and dtypes of the given arguments, and return the resulting program."""
    numbers = count()
    constants: dict[int, Any] = {}
    steps: list[Step] = []

    def number(variables: Sequence[Any], names: dict[Any, Value]) -> list[int]:
        values = [next(numbers) for _ in variables]
        names.update(zip(variables, values, strict=True))
        return values

    def walk(called: Any, inputs: list[Value]) -> list[Value]:
        # A call contains either a closed jaxpr or a jaxpr without constants.
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
    inputs = [next(numbers) for _ in closed.jaxpr.invars]
    return Program(inputs, constants, steps, walk(closed, list(inputs)))


def evaluate(program: Program, arguments: Sequence[Any], shifts: dict[int, Any]) -> Callable[[Value], Any]:
    """Run a program with shifts added to some of the values that it computes.

    Args:
        program: Program to run.
        arguments: Arguments of the program, one for each number in `program.arguments`.
        shifts: Dictionary that maps the number of an output of a step to the array that is added to this output.

    Returns:
        A function that maps the number of a value to the value in this run, and a literal to its value.
    """
    environment = {**program.constants, **dict(zip(program.arguments, arguments, strict=True))}

    def read(value: Value) -> Any:
        return value.val if isinstance(value, Literal) else environment[value]

    for step in program.steps:
        primitive = step.equation.primitive
        result = primitive.bind(*map(read, step.inputs), **primitive.get_bind_params(step.equation.params))
        outputs = result if primitive.multiple_results else [result]
        for value, output in zip(step.outputs, outputs, strict=True):
            environment[value] = output + shifts[value] if value in shifts else output
    return read


def uses(program: Program, arrays: Sequence[int], x: int) -> dict[int, Dense | None]:
    """Determine how a program uses each parameter array.

    The result maps each array to a `Dense` if the array is used only once, in a dense layer. It maps an array to None
    if the array is used more than once, in an elementwise operation, or in an operation that is not analyzed (such as a
    loop, a convolution or a function with a custom derivative). Unused arrays are omitted.

    Args:
        program: Program obtained by tracing the network.
        arrays: Numbers that identify the parameter arrays.
        x: Number that identifies the input.
    """
    # For each value that results from rearranging, scaling or shifting an array: the array's number and the scales.
    copies: dict[int, tuple[int, Scales]] = {array: (array, ()) for array in arrays}
    varying = _dependents(program, x)
    reads = _read_counts(program)
    uses_by_array: dict[int, list[Dense | None]] = {array: [] for array in arrays}
    for step in program.steps:
        for position, value in enumerate(step.inputs):
            if isinstance(value, Literal) or value not in copies:
                continue
            array, scales = copies[value]
            further = _scales(step, position, varying)
            # The result of an operation on two arrays is tracked only as a copy of the first array.
            if further is not None and step.outputs[0] not in copies:
                copies[step.outputs[0]] = array, scales + further
            else:
                uses_by_array[array].append(_dense(step, position, scales, reads))
    for value in program.results:
        if not isinstance(value, Literal) and value in copies:
            uses_by_array[copies[value][0]].append(None)
    return {array: dense[0] if len(dense) == 1 else None for array, dense in uses_by_array.items() if dense}


def _dependents(program: Program, x: int) -> set[int]:
    """Return the values that depend on x, including x itself."""
    dependents = {x}
    for step in program.steps:
        if any(not isinstance(value, Literal) and value in dependents for value in step.inputs):
            dependents.update(step.outputs)
    return dependents


def _read_counts(program: Program) -> dict[int, int]:
    """Count how many times each output of a step is read."""
    counts = {output: 0 for step in program.steps for output in step.outputs}
    for value in [value for step in program.steps for value in step.inputs] + list(program.results):
        if not isinstance(value, Literal) and value in counts:
            counts[value] += 1
    return counts


def _scales(step: Step, position: int, varying: set[int]) -> Scales | None:
    """Return the scales that a step applies to the input at `position`.

    The result is None if the step does anything other than scale, shift or rearrange the input.
    """
    kinds = step.output_types
    same_size = len(kinds) == 1 and kinds[0].size == step.input_types[position].size
    if not same_size or not jnp.issubdtype(kinds[0].dtype, jnp.floating):
        return None
    if step.name in REARRANGEMENTS:
        return () if position == 0 else None
    if step.name not in ("add", "sub", "mul", "div"):
        return None
    other = step.inputs[1 - position]
    if step.name in ("add", "sub"):
        # A shift that does not depend on x, such as -W_0 in a linearized network, does not affect the derivative.
        return () if isinstance(other, Literal) or other not in varying else None
    is_factor = step.input_types[1 - position].size == 1 and (step.name, position) != ("div", 1)
    return ((step.name, other),) if is_factor else None


def _dense(step: Step, position: int, scales: Scales, reads: dict[int, int]) -> Dense | None:
    """Describe how a dense layer uses the input at `position`, or return None if the step is not in a dense layer."""
    if step.name not in ("dot_general", "add", "sub", "add_any"):
        return None
    output, other = step.outputs[0], step.inputs[1 - position]
    if step.name == "dot_general":
        contracted, _ = step.equation.params["dimension_numbers"]
        summed = contracted[1 - position]
        rows = prod(size for axis, size in enumerate(step.input_types[1 - position].shape) if axis not in summed)
        return Dense(output, other, scales) if rows == 1 else None
    if len({kind.size for kind in step.input_types + step.output_types}) > 1:
        return None
    # The gradient with respect to a sum equals the gradient with respect to each of its terms, so in y = W a + b, the
    # gradient with respect to b equals the gradient with respect to W a.
    if not isinstance(other, Literal) and reads.get(other) == 1:
        return Dense(other, None, scales)
    return Dense(output, None, scales)
