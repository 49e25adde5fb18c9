"""`seawall`: finds the command and runs it. Commands import what they need when they run."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from seawall.errors import ConfigError, InvalidRequest, SeawallError
from seawall.hosts.logs import FORMAT, LEVEL, set_up_logs

__all__ = ["main"]

# Each command and the module that adds it, in the order of `seawall --help`.
_COMMANDS = {
    "demo": "demo",
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


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than all else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"seawall {version('seawall')}")
        parser.exit()


def _named(arguments: Sequence[str]) -> list[str]:
    """The command that is asked for; all of them where it is not clear, for help and errors."""
    return [word for word in arguments if word in _COMMANDS][:1] or list(_COMMANDS)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 failed, 2 used or configured wrongly."""
    parser = argparse.ArgumentParser(
        prog="seawall",
        description="An AI orchestrator that behaves predictably when everyone arrives at once.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    parser.add_argument(
        "--log-level",
        default=os.environ.get(LEVEL, "warning"),
        choices=["debug", "info", "warning", "error"],
        help="what is logged to standard error, SEAWALL_LOG_LEVEL in the environment "
        "(default: warning)",
    )
    parser.add_argument(
        "--log-format",
        default=os.environ.get(FORMAT, "text"),
        choices=["text", "json"],
        help="how, SEAWALL_LOG_FORMAT in the environment (default: text)",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    words = sys.argv[1:] if arguments is None else arguments
    for name in _named(words):
        import_module(f"seawall.cli.{_COMMANDS[name]}").add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    set_up_logs({LEVEL: parsed.log_level, FORMAT: parsed.log_format})
    try:
        status: int = parsed.run(parsed)
    except SeawallError as error:
        print(f"seawall: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | InvalidRequest) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    return status
