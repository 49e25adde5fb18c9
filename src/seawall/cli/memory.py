"""`seawall memory`: list, show and delete what is remembered of subjects."""

import argparse
import asyncio
import getpass
import sys
import time
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_group, name, plural
from seawall.cli.stored import (
    CALL_SECONDS,
    add_owner_command,
    add_page,
    confirmed,
    date,
    opened_store,
    print_json,
    print_page,
)
from seawall.cli.terminal import color
from seawall.printable import printable
from seawall.storage.memory_edits import (
    delete_all_facts,
    delete_fact,
    fact_fields,
    list_facts,
    show_fact,
)

if TYPE_CHECKING:
    from seawall.storage.facts import Fact
    from seawall.turn import Principal

__all__ = ["add_parser"]

_AUTHORS = {"agent": "an agent", "subject": "the user"}


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "memory",
        "list, show, delete or erase what is remembered of users",
        "Manage the facts that agents with a memory have kept about users, in the store that the "
        "configuration names. Servers may use it at the same time.",
    )
    listing = add_owner_command(
        commands,
        "list",
        _list,
        "list the facts about a subject, or the subjects of whom there are any",
        "List the facts about a subject. Without --subject: the subjects of whom there are facts, "
        "of one tenant or of all; it reads the whole store.",
    )
    add_page(listing, "subjects")
    show = add_owner_command(commands, "show", _show, "show a fact and where it is from")
    show.add_argument("fact", metavar="FACT", help="id of the fact")
    delete = add_owner_command(commands, "delete", _delete, "delete a fact")
    delete.add_argument("fact", metavar="FACT", help="id of the fact")
    erase = add_owner_command(commands, "erase", _erase, "delete all facts about a subject")
    for changing in (delete, erase):
        changing.add_argument(
            "--by", type=name, help="who does it (default: the user of this machine)"
        )
        changing.add_argument("--yes", action="store_true", help="do not ask for confirmation")


async def _list(arguments: argparse.Namespace) -> int:
    if arguments.subject is None:
        return await _list_subjects(arguments)
    if arguments.tenant is None:
        arguments.parser.error("--subject: give --tenant as well")
    async with opened_store(arguments) as store, asyncio.timeout(CALL_SECONDS):
        facts = await list_facts(store, _owner(arguments))
    if arguments.json:
        print_json({"facts": [fact_fields(each) for each in facts]})
        return 0
    if not facts:
        sys.stdout.write("Nothing is remembered.\n")
        return 0
    width = max(len(each.id) for each in facts)
    key = max(len("key"), *(len(each.key) for each in facts))
    lines = [color(f"{'fact':{width}}  {'key':{key}}  {'expires':20}  text", "bold")]
    lines += [
        f"{printable(each.id):{width}}  {printable(each.key):{key}}  {date(each.expires_at)}  "
        f"{printable(each.text)}"
        for each in facts
    ]
    print_page(lines, None)
    return 0


async def _list_subjects(arguments: argparse.Namespace) -> int:
    """Print the subjects of whom there are facts."""
    from seawall.storage.memory import current_facts  # noqa: PLC0415 - only needed here

    found: list[dict[str, object]] = []
    cursor, now = arguments.cursor, time.time()
    async with opened_store(arguments) as store:
        facts = store.facts()
        while len(found) < arguments.limit:
            async with asyncio.timeout(CALL_SECONDS):
                page = await facts.page(limit=arguments.limit - len(found), cursor=cursor)
            for each in page.memories:
                count = len(current_facts(each.memory, now))
                if count and arguments.tenant in (None, each.owner.tenant):
                    found.append(
                        {
                            "tenant": each.owner.tenant,
                            "subject": each.owner.subject,
                            "facts": count,
                        }
                    )
            cursor = page.cursor
            if cursor is None:
                break
    if arguments.json:
        print_json({"subjects": found, "cursor": cursor})
        return 0
    if not found:
        print_page(["Nothing is remembered of anybody here."], cursor)
        return 0
    rows = [(printable(str(each["tenant"])), printable(str(each["subject"]))) for each in found]
    tenant = max(len("tenant"), *(len(row[0]) for row in rows))
    subject = max(len("subject"), *(len(row[1]) for row in rows))
    lines = [color(f"{'tenant':{tenant}}  {'subject':{subject}}  facts", "bold")]
    lines += [
        f"{row[0]:{tenant}}  {row[1]:{subject}}  {each['facts']:>5}"
        for row, each in zip(rows, found, strict=True)
    ]
    print_page(lines, cursor)
    return 0


async def _show(arguments: argparse.Namespace) -> int:
    async with opened_store(arguments) as store, asyncio.timeout(CALL_SECONDS):
        fact = await show_fact(store, _owner(arguments), arguments.fact)
    if arguments.json:
        print_json(fact_fields(fact))
    else:
        sys.stdout.write("\n".join(map(printable, _lines(fact))) + "\n")
    return 0


def _lines(fact: "Fact") -> list[str]:
    origin = "the user said so" if fact.said else "concluded by an agent"
    return [
        f"fact {fact.id}: {fact.key}",
        fact.text,
        f"version {fact.version} by {_AUTHORS[fact.by]}; {origin}",
        f"remembered by {fact.agent} in session {fact.session}, turn {fact.turn or '-'}",
        f"created {date(fact.created_at)}, updated {date(fact.updated_at)}",
        f"expires {date(fact.expires_at)}",
    ]


async def _delete(arguments: argparse.Namespace) -> int:
    by = arguments.by or getpass.getuser()
    async with opened_store(arguments) as store:
        if not confirmed(arguments, f"Delete the fact {printable(arguments.fact)} permanently?"):
            return 1
        async with asyncio.timeout(CALL_SECONDS):
            await delete_fact(store, _owner(arguments), arguments.fact, by="operator", name=by)
    if arguments.json:
        print_json({"deleted": arguments.fact})
    else:
        sys.stdout.write(f"deleted {printable(arguments.fact)}\n")
    return 0


async def _erase(arguments: argparse.Namespace) -> int:
    by = arguments.by or getpass.getuser()
    of = f"the subject {arguments.subject} of the tenant {arguments.tenant}"
    async with opened_store(arguments) as store:
        if not confirmed(arguments, f"Delete all facts about {of} permanently?"):
            return 1
        async with asyncio.timeout(CALL_SECONDS):
            count = await delete_all_facts(store, _owner(arguments), by="operator", name=by)
    if arguments.json:
        print_json({"erased": count})
    else:
        sys.stdout.write(f"erased {plural(count, 'fact')} about {of}\n")
    return 0


def _owner(arguments: argparse.Namespace) -> "Principal":
    from seawall.turn import Principal  # noqa: PLC0415 - only what this command needs

    return Principal(arguments.tenant, arguments.subject)
