"""Requests to events, as AWS makes them, to ASGI scopes: the same requests; and answers back."""

import base64
import json
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from seawall.errors import InvalidRequest
from seawall.hosts.aws_lambda.http_events import (
    Source,
    http_response,
    read_event,
    source_of,
    stream_prelude,
)
from tests.properties import examples

PATH = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="?#%"), max_size=20
).map("/".__add__)
TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: name not in ("cookie", "host") and not name.startswith("x-forwarded")
)
VALUE = st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=20
).filter(lambda text: "," not in text)
PLAIN = st.text("abcdefghijklmnopqrstuvwxyz0123456789 äß", min_size=1, max_size=8)
COOKIE = st.text("abcdefghijk=0123", min_size=3, max_size=9)


class Sent(Struct, frozen=True):
    """A request as a client sends it."""

    method: str
    path: str  # decoded
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    cookies: list[str]
    body: bytes


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    return Sent(
        draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"])),
        draw(PATH),
        draw(st.lists(st.tuples(PLAIN, PLAIN), max_size=4)),
        draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4, unique_by=lambda pair: pair[0])),
        draw(st.lists(COOKIE, max_size=3)),
        draw(st.binary(max_size=40)),
    )


def body_of(sent: Sent) -> dict[str, Any]:
    try:
        return {"body": sent.body.decode("ascii"), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(sent.body).decode(), "isBase64Encoded": True}


def v2(sent: Sent, *, url: bool, stage: str) -> dict[str, Any]:
    path = quote(sent.path)
    event: dict[str, Any] = {
        "version": "2.0",
        "rawPath": path if stage == "$default" else f"/{stage}{path}",
        "rawQueryString": urlencode(sent.query),
        "headers": {"host": "a.example", "x-forwarded-proto": "https", **dict(sent.headers)},
        "requestContext": {
            "domainName": "x.lambda-url.eu-west-1.on.aws" if url else "x.execute-api.amazonaws.com",
            "http": {"method": sent.method, "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1"},
            "stage": stage,
        },
        **body_of(sent),
    }
    if sent.cookies:
        event["cookies"] = sent.cookies
    return event


def v1(sent: Sent) -> dict[str, Any]:
    headers = [*sent.headers, ("host", "a.example"), ("x-forwarded-proto", "https")]
    if sent.cookies:
        headers.append(("cookie", "; ".join(sent.cookies)))
    parameters: dict[str, list[str]] = {}
    for name, value in sent.query:
        parameters.setdefault(name, []).append(value)
    return {
        "resource": "/{proxy+}",
        "path": sent.path,
        "httpMethod": sent.method,
        "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers},
        "queryStringParameters": {name: values[-1] for name, values in parameters.items()} or None,
        "multiValueQueryStringParameters": parameters or None,
        "requestContext": {
            "stage": "prod",
            "path": f"/prod{sent.path}",
            "protocol": "HTTP/1.1",
            "identity": {"sourceIp": "192.0.2.1"},
        },
        **body_of(sent),
    }


