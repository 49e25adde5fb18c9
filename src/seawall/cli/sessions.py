"""`seawall sessions`: list, show, export, delete and migrate stored sessions."""

import argparse
import asyncio
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seawall.cli import sessions_migrate
from seawall.cli.arguments import (
    Commands,
    Parser,
    add_group,
    plural,
)
from seawall.cli.stored import (
    CALL_SECONDS,
    Output,
    add_owner_command,
    add_page,
    confirmed,
    date,
    opened_blobs,
    opened_store,
    print_json,
    print_page,
)
from seawall.cli.terminal import ProgressLine, color
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.storage.port import Session, TurnPage
    from seawall.turn import Principal, SessionKey

__all__ = ["add_parser"]

_ARCHIVES = 100  # sessions that the overview reads at a time

T = TypeVar("T")


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "sessions",
        "list, show, export, delete, erase or migrate sessions",
        "Manage the sessions in the store that the configuration names. Servers may use it at the "
        "same time.",
    )
    listing = add_owner_command(
        commands,
        "list",
        _list,
        "list the sessions of a subject, or all owners of sessions",
        "List the sessions of a subject, newest first. Without --subject: an overview of the "
        "owners of sessions, of one tenant or of all; it reads the whole store.",
    )
    add_page(listing, "sessions, or owners")
    show = add_owner_command(commands, "show", _show, "show a session and its newest turns")
    show.add_argument("session", metavar="SESSION", help="id of the session")
    add_page(show, "turns")
    export = add_owner_command(
        commands,
        "export",
        _export,
        "export sessions with all of their turns, as JSON lines",
        "Write one JSON object for each session, with all of its turns: for one session, or for "
        "all sessions of a subject. The facts about the subject, if there are any, are one more "
        "object, and so is each of its files.",
        json=False,
    )
    export.add_argument(
        "session", nargs="?", metavar="SESSION", help="id of the session (default: all)"
    )
    export.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write, readable by its owner only (default: standard output)",
    )
    delete = add_owner_command(
        commands, "delete", _delete, "delete a session and everything that belongs to it"
    )
    delete.add_argument("session", metavar="SESSION", help="id of the session")
    delete.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    erase = add_owner_command(
        commands,
        "erase",
        _erase,
        "delete everything that is stored about a subject",
        "Delete all sessions, idempotency records and facts of a subject permanently. Revoke the "
        "credentials of the subject first.",
    )
    erase.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    sessions_migrate.add_parser(commands)


async def _list(arguments: argparse.Namespace) -> int:
    if arguments.subject is None:
        return await _list_owners(arguments)
    if arguments.tenant is None:
        arguments.parser.error("--subject: give --tenant as well")
    async with opened_store(arguments) as store, asyncio.timeout(CALL_SECONDS):
        page = await store.sessions(
            _owner(arguments), limit=arguments.limit, cursor=arguments.cursor
        )
    if arguments.json:
        print_json({"sessions": [_as_json(each) for each in page.sessions], "cursor": page.cursor})
        return 0
    if not page.sessions:
        sys.stdout.write("There are no sessions.\n")
        return 0
    width = max(len(each.key.session) for each in page.sessions)
    heading = f"{'session':{width}}  {'turns':>6}  {'updated':20}  {'expires':20}  agent"
    lines = [color(heading, "bold")]
    lines += [
        (
            f"{printable(each.key.session):{width}}  {each.version:>6}  {date(each.updated_at)}  "
            f"{date(each.expires_at)}  {printable(each.agent or '-')}"
        )
        for each in page.sessions
    ]
    print_page(lines, page.cursor)
    return 0


