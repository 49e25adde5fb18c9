"""`seawall sessions migrate`: from one store to another."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.errors import ConfigError

if TYPE_CHECKING:
    from seawall.storage.migration import Checkpoint, Verification
    from seawall.storage.settings import SessionSettings

__all__ = ["add_parser"]

_LINE_SECONDS = {True: 0.1, False: 2.0}  # on a terminal, and elsewhere


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "migrate",
        help="move all sessions to another store",
        description="Copy all sessions, of everybody, to another store. A store is named as "
        "sqlite, sqlite:PATH, dynamodb, dynamodb:TABLE, or as a configuration file that ends in "
        ".toml; what such a name "
        "leaves open comes from --config. Sessions that the target has already are left as they "
        "are. After Ctrl-C or a failure, the same command goes on where it stopped. Turns that "
        "are taken meanwhile may be left behind: stop the servers of the source first.",
    )
    parser.add_argument("source", metavar="FROM", help="where the sessions are")
    parser.add_argument("target", metavar="TO", help="where they go")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration with the rest of the settings (default: seawall.toml, if it is there)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("seawall-migration.json"),
        metavar="FILE",
        help="keeps the place reached until all is done (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=_number(1, 10_000),
        default=100,
        help="sessions between two checkpoints, held in memory (default: %(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        type=_number(1, 1_000),
        default=16,
        help="sessions written at once (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="afterwards read both stores and compare every session, version and turn",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.set_defaults(run=_run)


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isdecimal() and len(value) <= 6 and least <= int(value) <= most):
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return int(value)

    return read


def _run(arguments: argparse.Namespace) -> int:
    try:
        return asyncio.run(_migrate(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        return 130
    except TimeoutError:
        sys.stderr.write("\nseawall: A store did not answer in time. Run the same command again.\n")
        return 1


async def _migrate(arguments: argparse.Namespace) -> int:
    from seawall.storage import migration  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import open_store, require_existing_store, store_name  # noqa: PLC0415

    base = _base(arguments.config)
    settings = [_settings(place, base) for place in (arguments.source, arguments.target)]
    names = [store_name(each) for each in settings]
    if names[0] == names[1]:
        raise ConfigError(f"source and target are the same store: {names[0]}")
    require_existing_store(settings[0])
    kept = arguments.checkpoint
    checkpoint = migration.load_checkpoint(kept, *names)
    if checkpoint.cursor is not None:
        sys.stderr.write(f"going on after {checkpoint.sessions:,} sessions\n")
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
                save=lambda reached: migration.save_checkpoint(kept, reached),
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
    kept.unlink(missing_ok=True)
    _print(arguments, checkpoint, verification, seconds)
    return 0 if verification is None or verification.good else 1


def _base(config: Path | None) -> "SessionSettings":
    from seawall.config import Settings, load_settings  # noqa: PLC0415 - only what is needed

    if config is None and not Path("seawall.toml").is_file():
        return Settings().sessions
    return load_settings(config or Path("seawall.toml")).sessions


def _settings(place: str, base: "SessionSettings") -> "SessionSettings":
    from seawall.config import load_settings  # noqa: PLC0415 - only what this command needs
    from seawall.storage.open import parse_store_name  # noqa: PLC0415

    if place.endswith(".toml"):
        return load_settings(Path(place)).sessions
    return parse_store_name(place, base)


class _Progress:
    """Count and rate on standard error: one line on a terminal, a line every 2 s elsewhere."""

    def __init__(self, what: str, before: int) -> None:
        self._what = what
        self._before = before
        self._live = sys.stderr.isatty()
        self._began = self._last = time.monotonic()

    def show(self, done: int) -> None:
        """Tell, if it is time to."""
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS[self._live]:
            self._last = now
            self._write(done, "" if self._live else "\n")

    def end(self, done: int) -> None:
        """Tell the last time."""
        self._write(done, "\n")

    def _write(self, done: int, end: str) -> None:
        seconds = max(time.monotonic() - self._began, 1e-3)
        rate = (done - self._before) / seconds
        line = f"{done:,} {self._what}, {rate:,.0f} a second"
        sys.stderr.write((f"\r{line}   " if self._live else line) + end)
        sys.stderr.flush()


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
    if verification is not None:
        lines += [
            f"verified {verification.sessions:,} sessions",
            f"{verification.same:>9,} the same",
            f"{verification.ahead:>9,} gone on since",
            f"{verification.missing:>9,} missing",
            f"{verification.differing:>9,} different",
            *verification.examples,
        ]
    sys.stdout.write("\n".join(lines) + "\n")
