"""The command line, with one module for each group of commands."""

import contextlib
import gc
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

from lazynet.arguments import printable
from lazynet.cli._common import BAD_INPUT, INTERRUPTED, Stopped
from lazynet.cli._datasets import DataCommand
from lazynet.cli._limits import Complexity, LimitCommand
from lazynet.cli._papers import Reproduce
from lazynet.cli._sweeps import Merge, Status, Sweep
from lazynet.cli._width import Width
from lazynet.data import cache_folder
from lazynet.hosts import stop

DESCRIPTION = """Determine whether an over-parameterized neural network is in the kernel (lazy) regime.

For help on a command, run lazynet COMMAND --help. Exit codes: 0 success; 1 failed check; 2 bad input; 3 time limit
reached (the run can be resumed); 130 interrupted."""

# Errors caused by bad input. Any other error is a bug, and its traceback is shown.
EXPECTED_ERRORS = (ValueError, OSError)

Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep", prefix_name=False)]
    | Annotated[Width, tyro.conf.subcommand("width", prefix_name=False)]
    | Annotated[Merge, tyro.conf.subcommand("merge", prefix_name=False)]
    | Annotated[Status, tyro.conf.subcommand("status", prefix_name=False)]
    | Annotated[LimitCommand, tyro.conf.subcommand("infinite-width", prefix_name=False)]
    | Annotated[Complexity, tyro.conf.subcommand("complexity", prefix_name=False)]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce", prefix_name=False)]
    | Annotated[DataCommand, tyro.conf.subcommand("data", prefix_name=False)]
)


def start(arguments: list[str] | None = None) -> int:
    """Run `lazynet` with process-wide settings that speed up startup and compilation.

    Compiled programs are kept in the user's cache for later runs. They do not include Python call stacks, which take
    time to record. Garbage collection runs rarely, because most objects live until the process ends.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / _processor()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return main(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code.

    Args:
        arguments: Command-line arguments after `lazynet`; defaults to `sys.argv[1:]`.
    """
    command = parse(arguments)
    if command is None:
        return BAD_INPUT
    with warnings.catch_warnings(), contextlib.redirect_stdout(_Printed(sys.stdout)):
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
        try:
            return int(command.run())
        except Stopped as stopped:
            _say(str(stopped))
            return stopped.code
        except KeyboardInterrupt:
            _say("interrupted; nothing was written")
            return INTERRUPTED
        except EXPECTED_ERRORS as error:
            stop(error)
            _say(" ".join(str(error).split()))
            return BAD_INPUT


def _say(message: str) -> None:
    """Print a message to stderr."""
    print(printable(f"lazynet: {message}"), file=sys.stderr)


class _Printed(io.TextIOBase):
    """A text stream that escapes control characters, such as those in file names, before passing the text on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text with its control characters escaped, and return the length of the original text."""
        self._stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return bool(self._stream.isatty())


def parse(arguments: list[str] | None) -> Any:
    """Return the command that the arguments specify; if they are invalid, print one line to stderr and return None."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                Command,
                prog="lazynet",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code != BAD_INPUT:
            raise
    # tyro prints a box with a title, the message, a horizontal rule and the flag's help. In an ASCII box, a rule also
    # follows the title.
    lines = [line.strip("│╭╮╰╯ ") for line in stderr.getvalue().splitlines()[1:]]
    below_title = itertools.dropwhile(_is_rule, lines)
    message = itertools.takewhile(lambda line: line and not _is_rule(line), below_title)
    text = " ".join(message) or " ".join(stderr.getvalue().split())
    _say(f"{text}; see lazynet --help")
    return None


def _processor() -> str:
    """Return a name for the processor type; machines that share a home directory may have different processors."""
    description = platform.machine() + platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        description += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(description.encode()).hexdigest()[:16]


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")
