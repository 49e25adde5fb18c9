"""A thread that serves the event loop in batches: all requests that are queued are done at once.

It gets what a pass of the event loop has to give when that pass is over. A thread that is woken in
the middle of one competes with it for the interpreter lock: each system call and each statement
gives the lock up, and waits for it again.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from seawall.errors import Problem, StoreUnavailable

__all__ = ["BatchThread", "run_isolated", "store_unavailable", "transaction"]

Request = TypeVar("Request")
Result = TypeVar("Result")

_log = logging.getLogger("seawall.sessions")
_Queued = tuple[Request, asyncio.Future[Result], int]

# Faults of the database or its disk, not of one request in a batch; primary result codes
# (https://www.sqlite.org/rescode.html): BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN,
# PROTOCOL, NOTADB.
_DATABASE_FAULTS = frozenset({5, 6, 7, 8, 10, 13, 14, 15, 26})


def store_unavailable() -> StoreUnavailable:
    """The error that callers get; the log has the details."""
    return StoreUnavailable(
        "The session store cannot be used now; nothing was stored or charged.", retry_after=1.0
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """Commit what the block writes, or roll all of it back if it fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def run_isolated(
    work: Callable[[Sequence[Request]], Sequence[Result | Exception]], requests: Sequence[Request]
) -> list[Result | Exception]:
    """Results of a batch; if it fails by one of its requests, the others are done without it.

    The halves of a failed batch are done separately, so one bad request among n costs about
    2 log2(n) batches. A fault that fails every request, such as a full disk, is tried once.

    Args:
        work: Does a batch completely or, when it raises, not at all.
        requests: Done in this order.
    """
    try:
        return list(work(requests))
    except Exception as error:  # noqa: BLE001 - the thread must survive a defect
        code = getattr(error, "sqlite_errorcode", 0)  # of SQLite's errors only
        if code & 0xFF in _DATABASE_FAULTS:
            _log.error("sessions: %s", error)
            return [store_unavailable() for _ in requests]
        if len(requests) == 1:
            if isinstance(error, Problem):
                return [error]
            _log.error("sessions: a request failed", exc_info=error)
            return [store_unavailable()]
    middle = len(requests) // 2
    return [*run_isolated(work, requests[:middle]), *run_isolated(work, requests[middle:])]


class BatchThread(Generic[Request, Result]):
    """Takes requests from the event loop, does them in batches, returns the results together."""

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], sqlite3.Connection],
        work: Callable[[sqlite3.Connection, Sequence[Request]], Sequence[Result | Exception]],
        idle: Callable[[sqlite3.Connection], None] = lambda _: None,
        idle_seconds: float = 60.0,
        max_queued: int,
        max_batch: int,
        max_queued_bytes: int = 1 << 62,
        max_batch_bytes: int = 1 << 62,
    ) -> None:
        """Create the thread; `start` starts it.

        Args:
            name: The thread's name.
            connect: Opens the thread's own connection.
            work: Does a batch; its results are in the order of the requests, an exception among
                them fails that request alone.
            idle: Called when there was no request for `idle_seconds`.
            idle_seconds: See `idle`.
            max_queued: Requests accepted and not yet answered, at most.
            max_batch: Requests in one batch, at most.
            max_queued_bytes: Bytes of requests accepted and not yet answered, at most.
            max_batch_bytes: Bytes in one batch, at most; a single request may be larger.
        """
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
        self._serving = False
        self._given: list[_Queued[Request, Result]] = []  # in this pass of the event loop
        self._queue: queue.SimpleQueue[_Queued[Request, Result] | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> None:
        """Start the thread; raises what `connect` raises."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._thread.start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._queue.put(None)  # no owner is left to stop it
            raise

    async def stop(self) -> None:
        """Finish what was accepted, then end."""
        if self._thread.is_alive():
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def submit(self, request: Request, weight: int = 0) -> Result:
        """Queue a request and wait for its result.

        A request that is cancelled before its batch began is not done at all.

        Args:
            request: Passed to `work`.
            weight: About how many bytes it takes.

        Raises:
            StoreUnavailable: too much is queued already, or the database failed.
        """
        full = self._queued_bytes + weight > self._max_queued_bytes and self._queued
        if full or self._queued >= self._max_queued or not self._serving:
            raise store_unavailable()
        self._queued += 1
        self._queued_bytes += weight
        future: asyncio.Future[Result] = self._loop.create_future()
        if not self._given:
            self._loop.call_soon(self._hand_over)
        self._given.append((request, future, weight))
        try:
            return await future
        finally:
            self._queued -= 1
            self._queued_bytes -= weight

    def _hand_over(self) -> None:
        for each in self._given:
            self._queue.put(each)
        self._given.clear()

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - raised by `start`
            self._loop.call_soon_threadsafe(_set_opened, self._opened, error)
            return
        self._serving = True
        self._loop.call_soon_threadsafe(_set_opened, self._opened, None)
        try:
            while self._run_batch(connection):
                pass
        finally:
            self._serving = False
            connection.close()

    def _run_batch(self, connection: sqlite3.Connection) -> bool:
        """One batch; False when the thread is to end."""
        try:
            first = self._queue.get(timeout=self._idle_seconds)
        except queue.Empty:
            self._attempt(lambda: self._idle(connection))
            return True
        batch: list[_Queued[Request, Result]] = []
        size = 0
        while first is not None:
            if not first[1].cancelled():
                batch.append(first)
                size += first[2]
            if len(batch) >= self._max_batch or size >= self._max_batch_bytes:
                break
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                break
        if batch:
            requests = [request for request, _, _ in batch]
            results = self._attempt(lambda: self._work(connection, requests))
            self._loop.call_soon_threadsafe(_resolve, batch, results)
        return first is not None

    def _attempt(self, action: Callable[[], Sequence[Result | Exception] | None]) -> object:
        try:
            return action()
        except sqlite3.Error as error:
            _log.error("%s: %s", self._thread.name, error)
        except Exception:  # noqa: BLE001 - the thread must survive a defect
            _log.exception("%s failed", self._thread.name)
        return None


def _set_opened(opened: asyncio.Future[None], error: Exception | None) -> None:
    """Report that the connection is open, unless `start` was cancelled meanwhile."""
    if opened.done():
        return
    if error is None:
        opened.set_result(None)
    else:
        opened.set_exception(error)


def _resolve(batch: Sequence[_Queued[Request, Result]], results: object) -> None:
    """Give every caller its result; without results the whole batch failed."""
    found = results if isinstance(results, Sequence) else [store_unavailable() for _ in batch]
    for (_, future, _), result in zip(batch, found, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
