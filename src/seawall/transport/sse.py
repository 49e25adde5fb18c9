"""Incremental parser for server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re

from msgspec import Struct

from seawall.transport.connection import ProtocolError

__all__ = ["ServerSentEvent", "SseParser"]

_BEGINNING_BYTES = 256
_LINE_BYTES = 32  # memory overhead of a data line
_SHORT = 4_096  # up to this length a partial line is re-joined with each chunk

_line_end = re.compile(rb"\r\n|\n|\r")
_digits = re.compile(rb"[0-9]{1,9}")
_numbered = re.compile(rb"event: ([^\r\n]++)\nid: ([^\r\n\0]++)\ndata: ([^\r\n]*+)\n\n")


class ServerSentEvent(Struct, frozen=True):
    """A dispatched event: its name, its data and the last event id. UTF-8 bytes."""

    name: bytes
    data: bytes
    id: bytes


class SseParser:
    """Parses a stream that arrives in chunks of any size.

    Attributes:
        retry_seconds: What the stream's last `retry` field asks for; None without one.
    """

    __slots__ = (
        "_buffer",
        "_buffered",
        "_data",
        "_first",
        "_id",
        "_long_line",
        "_max_event_bytes",
        "_name",
        "_size",
        "retry_seconds",
    )

    def __init__(self, *, max_event_bytes: int = 1 << 20) -> None:
        """Create a parser.

        Args:
            max_event_bytes: Size of one event at most.
        """
        self._max_event_bytes = max_event_bytes
        self._buffer = b""
        self._long_line = bytearray()  # continues the buffer, within a long line
        self._buffered = 0  # bytes in both
        self._first = True
        self._name = b""
        self._id = b""
        self._data: list[bytes] = []
        self._size = 0
        self.retry_seconds: float | None = None

    @property
    def last_id(self) -> bytes:
        """The last event id of the stream, also of an event without data."""
        return self._id

    @last_id.setter
    def last_id(self, value: bytes) -> None:
        """Of events that were read without the parser."""
        self._id = value

    @property
    def beginning(self) -> bytes:
        """How the data of an event begins that is not complete yet."""
        if self._data:
            return self._data[0][:_BEGINNING_BYTES]
        line = (self._buffer[:_BEGINNING_BYTES] + self._long_line[:_BEGINNING_BYTES]).lstrip()
        field, _, value = line.partition(b":")
        return value.removeprefix(b" ") if field == b"data" else b""

    @property
    def between_events(self) -> bool:
        """Whether the last event is complete, and nothing of the next one was received."""
        return not (self._buffered or self._data or self._name or self._first)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Parse a chunk; return the events that it completes.

        Raises:
            ProtocolError: An event is longer than allowed.
        """
        if not self._buffered and not self._data:
            quick = self._feed_complete_events(chunk)
            if quick is not None:
                self._first = False  # it begins without a byte order mark
                return quick
        if self._buffered + len(chunk) > _SHORT and self._within_line(chunk):
            self._long_line += chunk  # parsed when the line ends, and only then
            self._buffered += len(chunk)
            self._check_size()
            return []
        buffer = b"".join((self._buffer, self._long_line, chunk)) if self._buffered else chunk
        self._long_line.clear()
        if self._first and buffer:
            if b"\xef\xbb\xbf".startswith(buffer[:3]) and len(buffer) < 3:
                self._buffer = buffer
                self._buffered = len(buffer)
                return []
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
            self._first = False
        events: list[ServerSentEvent] = []
        if b"\r" in buffer:
            start = self._feed_lines(buffer, events)
        else:
            start = 0
            while (end := buffer.find(b"\n", start)) >= 0:
                self._process_line(buffer[start:end], events)
                start = end + 1
        self._buffer = buffer[start:]
        self._buffered = len(self._buffer)
        self._check_size()
        return events

    def _within_line(self, chunk: bytes) -> bool:
        """Whether the chunk continues a line without ending it."""
        return not (b"\n" in chunk or b"\r" in chunk or self._buffer.endswith(b"\r"))

    def _check_size(self) -> None:
        if self._size + self._buffered > self._max_event_bytes:
            raise ProtocolError(f"an event exceeds {self._max_event_bytes} bytes")

    def _feed_complete_events(self, chunk: bytes) -> list[ServerSentEvent] | None:
        """Fast path: a chunk of complete events, each with one data line and nothing else.

        Or each with a name, an id and one data line, as our own server sends them.
        """
        if chunk.startswith(b"event: ") and not self._name:
            return self._feed_numbered_events(chunk)
        if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
            return None
        if self._name or len(chunk) > self._max_event_bytes:
            return None
        pieces = chunk[6:-2].split(b"\n\ndata: ")
        for piece in pieces:
            if b"\n" in piece:
                return None
        return [ServerSentEvent(b"message", piece, self._id) for piece in pieces]

    def _feed_numbered_events(self, chunk: bytes) -> list[ServerSentEvent] | None:
        found: list[tuple[bytes, bytes, bytes]] = []
        at, size = 0, len(chunk)
        while at < size:
            match = _numbered.match(chunk, at)
            if match is None:
                return None
            name, position, data = match.groups()
            found.append((name, position, data))
            at = match.end()
        if size > self._max_event_bytes:
            return None
        self._id = found[-1][1]
        return [ServerSentEvent(name, data, position) for name, position, data in found]

    def _feed_lines(self, buffer: bytes, events: list[ServerSentEvent]) -> int:
        start = 0
        for match in _line_end.finditer(buffer):
            if match.group() == b"\r" and match.end() == len(buffer):
                break  # its line feed may be in the next chunk
            self._process_line(buffer[start : match.start()], events)
            start = match.end()
        return start

    def _process_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            if self._data:
                events.append(
                    ServerSentEvent(self._name or b"message", b"\n".join(self._data), self._id)
                )
            self._name = b""
            self._data = []
            self._size = 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + _LINE_BYTES
        elif field == b"event":
            self._name = value
        elif field == b"error":  # llama.cpp sends this field instead of an event named error
            self._name = b"error"
            self._data.append(value)
            self._size += len(value) + _LINE_BYTES
        elif field == b"id" and b"\0" not in value:
            self._id = value
        elif field == b"retry" and _digits.fullmatch(value):
            self.retry_seconds = int(value) / 1_000
