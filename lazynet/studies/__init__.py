"""The studies in lazynet: each folder contains one study's public function, its verdict or fit, and its figure."""

from lazynet.studies._style import BLUE, GREEN, ORANGE, PURPLE, SETTINGS, THEORY, VERMILION, power_law, width_colors

__all__ = ["BLUE", "GREEN", "ORANGE", "PURPLE", "SETTINGS", "THEORY", "VERMILION", "power_law", "width_colors"]
