"""Clients that stall or disconnect, more clients than slots, and a server that stops."""

import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx2

from tests.hosts.conftest import Pair, events, identity
from tests.servers import running_model, running_server


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def stored(pair: Pair) -> int:
    with closing(sqlite3.connect(pair.database)) as database:
        count: int = database.execute("SELECT count(*) FROM turns").fetchone()[0]
    return count


def connect(pair: Pair) -> socket.socket:
    host, _, port = pair.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def begin(pair: Pair, path: str = "/v1/turns") -> socket.socket:
    """A streamed turn that has begun to answer."""
    client = connect(pair)
    body = b'{"text": "hi", "stream": true}'
    if path.endswith("completions"):
        body = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    client.sendall(
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {pair.issuer.token()}\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    answer = b""
    while b"text.delta" not in answer and b'"content":"[' not in answer:
        received = client.recv(65_536)
        assert received, answer
        answer += received
    return client


def test_a_disconnect_cancels_the_turn(slow: Pair) -> None:
    for path in ("/v1/turns", "/v1/chat/completions"):
        client = begin(slow, path)
        assert slow.model_stats()["open_streams"] == 1
        client.close()
        eventually(lambda: slow.model_stats()["open_streams"] == 0)
    whole = threading.Thread(target=_ask_and_leave, args=(slow,))
    whole.start()
    eventually(lambda: slow.model_stats()["open_streams"] == 1)
    whole.join()
    eventually(lambda: slow.model_stats()["open_streams"] == 0)
    assert stored(slow) == 0
    metrics = httpx2.get(f"{slow.url}/metrics").text
    assert "seawall_turns_in_flight 0.0" in metrics


def _ask_and_leave(pair: Pair) -> None:
    with pair.client() as client:
        try:
            client.post("/v1/turns", json={"text": "hi"}, timeout=1.0)
        except httpx2.ReadTimeout:
            return
    raise AssertionError


def test_the_end_of_what_a_client_sends_is_its_disconnection(slow: Pair) -> None:
    with begin(slow) as client:
        assert slow.model_stats()["open_streams"] == 1
        client.shutdown(socket.SHUT_WR)
        eventually(lambda: slow.model_stats()["open_streams"] == 0)
        while client.recv(65_536):
            pass


def test_an_incomplete_request_is_answered_and_disconnected(slow: Pair) -> None:
    with closing(connect(slow)) as client:
        client.sendall(b"POST /v1/turns HTTP/1.1\r\nhost")
        assert b" 408 " in client.recv(4_096)
    token = slow.issuer.token().encode()
    with closing(connect(slow)) as client:
        client.sendall(
            b"POST /v1/turns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + token + b"\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        answer = client.recv(4_096)
        assert b" 408 " in answer
        assert b"request-timeout" in answer
    assert slow.model_stats()["started"] == 0


def test_turns_beyond_capacity_are_refused_at_once(slow: Pair) -> None:
    running = [begin(slow) for _ in range(3)]
    waiting = []
    for _ in range(2):
        client = connect(slow)
        body = b'{"text": "hi", "stream": true}'
        client.sendall(
            f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow.issuer.token()}"
            f"\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        waiting.append(client)
    queued = 'seawall_turns_queued{priority="normal"} 2.0'
    eventually(lambda: queued in httpx2.get(f"{slow.url}/metrics").text)
    began = time.monotonic()
    with slow.client() as other:
        refused = other.post("/v1/turns", json={"text": "hi"})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 1.0
    assert slow.model_stats()["started"] == 3
    running[0].close()
    eventually(lambda: slow.model_stats()["started"] == 4)
    for client in (*running, *waiting):
        client.close()
    eventually(lambda: slow.model_stats()["open_streams"] == 0)


def test_a_shutdown_drains_turns_in_flight(slow: Pair) -> None:
    """The slow turns outlast the drain deadline: they end then, with nothing stored."""
    client = begin(slow)
    began = time.monotonic()
    assert slow.server.stop() == 0
    assert 1.0 < time.monotonic() - began < 8.0
    client.close()
    assert stored(slow) == 0
    eventually(lambda: slow.model_stats()["open_streams"] == 0)


def test_a_turn_in_flight_at_the_shutdown_is_completed(slow: Pair) -> None:
    """With a model that is done before the drain deadline."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_model("--first-token", "0.05", "--duration", "1.5") as model,
        running_server(
            Path(folder), model, SERVER__WORKERS="2", **identity(Path(folder), slow.issuer)
        ) as server,
    ):
        quick = Pair(server, model, slow.issuer, Path(folder))
        client = begin(quick)
        assert server.stop() == 0
        rest = b""
        while received := client.recv(65_536):
            rest += received
        client.close()
        assert events(rest.decode())[-1]["type"] == "turn.completed"
        assert stored(quick) == 1
