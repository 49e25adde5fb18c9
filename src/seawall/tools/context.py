"""What a tool is told about the turn that calls it."""

from collections.abc import MutableMapping

from msgspec import Struct

from seawall.turn import Principal

__all__ = ["ToolContext", "ToolError"]


class ToolContext(Struct, frozen=True):
    """The turn, as a tool may see it. It travels with the call; turns share nothing.

    principal: on whose behalf the tool acts.
    deadline: seconds on the event loop's monotonic clock.
    idempotency_key: the same for every retry of this very call of this very turn, however the
        model words its arguments.
    state: the session's notes, kept with the turn when it is committed; string to string,
        at most 32 entries of 1,024 characters.
    traceparent: what a callee is told, so that its spans are part of the turn's trace (W3C Trace
        Context); empty where the turn is not traced.
    """

    principal: Principal
    session: str
    turn: str
    agent: str
    call: str
    idempotency_key: str
    deadline: float
    state: MutableMapping[str, str]
    traceparent: str = ""


class ToolError(Exception):
    """A refusal that the model should read and act on; it is given the message, up to 4 KiB."""
