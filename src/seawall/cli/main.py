"""`seawall`: finds the command and runs it. Commands import what they need when they run."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from seawall.cli.output import discard_unwritten, prepare_streams
from seawall.cli.parser import Parser, move_options_first
from seawall.errors import ConfigError, InvalidRequest, SeawallError
from seawall.hosts.logs import FORMAT, FORMATS, LEVEL, LEVELS, set_up_logs
from seawall.printable import printable

__all__ = ["main"]

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
    "sessions": "sessions",
    "budgets": "budgets",
    "intents": "intents",
    "keys": "keys",
    "lambda": "lambda_build",
    "ship": "ship",
}
_GLOBAL_OPTIONS = {"--log-level": LEVEL, "--log-format": FORMAT}
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_LONGEST_ERROR = 2_000
_INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than all else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"seawall {version('seawall')}")
        parser.exit()


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 failed, 2 used or configured wrongly."""
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        status = _INTERRUPTED
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
    parser = _parser(words)
    parsed, unknown = parser.parse_known_args(move_options_first(words, list(_GLOBAL_OPTIONS)))
    if unknown:
        parsed.parser.refuse(unknown)
    try:
        set_up_logs({LEVEL: parsed.log_level, FORMAT: parsed.log_format})
        return int(parsed.run(parsed))
    except SeawallError as error:
        _print_error(str(error))
        return 2 if isinstance(error, ConfigError | InvalidRequest) else 1


def _parser(words: Sequence[str]) -> Parser:
    parser = Parser(
        prog="seawall",
        description="An AI orchestrator that behaves predictably when everyone arrives at once.",
        epilog="--log-level and --log-format may stand after the command as well.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    parser.add_argument(
        "--log-level",
        type=str.lower,
        default=os.environ.get(LEVEL, ""),
        choices=LEVELS,
        help="what is logged to standard error, SEAWALL_LOG_LEVEL in the environment "
        "(default: warning)",
    )
    parser.add_argument(
        "--log-format",
        type=str.lower,
        default=os.environ.get(FORMAT, ""),
        choices=FORMATS,
        help="how, SEAWALL_LOG_FORMAT in the environment (default: text)",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _commands_needed(move_options_first(words, list(_GLOBAL_OPTIONS))):
        import_module(f"seawall.cli.{_COMMANDS[name]}").add_parser(subparsers)
    return parser


def _commands_needed(words: Sequence[str]) -> list[str]:
    """The command that is asked for; all of them where it is not clear, for help and errors."""
    first = next((word for word in words if not word.startswith("-")), "")
    return [first] if first in _COMMANDS else list(_COMMANDS)


def _print_error(message: str) -> None:
    """An error, on standard error; control characters of what others wrote are escaped."""
    text = printable(message, keep="\n")
    if len(text) > _LONGEST_ERROR:
        text = f"{text[:_LONGEST_ERROR]} ..."
    print(f"seawall: {text}", file=sys.stderr)
