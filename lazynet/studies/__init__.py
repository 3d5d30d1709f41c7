"""The studies of lazynet: each folder contains the public function, the verdict or fit, and the figure of one study."""

from lazynet.studies._style import BLUE, GREEN, ORANGE, PURPLE, SETTINGS, THEORY, VERMILION, power_law, width_colors

__all__ = ["BLUE", "GREEN", "ORANGE", "PURPLE", "SETTINGS", "THEORY", "VERMILION", "power_law", "width_colors"]
