"""Every public function computes in float64 if it is given NumPy float64 arrays.

If an argument changes by 1e-7, the result must change by 1e-7 times the derivative, to one part in a thousand, which is
impossible in float32. The derivative is estimated from a larger change. Functions that return counts are given
arguments next to a jump.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz
from lazynet import data, dynamics, kernels, losses, measures, theory

RANDOM = np.random.default_rng(0)
N, D, M = 5, 3, 4
X, DX = RANDOM.normal(size=(2, N, D))
W, DW = RANDOM.normal(size=(2, M, D))
Y, DY = RANDOM.normal(size=(2, N))
A = RANDOM.normal(size=(N, N))
K, DK = A @ A.T + np.eye(N), A + A.T
WIDTHS = np.array([8.0, 16, 32, 64, 128])
VALUES, DVALUES = RANDOM.uniform(1, 2, size=(2, 5, 3))
FALLING = np.array([[3.0], [2.0], [1.0]]) + 0.1 * VALUES[:3]
KEY = jax.random.key(0)
NETWORK = lz.TwoLayer(width=M, activation="tanh", train="both", symmetric=False)
TINY = 1e-9


def variables(h):
    """Return variables of NETWORK as NumPy float64 arrays."""
    start = NETWORK.init(KEY, jnp.asarray(X, jnp.float32))
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(start))
    return {
        **wide,
        "params": jax.tree.map(
            lambda leaf: leaf + h * np.cos(np.arange(leaf.size)).reshape(leaf.shape), wide["params"]
        ),
    }


def operator(h):
    return kernels.dense_operator(K + h * DK)


DATA = lz.Dataset(X, Y, X[:2], Y[:2])

SMOOTH = {
    "measures.array_displacements": lambda h: measures.array_displacements({"w": W + h * DW}, {"w": 0.9 * W}),
    "measures.array_norms": lambda h: measures.array_norms({"w": W + h * DW}),
    "measures.current_kernel": lambda h: measures.current_kernel(NETWORK, variables(h), variables(0), DATA),
    "measures.displacement": lambda h: measures.displacement({"w": W + h * DW}, {"w": 0.9 * W}),
    "measures.effective_rank": lambda h: measures.effective_rank(np.array([3.0, 2 + h, 1])),
    "measures.kernel_distance": lambda h: measures.kernel_distance(K + h * DK, np.eye(N)),
    "measures.kernel_velocity": lambda h: measures.kernel_velocity(
        np.stack([K + h * DK, np.eye(N)]), np.array([0.0, 2])
    ),
    "measures.label_alignment": lambda h: measures.label_alignment(K + h * DK, Y),
    "measures.max_neuron_displacement": lambda h: measures.max_neuron_displacement(W + h * DW, 0.9 * W),
    "measures.parameter_norm": lambda h: measures.parameter_norm({"w": W + h * DW}),
    "measures.relative_distance": lambda h: measures.relative_distance(K + h * DK, np.eye(N)),
    "measures.residual_modes": lambda h: measures.residual_modes(kernels.spectrum(K), Y, (Y + h * DY + 1)[None]),
    "measures.rms": lambda h: measures.rms(Y + h * DY, 1),
    "measures.sharpness": lambda h: measures.sharpness(lambda w: jnp.tanh(X @ w).sum(axis=1), W.T + h * DW.T),
    "measures.singular_values": lambda h: measures.singular_values(W + h * DW),
    "measures.taylor_gap": lambda h: measures.taylor_gap(NETWORK, variables(1 + h), variables(0), X),
    "theory.concentration_bound": lambda h: theory.concentration_bound(K + h * DK, 8),
    "theory.crossing": lambda h: theory.crossing(np.array([8.0, 11.0]), FALLING[:2] + h * DVALUES[:2], 2.2).width,
    "theory.predict_crossing": lambda h: theory.predict_crossing(WIDTHS[:3], FALLING + h * DVALUES[:3], 1.5).width,
    "theory.fit_correction": lambda h: theory.fit_correction(WIDTHS, VALUES + h * DVALUES).exponent,
    "theory.fit_exponent": lambda h: theory.fit_exponent(WIDTHS, VALUES + h * DVALUES)[:3],
    "theory.neuron_movement_bound": lambda h: theory.neuron_movement_bound(N, 16, Y**2 + h, 0.5),
    "dynamics.kernel_descent": lambda h: (
        lz.kernel_descent(K + h * DK, Y + h * DY, learning_rate=0.02, steps=5, f0=h * Y, k_test=K[:2], f0_test=h).test
    ),
    "dynamics.kernel_descent, softmax": lambda h: (
        lz.kernel_descent(K + h * DK, np.eye(3)[[0, 1, 2, 0, 1]], learning_rate=0.02, steps=5, loss="softmax").train
    ),
    "dynamics.kernel_ensemble": lambda h: (
        lz.kernel_ensemble(K + h * DK, Y + h * DY, times=[0.1, 1.0], start_covariance=K + h * DK).train_covariance
    ),
    "dynamics.kernel_flow": lambda h: lz.kernel_flow(K + h * DK, Y + h * DY, times=[0.1, 1.0 + h]).train,
    "dynamics.kernel_regression": lambda h: dynamics.kernel_regression(K + h * DK, Y + h * DY, K[:2]),
    "dynamics.kernel_posterior": lambda h: (
        lz.kernel_posterior(K + h * DK, Y + h * DY, noise=0.1, k_test=K[:2] + h, k_test_test=K[:2, :2]).covariance
    ),
    "kernels.AnalyticKernel": lambda h: lz.analytic_kernel(lz.TwoLayer(M))(X + h * DX),
    "kernels.complexity": lambda h: lz.complexity(K + h * DK, Y + h * DY),
    "kernels.complexity_and_smallest": lambda h: kernels.complexity_and_smallest(K + h * DK, Y + h * DY),
    "kernels.dense_operator": lambda h: operator(h).dense(),
    "kernels.empirical_ntk": lambda h: lz.empirical_ntk(NETWORK, variables(h), X + h * DX),
    "kernels.kernel_operator": lambda h: lz.kernel_operator(lz.analytic_kernel(lz.TwoLayer(M)), X + h * DX).dense(),
    "kernels.label_projections": lambda h: lz.label_projections(K + h * DK, Y + h * DY).projections,
    "kernels.largest_eigenvalue": lambda h: kernels.largest_eigenvalue(K + h * DK),
    "kernels.solve": lambda h: kernels.solve(operator(h), Y + h * DY, tolerance=1e-13).forms,
    "kernels.spectral_density": lambda h: kernels.spectral_density(K + h * DK).average(np.exp)[0],
    "kernels.spectrum": lambda h: kernels.spectrum(K + h * DK).values,
    "data.Dataset": lambda h: lz.Dataset(X + h * DX, Y + h * DY).x_train,
    "data.unit_rows": lambda h: data.unit_rows(X + h * DX),
    **{
        f"losses.{name}": lambda h, name=name: losses.get_loss(name)(Y + h * DY, np.sign(Y))
        for name in ("squared", "logistic", "hinge")
    },
    "losses.softmax": lambda h: losses.softmax()(X + h * DX, np.eye(3)[[0, 1, 2, 0, 1]]),
}
ROW = np.array([[1.0, 1.0]])
# On ROW, the weights UP have the pre-activation +1e-9 and the weights DOWN have -1e-9.
UP, DOWN = np.array([[1.0, -1 + TINY]]), np.array([[1.0, -1 - TINY]])
JUMPS = {
    "measures.activation_flips": lambda: (measures.activation_flips(UP, DOWN, ROW), 1.0),
    "measures.coupled_neurons": lambda: (measures.coupled_neurons(UP, DOWN, ROW), 0.0),
    "measures.sign_changes": lambda: (measures.sign_changes([UP @ ROW.T], [DOWN @ ROW.T]), 1.0),
    "measures.zero_one_error": lambda: (measures.zero_one_error(np.array([[1.0, 1 + TINY]]), np.eye(2)[:1]), 1.0),
    "measures.leading_values": lambda: (measures.leading_values(np.array([2.0, 1.0, 0.5 - TINY])), 2),
}
# Functions without a test here: functions of keys, labels and counts, parts of other functions, and a mean over random
# starts, each of which is computed in float32, as documented.
OTHERS = {
    "kernels.monte_carlo_kernel",
    "theory.binomial_interval",
    "data.label_noise",
    "data.gaussian_mixture",
    "data.is_labels",
    "data.mixture",
    "data.sphere",
    "data.xor",
    "kernels.layer_kernels",
    "kernels.same_rows",
    "kernels.sum_layer_kernels",
    "kernels.with_random_columns",
}
ARRAYS = re.compile(r"ndarray|Array|PyTree|_Buffer|dict\[str, typing.Any\]")


@pytest.mark.parametrize("name", SMOOTH)
def test_small_differences_of_arguments_are_seen(name):
    call = SMOOTH[name]

    def answer(h):
        return np.asarray(call(h), np.float64)

    derivative = (answer(1e-4) - answer(-1e-4)) / 2e-4
    small = (answer(1e-7) - answer(0.0)) / 1e-7
    assert np.abs(derivative).max() > 1e-3
    np.testing.assert_allclose(small, derivative, rtol=1e-3, atol=1e-3 * np.abs(derivative).max())


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_are_where_they_are_in_float64(name):
    found, expected = JUMPS[name]()
    assert float(found) == expected


def test_every_public_function_of_arrays_is_here():
    tested = {name.partition(",")[0] for name in (*SMOOTH, *JUMPS)} | OTHERS
    for room in (measures, theory, dynamics, kernels, data):
        for name in room.__all__:
            function = getattr(room, name)
            if not inspect.isfunction(function) or name.startswith("check_"):
                continue
            annotations = [str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
            if any(map(ARRAYS.search, annotations)):
                assert f"{room.__name__.rpartition('.')[2]}.{name}" in tested
