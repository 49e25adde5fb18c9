"""Stages of a turn: each has its own time limit within the turn's deadline, and is timed."""

import asyncio
from types import TracebackType
from typing import Self

from seawall.errors import DeadlineExceeded
from seawall.spans import within_span

__all__ = ["Stage", "StageTimings"]


class StageTimings:
    """The durations of one turn's stages."""

    __slots__ = ("_seconds", "_started")

    def __init__(self, started: float) -> None:
        """Begin to record.

        Args:
            started: When the turn arrived, in seconds on the event loop's clock.
        """
        self._started = started
        self._seconds: dict[str, float] = {}

    def record(self, stage: str, seconds: float) -> None:
        """Record the duration of a stage, in seconds."""
        self._seconds[stage] = seconds

    def since_start(self, stage: str, now: float) -> None:
        """Record the time since the turn's arrival; `now` on the event loop's clock."""
        self._seconds[stage] = now - self._started

    def as_dict(self) -> dict[str, float]:
        """Milliseconds by stage."""
        return {stage: round(seconds * 1e3, 3) for stage, seconds in self._seconds.items()}


class Stage:
    """`async with Stage(...)`: limit and measure the time of the block.

    Raises:
        DeadlineExceeded: the stage's limit or the turn's deadline passed.
    """

    __slots__ = ("_began", "_deadline", "_name", "_span", "_timeout", "_timings")

    def __init__(self, name: str, limit: float, deadline: float, timings: StageTimings) -> None:
        """Begin a stage.

        Args:
            name: As in the timings, and of its span.
            limit: The stage's own limit, in seconds.
            deadline: The turn's, in seconds on the event loop's clock.
            timings: Where the duration is recorded.
        """
        self._name = name
        self._timings = timings
        self._began = asyncio.get_running_loop().time()
        self._deadline = min(deadline, self._began + limit)
        self._timeout = asyncio.timeout_at(self._deadline)
        self._span = within_span(name)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._span.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        took = asyncio.get_running_loop().time() - self._began
        self._timings.record(self._name, took)
        self._span.__exit__(kind, error, traceback)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise DeadlineExceeded(
                f"The stage '{self._name}' was not done after {took:.1f} s.", field=self._name
            ) from expired
