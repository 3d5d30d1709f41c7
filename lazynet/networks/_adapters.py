"""Adapters for a user's network in flax, NNX, stax or as functions."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from lazynet.networks._parametrization import Parametrization, get_parametrization
from lazynet.networks._traits import LayerScaling, Traits, traits
from lazynet.networks._two_layer import Scale, at_width, check_fields
from lazynet.typing import AnyArray, Variables

WHY = "Outputs must be a function of the parameters and of one row; running averages and random masks have no kernel."


@dataclass(frozen=True)
class Adapted:
    """A user's network, as `from_flax`, `from_nnx`, `from_stax` and `from_functions` return it.

    Attributes:
        kind: its library, "flax", "nnx", "stax" or "functions".
        start: function (key, x, width) -> parameters.
        forward: function (parameters, x, width) -> outputs (n,), (n, 1) or (n, k).
        kernel: function of the width that returns the kernel of infinite width, a function (x1, x2=None) -> (n1, n2);
            None if the network has no such kernel.
        width: width of the network.
        outputs: number of outputs k.
        output_scale: alpha, the factor of the outputs: a number or a function of the width.
        parametrization: exponents of the width, for predicted exponents; None if they are unknown.
    """

    kind: str
    start: Callable[[Array, AnyArray, int], Any]
    forward: Callable[[Any, AnyArray, int], Array]
    kernel: Callable[[int], Callable[..., Any]] | None
    width: int
    outputs: int
    output_scale: Scale
    parametrization: str | Parametrization | None

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if self.parametrization is not None:
            get_parametrization(self.parametrization)

    @property
    def one_kernel(self) -> bool:
        """True if the kernel is the same at all widths up to the output scale; stax has a kernel for each width."""
        return self.kind != "stax"

    def clone(self, **changes: Any) -> "Adapted":
        """Return the network with other fields."""
        return replace(self, **changes)

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Return the parameters at the start, drawn in float32 and cast to the dtype of x.

        Raises:
            ValueError: if there are no parameters, or some are not floating point.
        """
        params = self.start(key, jnp.asarray(x).astype(jnp.float32), self.width)
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        if not leaves:
            raise ValueError("The network has no parameters to train.")
        for path, leaf in leaves:
            dtype = jnp.asarray(leaf).dtype
            if not jnp.issubdtype(dtype, jnp.floating):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(f"Parameters must be floating point, got {dtype} at {name!r}.")
        return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(x.dtype), params)}

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Return the outputs, (n,) for one output and (n, k) for more.

        Raises:
            ValueError: if `forward` returns another shape.
        """
        f = self.forward(variables["params"], x, self.width)
        expected = (len(x), self.outputs)
        if jnp.shape(f) != expected and not (self.outputs == 1 and jnp.shape(f) == expected[:1]):
            shape = jnp.shape(f)
            many = len(shape) == 2 and shape[0] == len(x)
            advice = f"Use outputs={shape[1]}." if many else "Return one row for each row of x."
            raise ValueError(f"Outputs for {len(x)} rows must have shape {expected}, got {shape}. {advice}")
        f = at_width(self.output_scale, self.width) * f
        return f.reshape(len(x)) if self.outputs == 1 else f


@traits.register(Adapted)
def _adapted_traits(network: Adapted) -> Traits:
    exponents = None if network.parametrization is None else get_parametrization(network.parametrization)
    return Traits(
        name=f"from_{network.kind}",
        title=f"Network from_{network.kind}",
        fields=("outputs", "output_scale", "parametrization"),
        learning_rate_exponent=None if exponents is None else exponents.learning_rate,
        # Two hidden layers have the exponents of every larger depth.
        scaling=None if exponents is None else LayerScaling(exponents, depth=2),
    )


def from_flax(
    make: Callable[[int], nn.Module],
    *,
    width: int = 64,
    outputs: int = 1,
    output_scale: Scale = 1.0,
    parametrization: str | Parametrization | None = None,
    kernel: Callable[..., Any] | None = None,
) -> Adapted:
    """Wrap a flax (Linen) module as a network.

    Args:
        make: function of the width that builds the module; its `__call__(x)` takes rows (n, d) and returns (n,), (n, 1)
            or (n, k). Reshape images inside the module. Modules of the same width must be the same.
        width: width of the network; a sweep replaces it.
        outputs: number of outputs k.
        output_scale: alpha, the factor of the outputs: a number or a function of the width.
        parametrization: name or `lazynet.Parametrization` of the module's layers, such as "standard" for flax's own;
            the verdict predicts exponents from it. None for no predictions.
        kernel: kernel of infinite width, a function (x1, x2=None) -> (n1, n2), the same at all widths; None if it is
            unknown.

    Returns:
        A network with the protocol of `lazynet.networks.Network`.

    Raises:
        ValueError: at the first use, if the module has dropout, or variables outside of "params" (batch norm).

    >>> import flax.linen as nn, jax, lazynet as lz
    >>> network = lz.from_flax(lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)]), width=32)
    >>> x = jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """
    _check_make(make, nn.Module)

    def start(key: Array, x: AnyArray, width: int) -> Any:
        variables = _module_of(make, nn.Module, width).init(key, x)
        _refuse_state([name for name in variables if name != "params"])
        return variables.get("params", {})

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        try:
            return _module_of(make, nn.Module, width).apply({"params": params}, x)
        except flax.errors.InvalidRngError as error:
            raise ValueError(f"The module draws random numbers, as dropout does. {WHY}") from error

    return Adapted("flax", start, forward, _at_any_width(kernel), width, outputs, output_scale, parametrization)


def from_nnx(
    make: Callable[..., Any],
    *,
    width: int = 64,
    outputs: int = 1,
    output_scale: Scale = 1.0,
    parametrization: str | Parametrization | None = None,
    kernel: Callable[..., Any] | None = None,
) -> Adapted:
    """Wrap a flax NNX module as a network.

    Args:
        make: function (width, rngs) that builds the module, which draws its start from `rngs`; called with rows (n, d)
            the module returns (n,), (n, 1) or (n, k).
        width: width of the network; a sweep replaces it.
        outputs: number of outputs k.
        output_scale: alpha, the factor of the outputs: a number or a function of the width.
        parametrization: name or `lazynet.Parametrization` of the module's layers; None for no predictions.
        kernel: kernel of infinite width, a function (x1, x2=None) -> (n1, n2), the same at all widths; None if it is
            unknown.

    Returns:
        A network with the protocol of `lazynet.networks.Network`.

    Raises:
        ValueError: if `make` does not take two arguments; at the first use, if the module has state other than
            parameters (batch norm, dropout).

    >>> import jax, lazynet as lz
    >>> from flax import nnx
    >>> network = lz.from_nnx(lambda width, rngs: nnx.Sequential(nnx.Linear(3, width, rngs=rngs), nnx.relu,
    ...                                                           nnx.Linear(width, 1, rngs=rngs)), width=32)
    >>> x = jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """
    from flax import nnx

    _check_make(make, nnx.Module)
    if not (_takes(make, 0, 0) or _takes(make, 0, rngs=0)):
        raise ValueError(
            f"make must be a function (width, rngs), got {make!r}. NNX modules draw their start when they are built."
        )

    def built(width: int, rngs: Any) -> Any:
        return (
            _module_of(make, nnx.Module, width, rngs)
            if _takes(make, 0, 0)
            else _module_of(make, nnx.Module, width, rngs=rngs)
        )

    def parts_of(module: Any) -> tuple[Any, Any, Any]:
        """Return the module's definition, its parameters, and all other state."""
        definition, state = nnx.split(module)
        params, rest = nnx.split_state(state, nnx.Param, ...)
        return definition, params, rest

    @functools.cache
    def abstract(width: int) -> tuple[Any, Any]:
        """Return the module's definition and the shapes of its parameters."""
        return parts_of(nnx.eval_shape(lambda: built(width, nnx.Rngs(0))))[:2]

    def start(key: Array, x: AnyArray, width: int) -> Any:
        _, params, rest = parts_of(built(width, nnx.Rngs(key)))
        state = jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        _refuse_state(sorted({type(leaf).__name__ for leaf in state}))
        return nnx.to_pure_dict(params)

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        definition, state = abstract(width)
        # replace_by_pure_dict writes in place.
        state = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(definition, state)(x)

    return Adapted("nnx", start, forward, _at_any_width(kernel), width, outputs, output_scale, parametrization)


