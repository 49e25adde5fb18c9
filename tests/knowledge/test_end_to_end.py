"""Agents search documents: over HTTP, with what clients are shown of the sources."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from seawall.knowledge.settings import KnowledgeSettings
from tests.knowledge.folders import build, built, settings_of, write
from tests.servers import ServerProcess, command, running

FILES: dict[str, str | bytes] = {
    "returns.md": "# Returns\n\nGoods come back within 30 days.\n\n## Costs\n\nSending is free.",
    "notes/hours.html": "<title>Hours</title><p>The shop is open from nine to five.",
}
COSTS = {
    "title": "Returns",
    "section": "Costs",
    "url": "https://shop.example/help/returns.md#costs",
    "path": "returns.md",
    "media_type": "text/markdown",
}


def environment(folder: Path, settings: KnowledgeSettings, **more: str) -> dict[str, str]:
    values = {
        "KNOWLEDGE__DOCS__FOLDER": settings.folder,
        "KNOWLEDGE__DOCS__INDEX": settings.index,
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "SERVER__PORT": "0",
        "SERVER__WORKERS": "2",
        "IDENTITY__ANONYMOUS": "true",
        **more,
    }
    return {f"SEAWALL_{name}": value for name, value in values.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("knowledge")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    settings = built(folder / "docs", FILES)
    more = environment(folder, settings, KNOWLEDGE__DOCS__BASE_URL="https://shop.example/help")
    app = "tests.knowledge.docs_app:app"
    with running("serve", app, "--json", environment=more, log=folder / "log") as server:
        yield server


def ask(server: ServerProcess, text: str, **body: object) -> dict[str, Any]:
    answer = httpx2.post(f"{server.url}/v1/turns", json={"text": text, **body}, timeout=20)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def data(stream: str) -> list[dict[str, Any]]:
    lines = [each.removeprefix("data: ") for each in stream.splitlines() if each[:6] == "data: "]
    return [json.loads(each) for each in lines if each != "[DONE]"]


def test_an_answer_has_its_sources(server: ServerProcess) -> None:
    answer = ask(server, "What does sending cost?")
    assert answer["text"] == "Sending is free. [Returns]"
    (call,) = answer["tool_calls"]
    assert (call["name"], call["failed"], call["sources"][0]) == ("search_docs", False, COSTS)
    shown = httpx2.get(f"{server.url}/v1/sessions/{answer['session']}", timeout=20).json()
    (result,) = (each for each in shown["turns"][0]["messages"] if each["role"] == "tool")
    assert result["sources"] == call["sources"]


def test_events_have_them_and_so_has_their_replay(server: ServerProcess) -> None:
    key = {"idempotency-key": "events-of-a-search"}
    body = {"text": "What does sending cost?", "stream": True}
    streams = [
        httpx2.post(f"{server.url}/v1/turns", json=body, headers=key, timeout=20).text
        for _ in range(2)
    ]
    for stream in streams:
        (returned,) = (each for each in data(stream) if each["type"] == "tool.returned")
        assert returned["sources"][0] == COSTS
    turn = data(streams[0])[0]["turn"]
    replayed = httpx2.get(f"{server.url}/v1/turns/{turn}/events", timeout=20).text
    assert [each["sources"][0] for each in data(replayed) if "sources" in each] == [COSTS]


def test_user_interfaces_of_the_ai_sdk_get_source_parts(server: ServerProcess) -> None:
    message = {"role": "user", "parts": [{"type": "text", "text": "What does sending cost?"}]}
    body = {"id": "chat-of-sources", "messages": [{"id": "m1", **message}]}
    stream = httpx2.post(f"{server.url}/v1/ui/chat", json=body, timeout=20).text
    parts = [each for each in data(stream) if each["type"].startswith("source-")]
    assert parts[0] == {
        "type": "source-url",
        "sourceId": "c1-1",
        "url": COSTS["url"],
        "title": "Returns > Costs",
    }


def test_ag_ui_gets_them_as_metadata(server: ServerProcess) -> None:
    body = {
        "threadId": "thread-of-sources",
        "runId": "r1",
        "messages": [{"id": "m1", "role": "user", "content": "What does sending cost?"}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
    }
    stream = httpx2.post(f"{server.url}/v1/ag-ui", json=body, timeout=20).text
    (result,) = (each for each in data(stream) if each["type"] == "TOOL_CALL_RESULT")
    assert result["metadata"]["seawall"]["sources"][0] == COSTS


def test_a_question_without_an_answer_and_hostile_ones(server: ServerProcess) -> None:
    assert ask(server, "quantum")["text"] == "I do not know."
    for text in ('"', "NEAR(", "a* OR b:c", "'; DROP TABLE words; --"):
        (call,) = ask(server, text)["tool_calls"]
        assert not call["failed"]


def test_a_new_index_is_used_without_a_restart(server: ServerProcess, folder: Path) -> None:
    write(folder / "docs", {"new.md": "# Parking\n\nThere is a car park."})
    build(settings_of(folder / "docs"))
    assert ask(server, "Is there parking for a car?")["text"] == "There is a car park. [Parking]"


def test_a_server_without_an_index_does_not_start(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    settings = settings_of(docs)
    app = "tests.knowledge.docs_app:app"
    done = command("serve", app, "--json", environment=environment(tmp_path, settings))
    assert done.returncode != 0
    assert f"knowledge.docs: there is no index {settings.index}" in done.stderr
    assert "seawall knowledge build docs" in done.stderr


def test_a_stale_index_is_said_at_the_start(tmp_path: Path) -> None:
    settings = built(tmp_path / "docs", FILES)
    write(tmp_path / "docs", {"new.md": "text"})
    log = tmp_path / "log"
    app = "tests.knowledge.docs_app:app"
    more = environment(tmp_path, settings, SERVER__WORKERS="1")
    with running("serve", app, "--json", environment=more, log=log) as server:
        assert ask(server, "sending")["tool_calls"][0]["sources"]
    assert "new.md changed; build it: seawall knowledge build docs" in log.read_text()
