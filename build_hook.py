"""A build hook that stores the git revision in the package, so that results of an installed copy can name it."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "lazynet/_revision.txt"


class RevisionHook(BuildHookInterface):
    """Adds a file with the git revision to wheels and source distributions."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file. An editable installation has none, because its revision can change.

        Args:
            version: Either "standard" or "editable".
            build_data: Instructions for the builder, which this method extends.
        """
        # A source distribution already contains the file, and has no repository.
        if version == "editable" or not Path(self.root, ".git").exists():
            return
        command = ["git", "-C", self.root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"git cannot tell the revision, so results will not name it ({error}).")
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name, "revision.txt")
        file.write_text(revision + "\n")
        build_data["force_include"][str(file)] = FILE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary file.

        Args:
            version: Either "standard" or "editable".
            build_data: Instructions for the builder.
            artifact_path: Path of the finished wheel or source distribution.
        """
        if hasattr(self, "_folder"):
            self._folder.cleanup()
