"""`seawall sessions`: look at, take out, remove and move what is kept of conversations."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seawall.cli import sessions_migrate
from seawall.errors import ConfigError
from seawall.identity.settings import check_name
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.storage.port import Session, SessionStore, TurnPage
    from seawall.turn import Principal, SessionKey

__all__ = ["add_parser"]

_CALL_SECONDS = 30.0
_MAX_PAGE = 200

T = TypeVar("T")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sessions",
        help="list, show, export, delete, erase or migrate sessions",
        description="Look after the sessions in the store that the configuration names. Servers "
        "may go on using it meanwhile.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = _add(commands, "list", _list, "the sessions of a subject, the one opened last first")
    _add_page(listing, "sessions")
    show = _add(commands, "show", _show, "a session and its newest turns")
    show.add_argument("session", metavar="SESSION")
    _add_page(show, "turns")
    export = _add(
        commands,
        "export",
        _export,
        "sessions with all their turns, as JSON lines",
        "Write one JSON object a session, with all its turns: of one session, or of all that a "
        "subject has.",
    )
    export.add_argument("session", nargs="?", metavar="SESSION", help="default: all of them")
    export.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to this file, for its owner's eyes only (default: standard output)",
    )
    delete = _add(commands, "delete", _delete, "remove a session with all that hangs on it")
    delete.add_argument("session", metavar="SESSION")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    erase = _add(
        commands,
        "erase",
        _erase,
        "remove everything that is kept of a subject",
        "Remove all sessions and idempotency records of one subject, for good. See to it first "
        "that the subject can no longer come in.",
    )
    erase.add_argument("--yes", action="store_true", help="do not ask")
    sessions_migrate.add_parser(commands)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], Awaitable[int]],
    summary: str,
    description: str = "",
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=description or f"{summary[0].upper()}{summary[1:]}."
    )
    parser.add_argument("--tenant", required=True, type=_name, help="whose customer it is")
    parser.add_argument("--subject", required=True, type=_name, help="the customer")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("seawall.toml"),
        metavar="FILE",
        help="configuration that names the store (default: %(default)s)",
    )
    if name != "export":
        parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=lambda arguments: asyncio.run(_run_command(run, arguments)))
    return parser


def _add_page(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--limit", type=_limit, default=50, help=f"at most so many {what} (default: %(default)s)"
    )
    parser.add_argument("--cursor", help="where the page before this one said that it goes on")


def _name(value: str) -> str:
    try:
        return check_name(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _limit(value: str) -> int:
    if not (value.isdecimal() and len(value) <= 4 and 1 <= int(value) <= _MAX_PAGE):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MAX_PAGE}")
    return int(value)


async def _run_command(
    run: Callable[[argparse.Namespace], Awaitable[int]], arguments: argparse.Namespace
) -> int:
    try:
        return await run(arguments)
    except TimeoutError:
        sys.stderr.write("seawall: The session store did not answer in time.\n")
        return 1


async def _list(arguments: argparse.Namespace) -> int:
    async with _store(arguments) as store, asyncio.timeout(_CALL_SECONDS):
        page = await store.sessions(
            _owner(arguments), limit=arguments.limit, cursor=arguments.cursor
        )
    if arguments.json:
        _print_json({"sessions": [_as_json(each) for each in page.sessions], "cursor": page.cursor})
        return 0
    if not page.sessions:
        sys.stdout.write("There are no sessions.\n")
        return 0
    width = max(len(each.key.session) for each in page.sessions)
    lines = [f"{'session':{width}}  {'turns':>6}  {'updated':20}  {'expires':20}  agent"]
    lines += [
        (
            f"{printable(each.key.session):{width}}  {each.version:>6}  {_date(each.updated_at)}  "
            f"{_date(each.expires_at)}  {printable(each.agent or '-')}"
        )
        for each in page.sessions
    ]
    _print_page(lines, page.cursor)
    return 0


async def _show(arguments: argparse.Namespace) -> int:
    async with _store(arguments) as store, asyncio.timeout(_CALL_SECONDS):
        page = await store.turns(_key(arguments), limit=arguments.limit, cursor=arguments.cursor)
    if arguments.json:
        _print_json(_as_json(page.session) | {"turns": page.turns, "cursor": page.cursor})
    else:
        _print_page(_transcript(page), page.cursor)
    return 0


async def _export(arguments: argparse.Namespace) -> int:
    import msgspec  # noqa: PLC0415 - only what this command needs

    from seawall.storage.export import export_session, export_subject  # noqa: PLC0415

    sessions = turns = 0
    with _Output(arguments.output) as write:
        async with _store(arguments) as store:
            if arguments.session is not None:
                exported = await export_session(store, _key(arguments))
                write(msgspec.json.encode(exported) + b"\n")
                sessions, turns = 1, len(exported.turns)
            else:
                async for exported in export_subject(store, _owner(arguments)):
                    write(msgspec.json.encode(exported) + b"\n")
                    sessions, turns = sessions + 1, turns + len(exported.turns)
    sys.stderr.write(f"exported {_count(sessions, 'session')} with {_count(turns, 'turn')}\n")
    return 0


async def _delete(arguments: argparse.Namespace) -> int:
    async with _store(arguments) as store:
        if not _confirmed(
            arguments, f"Remove the session {printable(arguments.session)} for good?"
        ):
            return 1
        async with asyncio.timeout(_CALL_SECONDS):
            await store.delete(_key(arguments))
    if arguments.json:
        _print_json({"deleted": arguments.session})
    else:
        sys.stdout.write(f"deleted {printable(arguments.session)}\n")
    return 0


async def _erase(arguments: argparse.Namespace) -> int:
    owner = _owner(arguments)
    who = f"the subject {owner.subject} of the tenant {owner.tenant}"
    async with _store(arguments) as store:
        if not _confirmed(arguments, f"Remove everything that is kept of {who} for good?"):
            return 1
        count = await store.erase(owner)  # in its own time: there may be much
    if arguments.json:
        _print_json({"erased": count})
    else:
        sys.stdout.write(f"erased {_count(count, 'session')} of {who}\n")
    return 0


@asynccontextmanager
async def _store(arguments: argparse.Namespace) -> "AsyncGenerator[SessionStore, None]":
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import open_store, require_existing_store  # noqa: PLC0415

    settings = load_settings(arguments.config).sessions
    require_existing_store(settings)
    store = await open_store(settings)
    try:
        yield store
    finally:
        await store.close()


def _owner(arguments: argparse.Namespace) -> "Principal":
    from seawall.turn import Principal  # noqa: PLC0415 - only what this command needs

    return Principal(arguments.tenant, arguments.subject)


def _key(arguments: argparse.Namespace) -> "SessionKey":
    from seawall.turn import SessionKey  # noqa: PLC0415 - only what this command needs

    return SessionKey(arguments.tenant, arguments.subject, arguments.session)


def _confirmed(arguments: argparse.Namespace, question: str) -> bool:
    """Whether it is really meant.

    Raises:
        ConfigError: nobody is there to be asked.
    """
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to be asked; say --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("nothing was removed\n")
    return False


class _Output:
    """Standard output, or a file that is there whole or not at all."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new") if path else None

    def __enter__(self) -> Callable[[bytes], object]:
        if self._new is None:
            return sys.stdout.buffer.write
        try:
            self._new.unlink(missing_ok=True)
            descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "wb")
        return self._file.write

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._new is None or self._path is None:
            sys.stdout.buffer.flush()
            return
        self._file.close()
        if kind is None:
            self._new.replace(self._path)
        else:
            self._new.unlink()


