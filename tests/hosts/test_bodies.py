"""Bodies that are not valid: the error names the field, in bounded time and memory."""

import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from seawall.errors import InvalidRequest
from seawall.hosts.http.bodies import TurnBody, decode
from seawall.hosts.http.responses_body import ResponsesBody

SIZE = 250_000


class Inner(Struct, forbid_unknown_fields=True):
    number: int = 0


class Outer(Struct, forbid_unknown_fields=True):
    inner: Inner
    names: dict[str, int] = {}
    free: Any = None


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        (b'{"inner": {"x": 1}}', "inner.x", "Object contains unknown field `x`."),
        (b'{"inner": {"number": "1"}}', "inner.number", "Expected `int`, got `str`."),
        (b'{"x": 1}', "x", "Object contains unknown field `x`."),
        (b"{}", "inner", "Object missing required field `inner`."),
        (b"[]", None, "Expected `object`, got `array`."),
        (b'{"inner": {}, "names": {"a": "b"}}', "names[...]", "Expected `int`, got `str`."),
        (b'{"inner": {"a - at `$.b": 1}}', "inner.a - at ", None),
        (b'{" - at `$x": 1}', " - at ", None),
        (b'{"inner": {"' + b"y" * 1_000 + b'": 1}}', "inner." + "y" * 200 + "…", None),
        (rb'{"free": "\ud800"}', "free", "The text has a lone surrogate."),
        (rb'{"free": ["a", {"b": ["\udfff"]}]}', "free[1].b[0]", None),
        (rb'{"\ud800": 1}', "body", "The text has a lone surrogate."),
        (rb'{"free": {"\ud800": "\udfff"}}', "free", "The text has a lone surrogate."),
        (rb'{"free": {"' + b"y" * 1_000 + rb'": "\ud800"}}', "free." + "y" * 195, None),
    ],
)
def test_the_error_names_the_field(body: bytes, field: str | None, detail: str | None) -> None:
    with pytest.raises(InvalidRequest) as problem:
        decode(msgspec.json.Decoder(Outer), body)
    assert problem.value.field == field
    assert detail in (None, problem.value.detail)
    msgspec.json.encode(problem.value.as_dict())


@pytest.mark.parametrize("kind", [TurnBody, ResponsesBody])
def test_names_that_look_like_places_take_linear_time(kind: type[Struct]) -> None:
    for name in (b" - at `$", b"unknown field `", b"missing required field `"):
        body = b'{"' + name * (SIZE // len(name)) + b'\\n": 1}'
        began = time.process_time()
        with pytest.raises(InvalidRequest):
            decode(msgspec.json.Decoder(kind), body)
        assert time.process_time() - began < 1


@pytest.mark.parametrize("each", [b"1", b"[]", b"{}", b'""'])
def test_long_names_take_linear_memory(each: bytes) -> None:
    many = (each + b",") * 20_000 + b"NaN"
    body = b'{"model": "a", "input": "b", "reasoning": {"%b": [%b]}}' % (b"k" * 20_000, many)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            decode(msgspec.json.Decoder(ResponsesBody), body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(body)
