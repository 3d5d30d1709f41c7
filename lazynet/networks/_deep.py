"""Fully connected networks of any depth in any parametrization, as flax modules."""

from collections.abc import Iterator
from math import sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from lazynet.arguments import check_flag, check_number, described
from lazynet.arrays import floats
from lazynet.networks._activations import Function, check_activation, get_activation
from lazynet.networks._parametrization import Parametrization, get_parametrization
from lazynet.networks._traits import LayerScaling, Traits, setting_fields, traits
from lazynet.networks._two_layer import TRAINED_PARTS, Scale, at_width, check_fields, weights
from lazynet.typing import AnyArray, Variables


class MLP(nn.Module):
    """Fully connected network with layers h_l = sigma(m^(-a_l) W_l h_(l-1) + c_l) and output alpha m^(-a) V' h_depth.

    The entries of W_l are initialized from N(0, (kappa m^(-b_l))^2) and the entries of V from N(0, m^(-2 b)). The
    parametrization determines the exponents a_l, b_l, a and b. The trained variables are W_l and V themselves. The
    default, "ntk" with sigma = relu and kappa^2 = 2, is the network of Lee et al. 2019, section 2.1, applied to rows
    multiplied by sqrt(d), because this class, like `TwoLayer`, does not divide by sqrt(d). If the parametrization is
    "chen" and output_scale is a power of m, this is the network of Chen et al. 2019, section 2, with L = depth + 1.

    `init(key, x)` returns the arrays "hidden_1" of shape (m, d), "hidden_2", ... of shape (m, m), "readout" of shape
    (m, k), and, if there are biases, "bias_1", ... of shape (m,). They are drawn in float32 and cast to the dtype of x,
    or to JAX's default dtype if x contains integers. Trained arrays are in the collection "params", and all others are
    in "fixed". `apply(variables, x)` returns an array of shape (n,) for one output or (n, k) for several.

    Args:
        width: Number of units in each hidden layer, m, at least 1.
        depth: Number of hidden layers, at least 1.
        outputs: Number of outputs, k, at least 1.
        activation: Activation name or function, as in `TwoLayer`.
        train: Part to train, "hidden" (all W_l), "readout" (V) or "both".
        init_scale: Scale kappa of the hidden weights, a positive number or a function of the width.
        output_scale: Scale alpha of the outputs, a positive number or a function of the width.
        bias_scale: Scale of the biases c_l, whose entries are drawn from N(0, (bias_scale m^(-b_l))^2). If the scale is
            0, the biases start at zero if they are trained, and there are none otherwise.
        parametrization: "ntk", "standard", "mean-field", "maximal-update", "allen-zhu", "chen" or a `Parametrization`.
        train_bias: Whether to train the biases c_l themselves, together with the hidden weights.

    Raises:
        ValueError: If an argument has an invalid value, or if `train_bias` is True but the hidden weights are not
            trained.

    >>> import jax, lazynet as lz
    >>> network = lz.MLP(width=64, depth=2)
    >>> variables = network.init(jax.random.key(0), jax.numpy.ones((5, 3)))
    >>> {name: array.shape for name, array in variables["params"].items()}
    {'hidden_1': (64, 3), 'hidden_2': (64, 64), 'readout': (64, 1)}
    """

    width: int
    depth: int = 3
    outputs: int = 1
    activation: str | Function = "relu"
    train: str = "both"
    init_scale: Scale = sqrt(2)
    output_scale: Scale = 1.0
    bias_scale: float = 0.0
    parametrization: str | Parametrization = "ntk"
    train_bias: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        check_activation(self.activation)
        check_fields(self, train=TRAINED_PARTS)
        check_number("bias_scale", self.bias_scale)
        get_parametrization(self.parametrization)
        check_flag("train_bias", self.train_bias)
        if self.train_bias and self.train == "readout":
            raise ValueError("train_bias must be False if train is 'readout', got True.")
        super().__post_init__()

    @property
    def has_biases(self) -> bool:
        """True if the hidden layers have biases."""
        return self.train_bias or bool(self.bias_scale)

    @nn.compact
    def __call__(self, x: Num[AnyArray, "n d"]) -> Float[Array, " n"] | Float[Array, "n k"]:
        """Return the outputs, of shape (n,) or (n, k)."""
        x = floats(x)
        exponents, kappa = get_parametrization(self.parametrization), at_width(self.init_scale, self.width)
        arrays, entering = {}, x.shape[1]
        for layer in range(1, self.depth + 1):
            std = self.width ** -exponents.init[min(layer, 2) - 1]
            trained = self.train != "readout"
            arrays[f"hidden_{layer}"] = self._array(f"hidden_{layer}", trained, kappa * std, (self.width, entering), x)
            if self.bias_scale:
                name = f"bias_{layer}"
                arrays[name] = self._array(name, self.train_bias, self.bias_scale * std, (self.width,), x)
            entering = self.width
        std = self.width ** -exponents.init[2]
        arrays["readout"] = self._array("readout", self.train != "hidden", std, (self.width, self.outputs), x)
        if self.train_bias and not self.bias_scale:
            # These come last, because each array changes the random numbers for those that follow it.
            for layer in range(1, self.depth + 1):
                arrays[f"bias_{layer}"] = self.param(f"bias_{layer}", lambda key: jnp.zeros(self.width, x.dtype))
        *_, last = preactivations_of(self, arrays, x)
        f = output_multiplier(self) * (get_activation(self.activation).function(last) @ arrays["readout"])
        return f[:, 0] if self.outputs == 1 else f

    def _array(self, name: str, trained: bool, std: float, shape: tuple[int, ...], x: AnyArray) -> AnyArray:
        def draw(key: Array) -> Array:
            drawn = jax.random.normal(key, shape, jnp.float32)
            # Without the barrier, the compiler may merge `std` with a factor inside `normal`, which would change the
            # last bit of the weights.
            return (std * jax.lax.optimization_barrier(drawn)).astype(x.dtype)

        if trained:
            return self.param(name, draw)
        return self.variable("fixed", name, lambda: draw(self.make_rng("params"))).value


