"""The command line, with one module for each group of commands."""

import contextlib
import dataclasses
import gc
import hashlib
import io
import os
import platform
import re
import sys
import warnings
from typing import Annotated, Any, get_args

import jax
import tyro

import lazynet
from lazynet.arguments import printable
from lazynet.cli._common import BAD_INPUT, FAILED_CHECK, INTERRUPTED, Stopped
from lazynet.cli._datasets import DataCommand
from lazynet.cli._limits import Complexity, LimitCommand
from lazynet.cli._papers import Reproduce
from lazynet.cli._runs import Merge, Plot, Status, Verify
from lazynet.cli._sweeps import Sweep
from lazynet.cli._width import Width
from lazynet.data import cache_folder
from lazynet.hosts import stop

DESCRIPTION = """Determine whether an over-parameterized neural network is in the kernel (lazy) regime.

For help on a command, run lazynet COMMAND --help; for the version, run lazynet --version. Exit codes: 0 success;
1 failed check; 2 bad input; 3 time limit reached (the run can be resumed); 130 interrupted."""

# Errors caused by bad input. Any other error is a bug, and its traceback is shown.
EXPECTED_ERRORS = (ValueError, OSError)

Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep", prefix_name=False)]
    | Annotated[Width, tyro.conf.subcommand("width", prefix_name=False)]
    | Annotated[Verify, tyro.conf.subcommand("verify", prefix_name=False)]
    | Annotated[Plot, tyro.conf.subcommand("plot", prefix_name=False)]
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
    try:
        return main(arguments)
    except BrokenPipeError:
        # The reader of a pipe, such as head, has ended. Python would report it once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED_CHECK


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code.

    Args:
        arguments: Command-line arguments after `lazynet`; defaults to `sys.argv[1:]`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given == ["--version"]:
        print(f"lazynet {lazynet.__version__}")
        return 0
    try:
        command = parse(given)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(_Printed(sys.stdout)):
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: _say(f"warning: {with_flags(str(message), command)}")
        try:
            return int(command.run())
        except Stopped as stopped:
            _say(str(stopped))
            return stopped.code
        except KeyboardInterrupt:
            _say("interrupted; nothing was written")
            return INTERRUPTED
        except BrokenPipeError:
            raise
        except EXPECTED_ERRORS as error:
            stop(error)
            _say(with_flags(" ".join(str(error).split()), command))
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
    """Return the command that the arguments specify.

    Raises:
        SystemExit: If the arguments are invalid, after a message to stderr, or if they ask for help.
    """
    return tyro.cli(
        Command,
        prog="lazynet",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def with_flags(message: str, command: Any) -> str:
    """Return an error message in which flags replace the names of the arguments that they set.

    Args:
        message: The message.
        command: The command, whose fields and groups of fields define the flags.
    """
    defaults = _defaults(command)

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        # A switch that is on by default has only a flag that turns it off.
        if name not in defaults or (value == "True" and defaults[name] is True):
            return match[0]
        text = f"--{name.replace('_', '-')}"
        return {"": text, "True": text, "False": text.replace("--", "--no-")}.get(value, f"{text} {value}")

    # A word is the name of an argument if it has a value, is the subject of a rule, or contains an underscore.
    for pattern in (
        r"\b(?P<name>\w+)=(?P<value>[\w.]+\b)",
        r"(?<![-\w])(?P<name>\w+)(?P<value>)(?= must\b| is given\b)",
        r"(?<![-\w])(?P<name>[a-z]+(?:_[a-z]+)+)(?P<value>)\b",
    ):
        message = re.sub(pattern, flag, message)
    return message


def _defaults(command: Any) -> dict[str, Any]:
    """Return the default values of a command's flags, keyed by the names of their fields."""
    defaults: dict[str, Any] = {}
    for entry in dataclasses.fields(command):
        value = getattr(command, entry.name)
        if dataclasses.is_dataclass(value):
            defaults |= _defaults(value)
        elif tyro.conf.Positional not in get_args(entry.type):
            defaults[entry.name] = entry.default
    return defaults


def _processor() -> str:
    """Return a name for the processor type; machines that share a home directory may have different processors."""
    description = platform.machine() + platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        description += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(description.encode()).hexdigest()[:16]
