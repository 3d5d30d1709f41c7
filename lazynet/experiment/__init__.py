"""Experiments: what is asked, the grid of points, and the arrays of one cell."""