async def _list_owners(arguments: argparse.Namespace) -> int:
    """Print the owners of sessions, the one with the newest session first."""
    if arguments.cursor is not None:
        arguments.parser.error("--cursor: give --tenant and --subject as well")
    owners: dict[tuple[str, str], _Owner] = {}
    progress = ProgressLine(only_terminal=True)
    cursor = None
    read = 0
    async with opened_store(arguments) as store:
        while True:
            async with asyncio.timeout(CALL_SECONDS):
                page = await store.archives(limit=_ARCHIVES, cursor=cursor)
            for archive in page.archives:
                session = archive.session
                if arguments.tenant in (None, session.key.tenant):
                    key = session.key.tenant, session.key.subject
                    owner = owners.setdefault(key, _Owner(*key))
                    owner.sessions += 1
                    owner.turns += session.version
                    owner.updated_at = max(owner.updated_at, session.updated_at)
            read += len(page.archives)
            progress.show(f"{plural(read, 'session')} read")
            cursor = page.cursor
            if cursor is None:
                break
    progress.end()
    _print_owners(arguments, sorted(owners.values(), key=lambda each: -each.updated_at))
    return 0


@dataclass
class _Owner:
    """What a subject has in the store."""

    tenant: str
    subject: str
    sessions: int = 0
    turns: int = 0
    updated_at: float = 0.0


def _print_owners(arguments: argparse.Namespace, owners: list[_Owner]) -> None:
    sessions, turns = sum(each.sessions for each in owners), sum(each.turns for each in owners)
    shown = owners[: arguments.limit]
    if arguments.json:
        totals = {"sessions": sessions, "turns": turns, "owners": len(owners)}
        print_json({"owners": [asdict(each) for each in shown], "total": totals})
        return
    if not owners:
        sys.stdout.write("There are no sessions.\n")
        return
    rows = [(printable(each.tenant), printable(each.subject), each) for each in shown]
    tenant = max(len("tenant"), *(len(row[0]) for row in rows))
    subject = max(len("subject"), *(len(row[1]) for row in rows))
    heading = f"{'tenant':{tenant}}  {'subject':{subject}}  {'sessions':>8}  {'turns':>8}  updated"
    lines = [color(heading, "bold")]
    lines += [
        f"{row[0]:{tenant}}  {row[1]:{subject}}  {row[2].sessions:>8,}  {row[2].turns:>8,}  "
        f"{date(row[2].updated_at)}"
        for row in rows
    ]
    if len(owners) > len(shown):
        lines.append(f"{plural(len(owners) - len(shown), 'more owner')}: see --limit")
    summary = f"{plural(sessions, 'session')} with {plural(turns, 'turn')}"
    lines.append(f"{summary} of {plural(len(owners), 'owner')}")
    sys.stdout.write("\n".join(lines) + "\n")


async def _show(arguments: argparse.Namespace) -> int:
    async with opened_store(arguments) as store, asyncio.timeout(CALL_SECONDS):
        page = await store.turns(_key(arguments), limit=arguments.limit, cursor=arguments.cursor)
    if arguments.json:
        print_json(_as_json(page.session) | {"turns": page.turns, "cursor": page.cursor})
    else:
        print_page(_transcript(page), page.cursor)
    return 0


