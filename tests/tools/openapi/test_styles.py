"""Parameter styles agree with RFC 6570, and what they write is read as it was meant."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
import uritemplate  # type: ignore[import-not-found,unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.openapi.request import UnsendableArgument, build_request
from seawall.tools.openapi.styles import path_text, query_pairs, simple_text
from tests.tools.openapi.documents import document_of, one_operation, operation_of

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PRIMITIVES = TEXT | st.integers(-999, 999) | st.booleans()
LISTS = st.lists(PRIMITIVES, min_size=1, max_size=3)
# `uritemplate` sorts names
OBJECTS = st.dictionaries(TEXT, PRIMITIVES, min_size=1, max_size=3).map(
    lambda value: dict(sorted(value.items()))
)
VALUES = PRIMITIVES | LISTS | OBJECTS


def as_text(value: Any) -> Any:
    """What RFC 6570 expands are texts."""
    if isinstance(value, list):
        return [as_text(each) for each in value]
    if isinstance(value, dict):
        return {key: as_text(each) for key, each in value.items()}
    return str(value).lower() if isinstance(value, bool) else str(value)


def expanded(operator: str, value: Any, *, explode: bool, name: str = "p") -> str:
    template = f"{{{operator}{name}{'*' if explode else ''}}}"
    return str(uritemplate.expand(template, {name: as_text(value)}))


@pytest.mark.parametrize("explode", [True, False])
@pytest.mark.parametrize(("style", "operator"), [("simple", ""), ("label", "."), ("matrix", ";")])
@given(value=VALUES)
def test_path_styles_are_those_of_the_rfc(
    style: str, operator: str, explode: bool, value: Any
) -> None:
    assert path_text(style, "p", value, explode=explode) == expanded(
        operator, value, explode=explode
    )


@pytest.mark.parametrize("explode", [True, False])
@given(value=VALUES)
def test_the_form_style_is_that_of_the_rfc(explode: bool, value: Any) -> None:
    pairs = query_pairs("form", "p", value, explode=explode)
    assert "?" + "&".join(pairs) == expanded("?", value, explode=explode)


@pytest.mark.parametrize(("style", "separator"), [("spaceDelimited", " "), ("pipeDelimited", "|")])
@given(values=st.lists(TEXT.filter(lambda text: not re.search("[ |]", text)), min_size=1))
def test_delimited_lists_are_read_as_they_were_meant(
    style: str, separator: str, values: list[str]
) -> None:
    (pair,) = query_pairs(style, "p", values, explode=False)
    assert parse_qsl(pair) == [("p", separator.join(values))]


@given(value=OBJECTS, inner=LISTS)
def test_deep_objects_are_read_as_they_were_meant(value: dict[str, Any], inner: list[Any]) -> None:
    given_value = {**value, "inner": inner}
    pairs = parse_qsl("&".join(query_pairs("deepObject", "p", given_value, explode=True)))
    expected = [(f"p[{key}]", as_text(each)) for key, each in value.items() if key != "inner"]
    expected += [(f"p[inner][{index}]", as_text(each)) for index, each in enumerate(inner)]
    assert sorted(pairs) == sorted(expected)


def query_operation(**parameter: Any) -> Any:
    parameter = {"name": "q", "in": "query", "schema": {}, **parameter}
    return operation_of(document_of(one_operation({"parameters": [parameter]})))


@given(value=TEXT, reserved=st.booleans())
def test_a_query_value_never_changes_the_rest_of_the_query(value: str, reserved: bool) -> None:
    operation = query_operation(allowReserved=reserved)
    url = build_request(operation, {"q": value}).url
    assert url.isascii()
    assert url.count("?") == 1 or reserved
    query = url.partition("?")[2]
    assert parse_qsl(query, keep_blank_values=True, strict_parsing=True) == [("q", value)]


def test_reserved_characters_are_left_where_that_is_allowed() -> None:
    url = build_request(query_operation(allowReserved=True), {"q": "a/b:c@d,e&f=g#h+i%41"}).url
    assert url.endswith("?q=a/b:c@d,e%26f%3Dg%23h%2Bi%2541")


@given(
    value=st.text(max_size=12) | st.sampled_from(["..", "../x", "a/..", "..\\x", "a/./b", "..;x"])
)
def test_a_path_value_stays_in_its_place(value: str) -> None:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    document = document_of(one_operation({"parameters": [parameter]}, "/a/{id}/b"))
    try:
        url = build_request(operation_of(document), {"id": value}).url
    except UnsendableArgument:
        pieces = re.split(r"[/\\]", value)
        assert value == "" or {".", ".."} & {each.split(";", 1)[0] for each in pieces}
        return
    prefix, _, rest = url.partition("/v1/a/")
    assert prefix == "https://api.example.com"
    assert rest.count("/") == 1
    sent = value.encode("utf-8", "replace").decode()
    assert unquote(rest.removesuffix("/b")) == sent


@given(value=st.text(max_size=12))
def test_a_header_value_never_ends_its_line(value: str) -> None:
    parameter = {"name": "X-Note", "in": "header", "schema": {"type": "string"}}
    operation = operation_of(document_of(one_operation({"parameters": [parameter]})))
    try:
        request = build_request(operation, {"X-Note": value})
    except UnsendableArgument:
        assert re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value)
        return
    sent = dict(request.headers)[b"X-Note"]
    assert not re.search(rb"[\r\n\0]", sent)
    assert sent == value.strip().encode("utf-8", "replace")


def test_headers_and_cookies() -> None:
    parameters = [
        {"name": "X-Ids", "in": "header", "schema": {"type": "array"}},
        {"name": "X-Point", "in": "header", "explode": True, "schema": {"type": "object"}},
        {"name": "session", "in": "cookie", "schema": {"type": "string"}},
        {"name": "tags", "in": "cookie", "explode": False, "schema": {"type": "array"}},
    ]
    operation = operation_of(document_of(one_operation({"parameters": parameters})))
    request = build_request(
        operation,
        {
            "X-Ids": [1, 2, None, "c"],
            "X-Point": {"x": 1, "y": -2.5},
            "session": "a; (admin)=1%",
            "tags": ["a b", "c"],
        },
    )
    assert request.headers[1:] == (
        (b"X-Ids", b"1,2,c"),
        (b"X-Point", b"x=1,y=-2.5"),
        (b"cookie", b"session=a%3B%20(admin)=1%; tags=a%20b,c"),
    )
    assert simple_text({"x": 1, "y": 2}, explode=False) == "x,1,y,2"


def test_parameters_with_content_are_json() -> None:
    operation = query_operation(content={"application/json": {"schema": {"type": "object"}}})
    url = build_request(operation, {"q": {"a": [1, "ä&"]}}).url
    assert parse_qsl(url.partition("?")[2]) == [("q", '{"a":[1,"ä&"]}')]
