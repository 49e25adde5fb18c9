"""`seawall`: finds the command and runs it. Commands import what they need when they run."""

import argparse
import logging
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
from seawall.telemetry.floods import FloodFilter

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
        default=os.environ.get("SEAWALL_LOG_LEVEL", "warning"),
        choices=["debug", "info", "warning", "error"],
        help="what is logged to standard error, SEAWALL_LOG_LEVEL in the environment "
        "(default: warning)",
    )
    parser.add_argument(
        "--log-format",
        default=os.environ.get("SEAWALL_LOG_FORMAT", "text"),
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
    logging.basicConfig(
        level=parsed.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if parsed.log_format == "json":
        from seawall.hosts.json_lines import JsonFormatter  # noqa: PLC0415 - only where wanted

        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    for handler in logging.getLogger().handlers:
        handler.addFilter(FloodFilter())
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
