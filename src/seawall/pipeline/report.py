"""What is reported of a turn when it is over, once, to those that count."""

import logging
import time
from collections.abc import Callable

from seawall.errors import Problem
from seawall.requests import current_request
from seawall.turn import TurnReport, TurnRequest

__all__ = ["Observe", "Observers", "TurnReport", "log_failed_turn"]

_log = logging.getLogger("seawall.turns")
_LOG_SECONDS = 60.0
_MAX_CAUSE_CHARACTERS = 300


Observe = Callable[[TurnReport], None]
"""Counts a finished turn; must not wait. What it raises is logged, and the turn goes on."""


class Observers:
    """Those that count finished turns. None of them can fail a turn, or keep it from the others."""

    def __init__(self) -> None:
        self._observers: list[Observe] = []
        self._failures = 0
        self._logged_at = float("-inf")

    def add(self, observe: Observe) -> None:
        """One more."""
        self._observers.append(observe)

    def __call__(self, report: TurnReport) -> None:
        """Report a finished turn to all of them."""
        for observe in self._observers:
            try:
                observe(report)
            except BaseException as error:  # noqa: BLE001 - the turn is done, and may be stored
                self._note(error)

    def _note(self, error: BaseException) -> None:
        """Log at most one failure a minute, with how many there were."""
        self._failures += 1
        if time.monotonic() >= self._logged_at + _LOG_SECONDS:
            _log.error(
                "a turn could not be counted (%d since the start)", self._failures, exc_info=error
            )
            self._logged_at = time.monotonic()


def log_failed_turn(
    report: TurnReport, request: TurnRequest, problem: Problem, seconds: float
) -> None:
    """Leave a line in the log about a turn that failed.

    Args:
        report: of the turn, as far as it came.
        request: what was asked for; nothing of its text is logged.
        problem: what ended it. The detail of an upstream's failure names the upstream.
        seconds: from the turn's arrival to its failure.
    """
    # Strangers that are turned away are no failures of turns; they could fill the log.
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
