"""A turn whose server dies between a tool's change and the commit, and is sent again."""

import json
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2

from tests.attack.test_two_servers import read_events
from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import running_model, running_server

ORDER = "#W1005754"
WISH = "Cancel it, I am clara.costa102@example.com."
SCRIPT = {
    "conversations": [
        {
            "match": WISH,
            "steps": [
                {
                    "tool_calls": [
                        {
                            "name": "find_user_id_by_email",
                            "arguments": {"email": "clara.costa102@example.com"},
                        }
                    ]
                },
                {
                    "tool_calls": [
                        {
                            "name": "cancel_pending_order",
                            "arguments": {"order_id": ORDER, "reason": "ordered by mistake"},
                        }
                    ]
                },
                {"text": "It is cancelled. " + "And so on. " * 60},
            ],
        }
    ]
}


def _refunds(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        (body,) = connection.execute(
            "SELECT body FROM documents WHERE kind = 'Order' AND id = ?", (ORDER,)
        ).fetchone()
    payments = json.loads(body)["payment_history"]
    return sum(each["transaction_type"] == "refund" for each in payments)


@contextmanager
def _approved_turn(client: httpx2.Client, body: dict[str, str]) -> Iterator[httpx2.Response]:
    """The events of a turn that its customer has approved, from their beginning."""
    paused = client.post("/v1/turns", json=body)
    assert paused.status_code == 202, paused.text
    (waiting,) = paused.json()["approvals"]
    client.post(waiting["decide"], json={"decision": "approve"}).raise_for_status()
    with client.stream("GET", paused.json()["events"]) as following:
        yield following


def test_an_order_is_cancelled_once(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    issuer = Issuer()
    issuer.add("one")
    settings = identity(tmp_path, issuer) | {
        "SERVER__WORKERS": "1",
        "SESSIONS__LEASE_SECONDS": "1.5",
    }
    headers = {
        "authorization": f"Bearer {issuer.token('clara')}",
        "idempotency-key": f"key-{random.random()}",
    }
    body = {"text": WISH, "agent": "orders"}
    with running_model("--script", str(tmp_path / "script.json")) as model:
        with (
            running_server(tmp_path, model, **settings) as victim,
            httpx2.Client(base_url=victim.url, headers=headers, timeout=20) as client,
            _approved_turn(client, body) as dying,
        ):
            lines = dying.iter_lines()
            names: list[str] = []
            while names.count("tool.returned") < 2:
                names += [name for _, name, _ in read_events(lines, 1)]
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
        assert _refunds(tmp_path / "store.db") == 1  # the change stands, the turn does not
        with (
            running_server(tmp_path, model, **settings) as server,
            httpx2.Client(base_url=server.url, headers=headers, timeout=20) as client,
        ):
            answer = client.post("/v1/turns", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["text"].startswith("It is cancelled.")
            assert not any(each["failed"] for each in answer.json()["tool_calls"])
            assert answer.json()["version"] == 1
    assert _refunds(tmp_path / "store.db") == 1
