"""What commands on the session store share: opening it, pages, and output."""

import argparse
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_config, add_json, integer, name
from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.settings import BlobSettings
    from seawall.storage.blobs import BlobStore
    from seawall.storage.port import SessionStore

__all__ = [
    "CALL_SECONDS",
    "Output",
    "add_owner_command",
    "add_page",
    "confirmed",
    "date",
    "json_text",
    "opened_blobs",
    "opened_store",
    "print_json",
    "print_page",
    "run_command",
]

CALL_SECONDS = 30.0
_MAX_PAGE = 200


def add_page(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options --limit and --cursor.

    Args:
        parser: Of the command.
        what: What is listed.
    """
    parser.add_argument(
        "--limit",
        type=integer(1, _MAX_PAGE),
        default=50,
        metavar="N",
        help=f"most {what} to print (default: %(default)s)",
    )
    parser.add_argument("--cursor", help="continue after a page, with the cursor that it printed")


def add_owner_command(
    commands: "Commands[Parser]",
    word: str,
    run: Callable[[argparse.Namespace], Awaitable[int]],
    summary: str,
    description: str = "",
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Add a command on what the store has of one subject.

    Args:
        commands: Of the group.
        word: Of the command; "list" may leave the subject out.
        run: Runs it.
        summary: One line.
        description: Of the help; the summary if empty.
        json: Whether it has the option --json.
    """
    parser = commands.add_parser(
        word, help=summary, description=description or f"{summary[0].upper()}{summary[1:]}."
    )
    needed = word != "list"
    parser.add_argument("--tenant", required=needed, type=name, help="tenant of the subject")
    parser.add_argument("--subject", required=needed, type=name, help="the subject")
    add_config(parser, "the store")
    if json:
        add_json(parser)

    def start(arguments: argparse.Namespace) -> int:
        import asyncio  # noqa: PLC0415 - other commands read this module, and do not need it

        return asyncio.run(run_command(run, arguments))

    parser.set_defaults(run=start)
    return parser


async def run_command(
    run: Callable[[argparse.Namespace], Awaitable[int]], arguments: argparse.Namespace
) -> int:
    """Run a command; its exit status, also if the store does not answer in time."""
    try:
        return await run(arguments)
    except TimeoutError:
        sys.stderr.write("seawall: The session store did not answer in time.\n")
        return 1


@asynccontextmanager
async def opened_store(arguments: argparse.Namespace) -> "AsyncGenerator[SessionStore, None]":
    """The store that the configuration names.

    Raises:
        ConfigError: There is none.
    """
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import open_store, require_existing_store  # noqa: PLC0415

    settings = load_settings(arguments.config)
    require_existing_store(settings.sessions)
    keep_seconds = settings.effects.keep_seconds
    store = await open_store(settings.sessions, audit_keep_seconds=keep_seconds)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_blobs(arguments: argparse.Namespace) -> "AsyncGenerator[BlobStore | None, None]":
    """The store of files that the configuration names; None if there is none.

    Raises:
        ConfigError: It cannot be used.
        StoreUnavailable: It cannot be reached.
    """
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs

    settings = load_settings(arguments.config).blobs
    if settings is None or not _exists(settings):
        yield None
        return
    from seawall.storage.open_blobs import open_blobs  # noqa: PLC0415 - only if configured

    blobs = await open_blobs(settings)
    try:
        yield blobs
    finally:
        await blobs.close()


def _exists(settings: "BlobSettings") -> bool:
    """Whether there may be files: opening the store would create the folder."""
    return settings.store != "files" or Path(settings.path).is_dir()


class Output:
    """Standard output, or a file that is written completely or not at all."""

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


def print_json(value: object) -> None:
    """Print one JSON object."""
    sys.stdout.write(json_text(value) + "\n")


def json_text(value: object) -> str:
    """JSON in one line; what controls a terminal is escaped."""
    import json  # noqa: PLC0415 - only what these commands need

    import msgspec  # noqa: PLC0415 - likewise

    text = msgspec.json.encode(value).decode()
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def print_page(lines: list[str], cursor: str | None) -> None:
    """Print the lines of a page, and how to continue."""
    if cursor is not None:
        lines += ["", f"There are more: --cursor {cursor}"]
    sys.stdout.write("\n".join(lines) + "\n")


def date(seconds: float) -> str:
    """A time in Unix seconds, for readers."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def confirmed(arguments: argparse.Namespace, question: str) -> bool:
    """Ask for confirmation, unless it was given with --yes.

    Args:
        arguments: Of the command.
        question: For a person.

    Raises:
        ConfigError: Standard input is not a terminal.
    """
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("confirmation needs a terminal; without one, give --yes")
    # The event loop's handler would only cancel this task once the line has been read.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\nNothing was deleted.\n")
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if answer.strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("Nothing was deleted.\n")
    return False
