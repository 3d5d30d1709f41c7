"""Predicted exponents in the width, from the exponents of the parametrization."""

from typing import Literal, NamedTuple

from lazynet.networks import PARAMETRIZATIONS, Parametrization

Relation = Literal["equal", "at most"]


# Fitted exponents of the scales themselves carry rounding only.
ROUNDING = 1e-6


class Scaling(NamedTuple):
    """How a network scales with its width m.

    Attributes:
        init: exponent of init_scale, kappa ~ m^init.
        output: exponent of output_scale, alpha ~ m^output; 0 is the NTK parametrization, -1/2 mean field.
        learning_rate: exponent of eta.
        symmetric: whether the network starts at f = 0.
        homogeneous: whether the activation is positively homogeneous, as relu is.
        train: the trained part, "hidden", "readout" or "both".
        proportional: whether steps are proportional to gradients, as those of sgd and momentum are and adam's are not.
        parametrization: powers of the width in front of weights and at their start.
        depth: number of hidden layers.
        layers: names of trained arrays for which to predict each its own movement.
        quadratic: whether to predict the gap to Taylor polynomials of order 2.
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


class Prediction(NamedTuple):
    """A quantity's exponent, which it must equal or may not exceed; that of one trained array has it in brackets."""

    quantity: str
    relation: Relation
    exponent: float


class Layer(NamedTuple):
    """Exponents of a trained array: the norm of df/dW, that of W at the start, the relative change of what it feeds.

    The last is that of the pre-activations after a step with eta and residuals of order 1; the readout feeds none.
    """

    gradient: float
    start: float
    change: float | None


def predicted_exponents(scaling: Scaling) -> list[Prediction]:
    """Exponents in m of what a sweep measures after a fixed number of steps.

    Write s, a and k for the exponents of eta, alpha and kappa, and r for that of the residual: 0, or that of f_0 where
    that is larger and f_0 is not cancelled. A trained array with ||df/dW|| ~ m^g moves by m^(s + g + r), and the
    network learns m^(s + 2 g + r) in a step, for the largest g of all (`layers_of` gives them). In the NTK
    parametrization all g are a, so that with one hidden layer (Arora et al. 2019, Lemmas C.1, 5.3, C.2 and C.3, where
    s = a = k = r = 0)

        ||W - W_0|| ~ m^(s + a + r),  over ||W_0|| ~ kappa sqrt(m d),  and ||w_r - w_r(0)|| <~ m^(s + a + r - 1/2),

    and with several (Lee et al. 2019, Figure 1) the middle ones, whose ||W_0|| ~ kappa m, move by 1 / m of themselves.
    Displacements are bounds where arrays of several powers add up, and where f_0 has another exponent than the targets,
    because a sum of two powers has none of its own. That of one neuron carries a factor sqrt(log m) where the readout
    is Gaussian or the readout alone is trained.

    A sign flips where a pre-activation is smaller than its change, with probability at most their ratio, and the kernel
    changes by that fraction: the largest `change` of a layer. Gaps are that change, or the start's own m^(-1/2), times
    the part learned.

    All of it is predicted for steps proportional to gradients and from NTK to mean-field or maximal-update scaling:

        what is learned in a step does not depend on m. Below it learning stops as m grows, but widths that still learn
            are far from that limit; above it descent diverges.
        pre-activations change no more than they are large.
        k = 0, unless the hidden layer alone is trained under a homogeneous activation.

    Elsewhere only the start is predicted, the Monte-Carlo error m^(-1/2) of its kernel; not even that for an activation
    that is not homogeneous where pre-activations grow or shrink.
    """
    entering, start_exponent, arrays = layers_of(scaling)
    fixed = max(map(abs, entering)) <= ROUNDING
    if not (fixed or scaling.homogeneous):
        return []
    start = [Prediction("initial_kernel_error", "at most", -0.5)]
    trained = {name: layer for name, layer in arrays.items() if _is_trained(name, scaling.train)}
    residual = 0.0 if scaling.symmetric else max(0.0, start_exponent)
    largest = max(layer.gradient for layer in trained.values())
    movement, learned = (scaling.learning_rate + power * largest + residual for power in (1, 2))
    changes = [layer.change for layer in trained.values() if layer.change is not None]
    change = scaling.learning_rate + max(changes) + residual if changes else None
    relative = movement - min(layer.start for layer in trained.values())
    learns = abs(learned - residual) <= ROUNDING and (relative if change is None else change) <= ROUNDING
    if not (scaling.proportional and learns and (abs(scaling.init) <= ROUNDING or scaling.train == "hidden")):
        return start
    own: Relation = "equal" if scaling.symmetric or abs(start_exponent) <= ROUNDING else "at most"
    spread = {round(layer.gradient, 6) for layer in trained.values()}
    weights = {round(layer.start, 6) for layer in trained.values()}
    moved: Relation = own if len(spread) == 1 else "at most"
    predictions = [
        Prediction("displacement", moved, movement),
        Prediction("relative_displacement", moved if len(weights) == 1 else "at most", relative),
        Prediction("max_neuron_displacement", "at most", movement - 0.5),
    ]
    for name in scaling.layers:
        moves = scaling.learning_rate + trained[name].gradient + residual
        quantity = f"layer_relative_displacement[{name}]"
        predictions.append(Prediction(quantity, own, moves - trained[name].start))
    of_start = learned - 0.5
    total = of_start
    # A trained readout alone is linear in its parameters: no flips, no drift, no gap to fit an exponent to.
    if change is not None:
        predictions += [
            Prediction("activation_flips", "at most", change),
            Prediction("kernel_drift", "at most", change),
            *[Prediction(f"linearization_gap_{part}", "at most", change + learned) for part in ("train", "test")],
        ]
        if scaling.quadratic:
            # Signs of relu flip whatever the order of the polynomial.
            order = 1 if scaling.homogeneous else 2
            gaps = (f"quadratic_gap_{part}" for part in ("train", "test"))
            predictions += [Prediction(gap, "at most", order * change + learned) for gap in gaps]
        total = max(of_start, change + learned)
    predictions += [Prediction(f"start_gap_{part}", "at most", of_start) for part in ("train", "test")]
    predictions += [Prediction(f"kernel_gap_{part}", "at most", total) for part in ("train", "test")]
    # Sums of exponents carry rounding.
    return [each._replace(exponent=round(each.exponent, 9) + 0.0) for each in predictions + start]


