"""`lazynet data`: which data sets there are, and where."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from lazynet.cli._common import print_json
from lazynet.data import fetch_dataset, list_datasets


@dataclass
class ListData:
    """List the data sets and where they were found."""

    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Print the table; the exit code."""
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
    """Download a data set into the user's cache and check it."""

    name: tyro.conf.Positional[str]
    """mnist or fashion-mnist."""

    def run(self) -> int:
        """Fetch; the exit code."""
        print(fetch_dataset(self.name))
        return 0


@dataclass
class DataCommand:
    """The data sets that lazynet knows."""

    action: (
        Annotated[ListData, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[FetchData, tyro.conf.subcommand("fetch", prefix_name=False)]
    )

    def run(self) -> int:
        """Run the action; the exit code."""
        return self.action.run()
