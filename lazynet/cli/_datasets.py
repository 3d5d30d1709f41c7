"""`lazynet data`: list the data sets and their files, or download a data set."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from lazynet.cli._common import Switch, print_json
from lazynet.data import fetch_dataset, list_datasets


@dataclass
class ListData:
    """List the data sets and the locations of their files."""

    json: Switch = False
    """Print one JSON object."""

    def run(self) -> int:
        """List the data sets and return the exit code."""
        records = list_datasets()
        if self.json:
            print_json(datasets=[{**record._asdict(), "path": record.path and str(record.path)} for record in records])
            return 0
        for record in records:
            where = record.path or ("scikit-learn" if record.available else "not found")
            print(f"{record.name:15}{record.description:65}  {where}")
        return 0


@dataclass
class FetchData:
    """Download a data set into the user's cache and verify its checksums."""

    name: tyro.conf.Positional[str]
    """Data set: mnist or fashion-mnist."""

    def run(self) -> int:
        """Download the data set and return the exit code."""
        print(fetch_dataset(self.name))
        return 0


@dataclass
class DataCommand:
    """List the data sets, or download one of them."""

    action: (
        Annotated[ListData, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[FetchData, tyro.conf.subcommand("fetch", prefix_name=False)]
    )

    def run(self) -> int:
        """Run the selected action and return the exit code."""
        return self.action.run()
