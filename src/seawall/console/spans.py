"""Spans of a recorded turn."""

from collections.abc import Callable

from seawall.spans import Attribute, Kind, Span

__all__ = ["CourseSpan", "SpanList"]

_MAX_SPANS = 400
_MAX_ATTRIBUTES = 32
_MAX_ATTRIBUTE_CHARACTERS = 256
_CONTENTS = frozenset(
    (
        "gen_ai.system_instructions",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
    )
)


class SpanList:
    """The spans of a turn, in the order in which they began; at most 400.

    Attributes:
        clock: Monotonic seconds.
        spans: Without that of the turn as a whole.
    """

    __slots__ = ("clock", "spans")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.spans: list[CourseSpan] = []

    def add(self, span: "CourseSpan") -> None:
        """Add a span that begins."""
        if len(self.spans) < _MAX_SPANS:
            self.spans.append(span)


class CourseSpan:
    """A part of a recorded turn; implements `Span`, and passes all on to the span of telemetry.

    Attributes:
        name: As in traces.
        kind: As in traces.
        began_at: Seconds on the monotonic clock.
        ended_at: The same; None while it lasts.
        error: Kind of failure; None for none.
        attributes: Without contents.
        depth: Number of spans around it.
    """

    __slots__ = (
        "_inner",
        "_spans",
        "attributes",
        "began_at",
        "depth",
        "ended_at",
        "error",
        "kind",
        "name",
    )

    def __init__(
        self,
        spans: "SpanList",
        inner: Span | None,
        name: str,
        *,
        kind: Kind,
        began_at: float,
        depth: int,
    ) -> None:
        self._spans = spans
        self._inner = inner
        self.name = name[:_MAX_ATTRIBUTE_CHARACTERS]
        self.kind: Kind = kind
        self.began_at = began_at
        self.ended_at: float | None = None
        self.error: str | None = None
        self.attributes: dict[str, Attribute] = {}
        self.depth = depth

    @property
    def traceparent(self) -> bytes:
        """See `Span.traceparent`; empty without telemetry."""
        return self._inner.traceparent if self._inner is not None else b""

    @property
    def content(self) -> bool:
        """See `Span.content`."""
        return self._inner is not None and self._inner.content

    def child(self, name: str, kind: Kind = "internal", *, seconds: float = 0.0) -> "CourseSpan":
        """See `Span.child`."""
        inner = self._inner.child(name, kind, seconds=seconds) if self._inner is not None else None
        began_at = self._spans.clock() - seconds
        made = CourseSpan(
            self._spans, inner, name, kind=kind, began_at=began_at, depth=self.depth + 1
        )
        self._spans.add(made)
        return made

    def put(self, key: str, value: Attribute) -> None:
        """See `Span.put`."""
        if self._inner is not None:
            self._inner.put(key, value)
        if key not in _CONTENTS and (
            key in self.attributes or len(self.attributes) < _MAX_ATTRIBUTES
        ):
            if isinstance(value, str):
                value = value[:_MAX_ATTRIBUTE_CHARACTERS]
            self.attributes[key] = value

    def end(self, error: str | None = None) -> None:
        """See `Span.end`."""
        if self.ended_at is None:
            self.ended_at = self._spans.clock()
            self.error = error
        if self._inner is not None:
            self._inner.end(error)
