"""Predicted width exponents, derived from the exponents of the parametrization."""

from math import isfinite
from typing import Literal, NamedTuple

from lazynet.arguments import (
    as_number,
    check_choice,
    check_count,
    check_flag,
    check_sequence,
    described,
)
from lazynet.networks import PARAMETRIZATIONS, Parametrization, get_parametrization

Relation = Literal["equal", "at most"]

# Exponents that differ by at most this amount are considered equal, to allow for rounding errors.
ROUNDING = 1e-6
# Largest number of hidden layers accepted.
DEEPEST = 10_000


class Scaling(NamedTuple):
    """Exponents that describe how a network and its training scale with the width m.

    Attributes:
        init: Exponent of the initial scale, kappa ~ m^init.
        output: Exponent of the output scale, alpha ~ m^output; 0 for the NTK parametrization, -1/2 for mean field.
        learning_rate: Exponent of the learning rate eta.
        symmetric: Whether the initial output of the network is zero.
        homogeneous: Whether the activation is positively homogeneous, like ReLU.
        train: Trained part of the network, "hidden", "readout" or "both".
        proportional: Whether steps are proportional to gradients, as in SGD with or without momentum but not in Adam.
        parametrization: Exponents of the powers of the width that multiply the weights and their initial scale.
        depth: Number of hidden layers.
        layers: Names of the trained arrays whose displacements are predicted individually.
        quadratic: Whether to predict the gaps between networks and their second-order Taylor polynomials.
        train_bias: Whether the biases of the hidden layers are trained.
        biased: Whether the biases are random at initialization, rather than zero or absent.
    """

    init: float
    output: float
    learning_rate: float
    symmetric: bool
    homogeneous: bool
    train: str
    proportional: bool = True
    parametrization: Parametrization = PARAMETRIZATIONS["ntk"]
    depth: int = 1
    layers: tuple[str, ...] = ()
    quadratic: bool = False
    train_bias: bool = False
    biased: bool = False


class Prediction(NamedTuple):
    """Predicted exponent of a quantity.

    Attributes:
        quantity: Name of the quantity, followed by the name of a trained array in brackets if the prediction is for a
            single array.
        relation: "equal" if the exponent should equal the prediction, or "at most" if it may also be smaller.
        exponent: Predicted width exponent.
    """

    quantity: str
    relation: Relation
    exponent: float


class Layer(NamedTuple):
    """Exponents for a trained array W.

    Attributes:
        gradient: Exponent of the norm of df/dW.
        start: Exponent of the initial norm of W, assuming that the array does not start at zero.
        change: Exponent of the relative change in the pre-activations that one update of W produces, for a learning
            rate and residuals of order 1; None for the readout.
    """

    gradient: float
    start: float
    change: float | None