class ThreeLayer(MLP):
    """Three-layer network of Allen-Zhu, Li and Liang 2018, section 4.1: an `MLP` with different defaults.

    The network is f(x) = sum_i a_i relu(n_i(x) + b_2i) with n_i(x) = sum_j v_ij relu(w_j . x + b_1j) and m1 = m2 = m.
    The entries of W, V and both biases are initialized from N(0, 1 / m), and the entries of a from N(0, 1). Training
    updates W and V (train="hidden", the default), only a ("readout") or all three ("both"). The biases are not trained
    unless `train_bias` is True. The tangent kernel grows in proportion to m, so default learning rates decrease as
    1 / m. The arguments are the same as for `MLP`.

    Raises:
        ValueError: If `depth` is not 2, or if an argument has a value that `MLP` does not allow.

    >>> import jax, lazynet as lz
    >>> network = lz.ThreeLayer(width=64)
    >>> sorted(network.init(jax.random.key(0), jax.numpy.ones((5, 3)))["fixed"])
    ['bias_1', 'bias_2', 'readout']
    """

    depth: int = 2
    train: str = "hidden"
    init_scale: Scale = 1.0
    bias_scale: float = 1.0
    parametrization: str | Parametrization = "allen-zhu"

    def __post_init__(self) -> None:
        """Check that the depth is 2."""
        if not isinstance(self.depth, int) or self.depth != 2:
            raise ValueError(f"depth must be 2 for ThreeLayer, got {described(self.depth)}. For other depths, use MLP.")
        super().__post_init__()


def output_multiplier(network: MLP) -> float:
    """Return the factor alpha m^(-a) that multiplies the readout."""
    forward = get_parametrization(network.parametrization).forward
    return at_width(network.output_scale, network.width) * network.width ** -forward[2]


def preactivations_of(network: MLP, arrays: dict[str, AnyArray], x: AnyArray) -> Iterator[Array]:
    """Yield the pre-activations m^(-a_l) W_l h_(l-1) + c_l of each hidden layer, shape (n, m)."""
    forward, h = get_parametrization(network.parametrization).forward, x
    activation = get_activation(network.activation).function
    for layer in range(1, network.depth + 1):
        z = network.width ** -forward[min(layer, 2) - 1] * (h @ arrays[f"hidden_{layer}"].T)
        if network.has_biases:
            z = z + arrays[f"bias_{layer}"][None, :]
        yield z
        h = activation(z)


@traits.register(MLP)
def _deep_traits(network: MLP) -> Traits:
    def preactivations(variables: Variables, x: AnyArray) -> list[Array]:
        names = [*variables["params"], *variables.get("fixed", {})]
        return list(preactivations_of(network, {name: weights(variables, name) for name in names}, x))

    name, parametrization = type(network).__name__, get_parametrization(network.parametrization)
    activation = get_activation(network.activation)
    return Traits(
        name=name,
        title=f"{name} of depth {network.depth}, {activation.name},",
        fields=setting_fields(network),
        start_fields=("init_scale",),
        custom=not activation.is_named,
        integers=False,
        preactivations=preactivations,
        learning_rate_exponent=parametrization.learning_rate,
        scaling=LayerScaling(
            parametrization,
            network.depth,
            network.train,
            activation.homogeneous,
            biased=bool(network.bias_scale),
            train_bias=network.train_bias,
            named_layers=True,
        ),
    )
