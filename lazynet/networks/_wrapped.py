"""Base class for networks that modify one part of another network."""

from dataclasses import dataclass, replace
from typing import Any

from lazynet.networks._protocol import Network


@dataclass(frozen=True)
class Wrapped:
    """Wrapper around another network.

    Attributes that the wrapper does not define are taken from the wrapped network.

    Attributes:
        network: The wrapped network.
    """

    network: Network

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped network."""
        # When an object is copied, Python looks up attributes before `network` is set. Without this check, the lookup
        # would recurse without end.
        if name.startswith("_") or name == "network":
            raise AttributeError(name)
        return getattr(self.network, name)

    @property
    def width(self) -> int:
        """Width of the network."""
        return self.network.width

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return self.network.outputs

    def clone(self, **changes: Any) -> "Wrapped":
        """Return a copy with the given fields of the wrapped network changed."""
        return replace(self, network=self.network.clone(**changes))
