"""What is remembered of a caller, over HTTP and by the operator's command, on both stores."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from seawall.cli.main import main
from tests.dynamodb_local import ENVIRONMENT
from tests.servers import ServerProcess, running

CALLERS = {
    "ann": ("acme", "ann"),
    "bob": ("acme", "bob"),
    "eve": ("evil", "ann"),
    "nobody": ("local", "anonymous"),
}
KEYS = [
    {"sha256": hashlib.sha256(f"sw_{name}".encode()).hexdigest(), "tenant": tenant, "subject": who}
    for name, (tenant, who) in CALLERS.items()
]


def keys_of_callers() -> str:
    tables = (
        ", ".join(f"{key} = {json.dumps(text)}" for key, text in each.items()) for each in KEYS
    )
    return "[" + ", ".join(f"{{{each}}}" for each in tables) + "]"


@pytest.fixture(scope="module", params=["sqlite", "dynamodb"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("memory")
    if request.param == "sqlite":
        store = {"SEAWALL_SESSIONS__PATH": str(folder / "sessions.db")}
    else:
        store = ENVIRONMENT | {
            "SEAWALL_SESSIONS__STORE": "dynamodb",
            "SEAWALL_SESSIONS__TABLE": f"sessions-{os.urandom(6).hex()}",
            "SEAWALL_SESSIONS__ENDPOINT": request.getfixturevalue("dynamodb"),
            "SEAWALL_SESSIONS__CREATE_TABLE": "true",
        }
    environment = store | {
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
        "SEAWALL_IDENTITY__ANONYMOUS": "true",
    }
    source = "tests.hosts.memory_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        server.store = store  # type: ignore[attr-defined]
        (folder / "seawall.toml").write_text("")
        server.folder = folder  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def ann(server: ServerProcess) -> Iterator[httpx2.Client]:
    with caller(server, "ann") as client:
        client.delete("/v1/memory")
        yield client


def caller(server: ServerProcess, name: str) -> httpx2.Client:
    headers = {"authorization": f"Bearer sw_{name}"} if name else {}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=20)


def say(client: httpx2.Client, text: str) -> dict[str, Any]:
    answer = client.post("/v1/turns", json={"text": text})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def facts_of(client: httpx2.Client) -> dict[str, Any]:
    answer = client.get("/v1/memory")
    assert answer.status_code == 200, answer.text
    return {each["key"]: each for each in answer.json()["facts"]}


def test_a_subject_sees_corrects_and_deletes_its_facts(ann: httpx2.Client) -> None:
    assert ann.get("/v1/memory").json() == {"facts": []}
    turn = say(ann, "remember color red")
    say(ann, "remember size 42")
    facts = facts_of(ann)
    color = facts["color"]
    assert {name: color[name] for name in ("text", "said", "by", "version", "agent")} == {
        "text": "red",
        "said": True,
        "by": "agent",
        "version": 1,
        "agent": "only",
    }
    assert (color["session"], color["turn"]) == (turn["session"], turn["turn"])
    assert color["expires_at"] > color["created_at"] + 300 * 86_400
    path = f"/v1/memory/{color['id']}"
    assert ann.get(path).json() == color
    corrected = ann.patch(path, json={"text": " teal "})
    assert corrected.status_code == 200, corrected.text
    fixed = corrected.json()
    assert (fixed["id"], fixed["text"], fixed["by"], fixed["version"]) == (
        color["id"],
        "teal",
        "subject",
        2,
    )
    assert ann.delete(path).status_code == 204
    assert ann.delete(path).status_code == 404
    assert ann.get(path).status_code == 404
    assert ann.patch(path, json={"text": "x"}).status_code == 404
    assert set(facts_of(ann)) == {"size"}
    assert ann.delete("/v1/memory").status_code == 204
    assert facts_of(ann) == {}
    assert ann.delete("/v1/memory").status_code == 204


def test_nobody_else_sees_or_changes_them(server: ServerProcess, ann: httpx2.Client) -> None:
    say(ann, "remember color red")
    fact = facts_of(ann)["color"]
    for name in ("bob", "eve"):
        with caller(server, name) as other:
            assert facts_of(other) == {}
            path = f"/v1/memory/{fact['id']}"
            assert other.get(path).status_code == 404
            assert other.patch(path, json={"text": "mine"}).status_code == 404
            assert other.delete(path).status_code == 404
            assert other.delete("/v1/memory").status_code == 204
    assert facts_of(ann)["color"] == fact


@pytest.mark.parametrize("name", ["", "nobody"])
def test_callers_without_a_credential_have_none(server: ServerProcess, name: str) -> None:
    """Nor has one whose key names the same subject."""
    with caller(server, name) as anybody:
        say(anybody, "remember color red")
        for method, path in [
            ("GET", "/v1/memory"),
            ("DELETE", "/v1/memory"),
            ("GET", "/v1/memory/x"),
            ("DELETE", "/v1/memory/x"),
            ("PATCH", "/v1/memory/x"),
        ]:
            answer = anybody.request(method, path, json={"text": "x"})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


BAD = [
    (b"", 400, ""),
    (b"{", 400, ""),
    (b"[]", 422, ""),
    (b"{}", 422, "text"),
    (b'{"text": 1}', 422, "text"),
    (b'{"text": ""}', 422, "text"),
    (b'{"text": " \\n "}', 422, "text"),
    (b'{"text": "a\\u0000"}', 422, "text"),
    (b'{"text": "\\ud800"}', 422, "text"),
    (b'{"text": "x", "key": "other"}', 422, "key"),
    (json.dumps({"text": "x" * 51}).encode(), 422, "text"),
    (b'{"text": "' + b"x" * 3_000_000 + b'"}', 413, ""),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD, ids=lambda each: str(each)[:20])
def test_bad_input_changes_nothing(
    ann: httpx2.Client, body: bytes, status: int, field: str
) -> None:
    say(ann, "remember color red")
    fact = facts_of(ann)["color"]
    answer = ann.patch(f"/v1/memory/{fact['id']}", content=body)
    assert answer.status_code == status, answer.text
    assert answer.json().get("field", "") == field
    assert facts_of(ann)["color"] == fact


def test_paths_and_methods(ann: httpx2.Client) -> None:
    for path in ("/v1/memory/", "/v1/memory/a/b", "/v1/memoryx", "/v1/memory/" + "x" * 3_000):
        assert ann.get(path).status_code == 404, path
    answer = ann.post("/v1/memory", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, DELETE, HEAD, OPTIONS")
    answer = ann.put("/v1/memory/x", json={})
    assert answer.headers["allow"] == "GET, PATCH, DELETE, HEAD, OPTIONS"
    assert ann.get("/v1/memory", headers={"authorization": "Bearer sw_x"}).status_code == 401


Operator = Callable[..., str]


@pytest.fixture
def operator(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    """Runs a command on the server's store; what it prints, errors if it fails."""
    for name, value in server.store.items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(server.folder)  # type: ignore[attr-defined]

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        ended = main(list(words))
        printed = capsys.readouterr()
        assert ended == status, printed.err
        return printed.out if status == 0 else printed.err

    return run


