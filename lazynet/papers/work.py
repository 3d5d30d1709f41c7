"""What a reproduction has computed: kept in its folder, so that one that was stopped goes on."""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import lazynet as lz
from lazynet.execution._store import write_file
from lazynet.typing import Result

Arrays = dict[str, np.ndarray]


class Work:
    """The parts of a reproduction, by name: each is computed, or read where the folder has it already.

    Raises:
        ValueError: if the folder holds another reproduction.
    """

    def __init__(
        self,
        paper: str,
        size: str,
        folder: Path | None = None,
        tell: Callable[[str], None] = lambda part: None,
    ) -> None:
        """Keep what is computed in this folder, or nowhere; `tell` hears of each part."""
        self._folder, self._tell, self._told = folder, tell, 0
        if folder is None:
            return
        # Arrays carry no settings of their own: those of another code are not taken for those of this one.
        sources = b"".join(file.read_bytes() for file in sorted(Path(lz.__file__).parent.rglob("*.py")))
        settings = {"paper": paper, "size": size, "code": hashlib.sha256(sources).hexdigest()[:16]}
        settings |= {name: version(name) for name in ("lazynet", "jax")}
        file = folder / "settings.json"
        if file.exists() and (found := json.loads(file.read_text())) != settings:
            raise ValueError(f"out is {str(folder)!r}, which holds {found}, not {settings}; name a new folder.")
        self._settings = json.dumps(settings).encode()

    def sweep(self, name: str, network: lz.TwoLayer, data: lz.Dataset, *args: Any, **more: Any) -> Result:
        """`lazynet.sweep`, cell by cell."""
        self._begin(name)
        if self._folder is not None:
            more |= {"out": self._folder / "parts" / name, "resume": True}
        return lz.sweep(network, data, *args, progress=False, **more)

    def arrays(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """Arrays that a function returns."""
        self._begin(name)
        if self._folder is None:
            return compute()
        file = self._folder / "parts" / f"{name}.npz"
        if file.exists():
            # Its checksums tell whether it is damaged.
            with contextlib.suppress(ValueError, EOFError, zipfile.BadZipFile):
                return dict(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False))
        found = compute()
        stream = io.BytesIO()
        save: Any = np.savez
        save(stream, **found)
        write_file(file, stream.getvalue())
        return found

    def _begin(self, name: str) -> None:
        """Say what begins, and make the folder for it."""
        self._told += 1
        self._tell(f"{self._told}. {name}")
        if self._folder is not None and self._told == 1:
            (self._folder / "parts").mkdir(parents=True, exist_ok=True)
            write_file(self._folder / "settings.json", self._settings)
