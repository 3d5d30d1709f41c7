"""`lazynet width`: how wide a network must be to follow a prediction to a tolerance."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from lazynet.cli._common import (
    Data,
    Folder,
    Ints,
    Network,
    Switch,
    Training,
    choices,
    print_plan,
    stoppable,
)
from lazynet.cli._reports import report
from lazynet.cli._sweeps import N_TEST, N_TRAIN
from lazynet.experiment import sweep_jobs
from lazynet.hosts import together
from lazynet.studies.required_width import MAX_WIDTH, TOLERANCE, make_search, run_search
from lazynet.studies.sweep import PREDICTIONS


@dataclass
class Width:
    """Find the width at which networks begin to follow a prediction to within a tolerance: predict it, then verify it.

    The command trains networks of the widths given by --pilots, predicts the width at which the mean gap equals the
    tolerance, stores this prediction in --out, and then trains networks near the predicted width. Without --data, 256
    training and 100 test examples are used.
    """

    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    tolerance: float = TOLERANCE
    """Largest gap at which networks count as lazy, as a fraction of the RMS of the targets."""
    of: Annotated[str, choices(PREDICTIONS)] = "linearization"
    """Prediction that networks should follow."""
    seeds: int = 8
    """Number of seeds, at least 2; seeds are numbered from 0."""
    pilots: Ints = ()
    """Pilot widths, from whose gaps the width is predicted; by default 64, 128, ..., 2048, up to --max-width."""
    max_width: int = MAX_WIDTH
    """Largest width to train; if the predicted width is larger, it is not verified."""
    training: tyro.conf.OmitArgPrefixes[Training] = field(default_factory=Training)
    folder: tyro.conf.OmitArgPrefixes[Folder] = field(default_factory=Folder)
    check: Switch = False
    """Exit with code 1 if no width is verified."""
    json: Switch = False
    """Print one JSON object instead of tables."""
    plan: Switch = False
    """Print the minimum memory and number of operations for the pilot widths, and exit."""

    def run(self) -> int:
        """Run the search and return the exit code."""
        data = self.data.load(N_TRAIN, N_TEST)
        with together():
            search = make_search(
                self.network.at_width(2, data.outputs),
                data,
                self.tolerance,
                self.of,
                self.seeds,
                self.training.steps,
                pilots=self.pilots or None,
                max_width=self.max_width,
                learning_rate=self.training.learning_rate,
                loss=self.training.loss,
                optimizer=self.training.make_optimizer(),
                batch_size=self.training.batch_size,
                dtype=self.training.dtype,
                folder=self.folder.open(),
                progress=True,
            )
        if self.plan:
            return print_plan(sweep_jobs(search.pilot_spec), self.json)
        with stoppable(self.folder.out):
            result = run_search(search)
            with together():
                return 0 if result is None else report(result, self.folder.out, self.json, self.check)
