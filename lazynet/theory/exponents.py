"""Predicted exponents in the width, from the exponents of the parametrisation."""

from typing import Literal, NamedTuple

Relation = Literal["equal", "at most"]


class Scaling(NamedTuple):
    """How a two-layer network scales with its width m.

    Attributes:
        init: exponent of init_scale, kappa ~ m^init.
        output: exponent of output_scale, alpha ~ m^output; 0 is the NTK parametrisation, -1/2 mean field.
        learning_rate: exponent of eta.
        symmetric: whether the network starts at f = 0.
        homogeneous: whether the activation is positively homogeneous, as relu is.
        train: the trained part, "hidden", "readout" or "both".
    """

    init: float
    output: float
    learning_rate: float
    symmetric: bool
    homogeneous: bool
    train: str


class Prediction(NamedTuple):
    """A quantity's exponent, which it must equal or may not exceed."""

    quantity: str
    relation: Relation
    exponent: float


def predicted_exponents(scaling: Scaling) -> list[Prediction]:
    """Exponents in m of what a sweep measures at fixed steps, for networks that stay near their linearisation.

    Write s = eta-exponent, a = alpha-exponent, k = kappa-exponent, and r for the exponent of the residual, which is 0
    or that of a start f_0 ~ alpha kappa that is not cancelled. Hidden weights have ||df/dw_r|| ~ alpha / sqrt(m), so
    that after fixed steps (Arora et al. 2019, Lemmas C.1, 5.3, C.2 and C.3, where s = a = k = r = 0)

        ||W - W_0|| ~ m^(s + a + r),  over ||W_0|| ~ kappa sqrt(m d),  and ||w_r - w_r(0)|| <~ m^(s + a + r - 1/2).

    A sign flips where |w_r . x| < ||w_r - w_r(0)||, with probability at most the ratio to kappa, and the kernel changes
    by that fraction. Gaps are that change, or the start's own m^(-1/2), times the learned part eta alpha^2 r.

    Predicted are the scalings that train and do not diverge, s + 2 a <= 0; with an activation that is not homogeneous
    only those with k = 0. Everything else gives no prediction.
    """
    if scaling.learning_rate + 2 * scaling.output > 1e-6 or (not scaling.homogeneous and abs(scaling.init) > 1e-6):
        return []
    if scaling.train != "hidden" and abs(scaling.init) > 1e-6:
        return []
    residual = 0.0 if scaling.symmetric else max(0.0, scaling.output + scaling.init)
    movement = scaling.learning_rate + scaling.output + residual
    relative = movement - scaling.init - 0.5
    learned = scaling.learning_rate + 2 * scaling.output + residual
    predictions = [
        Prediction("displacement", "equal", movement),
        Prediction("relative_displacement", "equal", relative),
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
    start = learned - 0.5
    total = start if scaling.train == "readout" else max(start, relative + learned)
    predictions += [Prediction(f"start_gap_{part}", "at most", start) for part in ("train", "test")]
    predictions += [Prediction(f"kernel_gap_{part}", "at most", total) for part in ("train", "test")]
    return [*predictions, Prediction("initial_kernel_error", "at most", -0.5)]