def predicted_exponents(scaling: Scaling) -> list[Prediction]:
    """Predict how quantities measured after a fixed number of steps scale with the width m.

    Let s, a and k be the exponents of the learning rate eta, the output scale alpha and the initial scale kappa. Let r
    be the exponent of the residual, which is 0 for symmetric networks, and otherwise the larger of 0 and the exponent
    of the initial output f_0. A trained array with ||df/dW|| ~ m^g moves a distance of order m^(s + g + r). The amount
    learned in one step scales as m^(s + 2 g + r), where g is the largest such exponent among the trained arrays. In the
    NTK parametrization, g = a for every array. With one hidden layer (Arora et al. 2019, Lemmas C.1, 5.3, C.2 and C.3,
    where s = a = k = r = 0), the scalings are therefore

        ||W - W_0|| ~ m^(s + a + r),  ||W_0|| ~ kappa sqrt(m d)  and  ||w_r - w_r(0)|| <~ m^(s + a + r - 1/2).

    With several hidden layers (Lee et al. 2019, Figure 1), the middle layers have ||W_0|| ~ kappa m, and their relative
    displacement is of order 1 / m. The predictions for displacements are only upper bounds if arrays with different
    exponents contribute, or if f_0 and the targets have different exponents, because a sum of different powers of m is
    not a power of m. The largest displacement of a neuron has an additional factor of sqrt(log m) if the readout is
    Gaussian or is the only trained layer.

    A pre-activation changes sign only if it changes by more than its magnitude. The probability of a sign flip is
    therefore bounded, up to a constant, by the relative change in a pre-activation. The relative change in the kernel
    is bounded, again up to a constant, by the largest relative change in the pre-activations of any layer. The gap
    between a network and its linearization scales as the learned part of the outputs times this largest relative
    change. The gap between the linearization and the infinite-width limit scales as the learned part times m^(-1/2),
    the size of the kernel's fluctuations at initialization. The gap between the network and the limit scales as the
    larger of these two gaps.

    The predictions cover scalings from NTK to mean field and maximal update, under three conditions:

    - The steps are proportional to gradients, and the fraction of the residual that is learned in a step does not
      depend on m. If this fraction decreases with m, learning stops in the limit, and networks that are narrow enough
      to learn are far from the limit. If it grows with m, gradient descent diverges.
    - Pre-activations do not change by more than their own magnitude.
    - The initial scale does not depend on m (k = 0), unless only the hidden layer is trained and the activation is
      homogeneous.

    If any condition is violated, only the Monte Carlo error in the initial kernel, of order m^(-1/2), is predicted.
    Nothing is predicted if the activation is not homogeneous and the size of the pre-activations depends on m, or if
    random biases are larger than the rest of the pre-activations by a power of m.

    Args:
        scaling: Exponents that describe how the network and its training scale with the width.

    Returns:
        A list of predicted exponents, which may be empty.

    Raises:
        ValueError: If `scaling` is not a `Scaling`, or if one of its attributes has a value that `Scaling` does not
            describe.

    >>> from lazynet.theory import Scaling, predicted_exponents
    >>> ntk = Scaling(init=0.0, output=0.0, learning_rate=0.0, symmetric=True, homogeneous=True, train="hidden")
    >>> predicted_exponents(ntk)[1]
    Prediction(quantity='relative_displacement', relation='equal', exponent=-0.5)
    """
    scaling = _check_scaling(scaling)
    preactivations, start_exponent, arrays = layer_exponents(scaling)
    fixed = max(map(abs, preactivations)) <= ROUNDING
    if not (fixed or scaling.homogeneous):
        return []
    # Random biases are of order m^(-b_l).
    biases = [-scaling.parametrization.init[min(i, 1)] for i in range(scaling.depth)]
    if scaling.biased and any(b > p + ROUNDING for b, p in zip(biases, preactivations, strict=True)):
        return []
    start = [Prediction("initial_kernel_error", "at most", -0.5)]
    trained = {name: layer for name, layer in arrays.items() if _is_trained(name, scaling)}
    residual = 0.0 if scaling.symmetric else max(0.0, start_exponent)
    largest = max(layer.gradient for layer in trained.values())
    movement, learned = (scaling.learning_rate + power * largest + residual for power in (1, 2))
    changes = [layer.change for layer in trained.values() if layer.change is not None]
    change = scaling.learning_rate + max(changes) + residual if changes else None
    relative = movement - min(layer.start for layer in trained.values())
    learns = abs(learned - residual) <= ROUNDING and (relative if change is None else change) <= ROUNDING
    if not (scaling.proportional and learns and (abs(scaling.init) <= ROUNDING or scaling.train == "hidden")):
        return start
    relation: Relation = "equal" if scaling.symmetric or abs(start_exponent) <= ROUNDING else "at most"
    gradients = {round(layer.gradient, 6) for layer in trained.values()}
    starts = {round(layer.start, 6) for layer in trained.values()}
    total_relation: Relation = relation if len(gradients) == 1 else "at most"
    predictions = [
        Prediction("displacement", total_relation, movement),
        Prediction("relative_displacement", total_relation if len(starts) == 1 else "at most", relative),
        Prediction("max_neuron_displacement", "at most", movement - 0.5),
    ]
    # At a point of a sweep, `layers` may include arrays that are trained only at other points.
    for name in filter(trained.__contains__, scaling.layers):
        layer_movement = scaling.learning_rate + trained[name].gradient + residual
        quantity = f"layer_relative_displacement[{name}]"
        predictions.append(Prediction(quantity, relation, layer_movement - trained[name].start))
    start_gap = learned - 0.5
    kernel_gap = start_gap
    # If only the readout is trained, the network is linear in its trained parameters, so no signs flip, and the kernel
    # drift and the linearization gaps are zero.
    if change is not None:
        predictions += [
            Prediction("activation_flips", "at most", change),
            Prediction("kernel_drift", "at most", change),
            *[Prediction(f"linearization_gap_{part}", "at most", change + learned) for part in ("train", "test")],
        ]
        if scaling.quadratic:
            # For ReLU, the quadratic gap scales like the linearization gap, because a Taylor polynomial of any order
            # misses the sign flips.
            order = 1 if scaling.homogeneous else 2
            gaps = (f"quadratic_gap_{part}" for part in ("train", "test"))
            predictions += [Prediction(gap, "at most", order * change + learned) for gap in gaps]
        kernel_gap = max(start_gap, change + learned)
    predictions += [Prediction(f"start_gap_{part}", "at most", start_gap) for part in ("train", "test")]
    predictions += [Prediction(f"kernel_gap_{part}", "at most", kernel_gap) for part in ("train", "test")]
    # Round the exponents to remove floating-point errors, and add 0.0 to turn -0.0 into 0.0.
    return [p._replace(exponent=round(p.exponent, 9) + 0.0) for p in predictions + start]


