"""Tracing port: the current span, and spans under it.

Without tracing there is no current span, and all of this is one look-up. The implementation is in
`telemetry/`, which is not imported then.
"""

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, Protocol

from seawall.errors import Problem

__all__ = [
    "Attribute",
    "Kind",
    "Span",
    "Tracer",
    "current_span",
    "error_type",
    "incoming_trace",
    "record_span",
    "within_span",
]

Kind = Literal["internal", "server", "client"]
Attribute = str | int | float | bool | list[str]


class Span(Protocol):
    """A span of a turn."""

    @property
    def traceparent(self) -> bytes:
        """The header `traceparent` for a callee, so that its spans belong to this one (W3C).

        Empty for a span that is recorded in this process only.
        """
        ...

    @property
    def content(self) -> bool:
        """Whether contents of messages may be recorded."""
        ...

    def child(self, name: str, kind: Kind = "internal", *, seconds: float = 0.0) -> "Span":
        """Begin a span under this one; it began `seconds` ago."""
        ...

    def put(self, key: str, value: Attribute) -> None:
        """Set an attribute."""
        ...

    def end(self, error: str | None = None) -> None:
        """End the span; only the first call counts. `error` is the kind of failure, if any."""
        ...


class Tracer(Protocol):
    """Begins the span of a turn."""

    def begin(self, incoming: bytes) -> Span:
        """Begin a span of kind server under the request's traceparent, empty for none."""
        ...


current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)
"""The span of the current task; None if the turn is not traced."""

incoming_trace: ContextVar[bytes] = ContextVar("incoming_trace", default=b"")
"""The header `traceparent` of the request that the current task answers."""


class within_span:  # noqa: N801 - used like a function
    """`with within_span("commit") as span:` records a span; None without tracing."""

    __slots__ = ("_kind", "_name", "_span", "_token")

    def __init__(self, name: str, kind: Kind = "internal") -> None:
        self._name = name
        self._kind: Kind = kind
        self._span: Span | None = None
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span | None:
        parent = current_span.get()
        if parent is not None:
            self._span = parent.child(self._name, self._kind)
            self._token = current_span.set(self._span)
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is not None and self._token is not None:
            current_span.reset(self._token)
            self._span.end(error_type(error))


def record_span(name: str, seconds: float) -> None:
    """Record a span that has ended; it began `seconds` ago."""
    parent = current_span.get()
    if parent is not None:
        parent.child(name, seconds=seconds).end()


def error_type(error: BaseException | None) -> str | None:
    """The name of a failure: the code of a problem, else the name of its class."""
    if error is None:
        return None
    if isinstance(error, Problem):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return type(error).__name__
