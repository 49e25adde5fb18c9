"""`seawall sessions migrate`: copy all sessions and facts from one store to another."""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_json, integer, plural
from seawall.cli.terminal import INTERRUPTED, ProgressLine
from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.settings import SessionSettings
    from seawall.storage.migration import Checkpoint, Verification

__all__ = ["add_parser"]


def add_parser(commands: "Commands[Parser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "migrate",
        help="copy all sessions to another store",
        description="Copy the sessions of all owners, and the facts about subjects, to another "
        "store. A store is named as "
        "sqlite, sqlite:PATH, dynamodb, dynamodb:TABLE, or as a configuration file that ends in "
        ".toml; other settings are read from --config. Sessions that exist in the target are not "
        "changed. After Ctrl-C or a failure, run the same command to continue. Turns that are run "
        "meanwhile may not be copied: stop the servers of the source first.",
    )
    parser.add_argument("source", metavar="FROM", help="store to copy from")
    parser.add_argument("target", metavar="TO", help="store to copy to")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file with other settings (default: seawall.toml, if it exists)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("seawall-migration.json"),
        metavar="FILE",
        help="file with the position reached, until all is done (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=integer(1, 10_000),
        default=100,
        metavar="N",
        help="sessions between two checkpoints, kept in memory (default: %(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=integer(1, 1_000),
        default=16,
        metavar="N",
        help="sessions written concurrently (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="afterwards read both stores and compare all sessions, versions and turns",
    )
    add_json(parser, "print the figures as one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        return asyncio.run(_migrate(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; run the same command to continue\n")
        return INTERRUPTED
    except TimeoutError:
        sys.stderr.write("\nseawall: A store did not answer in time. Run the same command again.\n")
        return 1


async def _migrate(arguments: argparse.Namespace) -> int:
    from seawall.storage import migration  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import open_store, require_existing_store, store_name  # noqa: PLC0415

    base = _base(arguments.config)
    settings = [_settings(each, base) for each in (arguments.source, arguments.target)]
    names = [store_name(each) for each in settings]
    if names[0] == names[1]:
        raise ConfigError(f"source and target are the same store: {names[0]}")
    require_existing_store(settings[0])
    path = arguments.checkpoint
    checkpoint = migration.load_checkpoint(path, *names)
    if checkpoint.cursor is not None:
        sys.stderr.write(f"continuing after {plural(checkpoint.sessions, 'session')}\n")
    verification = None
    source = await open_store(settings[0])
    try:
        target = await open_store(settings[1])
        try:
            began, before = time.monotonic(), checkpoint.sessions
            checkpoint = await migration.migrate(
                source,
                target,
                checkpoint,
                batch=arguments.batch,
                concurrency=arguments.concurrency,
                save=lambda reached: migration.save_checkpoint(path, reached),
                progress=(moving := _Progress("sessions", before)).show,
            )
            moving.end(checkpoint.sessions)
            seconds = time.monotonic() - began
            if arguments.verify:
                verification = await migration.verify(
                    source,
                    target,
                    batch=arguments.batch,
                    concurrency=arguments.concurrency,
                    progress=(verifying := _Progress("sessions verified", 0)).show,
                )
                verifying.end(verification.sessions)
        finally:
            await target.close()
    finally:
        await source.close()
    path.unlink(missing_ok=True)
    _print(arguments, checkpoint, verification, seconds)
    return 0 if verification is None or verification.good else 1


def _base(config: Path | None) -> "SessionSettings":
    from seawall.config import Settings, load_settings  # noqa: PLC0415 - only what is needed

    if config is None and not Path("seawall.toml").is_file():
        return Settings().sessions
    return load_settings(config or Path("seawall.toml")).sessions


def _settings(store: str, base: "SessionSettings") -> "SessionSettings":
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import parse_store_name  # noqa: PLC0415

    if store.endswith(".toml"):
        return load_settings(Path(store)).sessions
    return parse_store_name(store, base)


class _Progress:
    """Number of sessions and rate, on standard error."""

    def __init__(self, what: str, before: int) -> None:
        self._what = what
        self._before = before
        self._began = time.monotonic()
        self._line = ProgressLine(at_once=False)

    def show(self, done: int) -> None:
        """Show the number, if it is time to."""
        self._line.show(self._text(done))

    def end(self, done: int) -> None:
        """Show the number a last time."""
        self._line.end(self._text(done))

    def _text(self, done: int) -> str:
        rate = (done - self._before) / max(time.monotonic() - self._began, 1e-3)
        return f"{done:,} {self._what}, {rate:,.0f} a second"


def _print(
    arguments: argparse.Namespace,
    checkpoint: "Checkpoint",
    verification: "Verification | None",
    seconds: float,
) -> None:
    import msgspec  # noqa: PLC0415 - only what this command needs

    if arguments.json:
        figures = {
            "source": checkpoint.source,
            "target": checkpoint.target,
            "moved": checkpoint.moved,
            "turns": checkpoint.turns,
            "skipped": checkpoint.skipped,
            "memories": checkpoint.memories,
            "seconds": round(seconds, 3),
            "verification": verification,
        }
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
        return
    lines = [
        f"from {checkpoint.source} to {checkpoint.target}",
        f"moved {checkpoint.moved:,} sessions with {checkpoint.turns:,} turns",
        f"skipped {checkpoint.skipped:,} that were there already",
    ]
    if checkpoint.memories:
        lines.append(f"copied the facts about {plural(checkpoint.memories, 'subject')}")
    if verification is not None:
        lines += [
            f"verified {verification.sessions:,} sessions",
            f"{verification.same:>9,} identical",
            f"{verification.ahead:>9,} newer in the target",
            f"{verification.missing:>9,} missing",
            f"{verification.differing:>9,} different",
            *(
                [f"{verification.memories:>9,} subjects with their facts"]
                if verification.memories
                else []
            ),
            *(
                [f"{verification.lost:>9,} subjects without their facts"]
                if verification.lost
                else []
            ),
            *verification.examples,
        ]
    sys.stdout.write("\n".join(lines) + "\n")
