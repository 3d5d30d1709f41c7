"""What the variables of a sweep are called, and what they mean."""

# Scales that may be functions of the width, and what else is known at each width.
SCALES = ("init_scale", "output_scale")
BY_WIDTH = ("learning_rate", *SCALES)
# The axes on which the kernel of infinite width depends.
OF_KERNEL = ("activation", *SCALES, "n_train")

# Distances of two predictions, of which those of the kernel go on where a member has stopped.
GAPS = tuple(
    f"{gap}_gap_{part}" for gap in ("linearization", "start", "kernel", "quadratic") for part in ("train", "test")
)

# What is known of each trained array, over the dimension `layer`.
OF_LAYERS = ("layer_displacement", "layer_relative_displacement", "layer_kernel_drift")

MEANING = {
    "train_loss": "loss of the network on the training set",
    "test_loss": "loss of the network on the test set",
    "train_error": "share of misclassified training examples",
    "test_error": "share of misclassified test examples",
    "residual_norm": "norm of the training residual y - f",
    "displacement": "Frobenius norm of params - params(0)",
    "relative_displacement": "displacement over the norm of params(0)",
    "max_neuron_displacement": "largest norm of w_r - w_r(0) over units r (of a_r - a_r(0) where only a is trained)",
    "activation_flips": "share of pre-activation signs that differ from the start",
    "kernel_drift": "norm(K_t - K_0) / norm(K_0) of the empirical kernel",
    "layer_displacement": "Frobenius norm of W - W(0) of each trained array",
    "layer_relative_displacement": "layer_displacement over the norm of W(0)",
    "layer_kernel_drift": "norm(K_t - K_0) / norm(K_0) of what each trained array adds to the empirical kernel",
    "time": "sum of the steps of a gradient flow",
    "sharpness": "largest eigenvalue of the empirical kernel of all outputs",
    "learning_rate_over_stability_limit": "learning rate over 2 / sharpness, the limit of plain descent on the squared loss",
    "linearization_gap_train": "RMS of f - f_lin on the training set",
    "linearization_gap_test": "RMS of f - f_lin on the test set",
    "start_gap_train": "RMS of f_lin - infinite-width prediction on the training set",
    "start_gap_test": "RMS of f_lin - infinite-width prediction on the test set",
    "kernel_gap_train": "RMS of f - infinite-width prediction on the training set",
    "kernel_gap_test": "RMS of f - infinite-width prediction on the test set",
    "quadratic_gap_train": "RMS of f - the trained Taylor polynomial of order 2 on the training set",
    "quadratic_gap_test": "RMS of f - the trained Taylor polynomial of order 2 on the test set",
    "test_kernel_drift": "norm(K_T - K_0) / norm(K_0) of the empirical kernel of test with training rows, at the end",
    **{
        f"regression_error_{kernel}{end}": f"{what}error of regression with {name} on the test set"
        for kernel, name in {"start": "K_0", "end": "K_T", "limit": "K of infinite width"}.items()
        for end, what in {"": "", "_low": "lower 95% end of the ", "_high": "upper 95% end of the "}.items()
    },
    "initial_kernel_error": "norm(K_0 - K) / norm(K)",
    "lemma_bound": "bound on max_neuron_displacement, Arora et al. 2019, Lemma C.1",
    "path_bound": "bound on max_neuron_displacement from the network's own residuals",
    "kernel_train_loss": "loss of the infinite-width prediction on the training set",
    "kernel_test_loss": "loss of the infinite-width prediction on the test set",
    "kernel_train_error": "training error of the infinite-width prediction",
    "kernel_test_error": "test error of the infinite-width prediction",
    "linearized_displacement": "exact displacement of the linearized limit",
    "lambda_min": "smallest eigenvalue of K on the training set",
    "lambda_max": "largest eigenvalue of K on the training set",
    "label_norm": "sqrt(y' K^-1 y)",
    "complexity": "sqrt(2 y' K^-1 y / n)",
    "target_rms": "RMS of the training targets",
}

RESERVED = {
    *MEANING,
    *BY_WIDTH,
    "width",
    "seed",
    "step",
    "layer",
    "status",
    "stopped_step",
    "activation",
    "n_train",
    "batch_size",
}
RESERVED |= {"label_noise", "train_prediction", "test_prediction", "loss_root_sum"}
