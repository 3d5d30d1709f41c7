"""Numbers read off the figures of Arora et al. 2019."""

# Number of training images used in the paper, which is also the number of hidden units in the paper's networks.
PAPER_N = 10_000
# Number of coordinates per image and number of training steps in Figure 1 (a, c), for each data set.
PAPER_NETWORKS = {"mnist": (784, 1_000_000), "cifar10": (3072, 300_000)}
# Values in Figure 2 for 0, 10, ..., 100% random labels, and eigenvalues in Figure 1 (b, d), keyed by their indices.
PAPER_NOISE = {
    "mnist": {
        "l1": (0.017, 0.358, 0.515, 0.677, 0.769, 0.868, 0.926, 0.997, 1.027, 1.033, 1.042),
        "error": (0.001, 0.064, 0.126, 0.210, 0.290, 0.356, 0.403, 0.452, 0.469, 0.485, 0.477),
        "complexity": (0.38, 2.89, 3.97, 4.71, 5.27, 5.70, 6.04, 6.28, 6.45, 6.56, 6.59),
    }
}
INDICES = (200, 300, 500, 1000, 2000, 3000, 5000, 8000, 9000, 9999)
PAPER_EIGENVALUES = {
    "mnist": dict(zip(INDICES, (1.02, 0.62, 0.337, 0.159, 0.088, 0.067, 0.048, 0.032, 0.026, 0.0156), strict=True)),
    "cifar10": dict(zip(INDICES, (0.64, 0.40, 0.226, 0.117, 0.071, 0.056, 0.042, 0.027, 0.021, 0.0078), strict=True)),
}
