"""Questions of servers of tools: which are put before a user, and which answers fit."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from seawall.errors import InvalidField
from seawall.tools.questions import MAX_QUESTION_BYTES, checked_answer, read_question
from seawall.turn import Question


def asked(**params: Any) -> Question:
    return read_question("crm", Raw(msgspec.json.encode(params)))


def form(*required: str, **fields: Any) -> Question:
    schema = {"type": "object", "properties": fields, "required": required}
    return asked(message="?", requestedSchema=schema)


# The kinds of fields that the specification has, with values that fit and that do not.
FIELDS: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "string"}, ["", "x"], [1, None, ["x"]]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "äöü"], ["a", "abcd"]),
    ({"type": "string", "format": "email"}, ["a@example.com"], ["a", "a@"]),
    ({"type": "string", "format": "uri"}, ["https://example.com/a"], ["/a", "x y"]),
    ({"type": "string", "format": "date"}, ["2026-11-29"], ["29.11.2026", "2026-13-01"]),
    ({"type": "string", "format": "date-time"}, ["2026-11-29T12:00:00Z"], ["2026-11-29"]),
    ({"type": "integer", "minimum": 1, "maximum": 5}, [1, 5, 2.0], [0, 6, 1.5, "1", True]),
    ({"type": "number", "minimum": 0.5}, [0.5, 7], [0.4, "7"]),
    ({"type": "boolean", "default": False}, [True, False], ["yes", 1]),
    ({"type": "string", "enum": ["S", "M"], "enumNames": ["small", "middle"]}, ["S"], ["small"]),
    ({"type": "string", "oneOf": [{"const": "S", "title": "small"}]}, ["S"], ["small"]),
    (
        {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "maxItems": 1},
        [[], ["a"]],
        ["a", ["c"], ["a", "b"]],
    ),
    ({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}}, [["a"]], [["b"]]),
]


@pytest.mark.parametrize(("field", "fitting", "others"), FIELDS)
def test_fields_of_a_form(field: dict[str, Any], fitting: list[Any], others: list[Any]) -> None:
    question = form("x", x={**field, "title": "T", "pattern": "(", "$ref": "https://x.example"})
    assert question.schema is not None
    assert not {"pattern", "$ref"} & question.schema["properties"]["x"].keys()
    for value in fitting:
        assert msgspec.json.decode(checked_answer(question, {"x": value})) == {"x": value}
    for value in others:
        with pytest.raises(InvalidField) as refused:
            checked_answer(question, {"x": value})
        assert str(refused.value.field).startswith("content.x")
        assert repr(value) not in str(refused.value) or len(repr(value)) < 4
    for content in ({}, None, {"x": fitting[0], "y": 1}):
        with pytest.raises(InvalidField):
            checked_answer(question, content)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"message": "?"},
        {"message": "?", "requestedSchema": {"type": "string", "properties": {}}},
        {"message": "x" * 4_001, "requestedSchema": {"type": "object", "properties": {}}},
        {"message": "?", "mode": "other"},
        {"message": "?", "mode": "url"},
        *(
            {"message": "?", "mode": "url", "url": url}
            for url in (
                "javascript:alert(1)",
                "http://example.com/",
                "https://bank.example@evil.example/",
                "https://evil.example/ x",
                "https://exämple.com/",
                "https://",
                "file:///etc/passwd",
                "https://example.com/" + "x" * 2_048,
            )
        ),
    ],
)
def test_what_is_not_put_before_a_user(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        asked(**params)


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object", "properties": {}},
        {"type": "array"},
        {"type": "array", "items": {"type": "object"}},
        {"type": "string", "format": "password"},
        {"type": "string", "minLength": -1},
        {"oneOf": [{"type": "string"}]},
    ],
)
def test_fields_that_are_not_plain_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        form(x=field)


def test_bounds() -> None:
    plain = {"type": "string"}
    assert form(**{f"x{n}": plain for n in range(50)}).schema is not None
    for fields in (
        {f"x{n}": plain for n in range(51)},
        {"x" * 129: plain},
        {"x": {"type": "string", "description": "d" * MAX_QUESTION_BYTES}},
    ):
        with pytest.raises(ValueError, match="more than"):
            form(**fields)
    with pytest.raises(InvalidField, match="more than"):
        checked_answer(form(x=plain), {"x": "x" * MAX_QUESTION_BYTES})


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "array", "items": {"enum": ["a"]}, "default": ["a"]}, ["a"]),
        ({"type": "integer", "default": 1.0}, 1.0),
        ({"type": "integer", "default": "x"}, None),
        ({"type": "string", "minLength": 2, "default": "x"}, None),
        ({"type": "string", "enum": ["a"], "default": "x"}, None),
        ({"type": "string", "default": None}, None),
    ],
)
def test_a_default_that_does_not_fit_is_left_out(field: dict[str, Any], default: Any) -> None:
    """What the user leaves as it is would be refused."""
    question = form(x=field)
    assert question.schema is not None
    assert question.schema["properties"]["x"].get("default") == default
    checked_answer(question, {} if default is None else {"x": default})


@pytest.mark.parametrize(
    "url",
    [
        "https://bank.example:443\\.evil.example/",  # another host for a browser
        'https://bank.example/"><script>',
        "https://bank.example:99999/",
        "https://bank.example:80:80/",
        "https://bank.example/a b",
        "https://bank.example/\u202e",
        "javascript:alert(1)//https://bank.example/",
        "data:text/html,x",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_browsers_may_read_otherwise(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        asked(message="?", mode="url", url=url)


def test_a_page_on_this_machine_or_elsewhere() -> None:
    for url in ("https://example.com/pay?id=7#now", "http://127.0.0.1:8080/", "http://localhost/x"):
        question = asked(message="?", mode="url", url=url)
        assert (question.url, question.schema) == (url, None)
        assert checked_answer(question, None) == "{}"
        with pytest.raises(InvalidField):
            checked_answer(question, {"x": 1})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "properties", "x", "items", "enum"]), inner)
        ),
        max_leaves=8,
    )
)
def test_whatever_a_server_sends_is_a_question_or_refused(value: Any) -> None:
    try:
        question = asked(message="?", requestedSchema=value)
    except ValueError:
        return
    assert question.schema is not None
    assert question.schema["additionalProperties"] is False
