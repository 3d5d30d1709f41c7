"""Studies: one folder for each thing that a person asks for, with its call, its verdict or fit and its figure."""

from lazynet.studies._style import BLUE, GREEN, ORANGE, PURPLE, SETTINGS, THEORY, VERMILION, power_law, width_colors

__all__ = ["BLUE", "GREEN", "ORANGE", "PURPLE", "SETTINGS", "THEORY", "VERMILION", "power_law", "width_colors"]
