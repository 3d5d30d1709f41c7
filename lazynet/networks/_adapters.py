"""A user's own network, in flax, NNX, stax or as functions, as every part of lazynet takes it."""

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

WHY = (
    "a member of a sweep is a function of its parameters and of one row at a time, and neither running averages nor "
    "random masks have a tangent kernel"
)


@dataclass(frozen=True)
class Adapted:
    """A network that `from_flax`, `from_nnx`, `from_stax` or `from_functions` made; `clone(width=...)` builds it anew.

    Attributes:
        kind: where it comes from.
        start: (key, x, width) -> its parameters.
        forward: (parameters, x, width) -> its outputs (n,), (n, 1) or (n, k).
        kernel: width -> the kernel of infinite width, a function (x1, x2=None) -> (n1, n2); None where there is none.
        width: of this one.
        outputs: number of outputs k.
        output_scale: alpha, which outputs are multiplied by: a number or a function of the width.
        parametrization: the exponents of the width in it, for what theory predicts; None where nobody knows them.
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
        """Refuse fields that no network has."""
        check_fields(self)
        if self.parametrization is not None:
            get_parametrization(self.parametrization)

    @property
    def one_kernel(self) -> bool:
        """True if the kernel is the same at all widths up to the output scale; stax builds one for each width."""
        return self.kind != "stax"

    def clone(self, **changes: Any) -> "Adapted":
        """The network with other fields."""
        return replace(self, **changes)

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Its parameters at the start, drawn in float32 and cast to the dtype of x."""
        params = self.start(key, jnp.asarray(x).astype(jnp.float32), self.width)
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        if not leaves:
            raise ValueError("The network has no parameters, so that there is nothing to train.")
        for path, leaf in leaves:
            dtype = jnp.asarray(leaf).dtype
            if not jnp.issubdtype(dtype, jnp.floating):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(f"The network has {dtype} at {name!r} of its parameters, but must have floats.")
        return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(x.dtype), params)}

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Outputs (n,) for one output and (n, k) for more.

        Raises:
            ValueError: if they have another shape.
        """
        f = self.forward(variables["params"], x, self.width)
        expected = (len(x), self.outputs)
        if jnp.shape(f) != expected and not (self.outputs == 1 and jnp.shape(f) == expected[:1]):
            found = jnp.shape(f)
            way = (
                f"take outputs={found[1]}" if len(found) == 2 and found[0] == len(x) else "give a row for each example"
            )
            raise ValueError(f"The network gives {found} for {len(x)} rows, but must give {expected}; {way}.")
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
        # Exponents of two hidden layers are those of any larger number.
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
    """A flax (Linen) network of one's own.

    Args:
        make: builds the module of a width; its `__call__(x)` takes rows (n, d) and gives (n,), (n, 1) or (n, k). Images
            are reshaped inside. Build it from the width alone: modules of one width must be the same.
        width: of the network that is made; a sweep takes its own.
        outputs: number of outputs k.
        output_scale: alpha, which outputs are multiplied by: a number or a function of the width.
        parametrization: how it scales with the width, "ntk", "standard" (flax's own layers), ... or a
            `lazynet.Parametrization`, for the verdict's predictions; left out, nothing is predicted.
        kernel: the kernel of infinite width, a function (x1, x2=None) -> (n1, n2), where one is known; the same at all
            widths, so that the parametrization must be one of such kernels.

    Returns:
        A network as every part of lazynet takes it.

    Raises:
        ValueError: when it is first used, if the module has dropout, or variables other than "params" (batch norm).

    >>> import flax.linen as nn, jax, lazynet as lz
    >>> network = lz.from_flax(lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)]), width=32)
    >>> x = jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """
    _check_make(make, nn.Module)

    def start(key: Array, x: AnyArray, width: int) -> Any:
        variables = _made(make, nn.Module, width).init(key, x)
        _refuse_state([name for name in variables if name != "params"])
        return variables.get("params", {})

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        try:
            return _made(make, nn.Module, width).apply({"params": params}, x)
        except flax.errors.InvalidRngError as error:
            raise ValueError(f"The module draws random numbers (dropout?), which is not supported: {WHY}.") from error

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
    """A flax NNX network of one's own: as `from_flax`, but for `make`.

    Args:
        make: `make(width, rngs)` builds the module, which draws its start from `rngs`; called with rows (n, d) it gives
            (n,), (n, 1) or (n, k).
        width: as in `from_flax`, as are all others.
        outputs: number of outputs k.
        output_scale: alpha.
        parametrization: how it scales with the width.
        kernel: the kernel of infinite width.

    Returns:
        A network as every part of lazynet takes it.

    Raises:
        ValueError: if `make` does not take two arguments; when the network is first used, if the module has state
            beside its parameters (batch norm, dropout).

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
        raise ValueError("make must be make(width, rngs), because NNX modules draw their start when they are built.")

    def built(width: int, rngs: Any) -> Any:
        return _made(make, nnx.Module, width, rngs) if _takes(make, 0, 0) else _made(make, nnx.Module, width, rngs=rngs)

    def parts_of(module: Any) -> tuple[Any, Any, Any]:
        """What the module is, its parameters, and all other state."""
        definition, state = nnx.split(module)
        params, rest = nnx.split_state(state, nnx.Param, ...)
        return definition, params, rest

    @functools.cache
    def abstract(width: int) -> tuple[Any, Any]:
        """What the module is but for the numbers in it."""
        made = nnx.eval_shape(lambda: built(width, nnx.Rngs(0)))
        return parts_of(made)[:2]

    def start(key: Array, x: AnyArray, width: int) -> Any:
        _, params, rest = parts_of(built(width, nnx.Rngs(key)))
        state = jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        _refuse_state(sorted({type(leaf).__name__ for leaf in state}))
        return nnx.to_pure_dict(params)

    def forward(params: Any, x: AnyArray, width: int) -> Any:
        definition, state = abstract(width)
        # A copy: the state is filled in place.
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
    """A network in the stax of neural-tangents, `lazynet.kernels.neural_tangents().stax`, with its analytic kernel.

    Args:
        make: builds (init_fn, apply_fn, kernel_fn) of a width.
        width: as in `from_flax`, as are all others.
        outputs: number of outputs k.
        output_scale: alpha; the kernel is multiplied by its square.
        parametrization: how it scales with the width; stax's own is "ntk".

    Returns:
        A network as every part of lazynet takes it. Mind that stax trains rescaled weights.

    Raises:
        ValueError: when the network is first used, if `make` gives no such three functions.

    >>> import jax, lazynet as lz
    >>> from lazynet.kernels import neural_tangents
    >>> stax = neural_tangents().stax
    >>> network = lz.from_stax(lambda width: stax.serial(stax.Dense(width), stax.Relu(), stax.Dense(1)), width=32)
    >>> lz.analytic_kernel(network)(jax.numpy.ones((5, 3))).shape
    (5, 5)
    """

    def layer(width: int) -> tuple[Callable, Callable, Callable]:
        made = make(width)
        if not (isinstance(made, tuple) and len(made) == 3):
            raise ValueError(
                "make must give (init_fn, apply_fn, kernel_fn), as the layers of neural-tangents' stax do."
            )
        return made

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
    """A network of one's own as two functions.

    Args:
        init: `init(key, x, width)` gives its parameters, arrays of floats in any tree.
        apply: `apply(params, x)` gives its outputs (n,), (n, 1) or (n, k) for rows (n, d).
        kernel: as in `from_flax`, as are all others.
        width: of the network that is made; a sweep takes its own.
        outputs: number of outputs k.
        output_scale: alpha.
        parametrization: how it scales with the width.

    Returns:
        A network as every part of lazynet takes it.

    Raises:
        ValueError: if `kernel` does not take one and two sets of rows; when the network is first used, if it has no
            parameters, or some that are no floats.

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
        raise ValueError(
            "kernel must be a function (x1, x2=None) of two sets of rows, the second of which may be left out."
        )
    return lambda width: kernel


def _refuse_state(found: list[str]) -> None:
    if found:
        raise ValueError(f"The module has {', '.join(found)} beside its parameters, which is not supported: {WHY}.")


def _check_make(make: Any, kind: type) -> None:
    """Refuse a module where a function is asked for that makes one."""
    if isinstance(make, kind) or not callable(make):
        raise ValueError(
            f"make is a {type(make).__name__}, but must be a function of the width that builds the network."
        )


def _made(make: Callable[..., Any], kind: type, *arguments: Any, **named: Any) -> Any:
    """What `make` builds, if it is such a module."""
    module = make(*arguments, **named)
    if not isinstance(module, kind):
        wanted = f"{kind.__module__.partition('.')[0]} {kind.__name__}"
        raise ValueError(f"make gives a {type(module).__name__}, but must give a {wanted}; is it of another library?")
    return module


def _takes(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether a function, or the class of a module, can be called so."""
    # The metaclass of modules hides what their own __init__ takes beside itself.
    called: Any = function
    if isinstance(function, type):
        called, arguments = called.__init__, (None, *arguments)
    try:
        inspect.signature(called).bind(*arguments, **named)
    except TypeError:
        return False
    return True
