"""Live turns, which can be followed while in progress: background turns, and turns with a key.

Such a turn runs in a task of its own, which this module owns, and its events are kept until it is
finished. Clients that want its answer follow it. When the last follower disconnects, the turn is
cancelled, unless it is a background turn. Any other turn runs in the task of its request and costs
nothing here.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable

from msgspec import Struct

from seawall.errors import (
    InternalError,
    Problem,
    ServerStopping,
    SessionBusy,
    TurnCancelled,
    TurnPostponed,
    problem_from,
)
from seawall.events import Event, ReasoningDelta, TextDelta, TurnQueued
from seawall.pipeline.replay import advance, attempt_offset, remaining, width
from seawall.turn import Principal, TurnRequest

__all__ = ["FailedTurn", "LiveTurn", "LiveTurns"]

_log = logging.getLogger("seawall.turns")
_FAILED_SECONDS = 600.0
_FAILED_BYTES = 1 << 20
_FAILED_OVERHEAD = 1_024  # about the size of an entry without its texts
_DETAIL_CHARACTERS = 2_000
_JOINED_CHARACTERS = 4_096
_CANCEL_SECONDS = 5.0


class LiveTurn:
    """A turn that can be followed.

    owner: known once the turn is open. problem: why it failed. finished: whether it is.
    cancelled: whether its caller has ended it. attempt: its number.
    """

    def __init__(self, request: TurnRequest, attempt: int = 1) -> None:
        """Create a turn without events; `run` starts it.

        Args:
            request: What was asked for.
            attempt: The number of the attempt, from 1, at a turn that was interrupted.
        """
        self.id = request.id
        self.background = request.background
        self.owner: Principal | None = None
        self.problem: Problem | None = None
        self.finished = False
        self.cancelled = False
        self.attempt = attempt
        self._offset = attempt_offset(attempt)
        self._events: list[Event] = []
        self._ends: list[int] = []
        self._followers = 0
        self._left = False  # by its last client, which is why it is cancelled
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def emit(self, *events: Event) -> None:
        """Add events. The limits of an answer bound their size.

        Pieces of text are joined up to a length: as positions count characters, a follower that
        has received the first of them continues in the middle.
        """
        self._add(events)

    def take(self, text: str) -> bool:
        """Add a piece of text. See `TextSink`."""
        self._add((TextDelta(text),))
        return True

    def _add(self, events: tuple[Event, ...]) -> None:
        kept, ends = self._events, self._ends
        for event in events:
            last = kept[-1] if kept else None
            if (
                type(event) is TextDelta
                and type(last) is TextDelta
                and len(last.text) < _JOINED_CHARACTERS
            ):
                kept[-1] = TextDelta(last.text + event.text)
                ends[-1] += len(event.text)
            elif type(event) is TurnQueued and type(last) is TurnQueued:
                kept[-1] = event  # where it was in the queue does not matter any more
            else:
                kept.append(event)
                ends.append(advance(ends[-1] if ends else self._offset, event))
        self._wake()

    def start_at(self, attempt: int) -> None:
        """Before the first event: they begin with those of an earlier attempt."""
        self._offset = attempt_offset(attempt)
        self._ends = [self._offset] * len(self._ends)  # of events that it waits

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, Event], None]:
        """The events beyond position `after`, with positions, as they happen.

        Raises:
            Problem: the turn failed.
        """
        self._followers += 1
        try:
            index = 0
            shown: Event | None = None  # the newest of those that have no position of their own
            resumed_at, present = after, len(self._events) if after else 0
            while True:
                while index < len(self._events):
                    event, end = self._events[index], self._ends[index]
                    wide = width(event)
                    new = end > after if wide else end >= after and event is not shown
                    if type(event) is ReasoningDelta and end == resumed_at and index < present:
                        new = False  # it was shown before
                    if not new:
                        index += 1
                        continue
                    if wide:
                        known, after = after - (end - wide), end
                        event = remaining(event, known)  # it may have become longer meanwhile
                    else:
                        shown = event
                    yield end, event
                if self.finished:
                    break
                change = asyncio.get_running_loop().create_future()
                self._waiting.add(change)
                try:
                    await change
                finally:
                    self._waiting.discard(change)
                index = max(0, index - 1)
            if self.problem is not None:
                raise self.problem
        finally:
            self._followers -= 1
            if not self._followers and not self.background and self._task is not None:
                self._left = True
                self._task.cancel()

    def _end_of_cancelled(self) -> Problem:
        if self.cancelled:
            return TurnCancelled("The turn was cancelled.")
        if self._left:  # for another request with its key, which came before it had ended
            return SessionBusy("The turn with this key has just ended.", retry_after=1.0)
        return _interrupted(background=self.background)

    def run(self, execution: Awaitable[object], on_finish: Callable[["LiveTurn"], None]) -> None:
        """Run to the end in a task of its own; `on_finish` is called then."""

        async def run() -> None:
            try:
                await execution
            except Problem as problem:
                self.problem = problem
            except asyncio.CancelledError:
                self.problem = self._end_of_cancelled()
                raise
            except Exception as error:  # noqa: BLE001 - a defect is logged, and followers get an error
                _log.error("turn %s failed", self.id, exc_info=error)
                self.problem = InternalError(
                    "Internal error; the details are in the log of the server."
                )
            finally:
                self.finished = True
                self._wake()
                on_finish(self)

        self._task = asyncio.create_task(run())

    async def wait(self, *, cancel: bool) -> None:
        """Wait until it is finished.

        Args:
            cancel: Cancel it first.
        """
        if self._task is not None:
            if cancel:
                self._task.cancel()
            await asyncio.wait((self._task,))

    def _wake(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)


class FailedTurn(Struct, frozen=True):
    """A live turn that failed: only its problem is kept.

    until: seconds on the event loop's clock. size: bytes that it counts for.
    """

    owner: Principal
    problem: Problem
    until: float
    size: int

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, Event], None]:  # noqa: ARG002
        """As `LiveTurn.follow`, without events.

        Raises:
            Problem: always.
        """
        raise _without_traceback(self.problem)
        yield  # makes it a generator


class LiveTurns:
    """The live turns of one process; admission bounds their number.

    The problem of a failed turn is kept for a while, since it is stored nowhere else. The others
    are in the store when they are finished.
    """

    def __init__(self) -> None:
        self._live: dict[str, LiveTurn] = {}
        self._failed: OrderedDict[str, FailedTurn] = OrderedDict()
        self._failed_bytes = 0

    def start(
        self,
        request: TurnRequest,
        execute: Callable[[LiveTurn], Awaitable[object]],
        attempt: int = 1,
    ) -> LiveTurn:
        """Start a turn in a task of its own.

        Args:
            request: What was asked for.
            execute: Runs the turn; called with it.
            attempt: See `LiveTurn`.
        """
        live = LiveTurn(request, attempt)
        self._live[live.id] = live
        live.run(execute(live), self._ended)
        return live

    def get(self, turn: str) -> LiveTurn | None:
        """The turn of this id, if it is in progress here."""
        return self._live.get(turn)

    def find(self, turn: str, owner: Principal) -> LiveTurn | FailedTurn | None:
        """The turn, if it is in progress here or failed recently, and is the owner's."""
        self._expire(asyncio.get_running_loop().time())
        live = self._live.get(turn) or self._failed.get(turn)
        return live if live is not None and live.owner == owner else None

    async def cancel(self, turn: str, owner: Principal) -> bool:
        """End a turn for its owner; False if it is not in progress here, or is not the owner's."""
        live = self._live.get(turn)
        if live is None or live.owner != owner:
            return False
        live.cancelled = True
        await live.wait(cancel=True)
        return True

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` for turns in progress, then cancel them; wait briefly for these."""
        for cancel in (False, True):
            waiting = [live.wait(cancel=cancel) for live in self._live.values()]
            try:
                async with asyncio.timeout(_CANCEL_SECONDS if cancel else seconds):
                    await asyncio.gather(*waiting)
            except TimeoutError:
                continue

    def _ended(self, live: LiveTurn) -> None:
        del self._live[live.id]
        postponed = isinstance(live.problem, TurnPostponed)  # its outcome will be in the store
        if live.problem is not None and live.owner is not None and not postponed:
            self._remember(live.id, live.owner, live.problem)

    def _remember(self, turn: str, owner: Principal, problem: Problem) -> None:
        now = asyncio.get_running_loop().time()
        copy = _without_traceback(problem)
        texts = (turn, owner.tenant, owner.subject, copy.detail, copy.field or "")
        size = 4 * sum(map(len, texts)) + _FAILED_OVERHEAD
        self._failed[turn] = FailedTurn(owner, copy, now + _FAILED_SECONDS, size)
        self._failed_bytes += size
        self._expire(now)

    def _expire(self, now: float) -> None:
        """Drop those that are too old, and the oldest while there are too many bytes."""
        while self._failed:
            turn, oldest = next(iter(self._failed.items()))
            if oldest.until > now and self._failed_bytes <= _FAILED_BYTES:
                return
            del self._failed[turn]
            self._failed_bytes -= oldest.size


def _without_traceback(problem: Problem) -> Problem:
    """The same problem without traceback and causes, which refer to all of the turn's data."""
    found = problem.as_dict()
    copied = problem_from(found | {"detail": problem.detail[:_DETAIL_CHARACTERS]})
    if copied.field is not None:
        copied.field = copied.field[:_DETAIL_CHARACTERS]
    return copied


def _interrupted(*, background: bool) -> Problem:
    if background:
        return TurnPostponed("The turn was interrupted and will be retried.", retry_after=1.0)
    return ServerStopping("The turn was cancelled by a shutdown.", retry_after=1.0)