async def _export(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.storage.export import (  # noqa: PLC0415
        export_files,
        export_session,
        export_subject,
    )
    from seawall.storage.memory_edits import fact_fields, list_facts  # noqa: PLC0415

    sessions = turns = facts = files = 0
    with Output(arguments.output) as write:
        async with opened_store(arguments) as store, opened_blobs(arguments) as blobs:
            if arguments.session is not None:
                exported = await export_session(store, _key(arguments))
                write(msgspec.json.encode(exported) + b"\n")
                sessions, turns = 1, len(exported.turns)
            else:
                async for exported in export_subject(store, _owner(arguments)):
                    write(msgspec.json.encode(exported) + b"\n")
                    sessions, turns = sessions + 1, turns + len(exported.turns)
                async with asyncio.timeout(CALL_SECONDS):
                    remembered = await list_facts(store, _owner(arguments))
                if remembered:
                    shown = {"facts": [fact_fields(each) for each in remembered]}
                    write(msgspec.json.encode(shown) + b"\n")
                    facts = len(remembered)
            if blobs is not None:
                async for file in export_files(blobs, _owner(arguments), arguments.session):
                    write(msgspec.json.encode(file) + b"\n")
                    files += 1
    also = f", {plural(facts, 'fact')}" if facts else ""
    also += f", {plural(files, 'file')}" if files else ""
    sys.stderr.write(f"exported {plural(sessions, 'session')} with {plural(turns, 'turn')}{also}\n")
    return 0


async def _delete(arguments: argparse.Namespace) -> int:
    async with opened_store(arguments) as store, opened_blobs(arguments) as blobs:
        if not confirmed(
            arguments, f"Delete the session {printable(arguments.session)} permanently?"
        ):
            return 1
        async with asyncio.timeout(CALL_SECONDS):
            await store.delete(_key(arguments))
            if blobs is not None:
                await blobs.delete_session(_key(arguments))
    if arguments.json:
        print_json({"deleted": arguments.session})
    else:
        sys.stdout.write(f"deleted {printable(arguments.session)}\n")
    return 0


async def _erase(arguments: argparse.Namespace) -> int:
    owner = _owner(arguments)
    of = f"the subject {owner.subject} of the tenant {owner.tenant}"
    async with opened_store(arguments) as store, opened_blobs(arguments) as blobs:
        if not confirmed(arguments, f"Delete everything that is stored about {of} permanently?"):
            return 1
        count = await store.erase(owner)  # without a deadline: there may be many
        if blobs is not None:
            await blobs.erase(owner)
    if arguments.json:
        print_json({"erased": count})
    else:
        sys.stdout.write(f"erased {plural(count, 'session')} of {of}\n")
    return 0


def _owner(arguments: argparse.Namespace) -> "Principal":
    from seawall.turn import Principal  # noqa: PLC0415 - only what this command needs

    return Principal(arguments.tenant, arguments.subject)


def _key(arguments: argparse.Namespace) -> "SessionKey":
    from seawall.turn import SessionKey  # noqa: PLC0415 - only what this command needs

    return SessionKey(arguments.tenant, arguments.subject, arguments.session)


def _transcript(page: "TurnPage") -> list[str]:
    from seawall.turn import AssistantMessage, UserMessage  # noqa: PLC0415 - only needed here

    session = page.session
    lines = [
        f"session {printable(session.key.session)} of {session.key.subject}, {session.key.tenant}",
        f"{plural(session.version, 'turn')}, agent {printable(session.agent or '-')}",
        f"created {date(session.created_at)}, updated {date(session.updated_at)}",
        f"expires {date(session.expires_at)}",
    ]
    lines += [f"note {printable(name)}: {printable(text)}" for name, text in session.state.items()]
    for turn in reversed(page.turns):
        intent, agent = printable(turn.intent or "none"), printable(turn.agent)
        lines += [
            "",
            color(
                f"{turn.number}. {date(turn.created_at)}, intent {intent}, agent {agent}", "bold"
            ),
        ]
        for message in turn.messages:
            if isinstance(message, UserMessage):
                lines.append(f"   {color('user:', 'cyan')} {printable(message.described)}")
            elif isinstance(message, AssistantMessage):
                if message.text:
                    speaker = f"{printable(message.by)}:" if message.by else "agent:"
                    lines.append(f"   {color(speaker, 'green')} {printable(message.text)}")
                lines += [
                    f"   calls {printable(call.name)}({printable(call.arguments)})"
                    for call in message.tool_calls
                ]
            else:
                verb = "fails" if message.failed else "answers"
                lines.append(f"   {printable(message.name)} {verb}: {printable(message.content)}")
    return lines


def _as_json(session: "Session") -> dict[str, object]:
    return {
        "session": session.key.session,
        "version": session.version,
        "agent": session.agent,
        "state": session.state,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "expires_at": session.expires_at,
    }
