"""The context of a turn in progress: ports that all turns use, its stages, what is reported of it.

Each stage has its own time limit within the turn's deadline, and is timed. The report of a finished
turn is for observers, the log, and the turn's span.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from msgspec import Struct

from seawall.admission.gate import AdmissionGate
from seawall.agents import Agent, Routing
from seawall.agents.calls import Emit
from seawall.budgets import Spending
from seawall.errors import ClientAbsent, DeadlineExceeded, Problem
from seawall.identity import Authenticator, Credential
from seawall.intents.cascade import IntentDetector
from seawall.requests import current_request
from seawall.settings import SessionSettings, StageLimits
from seawall.spans import Span, Tracer, current_span, incoming_trace, within_span
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.turn import TurnReport, TurnRequest

if TYPE_CHECKING:
    from seawall.agents.attachments import TurnAttachments
    from seawall.caches.answers import AnswerCache
    from seawall.models import ModelRequest, TextSink
    from seawall.pipeline.compaction import Compactions
    from seawall.pipeline.delivery import NotificationDelivery
    from seawall.pipeline.live import LiveTurn
    from seawall.pipeline.memory import MemoryRead, MemoryReads

__all__ = [
    "Observe",
    "Observers",
    "Ports",
    "Recorder",
    "Stage",
    "StageTimings",
    "TurnContext",
    "describe_outcome",
    "log_failed_turn",
    "turn_span",
]

_log = logging.getLogger("seawall.turns")
_LOG_SECONDS = 60.0
_MAX_CAUSE_CHARACTERS = 300


Observe = Callable[[TurnReport], None]
"""Receives the report of a finished turn; must not block. Its exceptions are logged only."""


class Recorder(Protocol):
    """Records the course of turns for the console."""

    def begin(self, request: TurnRequest, tracer: Tracer | None) -> "RecordedCourse | None":
        """A turn begins; its course, if it is to be recorded.

        Args:
            request: What was asked for.
            tracer: Of telemetry; the course passes on to it what it is given.
        """
        ...


class RecordedCourse(Tracer, Protocol):
    """Traces the turn, and records its events."""

    def recording(self, emit: Emit) -> Emit:
        """The function that records events and passes them on."""
        ...

    def recording_text(self, sink: "TextSink") -> "TextSink":
        """The sink that records the text that another takes."""
        ...


class Observers:
    """Observers of finished turns. One that fails affects no turn and no other observer."""

    def __init__(self) -> None:
        self._observers: list[Observe] = []
        self._failures = 0
        self._logged_at = float("-inf")

    def add(self, observe: Observe) -> None:
        """Add an observer."""
        self._observers.append(observe)

    def __call__(self, report: TurnReport) -> None:
        """Pass a report to all of them."""
        for observe in self._observers:
            try:
                observe(report)
            except BaseException as error:  # noqa: BLE001 - the turn is done
                self._log(error)

    def _log(self, error: BaseException) -> None:
        """Log at most one failure a minute, with their number."""
        self._failures += 1
        if time.monotonic() >= self._logged_at + _LOG_SECONDS:
            _log.error(
                "an observer of turns failed (%d times since the start)",
                self._failures,
                exc_info=error,
            )
            self._logged_at = time.monotonic()


def log_failed_turn(
    report: TurnReport, request: TurnRequest, problem: Problem, seconds: float
) -> None:
    """Log a failed turn.

    Args:
        report: Of the turn; what is known so far is filled in.
        request: What was asked for; its text is not logged.
        problem: What ended it. The detail of an upstream's failure names the upstream.
        seconds: From the turn's arrival to its failure.
    """
    # Requests that are not authenticated are no failed turns; they could fill the log. Nor are
    # turns that their clients have left, as those do that only want a call.
    expected = not report.tenant or isinstance(problem, ClientAbsent)
    level = logging.INFO if expected else logging.WARNING
    if not _log.isEnabledFor(level):
        return
    cause = _describe_cause(problem.__cause__)
    answered = current_request.get()
    fields: dict[str, object] = {
        "turn": request.id,
        "code": problem.code,
        "tenant": report.tenant,
        "session": request.session,
        "agent": report.agent,
        "cause": cause,
        "request_id": answered.id if answered is not None else "",
    }
    # The code is part of the text, so that a flood of one kind does not hide the others.
    text = (
        f"turn %s failed: {problem.code}: %s tenant=%r session=%s agent=%s cause=%r request=%s "
        "after %.3f s"
    )
    _log.log(
        level,
        text,
        request.id,
        problem.detail,
        report.tenant,
        request.session,
        report.agent,
        cause,
        fields["request_id"],
        seconds,
        extra=fields,
    )


def _describe_cause(error: BaseException | None) -> str:
    """An error and what caused it, in one bounded line."""
    parts: list[str] = []
    while error is not None and len(parts) < 4:
        parts.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        error = error.__cause__
    return " < ".join(parts)[:_MAX_CAUSE_CHARACTERS]


@contextmanager
def turn_span(tracer: Tracer, request: TurnRequest) -> Generator[Span, None, None]:
    """The span of a turn, current while the block runs."""
    span = tracer.begin(incoming_trace.get())
    span.put("seawall.turn", request.id)
    span.put("seawall.background", request.background)
    token = current_span.set(span)
    try:
        yield span
    finally:
        current_span.reset(token)
        span.end()


def describe_outcome(span: Span, report: TurnReport) -> None:
    """Record the outcome of a turn, without any of its text."""
    span.put("seawall.outcome", report.outcome)
    span.put("seawall.agent", report.agent)
    span.put("seawall.intent", report.intent or "none")
    span.put("seawall.intent_by", report.intent_by)
    span.put("seawall.cached", report.cached)
    span.put("gen_ai.usage.input_tokens", report.usage.prompt_tokens)
    span.put("gen_ai.usage.output_tokens", report.usage.completion_tokens)
    if "first_text" in report.timings:
        span.put("seawall.first_text", report.timings["first_text"] / 1e3)


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
        # In whole microseconds; `round` takes several times as long.
        return {stage: int(seconds * 1e6 + 0.5) / 1e3 for stage, seconds in self._seconds.items()}


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
    `EffectSettings`, also for `approval_seconds` and `client_seconds`. `notifications` delivers
    those of hand-overs; `person_notice` answers a message while a person has the conversation,
    empty for no answer.
    `check_quota` raises if the quotas of an agent's model leave no room for a request before a
    deadline, for a tenant; None where there are none. `compactions`: None where no agent has
    summaries. `attachments`: None where no store for files is configured. `memory`: None where no
    agent has one.
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
    client_seconds: float = 3_600.0
    notifications: "NotificationDelivery | None" = None
    person_notice: str = ""
    check_quota: "Callable[[str, ModelRequest, float, str], None] | None" = None
    compactions: "Compactions | None" = None
    attachments: "TurnAttachments | None" = None
    memory: "MemoryReads | None" = None


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
        queued: Whether its client was informed that it waits for a slot.
        sink: Takes text at once, in place of `emit`; None if its host has none.
        memory: Reads what is remembered of its user; None for nothing.
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
    queued: bool = False
    sink: "TextSink | None" = None
    memory: "MemoryRead | None" = None