def _transcript(page: "TurnPage") -> list[str]:
    from seawall.turn import AssistantMessage, UserMessage  # noqa: PLC0415 - only needed here

    session = page.session
    lines = [
        f"session {printable(session.key.session)} of {session.key.subject}, {session.key.tenant}",
        f"{_count(session.version, 'turn')}, agent {printable(session.agent or '-')}",
        f"created {_date(session.created_at)}, updated {_date(session.updated_at)}",
        f"expires {_date(session.expires_at)}",
    ]
    lines += [f"note {printable(name)}: {printable(text)}" for name, text in session.state.items()]
    for turn in reversed(page.turns):
        intent, agent = printable(turn.intent or "none"), printable(turn.agent)
        lines += [
            "",
            f"{turn.number}. {_date(turn.created_at)}, intent {intent}, agent {agent}",
        ]
        for message in turn.messages:
            if isinstance(message, UserMessage):
                lines.append(f"   customer: {printable(message.text)}")
            elif isinstance(message, AssistantMessage):
                if message.text:
                    lines.append(f"   agent: {printable(message.text)}")
                lines += [
                    f"   calls {printable(call.name)}({printable(call.arguments)})"
                    for call in message.tool_calls
                ]
            else:
                said = "fails" if message.failed else "answers"
                lines.append(f"   {printable(message.name)} {said}: {printable(message.content)}")
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


def _print_json(value: object) -> None:
    import msgspec  # noqa: PLC0415 - only what this command needs

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _print_page(lines: list[str], cursor: str | None) -> None:
    if cursor is not None:
        lines += ["", f"There is more: --cursor {cursor}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
