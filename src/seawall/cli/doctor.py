"""`seawall doctor`: is everything there that a server needs?"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import plural
from seawall.cli.terminal import color

if TYPE_CHECKING:
    from collections.abc import Callable

    from seawall.cli.checks import Check
    from seawall.config import Settings
    from seawall.orchestrator import Orchestrator

__all__ = ["add_parser"]

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a configuration and everything that it names",
        description="Check the configuration, every upstream, permissions, the clock, file limits "
        "and versions; open everything as a server does, with an empty store; then check OpenAPI "
        "documents and MCP servers as `seawall tools doctor` does. No model is asked for an answer "
        "and no tool is called. The exit status is 1 if a check failed.",
    )
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=Path("seawall.toml"),
        metavar="CONFIG",
        help="configuration file (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON array")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - only what this command needs

    import msgspec  # noqa: PLC0415

    from seawall.cli.checks import Check  # noqa: PLC0415
    from seawall.config import load_settings  # noqa: PLC0415

    settings = load_settings(arguments.config)
    found: list[Check] = []

    def report(check: Check) -> None:
        found.append(check)
        if not arguments.json:
            _write(check)

    report(Check("configuration", "ok", str(arguments.config)))
    asyncio.run(_check(settings, report))
    failed = sum(each.status == "failed" for each in found)
    if arguments.json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(found)) + "\n")
    else:
        warnings = sum(each.status == "warning" for each in found)
        sys.stdout.write(
            f"\n{plural(len(found), 'check')}: {failed} failed, {plural(warnings, 'warning')}\n"
        )
    return 1 if failed else 0


async def _check(settings: "Settings", report: "Callable[[Check], None]") -> None:
    from seawall.cli.checks import Check, run_checks  # noqa: PLC0415 - only what this command needs
    from seawall.errors import ConfigError  # noqa: PLC0415

    listed = False

    async def opened(app: "Orchestrator") -> None:
        """Check the sources that the start has listed."""
        nonlocal listed
        if (catalog := app.engine.catalog) is not None:
            from seawall.cli.tool_checks import check_listed  # noqa: PLC0415 - needs an extra

            listed = True
            await check_listed(settings, catalog, report)

    await run_checks(settings, report, opened)
    if listed or not settings.sources:
        return
    try:
        from seawall.cli.tool_checks import check_sources  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError:
        return  # the start has said which extra is missing
    try:
        await check_sources(settings, report)
    except ConfigError as error:
        report(Check("tools", "failed", str(error)))


def _write(check: "Check") -> None:
    from seawall.printable import printable  # noqa: PLC0415

    status = color(f"{check.status:<8}", _COLORS[check.status])
    sys.stdout.write(f"{status} {check.name}: {printable(check.detail)}\n")
    if check.advice:
        sys.stdout.write(f"{'':8} -> {printable(check.advice)}\n")
    sys.stdout.flush()
