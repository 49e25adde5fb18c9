"""Attacks on the connections of a real server, without a credential."""

import contextlib
import gzip
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.attack.balancer import require_balancer
from tests.hosts.conftest import API_KEY, Pair, identity
from tests.issuer import Issuer
from tests.servers import ServerProcess, running_model, running_server

MIB = 1 << 20
LIVE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


@contextmanager
def connected(url: str, seconds: float = 15.0, reads: int = 0) -> Iterator[socket.socket]:
    """reads: bytes that the kernel takes for us ahead; 0 for as many as it likes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.settimeout(seconds)
        if reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
        connection.connect((host, int(port)))
        yield connection


def answers(connection: socket.socket) -> list[tuple[int, dict[str, str], bytes]]:
    """All answers until the server closes: status, headers, body."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    assert b"transfer-encoding" not in received
    found = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, head
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        found.append((int(first.split()[1]), headers, received[:size]))
        received = received[size:]
    return found


def asked(url: str, request: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    with connected(url) as connection:
        connection.sendall(request)
        return answers(connection)


def memory(server: ServerProcess) -> int:
    """Bytes of all processes of the server."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if str(server.process.pid) in (lines["Pid"], lines["PPid"]):
            total += int(lines.get("VmRSS", "0 kB").split()[0]) * 1_024
    return total


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Pair]:
    """One worker that closes slow heads and bodies soon."""
    folder = tmp_path_factory.mktemp("alone")
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="1",
            SERVER__HEADER_SECONDS="3",
            SERVER__BODY_SECONDS="3",
            SERVER__STALL_SECONDS="2",
            **identity(folder, issuer),
        ) as server,
    ):
        yield Pair(server, model, issuer, folder)


def test_a_pipeline_without_end_takes_no_memory(alone: Pair) -> None:
    before = memory(alone.server)
    with connected(alone.url, 1.0, reads=65_536) as connection:
        flood, sent = LIVE * 4_096, 0
        with pytest.raises(
            (ConnectionError, TimeoutError)
        ):  # it is not read, since its answers are not
            while sent < 16 * MIB:
                sent += connection.send(flood)
        assert memory(alone.server) - before < 8 * MIB
    assert asked(alone.url, LIVE[:-2] + b"connection: close\r\n\r\n")[0][0] == 200


def test_pipelined_requests_are_all_answered_in_order(alone: Pair) -> None:
    last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    found = asked(alone.url, LIVE * 300 + last)
    assert [status for status, _, _ in found] == [200] * 300 + [404]


def test_trailers_are_bounded_and_never_count_as_headers(alone: Pair) -> None:
    head = (
        b"POST /v1/turns HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
    )
    body = b'{"text": "hello"}'
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    key = b"x-api-key: %b\r\n" % API_KEY.encode()
    assert asked(alone.url, head + key + b"\r\n" + chunk + b"\r\n")[0][0] == 200
    assert asked(alone.url, head + b"\r\n" + chunk + key + b"\r\n")[0][0] == 401
    before = memory(alone.server)
    with connected(alone.url) as connection:
        connection.sendall(head + b"\r\n" + chunk)
        line = b"x: " + b"y" * 60_000 + b"\r\n"
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(100 * MIB // len(line)):
                connection.sendall(line)
        assert memory(alone.server) - before < 8 * MIB


@pytest.mark.parametrize(
    "rest",
    [
        b"0;" + b"e" * 40_000,
        b"5;" + b"e" * 40_000 + b"\r\n",
        b"0\r\n" + b"t: u\r\n" * 200 + b"\r\n",
    ],
    ids=["extension", "whole-extension", "many-trailers"],
)
def test_chunk_extensions_and_trailers_have_the_limits_of_heads(alone: Pair, rest: bytes) -> None:
    head = (
        b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nx-api-key: %b\r\n\r\n"
    )
    (found,) = asked(alone.url, head % API_KEY.encode() + rest)
    assert found[0] == 431
    assert found[1]["connection"] == "close"


def test_an_upgrade_is_ignored_and_its_body_is_a_body(alone: Pair) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    for upgrade in (b"websocket", b"h2c", b"foo/2"):
        request = (
            b"POST /nothing HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n"
            b"upgrade: %b\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
            b"content-length: %d\r\n\r\n%b"
        ) % (upgrade, len(inner), inner)
        found = asked(alone.url, request + LIVE[:-2] + b"connection: close\r\n\r\n")
        assert [status for status, _, _ in found] == [404, 200]


def test_curl_offers_http2(alone: Pair) -> None:
    said = subprocess.run(
        [
            *("curl", "-s", "--http2", "-w", "\n%{http_code}", "-H", f"x-api-key: {API_KEY}"),
            *("-d", '{"text": "hello"}', f"{alone.url}/v1/turns"),
        ],
        capture_output=True,
        timeout=30,
        check=True,
    ).stdout
    assert said.endswith(b"\n200"), said


_WEBSOCKET_PROXY = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


@pytest.fixture
def websocket_proxy(alone: Pair, tmp_path: Path) -> Iterator[str]:
    """nginx as its documentation configures it for WebSockets."""
    require_balancer("nginx")
    kind = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "nginx.conf"
    path.write_text(_WEBSOCKET_PROXY.format(folder=tmp_path, port=port, url=alone.url))
    process = subprocess.Popen([kind, "-e", "stderr", "-c", path])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_nothing_is_smuggled_through_a_proxy_for_websockets(websocket_proxy: str) -> None:
    inner = b"POST /v1/turns HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 14\r\n\r\n"
    inner += b'{"text": "hi"}'
    for framing in (
        b"content-length: %d\r\n\r\n%b" % (len(inner), inner),
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner),
    ):
        request = b"POST /nothing HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
        request += b"connection: Upgrade\r\n" + framing
        found = asked(websocket_proxy, request + LIVE[:-2] + b"connection: close\r\n\r\n")
        assert [status for status, _, _ in found] == [404, 200]


WRONG = [
    b"GET /\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /livez HTTP/3.1\r\nhost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a b\r\n\r\n",
    b"GET http://y/livez HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET livez HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\na : b\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n",
    b"GET /livez HTTP/1.1\nhost: x\n\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\nnothing\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\n: nothing\r\n\r\n",
    b"\r\n" * 20 + LIVE,
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}",
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 2, 2\r\n\r\n{}",
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 1" + b"0" * 30 + b"\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\n" + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ntransfer-encoding: nothing\r\n\r\n{}",
    b"POST /v1/turns HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", WRONG, ids=range(len(WRONG)))
def test_invalid_http_is_answered_with_400_once(alone: Pair, request_bytes: bytes) -> None:
    for after in (b"", LIVE):
        found = asked(alone.url, request_bytes + after)
        assert [status for status, _, _ in found] == [400]
        assert found[0][1]["connection"] == "close"
        assert msgspec.json.decode(found[0][2])["code"] == "invalid-request"


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"ffffffffffffffff1\r\n",
        b"2\r\n{}x\r\n",
        b"-1\r\n",
        b"0x2\r\n{}\r\n",
        b"2\n{}\n0\n\n",
        b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_broken_chunks_are_answered_with_400(alone: Pair, rest: bytes, pause: float) -> None:
    """Also where the application has begun to read the body."""
    head = (
        b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nx-api-key: %b\r\n\r\n"
    )
    with connected(alone.url) as connection:
        connection.sendall(head % API_KEY.encode() + b'9\r\n{"text": \r\n')
        time.sleep(pause)
        connection.sendall(rest)
        ((status, headers, body),) = answers(connection)
    assert (status, headers["connection"]) == (400, "close")
    assert msgspec.json.decode(body)["code"] == "invalid-request"


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Idempotency-Key", "Content-Type"])
def test_a_header_that_may_be_sent_once_is_refused_by_name(alone: Pair, name: str) -> None:
    line = f"{name}: {API_KEY}\r\n"
    head = f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{line}{line.lower()}"
    ((status, _, body),) = asked(alone.url, f"{head}content-length: 2\r\n\r\n{{}}".encode())
    assert status == 400
    assert msgspec.json.decode(body)["field"] == name


def test_headers_that_are_lists_may_be_repeated(alone: Pair) -> None:
    head = (
        f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {API_KEY}\r\n"
        "accept: text/event-stream\r\naccept: */*\r\ncontent-length: 14\r\n\r\n"
    )
    with connected(alone.url) as connection:
        connection.sendall(head.encode() + b'{"text": "hi"}')
        said = connection.recv(65_536)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/event-stream" in said


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(b'{"text": "hello"}'), 200),
        ("identity", b'{"text": "hello"}', 200),
        ("GZIP", gzip.compress(b"[" + b" " * 50 * MIB + b"]", 1), 413),
        ("gzip", gzip.compress(b'{"text": "hello"}')[:-4], 400),
        ("gzip", gzip.compress(b'{"text": "hello"}') * 2, 400),
        ("gzip", b'{"text": "hello"}', 400),
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
    ids=["gzip", "identity", "bomb", "cut", "two", "not", "br", "twice"],
)
def test_encoded_bodies(alone: Pair, coding: str, body: bytes, status: int) -> None:
    before = memory(alone.server)
    head = (
        f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {API_KEY}\r\n"
        f"content-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    assert asked(alone.url, head.encode() + body)[0][0] == status
    assert memory(alone.server) - before < 8 * MIB


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("POST /v1/turns", 413),
        ("PUT /nothing", 404),
        ("GET /v1/turns", 405),
        ("POST /v1/models", 405),
    ],
)
def test_after_an_early_answer_the_rest_of_a_body_is_not_read_for_long(
    alone: Pair, request_line: str, status: int
) -> None:
    """And the client still gets the answer, though it only looks for it after all was sent."""
    head = (
        f"{request_line} HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\ncontent-length: 1000000000"
    )
    began = time.monotonic()
    with connected(alone.url) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        sent = 0
        try:
            while sent < 500 * MIB:
                sent += connection.send(b"x" * MIB)
        except OSError:
            pass
        assert sent < 100 * MIB
        ((found, headers, _),) = answers(connection)
    assert (found, headers["connection"]) == (status, "close")
    assert time.monotonic() - began < 6.0


@pytest.mark.parametrize(("version", "interim"), [("1.0", []), ("1.1", [100])])
def test_only_http_1_1_clients_get_an_interim_response(
    alone: Pair, version: str, interim: list[int]
) -> None:
    """RFC 9110 §10.1.1."""
    head = (
        f"POST /v1/turns HTTP/{version}\r\nhost: x\r\nx-api-key: {API_KEY}\r\nconnection: close\r\n"
        "expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    with connected(alone.url) as connection:
        connection.sendall(head.encode() + b"{}")
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    statuses = [int(each[:3]) for each in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [*interim, 422]


def test_a_stalled_body_is_answered_and_the_connection_closed(alone: Pair) -> None:
    head = (
        f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\ncontent-length: 9\r\n\r\n"
    )
    with connected(alone.url) as connection:
        connection.sendall(head.encode() + b"{")
        ((status, headers, _),) = answers(connection)
    assert (status, headers["connection"]) == (408, "close")


def test_a_small_body_after_an_early_answer_leaves_the_connection_usable(alone: Pair) -> None:
    head = b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
    with connected(alone.url) as connection:
        connection.sendall(head + b"x" * 5)
        time.sleep(0.3)
        connection.sendall(b"x" * 5 + LIVE[:-2] + b"connection: close\r\n\r\n")
        assert [status for status, _, _ in answers(connection)] == [404, 200]


def test_answers_unread_take_little_memory(alone: Pair) -> None:
    """Twenty connections that ask for the largest open answer and never read."""
    before = memory(alone.server)
    request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    connections = []
    for _ in range(20):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = alone.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.sendall(request * 200)
        connections.append(connection)
    time.sleep(1.0)
    assert memory(alone.server) - before < 8 * MIB
    for each in connections:
        each.close()


def test_idle_connections_are_closed_for_new_ones(tmp_path: Path, issuer: Issuer) -> None:
    """By the limit of connections, while there are enough descriptors."""
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(
            tmp_path,
            model,
            SERVER__WORKERS="1",
            SERVER__MAX_CONNECTIONS="100",
            **identity(tmp_path, issuer),
        ) as server,
    ):
        _crowd(server.url, 300)


def test_idle_connections_are_closed_when_descriptors_run_out(
    tmp_path: Path, issuer: Issuer
) -> None:
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(
            tmp_path,
            model,
            prefix=("prlimit", "--nofile=700"),
            SERVER__WORKERS="1",
            **identity(tmp_path, issuer),
        ) as server,
    ):
        _crowd(server.url, 900)


def _crowd(url: str, count: int) -> None:
    idle = []
    host, port = url.removeprefix("http://").split(":")
    try:
        for number in range(count):
            connection = socket.create_connection((host, int(port)), timeout=10)
            idle.append(connection)
            if number % 3 == 0:
                connection.sendall(LIVE)
                assert connection.recv(4_096).startswith(b"HTTP/1.1 200 ")
        last = idle[-1]
        last.sendall(LIVE)
        assert b"HTTP/1.1 200 " in last.recv(4_096)
        idle[0].settimeout(2.0)
        assert idle[0].recv(1) == b""
    finally:
        for each in idle:
            each.close()


def test_slow_bodies_are_bounded_together(tmp_path: Path, issuer: Issuer) -> None:
    """Without a credential; the oldest are answered and closed first."""
    with (
        running_model("--first-token", "0.01", "--duration", "0.05") as model,
        running_server(
            tmp_path,
            model,
            SERVER__WORKERS="1",
            SERVER__MAX_UNREAD_BYTES=str(4 * MIB),
            **identity(tmp_path, issuer),
        ) as server,
    ):
        before = memory(server)
        connections = []
        host, port = server.url.removeprefix("http://").split(":")
        head = b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 250000\r\n\r\n"
        for _ in range(100):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(head + b"x" * 200_000)
            connections.append(connection)
        time.sleep(0.5)
        assert memory(server) - before < 24 * MIB
        assert connections[0].recv(65_536).startswith(b"HTTP/1.1 503 ")
        assert asked(server.url, LIVE[:-2] + b"connection: close\r\n\r\n")[0][0] == 200
        for each in connections:
            each.close()
