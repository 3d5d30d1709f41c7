"""Test the bounds of Arora et al. 2019 against the quantities that they bound."""

import jax
import mpmath
import numpy as np
import pytest
from marks import slow_unless
from numpy.polynomial import Legendre
from reference import unit_rows
from scipy.special import roots_jacobi

import lazynet as lz
from lazynet.theory import (
    concentration_bound,
    flips_bound,
    generalization_bound,
    neuron_movement_bound,
    population_bound,
    power_bound,
    rademacher_bound,
    unseen_share,
)

KERNEL = lz.analytic_kernel(lz.TwoLayer(width=2))


@pytest.mark.slow
def test_neuron_displacement_stays_below_its_bound():
    data = lz.load_dataset("digits", n_train=16, n_test=4)
    member = lz.sweep(lz.TwoLayer(width=2), data, [64], 1, 40).isel(width=0, seed=0)
    bound = neuron_movement_bound(16, 64, float(member.residual_norm[0]), float(member.lambda_min))
    assert float(member.lemma_bound) == pytest.approx(bound, rel=1e-12)
    assert (member.max_neuron_displacement <= bound).all()
    assert neuron_movement_bound(16, 64, 1.0, 0.0) == np.inf
    assert neuron_movement_bound(16, 64, 1.0, -1e-18) == np.inf


@pytest.mark.parametrize("kappa", [0.1, 1.0])
def test_flips_bound_is_the_probability_of_a_small_pre_activation(kappa):
    x = unit_rows(1, 5)[0]
    near = np.abs(kappa * np.random.default_rng(0).normal(size=(200_000, 5)) @ x)
    for radius in (0.02, 0.3, 1.0):
        assert np.mean(near <= radius) == pytest.approx(flips_bound(radius, kappa), abs=5e-3)
        assert flips_bound(radius, kappa) <= 2 * radius / (np.sqrt(2 * np.pi) * kappa)


@pytest.mark.slow
def test_the_initial_kernel_concentrates_within_its_bound(key):
    n, width, delta = 6, 128, 0.2
    x = unit_rows(n, 4)
    network = lz.TwoLayer(width=width, symmetric=False)
    init = jax.jit(network.init)
    starts = [dict(init(start_key, x.astype("float32"))) for start_key in jax.random.split(key, 100)]
    errors = np.array([np.linalg.norm(lz.empirical_ntk(network, start, x) - KERNEL(x)) for start in starts])
    bound = concentration_bound(x @ x.T, width, delta)
    assert np.mean(errors > bound) <= delta
    # Hoeffding's inequality and the union bound make the bound larger by a constant factor.
    assert bound < 8 * errors.mean()
    assert concentration_bound(x @ x.T, 4 * width, delta) == pytest.approx(bound / 2)


def test_the_concentration_bound_is_hoeffdings_inequality_for_every_pair():
    """Each of the n (n + 1) / 2 pairs has an equal share of delta, and its bound is scaled by |x_i . x_j|."""
    n, units, delta = 5, 300, 0.03
    x = unit_rows(n, 3)
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    each = delta / len(pairs)
    # The deviation t solves 2 exp(-2 m t^2) = `each`, where m is the number of units.
    t = np.sqrt(-np.log(each / 2) / (2 * units))
    entries = np.zeros((n, n))
    for i, j in pairs:
        entries[i, j] = entries[j, i] = x[i] @ x[j] * t
    np.testing.assert_allclose(concentration_bound(x @ x.T, units, delta), np.linalg.norm(entries), rtol=1e-12)


@pytest.mark.slow
def test_the_rademacher_complexity_stays_below_its_bound(key):
    n, width, movement = 40, 4096, 2.5
    x = unit_rows(n, 10)
    network = lz.TwoLayer(width=width, symmetric=False)
    k = lz.empirical_ntk(network, dict(network.init(key, x.astype("float32"))), x)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(2000, n))
    # With signs e_i and gradients z_i, the supremum over ||W - W(0)|| <= B of (1/n) sum_i e_i <z_i, W - W(0)> is
    # (B/n) ||sum_i e_i z_i||.
    complexity = movement / n * np.mean(np.sqrt(np.einsum("si,ij,sj->s", signs, k, signs)))
    bound = rademacher_bound(n, width, movement, radius=0.0)
    assert 0.6 * bound < complexity < bound
    wider = rademacher_bound(n, width, movement, radius=0.01, init_scale=0.5)
    assert wider == pytest.approx(bound + 4e-4 * 64 + 0.01 * np.sqrt(2 * np.log(40)))


