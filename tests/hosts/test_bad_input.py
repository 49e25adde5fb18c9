"""Invalid requests: the response names the mistake, and nothing else happens."""

import socket
import sqlite3
import time
from contextlib import closing

import httpx2
import pytest

from tests.hosts.conftest import Pair
from tests.issuer import unsigned


def count(pair: Pair) -> tuple[int, int, int]:
    with closing(sqlite3.connect(pair.database)) as database:
        turns, sessions = database.execute(
            "SELECT (SELECT count(*) FROM turns), (SELECT count(*) FROM sessions)"
        ).fetchone()
    return turns, sessions, pair.model_stats()["started"]


BODIES = [
    (b"", 400, None),
    (b"{", 400, None),
    (b'{"text": "a"} x', 400, None),
    (b"\xff\xfe", 400, None),
    (b"[" * 50_000, 422, None),
    (b'{"text": ' + b"[" * 50_000, 422, "text"),
    (b"[]", 422, None),
    (b"{}", 422, "text"),
    (b'{"text": 5}', 422, "text"),
    (b'{"text": null}', 422, "text"),
    (b'{"text": ""}', 422, "text"),
    (b'{"text": "  "}', 422, "text"),
    (b'{"text": "a", "session": 7}', 422, "session"),
    (b'{"text": "a", "session": "../x"}', 422, "session"),
    (b'{"text": "a", "stream": "yes"}', 422, "stream"),
    (b'{"text": "a", "sesion": "x"}', 422, "sesion"),
    (b'{"text": "a", "agent": "unknown"}', 404, "agent"),
    (b'{"text": "a\\u0000b"}', 422, "text"),
    (b'{"text": "a\\ud800b"}', 422, "text"),
    (b'{"text": "a", "session": "\\udc00"}', 422, "session"),
    (b'{"text": "' + b"x" * 20_000 + b'"}', 422, "text"),
    (b'{"text": "' + b"x" * 300_000 + b'"}', 413, None),
    (b'{"text": "hi", "session": "AAAAAAAAAAAAAAAA"}', 404, "session"),
]


@pytest.mark.parametrize(("body", "status", "field"), BODIES)
def test_turn_bodies(pair: Pair, body: bytes, status: int, field: str | None) -> None:
    before = count(pair)
    with pair.client() as client:
        answer = client.post("/v1/turns", content=body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.get("field") == field
    assert problem["type"] == f"urn:seawall:problem:{problem['code']}"
    assert count(pair) == before


CHATS: list[tuple[dict[str, object], str]] = [
    ({"messages": []}, "model"),
    ({"model": "auto"}, "messages"),
    ({"model": "auto", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"model": "auto", "messages": [{"role": "alien", "content": "x"}]}, "messages[0].role"),
    ({"model": "auto", "messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
    ({"model": "auto", "messages": [{"role": "user", "content": "a\0"}]}, "messages[0].content"),
    ({"model": "auto", "messages": [{"role": "user", "content": "x"}] * 300}, "messages"),
    ({"model": "auto", "n": 3, "messages": [{"role": "user", "content": "x"}]}, "n"),
]


@pytest.mark.parametrize(("body", "field"), CHATS)
def test_chat_bodies(pair: Pair, body: dict[str, object], field: str) -> None:
    before = count(pair)
    with pair.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["error"]["param"] == field
    assert count(pair) == before


def test_tokens(pair: Pair) -> None:
    good = pair.issuer.token()
    before = count(pair)
    for token in (
        pair.issuer.token(exp=time.time() - 100),
        pair.issuer.token(nbf=time.time() + 100),
        pair.issuer.token(aud="other"),
        unsigned({"alg": "none", "kid": "one"}, pair.issuer.claims()),
        good[:-12] + "A" * 12,
        good.rsplit(".", 1)[0] + ".",
        "x",
    ):
        with pair.client(token=token) as client:
            for answer in (
                client.post("/v1/turns", json={"text": "hi"}),
                client.post("/v1/turns", json={"text": "hi", "stream": True}),
                client.get("/v1/sessions"),
                client.get("/v1/models"),
            ):
                assert answer.status_code == 401
                assert answer.json()["code"] == "unauthenticated"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert token not in answer.text or token == "x"
    assert httpx2.post(f"{pair.url}/v1/turns", json={"text": "hi"}).status_code == 401
    basic = {"authorization": "Basic YTpi"}
    assert httpx2.get(f"{pair.url}/v1/sessions", headers=basic).status_code == 401
    assert count(pair) == before


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
def test_idempotency_keys(pair: Pair, key: str) -> None:
    with pair.client() as client:
        answer = client.post(
            "/v1/turns", json={"text": "hi"}, headers=[(b"idempotency-key", key.encode("latin-1"))]
        )
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=", "limit=99999", "limit=-1", "cursor=zz"]
)
def test_pages(pair: Pair, query: str) -> None:
    with pair.client() as client:
        answer = client.get(f"/v1/sessions?{query}")
    assert answer.status_code == 422
    assert answer.json()["field"] == query.partition("=")[0]


def test_heads_that_are_too_large(pair: Pair) -> None:
    with pair.client() as client:
        assert client.get("/livez", headers={"x": "y" * 40_000}).status_code == 431
        many = {f"x-{number}": "y" for number in range(150)}
        assert client.get("/livez", headers=many).status_code == 431


def test_a_body_may_be_larger_than_a_head_and_arrive_separately(pair: Pair) -> None:
    """Regression: a body that came in one piece, after its head, was taken for a head."""
    host, port = pair.url.removeprefix("http://").split(":")
    body = b'{"text": "' + b"x" * 50_000 + b'"}'
    head = (
        f"POST /v1/turns HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n"
        f"authorization: Bearer {pair.issuer.token('ada')}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        time.sleep(0.2)
        connection.sendall(body)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 422 ")
