"""`seawall budgets`: what tenants have spent of their budgets, and what is left."""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_config, add_group, add_json, name
from seawall.cli.terminal import color
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.budgets.budgets import BudgetState
    from seawall.config import Settings

__all__ = ["add_parser"]

_CALL_SECONDS = 30.0


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(subparsers, "budgets", "show what tenants have spent, and what is left")
    show = commands.add_parser(
        "show",
        help="show the budgets of the current day and month",
        description="Show budgets in their current windows: of one tenant, or of all that have a "
        "table of their own in the configuration. Used is what was spent and what running servers "
        "have reserved.",
    )
    show.add_argument(
        "--tenant", type=name, help="tenant (default: all that the configuration names)"
    )
    add_config(show, "the budgets and the store")
    add_json(show)
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.config import load_settings  # noqa: PLC0415

    settings = load_settings(arguments.config)
    tenants = [arguments.tenant] if arguments.tenant else sorted(settings.budgets.tenants)
    try:
        states = asyncio.run(_read(settings, tenants))
    except TimeoutError:
        sys.stderr.write("seawall: The session store did not answer in time.\n")
        return 1
    if arguments.json:
        sys.stdout.write(msgspec.json.encode({"budgets": states}).decode() + "\n")
    elif states:
        heading, *lines = _table(states)
        sys.stdout.write("\n".join((color(heading, "bold"), *lines)) + "\n")
    else:
        sys.stdout.write("There are no budgets.\n")
    return 0


async def _read(settings: "Settings", tenants: list[str]) -> "list[BudgetState]":
    from seawall.budgets.budgets import read_budgets  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import open_store, require_existing_store  # noqa: PLC0415

    require_existing_store(settings.sessions)
    async with asyncio.timeout(_CALL_SECONDS):
        store = await open_store(settings.sessions)
        try:
            counters = store.counters()
            await counters.open()
            now = time.time()
            return [
                state
                for tenant in tenants
                for state in await read_budgets(settings.budgets, counters, tenant, now)
            ]
        finally:
            await store.close()


def _table(states: "list[BudgetState]") -> list[str]:
    rows = [("tenant", "budget", "used", "left", "limit", "renews")]
    for each in states:
        digits = 0 if each.budget.startswith("tokens") else 4
        numbers = (f"{number:,.{digits}f}" for number in (each.used, each.left, each.limit))
        renews = datetime.fromtimestamp(each.renews_at, UTC).strftime("%Y-%m-%d %H:%MZ")
        used, left, limit = numbers
        rows.append((each.tenant, each.budget, used, left, limit, renews))
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{tenant:{width}}  {budget:16}  {used:>16}  {left:>16}  {limit:>16}  {renews}"
        for tenant, budget, used, left, limit, renews in rows
    ]
    return [printable(line) for line in lines]