def alb(sent: Sent, *, multi: bool) -> dict[str, Any]:
    headers = [
        *sent.headers,
        ("host", "a.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "127.0.0.1, 192.0.2.1"),  # before its own, what the client says
    ]
    if sent.cookies:
        headers.append(("cookie", "; ".join(sent.cookies)))
    encoded = [pair.split("=") for pair in urlencode(sent.query).split("&") if pair]
    event: dict[str, Any] = {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:..."}},
        "httpMethod": sent.method,
        "path": quote(sent.path),
        **body_of(sent),
    }
    if multi:
        parameters: dict[str, list[str]] = {}
        for name, value in encoded:
            parameters.setdefault(name, []).append(value)
        event["multiValueHeaders"] = {name: [value] for name, value in headers}
        event["multiValueQueryStringParameters"] = parameters
    else:
        event["headers"] = dict(headers)
        event["queryStringParameters"] = dict(encoded)
    return event


def lattice(sent: Sent, *, first: bool) -> dict[str, Any]:
    pairs = [*sent.headers, ("host", "a.example"), ("x-forwarded-proto", "https")]
    pairs.append(("x-forwarded-for", "127.0.0.1, 192.0.2.1"))
    if sent.cookies:
        pairs.append(("cookie", "; ".join(sent.cookies)))
    body = body_of(sent)
    if first:
        return {
            "raw_path": quote(sent.path) + ("?" + urlencode(sent.query) if sent.query else ""),
            "method": sent.method,
            "headers": dict(pairs),
            "query_string_parameters": dict(sent.query),
            "body": body["body"],
            "is_base64_encoded": body["isBase64Encoded"],
        }
    parameters: dict[str, list[str]] = {}
    for name, value in sent.query:
        parameters.setdefault(name, []).append(value)
    return {
        "version": "2.0",
        "path": quote(sent.path),
        "method": sent.method,
        "headers": {name: [value] for name, value in pairs},
        "queryStringParameters": parameters,
        "requestContext": {"serviceArn": "arn:aws:vpc-lattice:...", "region": "eu-west-1"},
        **body,
    }


KINDS = ["url", "http", "http-stage", "rest", "alb", "alb-multi", "lattice", "lattice-v1"]


def build_event(sent: Sent, kind: str) -> dict[str, Any]:
    match kind:
        case "rest":
            return v1(sent)
        case "alb" | "alb-multi":
            return alb(sent, multi=kind == "alb-multi")
        case "lattice" | "lattice-v1":
            return lattice(sent, first=kind == "lattice-v1")
    return v2(sent, url=kind == "url", stage="prod" if kind == "http-stage" else "$default")


@pytest.mark.parametrize("kind", KINDS)
@examples(short=20, long=1_000)
@given(sent=requests())
def test_the_scope_is_the_request(kind: str, sent: Sent) -> None:
    event = json.loads(json.dumps(build_event(sent, kind)))
    source = source_of(event)
    assert source == kind.removesuffix("-stage")
    read = read_event(event, source)
    scope = read.scope
    assert scope["method"] == sent.method
    assert scope["path"].removeprefix(scope["root_path"]) == sent.path
    assert unquote(scope["raw_path"].decode()) == scope["path"]
    assert scope["root_path"] == ("/prod" if kind == "http-stage" else "")
    query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
    if kind == "alb":
        assert dict(query) == dict(sent.query)  # a single-value event has no more
    elif kind in ("rest", "alb-multi", "lattice"):
        assert sorted(query) == sorted(sent.query)  # the order of names is not part of the event
    else:
        assert query == sent.query
    assert all(name == name.lower() for name, _ in scope["headers"])
    headers = dict(scope["headers"])
    for name, value in sent.headers:
        assert headers[name.encode()] == value.encode("latin-1")
    assert headers.get(b"cookie", b"").decode() == "; ".join(sent.cookies)
    assert read.body == sent.body
    assert scope["client"] == ("192.0.2.1", 0)
    assert (scope["scheme"], scope["server"]) == ("https", ("a.example", 443))


def test_a_base_path_is_the_root() -> None:
    sent = Sent("GET", "/shop/orders", [], [], [], b"")
    for kind in ("url", "http", "rest", "alb"):
        event = build_event(sent, kind)
        source = source_of(event)
        assert source is not None
        assert read_event(event, source, base_path="/shop").scope["root_path"] == "/shop"
        assert read_event(event, source, base_path="/sho").scope["root_path"] == ""


CLAIMS = {"sub": "ada", "tenant": "acme"}


@pytest.mark.parametrize(
    ("kind", "authorizer"),
    [
        ("http", {"jwt": {"claims": CLAIMS, "scopes": None}}),
        ("http", {"lambda": CLAIMS}),
        ("rest", {"claims": CLAIMS}),
        ("rest", CLAIMS),
    ],
)
def test_the_claims_of_the_authorizer_are_read(
    kind: Literal["http", "rest"], authorizer: dict[str, Any]
) -> None:
    event = build_event(Sent("GET", "/", [], [], [], b""), kind)
    event["requestContext"]["authorizer"] = authorizer
    assert read_event(event, kind).claims == CLAIMS


@pytest.mark.parametrize(
    "event", [None, [], "x", {}, {"requestContext": {}}, {"Records": []}, {"text": "hi"}]
)
def test_other_events_are_not_http_requests(event: object) -> None:
    assert source_of(event) is None


@examples(short=40, long=1_000)
@given(st.sampled_from(KINDS), st.data())
def test_a_corrupted_event_is_rejected_or_read_but_never_a_crash(
    kind: str, data: st.DataObject
) -> None:
    event = build_event(Sent("GET", "/", [("a", "b")], [("c", "d")], [], b"x"), kind)
    source = source_of(event)
    assert source is not None
    name = data.draw(st.sampled_from(sorted(event)))
    event[name] = data.draw(
        st.one_of(
            st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
        )
    )
    with suppress(InvalidRequest):
        read_event(event, source)


HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-many", b"1"),
    (b"x-many", b"2"),
    (b"set-cookie", b"a=1"),
    (b"set-cookie", b"b=2"),
    (b"set-cookie", b"c=3"),
]


@pytest.mark.parametrize("source", ["url", "http"])
def test_an_answer_of_format_2(source: Source) -> None:
    said = json.loads(http_response(201, HEADERS, "grün".encode(), source))
    assert said == {
        "statusCode": 201,
        "headers": {"content-type": "text/plain; charset=utf-8", "x-many": "1, 2"},
        "cookies": ["a=1", "b=2", "c=3"],
        "isBase64Encoded": False,
        "body": "grün",
    }
    head, nothing = stream_prelude(201, HEADERS, source).split(b"\0" * 8)
    assert nothing == b""
    assert json.loads(head) == {
        key: value for key, value in said.items() if key not in ("body", "isBase64Encoded")
    }


def test_an_answer_of_format_1() -> None:
    said = json.loads(http_response(200, HEADERS, b"x", "rest"))
    assert said["multiValueHeaders"]["set-cookie"] == ["a=1", "b=2", "c=3"]
    assert said["multiValueHeaders"]["x-many"] == ["1", "2"]


def test_answers_to_load_balancers() -> None:
    many = json.loads(http_response(404, HEADERS, b"x", "alb-multi"))
    assert many["statusDescription"] == "404 Not Found"
    assert many["multiValueHeaders"]["set-cookie"] == ["a=1", "b=2", "c=3"]
    single = json.loads(http_response(200, HEADERS, b"x", "alb"))
    cookies = [value for name, value in single["headers"].items() if name.lower() == "set-cookie"]
    assert sorted(cookies) == ["a=1", "b=2", "c=3"]
    assert single["headers"]["x-many"] == "1, 2"


@given(st.binary(max_size=60), st.sampled_from(["text/plain", "image/png", "application/json", ""]))
def test_every_body_is_preserved(body: bytes, kind: str) -> None:
    said = json.loads(http_response(200, [(b"content-type", kind.encode())], body, "url"))
    text = said["body"]
    back = base64.b64decode(text) if said["isBase64Encoded"] else text.encode()
    assert back == body


def test_compressed_bodies_are_not_text() -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"gzip")]
    assert json.loads(http_response(200, headers, b"abc", "url"))["isBase64Encoded"] is True
