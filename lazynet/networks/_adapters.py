"""Adapters for user-supplied networks written in flax, NNX or stax, or as plain functions."""

import inspect
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
from jax import Array

from lazynet.networks._adapted import Adapted
from lazynet.networks._checks import placeholder
from lazynet.networks._parametrization import Parametrization
from lazynet.networks._two_layer import Scale
from lazynet.typing import AnyArray, Variables

WHY = (
    "Each output must depend only on the variables and on a single row, because networks that update running averages "
    "or draw random masks have no tangent kernel."
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
        make: Function `make(width)` that builds the module. The module's `__call__(x)` maps rows of shape (n, d) to an
            array of shape (n,), (n, 1) or (n, k). If the rows are images, reshape them inside the module.
            Modules built for the same width must be identical.
        width: Width of the network, which a sweep overrides.
        outputs: Number of outputs, k.
        output_scale: Factor alpha that multiplies the outputs, a number or a function of the width.
        parametrization: Parametrization of the module's layers, which determines the exponents that theory predicts for
            a sweep. Pass a name (such as "standard" for flax's own layers), a `lazynet.Parametrization`, or None to
            make no predictions.
        kernel: Infinite-width kernel, or None if it is unknown. The kernel is a function `kernel(x1, x2=None)` that
            returns an array of shape (n1, n2), and it must be the same at all widths.

    Returns:
        A network that implements the protocol `lazynet.networks.Network`. Variables in collections other than "params"
        are not trained.

    Raises:
        ValueError: If `make` is not a function or, on first use, if the module draws random numbers when it is called,
            as dropout does, or changes its variables, as batch norm does in training mode.

    >>> import flax.linen as nn, jax, lazynet as lz
    >>> network = lz.from_flax(lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)]), width=32)
    >>> x = jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """
    _check_make(make, nn.Module)

    def start(key: Array, x: AnyArray, width: int) -> Any:
        return {"params": {}, **_module_of(make, nn.Module, width).init(key, x)}

    def forward(variables: Variables, x: AnyArray, width: int) -> Any:
        try:
            return _module_of(make, nn.Module, width).apply(variables, x)
        except flax.errors.InvalidRngError as error:
            raise ValueError(f"The module draws random numbers, as dropout does. {WHY}") from error
        except flax.errors.ModifyScopeVariableError as error:
            raise ValueError(f"The module changes its variables, as batch norm does in training mode. {WHY}") from error

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
        make: Function `make(width, rngs)` that builds the module and draws its initial parameters from `rngs`. The
            module maps rows of shape (n, d) to an array of shape (n,), (n, 1) or (n, k).
        width: Width of the network, which a sweep overrides.
        outputs: Number of outputs, k.
        output_scale: Factor alpha that multiplies the outputs, a number or a function of the width.
        parametrization: Parametrization of the module's layers, which determines the exponents that theory predicts for
            a sweep. Pass a name, a `lazynet.Parametrization`, or None to make no predictions.
        kernel: Infinite-width kernel, or None if it is unknown. The kernel is a function `kernel(x1, x2=None)` that
            returns an array of shape (n1, n2), and it must be the same at all widths.

    Returns:
        A network that implements the protocol `lazynet.networks.Network`. Variables other than `nnx.Param` are in the
        collection "fixed" and are not trained.

    Raises:
        ValueError: If `make` is not a function of two arguments or, on first use, if the module changes its state when
            it is called, as dropout and training-mode batch norm do.

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
            f"make must be a function make(width, rngs), got {make!r}. The argument rngs is needed because the "
            "module draws its initial parameters when it is built."
        )

    def built(width: int, rngs: Any) -> Any:
        return (
            _module_of(make, nnx.Module, width, rngs)
            if _takes(make, 0, 0)
            else _module_of(make, nnx.Module, width, rngs=rngs)
        )

    def parts_of(module: Any) -> tuple[Any, Any, Any, Any]:
        """Return the module's definition, its random state, its parameters and all other state."""
        definition, state = nnx.split(module)
        random, params, rest = nnx.split_state(state, nnx.RngState, nnx.Param, ...)
        return definition, random, params, rest

    def start(key: Array, x: AnyArray, width: int) -> Any:
        _, _, params, rest = parts_of(built(width, nnx.Rngs(key)))
        fixed = nnx.to_pure_dict(rest)
        return {"params": nnx.to_pure_dict(params)} | ({"fixed": fixed} if fixed else {})

    def forward(variables: Variables, x: AnyArray, width: int) -> Any:
        definition, random, params, rest = parts_of(nnx.eval_shape(lambda: built(width, nnx.Rngs(0))))
        nnx.replace_by_pure_dict(params, variables["params"])
        nnx.replace_by_pure_dict(rest, variables.get("fixed", {}))
        # Modules that draw random numbers are rejected, so the values of the random state do not matter.
        random = jax.tree.map(placeholder, random)
        before = jax.tree.leaves((random, rest))
        module = nnx.merge(definition, random, params, rest)
        f = module(x)
        _, *after = parts_of(module)
        if any(now is not then for now, then in zip(jax.tree.leaves((after[0], after[2])), before, strict=True)):
            raise ValueError(f"The module changes its state, as dropout and training-mode batch norm do. {WHY}")
        return f

    return Adapted("nnx", start, forward, _at_any_width(kernel), width, outputs, output_scale, parametrization)


