"""Map the widths and output scales at which networks learn the digits 1 and 8 lazily, and find the boundary.

The boundary is an output scale that depends on the width m. If both layers are trained, it falls as m^(-1/2). If only
the hidden layer is trained, it falls more steeply; in this case, a smaller kernel change defines the boundary. The
script takes about five minutes on two cores.
"""

import argparse
from pathlib import Path

import numpy as np

import lazynet as lz

# Relative kernel change that defines the boundary, for each choice of trained layers.
MAPS = {"both": 0.3, "hidden": 0.1}


def print_map(result):
    """Print the map as a table, followed by its boundary."""
    change, error = result.kernel_change.mean("seed"), 100 * result.test_error.mean("seed")
    print(f"{'alpha':>9}  " + "  ".join(f"{f'm = {width}':>15}" for width in result.width.values))
    for i, scale in enumerate(result.output_scale.values):
        cells = [f"{float(change[j, i]):8.3g} {float(error[j, i]):5.1f}%" for j in range(len(result.width))]
        print(f"{scale:9.4g}  " + "  ".join(f"{cell:>15}" for cell in cells))
    names = result.status.attrs["flag_meanings"].split()
    others = [f"{int((result.status == i).sum())} {name}" for i, name in enumerate(names) if i]
    print(f"not fitted: {', '.join(others)}")
    for width, *values in zip(
        result.width.values, result.boundary, result.boundary_low, result.boundary_high, strict=True
    ):
        scale, low, high = map(float, values)
        print(f"boundary at width {width:5}: alpha = {scale:.4f} [{low:.4f}, {high:.4f}]")
    attrs = result.attrs
    interval = f"[{attrs['boundary_exponent_low']:+.3f}, {attrs['boundary_exponent_high']:+.3f}]"
    predicted = f"predicted {attrs['boundary_exponent_predicted']:+.2f}"
    print(f"boundary exponent {attrs['boundary_exponent']:+.3f} {interval}, {predicted}")
    print(
        f"against m^{attrs['control_exponent']:g} alpha, all widths agree within a factor "
        f"{np.exp(attrs['collapse_spread']):.2f} (RMS); they agree best against m^{attrs['collapse_exponent']:.2f} "
        "alpha"
    )
    if attrs["reason"]:
        print(f"reason for the steeper boundary: {attrs['reason']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0**k for k in range(-6, 5)])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None, help="folder for maps and figures; maps in it are resumed")
    flags = parser.parse_args()
    data = lz.load_dataset("digits", classes=(1, 8), n_train=64)
    for train, change in MAPS.items():
        network = lz.TwoLayer(width=64, train=train)
        out = None if flags.out is None else lz.RunFolder(flags.out / train, resume=True)
        result = lz.laziness_map(network, data, flags.widths, flags.scales, flags.seeds, change=change, out=out)
        print(f"\nTrained: {train}. Relative kernel change and test error when 1% of the loss is left")
        print_map(result)
        if flags.out is not None:
            lz.plot(result).savefig(flags.out / f"{train}.png", dpi=150)
