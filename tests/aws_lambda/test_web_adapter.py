"""What AWS's Lambda Web Adapter needs of the HTTP server, configured as docs/lambda.md has it.

The adapter itself is a binary that is not to be had from package registries, so what it does is
done here: its readiness check, requests with its headers over a connection that is kept, streams,
and the freezing of all processes between invocations
(awslabs.github.io/aws-lambda-web-adapter, configuration/environment-variables and features).
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.servers import ServerProcess, running, running_model

KEY = "sw_behind-the-adapter"
# As a function URL sends them, and the adapter hands them on.
HANDED_ON = {
    "x-forwarded-for": "192.0.2.1",
    "x-amzn-request-context": json.dumps({"http": {"sourceIp": "192.0.2.1"}}),
    "x-amzn-lambda-context": json.dumps({"request_id": "r-1", "deadline": 1}),
    "x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server as in an execution environment: one worker, without anonymous access."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with (
        running_model("--first-token", "0.05", "--duration", "0.5") as model,
        running(
            *("serve", "examples/store/seawall.toml", "--port", "0", "--workers", "1", "--json"),
            environment={
                "SEAWALL_IDENTITY__ANONYMOUS": "false",
                "SEAWALL_IDENTITY__API_KEYS": f'[{{sha256="{digest}",tenant="t",subject="s"}}]',
                "SEAWALL_MODELS__DEFAULT__BASE_URL": model.url,
                "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
                "SEAWALL_TOOLS__STORE__DATABASE": str(tmp_path / "store.db"),
            },
        ) as server,
    ):
        yield server


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in listed for each in tree(int(child)))]


def test_the_web_adapter_streams_survives_a_freeze_and_drains(served: ServerProcess) -> None:
    with httpx2.Client(base_url=served.url, headers=HANDED_ON, timeout=20) as client:
        assert client.get("/readyz").status_code == 200
        turn = {"text": "Hello", "stream": True}
        assert client.post("/v1/turns", json=turn).status_code == 401
        client.headers["x-api-key"] = KEY
        with client.stream("POST", "/v1/turns", json=turn) as answer:
            assert answer.status_code == 200
            assert answer.headers["transfer-encoding"] == "chunked"
            began, first, last = time.monotonic(), 0.0, 0.0
            received = b""
            for piece in answer.iter_raw():
                received += piece
                last = time.monotonic() - began
                first = first or (last if b"text.delta" in received else 0.0)
        assert b"turn.completed" in received
        assert last - first > 0.2  # of the half second that the model writes
        processes = tree(served.process.pid)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.0)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        answer = client.post("/v1/turns", json={"text": "And again"})
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert served.stop() == 0