def from_stax(
    make: Callable[[int], tuple[Callable, Callable, Callable]],
    *,
    width: int = 64,
    outputs: int = 1,
    output_scale: Scale = 1.0,
    parametrization: str | Parametrization | None = "ntk",
) -> Adapted:
    """Wrap layers from neural-tangents' stax library as a network with an analytic kernel.

    The library is available as `lazynet.kernels.neural_tangents().stax`. By default, the trained variables of its
    layers are initialized from N(0, 1) and multiplied by fixed factors to obtain the weights, whereas `TwoLayer` trains
    the weights themselves.

    Args:
        make: Function `make(width)` that returns (init_fn, apply_fn, kernel_fn).
        width: Width of the network, which a sweep overrides.
        outputs: Number of outputs, k.
        output_scale: Factor alpha that multiplies the outputs, a number or a function of the width. The square of alpha
            multiplies the kernel.
        parametrization: Parametrization of the layers, which determines the exponents that theory predicts for a sweep.
            Pass a name, a `lazynet.Parametrization`, or None to make no predictions.

    Returns:
        A network that implements the protocol `lazynet.networks.Network`.

    Raises:
        ValueError: On first use, if `make` does not return a tuple of length 3.

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
                "make must return the tuple (init_fn, apply_fn, kernel_fn) of a stax layer, got an object of type "
                f"{type(functions).__name__}."
            )
        return functions

    def start(key: Array, x: AnyArray, width: int) -> Any:
        return {"params": layer(width)[0](key, x.shape)[1]}

    def forward(variables: Variables, x: AnyArray, width: int) -> Any:
        return layer(width)[1](variables["params"], x)

    def limit(kind: str) -> Callable[[int], Callable[..., Any]]:
        def function_at(width: int) -> Callable[..., Any]:
            function = layer(width)[2]
            return lambda x1, x2=None: function(x1, x2, kind)

        return function_at

    return Adapted("stax", start, forward, limit("ntk"), width, outputs, output_scale, parametrization, limit("nngp"))


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
    """Wrap a pair of functions, `init` and `apply`, as a network.

    Args:
        init: Function `init(key, x, width)` that returns the initial parameters, a pytree of floating-point arrays.
        apply: Function `apply(params, x)` that maps rows of shape (n, d) to outputs of shape (n,), (n, 1) or (n, k).
        kernel: Infinite-width kernel, or None if it is unknown. The kernel is a function `kernel(x1, x2=None)` that
            returns an array of shape (n1, n2), and it must be the same at all widths.
        width: Width of the network, which a sweep overrides.
        outputs: Number of outputs, k.
        output_scale: Factor alpha that multiplies the outputs, a number or a function of the width.
        parametrization: Parametrization of the layers, which determines the exponents that theory predicts for a sweep.
            Pass a name, a `lazynet.Parametrization`, or None to make no predictions.

    Returns:
        A network that implements the protocol `lazynet.networks.Network`.

    Raises:
        ValueError: If `kernel` cannot be called both with one array and with two arrays, or if, on first use, the
            network has no parameters or any parameter is not floating point.

    >>> import jax, lazynet as lz
    >>> def init(key, x, width):
    ...     return {"w": jax.random.normal(key, (width, x.shape[1]))}
    >>> def apply(params, x):
    ...     return jax.numpy.sum(jax.numpy.tanh(x @ params["w"].T), axis=1) / len(params["w"]) ** 0.5
    >>> network, x = lz.from_functions(init, apply, width=32), jax.numpy.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5,)
    """

    def start(key: Array, x: AnyArray, width: int) -> Any:
        return {"params": init(key, x, width)}

    def forward(variables: Variables, x: AnyArray, width: int) -> Any:
        return apply(variables["params"], x)

    return Adapted("functions", start, forward, _at_any_width(kernel), width, outputs, output_scale, parametrization)


def _at_any_width(kernel: Callable[..., Any] | None) -> Callable[[int], Callable[..., Any]] | None:
    if kernel is None:
        return None
    if not (_takes(kernel, 0) and _takes(kernel, 0, 0)):
        raise ValueError(
            f"kernel must be a function kernel(x1, x2=None) of arrays with shapes (n1, d) and (n2, d), got {kernel!r}."
        )
    return lambda width: kernel


def _check_make(make: Any, kind: type) -> None:
    """Check that `make` is a function that builds modules, not a module itself."""
    if isinstance(make, kind) or not callable(make):
        raise ValueError(
            f"make must be a function that takes the width and builds the network, got {type(make).__name__}."
        )


def _module_of(make: Callable[..., Any], kind: type, *arguments: Any, **named: Any) -> Any:
    """Return the module that `make` builds, after checking its class."""
    module = make(*arguments, **named)
    if not isinstance(module, kind):
        allowed = f"{kind.__module__.partition('.')[0]} {kind.__name__}"
        raise ValueError(
            f"make must return a {allowed}, got {type(module).__name__}. Use the adapter that matches "
            "your module's library: from_flax, from_nnx or from_stax."
        )
    return module


def _takes(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Return whether a function, or the constructor of a module class, accepts the given arguments."""
    # The metaclass of a module class hides the signature of __init__, so __init__ itself is inspected.
    called: Any = function
    if isinstance(function, type):
        called, arguments = called.__init__, (None, *arguments)
    try:
        inspect.signature(called).bind(*arguments, **named)
    except TypeError:
        return False
    return True