def layers_of(scaling: Scaling) -> tuple[list[float], float, dict[str, Layer]]:
    """Exponents of pre-activations layer by layer, that of f_0, and those of each array.

    With unit inputs and independent weights (Yang and Hu 2021, section 3): pre-activations grow from layer to layer as
    sqrt(m) times the size of weights, backward signals from the output down as well; ||df/dW_l|| is m^(-a_l) times the
    norms of the signal behind W_l and of what enters it; and a step in W_l changes z_l by eta m^(-2 a_l) times that
    signal and the squared norm of what enters, coherently.
    """
    forward, start, _ = scaling.parametrization
    size = [scaling.init - forward[min(i, 1)] - start[min(i, 1)] for i in range(scaling.depth)]
    entering = [size[0]]
    for each in size[1:]:
        entering.append(entering[-1] + 0.5 + each)
    signal = [scaling.output - forward[2] - start[2]]
    for each in reversed(size[1:]):
        signal.insert(0, signal[0] + 0.5 + each)
    arrays = {}
    for i in range(scaling.depth):
        place = min(i, 1)
        # The norm of what enters: that of a row, which is fixed, or of m units.
        norm = entering[i - 1] + 0.5 if i else 0.0
        arrays[f"hidden_{i + 1}"] = Layer(
            gradient=-forward[place] + signal[i] + 0.5 + norm,
            start=scaling.init - start[place] + (1.0 if i else 0.5),
            change=-2 * forward[place] + signal[i] + 2 * norm - entering[i],
        )
    last = entering[-1] + 0.5
    arrays["readout"] = Layer(scaling.output - forward[2] + last, 0.5 - start[2], None)
    return entering, scaling.output - forward[2] - start[2] + last, arrays


def _is_trained(name: str, train: str) -> bool:
    return train == "both" or (name == "readout") == (train == "readout")
