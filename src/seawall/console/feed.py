"""The stream of what happens now: one sampler for all viewers of a worker."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from seawall.console.now import KEPT_SECONDS, Sample
from seawall.console.peers import Peers, Question
from seawall.errors import Overloaded

__all__ = ["NowFeed", "Samples"]

_log = logging.getLogger("seawall.console")
_FRAMES = 30  # that a slow viewer may be behind
_BUDGET_SECONDS = 10.0
_AFTER_SECONDS = 0.02
_LATE_SECONDS = 0.7  # a worker that is later is shown as it was, until the next second
_encode = msgspec.json.Encoder().encode

ReadBudgets = Callable[[], Awaitable[list[Struct]]]


class Samples(Struct, frozen=True):
    """Samples of one worker, oldest first."""

    samples: list[Sample]


class NowFeed:
    """Asks all workers once a second while there are viewers, and keeps the frames for viewers."""

    def __init__(
        self,
        peers: Peers,
        *,
        viewers: int,
        sample: Callable[[], None],
        read_budgets: ReadBudgets,
    ) -> None:
        """Create the feed; it does nothing without viewers.

        Args:
            peers: All workers.
            viewers: The most at the same time.
            sample: Takes this worker's sample of the present second, unless it was taken.
            read_budgets: Reads the state of budgets; called every ten seconds.
        """
        self._peers = peers
        self._viewers = viewers
        self._sample = sample
        self._read_budgets = read_budgets
        self._watching = 0
        self._frames: deque[bytes] = deque(maxlen=_FRAMES)
        self._made = 0  # frames so far
        self._next = asyncio.Event()
        self._last: dict[int, int] = {}  # second of the newest sample, by worker
        self._task: asyncio.Task[None] | None = None
        self._budgets: bytes = b""
        self._budgets_at = float("-inf")

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Frames of server-sent events, for a `viewer`: the last minutes, then each second."""
        seen = self._made
        self._sample()
        answers = await self._peers.ask(Question(after=0), Samples)
        yield _frame(b"history", {str(n): each.samples for n, each in answers.items()})
        if self._budgets:
            yield self._budgets
        while True:
            await self._next.wait()
            behind = min(self._made - seen, len(self._frames))
            seen = self._made
            if behind:
                yield b"".join(list(self._frames)[-behind:])

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """The place of a viewer, from before its first frame; with the first one, sampling begins.

        Raises:
            Overloaded: All places are taken.
        """
        if self._watching >= self._viewers:
            raise Overloaded("As many pages as console.viewers allows show it.", retry_after=5.0)
        self._watching += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._watching -= 1
            if not self._watching and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        self._last.clear()
        self._budgets_at = float("-inf")
        while True:
            # Soon after the second has ended, which is what samples are of.
            await asyncio.sleep(1.0 + _AFTER_SECONDS - time.time() % 1.0)
            try:
                self._sample()
                now = int(time.time())
                anew = any(last > now for last in self._last.values())  # the clock was set back
                if anew:
                    self._last.clear()
                oldest = max(min(self._last.values(), default=now - 2), now - KEPT_SECONDS)
                asked = Question(after=0 if anew else oldest)
                answers = await self._peers.ask(asked, Samples, seconds=_LATE_SECONDS)
                self._add(_frame(b"history" if anew else b"second", self._new(answers)))
                await self._budget_frame()
            except Exception:  # noqa: BLE001 - the next second may be better
                _log.exception("the samples of a second could not be collected")

    def _new(self, answers: dict[int, Samples]) -> dict[str, list[Sample]]:
        """The samples that were not sent yet, by worker."""
        now = int(time.time())
        new: dict[str, list[Sample]] = {}
        for worker, answer in answers.items():
            last = self._last.get(worker, 0)
            fresh = [each for each in answer.samples if last < each.at <= now]
            if fresh:
                self._last[worker] = fresh[-1].at
            new[str(worker)] = fresh
        for gone in self._last.keys() - answers.keys():
            # It may only be late; a worker that is gone must not have all others repeat.
            self._last[gone] = max(self._last[gone], now - 10)
        return new

    async def _budget_frame(self) -> None:
        now = time.monotonic()
        if now - self._budgets_at < _BUDGET_SECONDS:
            return
        self._budgets_at = now
        states = await self._read_budgets()
        if states:
            self._budgets = _frame(b"budgets", states)
            self._add(self._budgets)

    def _add(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._made += 1
        self._next.set()
        self._next = asyncio.Event()


def _frame(name: bytes, value: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, _encode(value))
