"""What every answer has, wherever it is written: a request id, CORS, Allow, a line in the log."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.config import CorsSettings, parse_settings
from seawall.errors import ConfigError
from seawall.hosts.http.cors import Cors
from seawall.requests import request_id
from tests.hosts.conftest import API_KEY, Pair, identity
from tests.hosts.test_interruptions import eventually
from tests.issuer import Issuer
from tests.servers import running_model, running_server

ORIGIN = "https://shop.example"
KEY = {"authorization": f"Bearer {API_KEY}"}


class Logged(Pair):
    """A server with CORS and an access log in JSON."""

    log: Path

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]

    def line(self, **fields: object) -> dict[str, object]:
        """The line of the log that has these fields."""
        found: list[dict[str, object]] = []

        def there() -> bool:
            found[:] = [line for line in self.lines() if fields.items() <= line.items()]
            return bool(found)

        eventually(there)
        assert len(found) == 1, found
        return found[0]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    with (
        running_model("--first-token", "0.01", "--duration", "1.5", "--chunks", "4") as model,
        running_server(
            folder,
            model,
            log=str(folder / "log"),
            SERVER__WORKERS="1",
            SERVER__WARM_UP="true",
            SERVER__ACCESS_LOG="true",
            SERVER__CORS=f'{{origins = ["{ORIGIN}"]}}',
            SERVER__BODY_SECONDS="0.5",
            ADMISSION__IN_FLIGHT="1",
            ADMISSION__MIN_IN_FLIGHT="1",
            ADMISSION__QUEUED="0",
            LOG_FORMAT="json",
            **identity(folder, issuer),
        ) as server,
    ):
        pair = Logged(server, model, issuer, folder)
        pair.log = folder / "log"
        yield pair


def raw(pair: Pair, request: bytes, *, waits: bool = False) -> bytes:
    """All that comes back for these bytes; unless it waits, the client sends its end at once."""
    host, port = pair.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        if not waits:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return received


# Each face, and each way to be refused.
REQUESTS: list[tuple[str, str, dict[str, object], int]] = [
    ("GET", "/livez", {}, 200),
    ("HEAD", "/livez", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/v1/models", {"headers": KEY}, 200),
    ("GET", "/v1/models/orders", {"headers": KEY}, 200),
    ("GET", "/v1/models/unknown", {"headers": KEY}, 404),
    ("GET", "/v1/models", {}, 401),
    ("GET", "/nowhere", {}, 404),
    ("PUT", "/v1/turns", {}, 405),
    ("OPTIONS", "/v1/turns", {}, 204),
    ("POST", "/v1/turns", {"headers": KEY, "content": b"{"}, 400),
    ("POST", "/v1/turns", {"headers": KEY, "json": {}}, 422),
    ("POST", "/v1/turns", {"headers": KEY, "content": b"x" * 300_000}, 413),
    ("POST", "/v1/turns", {"headers": KEY, "json": {"text": "hi"}}, 200),
    ("POST", "/v1/turns", {"headers": KEY, "json": {"text": "hi", "stream": True}}, 200),
    ("GET", "/livez", {"headers": {"x": "y" * 40_000}}, 431),
]


@pytest.mark.parametrize(("method", "path", "rest", "status"), REQUESTS)
def test_every_answer_has_a_request_id(
    logged: Logged, method: str, path: str, rest: dict[str, dict[str, str]], status: int
) -> None:
    answers = []
    for own in ({}, {"x-request-id": f"mine:{method}-{status}.{time.monotonic_ns()}"}):
        # In front: of a head that is refused, what lies beyond its bound is not read.
        headers = own | {"origin": ORIGIN} | rest.get("headers", {})
        answer = httpx2.request(method, logged.url + path, **(rest | {"headers": headers}))  # type: ignore[arg-type]
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"]
        assert {"seawall-session", "x-request-id", "retry-after"} <= set(exposed.split(", "))
        assert answer.headers["vary"] == "origin"
        assert parsedate_to_datetime(answer.headers["date"]).tzinfo is UTC
        answers.append(answer.headers["x-request-id"])
        if answer.headers.get("content-type") == "application/problem+json" and method != "HEAD":
            assert answer.json()["request_id"] == answers[-1]
    assert re.fullmatch("[0-9a-f]{32}", answers[0])
    assert answers[1] == own["x-request-id"]
    line = logged.line(logger="seawall.access", request_id=answers[1])
    assert line["status"] == status
    if status != 431:  # the head was not read to its end
        assert (line["method"], line["path"]) == (method, path)


def test_responses_without_the_application_have_a_request_id(logged: Logged) -> None:
    lines = b"origin: %b\r\nx-request-id: broken\r\na: b\r\n" % ORIGIN.encode()
    for request in (b"GET / HTTP/9\r\n%b\r\n", b"GET / HTTP/1.1\r\n%bbad\r\n\r\n"):
        received = raw(logged, request % lines)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nx-request-id: " in received
        body = json.loads(received.partition(b"\r\n\r\n")[2])
        assert body["request_id"].encode() in received.partition(b"\r\n\r\n")[0]
    assert b"\r\nx-request-id: broken\r\n" in received
    assert b"\r\naccess-control-allow-origin: " + ORIGIN.encode() + b"\r\n" in received


def test_overload_responses_have_a_request_id_and_one_log_line(logged: Logged) -> None:
    headers = KEY | {"origin": ORIGIN}
    with httpx2.stream(
        "POST", f"{logged.url}/v1/turns", json={"text": "hi", "stream": True}, headers=headers
    ) as taken:
        assert taken.status_code == 200

        def refused(number: int) -> httpx2.Response:
            own = {"x-request-id": f"refused-{number}"}
            url = f"{logged.url}/v1/turns?a=secret"
            return httpx2.post(url, json={"text": "hi"}, headers=headers | own)

        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(refused, range(5)))
        for number, answer in enumerate(answers):
            own = {"x-request-id": f"refused-{number}"}
            assert answer.status_code == 503
            assert answer.headers["x-request-id"] == own["x-request-id"]
            assert answer.json()["request_id"] == own["x-request-id"]
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "retry-after" in answer.headers["access-control-expose-headers"]
        taken.read()
    assert logged.line(logger="seawall.access", request_id="refused-4")["status"] == 503
    counts: list[int] = []
    latest = time.monotonic() + 10
    while sum(counts) < 5 and time.monotonic() < latest:
        time.sleep(0.05)
        lines = [line for line in logged.lines() if line["logger"] == "seawall.admission"]
        counts = [int(str(line["message"]).split()[2]) for line in lines]  # "admission refused N"
    assert sum(counts) == 5
    assert len(counts) <= 2
    assert "secret" not in logged.log.read_text()


def test_the_warm_up_leaves_no_lines_in_the_access_log(logged: Logged) -> None:
    assert not [line for line in logged.lines() if line.get("tenant") == "seawall"]


def test_options_of_the_server_as_a_whole(logged: Logged) -> None:
    received = raw(logged, b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: GET, POST, DELETE, HEAD, OPTIONS\r\n" in received


def test_the_access_log_names_the_tenant(logged: Logged) -> None:
    own = {"x-request-id": "tenant-1"}
    answer = httpx2.post(f"{logged.url}/v1/turns", json={"text": "hi"}, headers=KEY | own)
    line = logged.line(logger="seawall.access", request_id="tenant-1")
    assert line["tenant"] == "acme"
    assert line["bytes"] == len(answer.content)
    assert float(str(line["seconds"])) > 0.3
    httpx2.get(f"{logged.url}/v1/sessions", headers=KEY | {"x-request-id": "tenant-2"})
    assert logged.line(logger="seawall.access", request_id="tenant-2")["tenant"] == "acme"


def test_the_access_log_counts_what_is_streamed(logged: Logged) -> None:
    own = {"x-request-id": "streamed-1"}
    asked = {"text": "hi", "stream": True}
    answer = httpx2.post(f"{logged.url}/v1/turns", json=asked, headers=KEY | own)
    assert answer.content.count(b"event: text.delta") > 1
    line = logged.line(logger="seawall.access", request_id="streamed-1")
    assert (line["status"], line["bytes"]) == (200, len(answer.content))


def test_the_last_events_are_sent_with_the_end_of_the_stream(logged: Logged) -> None:
    body = '{"text": "hi", "stream": true}'
    head = (
        f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {API_KEY}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    )
    received = raw(logged, head.encode(), waits=True)
    last = received.partition(b"event: usage")[2]
    assert b"event: turn.completed" in last
    assert last.endswith(b"\n\n\r\n0\r\n\r\n")
    assert last.count(b"\r\n") == 3  # one chunk, and that which ends the body


def test_the_trace_is_the_id_of_a_request_without_one(logged: Logged) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert httpx2.get(f"{logged.url}/livez", headers=parent).headers["x-request-id"] == trace


@given(st.binary(max_size=200))
def test_only_safe_request_ids_are_accepted(own: bytes) -> None:
    found = request_id({b"x-request-id": own, b"traceparent": own})
    assert re.fullmatch(r"[A-Za-z0-9._:@/+=-]{1,128}", found)
    assert found == own.decode("latin-1") or re.fullmatch("[0-9a-f]{32}", found)


def test_preflight_requests(logged: Logged) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }
    for path in ("/v1/turns", "/v1/chat/completions", "/v1/sessions/ses_1", "/nowhere"):
        answer = httpx2.options(logged.url + path, headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
        allowed = set(answer.headers["access-control-allow-headers"].split(", "))
        assert {"authorization", "content-type", "x-stainless-os", "seawall-session"} <= allowed
        assert answer.headers["access-control-max-age"] == "600"
        assert "origin" in answer.headers["vary"]
        assert not answer.content
        assert "access-control-allow-credentials" not in answer.headers
    other = httpx2.options(
        f"{logged.url}/v1/turns", headers=asked | {"origin": "https://evil.example"}
    )
    assert other.status_code == 204
    assert not [name for name in other.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", f"{ORIGIN}.evil.example", ORIGIN.upper(), f"{ORIGIN}:1"],
)
def test_other_origins_may_not_read(logged: Logged, origin: str) -> None:
    answer = httpx2.get(f"{logged.url}/v1/models", headers=KEY | {"origin": origin})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["vary"] == "origin"


def test_without_the_section_there_is_no_cors(pair: Pair) -> None:
    answer = httpx2.get(f"{pair.url}/livez", headers={"origin": ORIGIN})
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/turns", "POST, OPTIONS"),
        ("/v1/chat/completions", "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/auto", "GET, HEAD, OPTIONS"),
        ("/v1/sessions", "GET, HEAD, OPTIONS"),
        ("/v1/sessions/ses_1", "GET, DELETE, HEAD, OPTIONS"),
        ("/v1/turns/trn_1/events", "GET, HEAD, OPTIONS"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_and_405_list_the_allowed_methods(pair: Pair, path: str, allowed: str) -> None:
    result = httpx2.options(pair.url + path)
    assert (result.status_code, result.headers["allow"]) == (204, allowed)
    refused = httpx2.patch(pair.url + path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert refused.json()["code"] == "method-not-allowed"


@pytest.mark.parametrize(
    "section",
    [
        'origins = ["*"]\ncredentials = true',
        "origins = []",
        'origins = ["https://shop.example/"]',
        'origins = ["https://Shop.example"]',
        'origins = ["shop.example"]',
        'origins = ["null"]',
        'origins = ["https://*.example"]',
        'origins = ["*"]\nheaders = ["a b"]',
        'origins = ["*"]\nmax_age_seconds = -1',
        'origins = ["*"]\norigin = "x"',
    ],
)
def test_invalid_cors_settings(section: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.cors"):
        parse_settings(f"[server.cors]\n{section}\n")


def test_any_origin() -> None:
    cors = Cors(CorsSettings(origins=("*",), headers=("*",)))
    assert dict(cors.answer(b"https://any.example"))[b"access-control-allow-origin"] == b"*"
    assert cors.origins == frozenset()  # none that may do without a credential
    result = cors.preflight(
        {
            b"origin": b"null",
            b"access-control-request-method": b"POST",
            b"access-control-request-headers": b"authorization, x-any",
        }
    )
    assert result is not None
    assert dict(result)[b"access-control-allow-headers"] == b"authorization, x-any"
    assert b"access-control-allow-credentials" not in dict(result)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_origin_is_allowed_that_is_not_configured(origin: bytes, names: bytes) -> None:
    cors = Cors(CorsSettings(origins=(ORIGIN,), headers=("*",), credentials=True))
    headers = {
        b"origin": origin,
        b"access-control-request-method": b"POST",
        b"access-control-request-headers": names,
    }
    assert cors.preflight(headers) is None
    assert cors.answer(origin) == [(b"vary", b"origin")]
    allowed = cors.preflight(headers | {b"origin": ORIGIN.encode()})
    assert allowed is not None
    for name, value in allowed:
        assert not set(b"\r\n\0") & set(name + value)
