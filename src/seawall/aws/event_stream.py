"""Incremental parser of AWS's binary event stream (application/vnd.amazon.eventstream).

https://smithy.io/2.0/aws/amazon-eventstream.html; a message is, in network byte order::

    total length (4) | headers length (4) | CRC-32 of these eight bytes (4)
    headers | payload | CRC-32 of everything before it (4)
"""

import struct
import uuid
from binascii import crc32

from msgspec import Struct

from seawall.transport.connection import ProtocolError

__all__ = ["EventMessage", "EventStreamParser", "HeaderValue"]

HeaderValue = bool | int | bytes | str | uuid.UUID
"""A header's value; a timestamp is an int, milliseconds since 1970."""

_PRELUDE = struct.Struct("!III")
_LENGTH = struct.Struct("!H")
_CRC = struct.Struct("!I")
_LEAST_BYTES = _PRELUDE.size + _CRC.size
_MAX_HEADER_BYTES = 131_072  # by the specification
_INTEGERS = {
    2: struct.Struct("!b"),
    3: struct.Struct("!h"),
    4: struct.Struct("!i"),
    5: struct.Struct("!q"),
    8: struct.Struct("!q"),
}
_BYTES, _STRING, _UUID = 6, 7, 9


class EventMessage(Struct, frozen=True):
    """One complete message with valid checksums."""

    headers: dict[str, HeaderValue]
    payload: bytes

    def text(self, name: str) -> str:
        """Return a text header; "" where there is none."""
        value = self.headers.get(name, "")
        return value if isinstance(value, str) else ""


class EventStreamParser:
    """Parses messages from bytes that are split in any way."""

    __slots__ = ("_buffer", "_max_message_bytes", "_total")

    def __init__(self, *, max_message_bytes: int = 1 << 20) -> None:
        """Create a parser; longer messages are refused as soon as their length is known."""
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._total = 0  # of the message that begins the buffer, once its prelude is checked

    def feed(self, chunk: bytes) -> list[EventMessage]:
        """Return the messages that this chunk completes.

        Raises:
            ProtocolError: A checksum is wrong, or the bytes are no message.
        """
        self._buffer += chunk
        messages: list[EventMessage] = []
        while len(self._buffer) >= (self._total or _PRELUDE.size):
            if not self._total:
                self._total = self._checked_total()
                continue
            whole = bytes(self._buffer[: self._total])
            del self._buffer[: self._total]
            self._total = 0
            messages.append(_decode(whole))
        return messages

    @property
    def mid_message(self) -> bool:
        """Whether a message is incomplete."""
        return bool(self._buffer)

    def _checked_total(self) -> int:
        total, header_bytes, checksum = _PRELUDE.unpack_from(self._buffer)
        if crc32(self._buffer[: _PRELUDE.size - _CRC.size]) != checksum:
            raise ProtocolError("an event's prelude has a wrong checksum")
        if header_bytes > _MAX_HEADER_BYTES or total > self._max_message_bytes:
            raise ProtocolError(f"an event exceeds {self._max_message_bytes} bytes")
        if total < _LEAST_BYTES + header_bytes:
            raise ProtocolError("an event is shorter than its headers")
        return int(total)


def _decode(whole: bytes) -> EventMessage:
    end = len(whole) - _CRC.size
    if crc32(memoryview(whole)[:end]) != _CRC.unpack_from(whole, end)[0]:
        raise ProtocolError("an event has a wrong checksum")
    payload_at = _PRELUDE.size + _PRELUDE.unpack_from(whole)[1]
    try:
        headers = _decode_headers(whole[_PRELUDE.size : payload_at])
    except (struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
        raise ProtocolError(f"an event's headers cannot be read: {error}") from error
    return EventMessage(headers, whole[payload_at:end])


def _decode_headers(data: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name = data[at + 1 : name_end].decode()
        kind = data[name_end]
        at = name_end + 1
        value: HeaderValue
        if kind in (0, 1):
            value = kind == 0
        elif number := _INTEGERS.get(kind):
            value = int(number.unpack_from(data, at)[0])
            at += number.size
        elif kind == _UUID:
            value = uuid.UUID(bytes=data[at : at + 16])
            at += 16
        elif kind in (_BYTES, _STRING):
            length = _LENGTH.unpack_from(data, at)[0]
            at += _LENGTH.size
            piece = data[at : at + length]
            if len(piece) != length:
                raise ValueError("a value is truncated")
            value = piece.decode() if kind == _STRING else piece
            at += length
        else:
            raise ValueError(f"unknown type {kind}")
        if name in headers:
            raise ValueError(f"duplicate header {name!r}")
        headers[name] = value
    return headers
