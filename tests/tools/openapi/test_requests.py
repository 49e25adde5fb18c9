"""Bodies are what servers read: forms and multipart are parsed by other programs."""

import json
from email.parser import BytesParser
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import parse_form_data

from seawall.tools.openapi.request import HttpRequest, build_request
from tests.tools.openapi.documents import document_of, one_operation, operation_of


def request_of(media: dict[str, Any], arguments: dict[str, Any], **body: Any) -> HttpRequest:
    operation = {"requestBody": {"content": media, **body}}
    return build_request(operation_of(document_of(one_operation(operation))), arguments)


def type_of(request: HttpRequest) -> str:
    return dict(request.headers)[b"content-type"].decode()


PROPERTIES = {"type": "object", "properties": {"a": {}, "b": {"default": 7}, "c": {}}}


def test_json_is_preferred_and_defaults_are_not_sent() -> None:
    media = {
        "application/xml": {"schema": PROPERTIES},
        "application/x-www-form-urlencoded": {"schema": PROPERTIES},
        "application/merge-patch+json": {"schema": PROPERTIES},
    }
    request = request_of(media, {"a": None, "c": [1, {"ä": 2.0}]}, required=True)
    assert type_of(request) == "application/merge-patch+json"
    assert json.loads(request.body) == {"a": None, "c": [1, {"ä": 2.0}]}


def test_an_optional_body_is_sent_if_something_of_it_is_given() -> None:
    media = {"application/json": {"schema": PROPERTIES}}
    assert request_of(media, {}).body == b""
    assert b"content-type" not in dict(request_of(media, {}).headers)
    assert request_of(media, {"a": 1}).body == b'{"a":1}'
    assert request_of(media, {}, required=True).body == b"{}"
    whole = {"application/json": {"schema": {"type": "array"}}}
    assert request_of(whole, {"body": []}).body == b"[]"
    assert request_of(whole, {}).body == b""


def test_forms() -> None:
    media = {
        "application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": {"a": {}, "b": {}, "c": {}, "d": {}}},
            "encoding": {
                "c": {"style": "deepObject", "explode": True},
                "d": {"explode": False},
            },
        }
    }
    request = request_of(
        media, {"a": ["x", "y&z"], "b": {"k": 1}, "c": {"k": [1, 2]}, "d": ["p", "q,r"]}
    )
    assert type_of(request) == "application/x-www-form-urlencoded"
    assert parse_qsl(request.body.decode()) == [
        *(("a", "x"), ("a", "y&z"), ("b", '{"k":1}'), ("c[k][0]", "1"), ("c[k][1]", "2")),
        ("d", "p,q,r"),
    ]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters='\r\n"\\'), min_size=1, max_size=9)


@given(
    values=st.dictionaries(NAMES, st.text(max_size=20) | st.lists(st.text(max_size=9)), max_size=4)
)
def test_multipart_is_what_another_program_reads(values: dict[str, Any]) -> None:
    media = {"multipart/form-data": {"schema": {"type": "object"}}}
    request = request_of(media, {"body": values}, required=True)
    stream = BytesIO(request.body)
    environ = {
        "wsgi.input": stream,
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": type_of(request),
        "REQUEST_METHOD": "POST",
    }
    _, form, files = parse_form_data(environ, silent=False)
    assert not files
    expected = {
        name: each if isinstance(each, list) else [each]
        for name, each in values.items()
        if each != []
    }
    assert dict(form.lists()) == expected


def test_parts_have_types_and_names_that_end_nowhere_else() -> None:
    schema = {
        "type": "object",
        "properties": {
            "meta": {"type": "object"},
            'a"; filename="x\r\nx-evil: 1': {"type": "string"},
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "note": {"type": "string"},
        },
    }
    media = {
        "multipart/form-data": {
            "schema": schema,
            "encoding": {
                "note": {"contentType": "text/markdown"},
                "file": {"contentType": "b\r\nx: y"},
            },
        }
    }
    operation = operation_of(document_of(one_operation({"requestBody": {"content": media}})))
    given_values = ({"k": 1}, "v", ["a,b\n1,2"], "*n*")
    request = build_request(
        operation, dict(zip(operation.schema["properties"], given_values, strict=True))
    )
    head = f"content-type: {type_of(request)}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + request.body).get_payload()
    assert [each.get_content_type() for each in parts] == [
        *("application/json", "text/plain", "application/octet-stream", "text/markdown")
    ]
    assert [each.get_filename() for each in parts] == [None, None, "file", None]
    assert [each.get_payload() for each in parts] == ['{"k":1}', "v", "a,b\n1,2", "*n*"]
    assert all("x-evil" not in each for each in parts)


@pytest.mark.parametrize(("kind", "sent"), [("text/plain", "text/plain"), ("text/*", "text/plain")])
def test_text_bodies(kind: str, sent: str) -> None:
    request = request_of({kind: {"schema": {"type": "string"}}}, {"body": "für"}, required=True)
    assert type_of(request) == f"{sent}; charset=utf-8"
    assert request.body == "für".encode()


def test_types_of_answers_are_asked_for_json_first() -> None:
    responses: dict[str, Any] = {
        "200": {"content": {"text/csv": {}, "application/hal+json": {}, "evil\r\nx: y/z": {}}},
        "404": {"content": {"application/problem+json": {}}},
    }
    operation = operation_of(document_of(one_operation({"responses": responses})))
    assert operation.accept == "application/hal+json, text/csv, */*;q=0.1"
    assert operation_of(document_of(one_operation({}))).accept == "application/json, */*;q=0.1"


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_effects_carry_their_key(method: str) -> None:
    parameters = [{"name": "paypal-request-id", "in": "header", "required": True, "schema": {}}]
    document = document_of({"/a": {method: {"parameters": parameters}}})
    operation = operation_of(document, key_header="PayPal-Request-Id")
    assert operation.schema["properties"] == {}
    assert operation.changes is (method not in ("get", "head"))
    sent = dict(build_request(operation, {}, "k-1").headers)
    assert sent.get(b"PayPal-Request-Id") == (b"k-1" if operation.changes else None)
    assert b"PayPal-Request-Id" not in dict(build_request(operation, {}, "").headers)
    without = build_request(operation_of(document, key_header=""), {"paypal-request-id": "x"}, "k")
    assert [name for name, _ in without.headers] == [b"accept", b"paypal-request-id"]
