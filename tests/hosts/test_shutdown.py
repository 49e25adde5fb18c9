"""Graceful shutdown on SIGTERM: announce, drain, abandon."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.hosts.conftest import Pair, events, identity
from tests.hosts.test_interruptions import begin, connect, eventually, stored
from tests.issuer import Issuer
from tests.servers import running_model, running_server


@contextmanager
def serving(folder: Path, issuer: Issuer, duration: float, **settings: str) -> Iterator[Pair]:
    with (
        running_model("--first-token", "0.05", "--duration", str(duration)) as model,
        running_server(
            folder, model, log=str(folder / "log"), **identity(folder, issuer), **settings
        ) as server,
    ):
        yield Pair(server, model, issuer, folder)


def read_all(client: socket.socket) -> bytes:
    received = b""
    while more := client.recv(65_536):
        received += more
    return received


@pytest.mark.parametrize("workers", ["1", "2"])
def test_turns_are_drained_if_its_output_is_no_longer_read(
    tmp_path: Path, issuer: Issuer, workers: str
) -> None:
    with serving(tmp_path, issuer, 0.5, SERVER__WORKERS=workers) as pair:
        running = begin(pair)
        assert pair.server.process.stdout is not None
        pair.server.process.stdout.close()
        assert pair.server.stop() == 1  # standard output could not be written
        assert events(read_all(running).decode())[-1]["type"] == "turn.completed"
        running.close()


def test_readiness_fails_while_turns_are_still_accepted(tmp_path: Path, issuer: Issuer) -> None:
    settings = {
        "SERVER__WORKERS": "2",
        "SERVER__SHUTDOWN_DELAY_SECONDS": "60",
        "SERVER__DRAIN_SECONDS": "20",
    }
    with serving(tmp_path, issuer, 0.3, **settings) as pair, pair.client() as client:
        assert client.get("/readyz").status_code == 200
        running = begin(pair)
        pair.server.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503, 2.0)
        for _ in range(8):  # of whichever worker
            answer = httpx2.get(f"{pair.url}/readyz")
            assert answer.status_code == 503
            assert answer.json()["code"] in ("server-stopping", "overloaded")
        answer = client.post("/v1/turns", json={"text": "still"})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        eventually(lambda: stored(pair) == 2)
        assert pair.server.stop() == 0  # asked again, it waits no longer
        assert events(read_all(running).decode())[-1]["type"] == "turn.completed"
        running.close()


def test_a_second_signal_skips_the_waits(tmp_path: Path, issuer: Issuer) -> None:
    settings = {
        "SERVER__WORKERS": "2",
        "SERVER__SHUTDOWN_DELAY_SECONDS": "60",
        "SERVER__DRAIN_SECONDS": "60",
    }
    with serving(tmp_path, issuer, 30, **settings) as pair:
        client = begin(pair)
        pair.server.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx2.get(f"{pair.url}/readyz").status_code == 503, 20.0)
        pair.server.process.send_signal(signal.SIGTERM)
        assert events(read_all(client).decode())[-1]["type"] == "turn.failed"
        client.close()
        assert pair.server.process.wait(20) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_abandoned_turns_get_an_error(tmp_path: Path, issuer: Issuer) -> None:
    settings = {
        "SERVER__WORKERS": "1",
        "SERVER__DRAIN_SECONDS": "1",
        "ADMISSION__IN_FLIGHT": "3",
    }
    with serving(tmp_path, issuer, 30, **settings) as pair:
        streams = [begin(pair), begin(pair, "/v1/chat/completions")]
        answers: list[httpx2.Response] = []

        def ask(**headers: str) -> None:
            with pair.client() as client:
                answers.append(client.post("/v1/turns", json={"text": "hi"}, headers=headers))

        # One runs, one waits for a slot.
        waiting = [threading.Thread(target=ask) for _ in range(2)]
        for each in waiting:
            each.start()
        eventually(
            lambda: (
                'seawall_turns_queued{priority="normal"} 1.0'
                in httpx2.get(f"{pair.url}/metrics").text
            )
        )
        assert pair.server.stop() == 0
        result = [read_all(each).decode() for each in streams]
        for each in waiting:
            each.join()
        for stream in streams:
            stream.close()
        failed = events(result[0])[-1]
        assert failed["type"] == "turn.failed"
        assert "'code': 'server-stopping'" in str(failed["problem"])
        assert "server-stopping" in result[1]
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["code"] in ("server-stopping", "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        assert stored(pair) == 0
        eventually(lambda: pair.model_stats()["open_streams"] == 0)
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log
        assert "abandoning 4 requests" in log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_accepted_connection_is_reset(tmp_path: Path, issuer: Issuer, workers: str) -> None:
    """Clients keep coming, each on a connection of its own, until they are refused."""
    settings = {"SERVER__WORKERS": workers}
    with serving(tmp_path, issuer, 0.1, **settings) as pair:
        outcomes: list[str] = []

        def come() -> None:
            while True:
                try:
                    client = connect(pair)
                except OSError:
                    outcomes.append("refused")
                    return
                with closing(client):
                    try:
                        client.sendall(
                            b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                        )
                        answer = read_all(client)
                    except OSError as error:
                        answer = repr(error).encode()
                outcomes.append("answered" if b" 200 " in answer else f"cut off: {answer!r}")

        threads = [threading.Thread(target=come) for _ in range(24)]
        for each in threads:
            each.start()
        time.sleep(0.5)
        assert pair.server.stop() == 0
        for each in threads:
            each.join()
        assert set(outcomes) == {"refused", "answered"}
        assert outcomes.count("refused") == len(threads)


def test_a_kept_connection_is_used_once_more(tmp_path: Path, issuer: Issuer) -> None:
    """Its next response says that it is the last, although new connections are refused by then."""
    with serving(tmp_path, issuer, 3, SERVER__WORKERS="1") as pair, pair.client() as client:
        assert "connection" not in client.get("/livez").headers
        running = begin(pair)
        pair.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert events(read_all(running).decode())[-1]["type"] == "turn.completed"
        running.close()
        assert pair.server.process.wait(20) == 0
