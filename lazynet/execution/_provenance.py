"""The provenance of a result: versions, device, precision, revision and settings."""

import importlib.metadata
import os
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jax

# Environment variables that can change the rounding errors of computations.
ROUNDING = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "lazynet")
# Packages that only some computations use, and that need not be installed.
OPTIONAL = ("neural-tangents",)
# File in an installed wheel with the commit from which the wheel was built.
REVISION = "_revision.txt"


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages used in computations, keyed by the result attributes that store them."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name in OPTIONAL:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {f"{name.replace('-', '_')}_version": version for name, version in found.items()}


def environment() -> str:
    """Return the environment variables in `ROUNDING` that are set, as NAME=value pairs separated by spaces."""
    return " ".join(f"{name}={os.environ[name]}" for name in ROUNDING if os.environ.get(name))


def provenance(settings: str, dtype: str, begun: float) -> dict[str, Any]:
    """Return the provenance of a result.

    Args:
        settings: Settings of the study as a JSON string.
        dtype: Dtype in which networks are trained.
        begun: Time at which the study started, in seconds since the epoch.

    Returns:
        Package versions, device, number of devices, environment variables, dtype, precision, git revision, start time
        (UTC) and settings, as a dictionary of netCDF attributes.
    """
    return {
        **versions(),
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
        "devices": jax.device_count(),
        "environment": environment(),
        "dtype": dtype,
        "precision": "highest",
        "git_revision": _git_revision(),
        "start_time": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "settings": settings,
    }


@cache
def _git_revision() -> str:
    """Return the commit of lazynet's code, with "-dirty" if the code was changed, or "not in a repository".

    An installed wheel contains the commit from which it was built.
    """
    package = Path(__file__).resolve().parents[1]
    if (package / REVISION).exists():
        return (package / REVISION).read_text().strip()
    try:
        process = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            # Inside a git hook, git's environment variables can point to another repository.
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        )
    except (OSError, subprocess.TimeoutExpired):
        return "not in a repository"
    tracked = process.returncode == 0 and (package.parent / ".git").exists()
    return process.stdout.strip() if tracked else "not in a repository"
