"""Du, Zhai, Poczos and Singh 2018: Gradient Descent Provably Optimizes Over-parameterized Networks (arXiv 1810.02054).

In Figure 1, networks are trained on points on the sphere with random targets. The wider a network is, the faster it
fits the targets, the fewer of its pre-activations change sign, and the less its units move. In this reproduction, the
initial output of every network is zero, so all networks have the same initial loss.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

import lazynet as lz
from lazynet.papers.claims import Claim, Reproduction, exponent
from lazynet.papers.figures import panels
from lazynet.papers.work import Work
from lazynet.studies import width_colors
from lazynet.typing import Figure, Result

EPOCHS = 100
# Fraction of the initial loss below which float32 cannot distinguish a loss from zero.
RESOLVED = 1e-6
# Approximate maximum fraction of flipped signs, read off Figure 1 (b).
FLIPS = 0.02


class Size(NamedTuple):
    """The number n of points, which is also their dimension, and the widths of the networks."""

    n: int
    widths: tuple[int, ...]


def add_to(reproduction: Reproduction, work: Work, size: Size) -> None:
    """Add Figure 1 of Du et al. 2018 and its claims to the reproduction."""
    data = lz.sphere(size.n, 8, size.n, jax.random.key(0))
    result = work.sweep("du2018", lz.TwoLayer(width=2), data, size.widths, 1, EPOCHS)
    reproduction.claims += claims(result)
    reproduction.figures["du2018"] = draw(result)


def claims(result: Result) -> Iterator[Claim]:
    """Yield the claims of Figure 1: wider networks fit the targets faster and move less."""
    end = result.isel(step=-1)
    for panel, quantity in (("b", "activation_flips"), ("c", "max_neuron_displacement")):
        place, statement = f"Du et al. 2018, Figure 1 ({panel})", f"exponent of {quantity} in the width"
        yield Claim(place, statement, exponent(end[quantity]), "<=", -0.4)
    losses = result.train_loss.mean("seed").transpose("width", "step").values
    resolved = losses[0, 1:] > RESOLVED * losses[0, 0]
    wrong = float(np.mean((losses[-1, 1:] >= losses[0, 1:])[resolved]))
    yield Claim(
        "Du et al. 2018, Figure 1 (a)",
        "fraction of epochs at which the widest network does not have a lower loss than the narrowest",
        wrong,
        "<=",
        0.0,
    )
    yield Claim(
        "Du et al. 2018, Figure 1 (b)",
        "share of flipped signs in the widest network",
        float(end.activation_flips.isel(width=-1).max()),
        "<=",
        FLIPS,
    )


def draw(result: Result) -> Figure:
    """Draw Figure 1 (a, b, c) of Du et al. 2018."""
    figure, axes_list = panels(3, f"Du et al. 2018, Figure 1: {result.sizes['width']} widths on the sphere")
    names = {
        "train_loss": "training loss",
        "activation_flips": "share of flipped signs",
        "max_neuron_displacement": "largest movement of a unit",
    }
    for axes, (quantity, label) in zip(axes_list, names.items(), strict=True):
        for width, color in zip(result.width.values, width_colors(result.sizes["width"]), strict=True):
            values = result[quantity].sel(width=width)
            axes.plot(result.step, values.mean("seed"), color=color, label=str(width))
        axes.set(xlabel="epoch", ylabel=label)
    losses = result.train_loss.mean("seed").max("width")
    least = RESOLVED * float(losses[0])
    axes_list[0].set_yscale("log")
    axes_list[0].set(ylim=(least, None), xlim=(0, float(losses.step[losses > least].max())))
    axes_list[0].legend(title="width")
    return figure
