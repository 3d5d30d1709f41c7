"""Predicted exponents in the width, from the exponents of the parametrisation."""

from typing import Literal, NamedTuple

Relation = Literal["equal", "at most"]


# Fitted exponents of the scales themselves carry rounding only.
ROUNDING = 1e-6


class Scaling(NamedTuple):
    """How a two-layer network scales with its width m.

    Attributes:
        init: exponent of init_scale, kappa ~ m^init.
        output: exponent of output_scale, alpha ~ m^output; 0 is the NTK parametrisation, -1/2 mean field.
        learning_rate: exponent of eta.
        symmetric: whether the network starts at f = 0.
        homogeneous: whether the activation is positively homogeneous, as relu is.
        train: the trained part, "hidden", "readout" or "both".
        proportional: whether steps are proportional to gradients, as those of sgd and momentum are and adam's are not.
    """

    init: float
    output: float
    learning_rate: float
    symmetric: bool
    homogeneous: bool
    train: str
    proportional: bool = True


class Prediction(NamedTuple):
    """A quantity's exponent, which it must equal or may not exceed."""

    quantity: str
    relation: Relation
    exponent: float


def predicted_exponents(scaling: Scaling) -> list[Prediction]:
    """Exponents in m of what a sweep measures after a fixed number of steps.

    Write s, a and k for the exponents of eta, alpha and kappa, and r for that of the residual: 0, or a + k where that
    is larger and the start f_0 ~ alpha kappa is not cancelled. Hidden weights have ||df/dw_r|| ~ alpha / sqrt(m), so
    that (Arora et al. 2019, Lemmas C.1, 5.3, C.2 and C.3, where s = a = k = r = 0)

        ||W - W_0|| ~ m^(s + a + r),  over ||W_0|| ~ kappa sqrt(m d),  and ||w_r - w_r(0)|| <~ m^(s + a + r - 1/2).

    The first two are bounds where f_0 has another exponent than the targets, because a sum of two powers has none of
    its own. The third carries a factor sqrt(log m) where the readout is Gaussian or the readout alone is trained.

    A sign flips where |w_r . x| < ||w_r - w_r(0)||, with probability at most the ratio to kappa, and the kernel changes
    by that fraction. Gaps are that change, or the start's own m^(-1/2), times the part learned, eta alpha^2 r.

    All of it is predicted for steps proportional to gradients and from NTK to mean-field scaling:

        s + 2 a = 0: what is learned in a step does not depend on m. Below it learning stops as m grows, but widths that
            still learn are far from that limit; above it descent diverges.
        s + a + r - k - 1/2 <= 0: weights move no further than they are long.
        k = 0, unless the hidden layer alone is trained under a homogeneous activation.

    Elsewhere only the start is predicted, the Monte-Carlo error m^(-1/2) of its kernel; not even that for an activation
    that is not homogeneous under k != 0.
    """
    fixed_init = abs(scaling.init) <= ROUNDING
    if not (fixed_init or scaling.homogeneous):
        return []
    start = [Prediction("initial_kernel_error", "at most", -0.5)]
    start_exponent = scaling.output + scaling.init
    residual = 0.0 if scaling.symmetric else max(0.0, start_exponent)
    movement = scaling.learning_rate + scaling.output + residual
    relative = movement - scaling.init - 0.5
    learned = scaling.learning_rate + 2 * scaling.output + residual
    learns = abs(learned - residual) <= ROUNDING and relative <= ROUNDING
    if not (scaling.proportional and learns and (fixed_init or scaling.train == "hidden")):
        return start
    moved: Relation = "equal" if scaling.symmetric or abs(start_exponent) <= ROUNDING else "at most"
    predictions = [
        Prediction("displacement", moved, movement),
        Prediction("relative_displacement", moved, relative),
        Prediction("max_neuron_displacement", "at most", movement - 0.5),
    ]
    nonlinear = [
        Prediction("activation_flips", "at most", relative),
        Prediction("kernel_drift", "at most", relative),
        *[Prediction(f"linearization_gap_{part}", "at most", relative + learned) for part in ("train", "test")],
    ]
    # A trained readout alone is linear in its parameters: no flips, no drift, no gap to fit an exponent to.
    if scaling.train != "readout":
        predictions += nonlinear
    of_start = learned - 0.5
    total = of_start if scaling.train == "readout" else max(of_start, relative + learned)
    predictions += [Prediction(f"start_gap_{part}", "at most", of_start) for part in ("train", "test")]
    predictions += [Prediction(f"kernel_gap_{part}", "at most", total) for part in ("train", "test")]
    return predictions + start
