"""The run folder: written beside its place and moved there whole, so that nobody reads half of one."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lazynet.theory import Verdict
from lazynet.typing import Result


def write_run(
    out: str | Path, result: Result, verdict: Verdict | None = None, figures: dict[str, Any] | None = None
) -> None:
    """Write settings.json, result.nc and, where given, verdict.json and figures/ to a new folder.

    Args:
        out: the folder; it must not exist.
        result: of `lazynet.sweep` or `lazynet.predict`.
        verdict: of the result of a sweep.
        figures: matplotlib figures by name.

    Raises:
        FileExistsError: if the folder came into being meanwhile; the run then stays in the folder that is named.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        settings = json.loads(result.attrs["settings"])
        settings["hash"] = hashlib.sha256(result.attrs["settings"].encode()).hexdigest()
        settings["versions"] = {name: value for name, value in result.attrs.items() if name.endswith("_version")}
        (draft / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        result.to_netcdf(draft / "result.nc", engine="h5netcdf")
        if verdict is not None:
            (draft / "verdict.json").write_text(verdict.to_json() + "\n")
        for name, figure in (figures or {}).items():
            (draft / "figures").mkdir(exist_ok=True)
            figure.savefig(draft / "figures" / f"{name}.png", dpi=200)
        draft.chmod(0o755)
    except BaseException:
        shutil.rmtree(draft)
        raise
    try:
        # Unlike a rename, making the folder first fails where somebody else has made it, even if it is empty.
        out.mkdir()
        draft.replace(out)
    except OSError as error:
        raise FileExistsError(f"The folder {str(out)!r} exists by now; this run was left in {str(draft)!r}.") from error
