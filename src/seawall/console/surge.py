"""A surge that is started from the page: one driver process at a time, for all workers.

The driver is a program of the lab, which is started and not imported: it reads an order, a line of
JSON, and writes messages, each a line. It ends with its standard input, and so with this process,
however that ends.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct, structs

from seawall.errors import Overloaded
from seawall.settings import ConsoleSurgeSettings

__all__ = [
    "MAX_SECONDS",
    "PATIENCE_SECONDS",
    "ShownSurge",
    "ShownSurges",
    "SurgeFigures",
    "SurgeOrder",
    "SurgeProgress",
    "Surges",
]

_log = logging.getLogger("seawall.console")
MAX_SECONDS = 300.0
"""Within which the people of a surge arrive."""
PATIENCE_SECONDS = 75.0
"""After which they give up."""
_AFTER_SECONDS = 90.0  # for what the driver does before and after: start, read back, report
_STOP_SECONDS = 20.0  # in which a driver that was stopped reports what it has seen
_MAX_LINE_BYTES = 1 << 17
_LOCK = "console-surge.lock"
_NOTE = "console-surge.json"
_MODULE = "seawall.lab.surge.from_console"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")


class SurgeOrder(Struct, frozen=True, kw_only=True):
    """What the driver is to do.

    Attributes:
        url: Of the server's root.
        people: How many turns it sends.
        seconds: Within which they arrive, evenly; 0 for all at once.
        patience: Seconds after which one gives up.
        token_file: See `ConsoleSurgeSettings`.
        simulated: See `ConsoleSurgeSettings`.
        report: The HTML file that it writes.
    """

    url: str
    people: int
    seconds: float
    patience: float
    token_file: str
    simulated: int | None
    report: str


class SurgeProgress(Struct, frozen=True, kw_only=True, tag="progress", tag_field="kind"):
    """The state of a surge; times to the first text in milliseconds, None before there is one."""

    seconds: float
    sent: int
    streaming: int
    completed: int
    failed: int
    refused: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class SurgeFigures(Struct, frozen=True, kw_only=True, tag="figures", tag_field="kind"):
    """The result of a surge.

    Attributes:
        headline: In one sentence.
        good: Whether all turns were completed, with the expected answers, and are durable.
        interrupted: Whether it was stopped before its end.
        warnings: Reasons why the driver may have been the bottleneck.
        errors: Number of turns by error.
        p50: Of the times to the first text of completed turns, in milliseconds.
        p95: The same.
        p99: The same.
        reported: Whether there is a report, which could be written.
    """

    headline: str
    good: bool
    interrupted: bool
    warnings: list[str]
    errors: dict[str, int]
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    reported: bool = True


class ShownSurge(Struct, frozen=True, kw_only=True):
    """A surge as the page shows it.

    Attributes:
        id: Of this surge.
        by: Who started it.
        began_at: Unix seconds.
        people: How many turns it sends.
        seconds: Within which they arrive.
        state: "running", "stopping", "ended", or "broken" if the driver or its worker failed.
        progress: The newest; None before the first.
        figures: Once it has ended; None if it was stopped before it began.
        report: Name of the report, once it is written.
    """

    id: str
    by: str
    began_at: float
    people: int
    seconds: float
    state: str = "running"
    progress: SurgeProgress | None = None
    figures: SurgeFigures | None = None
    report: str = ""

    @property
    def over(self) -> bool:
        """Whether its driver has ended."""
        return self.state in ("ended", "broken")


_decode = msgspec.json.Decoder(SurgeProgress | SurgeFigures).decode
_decode_surge = msgspec.json.Decoder(ShownSurge).decode


class ShownSurges(Struct, frozen=True):
    """The surge of one worker: the one that runs, else its last; None without any."""

    surge: ShownSurge | None


class Surges:
    """Runs the surges that are started in this worker."""

    def __init__(
        self, settings: ConsoleSurgeSettings | None, reports: str, shared: Path | None
    ) -> None:
        """Begin without one.

        Args:
            settings: None where none may be started.
            reports: The folder of their reports.
            shared: A folder of the workers of this server; None for a process by itself.
        """
        self.settings = settings
        self._reports = Path(reports)
        self._shared = shared
        self._surge: ShownSurge | None = None
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    def shown(self) -> ShownSurges:
        """The surge of this worker."""
        return ShownSurges(self._surge)

    def newest(self) -> ShownSurge | None:
        """The newest of all workers, as it began or ended; broken if its worker has ended."""
        surge = self._noted()
        if surge is None or surge.over or (lock := self._lock()) is None:
            return surge
        with lock:  # no worker runs one now, so what is noted is final
            surge = self._noted()
            if surge is not None and not surge.over:
                surge = structs.replace(surge, state="broken")
                self._note(surge)
        return surge

    async def start(self, url: str, people: int, seconds: float, by: str) -> ShownSurge:
        """Start a surge.

        Args:
            url: Of the server's root.
            people: How many turns it sends; within the limit of the settings.
            seconds: Within which they arrive, evenly.
            by: Who starts it.

        Raises:
            Overloaded: One runs, in this worker or in another.
        """
        assert self.settings is not None  # noqa: S101 - the caller has checked
        busy = self._task is not None and not self._task.done()
        if busy or (lock := self._lock()) is None:
            raise Overloaded("A surge runs already: there is one at a time.", retry_after=5.0)
        now = time.time()
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(4)}"
        order = SurgeOrder(
            url=url,
            people=people,
            seconds=seconds,
            patience=PATIENCE_SECONDS,
            token_file=self.settings.token_file,
            simulated=self.settings.simulated,
            report=str(self._reports / f"console-surge-{name}.html"),
        )
        self._surge = ShownSurge(id=name, by=by, began_at=now, people=people, seconds=seconds)
        self._note(self._surge)
        self._task = asyncio.create_task(self._run(order, lock))
        return self._surge

    def stop(self, surge: str) -> bool:
        """Have the driver stop and report what it has seen; whether this surge runs here."""
        running = self._surge
        if running is None or running.id != surge or running.over:
            return False
        if running.state != "stopping":
            self._surge = structs.replace(running, state="stopping")
            if self._process is not None:  # else it is when it has been started
                self._terminate(self._process)
        return True

    async def close(self) -> None:
        """End the driver at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, order: SurgeOrder, lock: BinaryIO) -> None:
        with lock:  # released when it is closed
            try:
                async with asyncio.timeout(order.seconds + order.patience + _AFTER_SECONDS):
                    await self._drive(order)
            except Exception:  # noqa: BLE001 - shown on the page as broken
                _log.exception("the surge from the console failed")
            finally:
                assert self._surge is not None  # noqa: S101 - set before this task was started
                ended = self._surge.figures is not None or self._stopped_early()
                self._surge = structs.replace(self._surge, state="ended" if ended else "broken")
                self._process = None
                self._note(self._surge)

    async def _drive(self, order: SurgeOrder) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", _MODULE),
            stdin=PIPE,
            stdout=PIPE,
            limit=_MAX_LINE_BYTES,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,  # else a terminal's Ctrl-C would reach it directly
        )
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - the same
        try:
            assert self._surge is not None  # noqa: S101 - one runs
            if self._surge.state == "stopping":
                self._terminate(process)
            with suppress(ConnectionError):  # it has ended already
                process.stdin.write(msgspec.json.encode(order) + b"\n")
                await process.stdin.drain()
            while line := await process.stdout.readline():
                self._take(_decode(line), order)
            await process.wait()
            if self._surge.figures is None and not self._stopped_early():
                _log.error("the driver of the surge ended with status %d", process.returncode)
        finally:
            self._kill(process)
            while await process.stdout.read(_MAX_LINE_BYTES):
                pass  # a process counts as running until its output has been read
            await process.wait()

    def _take(self, message: SurgeProgress | SurgeFigures, order: SurgeOrder) -> None:
        assert self._surge is not None  # noqa: S101 - one runs
        if isinstance(message, SurgeProgress):
            self._surge = structs.replace(self._surge, progress=message)
        else:
            name = Path(order.report).name if message.reported else ""
            self._surge = structs.replace(self._surge, figures=message, report=name)

    def _terminate(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        asyncio.get_running_loop().call_later(_STOP_SECONDS, self._kill, process)

    def _stopped_early(self) -> bool:
        """Whether the driver was stopped before it could report anything."""
        assert self._surge is not None  # noqa: S101 - one runs
        stopping, process = self._surge.state == "stopping", self._process
        return stopping and process is not None and process.returncode == -signal.SIGTERM

    @staticmethod
    def _kill(process: Process) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()

    def _lock(self) -> BinaryIO | None:
        """A file that no other worker has locked; None if one has. It ends with the process."""
        if self._shared is None:
            return Path(os.devnull).open("rb")
        lock = (self._shared / _LOCK).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        return lock

    def _note(self, surge: ShownSurge) -> None:
        """Note what runs, or has ended, should this worker end. The lock must be held.

        Others read it meanwhile: the note is replaced as a whole.
        """
        if self._shared is not None:
            part = self._shared / f"{_NOTE}.part"
            with suppress(OSError):
                part.write_bytes(msgspec.json.encode(surge))
                part.replace(self._shared / _NOTE)

    def _noted(self) -> ShownSurge | None:
        if self._shared is None:
            return self._surge
        try:
            return _decode_surge((self._shared / _NOTE).read_bytes())
        except (OSError, msgspec.MsgspecError):  # there is none, or not all could be written
            return None
