"""Events that repeat an earlier one except for their text: read as all others, only sooner."""

import json
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from seawall.errors import UpstreamFailed
from seawall.models.anthropic import AnthropicReader
from seawall.models.assembly import SseReader
from seawall.models.openai import OpenAIReader
from tests.properties import examples

Event = Callable[[str], bytes]


def event(delta: str = '{"content":%s}', rest: str = "") -> Event:
    """A chunk; `%s` in its delta is the text as JSON."""
    template = '{"id":"a","model":"m","choices":[{"index":0,"delta":%s,"finish_reason":null}]%s}'

    def encoded(text: str) -> bytes:
        inner = delta.replace("%s", json.dumps(text, ensure_ascii=False))
        return b"data: " + (template % (inner, rest)).encode("utf-8", "replace") + b"\n\n"

    return encoded


PLAIN = event()
SHAPES: list[Event] = [
    PLAIN,
    event('{"role":"assistant","content":%s}'),
    event('{"content": %s}'),
    event('{"content":%s,"content":"twice"}'),
    event('{"content":"\\u0061","x":%s}'),
    event('{"reasoning_content":%s}'),
    event('{"content":%s,"reasoning":"well"}'),
    event('{"refusal":%s}'),
    event('{"content":%s,"tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]}'),
    event(rest=',"usage":{"prompt_tokens":1,"completion_tokens":2}'),
    lambda text: b": comment\n\n" + PLAIN(text),
    lambda text: b"event: message\n" + PLAIN(text),
    lambda text: PLAIN(text).replace(b"\n", b"\r\n"),
    lambda text: b"data: " + json.dumps({"obfuscation": text * 2}).encode() + b"\n\n",
    event('{"content":"one","content":%s}'),
    event('{"content":%s},"delta":{"content":"two"}'),
    event('{"content":%s},"logprobs":{"content":[{"token":"a"}]}'),
    event('{"content":%s}},{"index":1,"delta":{"content":"other"}'),
    event('{"content":[{"type":"text","text":%s}]}'),
    event('{"tool_calls":[{"index":0,"function":{"name":"f","arguments":%s}}]}'),
    event(rest=',"content":"not here"'),
    event(rest=',"error":{"message":"failed"}'),
    lambda text: PLAIN(text).replace(b'"finish_reason":null', b'"finish_reason":"length"'),
    lambda text: PLAIN(text).replace(b'"content":"', b'"content":"\xff', 1),
    lambda text: PLAIN(text).replace(b'"content":"', b'"content":"\\ud83d', 1),
    lambda text: b"id: " + str(len(text)).encode() + b"\n" + PLAIN(text),
]
TEXTS = st.text(max_size=6) | st.sampled_from(["a", "m", "id", '"', '","x":"', "\\u0061", "\n\n"])
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def block(data: str, name: str = "content_block_delta") -> Event:
    """An event of Anthropic's; `%s` in its data is the text as JSON."""

    def encoded(text: str) -> bytes:
        inner = data.replace("%s", json.dumps(text, ensure_ascii=False))
        whole = f"event: {name}\ndata: {inner}\n\n" if name else f"data: {inner}\n\n"
        return whole.encode("utf-8", "replace")

    return encoded


