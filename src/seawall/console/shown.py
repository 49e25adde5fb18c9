"""Recorded turns as the page shows them: rows of a list, a waterfall, events with their times."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from seawall.console.recording import Course, FinishedTurn, TurnRecorder
from seawall.console.spans import CourseSpan
from seawall.pipeline.replay import advance
from seawall.turn import TurnReport

__all__ = ["FIELDS", "ShownTurn", "ShownTurns", "TurnRow", "search", "show_turn"]

FIELDS = ("turn", "session", "tenant", "subject", "agent", "outcome")
"""By which turns are found; `outcome` is also one of "running", "failed" and "succeeded"."""

_MAX_ROWS = 200
_RUNNING = "running"


class TurnRow(Struct, frozen=True, kw_only=True):
    """A turn in a list.

    Attributes:
        began_at: Unix seconds.
        outcome: As in reports, or "running".
        milliseconds: From its arrival to its end.
        first_text: Milliseconds to the first text; None without any.
        course: Whether its course was recorded.
        cost: In `currency`.
    """

    turn: str
    session: str
    tenant: str
    subject: str
    agent: str
    outcome: str
    succeeded: bool
    began_at: float
    milliseconds: float
    first_text: float | None
    tokens: int
    cost: float
    currency: str
    tool_calls: int
    course: bool


class ShownSpan(Struct, frozen=True):
    """A bar of the waterfall; times in milliseconds since the turn's arrival, None while it lasts.

    Attributes:
        depth: Number of spans around it.
        attributes: Without contents.
    """

    name: str
    depth: int
    began: float
    ended: float | None
    error: str | None
    attributes: dict[str, Any]


class ShownEvent(Struct, frozen=True):
    """An event, its position, and when it happened: in milliseconds since the turn's arrival."""

    at: float | None
    id: int
    event: Any


class TurnDetails(Struct, frozen=True, kw_only=True):
    """A turn in full.

    Attributes:
        row: As in a list.
        timings: Milliseconds by stage, once it has ended.
        intent: The detected intent.
        intent_by: What detected it.
        models: Tokens and cost by model.
        effects: Tool, status and decision of each effect.
        spans: Of its course, in the order in which they began.
        recorded: Number of recorded events.
        truncated: Whether events are missing at the end.
        events: Only where they were asked for.
    """

    row: TurnRow
    timings: dict[str, float] = {}
    intent: str | None = None
    intent_by: str = ""
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    models: dict[str, dict[str, float]] = {}
    effects: list[tuple[str, str, str]] = []
    spans: list[ShownSpan] = []
    recorded: int = 0
    truncated: bool = False
    events: list[ShownEvent] | None = None


class ShownTurns(Struct, frozen=True):
    """Rows, newest first, and how many turns are kept."""

    turns: list[TurnRow]
    kept: int


class ShownTurn(Struct, frozen=True):
    """A turn; None where it is not known."""

    turn: TurnDetails | None


def search(recorder: TurnRecorder, wanted: Mapping[str, str]) -> ShownTurns:
    """The recent turns of this process that match.

    Args:
        recorder: Has them.
        wanted: Values of `FIELDS`, which are compared as a whole; and `since` and `until`, Unix
            seconds between which turns began; and `course`, "recorded" for turns with one.
    """
    since, until = float(wanted.get("since", "-inf")), float(wanted.get("until", "inf"))
    fields = {name: wanted[name] for name in FIELDS if wanted.get(name)}
    running, finished = recorder.running(), recorder.finished()
    courses_only = bool(wanted.get("course"))
    found = [
        row
        for row in map(_running_row, reversed(running))
        if since <= row.began_at <= until and _matches(row, fields)
    ][:_MAX_ROWS]
    for each in finished:  # rows are made of those only that match: there may be 100,000
        if len(found) >= _MAX_ROWS:
            break
        if courses_only and each.course is None:
            continue
        if _matches(each.report, fields) and since <= _began_at(each) <= until:
            found.append(_row(each))
    return ShownTurns(found, len(running) + len(finished))


