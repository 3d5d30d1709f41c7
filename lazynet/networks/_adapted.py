"""The `Adapted` class, which represents user-supplied networks wrapped by the adapters."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lazynet.arguments import calls_of, check_choice, check_key
from lazynet.arrays import floating_dtype, real_array, with_floats_as
from lazynet.networks._checks import check_params
from lazynet.networks._parametrization import Parametrization, get_parametrization
from lazynet.networks._traits import LayerScaling, Traits, traits
from lazynet.networks._two_layer import Scale, at_width, check_fields
from lazynet.typing import AnyArray, Variables


@dataclass(frozen=True)
class Adapted:
    """A user-supplied network, as returned by `from_flax`, `from_nnx`, `from_stax` or `from_functions`.

    Attributes:
        kind: Type of the original network: "flax", "nnx", "stax" or "functions".
        start: Function that maps (key, x, width) to the initial variables, with the parameters in "params" and arrays
            that are not trained in other collections.
        forward: Function that maps (variables, x, width) to outputs of shape (n,), (n, 1) or (n, k).
        kernel: Function that maps the width to the infinite-width kernel, or None if no such kernel is known. The
            kernel is itself a function `kernel(x1, x2=None)` that returns an array of shape (n1, n2).
        width: Width of the network.
        outputs: Number of outputs, k.
        output_scale: Factor alpha that multiplies the outputs, a number or a function of the width.
        parametrization: Powers of the width in each layer, which determine the exponents that theory predicts for a
            sweep, or None if these powers are unknown.
        covariance: Function that maps the width to the covariance of the initial outputs in the infinite-width limit,
            or None if the covariance is unknown. The covariance is itself a function of the same form as the kernel.
    """

    kind: str
    start: Callable[[Array, AnyArray, int], Any]
    forward: Callable[[Any, AnyArray, int], Array]
    kernel: Callable[[int], Callable[..., Any]] | None
    width: int
    outputs: int
    output_scale: Scale
    parametrization: str | Parametrization | None
    covariance: Callable[[int], Callable[..., Any]] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if self.parametrization is not None:
            get_parametrization(self.parametrization)

    @property
    def one_kernel(self) -> bool:
        """True if the kernel depends on the width only through the output scale; False for stax networks."""
        return self.kind != "stax"

    def clone(self, **changes: Any) -> "Adapted":
        """Return a copy of the network with the given fields changed.

        Raises:
            ValueError: If a name is not a field, or if a value is invalid.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            check_choice("changes", name, names)
        return replace(self, **changes)

    def init(self, key: Array, x: AnyArray) -> Variables:
        """Return the initial variables, drawn in float32, with floating-point arrays cast to the dtype of x.

        If x contains integers, such as token ids, it is passed to the network unchanged, and floating-point arrays are
        cast to JAX's default dtype.

        Raises:
            ValueError: If the network has no parameters, or if any parameter is not floating point.
        """
        rows = _rows(x)
        floating = jnp.issubdtype(rows.dtype, jnp.floating)
        with calls_of("network"):
            variables = self.start(check_key(key), rows.astype(jnp.float32) if floating else rows, self.width)
        leaves = jax.tree_util.tree_flatten_with_path(variables["params"])[0]
        if not leaves:
            raise ValueError("The network has no parameters to train.")
        for path, leaf in leaves:
            dtype = jnp.asarray(leaf).dtype
            if not jnp.issubdtype(dtype, jnp.floating):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(f"Parameters must be floating-point arrays, got {dtype} at {name!r}.")
        converted: Variables = with_floats_as(floating_dtype(rows), variables)
        return converted

    def apply(self, variables: Variables, x: AnyArray) -> Array:
        """Return the outputs, of shape (n,) for one output or (n, k) for several.

        Raises:
            ValueError: If `variables` or `x` is invalid, or if `forward` returns an array of the wrong shape.
        """
        x = _rows(x)
        check_params(variables)
        with calls_of("network"):
            f = self.forward(variables, x, self.width)
        expected = (len(x), self.outputs)
        if jnp.shape(f) != expected and not (self.outputs == 1 and jnp.shape(f) == expected[:1]):
            shape = jnp.shape(f)
            many = len(shape) == 2 and shape[0] == len(x)
            advice = f"Use outputs={shape[1]}." if many else "Return one row of outputs for each row of x."
            raise ValueError(f"Outputs for {len(x)} rows must have shape {expected}, got shape {shape}. {advice}")
        f = at_width(self.output_scale, self.width) * f
        return f.reshape(len(x)) if self.outputs == 1 else f


def _rows(x: Any) -> Array:
    """Return input rows as a JAX array.

    Raises:
        ValueError: If x is not an array of real numbers with a row axis and at least one feature axis.
    """
    rows = jnp.asarray(x if isinstance(x, Array) else real_array("x", x))
    if rows.ndim < 2 or jnp.issubdtype(rows.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"x must be an array of real numbers with shape (n, d) or (n, ...), got shape {rows.shape} and dtype "
            f"{rows.dtype}."
        )
    return rows


@traits.register(Adapted)
def _adapted_traits(network: Adapted) -> Traits:
    exponents = None if network.parametrization is None else get_parametrization(network.parametrization)
    return Traits(
        name=f"from_{network.kind}",
        title=f"Network from_{network.kind}",
        fields=("outputs", "output_scale", "parametrization"),
        learning_rate_exponent=None if exponents is None else exponents.learning_rate,
        # The predicted exponents are the same for all networks with at least two hidden layers.
        scaling=None if exponents is None else LayerScaling(exponents, depth=2),
    )