def test_the_population_loss_is_rarely_above_its_bound():
    n, share, delta = 50, 0.3, 0.1
    losses = np.random.default_rng(0).random((4000, n)) < share
    # A class with a single function has Rademacher complexity zero.
    bounds = np.array([generalization_bound(mean, 0.0, n, delta) for mean in losses.mean(axis=1)])
    assert np.mean(share > bounds) <= delta
    assert generalization_bound(0.2, 0.1, 10**9) == pytest.approx(0.4, abs=1e-3)


def test_the_shares_of_delta_sum_to_at_most_delta():
    n, delta = 1000, 0.1
    balls = np.arange(1, 2001)
    bounds = np.array([population_bound(0.25, n, ball - 0.5, delta) for ball in balls])
    # The last term of each bound is 3 sqrt(log(2 / share) / (2 n)), where the shares of delta for all movements sum to
    # delta / 2.
    shares = 2 * np.exp(-2 * n * ((bounds - 0.25 - 2 * balls / np.sqrt(2 * n)) / 3) ** 2)
    assert np.sum(shares) == pytest.approx(delta / 2 * (1 - 1 / 2001))
    # For a network, the movement 2.5 is rounded up to 3 and the radius 0.3 to 2^-1.
    share = delta / 2 / 12 / (3 * 2**2)
    for symmetric in (False, True):
        near = rademacher_bound(n, 4096, 3, 0.5, 0.1, share, symmetric=symmetric)
        bound = population_bound(0.0, n, 2.5, delta, width=4096, radius=0.3, init_scale=0.1, symmetric=symmetric)
        assert bound == pytest.approx(generalization_bound(0.0, near, n, share))
    steps = np.arange(-1000, 1001)
    assert np.sum(1 / (3 * (np.abs(steps) + 1) ** 2)) < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"movement": -1.0}, "movement must be a number between 0 and 1e"),
        ({"movement": np.inf}, "movement"),
        ({"delta": 1.0}, "delta must be a positive number below 1"),
        ({"width": 100}, "width and radius must either both be given"),
        ({"radius": 1.0}, "width and radius"),
        ({"width": 100, "radius": 0.1}, "radius must be at least movement / sqrt"),
        ({"width": 100, "radius": np.inf}, "radius"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        population_bound(**({"train_loss": 0.0, "n": 100, "movement": 2.0} | change))


def test_a_pair_of_units_counts_as_one():
    independent = rademacher_bound(100, 512, 2.0, 0.0)
    assert rademacher_bound(100, 1024, 2.0, 0.0, symmetric=True) == pytest.approx(independent)
    radius = rademacher_bound(100, 1024, 2.0, 0.1) - rademacher_bound(100, 1024, 2.0, 0.0)
    pairs = rademacher_bound(100, 1024, 2.0, 0.1, symmetric=True) - independent
    assert pairs == pytest.approx(radius)


@pytest.mark.parametrize("dim", [3, 6])
@pytest.mark.parametrize("power", range(1, 8))
def test_the_unseen_share_of_a_power(power, dim):
    # A coordinate z of a random point on the sphere has a density proportional to (1 - z^2)^((d - 3) / 2).
    z, weights = roots_jacobi(40, (dim - 3) / 2, (dim - 3) / 2)
    y = z**power
    remainder = y - z * np.sum(weights * y * z) / np.sum(weights * z**2) if power % 2 else 0 * z
    expected = np.sqrt(np.sum(weights * remainder**2) / np.sum(weights * y**2))
    assert unseen_share(power, dim) == pytest.approx(expected, abs=1e-7)


def test_the_unseen_share_of_large_powers_and_dimensions():
    # In one dimension, every odd power is linear on the sphere.
    assert unseen_share(999, 1) == 0.0
    with mpmath.workdps(30):
        for power, dim in ((99, 3), (999, 10**6), (5, 10**15)):
            moments = [mpmath.rf(0.5, k) / mpmath.rf(mpmath.mpf(dim) / 2, k) for k in (1, (power + 1) // 2, power)]
            expected = mpmath.sqrt(1 - moments[1] ** 2 / (moments[0] * moments[2]))
            assert unseen_share(power, dim) == pytest.approx(float(expected), rel=1e-12)


def test_the_kernel_has_no_odd_harmonics_except_linear_ones():
    # The Funk-Hecke formula gives the kernel's eigenvalue for harmonics of degree k on the sphere in three dimensions.
    t, weights = np.polynomial.legendre.leggauss(300)
    values = t * (np.pi - np.arccos(t)) / (2 * np.pi)
    eigenvalues = [np.sum(weights * values * Legendre.basis(k)(t)) for k in range(8)]
    assert np.allclose(eigenvalues[3::2], 0, atol=1e-12)
    assert (np.abs([eigenvalues[k] for k in (0, 1, 2, 4, 6)]) > 1e-4).all()


@pytest.mark.parametrize("dim", slow_unless(lambda dim: dim == 3, [3, 6]))
def test_the_norm_of_sums_of_powers_stays_below_its_bound(dim):
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(100, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    k = KERNEL(x)
    beta, gamma = rng.normal(size=(2, dim))
    beta, gamma = beta / np.linalg.norm(beta), 0.7 * gamma / np.linalg.norm(gamma)

    def norm(y):
        return np.sqrt(len(y) / 2) * lz.complexity(k, y)

    for power in (1, 2, 4, 6):
        assert norm(-2 * (x @ beta) ** power) <= power_bound([(-2.0, 1.0, power)])
    assert norm((x @ beta) + 0.5 * (x @ gamma) ** 4) <= power_bound([(1.0, 1.0, 1), (0.5, 0.7, 4)])
    a = rng.normal(size=(dim, dim))
    a += a.T
    trace_norm = np.abs(np.linalg.eigvalsh(a)).sum()
    form = power_bound([(value, 1.0, 2) for value in np.linalg.eigvalsh(a)])
    assert form == pytest.approx(6 * trace_norm)
    assert norm(np.einsum("ni,ij,nj->n", x, a, x)) <= form
    # The series cos(z) - 1 = sum_(j >= 1) (-1)^j z^(2j) / (2j)! has the bound 3 b sinh(b), where b = |gamma|.
    factorials = np.cumprod(np.arange(1, 31, dtype=float))
    cosine = power_bound([((-1) ** j / factorials[2 * j - 1], 0.7, 2 * j) for j in range(1, 15)])
    assert cosine == pytest.approx(3 * 0.7 * np.sinh(0.7))
    assert norm(np.cos(x @ gamma) - 1) <= cosine


def test_odd_powers_have_no_bound():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    norms = [np.sqrt(n / 2) * lz.complexity(KERNEL(x[:n]), x[:n, 0] ** 3) for n in (100, 400)]
    # The norm grows with the number of examples.
    assert norms[1] > 1.5 * norms[0]
    with pytest.raises(ValueError, match=r"^each power in terms must be 1 or a positive even integer, got 3"):
        power_bound([(1.0, 1.0, 3)])
    for power in (0, -2):
        with pytest.raises(ValueError, match=r"^each power in terms must be a positive integer"):
            power_bound([(1.0, 1.0, power)])
    with pytest.raises(ValueError, match=r"^each norm in terms must be "):
        power_bound([(1.0, -1.0, 1)])
    assert power_bound([(1.0, 1e200, 2)]) == np.inf
    # Terms are in range although their factors are not.
    assert power_bound([(0.0, 1e10, 1000), (1.0, 1.0, 1)]) == 3.0
    assert power_bound([(1e308, 1e-300, 2)]) == pytest.approx(6e-292)
    assert power_bound([(1e308, 0.1, 1)]) == pytest.approx(3e307)
    for bound in (lambda d: concentration_bound(np.eye(2), 3, d), lambda d: rademacher_bound(1, 1, 1.0, 1.0, delta=d)):
        with pytest.raises(ValueError, match=r"^delta "):
            bound(1.5)


def test_bounds_at_the_ends_of_the_range():
    with pytest.raises(ValueError, match=r"^residual_norm must not be negative"):
        neuron_movement_bound(100, 100, -10.0, 0.5)
    np.testing.assert_array_equal(neuron_movement_bound(100, 100, np.array([np.nan, 1.0]), 0.0), [np.nan, np.inf])
    # Twice the reciprocal of such a delta overflows.
    assert concentration_bound(np.eye(2), 3, 1e-320) == pytest.approx(
        np.sqrt(2 * (np.log(6) + 320 * np.log(10)) / 6), 1e-4
    )
    assert np.isfinite(
        [rademacher_bound(10, 10, 1.0, 1.0, delta=1e-320), generalization_bound(0.0, 0.1, 10, 1e-320)]
    ).all()
    assert concentration_bound(1e-200 * np.eye(3), 10) == pytest.approx(1e-200 * concentration_bound(np.eye(3), 10))
    assert population_bound(0.0, 10, 1e100, 1e-200) == np.inf
    assert population_bound(0.0, 10, 1.0, width=10, radius=1.0, init_scale=5e-324) == np.inf
