"""Available sizes of the reproduction of Li and Liang 2018, with their settings and costs."""

from typing import NamedTuple

from lazynet.plan import Job

# The learning rates ETA and IMAGES_ETA correspond to 10 / m and 4000 / m in the paper, which draws the initial weights
# from N(0, I / m).
ETA, BATCH = 10.0, 16
IMAGES_ETA, IMAGES_BATCH = 4000.0, 64
# Speed of training relative to the speed of a large matrix product. It is low because batches are small and wide
# networks do not fit in the cache.
SHARE = 1 / 3


class Mixture(NamedTuple):
    """Parameters of a `lazynet.mixture` that has k classes with l components each."""

    n: int
    dim: int
    classes: int
    components: int


class Networks(NamedTuple):
    """The widths of the networks, the number of seeds, and the number of training steps."""

    widths: tuple[int, ...]
    seeds: int
    steps: int


class Images(NamedTuple):
    """A data set with ten classes of images, and the numbers of images for training, measurements and testing."""

    name: str
    n: int
    measured: int
    n_test: int


class Size(NamedTuple):
    """Settings that determine the size of the reproduction.

    Attributes:
        data: Parameters of the mixture.
        networks: Networks for Figure 1.
        early: Length, in steps, of the initial phase of training in which the accuracy is measured at every step.
        wide: Smallest width at which the coupling and the relative distance are claimed to be small.
        varied: Networks trained on variations of the data.
        variances: Noise levels sigma of the components.
        structures: Pairs (k, l), where k is the number of classes and l is the number of components per class.
        memorized: Number of examples with random labels.
        images: Images for Figure 2.
        on_images: Networks for Figure 2.
    """

    data: Mixture
    networks: Networks
    early: int
    wide: int
    varied: Networks
    variances: tuple[float, ...]
    structures: tuple[tuple[int, int], ...]
    memorized: int
    images: Images
    on_images: Networks


SMALL = Size(
    data=Mixture(1000, 1000, 10, 2),
    networks=Networks((500, 1000, 2000, 4000, 8000), 3, 400),
    early=30,
    wide=1000,
    varied=Networks((1000,), 2, 200),
    variances=(0.0, 1.0, 2.0, 4.0, 8.0),
    structures=((2, 2), (5, 2), (10, 1), (10, 2), (10, 4), (10, 8), (20, 2)),
    memorized=200,
    images=Images("mnist", 60_000, 1000, 2000),
    on_images=Networks((500, 1000, 2000, 4000), 3, 1000),
)
SIZES = {
    "tiny": Size(
        data=Mixture(384, 100, 3, 2),
        networks=Networks((500, 4000), 2, 100),
        early=12,
        wide=1000,
        varied=Networks((500,), 2, 24),
        variances=(0.0, 5.0),
        structures=((3, 1), (3, 4)),
        memorized=32,
        images=Images("digits", 1000, 100, 400),
        on_images=Networks((1000, 8000), 2, 60),
    ),
    "small": SMALL,
    "paper": SMALL._replace(
        networks=Networks((500, 1000, 2000, 4000, 8000, 16_000, 32_000), 5, 400),
        images=SMALL.images._replace(n_test=10_000),
        on_images=Networks((1000, 2000, 4000, 8000, 16_000, 32_000), 5, 20_000),
    ),
}


def jobs(size: str) -> list[Job]:
    """Return the jobs of a reproduction of the given size, with the memory and the number of operations they need."""
    settings = SIZES[size]
    data, images = settings.data, settings.images
    mixture, varied = _steps(settings.networks, BATCH, data.dim), _steps(settings.varied, BATCH, data.dim)
    synthetic = {
        "training": 2 * mixture,
        "accuracy at every step": 2.0 * data.n * data.dim * settings.early * _units(settings.networks),
        "singular values": 2 * 4.0 * data.dim**2 * sum(settings.networks.widths),
        "other data": (len(settings.variances) + len(settings.structures) + 6) * varied,
    }
    features = 784 if images.name == "mnist" else 64
    widest = 4 * max(max(settings.networks.widths) * data.dim, max(settings.on_images.widths) * features)
    trained = {"training": _steps(settings.on_images, IMAGES_BATCH, features)}
    return [
        Job("Mixtures", {"weights, gradient and initial weights": 3 * widest}, synthetic, SHARE),
        Job(images.name, {"images": 12 * images.n * features}, trained, SHARE),
    ]


def _units(networks: Networks) -> float:
    return float(sum(networks.widths) * networks.seeds)


def _steps(networks: Networks, batch: int, features: int) -> float:
    """Return the number of operations in training, half of them in forward passes and half in backward passes."""
    return 4.0 * batch * features * networks.steps * _units(networks)
