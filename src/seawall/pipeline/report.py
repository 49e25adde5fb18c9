"""What is reported of a turn when it is over, once, to those that count."""

import logging
import time
from collections.abc import Callable

from msgspec import Struct

from seawall.budgets.spending import ModelSpent
from seawall.turn import Usage

__all__ = ["Observe", "Observers", "TurnReport"]

_log = logging.getLogger("seawall.turns")
_LOG_SECONDS = 60.0


class TurnReport(Struct):
    """Filled in while the turn runs; whole when it is observed.

    outcome: "completed", "replayed", "cancelled", or the code of the problem that ended it.
    tool_calls, failed_tool_calls: counts over all steps. timings: milliseconds by stage.
    spent: by model, where calls are metered, also of a turn that failed. currency: of the costs.
    cached: the answer was produced for another turn.
    """

    turn: str
    outcome: str = "cancelled"
    agent: str = ""
    intent: str | None = None
    intent_by: str = ""
    usage: Usage = Usage()
    tool_calls: int = 0
    failed_tool_calls: int = 0
    timings: dict[str, float] = {}
    spent: dict[str, ModelSpent] = {}
    currency: str = ""
    cached: bool = False


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
            except Exception as error:  # noqa: BLE001 - the turn is done, and may be stored
                self._note(error)

    def _note(self, error: Exception) -> None:
        """Log at most one failure a minute, with how many there were."""
        self._failures += 1
        if time.monotonic() >= self._logged_at + _LOG_SECONDS:
            _log.error(
                "a turn could not be counted (%d since the start)", self._failures, exc_info=error
            )
            self._logged_at = time.monotonic()