_DELTA = '{"type":"content_block_delta","index":%d,"delta":'
TEXT = block(_DELTA % 0 + '{"type":"text_delta","text":%s}}')
ANTHROPIC_SHAPES: list[Event] = [
    TEXT,
    block(_DELTA % 0 + '{"text":%s}}', name=""),
    block(_DELTA % 1 + '{"type":"text_delta","text":%s}}'),
    block(_DELTA % 1 + '{"type":"input_json_delta","partial_json":%s}}'),
    block(_DELTA % 0 + '{"type":"thinking_delta","thinking":%s}}'),
    block(_DELTA % 0 + '{"thinking":"well","text":%s}}'),
    block(_DELTA % 0 + '{"text":"one","text":%s}}'),
    block(_DELTA % 0 + '{"text":%s,"text":"two"}}'),
    block(_DELTA % 0 + '{"text":%s,"stop_reason":"end_turn"}}'),
    block(_DELTA % 0 + '{"text":%s},"error":{"type":"overloaded_error"}}'),
    block('{"type":"content_block_start","index":0,"content_block":{"type":"text","text":%s}}'),
    block('{"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}'),
    block(
        '{"type":"content_block_start","index":1,'
        '"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}'
    ),
    block('{"type":"content_block_stop","index":0}', name="content_block_stop"),
    block('{"type":"ping"}', name="ping"),
    block(_DELTA % 0 + '{"type":"text_delta","text":%s}}', name="of_another_kind"),
    block(_DELTA % 0 + '{"type":"text_delta","text":%s}}', name="error"),
    block('{"type":"message_delta","delta":{"stop_reason":"max_tokens","text":%s}}'),
    lambda text: b": comment\n" + TEXT(text),
    lambda text: TEXT(text).replace(b"\n", b"\r\n"),
    lambda text: TEXT(text).replace(b'"text":"', b'"text":"\xff', 1),
]
ANTHROPIC_END = (
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'data: {"type":"message_stop"}\n\n'
)


class Slow(OpenAIReader):
    """The reader without the shortcut."""

    __slots__ = ()
    text_key = b""


class SlowAnthropic(AnthropicReader):
    """Likewise."""

    __slots__ = ()
    text_key = b""


def read(kind: type[SseReader], chunks: list[bytes]) -> tuple[list[str], list[str], object]:
    reader = kind("m")
    texts: list[str] = []
    thoughts: list[str] = []
    for chunk in chunks:
        try:
            texts.append(reader.feed(chunk))
        except UpstreamFailed as error:
            return texts, thoughts, error.detail
        progress = reader.assembly.take_progress()
        thoughts.append("" if progress is None else f"+{progress.reasoning}")
    calls, finish = reader.end()
    asked = [] if calls is None else [*calls.calls, *calls.unfinished]
    return texts, thoughts, ([(each.name, each.arguments) for each in asked], finish)


def streams(shapes: list[Event]) -> st.SearchStrategy[list[bytes]]:
    """What is received: runs of one shape, event by event or some of them together."""
    run = st.tuples(
        st.sampled_from(shapes), st.lists(TEXTS, min_size=1, max_size=5), st.integers(1, 3)
    )
    return st.lists(run, max_size=5).map(
        lambda runs: [
            b"".join(map(shape, texts[at : at + together]))
            for shape, texts, together in runs
            for at in range(0, len(texts), together)
        ]
    )


@pytest.mark.parametrize(
    ("quick", "slow", "shapes", "end"),
    [
        (OpenAIReader, Slow, SHAPES, END),
        (AnthropicReader, SlowAnthropic, ANTHROPIC_SHAPES, ANTHROPIC_END),
    ],
    ids=["openai", "anthropic"],
)
@examples(75, 20_000)
@hypothesis.given(st.data())
def test_every_stream_is_read_as_without_the_shortcut(
    quick: type[SseReader],
    slow: type[SseReader],
    shapes: list[Event],
    end: bytes,
    data: st.DataObject,
) -> None:
    chunks = [*data.draw(streams(shapes)), end]
    if data.draw(st.booleans()):
        whole = b"".join(chunks)
        at = data.draw(st.integers(0, len(whole)))
        chunks = [whole[:at], whole[at:]] if data.draw(st.booleans()) else [*chunks[:-1], end]
    assert read(quick, chunks) == read(slow, chunks)


def broken(text: str) -> Event:
    return lambda _: PLAIN("X").replace(b'"X"', text.encode("latin-1"))


def test_a_text_is_one_string_and_nothing_else() -> None:
    whole = [PLAIN(each) for each in ("one", "two", "three")]
    for rest in ('"a","tool_calls":[],"b":"c"', '"\xff"', '"\n"', "", '"a" ', "null", '["a"]'):
        chunks = [*whole, broken(rest)(""), PLAIN("last"), END]
        assert read(OpenAIReader, chunks) == read(Slow, chunks), rest
    half = PLAIN("half")
    chunks = [*whole, half[:20], half[20:] + PLAIN("three"), END]
    assert read(OpenAIReader, chunks) == read(Slow, chunks)
