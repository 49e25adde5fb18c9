"""Every retail task as a real turn: HTTP, scripted model, agent, tools, records."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from tests.hosts.conftest import Pair, events, identity
from tests.issuer import Issuer
from tests.servers import running_model, running_server
from tests.store.retail import FOLDER, Task, check_changes, documents, load_tasks


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return load_tasks()


@pytest.fixture(scope="module")
def shop(tasks: list[Task], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("shop")
    conversations = [
        {
            "match": task.text,
            "steps": [
                *(
                    {"tool_calls": [{"name": name, "arguments": arguments}]}
                    for name, arguments, _ in task.actions
                ),
                {"text": "Done."},
            ],
        }
        for task in tasks
    ]
    (folder / "script.json").write_text(json.dumps({"conversations": conversations}))
    issuer = Issuer()
    issuer.add("one")
    with (
        running_model("--script", str(folder / "script.json")) as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="1",
            TOOLS__STORE__CATALOGUE=str(FOLDER / "db.json"),
            TOOLS__STORE__AS_REFERENCE="true",
            **identity(folder, issuer),
        ) as server,
    ):
        yield Pair(server, model, issuer, folder)


def _approve(shop: Pair, customer: httpx2.Client, streamed: list[dict[str, Any]]) -> None:
    """The customer and the shop's staff agree to what a turn waits for."""
    waits = streamed[-1]["waits"]
    with shop.client(token=shop.issuer.token("sam", roles=["staff"])) as staff:
        for each in streamed:
            if each["type"] == "approval.requested" and each["id"] in waits:
                by = staff if each.get("role") else customer
                path = f"/v1/turns/{each['turn']}/approvals/{each['id']}"
                by.post(path, json={"decision": "approve"}).raise_for_status()


def test_all_74_tasks(shop: Pair, tasks: list[Task]) -> None:
    database = shop.database.with_name("store.db")
    pristine = database.with_name("pristine.db")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(pristine)) as copy:
        source.backup(copy)
    before = documents(pristine)
    assert len(tasks) == 74
    refused = 0
    for task in tasks:
        subject = task.customer or "guest"
        with shop.client(subject) as client:
            answer = client.post(
                "/v1/turns", json={"text": task.text, "agent": "concierge", "stream": True}
            )
            streamed = events(answer.text)
            while streamed[-1]["type"] == "turn.paused":
                _approve(shop, client, streamed)
                streamed = events(client.get(f"/v1/turns/{streamed[0]['turn']}/events").text)
        assert streamed[-1]["type"] == "turn.completed", (task.id, streamed[-1])
        outcomes = [
            (each["name"], not each["failed"])
            for each in streamed
            if each["type"] == "tool.returned"
        ]
        assert outcomes == [(name, succeeds) for name, _, succeeds in task.actions], task.id
        refused += sum(not succeeds for _, succeeds in outcomes)
        check_changes(task, before, documents(database))
        with (
            closing(sqlite3.connect(pristine)) as source,
            closing(sqlite3.connect(database)) as target,
        ):
            source.backup(target)
    assert refused > 0
    with closing(sqlite3.connect(shop.database)) as sessions:
        assert sessions.execute("SELECT count(*) FROM turns").fetchone() == (74,)
    assert httpx2.get(f"{shop.url}/livez").status_code == 200
