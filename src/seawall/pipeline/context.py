"""The context of a turn in progress: the ports that all turns use, and its stages.

Each stage has its own time limit within the turn's deadline, and is timed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from msgspec import Struct

from seawall.admission.gate import AdmissionGate
from seawall.agents.calls import Emit
from seawall.agents.definition import Agent, Routing
from seawall.budgets.spending import Spending
from seawall.errors import DeadlineExceeded
from seawall.identity import Authenticator, Credential
from seawall.intents.cascade import IntentDetector
from seawall.pipeline.report import Observe, TurnReport
from seawall.settings import SessionSettings, StageLimits
from seawall.spans import Tracer, within_span
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.turn import TurnRequest

if TYPE_CHECKING:
    from seawall.caches.answers import AnswerCache
    from seawall.pipeline.live import LiveTurn

__all__ = [
    "Ports",
    "Stage",
    "StageTimings",
    "TurnContext",
]


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


class Ports(Struct, frozen=True, kw_only=True):
    """The ports that the pipeline uses; composed once at start.

    `next_message`: what happens to a session's next message while one of its turns is paused; see
    `EffectSettings`, also for `approval_seconds`. `deliver` sends a notification with an id; false
    if it did not arrive.
    """

    authenticator: Authenticator
    store: SessionStore
    detector: IntentDetector
    agents: Mapping[str, Agent]
    routing: Routing
    gate: AdmissionGate
    limits: StageLimits
    sessions: SessionSettings
    observe: Observe
    answers: "AnswerCache | None" = None
    spending: Callable[[], Spending] = Spending
    tracer: Tracer | None = None
    next_message: Literal["answer", "queue", "refuse"] = "answer"
    approval_seconds: float = 86_400.0
    deliver: Callable[[str, bytes], Awaitable[bool]] | None = None


class TurnContext(Struct):
    """The state of one turn in progress; turns share nothing.

    Attributes:
        request: What was asked for.
        credential: Proves the identity of the sender.
        emit: Called with the turn's events.
        deadline: Seconds on the event loop's clock.
        timings: Durations of its stages.
        report: Filled in while it is in progress.
        spending: Charges its budgets.
        recovered_job: The background job that this turn continues, claimed from another process.
        live: The turn, if it can be found by id.
    """

    request: TurnRequest
    credential: Credential
    emit: Emit
    deadline: float
    timings: StageTimings
    report: TurnReport
    spending: Spending
    recovered_job: BackgroundJob | None = None
    live: "LiveTurn | None" = None
