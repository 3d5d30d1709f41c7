"""Du, Zhai, Poczos and Singh 2018: Gradient Descent Provably Optimizes Over-parameterized Networks (1810.02054).

Figure 1: of points on the sphere with random targets, the wider a network is the sooner it fits them, the fewer signs
flip and the less its units move. Networks here start at zero output, and so at the same loss.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

import lazynet as lz
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.figures import panels
from lazynet.papers.work import Work
from lazynet.studies._style import width_colors
from lazynet.typing import Figure, Result

EPOCHS = 100
FITTED = 1e-6  # share of the first loss that counts as none
FLIPS = 0.02  # about the most of Figure 1 (b)


class Size(NamedTuple):
    """Points on the sphere of n dimensions, and networks on them."""

    n: int
    widths: tuple[int, ...]


def add_to(found: Reproduction, work: Work, size: Size) -> None:
    """Compute Figure 1 and check it."""
    data = lz.sphere(size.n, 8, size.n, jax.random.key(0))
    result = work.sweep("du2018", lz.TwoLayer(width=2), data, size.widths, 1, EPOCHS)
    found.claims += claims(result)
    found.figures["du2018"] = draw(result)


def claims(result: Result) -> Iterator[Claim]:
    """Figure 1: everything improves with the width."""
    end = result.isel(step=-1)
    for panel, quantity in (("b", "activation_flips"), ("c", "max_neuron_displacement")):
        found = exponent(end[quantity])
        yield Claim(f"Du et al. 2018, Figure 1 ({panel})", f"exponent of {quantity} in the width", found, "<=", -0.4)
    losses = result.train_loss.mean("seed").transpose("width", "step").values
    # Below is what float32 cannot tell from zero.
    seen = losses[0, 1:] > FITTED * losses[0, 0]
    wrong = float(np.mean((losses[-1, 1:] >= losses[0, 1:])[seen]))
    yield Claim(
        "Du et al. 2018, Figure 1 (a)",
        "share of epochs at which the widest network is not ahead of the narrowest",
        wrong,
        "<=",
        0.0,
    )
    yield Claim(
        "Du et al. 2018, Figure 1 (b)",
        "share of signs that flips in the widest network",
        float(end.activation_flips.isel(width=-1).max()),
        "<=",
        FLIPS,
    )


def draw(result: Result) -> Figure:
    """Figure 1 (a, b, c)."""
    figure, every = panels(3, f"Du et al. 2018, Figure 1: {result.sizes['width']} widths on the sphere")
    names = {
        "train_loss": "training loss",
        "activation_flips": "share of signs that flipped",
        "max_neuron_displacement": "largest movement of a unit",
    }
    for axes, (quantity, label) in zip(every, names.items(), strict=True):
        for width, color in zip(result.width.values, width_colors(result.sizes["width"]), strict=True):
            values = result[quantity].sel(width=width)
            axes.plot(result.step, values.mean("seed"), color=color, label=str(width))
        axes.set(xlabel="epoch", ylabel=label)
    every[0].set_yscale("log")
    # Below is what float32 cannot tell from zero.
    losses = result.train_loss.mean("seed").max("width")
    least = FITTED * float(losses[0])
    every[0].set(ylim=(least, None), xlim=(0, float(losses.step[losses > least].max())))
    every[0].legend(title="width")
    return figure
