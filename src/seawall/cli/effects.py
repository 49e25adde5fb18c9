"""`seawall effects`: reconcile effects of unknown outcome; export and verify the audit records."""

import argparse
import asyncio
import getpass
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_config, add_group, add_json, name, plural
from seawall.cli.stored import (
    CALL_SECONDS,
    Output,
    add_page,
    date,
    json_text,
    opened_store,
    print_json,
    print_page,
    run_command,
)
from seawall.cli.terminal import color
from seawall.errors import NotFound
from seawall.printable import printable
from seawall.storage.audit import missing_before, verify

if TYPE_CHECKING:
    from seawall.storage.port import AuditRecord, SessionStore, Wait

__all__ = ["add_parser"]

_RECORDS = 500  # that are read at a time


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "effects",
        "list and resolve effects of unknown outcome; export and verify the record",
        "An effect is a call of a tool that changes something. Its outcome is unknown if it was "
        "begun and neither an answer nor a check has said what became of it: nothing repeats it "
        "until its outcome is recorded here. Servers may use the store at the same time.",
    )
    listing = _add(commands, "list", _list, "list effects of unknown outcome of a tenant")
    listing.add_argument(
        "--approvals", action="store_true", help="list calls that wait for approval instead"
    )
    add_page(listing, "effects")
    show = _add(commands, "show", _show, "show an effect and its records")
    show.add_argument("effect", metavar="EFFECT", help="id of the effect")
    resolve = _add(
        commands,
        "resolve",
        _resolve,
        "record what became of an effect",
        "Record what became of an effect of unknown outcome. A retry of its turn continues with "
        "this outcome, and the model of the session's next turn is shown it.",
    )
    resolve.add_argument("effect", metavar="EFFECT", help="id of the effect")
    outcome = resolve.add_mutually_exclusive_group(required=True)
    outcome.add_argument("--done", action="store_true", help="it has changed something")
    outcome.add_argument("--not-done", action="store_true", help="it has changed nothing")
    resolve.add_argument("--result", default="", help="with --done: the result, for the model")
    resolve.add_argument("--note", default="", help="kept in the record")
    resolve.add_argument(
        "--by", type=name, help="who has found it out (default: the user of this machine)"
    )
    export = _add(
        commands,
        "export",
        _export,
        "export the records of effects and decisions, as JSON lines",
        "Write one JSON object for each record, those of a session together and in order: of one "
        "tenant or of all.",
    )
    export.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write, readable by its owner only (default: standard output)",
    )
    _add(
        commands,
        "verify",
        _verify,
        "check that no record was changed or removed",
        "Recompute the chain of hashes of each session. The status is 1 if a record was changed or "
        "is missing; the first such fault is named. Records that have expired are not missing.",
    )


def _add(
    commands: "Commands[Parser]",
    word: str,
    run: Callable[[argparse.Namespace], Awaitable[int]],
    summary: str,
    description: str = "",
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        word, help=summary, description=description or f"{summary[0].upper()}{summary[1:]}."
    )
    of_all = word in ("export", "verify")
    default = " (default: all)" if of_all else ""
    parser.add_argument("--tenant", required=not of_all, type=name, help=f"tenant{default}")
    add_config(parser, "the store")
    if word != "export":
        add_json(parser)
    parser.set_defaults(run=lambda arguments: asyncio.run(run_command(run, arguments)))
    return parser


async def _list(arguments: argparse.Namespace) -> int:
    found: list[Wait] = []
    cursor = arguments.cursor
    async with opened_store(arguments) as store:
        while len(found) < arguments.limit:
            room = arguments.limit - len(found)
            async with asyncio.timeout(CALL_SECONDS):
                page = await store.waits(arguments.tenant, limit=room, cursor=cursor)
            found += [
                each
                for each in page.waits
                if (each.kind == "unknown") != arguments.approvals and each.decision is None
            ]
            cursor = page.cursor
            if cursor is None:
                break
    if arguments.json:
        print_json({"effects": found, "cursor": cursor})
        return 0
    if not found:
        waits = "wait for approval" if arguments.approvals else "are of unknown outcome"
        sys.stdout.write(f"No effects {waits}.\n")
        return 0
    width = max(len(each.id) for each in found)
    lines = [color(f"{'effect':{width}}  {'since':20}  subject, tool and arguments", "bold")]
    lines += [
        f"{printable(each.id):{width}}  {date(each.created_at)}  "
        f"{printable(each.key.subject)}: {printable(each.tool)}({printable(each.arguments)})"
        for each in found
    ]
    print_page(lines, cursor)
    return 0


