"""The quantities in the result of a sweep, in the order in which verdicts and figure legends list them."""

from lazynet.measures._catalog import Quantity, Source, add

LEE = "Lee et al. 2019"
ARORA = "Arora et al. 2019"
KERNEL: tuple[Source, ...] = ("network", "inputs")
LABELS: tuple[Source, ...] = (*KERNEL, "labels")
DESCENT: tuple[Source, ...] = (*LABELS, "learning_rate", "training")


def _coordinates() -> list[Quantity]:
    def coordinate(name: str, meaning: str, unit: str = "1") -> Quantity:
        return Quantity(name, meaning, unit, dims=(name,), coordinate=True)

    def by_width(name: str, meaning: str, depends_on: tuple[Source, ...]) -> Quantity:
        return Quantity(name, meaning, dims=("width",), depends_on=depends_on, coordinate=True)

    return [
        coordinate("width", "number of hidden units"),
        coordinate("seed", "seed of the random initialization"),
        coordinate("step", "number of training steps"),
        coordinate("layer", "name of a trained array", ""),
        coordinate("activation", "activation function", ""),
        coordinate("n_train", "number of training examples"),
        coordinate("batch_size", "number of examples in a batch"),
        coordinate("optimizer", "optimizer and its settings", ""),
        coordinate("momentum", "momentum mu of the optimizer"),
        coordinate("nesterov", "whether the momentum is Nesterov momentum", ""),
        coordinate("weight_decay", "weight decay of the optimizer"),
        coordinate("ridge", "coefficient beta of the ridge penalty 1/2 beta ||theta - theta_0||^2"),
        coordinate("schedule", "factor for the learning rate as a function of the step", ""),
        coordinate("stepper", "algorithm that computes a training step", ""),
        coordinate("label_noise", "fraction of training labels redrawn at random"),
        by_width("learning_rate", "learning rate eta", (*KERNEL, "training")),
        by_width("init_scale", "standard deviation kappa of the initial weights", ()),
        by_width("output_scale", "factor alpha that multiplies the output", ()),
        Quantity(
            "target_rms",
            "RMS of the training targets",
            "targets",
            dims=(),
            depends_on=("inputs", "labels"),
            coordinate=True,
        ),
        Quantity(
            "test_target_rms",
            "RMS of the test targets",
            "targets",
            dims=(),
            depends_on=("inputs", "labels"),
            coordinate=True,
        ),
    ]


def _networks() -> list[Quantity]:
    layer = ("width", "seed", "step", "layer")
    return [
        Quantity("status", "how training ended", "", dims=("width", "seed")),
        Quantity("stopped_step", "number of steps after which training ended", dims=("width", "seed")),
        Quantity("train_loss", "loss of the network on the training set", "loss"),
        Quantity("test_loss", "loss of the network on the test set", "loss"),
        Quantity("train_error", "fraction of misclassified training examples (NaN if the targets are not labels)"),
        Quantity("test_error", "fraction of misclassified test examples (NaN if the targets are not labels)"),
        Quantity("residual_norm", "norm of the training residual y - f", "targets"),
        Quantity(
            "displacement",
            "Frobenius norm of params - params(0)",
            predicted=("equal", "s + g + r"),
            panel="movement",
            label="displacement",
            color="blue",
            marker="o",
            by_layer="layer_displacement",
            source=f"{ARORA}, Lemma 5.3",
        ),
        Quantity(
            "max_neuron_displacement",
            "largest norm of w_r - w_r(0) over units r, or of a_r - a_r(0) if only a is trained",
            predicted=("at most", "s + g + r - 1/2"),
            panel="movement",
            label="maximum over neurons",
            color="purple",
            marker="D",
            source=f"{ARORA}, Lemma C.1",
        ),
        Quantity(
            "activation_flips",
            "fraction of pre-activation signs that differ from initialization",
            predicted=("at most", "c"),
            level=True,
            panel="movement",
            label="flipped signs",
            color="vermilion",
            marker="v",
            source="Du et al. 2018, Figure 1(b); Li and Liang 2018, section 7",
        ),
        Quantity(
            "kernel_drift",
            "norm(K_t - K_0) / norm(K_0) of the empirical kernel",
            predicted=("at most", "c"),
            level=True,
            panel="movement",
            label="kernel drift",
            color="green",
            marker="^",
            source=f"{LEE}, Figure 1",
        ),
        Quantity(
            "relative_displacement",
            "displacement divided by the norm of params(0)",
            predicted=("equal", "s + g + r - w"),
            level=True,
            panel="movement",
            label="relative",
            color="orange",
            marker="s",
            by_layer="layer_relative_displacement",
            source=f"{LEE}, Figure 1",
        ),
        Quantity("ridge_penalty", "ridge penalty, 1/2 beta displacement^2", "loss", held=True),
        Quantity(
            "layer_displacement",
            "Frobenius norm of W - W(0) for each trained array W",
            dims=layer,
            source=f"{LEE}, Figure 1",
        ),
        Quantity(
            "layer_relative_displacement",
            "layer_displacement divided by the norm of W(0) for each trained array W",
            dims=layer,
            predicted=("equal", "s + g + r - w of the array"),
            panel="movement",
            label="relative",
            exponent_drawn=False,
            source=f"{LEE}, Figure 1",
        ),
        Quantity(
            "layer_kernel_drift",
            "norm(K_t - K_0) / norm(K_0) of each trained array's part of the empirical kernel",
            dims=layer,
        ),
        Quantity("time", "time of the gradient flow, the sum of its step sizes"),
        Quantity(
            "sharpness",
            "largest eigenvalue of the empirical kernel of all outputs",
            source="Cohen et al. 2021, section 2",
        ),
        Quantity(
            "learning_rate_over_stability_limit",
            "learning rate divided by 2 / sharpness, the stability limit of plain gradient descent on the squared loss",
            source="Cohen et al. 2021, section 2",
        ),
    ]