def show_turn(recorder: TurnRecorder, turn: str, *, content: bool) -> ShownTurn:
    """A turn of this process.

    Args:
        recorder: Has it.
        turn: Its id.
        content: Whether to include its events.
    """
    found = recorder.find(turn)
    if found is None:
        return ShownTurn(None)
    course = found if isinstance(found, Course) else found.course
    details = _running_details(found) if isinstance(found, Course) else _details(found)
    if course is not None:
        details = msgspec.structs.replace(
            details,
            spans=[_shown_span(each, course.started_at) for each in course.spans.spans],
            recorded=len(course.events),
            truncated=course.truncated,
            events=_shown_events(course) if content else None,
        )
    return ShownTurn(details)


def _began_at(finished: FinishedTurn) -> float:
    return finished.ended_at - finished.report.timings.get("total", 0.0) / 1e3


def _matches(row: TurnRow | TurnReport, fields: Mapping[str, str]) -> bool:
    for name, value in fields.items():
        if name == "outcome" and value in ("failed", "succeeded"):
            if row.outcome == _RUNNING or row.succeeded != (value == "succeeded"):
                return False
        elif getattr(row, name) != value:
            return False
    return True


def _row(finished: FinishedTurn) -> TurnRow:
    report = finished.report
    return TurnRow(
        turn=report.turn,
        session=report.session,
        tenant=report.tenant,
        subject=report.subject,
        agent=report.agent,
        outcome=report.outcome,
        succeeded=report.succeeded,
        began_at=_began_at(finished),
        milliseconds=report.timings.get("total", 0.0),
        first_text=report.timings.get("first_text"),
        tokens=report.usage.prompt_tokens + report.usage.completion_tokens,
        cost=sum(each.cost for each in report.spent.values()) / 1e9,
        currency=report.currency,
        tool_calls=report.tool_calls,
        course=finished.course is not None,
    )


def _running_row(course: Course) -> TurnRow:
    return TurnRow(
        turn=course.turn,
        session=course.session,
        tenant="",
        subject="",
        agent="",
        outcome=_RUNNING,
        succeeded=False,
        began_at=course.began_at,
        milliseconds=round((course.clock() - course.started_at) * 1e3, 1),
        first_text=None,
        tokens=0,
        cost=0.0,
        currency="",
        tool_calls=0,
        course=True,
    )


def _running_details(course: Course) -> TurnDetails:
    return TurnDetails(row=_running_row(course))


def _details(finished: FinishedTurn) -> TurnDetails:
    report = finished.report
    return TurnDetails(
        row=_row(finished),
        timings=report.timings,
        intent=report.intent,
        intent_by=report.intent_by,
        cached=report.cached,
        prompt_tokens=report.usage.prompt_tokens,
        completion_tokens=report.usage.completion_tokens,
        models={
            name: {
                "prompt_tokens": each.usage.prompt_tokens,
                "completion_tokens": each.usage.completion_tokens,
                "calls": each.usage.model_calls,
                "cost": each.cost / 1e9,
            }
            for name, each in report.spent.items()
        },
        effects=report.effects,
    )


def _shown_span(span: CourseSpan, started_at: float) -> ShownSpan:
    ended = span.ended_at
    return ShownSpan(
        span.name,
        span.depth,
        round(max(0.0, span.began_at - started_at) * 1e3, 2),
        None if ended is None else round((ended - started_at) * 1e3, 2),
        span.error,
        dict(span.attributes),
    )


def _shown_events(course: Course) -> list[ShownEvent]:
    shown: list[ShownEvent] = []
    position = 0
    for at, event in course.events:
        position = advance(position, event)
        shown.append(ShownEvent(round(at * 1e3, 1), position, msgspec.to_builtins(event)))
    return shown
