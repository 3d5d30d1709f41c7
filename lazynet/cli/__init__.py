"""The command line: `lazynet sweep`, `merge`, `status`, `predict`, `complexity`, `reproduce` and `data`."""

import contextlib
import hashlib
import io
import itertools
import os
import platform
import sys
import warnings
from typing import Annotated, Any

import jax
import tyro

import lazynet as lz
from lazynet.cli._common import BAD_INPUT, INTERRUPTED
from lazynet.cli._datasets import DataCommand
from lazynet.cli._limits import Complexity, Predict
from lazynet.cli._papers import Reproduce
from lazynet.cli._sweeps import Merge, Status, Sweep
from lazynet.data._files import cache_folder

# What bad input raises; anything else is a defect and shows its traceback.
EXPECTED_ERRORS = (ValueError, OSError)


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep", prefix_name=False)]
    | Annotated[Merge, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[Status, tyro.conf.subcommand("status", prefix_name=False)]
    | Annotated[Predict, tyro.conf.subcommand("predict", prefix_name=False)]
    | Annotated[Complexity, tyro.conf.subcommand("complexity", prefix_name=False)]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce", prefix_name=False)]
    | Annotated[DataCommand, tyro.conf.subcommand("data", prefix_name=False)]
)


def start(arguments: list[str] | None = None) -> int:
    """The program `lazynet`: a command, with compiled programs kept in the user's cache from run to run."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / _processor()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return main(arguments)


def _processor() -> str:
    """A name for this kind of processor: machines that share a home folder may not run each other's programs."""
    said = platform.machine() + platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        said += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 for a failed check, 2 for bad input."""
    command = _parse(arguments)
    if command is None:
        return BAD_INPUT
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"lazynet: warning: {message}", file=sys.stderr)
        try:
            return command.run()
        except KeyboardInterrupt:
            print("lazynet: interrupted; nothing was written", file=sys.stderr)
            return INTERRUPTED
        except EXPECTED_ERRORS as error:
            print(f"lazynet: {' '.join(str(error).split())}", file=sys.stderr)
            return BAD_INPUT


def _parse(arguments: list[str] | None) -> Any:
    """The command that was typed; None, after one line on stderr, for one that cannot be read."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                prog="lazynet",
                description=lz.__doc__,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code != BAD_INPUT:
            raise
    # tyro draws a box with a title, the message, a rule and the flag's help; in ASCII with a rule below the title too.
    lines = [line.strip("│╭╮╰╯ ") for line in said.getvalue().splitlines()[1:]]
    below_title = itertools.dropwhile(_is_rule, lines)
    message = itertools.takewhile(lambda line: line and not _is_rule(line), below_title)
    said_in_short = " ".join(message) or " ".join(said.getvalue().split())
    print(f"lazynet: {said_in_short}; see lazynet --help", file=sys.stderr)
    return None


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")
