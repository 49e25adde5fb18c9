"""Binary event stream, compared with botocore's parser."""

import struct
import uuid
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seawall.aws.event_stream import EventStreamParser, HeaderValue
from seawall.transport.connection import ProtocolError
from tests.models.wire import frame, sealed

# Type, and how its value is written: https://smithy.io/2.0/aws/amazon-eventstream.html
VALUES = st.one_of(
    st.just((0, b"")),
    st.just((1, b"")),
    st.integers(-128, 127).map(lambda n: (2, struct.pack("!b", n))),
    st.integers(-(2**15), 2**15 - 1).map(lambda n: (3, struct.pack("!h", n))),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: (4, struct.pack("!i", n))),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: (5, struct.pack("!q", n))),
    st.binary(max_size=40).map(lambda b: (6, struct.pack("!H", len(b)) + b)),
    st.text(max_size=20).map(lambda t: (7, struct.pack("!H", len(t.encode())) + t.encode())),
    st.integers(0, 2**31).map(lambda n: (8, struct.pack("!q", n * 1_000))),
    st.binary(min_size=16, max_size=16).map(lambda b: (9, b)),
)
NAMES = st.text("abc:-é", min_size=1, max_size=9)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    headers = draw(st.dictionaries(NAMES, VALUES, max_size=5))
    encoded = b"".join(
        struct.pack("!B", len(name.encode())) + name.encode() + struct.pack("!B", kind) + value
        for name, (kind, value) in headers.items()
    )
    return sealed(encoded, draw(st.binary(max_size=60)))


def by_botocore(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(dict(event.headers), event.payload) for event in buffer]


def plain(headers: dict[str, HeaderValue]) -> dict[str, object]:
    """As botocore has them: it leaves a UUID as bytes."""
    return {k: v.bytes if isinstance(v, uuid.UUID) else v for k, v in headers.items()}


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text draws Unicode's tables
@given(st.lists(messages(), min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=8))
def test_reads_what_botocore_reads_however_it_is_split(whole: list[bytes], cuts: list[int]) -> None:
    data = b"".join(whole)
    positions = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    parser = EventStreamParser()
    read = [
        (plain(message.headers), message.payload)
        for start, end in pairwise(positions)
        for message in parser.feed(data[start:end])
    ]
    assert read == by_botocore(data)
    assert not parser.mid_message


@given(messages(), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(data: bytes, position: int, change: int) -> None:
    broken = bytearray(data)
    broken[position % len(data)] ^= change
    with pytest.raises(ParserError):
        by_botocore(bytes(broken))
    with pytest.raises(ProtocolError):
        EventStreamParser().feed(bytes(broken))


@given(st.binary(max_size=60))
def test_headers_that_cannot_be_read(encoded: bytes) -> None:
    """Valid checksums around invalid headers: `ProtocolError`, and no other error."""
    try:
        EventStreamParser().feed(sealed(encoded, b""))
    except ProtocolError:
        return
    by_botocore(sealed(encoded, b""))  # what we take, it takes


def test_a_message_that_is_too_long_is_refused_by_its_length() -> None:
    data = frame({":event-type": "x"}, b"y" * 2_000)
    with pytest.raises(ProtocolError, match="exceeds 1000"):
        EventStreamParser(max_message_bytes=1_000).feed(data[:12])


def test_mid_message() -> None:
    parser = EventStreamParser()
    parser.feed(frame({}, b"x") + b"\0")
    assert parser.mid_message
