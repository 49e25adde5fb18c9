"""Events that repeat an earlier one except for their text: read as all others, only sooner."""

import json
from collections.abc import Callable

import hypothesis
from hypothesis import strategies as st

from seawall.errors import UpstreamFailed
from seawall.models.openai import OpenAIReader

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
]
TEXTS = st.text(max_size=6) | st.sampled_from(["a", "m", "id", '"', '","x":"', "\\u0061", "\n\n"])
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Slow(OpenAIReader):
    """The reader without the shortcut."""

    __slots__ = ()
    text_key = b""


def read(kind: type[OpenAIReader], chunks: list[bytes]) -> tuple[list[str], list[str], object]:
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
    return texts, thoughts, reader.end()


@hypothesis.given(
    st.lists(st.lists(st.tuples(st.sampled_from(SHAPES), TEXTS), min_size=1, max_size=3)),
    st.data(),
)
def test_every_stream_is_read_as_without_the_shortcut(
    received: list[list[tuple[Event, str]]], data: st.DataObject
) -> None:
    chunks = [b"".join(shape(text) for shape, text in chunk) for chunk in received] + [END]
    if data.draw(st.booleans()):
        whole = b"".join(chunks)
        at = data.draw(st.integers(0, len(whole)))
        chunks = [whole[:at], whole[at:]] if data.draw(st.booleans()) else [*chunks[:-1], END]
    assert read(OpenAIReader, chunks) == read(Slow, chunks)


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
