"""Recording of recent turns, in the memory of each worker.

Every turn leaves its report. Of a bounded number of turns a second the course is recorded as well:
the spans of its stages, calls of models and tools, and its events with their times. In a crowd that
is a sample; recording all of it would cost more than a per cent of what a turn costs. Turns for
which it was asked are recorded and kept apart, so that a crowd does not displace them.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import merge

from msgspec import Struct, field

from seawall.agents.calls import Emit
from seawall.console.models import RecordedModel
from seawall.console.spans import CourseSpan, SpanList
from seawall.events import Event, ReasoningDelta, TextDelta
from seawall.models import Model, TextSink
from seawall.spans import Span, Tracer
from seawall.turn import TurnReport, TurnRequest

__all__ = ["Course", "FinishedTurn", "TurnRecorder"]

_COURSES_A_SECOND = 20.0
_COURSES_AT_ONCE = 100
_COURSES_RUNNING = 256
_ASKED_RUNNING = 64
_ASKED_TURNS = 100  # with a course that was asked for, kept apart
_FIRST_TEXTS = 10_000
_MAX_EVENTS = 4_000
_MAX_TURN_BYTES = 524_288
_MAX_BYTES = 33_554_432  # of all courses that are kept
_EVENT_BYTES = 200  # that an event takes in memory besides its contents
_SPAN_BYTES = 1_000


class Course:
    """The course of one turn while it is recorded; implements `Tracer` for it.

    Attributes:
        turn: Id of the turn.
        session: Id of its session.
        asked: Whether it was asked for.
        began_at: Unix seconds.
        started_at: Seconds on the monotonic clock.
        spans: In the order in which they began.
        events: With seconds since the turn's arrival.
        bytes: That the events take in memory, about.
        truncated: Whether events are missing at the end.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_tracer",
        "asked",
        "began_at",
        "bytes",
        "clock",
        "events",
        "session",
        "spans",
        "started_at",
        "truncated",
        "turn",
    )

    def __init__(self, request: TurnRequest, tracer: Tracer | None, *, asked: bool = False) -> None:
        self.clock: Callable[[], float] = time.monotonic
        self.turn = request.id
        self.session = request.session
        self.asked = asked
        self.began_at = time.time()
        self.started_at = self.clock()
        self.spans = SpanList(self.clock)
        self.events: list[tuple[float, Event]] = []
        self.bytes = 0
        self.truncated = False
        self._tracer = tracer

    def begin(self, incoming: bytes) -> Span:
        """See `Tracer.begin`."""
        inner = self._tracer.begin(incoming) if self._tracer is not None else None
        return CourseSpan(
            self.spans, inner, "turn", kind="server", began_at=self.started_at, depth=0
        )

    def recording(self, emit: Emit) -> Emit:
        """The function that records events and passes them on."""

        async def recorded(*events: Event) -> None:
            at = self.clock() - self.started_at
            for event in events:
                self._take(at, event)
            await emit(*events)

        return recorded

    def recording_text(self, sink: TextSink) -> TextSink:
        """The sink that records the text that another takes."""

        def take(text: str) -> bool:
            taken = sink(text)
            if taken:
                self._take(self.clock() - self.started_at, TextDelta(text))
            return taken

        return take

    def _take(self, at: float, event: Event) -> None:
        if self.truncated:
            return
        size = _EVENT_BYTES
        if type(event) is TextDelta or type(event) is ReasoningDelta:
            size += len(event.text)
        else:
            size += len(repr(event))  # whatever is in it, this does not fail
        if len(self.events) >= _MAX_EVENTS or self.bytes + size > _MAX_TURN_BYTES:
            self.truncated = True
            return
        self.bytes += size
        self.events.append((at, event))


class FinishedTurn(Struct):
    """A turn that has ended or paused.

    Attributes:
        report: Of the turn.
        ended_at: Unix seconds.
        course: None if it was not recorded, or is not kept any more.
    """

    report: TurnReport
    ended_at: float
    course: Course | None = None


