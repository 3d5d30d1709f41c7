"""Laziness maps of the digits 1 and 8 over width and output scale, and the boundary where kernels begin to move.

With both layers trained the boundary follows m^(-1/2). With the hidden layer alone trained it is steeper at small
changes. The defaults take about five minutes on two cores.
"""

import argparse
from pathlib import Path

import numpy as np

import lazynet as lz

# The trained part, and the relative kernel change at the boundary.
MAPS = {"both": 0.3, "hidden": 0.1}


def print_map(result):
    """Print the map as a table, and its boundary."""
    change, error = result.kernel_change.mean("seed"), 100 * result.test_error.mean("seed")
    print(f"{'alpha':>9}  " + "  ".join(f"{f'm = {width}':>15}" for width in result.width.values))
    for i, scale in enumerate(result.output_scale.values):
        cells = [f"{float(change[j, i]):8.3g} {float(error[j, i]):5.1f}%" for j in range(len(result.width))]
        print(f"{scale:9.4g}  " + "  ".join(f"{cell:>15}" for cell in cells))
    lost = [f"{int((result.status == i).sum())} {name}" for i, name in enumerate(names(result)) if i]
    print(f"not fitted, and left out: {', '.join(lost)}")
    for width, *values in zip(
        result.width.values, result.boundary, result.boundary_low, result.boundary_high, strict=True
    ):
        scale, low, high = map(float, values)
        print(f"boundary at width {width:5}: alpha = {scale:.4f} [{low:.4f}, {high:.4f}]")
    a = result.attrs
    interval = f"[{a['boundary_exponent_low']:+.3f}, {a['boundary_exponent_high']:+.3f}]"
    predicted = f"predicted {a['boundary_exponent_predicted']:+.2f}"
    print(f"boundary exponent {a['boundary_exponent']:+.3f} {interval}, {predicted}")
    spread = f"within a factor {np.exp(a['collapse_spread']):.2f} (RMS) of each other"
    print(
        f"over m^{a['control_exponent']:g} alpha all widths are {spread}, closest over m^{a['collapse_exponent']:.2f}"
    )
    if a["reason"]:
        print(f"reason for the steeper boundary: {a['reason']}")


def names(result):
    """Return the meanings of the codes of `status`."""
    return result.status.attrs["flag_meanings"].split()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0**k for k in range(-6, 5)])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None, help="folder for the maps, which may exist, and figures")
    flags = parser.parse_args()
    data = lz.load_dataset("digits", classes=(1, 8), n_train=64)
    for train, change in MAPS.items():
        network = lz.TwoLayer(width=64, train=train)
        out = None if flags.out is None else lz.RunFolder(flags.out / train, resume=True)
        result = lz.laziness_map(network, data, flags.widths, flags.scales, flags.seeds, change=change, out=out)
        print(f"\nTrained: {train}. Relative kernel change and test error, until 1% of the loss is left")
        print_map(result)
        if flags.out is not None:
            lz.plot(result).savefig(flags.out / f"{train}.png", dpi=150)
