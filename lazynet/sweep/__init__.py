"""Sweeps: members over widths and seeds, beside their predictions, in one labelled result."""

from lazynet.sweep.api import merge, sweep
from lazynet.sweep.laziness import laziness_map
from lazynet.sweep.limit import predict
from lazynet.sweep.line import line_ensemble
from lazynet.sweep.modes import mode_residuals
from lazynet.sweep.progress import Stages, product_rate
from lazynet.sweep.run import Run, train
from lazynet.sweep.settings import check_new_folder
from lazynet.sweep.store import RunFolder, write_figures, write_file, write_run

__all__ = [
    "Run",
    "RunFolder",
    "Stages",
    "check_new_folder",
    "laziness_map",
    "line_ensemble",
    "merge",
    "mode_residuals",
    "predict",
    "product_rate",
    "sweep",
    "train",
    "write_figures",
    "write_file",
    "write_run",
]
