"""Events that are read without decoding them: the same answer as one that is decoded."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import Problem
from seawall.models.assembly import Reader, TextFrames
from seawall.transport.sse import ServerSentEvent
from tests.models.wire import WIRES, Call, Wire
from tests.properties import examples

_WIRES = [each for each in WIRES if each.name in ("openai", "anthropic", "responses")]
_CALLS = (Call("toolu_1", "find_order", ('{"order": ', '"#W1"}')),)
_MARK = "MARK"

# What may stand where an event has its text: strings, and what looks like one.
_written = st.one_of(
    st.text(max_size=12).map(json.dumps),
    st.text(st.sampled_from('ab"\\,:{}[] \n\r\u2028é🚢'), max_size=12).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    ),
    st.sampled_from(
        [
            *('"a","content":"b"', '"a","text":"b"', '"a"},"finish_reason":"length"', '"a\nb"'),
            *(' "a"', '"a" ', '"a"\n', '"\\ud800"', '"\\u00zz"', "null", "1", "", '"', "[]"),
            *('"a","reasoning":"b"', '"a","tool_calls":[{"id":"1"}]', '"a","refusal":"b"'),
            *('"a"}}]}\n\ndata: {"error":{"code":"server_error"}}', '"a\\"', "{", '"data: {}"'),
        ]
    ),
)


@st.composite
def _streams(draw: st.DrawFn) -> tuple[Wire, list[bytes]]:
    """The events of an answer, of which some have something odd in place of their text."""
    wire = draw(st.sampled_from(_WIRES))
    plain = ["a"] * draw(st.integers(0, 3))
    odd = [_MARK] * draw(st.integers(1, 12))
    events = wire.answer([*plain, *odd], _CALLS if draw(st.booleans()) else ())
    for noise in wire.noise():
        events.insert(draw(st.integers(0, len(events) - 1)), noise)
    quoted = json.dumps(_MARK).encode()
    return wire, [
        each.replace(quoted, draw(_written).encode("utf-8", "surrogatepass")) for each in events
    ]


def _outcome(reader: Reader, parts: Sequence[bytes]) -> tuple[object, ...]:
    """What a reader makes of what it receives."""
    text, thought, failure = "", "", ""
    try:
        for part in parts:
            text += reader.feed(part)
            if (progress := reader.assembly.take_progress()) is not None:
                thought += progress.reasoning
            if reader.assembly.done:
                break
        end: object = reader.end()
    except (Problem, ValueError) as error:
        failure, end = str(error), None
    return text, thought, failure, end


@examples(60, 20_000)
@given(_streams(), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_events_are_read_as_if_they_came_byte_by_byte(
    stream: tuple[Wire, list[bytes]], together: list[int]
) -> None:
    wire, events = stream
    parts, at = [], 0
    for index in range(len(events)):
        size = together[index % len(together)]
        parts.append(b"".join(events[at : at + size]))
        at += size
    whole = _outcome(wire.reader(), [each for each in parts if each])
    bytewise = _outcome(wire.reader(), [bytes([each]) for each in b"".join(events)])
    if not bytewise[2]:
        assert whole == bytewise
    else:  # what precedes a failure within the same bytes is not shown
        assert whole[2] == bytewise[2]
        assert str(bytewise[0]).startswith(str(whole[0]))


def _frame(text: str, rest: str = '"index":0') -> bytes:
    return f'data: {{"content":{json.dumps(text)},{rest}}}\n\n'.encode()


def _text_of(event: ServerSentEvent) -> str | None:
    decoded = json.loads(event.data)
    text = decoded.get("content")
    return text if decoded == {"content": text, "index": 0} else None


def test_two_events_in_a_row_show_what_is_repeated() -> None:
    frames = TextFrames(b"content")
    frames.learn(_frame("One"), _text_of)
    assert not frames.known
    frames.learn(_frame(" two"), _text_of)
    assert frames.known
    assert frames.read(_frame('"three"\n')) == '"three"\n'
    assert frames.read(_frame("four") + _frame(" five") + _frame("")) == "four five"
    assert frames.read(_frame("six", '"index":1')) is None
    assert frames.read(_frame("six")[:-1]) is None


@pytest.mark.parametrize("rest", ['"index":1', '"index":0,"content":"x"', '"index":0,"a":"x"'])
def test_what_has_more_than_text_is_not_learned(rest: str) -> None:
    frames = TextFrames(b"content")
    for _ in range(3):
        frames.learn(_frame("a", rest), _text_of)
    assert not frames.known


def test_what_varies_around_the_text_is_learned_a_few_times_only() -> None:
    frames = TextFrames(b"content")
    for number in range(50):
        frames.learn(_frame("a", f'"id":{number}'), _text_of)
    for _ in range(3):
        frames.learn(_frame("a"), _text_of)
    assert not frames.known
