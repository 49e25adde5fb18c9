"""`seawall`: finds the command and runs it. Commands import what they need when they run."""

import argparse
import os
import sys
from importlib.metadata import version

from seawall.cli import (
    budgets,
    demo,
    intents,
    keys,
    lab,
    lambda_build,
    plan,
    serve,
    sessions,
    ship,
    sim_model,
    surge,
)
from seawall.errors import ConfigError, InvalidRequest, SeawallError
from seawall.hosts.logs import FORMAT, LEVEL, set_up_logs

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 failed, 2 used or configured wrongly."""
    parser = argparse.ArgumentParser(
        prog="seawall",
        description="An AI orchestrator that behaves predictably when everyone arrives at once.",
    )
    parser.add_argument("--version", action="version", version=f"seawall {version('seawall')}")
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
    commands = (
        *(demo, serve, plan, surge, lab, sim_model),
        *(sessions, budgets, intents, keys, lambda_build, ship),
    )
    for command in commands:
        command.add_parser(subparsers)
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
