"""Experiments: specify a study, train its networks, compare them with theory, and assemble the result."""

from lazynet.experiment._arguments import check_inputs, check_seeds, check_widths
from lazynet.experiment._cell import DIVERGENCE, Cell, compute_cell, network_variables, train_pack, units_of
from lazynet.experiment._cost import check_memory_of, check_memory_of_kernels, infinite_width_jobs, sweep_jobs
from lazynet.experiment._forecast_cell import ORDERS, compute_forecast
from lazynet.experiment._measure import Measure
from lazynet.experiment._members import CellCheckpoint, Trained, train_members
from lazynet.experiment._packing import packs_of
from lazynet.experiment._record import Pack, Record
from lazynet.experiment._reference import References, default_learning_rate, relative_rates
from lazynet.experiment._result import MemberStatus, assemble, flags, outcome
from lazynet.experiment._settings import as_json, fingerprint, limit_settings, sweep_settings
from lazynet.experiment._shared_inputs import share_inputs
from lazynet.experiment._spec import Spec, make_spec
from lazynet.experiment._training import Training, make_training

__all__ = [
    "DIVERGENCE",
    "ORDERS",
    "Cell",
    "CellCheckpoint",
    "Measure",
    "MemberStatus",
    "Pack",
    "Record",
    "References",
    "Spec",
    "Trained",
    "Training",
    "as_json",
    "assemble",
    "check_inputs",
    "check_memory_of",
    "check_memory_of_kernels",
    "check_seeds",
    "check_widths",
    "compute_cell",
    "compute_forecast",
    "default_learning_rate",
    "fingerprint",
    "flags",
    "infinite_width_jobs",
    "limit_settings",
    "make_spec",
    "make_training",
    "network_variables",
    "outcome",
    "packs_of",
    "relative_rates",
    "share_inputs",
    "sweep_jobs",
    "sweep_settings",
    "train_members",
    "train_pack",
    "units_of",
]
