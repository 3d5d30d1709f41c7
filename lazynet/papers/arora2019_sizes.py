"""How much of Arora et al. 2019 is computed at each size."""

from typing import NamedTuple

from lazynet.papers import arora2019_functions as functions
from lazynet.papers import du2018
from lazynet.papers.arora2019_published import PAPER_N, PAPER_NETWORKS
from lazynet.plan import Job, eigenvectors_bytes, eigenvectors_flops


class Networks(NamedTuple):
    """Networks on n images."""

    n: int
    widths: tuple[int, ...]
    seeds: int
    steps: int


class Size(NamedTuple):
    """How much is computed."""

    datasets: tuple[str, ...]
    curves: Networks  # of Figure 1
    speed: Networks  # of Theorem 4.1
    many: Networks  # of more images
    modes: Networks  # beside the kernel, mode by mode
    scales: Networks  # at each of KAPPAS
    noisy: Networks  # at each of PORTIONS, each seed on a draw of its own
    n_kernel: int  # of the kernel limit
    n_test: int
    draws: int  # of label noise
    functions: functions.Size
    du2018: du2018.Size


SMALL = Size(
    datasets=("mnist", "cifar10"),
    curves=Networks(128, (10_000,), 3, 500),
    speed=Networks(32, (1024, 4096, 16384, 65536), 8, 500),
    many=Networks(256, (1024, 4096), 2, 500),
    modes=Networks(32, (1024, 4096, 16384), 3, 500),
    scales=Networks(32, (1024, 4096, 16384), 2, 500),
    noisy=Networks(128, (2048,), 5, 500),
    n_kernel=2000,
    n_test=1000,
    draws=5,
    functions=functions.Size((250, 500, 1000, 2000, 4000), (3, 5, 10), samples=3, width=4096, steps=1000),
    du2018=du2018.Size(1000, (500, 1000, 2000, 4000)),
)
SIZES = {
    "tiny": Size(
        datasets=("digits",),
        curves=Networks(8, (1024,), 4, 100),
        speed=Networks(8, (1024, 4096, 16384), 4, 100),
        many=Networks(32, (256, 1024), 2, 100),
        modes=Networks(8, (256, 4096), 2, 100),
        scales=Networks(8, (1024, 4096), 4, 100),
        noisy=Networks(32, (512,), 2, 100),
        n_kernel=240,
        n_test=100,
        draws=2,
        functions=functions.Size((125, 250, 500), (3,), samples=2, width=1024, steps=200),
        du2018=du2018.Size(100, (128, 1024)),
    ),
    "small": SMALL,
    "paper": SMALL._replace(
        curves=Networks(128, (10_000,), 8, 1000),
        speed=SMALL.speed._replace(steps=1000),
        n_kernel=PAPER_N,
        n_test=2000,
        functions=SMALL.functions._replace(samples=5),
        du2018=du2018.Size(1000, (500, 1000, 2000, 4000, 8000)),
    ),
}


def jobs(size: str) -> list[Job]:
    """What a size takes; the networks of the paper itself stand beside it at the paper's size."""
    chosen = SIZES[size]
    n, sets = chosen.n_kernel, len(chosen.datasets)
    kernels = Job(
        f"Kernels of {n} images",
        {"kernel": 8 * n**2, "eigenvectors": eigenvectors_bytes(n)},
        {"eigenvectors": sets * eigenvectors_flops(n), "inverse": sets * n**3 / 3},
    )
    # Pre-activations of n images cost 2 n^2 m a step.
    trained = {
        "curves": 6 * sets * _steps(chosen.curves),
        "speed": 3 * sets * _steps(chosen.speed),
        "more images": sets * _steps(chosen.many),
        "modes": 2 * sets * _steps(chosen.modes),
        "scales": 3 * sets * _steps(chosen.scales),
        "noise": 11 * sets * _steps(chosen.noisy),
        "Du et al. 2018": 4.0 * chosen.du2018.n**2 * sum(chosen.du2018.widths) * du2018.EPOCHS,
    }
    powers = chosen.functions
    cubes = sum(points**3 / 3 for points in powers.n)
    norms = Job(
        "Functions on the sphere",
        {"kernel": 3 * 8 * powers.n[-1] ** 2},
        {"inverse": powers.samples * len(powers.dims) * cubes},
    )
    widest = [part.n * max(part.widths) for part in (chosen.curves, chosen.speed, chosen.many)]
    states = 3 * 4 * max(chosen.du2018.n * max(chosen.du2018.widths), *widest)
    found = [Job("Networks", {"state of one": states}, trained), kernels, norms]
    if size == "paper":
        steps = {name: 3 * 4.0 * PAPER_N**2 * d * steps for name, (d, steps) in PAPER_NETWORKS.items()}
        found.append(Job("Not done: the paper's own networks, which ask for an accelerator", {}, steps))
    return found


def _steps(networks: Networks) -> float:
    n, widths, seeds, steps = networks
    return 2.0 * n**2 * sum(widths) * seeds * steps
