"""The command `seawall`: parses the command line and runs a command.

Commands import what they need when they run, so that each starts quickly.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from seawall.cli.arguments import Parser, move_options_first
from seawall.cli.terminal import INTERRUPTED, color, discard_unwritten, prepare_streams
from seawall.errors import ConfigError, InvalidRequest, SeawallError
from seawall.hosts.logs import FORMAT, FORMATS, LEVEL, LEVELS, set_up_logs
from seawall.printable import printable

__all__ = ["build_parser", "main"]

# Each command and the module that adds it, in the order of `seawall --help`.
_COMMANDS = {
    "init": "init",
    "demo": "demo",
    "chat": "chat",
    "doctor": "doctor",
    "serve": "serve",
    "plan": "plan",
    "surge": "surge",
    "lab": "lab",
    "sim-model": "sim_model",
    "tools": "tools",
    "knowledge": "knowledge",
    "sessions": "sessions",
    "memory": "memory",
    "effects": "effects",
    "budgets": "budgets",
    "intents": "intents",
    "keys": "keys",
    "lambda": "lambda_build",
    "ship": "ship",
    "completion": "completion",
}
_GLOBAL_OPTIONS = {"--log-level": LEVEL, "--log-format": FORMAT}
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_MAX_ERROR_CHARACTERS = 2_000


class _Version(argparse.Action):
    """Reads the version only when it is printed: that takes longer than everything else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"seawall {version('seawall')}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: The words after `seawall`; those of this process by default.

    Returns:
        The exit status: 0 for success and for help, 1 for a failure, 2 for a wrong command line
        or configuration, 130 after Ctrl-C.
    """
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would be a traceback
        status = INTERRUPTED
    except BrokenPipeError:
        status = 1
    except OSError as error:
        if error.filename is not None or error.errno not in _WRITE_ERRORS:
            raise
        _print_error(f"standard output: {error.strerror}")
        status = 1
    finally:
        discard_unwritten()
    return status


def _run(words: list[str]) -> int:
    words = move_options_first(words, list(_GLOBAL_OPTIONS))
    parser = build_parser(words)
    if not words:
        parser.print_help()
        return 0
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        parsed.parser.refuse(unknown)
    try:
        set_up_logs({LEVEL: parsed.log_level, FORMAT: parsed.log_format})
        return int(parsed.run(parsed))
    except SeawallError as error:
        _print_error(str(error))
        return 2 if isinstance(error, ConfigError | InvalidRequest) else 1


def build_parser(words: Sequence[str]) -> Parser:
    """Build the parser.

    Args:
        words: The command line. Only the command that it names is added; all of them, which takes
            longer, if it names none.
    """
    parser = Parser(
        prog="seawall",
        description="An AI orchestrator that behaves predictably when everyone arrives at once.",
        epilog="--log-level and --log-format may also follow the command. For the options of a "
        "command: seawall COMMAND --help",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--log-level",
        type=str.lower,
        default=os.environ.get(LEVEL, ""),
        choices=LEVELS,
        help="lowest level that is logged to standard error (default: SEAWALL_LOG_LEVEL, or "
        "warning)",
    )
    parser.add_argument(
        "--log-format",
        type=str.lower,
        default=os.environ.get(FORMAT, ""),
        choices=FORMATS,
        help="format of the log (default: SEAWALL_LOG_FORMAT, or text)",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _commands_needed(words):
        import_module(f"seawall.cli.{_COMMANDS[name]}").add_parser(subparsers)
    return parser


def _commands_needed(words: Sequence[str]) -> list[str]:
    """The command that the words name; all of them if there is none, for help and errors."""
    first = next((word for word in words if not word.startswith("-")), "")
    return [first] if first in _COMMANDS else list(_COMMANDS)


def _print_error(message: str) -> None:
    """Print an error on standard error, with control characters escaped."""
    text = printable(message, keep="\n")
    if len(text) > _MAX_ERROR_CHARACTERS:
        text = f"{text[:_MAX_ERROR_CHARACTERS]} ..."
    print(color("seawall:", "red", sys.stderr), text, file=sys.stderr)
