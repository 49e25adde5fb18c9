"""Clients that send or read files slowly delay each other, and not the conversations."""

import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import pytest

from tests.attachments.pictures import data_url, pdf, photo
from tests.hosts.test_hostile_connections import MIB, memory
from tests.servers import ServerProcess, running_model, running_server

KEYS = {who: f"sw_{who}" for who in ("ada", "bob", "cem", "dan", "eve")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("slow-files")
    keys = ", ".join(
        f'{{sha256 = "{hashlib.sha256(key.encode()).hexdigest()}", '
        f'tenant = "acme", subject = "{who}"}}'
        for who, key in KEYS.items()
    )
    with (
        running_model("--first-token", "0", "--duration", "0") as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="1",
            IDENTITY__API_KEYS=f"[{keys}]",
            BLOBS__PATH=str(folder / "files"),
            MODELS__DEFAULT__VISION="true",
        ) as running,
    ):
        yield running


@contextmanager
def _asked(server: ServerProcess, who: str, request: str) -> Iterator[socket.socket]:
    """A connection that has sent this, and reads nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((host, int(port)))
        head, _, body = request.partition("\n\n")
        lines = [head, "host: x", f"authorization: Bearer {KEYS[who]}"]
        connection.sendall("\r\n".join([*lines, "", body]).encode())
        yield connection


def _client(server: ServerProcess, who: str) -> httpx2.Client:
    headers = {"authorization": f"Bearer {KEYS[who]}"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=30)


def test_slow_uploads_leave_memory_to_others(server: ServerProcess) -> None:
    """Twelve of one customer; then three more customers, as many as there is memory for."""
    request = (
        "POST /v1/files HTTP/1.1\r\ncontent-length: 10000000\r\n"
        "content-type: multipart/form-data; boundary=b\n\n--b"
    )
    sent = {"text": "?", "attachments": [{"data": data_url(photo())}]}
    with ExitStack() as opened, _client(server, "bob") as bob:
        for _ in range(12):
            opened.enter_context(_asked(server, "ada", request))
        time.sleep(0.5)
        began = time.monotonic()
        answer = bob.post("/v1/files", files={"file": ("a.png", photo("PNG"), "image/png")})
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - began < 8  # one that gives up waits for 20 seconds
        for who in ("cem", "dan", "eve"):
            opened.enter_context(_asked(server, who, request))
        time.sleep(0.5)
        began = time.monotonic()
        answer = bob.post("/v1/turns", json=sent)
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - began < 8


def test_files_that_are_not_read_take_little_memory(server: ServerProcess) -> None:
    """Thirty connections that ask for a file of ten million bytes, and never read."""
    large = pdf() + b"\n" * 10_000_000
    with _client(server, "ada") as ada:
        answer = ada.post("/v1/files", files={"file": ("a.pdf", large, "application/pdf")})
        assert answer.status_code == 200, answer.text
        file = answer.json()["id"]
        before = memory(server)
        with ExitStack() as opened:
            for _ in range(30):
                request = f"GET /v1/files/{file}/content HTTP/1.1\n\n"
                opened.enter_context(_asked(server, "ada", request))
            time.sleep(3.0)
            assert memory(server) - before < 60 * MIB
        assert ada.get(f"/v1/files/{file}/content").content == large
