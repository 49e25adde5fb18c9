"""Recording of spans, and the sampling decision; without I/O.

Identifiers and their propagation: https://www.w3.org/TR/trace-context/.
"""

import os
import random
import re
import time
from collections.abc import Callable

from seawall.spans import Attribute, Kind, Span

__all__ = ["RecordedSpan", "Recorder", "UnsampledSpan"]

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MAX_CHARACTERS = 65_536  # of one attribute
_SAMPLED = 1


class RecordedSpan:
    """A sampled span. Times in nanoseconds since 1970; ids are bytes."""

    __slots__ = (
        "_on_end",
        "attributes",
        "began",
        "content",
        "ended",
        "error",
        "id",
        "kind",
        "name",
        "parent",
        "trace",
    )

    def __init__(
        self,
        on_end: "Callable[[RecordedSpan], None]",
        *,
        trace: bytes,
        parent: bytes,
        name: str,
        kind: Kind,
        began: int,
        content: bool,
    ) -> None:
        self._on_end = on_end
        self.content = content
        self.trace = trace
        self.id = _random_bytes(8)
        self.parent = parent
        self.name = name
        self.kind: Kind = kind
        self.began = began
        self.ended = 0
        self.error: str | None = None
        self.attributes: dict[str, Attribute] = {}

    @property
    def traceparent(self) -> bytes:
        """See `Span.traceparent`."""
        return _traceparent(self.trace, self.id, _SAMPLED)

    def child(self, name: str, kind: Kind = "internal", *, seconds: float = 0.0) -> "RecordedSpan":
        """See `Span.child`."""
        return RecordedSpan(
            self._on_end,
            trace=self.trace,
            parent=self.id,
            name=name,
            kind=kind,
            began=time.time_ns() - int(seconds * 1e9),
            content=self.content,
        )

    def put(self, key: str, value: Attribute) -> None:
        """See `Span.put`; a text that is too long is truncated."""
        if type(value) is str and len(value) > _MAX_CHARACTERS:
            value = value[:_MAX_CHARACTERS]
        self.attributes[key] = value

    def end(self, error: str | None = None) -> None:
        """See `Span.end`."""
        if self.ended:
            return
        self.ended = time.time_ns()
        self.error = error
        if error is not None:
            self.attributes["error.type"] = error
        self._on_end(self)


class UnsampledSpan:
    """The only span of a turn that is not sampled; its `traceparent` says so to upstreams."""

    __slots__ = ("traceparent",)

    def __init__(self, trace: bytes) -> None:
        self.traceparent = _traceparent(trace, _random_bytes(8), 0)

    @property
    def content(self) -> bool:
        """See `Span.content`."""
        return False

    def child(self, name: str, kind: Kind = "internal", *, seconds: float = 0.0) -> "UnsampledSpan":  # noqa: ARG002
        """See `Span.child`."""
        return self

    def put(self, key: str, value: Attribute) -> None:
        """See `Span.put`."""

    def end(self, error: str | None = None) -> None:
        """See `Span.end`."""


class Recorder:
    """Implements the port `Tracer`.

    Args:
        on_end: Called with each recorded span when it ends.
        sample: See `TelemetrySettings`.
        follow: See `TelemetrySettings`.
        content: See `TelemetrySettings`.
    """

    def __init__(
        self,
        on_end: Callable[[RecordedSpan], None],
        *,
        sample: float,
        follow: bool,
        content: bool,
    ) -> None:
        self._content = content
        self._on_end = on_end
        self._sample = sample
        self._follow = follow

    def begin(self, incoming: bytes) -> Span:
        """See `Tracer.begin`."""
        caller = _parse(incoming) if self._follow and incoming else None
        trace, parent, flags = caller or (_random_bytes(16), b"", None)
        sampled = flags & _SAMPLED if flags is not None else random.random() < self._sample  # noqa: S311
        if not sampled:
            return UnsampledSpan(trace)
        return RecordedSpan(
            self._on_end,
            trace=trace,
            parent=parent,
            name="turn",
            kind="server",
            began=time.time_ns(),
            content=self._content,
        )


def _parse(traceparent: bytes) -> tuple[bytes, bytes, int] | None:
    """Parse trace, parent and flags; None if it is invalid and must be ignored."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    trace, parent = bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode())
    if not any(trace) or not any(parent):
        return None
    return trace, parent, int(found[4], 16)


def _traceparent(trace: bytes, span: bytes, flags: int) -> bytes:
    return f"00-{trace.hex()}-{span.hex()}-{flags:02x}".encode()


def _random_bytes(count: int) -> bytes:
    return os.urandom(count)
