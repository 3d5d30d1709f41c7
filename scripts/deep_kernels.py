"""Compare kernels of infinitely wide networks with means over random networks of increasing depth and width.

The largest networks have 268 million weights; the script takes ten to fifteen minutes on two cores.
"""

import argparse

import numpy as np

import lazynet as lz

# Number of random initializations, the smaller number used at larger widths, and the width above which it is used.
STARTS, FEWER, LARGE_WIDTH = 200, 32, 2048

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="numbers of hidden layers")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192], help="numbers of units in a layer"
    )
    flags = parser.parse_args()
    x = lz.load_dataset("digits", classes=(0, 1), n_train=6).x_train
    print("depth  width  starts  standard error / kernel  difference / standard error, largest")
    worst = 0.0
    for depth in flags.depths:
        for width in flags.widths:
            network = lz.MLP(width=width, depth=depth)
            expected = lz.analytic_kernel(network)(x)
            mean = lz.monte_carlo_kernel(network, x, starts=STARTS if width <= LARGE_WIDTH else FEWER)
            error = np.max(mean.standard_error / expected)
            difference = np.max(np.abs(mean.kernel - expected) / mean.standard_error)
            worst = max(worst, difference)
            print(f"{depth:5}  {width:5}  {mean.starts:6}  {error:23.2%}  {difference:37.2f}", flush=True)
    raise SystemExit(1 if worst > 5 else 0)
