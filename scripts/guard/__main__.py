"""Check that results stay the same, bit for bit, while the code is rewritten.

    python scripts/guard record OUT.npz            # record the studies with this checkout
    python scripts/guard compare BEFORE.npz AFTER.npz
    python scripts/guard check                     # record the base commit and this checkout, and compare

`studies_0_1_0.py` defines the studies in the API of the base commit, and `studies.py` defines them in the API of this
checkout. Results depend on how many networks run together. The script fixes this number, which lazynet otherwise
chooses by timing.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from arrays import Arrays, prefixed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASE = "8d74035"
BASE_STUDIES, STUDIES = "studies_0_1_0.py", "studies.py"
# Number of bytes in a pack of networks. In most studies, a pack holds two of the widest networks or more of the
# narrower ones.
PACK_BYTES = 2**16

# Names in version 0.1.0 and their current replacements, for the names of arrays and for recorded text. A key is either
# one part of a name, between slashes, or a whole name, which starts with the name of its study.
RENAMED: dict[str, str] = {
    "linearised_displacement": "linearized_displacement",
    "relative_learning_rate": "learning_rate_over_stability_limit",
    "centred": "centered",
    "DeepReLU": "MLP",
}
# Momentum is now a field of the optimizer "sgd", whose name the settings record.
OPTIMIZERS = {"momentum": "sgd", "nesterov": "sgd"}
# Titles in the printed verdict of version 0.1.0 and their current replacements.
TITLES = {"held to step": "holds to step", "Exponents in the width": "Width exponents"}


def main() -> int:
    """Run the command, and return 0 if everything is equal or 1 if a study fails or an array differs."""
    parser = argparse.ArgumentParser(prog="guard", description="Check that results stay the same, bit for bit.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="record the studies in an npz file")
    command.add_argument("out", type=Path)
    command.add_argument("--module", default=STUDIES, help=f"file in scripts/guard with the studies ({STUDIES})")
    command.add_argument("--checkout", type=Path, default=ROOT, help="folder whose lazynet to import (this checkout)")
    command.add_argument("--only", nargs="+", metavar="STUDY", help="names of the studies to run (all)")
    command = commands.add_parser("compare", help="compare two recordings")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command = commands.add_parser("check", help="record the base commit and this checkout, and compare")
    command.add_argument("--base", default=BASE, help=f"commit to compare with ({BASE})")
    command.add_argument("--before", type=Path, help="recording of the base commit; created if it does not exist")
    command.add_argument("--only", nargs="+", metavar="STUDY", help="names of the studies to run (all)")
    arguments = parser.parse_args()
    if arguments.command == "record":
        return record(arguments.out, arguments.module, arguments.checkout.resolve(), arguments.only)
    if arguments.command == "compare":
        return compare(load(arguments.before), load(arguments.after))
    return check(arguments.base, arguments.before, arguments.only)


def record(out: Path, module: str, checkout: Path, only: list[str] | None = None) -> int:
    """Run the studies and store their arrays, and return 1 if a study fails."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        sys.path.insert(0, str(checkout))
        studies = _module(HERE / module)
        _check_import(checkout)
        packing, machine = studies.packing_file()
        if not packing.is_relative_to(cache):
            raise RuntimeError(f"The packing file is {packing}, outside the cache folder {cache}.")
        packing.parent.mkdir(parents=True, exist_ok=True)
        packing.write_text(json.dumps({machine: PACK_BYTES}))
        arrays: Arrays = {"guard/pack_bytes": np.asarray(PACK_BYTES)}
        failed = []
        for study in _chosen(studies.STUDIES, only):
            begin = time.perf_counter()
            try:
                found = study()
            except Exception:
                traceback.print_exc()
                failed.append(study.__name__)
                continue
            arrays |= prefixed(study.__name__, found)
            print(f"{study.__name__}: {len(found)} arrays, {time.perf_counter() - begin:.1f} s", flush=True)
        if json.loads(packing.read_text()) != {machine: PACK_BYTES}:
            raise RuntimeError("lazynet measured the packing again; packing_file() must return the file it reads.")
    # Pass an open file, because NumPy would add a suffix to a file name.
    with out.open("wb") as file:
        np.savez(file, **arrays)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def load(file: Path) -> Arrays:
    """Return the arrays in a recording."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{file} is not a recording: {error}") from None


def compare(before: Arrays, after: Arrays) -> int:
    """Print the differences between two recordings, and return 1 if there are any."""
    before = {renamed(name): _with_current_optimizer(name, array) for name, array in before.items()}
    differing = {
        name: difference
        for name in before.keys() & after.keys()
        if (difference := difference_of(before[name], after[name])) is not None
    }
    # Settings and other attributes may be added or removed, but those in both recordings must agree.
    missing = {name for name in before.keys() - after.keys() if "attrs" not in name.split("/")}
    additional = {name for name in after.keys() - before.keys() if "attrs" not in name.split("/")}
    for name in sorted(differing):
        print(f"differs     {name}: {differing[name]}")
    for name in sorted(missing):
        print(f"missing     {name}")
    for name in sorted(additional):
        print(f"additional  {name}")
    equal = len(before.keys() & after.keys()) - len(differing)
    studies = {name.partition("/")[0] for name in before if not name.startswith("guard/")}
    print(
        f"{equal} of {len(before)} arrays of {len(studies)} studies are equal; {len(differing)} differ, "
        f"{len(missing)} are missing, {len(additional)} are additional."
    )
    return 1 if differing or missing or additional or not before else 0


def check(base: str, before: Path | None = None, only: list[str] | None = None) -> int:
    """Record and compare the base commit and this checkout, and return 1 if anything differs or a study fails."""
    with tempfile.TemporaryDirectory() as folder:
        before, failed = before or Path(folder) / "before.npz", 0
        if not before.exists():
            with _worktree(base, Path(folder) / "base") as checkout:
                print(f"Recording {base}", flush=True)
                failed = _record_elsewhere(before.resolve(), BASE_STUDIES, checkout, only)
        print("Recording this checkout", flush=True)
        after = Path(folder) / "after.npz"
        failed |= _record_elsewhere(after, STUDIES, ROOT, only)
        arrays = load(before)
        if only:
            arrays = {name: array for name, array in arrays.items() if name.partition("/")[0] in ("guard", *only)}
        return compare(arrays, load(after)) | failed


def renamed(name: str) -> str:
    """Return the current name of an array that was recorded with version 0.1.0."""
    if name in RENAMED:
        return RENAMED[name]
    study, *parts = name.split("/")
    return "/".join([study, *(RENAMED.get(part, part) for part in parts)])


def _with_current_optimizer(name: str, array: np.ndarray) -> np.ndarray:
    if not name.endswith("attrs/settings/optimizer"):
        return array
    return np.array([OPTIMIZERS.get(value, value) for value in array.ravel().tolist()]).reshape(array.shape)


def difference_of(before: np.ndarray, after: np.ndarray) -> str | None:
    """Describe how two arrays differ, or return None if the shape, the dtype and every bit are the same."""
    if before.shape != after.shape:
        return f"shape {before.shape} became {after.shape}"
    if before.dtype.kind == after.dtype.kind == "U":
        return _text_difference(before, after)
    if before.dtype != after.dtype:
        return f"dtype {before.dtype} became {after.dtype}"
    if before.tobytes() == after.tobytes():
        return None
    if before.dtype.kind in "biu":
        before, after = before.astype(np.float64), after.astype(np.float64)
    bits = np.array([a.tobytes() != b.tobytes() for a, b in zip(before.ravel(), after.ravel(), strict=True)])
    one_sided = int(np.sum(np.isnan(before) != np.isnan(after)))
    with np.errstate(all="ignore"):
        absolute = np.abs(after - before)
        relative = absolute / np.abs(before)
    worst = [float(np.max(values, initial=0.0, where=~np.isnan(values))) for values in (absolute, relative)]
    nan = f", {one_sided} NaN on one side only" if one_sided else ""
    return f"{bits.sum()} of {bits.size} values, at most {worst[0]:.3g} absolute, {worst[1]:.3g} relative{nan}"


def _text_difference(before: np.ndarray, after: np.ndarray) -> str | None:
    replaced = np.array([_renamed_text(str(text)) for text in before.ravel()], str).reshape(before.shape)
    pairs = list(zip(replaced.ravel().tolist(), after.ravel().tolist(), strict=True))
    if (replaced != before).any():
        # Longer names shift the columns of a table.
        pairs = [(" ".join(old.split()), " ".join(new.split())) for old, new in pairs]
    differing = [(old, new) for old, new in pairs if old != new]
    if not differing:
        return None
    old, new = differing[0]
    return f"{len(differing)} of {len(pairs)} texts, the first of them {old!r} became {new!r}"


def _renamed_text(text: str) -> str:
    text = re.sub(r"\w+", lambda word: RENAMED.get(word[0], word[0]), text)
    for old, new in TITLES.items():
        text = text.replace(old, new)
    return text


def _record_elsewhere(out: Path, module: str, checkout: Path, only: list[str] | None) -> int:
    """Record the studies in a separate process that imports lazynet from `checkout`."""
    command = [sys.executable, str(HERE), "record", str(out), "--module", module, "--checkout", str(checkout)]
    code = subprocess.run([*command, *(["--only", *only] if only else [])], cwd=checkout).returncode
    if not out.exists():
        raise SystemExit(f"The studies of {checkout} were not recorded: the process ended with exit code {code}.")
    return code


@contextlib.contextmanager
def _worktree(commit: str, folder: Path) -> Iterator[Path]:
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("studies", file)
    if spec is None or spec.loader is None or not file.exists():
        raise SystemExit(f"{file} is not a module with studies.")
    module = importlib.util.module_from_spec(spec)
    # Both modules get the same name, because results may record the module of a function.
    sys.modules["studies"] = module
    spec.loader.exec_module(module)
    return module


def _check_import(checkout: Path) -> None:
    import lazynet

    where = Path(str(lazynet.__file__)).resolve()
    if not where.is_relative_to(checkout.resolve()):
        raise SystemExit(f"lazynet was imported from {where}, not from {checkout}.")


def _chosen(studies: tuple[Callable[[], Arrays], ...], only: list[str] | None) -> list[Callable[[], Arrays]]:
    names = [study.__name__ for study in studies]
    unknown = [name for name in only or [] if name not in names]
    if unknown:
        raise SystemExit(f"--only must name studies among {', '.join(names)}, got {', '.join(unknown)}.")
    return [study for study in studies if not only or study.__name__ in only]


if __name__ == "__main__":
    sys.exit(main())
