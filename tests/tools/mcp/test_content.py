"""Results as text, and values of headers; the official SDK is the oracle of the latter."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound
from msgspec import Raw

from seawall.tools.mcp.content import Contents, prompt_text, resource_text, result_text
from seawall.tools.mcp.header_values import (
    InvalidHeader,
    Paths,
    encode_value,
    mirrored_headers,
    parameter_headers,
)


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "a\nb"}, "a\nb"),
        (
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            "[image image/png, 3 bytes, not shown]",
        ),
        (
            {"type": "audio", "data": "", "mimeType": "audio/wav"},
            "[audio audio/wav, 0 bytes, not shown]",
        ),
        (
            {"type": "resource_link", "uri": "x://y", "name": "y", "description": "why"},
            "[resource y, x://y: why]",
        ),
        (
            {"type": "resource", "resource": {"uri": "x://y", "text": "words"}},
            "[resource x://y]\nwords",
        ),
        (
            {"type": "resource", "resource": {"uri": "x://y", "blob": "AAAA", "mimeType": "a/b"}},
            "[resource x://y a/b, 3 bytes, not shown]",
        ),
        ({"type": "hologram"}, "[hologram, 0 bytes, not shown]"),
    ],
)
def test_each_kind_of_block(block: dict[str, Any], text: str) -> None:
    assert result_text([raw(block)], Raw()) == text


@pytest.mark.parametrize(
    ("said", "structured", "text"),
    [
        ('{"a": 1}', {"a": 1}, '{"a": 1}'),
        ("hi", {"result": "hi"}, "hi"),
        ("[1, 2]", {"result": [1, 2]}, "[1, 2]"),
        ("two", {"result": 2}, 'two\n{"result":2}'),
        ("summary", {"a": [1]}, 'summary\n{"a":[1]}'),
        ("null", None, "null"),
    ],
)
def test_what_is_structured_is_said_once(said: str, structured: object, text: str) -> None:
    assert result_text([raw({"type": "text", "text": said})], raw(structured)) == text


def test_resources_and_prompts() -> None:
    assert resource_text([Contents(uri="a", text="x"), Contents(uri="b")]) == (
        "[resource a]\nx\n[resource b, 0 bytes, not shown]"
    )
    message = {"role": "user", "content": {"type": "text", "text": "hello"}}
    assert prompt_text([raw(message)]) == "user: hello"


@given(st.text())
def test_values_are_encoded_as_the_sdk_does(value: str) -> None:
    assert encode_value(value).decode() == inbound.encode_header_value(value)
    assert inbound.decode_header_value(encode_value(value).decode()) == value


_names = st.sampled_from(["Region", "region", "Zone", "bad name", "", "é", 7])
_kinds = st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"], None])
_annotated = st.builds(
    lambda kind, name: {"type": kind, "x-mcp-header": name} if kind else {"x-mcp-header": name},
    _kinds,
    _names,
)
_schemas = st.recursive(
    _annotated | st.just({"type": "string"}) | st.just({"default": {"x-mcp-header": "Data"}}),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, max_size=2).map(
            lambda found: {"type": "object", "properties": found}
        ),
        inner.map(lambda found: {"items": found}),
        inner.map(lambda found: {"anyOf": [found]}),
        inner.map(lambda found: {"$defs": {"x": found}}),
        inner.map(lambda found: {"if": found}),
    ),
    max_leaves=6,
)


@given(_schemas)
def test_schemas_are_accepted_as_the_sdk_does(schema: dict[str, Any]) -> None:
    try:
        found = parameter_headers(schema)
    except InvalidHeader:
        assert inbound.find_invalid_x_mcp_header(schema) is not None
        return
    assert inbound.find_invalid_x_mcp_header(schema) is None
    wanted = inbound.x_mcp_header_map(schema)
    assert found == {path: f"Mcp-Param-{name}".encode() for path, name in wanted.items()}


@given(
    st.dictionaries(
        st.sampled_from("ab"), st.text() | st.booleans() | st.none() | st.integers(-9, 9)
    )
)
def test_arguments_are_mirrored_as_the_sdk_does(arguments: dict[str, Any]) -> None:
    paths: Paths = {("a",): b"Mcp-Param-A", ("b",): b"Mcp-Param-B"}
    wanted = inbound.mcp_param_headers({("a",): "A", ("b",): "B"}, arguments)
    found = {name.decode(): value.decode() for name, value in mirrored_headers(paths, arguments)}
    assert found == wanted
