"""The report of a finished turn: for observers, the log, and the turn's span."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from seawall.errors import Problem
from seawall.requests import current_request
from seawall.spans import Span, Tracer, current_span, incoming_trace
from seawall.turn import TurnReport, TurnRequest

__all__ = [
    "Observe",
    "Observers",
    "TurnReport",
    "describe_outcome",
    "log_failed_turn",
    "turn_span",
]

_log = logging.getLogger("seawall.turns")
_LOG_SECONDS = 60.0
_MAX_CAUSE_CHARACTERS = 300


Observe = Callable[[TurnReport], None]
"""Receives the report of a finished turn; must not block. Its exceptions are logged only."""


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
    # Requests that are not authenticated are no failed turns; they could fill the log.
    level = logging.WARNING if report.tenant else logging.INFO
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
