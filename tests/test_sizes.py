"""Work that does not fit in memory and absurd numbers are refused with a clear message before any work starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lazynet as lz

DATA = lz.load_dataset("digits", n_train=16, n_test=4)
NETWORK = lz.TwoLayer(width=8)
KEY = jax.random.key(0)
# A kernel of this many rows takes 8 TB.
ROWS = 10**6


@pytest.fixture(scope="module")
def many():
    x = np.linspace(1.0, 2.0, ROWS)[:, None]
    return lz.Dataset(x, np.where(x[:, 0] > 1.5, 1.0, -1.0))


NUMBERS = {
    "seeds": (
        lambda out: lz.sweep(NETWORK, DATA, [8, 16], 10**9, 3),
        "^seeds must be at most 1000000, got 1000000000",
    ),
    "snapshots": (
        lambda out: lz.sweep(NETWORK, DATA, [8, 16], 2, 3, snapshots=10**9),
        "^snapshots must be at most 1000000, got 1000000000",
    ),
    "snapshots of a run": (
        lambda out: lz.train(NETWORK, DATA, KEY, 3, snapshots=10**9),
        "^snapshots must be at most 1000000, got 1000000000",
    ),
    "snapshots of the limit": (
        lambda out: lz.infinite_width(NETWORK, DATA, steps=10**9, snapshots=10**9),
        "^snapshots must be at most 1000000, got 1000000000",
    ),
    "shard": (
        lambda out: lz.sweep(NETWORK, DATA, [8, 16], 2, 3, out=lz.RunFolder(out, shard=(1, 10**10))),
        "^shard must be k/N with 1 <= k <= N <= 1000000, got 1/10000000000",
    ),
    "axes": (
        lambda out: lz.sweep(
            NETWORK,
            DATA,
            [8, 16],
            2,
            3,
            axes={
                "learning_rate": np.geomspace(1e-3, 1e-2, 1100).tolist(),
                "init_scale": np.linspace(1, 2, 1000).tolist(),
            },
        ),
        "^axes must span at most 1000000 points, got 1100000",
    ),
    "result": (
        lambda out: lz.sweep(NETWORK, DATA, range(2, 202, 2), 10**5, 10**6, snapshots=10**6),
        "^The result for 10000000 networks needs .* GB of memory",
    ),
    "sphere": (
        lambda out: lz.sphere(10**9, 100, 10**4, KEY),
        "^Sampling 1000000100 points with 10000 features needs .* GB of memory",
    ),
    "gaussian_mixture": (
        lambda out: lz.gaussian_mixture(10**9, 100, 10**4, KEY),
        "^Sampling 1000000102 points with 10000 features needs .* GB of memory",
    ),
    "mixture": (lambda out: lz.mixture(10**9, 100, 10**4, KEY), "^Sampling 1000000100 points .* GB of memory"),
    "centers": (lambda out: lz.mixture(10**9, 1, 10**4, KEY, classes=10**8), "^Sampling 200000000 points .* GB of"),
    "xor": (lambda out: lz.xor(10**13, 1, KEY), "^Sampling 10000000000001 points with 2 features needs .* GB of"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_nobody_can_mean(name, tmp_path):
    call, message = NUMBERS[name]
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "run")
    assert not any(tmp_path.iterdir())


def from_flax():
    from flax import linen as nn

    class Layers(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(jnp.tanh(nn.Dense(self.width)(x)))

    return lz.from_flax(Layers).clone(width=4)


@pytest.mark.parametrize("options", [{}, {"memory": 10**9}, {"outputs": "all"}, {"parts": True}], ids=str)
@pytest.mark.parametrize("network", [NETWORK, from_flax()], ids=["two layers", "flax"])
def test_an_empirical_kernel_counts_its_result(many, network, options):
    x = many.x_train.astype(np.float32)
    variables = network.init(KEY, x[:1])
    with pytest.raises(ValueError, match=r"^The empirical kernel needs \d+.\d+ GB of memory, but only"):
        lz.empirical_ntk(network, variables, x, **options)


@pytest.mark.slow
def test_every_pair_of_outputs_and_every_array_has_a_kernel_that_is_counted(monkeypatch):
    """A kernel of 100 rows takes 80 kB; kernels for 9 pairs of outputs and 4 arrays take 36 times as much."""
    from flax import linen as nn

    from lazynet.kernels import _blockwise as blockwise

    network = nn.Sequential([nn.Dense(4), jnp.tanh, nn.Dense(3)])
    x = jnp.ones((100, 2))
    variables = network.init(KEY, x)
    seen = []
    monkeypatch.setattr(blockwise, "check_memory", lambda name, needed: seen.append(needed))
    whole = lz.empirical_ntk(network, variables, x)
    parts = lz.empirical_ntk(network, variables, x, outputs="all", parts=True)
    assert seen == [whole.nbytes, sum(part.nbytes for part in parts.values())]
    assert seen == [80_000, 36 * 80_000]


def test_other_kernels_of_many_rows(many):
    with pytest.raises(ValueError, match=r"^The mean kernel needs 52000.00 GB of memory, but only"):
        lz.monte_carlo_kernel(NETWORK, many.x_train, starts=2)
    with pytest.raises(ValueError, match=r"^Measuring the kernel drift on 1000000 training examples needs 8000.00 GB"):
        lz.train(NETWORK, many, KEY, 2, learning_rate=1e-6)
    with pytest.raises(ValueError, match=r"needs \d+.\d+ GB of memory, but only"):
        lz.sweep(NETWORK, many, [8, 16], 1, 2)
    with pytest.raises(ValueError, match=r"needs \d+.\d+ GB of memory, but only"):
        lz.analytic_kernel(NETWORK)(many.x_train)
