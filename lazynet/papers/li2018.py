"""Li and Liang 2018: Learning Overparameterized Neural Networks via SGD on Structured Data (arXiv 1808.01204).

A two-layer relu network with softmax cross-entropy, its hidden layer trained by SGD with eta ~ 1 / m, learns a mixture
of separated components in a number of steps that does not depend on its width m (Theorem 4.1), because most patterns
stay those of the start (Lemma 5.1, the coupling): movement over the start and the share of patterns that change fall
like m^(-1/2), and what training adds to the weights has the rank of the data, k classes times l components.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

import lazynet as lz
from lazynet.measures import effective_rank, leading_values
from lazynet.papers import li2018_figures as figures
from lazynet.papers import li2018_structure
from lazynet.papers.claims import Claim, Reproduction, exponent, fitted
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
    spectra_of,
)
from lazynet.papers.li2018_sizes import IMAGES_BATCH, IMAGES_ETA, SIZES, Mixture, Size, jobs
from lazynet.papers.work import Arrays, Work
from lazynet.typing import Result

__all__ = ["SIZES", "jobs", "reproduce"]

BAND, IMAGES_BAND = 0.05, 0.06  # of their exponents around -1/2
SNAPSHOTS = 10
IMAGES_SGD = SGD | {"learning_rate": IMAGES_ETA, "batch_size": IMAGES_BATCH}


def reproduce(size: str, work: Work | None = None) -> Reproduction:
    """Compute figures and claims at one of SIZES; `work` keeps what has been computed."""
    chosen, work, found = SIZES[size], work or Work("li2018", size), Reproduction()
    # What is missing is missed before work starts.
    images = lz.load_dataset(chosen.images.name, tuple(range(10)), chosen.images.n, chosen.images.n_test)
    clusters(chosen, work, found)
    li2018_structure.add_to(found, work, chosen)
    ten_classes(images, chosen, work, found)
    return found


def clusters(size: Size, work: Work, found: Reproduction) -> None:
    """Figure 1, Theorem 4.1 and the claims of section 7 on a mixture."""
    data, (widths, seeds, steps) = drawn(size.data), size.networks
    network, place = NETWORK.clone(outputs=size.data.classes), "Figure 1"

    def sweep(name: str, steps: int, snapshots: range) -> Result:
        # The same for both, so that they share compiled programs.
        more = {"snapshots": snapshots, "measured": MEASURED, "compare": False}
        return work.sweep(name, network, data, widths, seeds, steps, **more, **SGD)

    result = sweep("mixture", steps, evenly(steps, SNAPSHOTS))
    early = sweep("mixture-early", size.early, range(size.early + 1))
    wide = [width for width in widths if width >= size.wide]
    spectra = {
        kind: work.arrays(
            f"spectra-{kind}", partial(spectra_of, drawn(size.data, unit=kind == "unit"), wide, count, steps)
        )
        for kind, count in (("unit", seeds), ("raw", 1))
    }
    found.claims += [
        *learned(place, result, early),
        *slopes(place, result, MOVED, BAND),
        *levels(place, result.sel(width=wide)),
        *rank(place, size.data, spectra),
        verdict("the mixture", result, "lazy"),
    ]
    found.numbers["mixture"] = ends(result) | {
        "steps to 99%": first_step(early.test_error).transpose("width", "seed").values,
        "effective rank": {kind: ranks(one) for kind, one in spectra.items()},
    }
    found.figures["mixture"] = figures.draw_mixture(result, early, size.data, spectra)


def ends(result: Result) -> dict[str, np.ndarray]:
    """What is measured after the last step, as means over seeds, by width."""
    variables = {**MOVED, "kernel drift": "kernel_drift", "test error": "test_error"}
    means = {name: result[variable].isel(step=-1).mean("seed").values for name, variable in variables.items()}
    return {"widths": result.width.values, **means}


def learned(place: str, result: Result, early: Result) -> Iterator[Claim]:
    """Theorem 4.1: everything is learned, and in as many steps at every width."""
    end = 1 - result.test_error.isel(step=-1)
    yield Claim(f"{place} (a)", "least test accuracy at the end", float(end.min(skipna=False)), ">=", LEARNED)
    needed = first_step(early.test_error).mean("seed", skipna=False)
    note = f"{words(needed.values)} by width"
    spread = float(needed.max(skipna=False) / needed.min(skipna=False))
    yield Claim(f"{place} (a)", "steps to 99% test accuracy, most over least of the widths", spread, "<=", 1.5, note)
    slope = abs(float(np.polyfit(np.log(needed.width.values), np.log(needed.values), 1)[0]))
    yield Claim(f"{place} (a)", "exponent of these steps in the width, its size", slope, "<=", 0.15)


def slopes(place: str, result: Result, moved: dict[str, str], band: float) -> Iterator[Claim]:
    """Sections 5 and 6: patterns that change, and movement over the start, fall like m^(-1/2)."""
    for name, variable in moved.items():
        end = result[variable].isel(step=-1)
        # Those that are left where others diverged were not drawn at random.
        fit = fitted(end.where(end.notnull().all()))
        off, note = abs(fit.exponent + 0.5), f"{fit.exponent:.3f} in [{fit.low:.3f}, {fit.high:.3f}]"
        yield Claim(f"{place}, {name}", "exponent in the width, from -1/2", off, "<=", band, note)


def levels(place: str, wide: Result) -> Iterator[Claim]:
    """Section 7: both are small."""
    for name, variable in MOVED.items():
        most = float(wide[variable].isel(step=-1).mean("seed", skipna=False).max(skipna=False))
        note = f"from width {int(wide.width[0])} on"
        yield Claim(f"{place}, {name}", "at the end, most of the widths", most, "<=", LEVEL, note)


def verdict(place: str, result: Result, expected: str) -> Claim:
    """Whether networks are "lazy": levels small in the widest, slopes about -1/2; "not lazy" is that a level is not."""
    ends = {name: result[variable].isel(step=-1) for name, variable in MOVED.items()}
    widest = {name: float(end.mean("seed", skipna=False)[-1]) for name, end in ends.items()}
    fits = {name: exponent(end) for name, end in ends.items()}
    large = [f"{name} is above {LEVEL:g}" for name, level in widest.items() if level > LEVEL]
    other = [f"the slope of {name} is not -1/2" for name, slope in fits.items() if not abs(slope + 0.5) <= 0.1]
    known = all(bool(end.notnull().all()) for end in ends.values())
    found = "undecided" if not known else "not lazy" if large else "undecided" if other else "lazy"
    said = ", ".join(f"{name} {widest[name]:.3g} ~ m^{fits[name]:.2f}" for name in ends)
    why = "; ".join(["", *large, *other] if known else ["", "networks diverged"])
    note = f"{found} at width {int(result.width[-1])}: {said}{why}"
    return Claim(
        f"Verdict, {place}", f"{expected} by slopes and levels, 1 for yes", float(found == expected), ">=", 1.0, note
    )


def rank(place: str, data: Mixture, spectra: dict[str, Arrays]) -> Iterator[Claim]:
    """Section 6: what training adds has the rank k l of the data, and the weights show nothing of it."""
    count = data.classes * data.components
    drops = {
        (kind, part): values[part][..., count - 1] / values[part][..., count]
        for kind, values in spectra.items()
        for part in ("update", "weights")
    }
    unit, raw = (words(drops[kind, "update"].min(axis=1)) for kind in ("unit", "raw"))
    note = f"least of the seeds by width {unit}; of raw inputs {raw}"
    least, most = float(drops["unit", "update"].min()), float(drops["unit", "weights"].max())
    statement = f"drop of singular values from {count} to {count + 1}"
    yield Claim(f"{place} (d), update", f"{statement}, least of all", least, ">=", 40.0, note)
    yield Claim(f"{place} (d), weights", f"{statement}, most of all", most, "<=", 1.2)
    update = spectra["unit"]["update"]
    off = max(abs(leading_values(values) - count) for values in update.reshape(-1, update.shape[-1]))
    yield Claim(f"{place} (d), update", f"number of leading singular values, from k l = {count}", off, "<=", 0)


def words(values: np.ndarray) -> str:
    """Numbers one after the other."""
    return ", ".join(f"{value:.1f}" for value in values)


def ranks(spectra: Arrays) -> dict[str, list[float]]:
    """Effective ranks by width, of seed 0."""
    return {part: [effective_rank(values[0]) for values in spectra[part]] for part in ("update", "weights")}


def ten_classes(data: lz.Dataset, size: Size, work: Work, found: Reproduction) -> None:
    """Figure 2: images of ten classes, where the trends are the same and the levels are not."""
    (widths, seeds, steps), name = size.on_images, size.images.name
    network, place = NETWORK.clone(outputs=10), f"Figure 2, {name}"
    # The first steps, where most of the movement is, have more of them.
    taken = [*evenly(steps, SNAPSHOTS), *(2**i for i in range(10) if 2**i < steps)]
    more = {"snapshots": taken, "measured": size.images.measured, "compare": False}
    result = work.sweep(name, network, data, widths, seeds, steps, **more, **IMAGES_SGD)
    shown = [width for width in widths if width <= 4000][-1:]
    spectra = work.arrays(f"spectra-{name}", lambda: spectra_of(data, shown, 1, steps, IMAGES_SGD))
    accuracy = 1 - result.test_error.isel(step=-1).mean("seed", skipna=False)
    distance = {"relative distance": MOVED["relative distance"]}
    found.claims += [
        Claim(f"{place} (a)", "least test accuracy of the widths", float(accuracy.min(skipna=False)), ">=", 0.9),
        Claim(
            f"{place} (a)",
            "most less least",
            float(accuracy.max(skipna=False) - accuracy.min(skipna=False)),
            "<=",
            0.03,
        ),
        *slopes(place, result, distance, IMAGES_BAND),
        verdict(f"{name} at eta = {IMAGES_ETA:g} / m", result, "not lazy"),
    ]
    found.numbers[name] = ends(result) | {
        "exponent of coupling": exponent(result.activation_flips.isel(step=-1)),
        "effective rank": ranks(spectra),
    }
    found.figures[name] = figures.draw_images(name, result, spectra)
