"""More turns than there is room for, over real connections."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.hosts.conftest import Pair, identity
from tests.hosts.test_interruptions import eventually
from tests.issuer import Issuer, encoded, unsigned
from tests.servers import running_model, running_server


@contextmanager
def _pair(folder: Path, issuer: Issuer, duration: str, **settings: str) -> Iterator[Pair]:
    with (
        running_model("--first-token", "0.02", "--duration", duration, "--chunks", "4") as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="1",
            SERVER__WARM_UP="true",
            SERVER__BODY_SECONDS="0.5",
            SERVER__DRAIN_SECONDS="1",
            **settings,
            **identity(folder, issuer),
        ) as server,
    ):
        yield Pair(server, model, issuer, folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Pair]:
    """Two slots and a queue of one, all taken by the tenant `acme` during the tests."""
    limits = {
        "ADMISSION__IN_FLIGHT": "2",
        "ADMISSION__QUEUED": "1",
        "ADMISSION__WAIT_SECONDS": "100",
        "TURN__TURN": "100",
    }
    with _pair(tmp_path_factory.mktemp("full"), issuer, "90", **limits) as pair:
        clients = [_send(pair, _request(pair.issuer.token())) for _ in range(3)]
        eventually(lambda: 'seawall_turns_queued{priority="normal"} 1.0' in _metrics(pair))
        yield pair
        for client in clients:
            client.close()


def _metrics(pair: Pair) -> str:
    return httpx2.get(f"{pair.url}/metrics").text


def _refused(pair: Pair, reason: str = "full") -> float:
    time.sleep(1.05)  # a scrape is given again for a second
    line = f'seawall_turns_refused_total{{reason="{reason}"}} '
    return float(_metrics(pair).split(line)[1].split("\n")[0])


def _request(token: str, body: bytes = b'{"text": "hi", "stream": true}', more: str = "") -> bytes:
    head = f"POST /v1/turns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _send(pair: Pair, request: bytes) -> socket.socket:
    host, port = pair.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    client.sendall(request)
    return client


def _answer(client: socket.socket) -> tuple[str, dict[str, object]]:
    """Head and JSON body of one answer, and not a byte of the next."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1)
    head = received.decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return head, json.loads(body)


def test_a_refusal_has_retry_after_and_leaves_the_connection_usable(full: Pair) -> None:
    before = _refused(full)
    with full.client() as client:
        for path, body in [
            ("/v1/turns", {"text": "hi"}),
            ("/v1/chat/completions", {"model": "auto", "messages": [{"role": "user"}]}),
            ("/v1/turns", {"text": "x" * 200_000}),
        ]:
            refused = client.post(path, json=body)
            problem = refused.json()
            assert refused.status_code == problem["status"] == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert problem["code"] == problem["error"]["code"] == "overloaded"
            assert problem["type"] == "urn:seawall:problem:overloaded"
            assert int(refused.headers["retry-after"]) == max(1, round(problem["retry_after"]))
        assert client.get("/livez").json() == {"status": "alive"}
    assert _refused(full) == before + 3


def test_requests_in_one_segment_are_separated(full: Pair) -> None:
    token = full.issuer.token()
    livez = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    client = _send(full, _request(token) + _request(token) + livez)
    assert [_answer(client)[1].get("code") for _ in range(3)] == ["overloaded", "overloaded", None]
    client.close()


def test_neither_body_nor_token_is_read(full: Pair) -> None:
    """Only the claim of the token is read, and not trusted."""
    tokens = [
        full.issuer.token(),
        full.issuer.token()[:-8] + "AAAAAAAA",
        unsigned({"alg": "none"}, full.issuer.claims()),
        "not-a-token",
        f"{encoded({'alg': 'RS256'})}.!!!.x",
    ]
    before = _refused(full)
    for token in tokens:
        client = _send(full, _request(token, b"{ this is not JSON"))
        head, problem = _answer(client)
        assert (problem["code"], "connection: close" in head) == ("overloaded", False)
        client.close()
    assert _refused(full) == before + len(tokens)
    assert full.model_stats()["started"] == 2


def test_a_refusal_precedes_the_body_and_an_endless_body_is_disconnected(full: Pair) -> None:
    whole = _request(full.issuer.token(), b"x" * 1_000)
    client = _send(full, whole[:-500])
    assert _answer(client)[1]["code"] == "overloaded"
    assert client.recv(1) == b""  # after body_seconds
    client.close()
    chunked = whole.split(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"
    client = _send(full, chunked)
    assert _answer(client)[1]["code"] == "overloaded"
    with pytest.raises(ConnectionError):  # it has come to more than max_body_bytes
        for _ in range(1_000):
            client.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
    client.close()


@pytest.mark.parametrize("more", ["connection: close\r\n", "expect: 100-continue\r\n"])
def test_a_connection_that_cannot_be_reused_is_closed(full: Pair, more: str) -> None:
    request = _request(full.issuer.token(), more=more)
    if "expect" in more:
        request = request.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    client = _send(full, request)
    head, problem = _answer(client)
    assert (problem["code"], "connection: close" in head) == ("overloaded", True)
    assert client.recv(1) == b""
    client.close()


def test_a_false_claim_gains_one_verification_and_nothing_else(
    tmp_path: Path, issuer: Issuer
) -> None:
    """One tenant has enough of the queue for another to push one out: the claim is tried."""
    limits = {"ADMISSION__IN_FLIGHT": "1", "ADMISSION__QUEUED": "3"}
    with _pair(tmp_path, issuer, "60", **limits) as pair:
        clients = [_send(pair, _request(issuer.token())) for _ in range(4)]
        eventually(lambda: 'seawall_turns_queued{priority="normal"} 3.0' in _metrics(pair))
        with pair.client() as greedy:
            assert greedy.post("/v1/turns", json={"text": "hi"}).status_code == 503
        forged = issuer.token(tenant="small")[:-8] + "AAAAAAAA"
        with pair.client(token=forged) as liar:
            assert liar.post("/v1/turns", json={"text": "hi"}).status_code == 401
        assert _refused(pair, "displaced") == 0
        small = _send(pair, _request(issuer.token(tenant="small")))
        eventually(lambda: _refused(pair, "displaced") == 1)
        assert 'seawall_turns_queued{priority="normal"} 3.0' in _metrics(pair)
        for client in (*clients, small):
            client.close()


def test_a_small_tenant_is_served_beside_a_crowd_of_another(tmp_path: Path, issuer: Issuer) -> None:
    """Turns of different lengths, so that slots do not all become free at once."""
    limits = {"ADMISSION__IN_FLIGHT": "10", "ADMISSION__QUEUED": "200"}
    with _pair(tmp_path, issuer, "0.1..0.3", **limits) as pair, ExitStack() as crowd:
        for _ in range(190):
            crowd.enter_context(closing(_send(pair, _request(issuer.token(tenant="crowd")))))
        with httpx2.Client(base_url=pair.url, timeout=20) as small:
            headers = {"authorization": f"Bearer {issuer.token(tenant='small')}"}

            def ask(number: int) -> httpx2.Response:
                return small.post("/v1/turns", json={"text": f"hi {number}"}, headers=headers)

            with ThreadPoolExecutor(4) as threads:
                answers = list(threads.map(ask, range(20)))
            assert [each.status_code for each in answers] == [200] * 20
            # Half of the slots were theirs: the crowd, which came first, is not done yet.
            assert float(_metrics(pair).split('priority="normal"} ')[1].split("\n")[0]) > 20
