"""Li and Liang 2018: Learning Overparameterized Neural Networks via SGD on Structured Data (arXiv 1808.01204).

The hidden layer of a two-layer ReLU network is trained by SGD with a learning rate eta ~ 1 / m on the softmax
cross-entropy. The network learns a mixture of separated components in a number of steps that does not depend on the
width m (Theorem 4.1), because most activation patterns do not change (Lemma 5.1, the coupling). The relative movement
and the fraction of changed patterns decrease as m^(-1/2). The weight update has the same rank as the data: k l for k
classes with l components each.
"""

from collections.abc import Iterator

import numpy as np

import lazynet as lz
from lazynet.execution import Arrays
from lazynet.measures import effective_rank, leading_values
from lazynet.papers import li2018_figures as figures
from lazynet.papers import li2018_structure
from lazynet.papers.claims import Claim, Reproduction, exponent, fit_width
from lazynet.papers.li2018_setting import (
    LEARNED,
    LEVEL,
    MEASURED,
    MOVED,
    NETWORK,
    SGD,
    drawn,
    evenly,
    first_step,
    spectra,
)
from lazynet.papers.li2018_sizes import IMAGES_BATCH, IMAGES_ETA, SIZES, Mixture, Size, jobs
from lazynet.papers.work import Work
from lazynet.typing import Result

__all__ = ["SIZES", "jobs", "reproduce"]

# Maximum allowed deviations of an exponent from -1/2, for mixtures and for images.
BAND, IMAGES_BAND = 0.05, 0.06
SNAPSHOTS = 10
IMAGES_SGD = SGD | {"learning_rate": IMAGES_ETA, "batch_size": IMAGES_BATCH}


def reproduce(size: str, work: Work | None = None) -> Reproduction:
    """Compute the figures of Li and Liang 2018 and check the paper's claims.

    Args:
        size: Name of a size in SIZES.
        work: Storage for the parts of the reproduction. By default, the parts are kept in memory.
    """
    settings, work, reproduction = SIZES[size], work or Work("li2018", size), Reproduction()
    # Load the images first, so that a missing data set raises an error before any work is done.
    images = lz.load_dataset(settings.images.name, tuple(range(10)), settings.images.n, settings.images.n_test)
    clusters(settings, work, reproduction)
    li2018_structure.add_to(reproduction, work, settings)
    ten_classes(images, settings, work, reproduction)
    return reproduction


def clusters(size: Size, work: Work, reproduction: Reproduction) -> None:
    """Add the results for a mixture of components: Figure 1, Theorem 4.1 and the claims of section 7."""
    data, (widths, seeds, steps) = drawn(size.data), size.networks
    network, place = NETWORK.clone(outputs=size.data.classes), "Figure 1"

    def sweep(name: str, steps: int, snapshots: range) -> Result:
        measure = lz.Measure(predictions=False, rows=MEASURED)
        return work.sweep(name, network, data, widths, seeds, steps, snapshots=snapshots, measure=measure, **SGD)

    result = sweep("mixture", steps, evenly(steps, SNAPSHOTS))
    early = sweep("mixture-early", size.early, range(size.early + 1))
    wide = [width for width in widths if width >= size.wide]
    values = {
        kind: spectra(work, f"spectra-{kind}", drawn(size.data, unit=kind == "unit"), wide, count, steps)
        for kind, count in (("unit", seeds), ("raw", 1))
    }
    reproduction.claims += [
        *learned(place, result, early),
        *slopes(place, result, MOVED, BAND),
        *levels(place, result.sel(width=wide)),
        *rank(place, size.data, values),
        verdict("the mixture", result, "lazy"),
    ]
    reproduction.numbers["mixture"] = ends(result) | {
        "steps to 99%": first_step(early.test_error).transpose("width", "seed").values,
        "effective rank": {kind: ranks(values[kind]) for kind in values},
    }
    reproduction.figures["mixture"] = figures.draw_mixture(result, early, size.data, values)


def ends(result: Result) -> dict[str, np.ndarray]:
    """Return the measurements after the last step at each width, averaged over seeds."""
    variables = {**MOVED, "kernel drift": "kernel_drift", "test error": "test_error"}
    means = {name: result[variable].isel(step=-1).mean("seed").values for name, variable in variables.items()}
    return {"widths": result.width.values, **means}


def learned(place: str, result: Result, early: Result) -> Iterator[Claim]:
    """Yield the claims of Theorem 4.1: networks of all widths learn the data in about the same number of steps."""
    end = 1 - result.test_error.isel(step=-1)
    yield Claim(f"{place} (a)", "lowest test accuracy at the end", float(end.min(skipna=False)), ">=", LEARNED)
    needed = first_step(early.test_error).mean("seed", skipna=False)
    note = f"{listed(needed.values)} by width"
    spread = float(needed.max(skipna=False) / needed.min(skipna=False))
    yield Claim(
        f"{place} (a)", "steps to 99% test accuracy, largest over smallest of the widths", spread, "<=", 1.5, note
    )
    slope = abs(float(np.polyfit(np.log(needed.width.values), np.log(needed.values), 1)[0]))
    yield Claim(f"{place} (a)", "absolute exponent of these steps in the width", slope, "<=", 0.15)


def slopes(place: str, result: Result, moved: dict[str, str], band: float) -> Iterator[Claim]:
    """Yield the claims of sections 5 and 6: the fraction of changed patterns and the movement decrease as m^(-1/2)."""
    for name, variable in moved.items():
        end = result[variable].isel(step=-1)
        # If any network diverged, no exponent is fitted, because the other networks are not a random sample.
        fit = fit_width(end.where(end.notnull().all()))
        off, note = abs(fit.exponent + 0.5), f"{fit.exponent:.3f} in [{fit.low:.3f}, {fit.high:.3f}]"
        yield Claim(f"{place}, {name}", "distance of the width exponent from -1/2", off, "<=", band, note)