def _gaps() -> list[Quantity]:
    gaps = []
    for name, difference, exponent, label, color, marker in (
        ("linearization", "f - f_lin", "c + l", "linearization", "green", "^"),
        ("start", "f_lin - infinite-width prediction", "l - 1/2", "start", "orange", "s"),
        ("kernel", "f - infinite-width prediction", "max(l - 1/2, c + l)", "kernel", "blue", "o"),
        (
            "quadratic",
            "f - the trained second-order Taylor polynomial",
            "c + l for a homogeneous activation, else 2 c + l",
            "quadratic",
            "purple",
            "D",
        ),
    ):
        for part, place in (("train", "training"), ("test", "test")):
            gaps.append(
                Quantity(
                    f"{name}_gap_{part}",
                    f"RMS of {difference} on the {place} set",
                    "targets",
                    reduction="maximum",
                    gap=True,
                    held=True,
                    defined_with="kernel_train_loss" if name in ("start", "kernel") else "",
                    level=True,
                    predicted=("at most", exponent),
                    panel="gaps" if part == "train" else None,
                    label=label,
                    color=color,
                    marker=marker,
                    exponent_drawn=name in ("linearization", "kernel"),
                    source=f"{LEE}, Theorem 2.1" if name != "quadratic" else "",
                )
            )
    return gaps


def _predictions() -> list[Quantity]:
    kernels = {"start": "K_0", "end": "K_T", "limit": "the infinite-width kernel"}
    ends = {"": "", "_low": "lower end of the 95% interval of the ", "_high": "upper end of the 95% interval of the "}
    return [
        Quantity(
            "test_kernel_drift",
            "norm(K_T - K_0) / norm(K_0) of the empirical kernel between test and training rows, after training",
            dims=("width", "seed"),
        ),
        *(
            Quantity(
                f"regression_error_{kernel}{end}",
                f"{words}test error of kernel regression with {name}",
                source="Jacot et al. 2018, section 5",
                **({"dims": (), "depends_on": LABELS} if kernel == "limit" else {"dims": ("width", "seed")}),
            )
            for kernel, name in kernels.items()
            for end, words in ends.items()
        ),
        Quantity(
            "initial_kernel_error",
            "norm(K_0 - K) / norm(K)",
            dims=("width", "seed"),
            reduction="start",
            predicted=("at most", "-1/2"),
            source=f"{ARORA}, Lemma C.3",
        ),
        Quantity(
            "lemma_bound",
            "bound on max_neuron_displacement from Lemma C.1 of Arora et al. 2019",
            dims=("width", "seed"),
            defined_with="path_bound",
            source=f"{ARORA}, Lemma C.1",
        ),
        Quantity(
            "path_bound", "bound on max_neuron_displacement from the network's own residuals", defined_with="path_bound"
        ),
        *(
            Quantity(
                f"kernel_{part}_{score}",
                meaning,
                unit,
                depends_on=DESCENT,
                defined_with="kernel_train_loss",
                source=f"{LEE}, section 2.2",
            )
            for part, score, meaning, unit in (
                ("train", "loss", "loss of the infinite-width prediction on the training set", "loss"),
                ("test", "loss", "loss of the infinite-width prediction on the test set", "loss"),
                ("train", "error", "training error of the infinite-width prediction", "1"),
                ("test", "error", "test error of the infinite-width prediction", "1"),
            )
        ),
        Quantity(
            "linearized_displacement",
            "displacement of the linearized network in the infinite-width limit",
            depends_on=DESCENT,
            defined_with="kernel_train_loss",
            source=f"{LEE}, section 2.2",
        ),
        Quantity("lambda_min", "smallest eigenvalue of K on the training set", dims=(), depends_on=KERNEL),
        Quantity("lambda_max", "largest eigenvalue of K on the training set", dims=(), depends_on=KERNEL),
        Quantity(
            "label_norm",
            "sqrt(y' K^-1 y)",
            "targets",
            dims=(),
            depends_on=LABELS,
            source=f"{ARORA}, Lemma 5.3",
        ),
        Quantity(
            "complexity",
            "sqrt(2 y' K^-1 y / n)",
            "targets",
            dims=(),
            depends_on=LABELS,
            source=f"{ARORA}, equation (10)",
        ),
    ]


def _forecasts(measured: list[Quantity]) -> list[Quantity]:
    """Return the forecasts that a sweep may contain in addition to its measurements."""
    return [
        Quantity(
            f"forecast_{quantity.name}",
            f"forecast, without training, of {quantity.name}",
            quantity.unit,
            reduction=quantity.reduction,
        )
        for quantity in measured
        if quantity.name in FORECAST
    ]


# Quantities for which there are forecasts; see `lazynet.forecast`.
FORECAST = (
    "linearization_gap_train",
    "linearization_gap_test",
    "kernel_gap_train",
    "kernel_gap_test",
    "displacement",
    "relative_displacement",
    "max_neuron_displacement",
    "activation_flips",
    "kernel_drift",
)
MEASURED = [*_networks(), *_gaps()]
add("sweep", *_coordinates(), *MEASURED, *_predictions(), *_forecasts(MEASURED))
