"""A thread that works for the event loop in batches: whatever has gathered is done at once."""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from seawall.errors import Problem, StoreUnavailable

__all__ = ["BatchThread", "run_isolated", "store_unavailable"]

Job = TypeVar("Job")
Result = TypeVar("Result")

_log = logging.getLogger("seawall.storage")
_Queued = tuple[Job, asyncio.Future[Result], int]

# What is wrong with the database or its disk, not with one job of a batch; primary result codes
# (https://www.sqlite.org/rescode.html): BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN,
# PROTOCOL, NOTADB.
_OF_ALL_JOBS = frozenset({5, 6, 7, 8, 10, 13, 14, 15, 26})


def store_unavailable() -> StoreUnavailable:
    """What callers are told, whatever the log knows."""
    return StoreUnavailable(
        "The session store cannot be used now; nothing was stored or charged.", retry_after=1.0
    )


def run_isolated(
    work: Callable[[Sequence[Job]], Sequence[Result | Exception]], jobs: Sequence[Job]
) -> list[Result | Exception]:
    """Results of a batch; where it fails by one of its jobs, the others are done without it.

    The halves of a batch that failed are done by themselves, so one bad job among n costs about
    2 log2(n) batches. What fails every job, such as a full disk, is tried once.

    Args:
        work: Does a batch wholly or, when it raises, not at all.
        jobs: Done in this order.
    """
    try:
        return list(work(jobs))
    except Exception as error:  # noqa: BLE001 - the thread must outlive a defect
        code = getattr(error, "sqlite_errorcode", 0)  # of SQLite's errors only
        if code & 0xFF in _OF_ALL_JOBS:
            _log.error("sessions: %s", error)
            return [store_unavailable() for _ in jobs]
        if len(jobs) == 1:
            if isinstance(error, Problem):
                return [error]
            _log.error("sessions: a job failed", exc_info=error)
            return [store_unavailable()]
    middle = len(jobs) // 2
    return [*run_isolated(work, jobs[:middle]), *run_isolated(work, jobs[middle:])]


class BatchThread(Generic[Job, Result]):
    """Takes jobs from the event loop, does them in batches, gives the results back together.

    connect: opens the thread's own connection. work: does a batch; its results are in the order
    of the jobs, an exception among them fails that job alone. idle: called when nothing came for
    `idle_seconds`. max_pending, max_pending_bytes: of jobs accepted and not yet answered.
    max_batch, max_batch_bytes: of one batch; a single job may be larger.
    """

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], sqlite3.Connection],
        work: Callable[[sqlite3.Connection, Sequence[Job]], Sequence[Result | Exception]],
        idle: Callable[[sqlite3.Connection], None] = lambda _: None,
        idle_seconds: float = 60.0,
        max_queued: int,
        max_batch: int,
        max_queued_bytes: int = 1 << 62,
        max_batch_bytes: int = 1 << 62,
    ) -> None:
        self._connect = connect
        self._work = work
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._max_queued = max_queued
        self._max_batch = max_batch
        self._max_queued_bytes = max_queued_bytes
        self._max_batch_bytes = max_batch_bytes
        self._queued = 0
        self._queued_bytes = 0
        self._jobs: queue.SimpleQueue[_Queued[Job, Result] | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> None:
        """Start the thread; fails as connecting fails."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._thread.start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._jobs.put(None)  # nobody is left to stop it
            raise

    async def stop(self) -> None:
        """Do what was accepted, then end."""
        if self._thread.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    async def do(self, job: Job, weight: int = 0) -> Result:
        """Have a job done. One that is cancelled before its batch began is not done at all.

        weight: about how many bytes it takes.

        Raises:
            StoreUnavailable: too much is waiting already, or the database failed.
        """
        full = self._queued_bytes + weight > self._max_queued_bytes and self._queued
        if full or self._queued >= self._max_queued or not self._thread.is_alive():
            raise store_unavailable()
        self._queued += 1
        self._queued_bytes += weight
        future: asyncio.Future[Result] = self._loop.create_future()
        self._jobs.put((job, future, weight))
        try:
            return await future
        finally:
            self._queued -= 1
            self._queued_bytes -= weight

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - told to whoever started the thread
            self._loop.call_soon_threadsafe(_set_opened, self._opened, error)
            return
        self._loop.call_soon_threadsafe(_set_opened, self._opened, None)
        try:
            while self._serve(connection):
                pass
        finally:
            connection.close()

    def _serve(self, connection: sqlite3.Connection) -> bool:
        """One batch; False when it is time to end."""
        try:
            first = self._jobs.get(timeout=self._idle_seconds)
        except queue.Empty:
            self._attempt(lambda: self._idle(connection))
            return True
        batch: list[_Queued[Job, Result]] = []
        size = 0
        while first is not None:
            if not first[1].cancelled():
                batch.append(first)
                size += first[2]
            if len(batch) >= self._max_batch or size >= self._max_batch_bytes:
                break
            try:
                first = self._jobs.get_nowait()
            except queue.Empty:
                break
        if batch:
            jobs = [job for job, _, _ in batch]
            results = self._attempt(lambda: self._work(connection, jobs))
            self._loop.call_soon_threadsafe(_resolve, batch, results)
        return first is not None

    def _attempt(self, action: Callable[[], Sequence[Result | Exception] | None]) -> object:
        try:
            return action()
        except sqlite3.Error as error:
            _log.error("%s: %s", self._thread.name, error)
        except Exception:  # noqa: BLE001 - the thread must outlive a defect
            _log.exception("%s failed", self._thread.name)
        return None


def _set_opened(opened: asyncio.Future[None], error: Exception | None) -> None:
    """Whether it is open, unless whoever started it was cancelled meanwhile."""
    if opened.done():
        return
    if error is None:
        opened.set_result(None)
    else:
        opened.set_exception(error)


def _resolve(batch: Sequence[_Queued[Job, Result]], results: object) -> None:
    """Give every waiter its result; None in place of results: the whole batch failed."""
    for index, (_, future, _) in enumerate(batch):
        if future.done():
            continue
        result = results[index] if isinstance(results, Sequence) else store_unavailable()
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