async def _show(arguments: argparse.Namespace) -> int:
    async with opened_store(arguments) as store:
        async with asyncio.timeout(CALL_SECONDS):
            wait = await store.find_wait(arguments.tenant, arguments.effect)
        records = [
            each async for each in _records(store, arguments) if each.effect == arguments.effect
        ]
    if wait is None and not records:
        raise NotFound("There is no such effect of this tenant.")
    if arguments.json:
        print_json({"waits": _redacted(wait), "records": records})
        return 0
    first = wait if wait is not None else records[0]
    lines = [
        f"effect {printable(arguments.effect)} of {printable(first.key.subject)}",
        f"session {printable(first.key.session)}, turn {printable(first.turn)}",
        f"{printable(first.tool)}({printable(first.arguments)}), agent {printable(first.agent)}",
    ]
    if wait is not None:
        what = "outcome unknown" if wait.kind == "unknown" else f"waits for {wait.kind}"
        lines.append(f"{what} since {date(wait.created_at)}")
    lines += [_line(each) for each in records]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _redacted(wait: "Wait | None") -> "Wait | None":
    """A wait as it may be shown: the arguments of its decision are in the records, redacted."""
    if wait is None or wait.decision is None:
        return wait
    from msgspec import structs  # noqa: PLC0415 - only what this command needs

    decision = structs.replace(wait.decision, arguments="")
    return structs.replace(wait, decision=decision)


def _line(record: "AuditRecord") -> str:
    text = f"{date(record.at)}  {record.kind} {record.status}"
    if record.kind == "decision" and record.decision is not None:
        text += f" by {record.decision.by or 'the system'}"
        text += f": {record.decision.note}" if record.decision.note else ""
    elif record.outcome:
        text += f": {record.outcome}"
    return printable(text)


async def _resolve(arguments: argparse.Namespace) -> int:
    from seawall.pipeline.decisions import resolve_effect  # noqa: PLC0415 - only needed here
    from seawall.turn import Decision  # noqa: PLC0415 - likewise

    if arguments.result and not arguments.done:
        arguments.parser.error("--result: goes with --done only")
    verdict = "done" if arguments.done else "not-done"
    by = arguments.by or getpass.getuser()
    decision = Decision(verdict, by, time.time(), arguments.note, result=arguments.result)
    async with opened_store(arguments) as store, asyncio.timeout(CALL_SECONDS):
        wait = await store.find_wait(arguments.tenant, arguments.effect)
        if wait is None or wait.kind != "unknown":
            raise NotFound("There is no such effect of unknown outcome of this tenant.")
        await resolve_effect(store, wait, decision)
    if arguments.json:
        print_json({"effect": wait.id, "turn": wait.turn, "decision": decision})
    else:
        sys.stdout.write(f"recorded {verdict} of {printable(wait.id)} by {printable(by)}\n")
    return 0


async def _export(arguments: argparse.Namespace) -> int:
    count = 0
    with Output(arguments.output) as write:
        async with opened_store(arguments) as store:
            async for record in _records(store, arguments):
                write(json_text(record).encode() + b"\n")
                count += 1
    sys.stderr.write(f"exported {plural(count, 'record')}\n")
    return 0


async def _verify(arguments: argparse.Namespace) -> int:
    count = sessions = expired = 0
    fault: str | None = None
    async with opened_store(arguments) as store:
        async for chain in _chains(store, arguments):
            count, sessions = count + len(chain), sessions + 1
            expired += missing_before(chain)
            if (found := verify(chain)) is not None:
                fault = f"session {chain[0].key.session}: {found}"
                break
    if arguments.json:
        totals = {"records": count, "sessions": sessions, "expired": expired}
        print_json(totals | {"fault": fault})
    elif fault is not None:
        sys.stdout.write(f"{printable(fault)}\n")
    else:
        of = f"{plural(count, 'record')} of {plural(sessions, 'session')}"
        older = f"; {plural(expired, 'older one')} expired" if expired else ""
        sys.stdout.write(f"{of}: nothing was changed{older}\n")
    return 0 if fault is None else 1


async def _chains(
    store: "SessionStore", arguments: argparse.Namespace
) -> "AsyncGenerator[list[AuditRecord], None]":
    """The records of each session."""
    chain: list[AuditRecord] = []
    async for record in _records(store, arguments):
        if chain and chain[-1].key != record.key:
            yield chain
            chain = []
        chain.append(record)
    if chain:
        yield chain


async def _records(
    store: "SessionStore", arguments: argparse.Namespace
) -> "AsyncGenerator[AuditRecord, None]":
    cursor = None
    while True:
        async with asyncio.timeout(CALL_SECONDS):
            page = await store.audit(tenant=arguments.tenant, limit=_RECORDS, cursor=cursor)
        for record in page.records:
            yield record
        cursor = page.cursor
        if cursor is None:
            return