def levels(place: str, wide: Result) -> Iterator[Claim]:
    """Yield the claims of section 7: the coupling and the relative distance are small."""
    for name, variable in MOVED.items():
        most = float(wide[variable].isel(step=-1).mean("seed", skipna=False).max(skipna=False))
        note = f"from width {int(wide.width[0])} on"
        yield Claim(f"{place}, {name}", "largest of the widths at the end", most, "<=", LEVEL, note)


def verdict(place: str, result: Result, expected: str) -> Claim:
    """Return the claim that the networks receive the expected verdict.

    Networks are lazy if the coupling and the relative distance scale with exponents of about -1/2 and are small at the
    largest width. They are not lazy if either quantity is large at that width. In all other cases, or if any network
    diverged, the verdict is undecided.

    Args:
        place: Description of the data.
        result: Result of the sweep.
        expected: Expected verdict, "lazy" or "not lazy".
    """
    ends = {name: result[variable].isel(step=-1) for name, variable in MOVED.items()}
    widest = {name: float(end.mean("seed", skipna=False)[-1]) for name, end in ends.items()}
    fits = {name: exponent(end) for name, end in ends.items()}
    large = [f"{name} is above {LEVEL:g}" for name, level in widest.items() if level > LEVEL]
    other = [f"the slope of {name} is not -1/2" for name, slope in fits.items() if not abs(slope + 0.5) <= 0.1]
    finite = all(bool(end.notnull().all()) for end in ends.values())
    answer = "undecided" if not finite else "not lazy" if large else "undecided" if other else "lazy"
    numbers = ", ".join(f"{name} {widest[name]:.3g} ~ m^{fits[name]:.2f}" for name in ends)
    reasons = "; ".join(["", *large, *other] if finite else ["", "networks diverged"])
    note = f"{answer} at width {int(result.width[-1])}: {numbers}{reasons}"
    statement = f"1 if slopes and levels say {expected}, else 0"
    return Claim(f"Verdict, {place}", statement, float(answer == expected), ">=", 1.0, note)


def rank(place: str, data: Mixture, values: dict[str, Arrays]) -> Iterator[Claim]:
    """Yield the claims of section 6: the update has the same rank as the data, k * l, but the weights do not."""
    count = data.classes * data.components
    drops = {
        (kind, part): values[kind][part][..., count - 1] / values[kind][part][..., count]
        for kind in values
        for part in ("update", "weights")
    }
    unit, raw = (listed(drops[kind, "update"].min(axis=1)) for kind in ("unit", "raw"))
    note = f"smallest of the seeds by width {unit}; for raw inputs {raw}"
    least, most = float(drops["unit", "update"].min()), float(drops["unit", "weights"].max())
    statement = f"drop of singular values from {count} to {count + 1}"
    yield Claim(f"{place} (d), update", f"smallest {statement}", least, ">=", 40.0, note)
    yield Claim(f"{place} (d), weights", f"largest {statement}", most, "<=", 1.2)
    update = values["unit"]["update"]
    off = max(abs(leading_values(member) - count) for member in update.reshape(-1, update.shape[-1]))
    yield Claim(
        f"{place} (d), update", f"distance of the number of leading singular values from k l = {count}", off, "<=", 0
    )


def listed(values: np.ndarray) -> str:
    """Format numbers as a comma-separated list."""
    return ", ".join(f"{value:.1f}" for value in values)


def ranks(values: Arrays) -> dict[str, list[float]]:
    """Return the effective ranks of the update and of the weights at each width, for seed 0."""
    return {part: [effective_rank(seeds[0]) for seeds in values[part]] for part in ("update", "weights")}


def ten_classes(data: lz.Dataset, size: Size, work: Work, reproduction: Reproduction) -> None:
    """Add Figure 2: for images of ten classes, the trends are the same as for mixtures, but the values are larger."""
    (widths, seeds, steps), name = size.on_images, size.images.name
    network, place = NETWORK.clone(outputs=10), f"Figure 2, {name}"
    # Snapshots are denser at the beginning, because most of the movement happens in the first steps.
    snapshots = [*evenly(steps, SNAPSHOTS), *(2**i for i in range(10) if 2**i < steps)]
    measure = lz.Measure(predictions=False, rows=size.images.measured)
    result = work.sweep(name, network, data, widths, seeds, steps, snapshots=snapshots, measure=measure, **IMAGES_SGD)
    shown = [width for width in widths if width <= 4000][-1:]
    values = spectra(work, f"spectra-{name}", data, shown, 1, steps, IMAGES_SGD)
    accuracy = 1 - result.test_error.isel(step=-1).mean("seed", skipna=False)
    distance = {"relative distance": MOVED["relative distance"]}
    reproduction.claims += [
        Claim(f"{place} (a)", "lowest test accuracy over widths", float(accuracy.min(skipna=False)), ">=", 0.9),
        Claim(
            f"{place} (a)",
            "highest minus lowest test accuracy over widths",
            float(accuracy.max(skipna=False) - accuracy.min(skipna=False)),
            "<=",
            0.03,
        ),
        *slopes(place, result, distance, IMAGES_BAND),
        verdict(f"{name} at eta = {IMAGES_ETA:g} / m", result, "not lazy"),
    ]
    reproduction.numbers[name] = ends(result) | {
        "exponent of coupling": exponent(result.activation_flips.isel(step=-1)),
        "effective rank": ranks(values),
    }
    reproduction.figures[name] = figures.draw_images(name, result, values)
