from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.transport.connection import ProtocolError
from seawall.transport.sse import ServerSentEvent, SseParser


def read(*chunks: bytes) -> list[tuple[bytes, bytes, bytes]]:
    parser = SseParser()
    return [(each.name, each.data, each.id) for chunk in chunks for each in parser.feed(chunk)]


def test_the_examples_of_the_standard() -> None:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6."""
    assert read(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [(b"message", b"YHOO\n+2\n10", b"")]
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
    stream += b"data:  third event\n\n"
    assert read(stream) == [
        (b"message", b"first event", b"1"),
        (b"message", b"second event", b""),
        (b"message", b" third event", b""),
    ]
    assert read(b"data\n\ndata\ndata\n\ndata:") == [
        (b"message", b"", b""),
        (b"message", b"\n", b""),
    ]
    assert read(b"data:test\n\ndata: test\n\n") == [(b"message", b"test", b"")] * 2


def test_lines_that_are_not_events() -> None:
    assert read(b"event: x\n\n: comment\n\nretry: 5\n\nid: a\0b\n\nfoo: bar\n\n") == []
    assert read(b"data: never finished\n") == []
    assert read(b"\xef\xbb\xbfdata: a\n\n") == [(b"message", b"a", b"")]
    assert read(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n") == []


_text = st.lists(st.sampled_from([b"a", b":", b" ", b"\xc3\xa9", b"\0"])).map(b"".join)
_line = st.one_of(
    _text.map(lambda text: b"data: " + text),
    st.sampled_from([b"", b"", b"data", b"event: e", b"id: 7", b": c", b"data:\xc3\xa9", b"x: y"]),
)


@given(
    st.lists(st.tuples(_line, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20),
    st.lists(st.integers(0, 200), max_size=10),
)
def test_any_split_into_chunks(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines) + b"data: end\n\n"
    positions = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(positions)]
    assert read(*pieces) == read(stream) == read(*(bytes([each]) for each in stream))


def test_an_endless_event_is_rejected() -> None:
    parser = SseParser(max_event_bytes=1_000)
    with pytest.raises(ProtocolError):
        for _ in range(2_000):
            parser.feed(b"data: x\n")
    parser = SseParser(max_event_bytes=1_000)
    with pytest.raises(ProtocolError):
        for _ in range(2_000):
            parser.feed(b"x")


def test_the_fast_path_gives_the_same_result() -> None:
    parser = SseParser()
    parser.feed(b": warm\n\n")
    assert parser.feed(b"data: a\n\ndata: b\n\n") == [
        ServerSentEvent(b"message", b"a", b""),
        ServerSentEvent(b"message", b"b", b""),
    ]
    assert parser.feed(b"event: e\nid: 3\ndata: c\n\nevent: f\nid: 4\ndata: \n\n") == [
        ServerSentEvent(b"e", b"c", b"3"),
        ServerSentEvent(b"f", b"", b"4"),
    ]
    assert parser.feed(b"data: d\n\n") == [ServerSentEvent(b"message", b"d", b"4")]


_frame = st.tuples(
    st.sampled_from([b"event: e\n", b"event: e\n", b"event: \n", b"event:e\n", b""]),
    st.sampled_from([b"id: 7\n", b"id: 8\n", b"id: \n", b"id: \0\n", b"id: 7\r\n", b""]),
    st.sampled_from(
        [b"data: x\n\n", b"data: x\n\n", b"data: \n\n", b"data:  y\ndata: z\n\n", b"\n"]
    ),
)


@given(st.lists(_frame.map(b"".join), max_size=5))
def test_named_and_numbered_events_are_read_as_byte_by_byte(frames: list[bytes]) -> None:
    stream = b"".join(frames)
    one_by_one, last = SseParser(), SseParser()
    expected = [event for each in stream for event in one_by_one.feed(bytes([each]))]
    parser = SseParser()
    assert [event for each in frames for event in parser.feed(each)] == expected
    assert last.feed(stream) == expected
    assert parser.last_id == last.last_id == one_by_one.last_id


def test_what_a_stream_says_of_its_resumption() -> None:
    parser = SseParser()
    assert parser.feed(b"id: 7\nretry: 1500\n\nretry: soon\nid\xc3\xa9: x\n\n") == []
    assert (parser.last_id, parser.retry_seconds) == (b"7", 1.5)
