"""Available sizes of the reproduction of Arora et al. 2019, and their costs."""

from typing import NamedTuple

from lazynet.papers import arora2019_functions as functions
from lazynet.papers import du2018
from lazynet.papers.arora2019_published import PAPER_N, PAPER_NETWORKS
from lazynet.plan import Job, eigenvectors_bytes, eigenvectors_flops


class Networks(NamedTuple):
    """Settings for networks trained on n images: the widths, the number of seeds and the number of training steps."""

    n: int
    widths: tuple[int, ...]
    seeds: int
    steps: int


class Size(NamedTuple):
    """Settings that determine the size of the reproduction.

    Attributes:
        datasets: Names of the data sets.
        curves: Networks for Figure 1.
        speed: Networks for Theorem 4.1.
        many: Networks for Theorem 4.1 that are trained on more images than the `speed` networks.
        modes: Networks that are compared with the kernel mode by mode.
        scales: Networks trained at each initial scale kappa.
        noisy: Networks trained with each fraction of random labels; each seed has its own draw of the labels.
        n_kernel: Number of training images for the infinite-width kernel.
        n_test: Number of test images for the infinite-width kernel.
        draws: Number of draws of label noise.
        functions: Size of the computation for section 6.
        du2018: Size of the reproduction of Du et al. 2018.
    """

    datasets: tuple[str, ...]
    curves: Networks
    speed: Networks
    many: Networks
    modes: Networks
    scales: Networks
    noisy: Networks
    n_kernel: int
    n_test: int
    draws: int
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
        curves=Networks(8, (512,), 4, 100),
        speed=Networks(8, (1024, 16384), 4, 100),
        many=Networks(32, (128, 512), 2, 100),
        modes=Networks(8, (256, 2048), 2, 100),
        scales=Networks(8, (512, 4096), 4, 100),
        noisy=Networks(32, (512,), 2, 100),
        n_kernel=240,
        n_test=100,
        draws=2,
        functions=functions.Size((125, 250, 500), (3,), samples=2, width=512, steps=200),
        du2018=du2018.Size(100, (64, 1024)),
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
    """Return the jobs of a reproduction of the given size, with the memory and the number of operations they need.

    If the size is "paper", the list also includes the paper's own networks, although they are not trained.
    """
    settings = SIZES[size]
    n, sets = settings.n_kernel, len(settings.datasets)
    kernels = Job(
        f"Kernels of {n} images",
        {"kernel": 8 * n**2, "eigenvectors": eigenvectors_bytes(n)},
        {"eigenvectors": sets * eigenvectors_flops(n), "inverse": sets * n**3 / 3},
    )
    # A training step carried out on the pre-activations of n images at width m takes 2 n^2 m operations.
    trained = {
        "curves": 6 * sets * _steps(settings.curves),
        "speed": 3 * sets * _steps(settings.speed),
        "more images": sets * _steps(settings.many),
        "modes": 2 * sets * _steps(settings.modes),
        "scales": 3 * sets * _steps(settings.scales),
        "noise": 11 * sets * _steps(settings.noisy),
        "Du et al. 2018": 4.0 * settings.du2018.n**2 * sum(settings.du2018.widths) * du2018.EPOCHS,
    }
    powers = settings.functions
    cubes = sum(points**3 / 3 for points in powers.n)
    norms = Job(
        "Functions on the sphere",
        {"kernel": 3 * 8 * powers.n[-1] ** 2},
        {"inverse": powers.samples * len(powers.dims) * cubes},
    )
    widest = [part.n * max(part.widths) for part in (settings.curves, settings.speed, settings.many)]
    states = 3 * 4 * max(settings.du2018.n * max(settings.du2018.widths), *widest)
    all_jobs = [Job("Networks", {"state of a network": states}, trained), kernels, norms]
    if size == "paper":
        steps = {name: 3 * 4.0 * PAPER_N**2 * d * steps for name, (d, steps) in PAPER_NETWORKS.items()}
        all_jobs.append(Job("Not done: the paper's own networks, which need an accelerator", {}, steps))
    return all_jobs


def _steps(networks: Networks) -> float:
    n, widths, seeds, steps = networks
    return 2.0 * n**2 * sum(widths) * seeds * steps
