"""What is told about a turn when it is over, once, to whoever counts."""

from collections.abc import Callable

from msgspec import Struct

from seawall.turn import Usage

__all__ = ["Observe", "TurnReport"]


class TurnReport(Struct):
    """Filled in while the turn runs; whole when it is observed.

    outcome: "completed", "replayed", "cancelled", or the code of the problem that ended it.
    tool_calls, failed_tool_calls: counts over all steps. timings: milliseconds by stage.
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
    cached: bool = False


Observe = Callable[[TurnReport], None]
"""Counts a finished turn; must neither wait nor raise."""