class TurnRecorder(Struct):
    """Recent turns of this process.

    Attributes:
        turns: How many are kept.
        began: Turns so far that have begun.
        ended: Turns so far that have ended, by whether they succeeded.
        first_text: Seconds to the first text, of turns that ended since this was last taken; the
            newest 10,000.
    """

    turns: int
    began: int = 0
    ended: list[int] = field(default_factory=lambda: [0, 0])
    first_text: deque[float] = field(default_factory=lambda: deque(maxlen=_FIRST_TEXTS))
    _kept: OrderedDict[str, FinishedTurn] = field(default_factory=OrderedDict)
    _asked: OrderedDict[str, FinishedTurn] = field(default_factory=OrderedDict)
    _running: dict[str, Course] = field(default_factory=dict)
    _asked_running: int = 0
    _courses: OrderedDict[str, int] = field(default_factory=OrderedDict)  # their bytes, by turn
    _bytes: int = 0
    _allowed: float = _COURSES_AT_ONCE
    _filled_at: float = field(default_factory=time.monotonic)

    def model(self, label: str, model: Model, *, traced: bool) -> Model:
        """A model whose calls are parts of recorded turns; see `RecordedModel`."""
        return RecordedModel(label, model, traced=traced)

    def begin(self, request: TurnRequest, tracer: Tracer | None) -> Course | None:
        """Count a turn; its course is returned if it is to be recorded.

        Args:
            request: What was asked for.
            tracer: Of telemetry, which goes on to trace the turn.
        """
        self.began += 1
        if (before := self._running.pop(request.id, None)) is not None:  # an earlier attempt
            self._asked_running -= before.asked
        asked = request.recorded or request.id in self._asked
        if asked and self._asked_running < _ASKED_RUNNING:
            self._asked_running += 1
        elif len(self._running) - self._asked_running >= _COURSES_RUNNING or not self._allow():
            return None
        else:
            self._allowed -= 1.0
            asked = False
        course = self._running[request.id] = Course(request, tracer, asked=asked)
        return course

    def observe(self, report: TurnReport) -> None:
        """Keep the report of a turn; see `Observe`."""
        self.ended[not report.succeeded] += 1
        if (first := report.timings.get("first_text")) is not None:
            self.first_text.append(first / 1e3)
        self._drop_course(report.turn)  # of an earlier attempt
        self._kept.pop(report.turn, None)
        self._asked.pop(report.turn, None)
        course = self._running.pop(report.turn, None)
        asked = course is not None and course.asked
        self._asked_running -= asked
        kept = self._asked if asked else self._kept
        kept[report.turn] = FinishedTurn(report, time.time(), course)
        if course is not None:
            size = course.bytes + _SPAN_BYTES * len(course.spans.spans)
            self._courses[report.turn] = size
            self._bytes += size
        if len(kept) > (_ASKED_TURNS if asked else self.turns):
            self._drop_course(next(iter(kept)))
            kept.popitem(last=False)
        while self._bytes > _MAX_BYTES and self._courses:
            oldest = (each for each in self._courses if each not in self._asked)
            self._drop_course(next(oldest, next(iter(self._courses))))

    def find(self, turn: str) -> FinishedTurn | Course | None:
        """A turn that has ended, or the course of one that runs; None if neither is known."""
        return self._running.get(turn) or self._asked.get(turn) or self._kept.get(turn)

    def running(self) -> list[Course]:
        """The recorded turns that run now."""
        return list(self._running.values())

    def finished(self) -> list[FinishedTurn]:
        """The turns that are kept, newest first."""
        both = (reversed(self._asked.values()), reversed(self._kept.values()))
        return list(merge(*both, key=lambda each: each.ended_at, reverse=True))

    def take_first_texts(self) -> list[float]:
        """Seconds to the first text of the turns that ended since the last call."""
        taken = list(self.first_text)
        self.first_text.clear()
        return taken

    def _allow(self) -> bool:
        """Whether another course of the sample may be recorded."""
        if self._allowed >= 1.0:
            return True
        now = time.monotonic()
        passed = now - self._filled_at
        if passed * _COURSES_A_SECOND < 1.0:
            return False
        self._filled_at = now
        self._allowed = min(_COURSES_AT_ONCE, self._allowed + passed * _COURSES_A_SECOND)
        return True

    def _drop_course(self, turn: str) -> None:
        """Forget the course of a turn, if it has one; its report stays."""
        if (size := self._courses.pop(turn, None)) is not None:
            self._bytes -= size
            (self._asked.get(turn) or self._kept[turn]).course = None
