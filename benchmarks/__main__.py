"""Benchmarks of lazynet. Run one with `python -m benchmarks NAME [--json FILE] [its own flags, see NAME --help]`."""

import argparse
import ast
import importlib
import sys
import time
from pathlib import Path

SHARED = ("__init__", "__main__", "timing")


def benchmarks() -> dict[str, str]:
    """Each benchmark's name and the first line of its docstring, read without importing it."""
    paths = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem not in SHARED]
    docs = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}
    return {name: (doc or "").partition("\n")[0] for name, doc in docs.items()}


def main(arguments: list[str]) -> int:
    found = benchmarks()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, "", *(f"  {name:<20} {line}" for name, line in found.items()), sep="\n")
        return 0
    name, *flags = arguments
    if name not in found:
        print(f"There is no benchmark {name!r}; there are {', '.join(found)}.", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    known, own_flags = parser.parse_known_args(flags)

    # Only here, so that the list does not wait for JAX.
    import tyro

    from benchmarks.timing import write_json

    module = importlib.import_module(f"benchmarks.{name}")
    description = f"{found[name]} `--json FILE` writes the result to a file too."
    begin = time.perf_counter()
    try:
        report = tyro.cli(module.run, args=own_flags, prog=parser.prog, description=description)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - begin
    module.show(report)
    print(f"{seconds:.0f} s in all.")
    if known.json:
        write_json(known.json, name, report, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