def from_stax(
    make: Callable[[int], tuple[Callable, Callable, Callable]],
    *,
    width: int = 64,
    outputs: int = 1,
    output_scale: Scale = 1.0,
    parametrization: str | Parametrization | None = "ntk",
) -> Adapted:
    """Wrap layers of neural-tangents' stax as a network, with its analytic kernel.

    `lazynet.kernels.neural_tangents().stax` is the library. Its layers train rescaled weights, unlike `TwoLayer`.

    Args:
        make: function of the width that returns (init_fn, apply_fn, kernel_fn).
        width: width of the network; a sweep replaces it.
        outputs: number of outputs k.
        output_scale: alpha, the factor of the outputs, whose square multiplies the kernel: a number or a function of
            the width.
        parametrization: name or `lazynet.Parametrization` of the layers; None for no predictions.

    Returns:
        A network with the protocol of `lazynet.networks.Network`.

    Raises:
        ValueError: at the first use, if `make` does not return three functions.

    >>> import jax, lazynet as lz
    >>> from lazynet.kernels import neural_tangents
    >>> stax = neural_tangents().stax
    >>> network = lz.from_stax(lambda width: stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(1)), width=32)
    >>> lz.analytic_kernel(network)(jax.numpy.ones((5, 3))).shape
    (5, 5)
    """

    def layer(width: int) -> tuple[Callable, Callable, Callable]:
        functions = make(width)
        if not (isinstance(functions, tuple) and len(functions) == 3):
            raise ValueError(
                "make must return (init_fn, apply_fn, kernel_fn), as the layers of stax do, got a "
                f"{type(functions).__name__}."
            )
        return functions

    def start(key: Array, x: AnyArray, width: int) -> Any:
        return layer(width)[0](key, x.shape)[1]

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        return layer(width)[1](params, x)

    def kernel(width: int) -> Callable[..., Any]:
        function = layer(width)[2]
        return lambda x1, x2=None: function(x1, x2, "ntk")

    return Adapted("stax", start, forward, kernel, width, outputs, output_scale, parametrization)


