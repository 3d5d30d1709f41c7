"""Benchmarks for lazynet: `python -m benchmarks NAME [--json FILE] [flags]`; NAME --help lists the flags."""

import argparse
import ast
import importlib
import sys
import time
from pathlib import Path

SHARED = ("__init__", "__main__", "timing")


def benchmarks() -> dict[str, str]:
    """Return the first line of each benchmark's docstring, keyed by name, without importing the benchmark."""
    paths = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem not in SHARED]
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}
    return {name: (doc or "").partition("\n")[0] for name, doc in docs.items()}


def main(arguments: list[str]) -> int:
    """Run a benchmark and return the exit code."""
    titles = benchmarks()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, "", *(f"  {name:<20} {line}" for name, line in titles.items()), sep="\n")
        return 0
    name, *flags = arguments
    if name not in titles:
        print(f"NAME must be one of {', '.join(titles)}, got {name!r}.", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    shared_flags, own_flags = parser.parse_known_args(flags)

    # These imports come late, because listing the benchmarks requires neither tyro nor JAX.
    import tyro

    from benchmarks.timing import write_json

    module = importlib.import_module(f"benchmarks.{name}")
    description = f"{titles[name]} `--json FILE` also writes the result to a file."
    begin = time.perf_counter()
    try:
        report = tyro.cli(module.run, args=own_flags, prog=parser.prog, description=description)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - begin
    module.show(report)
    print(f"{seconds:.0f} s in total.")
    if shared_flags.json:
        write_json(shared_flags.json, name, report, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
