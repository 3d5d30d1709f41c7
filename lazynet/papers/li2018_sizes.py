"""How much of Li and Liang 2018 is computed at each size, and at which settings."""

from typing import NamedTuple

from lazynet.plan import Job

# In the paper's scale eta is 10 / m and 4000 / m, of weights that start as N(0, I / m).
ETA, BATCH = 10.0, 16
IMAGES_ETA, IMAGES_BATCH = 4000.0, 64
# Of the rate of a large product: batches are narrow, and wide networks are larger than a cache.
SHARE = 1 / 3


class Mixture(NamedTuple):
    """Data of k classes with l components, as `lazynet.mixture` draws them."""

    n: int
    dim: int
    classes: int
    components: int


class Networks(NamedTuple):
    """Networks, and for how long they are trained."""

    widths: tuple[int, ...]
    seeds: int
    steps: int


class Images(NamedTuple):
    """Images of ten classes, of which measures look at some."""

    name: str
    n: int
    measured: int
    n_test: int


class Size(NamedTuple):
    """How much is computed."""

    data: Mixture
    networks: Networks  # of Figure 1
    early: int  # steps after which accuracy is looked at, each of them
    wide: int  # from this width on levels are claimed
    varied: Networks  # on other data
    variances: tuple[float, ...]
    structures: tuple[tuple[int, int], ...]  # k and l
    memorized: int  # examples with random labels
    images: Images
    on_images: Networks  # of Figure 2


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
        data=Mixture(200, 200, 3, 2),
        networks=Networks((500, 4000), 3, 100),
        early=12,
        wide=1000,
        varied=Networks((1000,), 2, 100),
        variances=(0.0, 4.0),
        structures=((3, 1), (3, 4)),
        memorized=60,
        images=Images("digits", 1000, 200, 400),
        on_images=Networks((1000, 16_000), 3, 100),
    ),
    "small": SMALL,
    "paper": SMALL._replace(
        networks=Networks((500, 1000, 2000, 4000, 8000, 16_000, 32_000), 5, 400),
        images=SMALL.images._replace(n_test=10_000),
        on_images=Networks((1000, 2000, 4000, 8000, 16_000, 32_000), 5, 20_000),
    ),
}


def jobs(size: str) -> list[Job]:
    """What a size takes."""
    chosen = SIZES[size]
    data, images = chosen.data, chosen.images
    mixture, varied = _steps(chosen.networks, BATCH, data.dim), _steps(chosen.varied, BATCH, data.dim)
    synthetic = {
        "training": 2 * mixture,
        "accuracy at every step": 2.0 * data.n * data.dim * chosen.early * _units(chosen.networks),
        "singular values": 2 * 4.0 * data.dim**2 * sum(chosen.networks.widths),
        "other data": (len(chosen.variances) + len(chosen.structures) + 6) * varied,
    }
    features = 784 if images.name == "mnist" else 64
    widest = 4 * max(max(chosen.networks.widths) * data.dim, max(chosen.on_images.widths) * features)
    trained = {"training": _steps(chosen.on_images, IMAGES_BATCH, features)}
    return [
        Job("Mixtures", {"weights, their gradient and the start": 3 * widest}, synthetic, SHARE),
        Job(images.name, {"images": 12 * images.n * features}, trained, SHARE),
    ]


def _units(networks: Networks) -> float:
    return float(sum(networks.widths) * networks.seeds)


def _steps(networks: Networks, batch: int, features: int) -> float:
    """Forward and backward, as many operations each."""
    return 4.0 * batch * features * networks.steps * _units(networks)
