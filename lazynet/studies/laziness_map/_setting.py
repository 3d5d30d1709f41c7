"""The settings shared by all sweeps of a laziness map, and the ways in which training can end."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from lazynet.data import Dataset
from lazynet.experiment import Measure, MemberStatus, Spec, check_memory_of, make_spec, make_training
from lazynet.networks import Network
from lazynet.studies._parts import Parts
from lazynet.studies.sweep import sweep
from lazynet.training import Stop
from lazynet.typing import Result


class MapStatus(IntEnum):
    """How a network's training ended, as stored in the variable `status`."""

    FITTED = 0
    UNFINISHED = 1
    DIVERGED = 2
    DEAD = 3


@dataclass(frozen=True)
class Setting:
    """Settings shared by all sweeps in a map.

    Attributes:
        network: The family of networks.
        data: The data.
        seeds: The seeds.
        steps: The maximum number of training steps.
        stop: Criteria for stopping training once a network fits its data or stops improving.
        dtype: The dtype used for training.
        parts: The folder in which to store the map, with one sweep per subfolder.
        progress: Whether to show progress on a terminal.
    """

    network: Network
    data: Dataset
    seeds: tuple[int, ...]
    steps: int
    stop: Stop
    dtype: str
    parts: Parts
    progress: bool

    def train(
        self, network: Network, widths: Sequence[int], scales: Sequence[float] | None, name: str
    ) -> Result | None:
        """Train networks by gradient flow and return the result at the last step.

        The result is None in all processes but the first.

        Args:
            network: The family of networks.
            widths: Numbers of hidden units.
            scales: Output scales, or None to use the network's own scale.
            name: Name of the sweep's subfolder.
        """
        result = sweep(
            network,
            self.data,
            widths,
            self.seeds,
            self.steps,
            axes=None if scales is None else {"output_scale": scales},
            out=self.parts.subfolder(name),
            progress=self.progress,
            **self._training,
        )
        return None if result is None else result.isel(step=-1)

    def spec(self, widths: Sequence[int], scales: Sequence[float]) -> Spec:
        """Return the specification of the sweep over the map's grid; this specification also identifies the map.

        Raises:
            ValueError: If an argument is invalid, or if there is not enough memory.
        """
        training = make_training(self.steps, **self._training)
        spec = make_spec(self.network, self.data, widths, self.seeds, training, axes={"output_scale": scales})
        check_memory_of(spec)
        return spec

    @property
    def _training(self) -> dict[str, Any]:
        """The arguments of `lazynet.sweep` that specify how networks are trained and measured."""
        return {
            "optimizer": "flow",
            "measure": Measure(predictions=False),
            "snapshots": [self.steps],
            "stop": self.stop,
            "dtype": self.dtype,
        }

    def status(self, result: Result) -> Result:
        """Return the `MapStatus` of each member."""
        # Training compares the loss with the criterion in the training dtype, so allow for rounding here.
        fits = result.train_loss <= (1 + 1e-3) * float(self.stop.loss or 0)
        stopped = np.where(result.status == MemberStatus.STOPPED, MapStatus.DEAD, MapStatus.UNFINISHED)
        ended = np.where(result.status == MemberStatus.DIVERGED, MapStatus.DIVERGED, stopped)
        return result.status.copy(data=np.where(fits, MapStatus.FITTED, ended).astype(np.int8))