def from_functions(
    init: Callable[[Array, AnyArray, int], Any],
    apply: Callable[[Any, AnyArray], Array],
    kernel: Callable[..., Any] | None = None,
    *,
    width: int = 64,
    outputs: int = 1,
    output_scale: Scale = 1.0,
    parametrization: str | Parametrization | None = None,
) -> Adapted:
    """Wrap two functions as a network.

    Args:
        init: function (key, x, width) that returns the parameters, a tree of floating-point arrays.
        apply: function (params, x) that returns the outputs (n,), (n, 1) or (n, k) for rows (n, d).
        kernel: kernel of infinite width, a function (x1, x2=None) -> (n1, n2), the same at all widths; None if it is
            unknown.
        width: width of the network; a sweep replaces it.
        outputs: number of outputs k.
        output_scale: alpha, the factor of the outputs: a number or a function of the width.
        parametrization: name or `lazynet.Parametrization` of the layers; None for no predictions.

    Returns:
        A network with the protocol of `lazynet.networks.Network`.

    Raises:
        ValueError: if `kernel` cannot be called with one and with two arrays; at the first use, if there are no
            parameters, or some are not floating point.

    >>> import jax, lazynet as lz
    >>> def init(key, x, width):
    ...     return {"w": jax.random.normal(key, (width, x.shape[1]))}
    >>> def apply(params, x):
    ...     return jax.numpy.sum(jax.numpy.tanh(x @ params["w"].T), axis=1) / len(params["w"]) ** 0.5
    >>> network, x = lz.from_functions(init, apply, width=32), jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        return apply(params, x)

    return Adapted("functions", init, forward, _at_any_width(kernel), width, outputs, output_scale, parametrization)


def _at_any_width(kernel: Callable[..., Any] | None) -> Callable[[int], Callable[..., Any]] | None:
    if kernel is None:
        return None
    if not (_takes(kernel, 0) and _takes(kernel, 0, 0)):
        raise ValueError(f"kernel must be a function (x1, x2=None) of rows (n1, d) and (n2, d), got {kernel!r}.")
    return lambda width: kernel


def _refuse_state(names: list[str]) -> None:
    if names:
        raise ValueError(f"The module has {', '.join(names)} besides its parameters. {WHY}")


def _check_make(make: Any, kind: type) -> None:
    """Refuse a module in place of a function that builds modules."""
    if isinstance(make, kind) or not callable(make):
        raise ValueError(f"make must be a function of the width that builds the network, got a {type(make).__name__}.")


def _module_of(make: Callable[..., Any], kind: type, *arguments: Any, **named: Any) -> Any:
    """Return the module that `make` builds, after a check of its class."""
    module = make(*arguments, **named)
    if not isinstance(module, kind):
        allowed = f"{kind.__module__.partition('.')[0]} {kind.__name__}"
        raise ValueError(
            f"make must return a {allowed}, got a {type(module).__name__}. There is one function for each library: "
            "from_flax, from_nnx, from_stax."
        )
    return module


def _takes(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """True if a function, or the class of a module, accepts these arguments."""
    # The metaclass of modules hides the signature of their __init__.
    called: Any = function
    if isinstance(function, type):
        called, arguments = called.__init__, (None, *arguments)
    try:
        inspect.signature(called).bind(*arguments, **named)
    except TypeError:
        return False
    return True
