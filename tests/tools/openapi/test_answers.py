"""Answers become text that a model can read: reduced, bounded, nothing made up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.openapi.answer import answer_text, cut_json, error_text
from seawall.tools.select import compile_select
from tests.properties import examples

JSON = {"content-type": "application/json"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=200),
    lambda inner: (
        st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=30), inner, max_size=10)
    ),
    max_leaves=60,
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_json_is_compact_and_reduced_by_an_expression() -> None:
    body = encoded({"items": [{"id": 1, "note": "x" * 99}, {"id": 2, "note": "y"}], "next": None})
    assert answer_text(200, JSON, b'{ "a" : [1, 2] }').text == '{"a":[1,2]}'
    select = compile_select("items[].id")
    assert answer_text(200, JSON, body, select=select).text == "[1,2]"
    assert compile_select("") is None


@pytest.mark.parametrize("expression", ["items[", "length(", "a b", "@.foo(]"])
def test_an_expression_that_is_none_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_select(expression)


def test_an_answer_that_cannot_be_reduced_is_not_shown() -> None:
    select = compile_select("sort_by(items, &id)")
    shown = answer_text(200, JSON, encoded({"items": "secret"}), select=select)
    assert "Done (200), but the answer is not as expected" in shown.text
    page = {"content-type": "text/html"}
    assert "secret" not in answer_text(200, page, b"<p>secret", select=select).text


def test_lists_are_cut_between_items_and_the_model_is_told() -> None:
    items = [{"id": each, "name": f"thing {each}"} for each in range(1_000)]
    shown = answer_text(200, JSON, encoded({"items": items, "total": 1_000}), max_bytes=2_048)
    text, note = shown.text.split("\n")
    cut = json.loads(text)
    assert not shown.whole
    assert cut["total"] == 1_000
    assert cut["items"] == items[: len(cut["items"])]
    assert f"items: {len(cut['items'])} of 1000 items" in note
    assert len(shown.text.encode()) <= 2_048
    assert len(text) > 1_000  # the room is used


@examples(40, 2_000)
@given(value=VALUES, most=st.integers(256, 4_096))
def test_a_cut_answer_is_bounded_json_with_nothing_made_up(value: Any, most: int) -> None:
    shown = cut_json(value, most)
    assert len(shown.text.encode()) <= most
    text, _, note = shown.text.partition("\n[Cut: ")
    if shown.whole:
        assert json.loads(shown.text) == value
    elif not isinstance(value, str):
        assert note
        assert_part(json.loads(text), value)


def assert_part(part: Any, whole: Any) -> None:
    if part is None:
        return  # left out
    assert type(part) is type(whole)
    if isinstance(part, dict):
        for key, each in part.items():
            assert_part(each, whole[key])
    elif isinstance(part, list):
        for each, other in zip(part, whole, strict=False):
            assert_part(each, other)
    elif isinstance(part, str) and part != whole:
        assert whole.startswith(part.removesuffix("…"))
    else:
        assert part == whole


def test_deep_and_wide_answers_are_cut_in_bounded_time() -> None:
    deep: Any = "x" * 100_000
    for _ in range(400):
        deep = [deep, "y" * 1_000]
    wide = {f"k{each}": "v" * 100 for each in range(5_000)}
    for value in (deep, wide, [wide] * 3, {"k" * 100_000: 1}):
        assert len(cut_json(value, 1_024).text) <= 1_024


@pytest.mark.parametrize(
    ("headers", "body", "shown"),
    [
        ({}, b"", "Done: the service answered 201 without content."),
        ({"location": "/a/1"}, b"", "without content; location: /a/1."),
        ({"content-type": "text/plain; charset=latin-1"}, "für".encode("latin-1"), "für"),
        ({"content-type": 'text/plain; charset="utf-16"'}, "für".encode("utf-16"), "für"),
        ({"content-type": "text/csv"}, b"a,b\n1,2", "a,b\n1,2"),
        ({"content-type": "application/soap+xml"}, b"<a/>", "<a/>"),
        ({"content-type": "text/plain; charset=rot13"}, b"abc", "abc"),
        ({"content-type": "text/plain; charset=punycode"}, b"abc-", "abc-"),
        ({"content-type": "application/hal+json"}, b'{"a": 1}', '{"a":1}'),
        ({"content-type": "application/json"}, b"\xef\xbb\xbf[1]", "[1]"),
        ({"content-type": "application/json"}, b"{broken", "{broken"),
        ({"content-type": "application/json"}, b"[" * 5_000, "[["),
        ({"content-type": "image/png"}, b"\x89PNG", "The answer is 4 bytes of image/png"),
        ({}, b"[1, 2]", "[1,2]"),
        ({}, b"plain", "plain"),
        ({}, b"\xff\x00", "The answer is 2 bytes of unknown type"),
        ({"content-type": ";;;"}, b"\xff\x00", "The answer is 2 bytes of unknown type"),
    ],
)
def test_answers_of_other_types(headers: dict[str, str], body: bytes, shown: str) -> None:
    assert shown in answer_text(201, headers, body).text


@given(kind=st.text(max_size=20), body=st.binary(max_size=300), most=st.integers(256, 300))
def test_any_answer_is_text_of_bounded_size(kind: str, body: bytes, most: int) -> None:
    for name in ("application/json", "text/plain", kind, f"text/plain; charset={kind}"):
        shown = answer_text(200, {"content-type": name}, body, max_bytes=most).text
        assert len(shown.encode()) <= most


def test_an_error_says_what_a_model_can_act_on() -> None:
    problem = {"title": "Out of stock", "detail": "Only 2 are left.", "trace": "x" * 9_000}
    headers = {"content-type": "application/problem+json"}
    shown = error_text(409, headers, encoded(problem), "Conflict")
    assert shown.startswith("The service refused the call: 409 Conflict. {")
    assert "Only 2 are left." in shown
    assert len(shown) < 4_300
    page = error_text(404, {"content-type": "text/html"}, b"<!doctype html><HTML>...", "Not Found")
    assert page == "The service refused the call: 404 Not Found."