def _check_scaling(scaling: Scaling) -> Scaling:
    if not isinstance(scaling, Scaling):
        raise ValueError(f"scaling must be a lazynet.theory.Scaling, got {described(scaling)}.")
    for name in ("init", "output", "learning_rate"):
        exponent = as_number(getattr(scaling, name))
        if exponent is None or not isfinite(exponent):
            raise ValueError(f"scaling.{name} must be a finite number, got {described(getattr(scaling, name))}.")
    for name in ("symmetric", "homogeneous", "proportional", "quadratic", "train_bias", "biased"):
        check_flag(f"scaling.{name}", getattr(scaling, name))
    check_choice("scaling.train", scaling.train, ("hidden", "readout", "both"))
    check_count("scaling.depth", scaling.depth, most=DEEPEST)
    layers = check_sequence("scaling.layers", scaling.layers, "names")
    if not all(isinstance(layer, str) for layer in layers):
        raise ValueError(f"scaling.layers must be a list of names, got {described(scaling.layers)}.")
    return scaling._replace(parametrization=get_parametrization(scaling.parametrization))


def layer_exponents(scaling: Scaling) -> tuple[list[float], float, dict[str, Layer]]:
    """Return the exponents of the pre-activations of each layer, of the initial output f_0, and of each trained array.

    The exponents hold for unit-norm inputs and independent weights (Yang and Hu 2021, section 3). Each layer after the
    first multiplies the size of the pre-activations by sqrt(m) times the size of its weights. In the backward pass, it
    multiplies the size of the backpropagated signals df/dz_l by the same factor. If the parametrization multiplies
    W_l by m^(-a_l), the norm of df/dW_l is the product of m^(-a_l), the norm of the signal and the norm of the input of
    W_l. A step in W_l changes the pre-activations z_l coherently, by the product of eta m^(-2 a_l), the signal and the
    squared norm of the input. A bias is added to the pre-activations without a multiplier, so it behaves like a weight
    with a_l = 0 whose input is 1.
    """
    forward, start, _ = scaling.parametrization
    size = [scaling.init - forward[min(i, 1)] - start[min(i, 1)] for i in range(scaling.depth)]
    preactivations = [size[0]]
    for exponent in size[1:]:
        preactivations.append(preactivations[-1] + 0.5 + exponent)
    signal = [scaling.output - forward[2] - start[2]]
    for exponent in reversed(size[1:]):
        signal.insert(0, signal[0] + 0.5 + exponent)
    arrays = {}
    for i in range(scaling.depth):
        place = min(i, 1)
        # The input of the first layer has a fixed norm; the inputs of the other layers have m entries.
        norm = preactivations[i - 1] + 0.5 if i else 0.0
        arrays[f"hidden_{i + 1}"] = Layer(
            gradient=-forward[place] + signal[i] + 0.5 + norm,
            start=scaling.init - start[place] + (1.0 if i else 0.5),
            change=-2 * forward[place] + signal[i] + 2 * norm - preactivations[i],
        )
        arrays[f"bias_{i + 1}"] = Layer(signal[i] + 0.5, 0.5 - start[place], signal[i] - preactivations[i])
    last = preactivations[-1] + 0.5
    arrays["readout"] = Layer(scaling.output - forward[2] + last, 0.5 - start[2], None)
    return preactivations, scaling.output - forward[2] - start[2] + last, arrays


def _is_trained(name: str, scaling: Scaling) -> bool:
    if name.startswith("bias_"):
        return scaling.train_bias
    return scaling.train == "both" or (name == "readout") == (scaling.train == "readout")
