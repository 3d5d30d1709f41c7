"""Sweeps: members over widths and seeds, beside their predictions, in one labelled result."""

from lazynet.sweep.api import Run, sweep, train
from lazynet.sweep.settings import check_new_folder
from lazynet.sweep.store import write_run

__all__ = ["Run", "check_new_folder", "sweep", "train", "write_run"]
