"""The studies in lazynet: each folder contains a study's public function and the code for its result and figure."""

from lazynet.studies._style import BLUE, GREEN, ORANGE, PURPLE, SETTINGS, THEORY, VERMILION, power_law, width_colors

__all__ = ["BLUE", "GREEN", "ORANGE", "PURPLE", "SETTINGS", "THEORY", "VERMILION", "power_law", "width_colors"]