def test_an_operator_lists_shows_deletes_and_erases(operator: Operator, ann: httpx2.Client) -> None:
    for text in ("remember color red\x1b[2J", "remember size 42", "remember pet a dog"):
        say(ann, text)
    of_ann = ["--tenant", "acme", "--subject", "ann"]
    color = facts_of(ann)["color"]
    listed = operator("memory", "list", *of_ann)
    assert color["id"] in listed
    assert "\\x1b[2J" in listed
    assert "\x1b" not in listed
    shown = json.loads(operator("memory", "list", *of_ann, "--json"))
    assert {each["key"]: each for each in shown["facts"]} == facts_of(ann)
    subjects = json.loads(operator("memory", "list", "--tenant", "acme", "--json"))
    assert subjects == {
        "subjects": [{"tenant": "acme", "subject": "ann", "facts": 3}],
        "cursor": None,
    }
    assert "ann" in operator("memory", "list")
    assert "anybody" in operator("memory", "list", "--tenant", "other")
    assert "the user said so" in operator("memory", "show", color["id"], *of_ann)
    assert json.loads(operator("memory", "show", color["id"], *of_ann, "--json")) == color
    assert "no such fact" in operator("memory", "show", "fact_x", *of_ann, status=1)
    assert "no such fact" in operator(
        "memory", "delete", color["id"], "--tenant", "acme", "--subject", "bob", "--yes", status=1
    )
    operator("memory", "delete", color["id"], *of_ann, status=2)  # without a terminal
    assert set(facts_of(ann)) == {"color", "size", "pet"}
    deleted = json.loads(operator("memory", "delete", color["id"], *of_ann, "--yes", "--json"))
    assert deleted == {"deleted": color["id"]}
    erased = json.loads(operator("memory", "erase", *of_ann, "--yes", "--json", "--by", "meg"))
    assert erased == {"erased": 2}
    assert facts_of(ann) == {}
    assert operator("memory", "list", *of_ann) == "Nothing is remembered.\n"


def test_who_changed_what_is_on_record_without_the_text(
    operator: Operator, ann: httpx2.Client
) -> None:
    say(ann, "remember color secretly-red")
    fact = facts_of(ann)["color"]
    ann.patch(f"/v1/memory/{fact['id']}", json={"text": "secretly-blue"})
    ann.delete(f"/v1/memory/{fact['id']}")
    say(ann, "remember color secretly-red")
    of_ann = ["--tenant", "acme", "--subject", "ann"]
    operator("memory", "erase", *of_ann, "--yes", "--by", "meg")
    exported = operator("effects", "export", "--tenant", "acme")
    assert "secretly" not in exported
    records = [json.loads(each) for each in exported.splitlines()]
    of_people = [each for each in records if each["kind"] == "memory"][-3:]
    assert [(each["status"], each["decision"]["by"]) for each in of_people] == [
        ("corrected", "ann"),
        ("deleted", "ann"),
        ("erased", "meg"),
    ]
    assert [each["effect"] for each in of_people] == [fact["id"], fact["id"], ""]
    assert any(each["tool"] == "remember" and each["turn"] == fact["turn"] for each in records)
    operator("effects", "verify")
