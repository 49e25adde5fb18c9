"""Server-sent events: independent of how bytes are split, and within the memory limit."""

from seawall.transport.connection import ProtocolError
from seawall.transport.sse import SseParser

__all__ = ["SEEDS", "one_input"]

_MAX_BYTES = 512
SEEDS: list[bytes] = [
    b"data: a\n\ndata: b\n\n",
    b"\xef\xbb\xbfevent: x\r\nid: 7\rdata: a\ndata: b\r\n\r\n",
    b": comment\n\ndata\n\nretry: 5\n\ndata:\n\n",
    b"data: " + b"x" * 600,
]


def one_input(data: bytes) -> None:
    """The first byte determines how the rest is split."""
    if not data:
        return
    step, stream = 1 + data[0] % 7, data[1:]
    whole, cut = SseParser(), SseParser()
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert [each for piece in pieces for each in cut.feed(piece)] == whole.feed(stream)
    small = SseParser(max_event_bytes=_MAX_BYTES)
    try:
        for piece in pieces:
            for event in small.feed(piece):
                assert len(event.data) <= _MAX_BYTES
    except ProtocolError:
        pass
