import json
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import pytest

from tests.hosts.conftest import API_KEY, Pair, events
from tests.servers import ROOT


def test_a_streamed_turn_until_it_is_durable(pair: Pair) -> None:
    with pair.client() as client:
        answer = client.post("/v1/turns", json={"text": "Where is my order?", "stream": True})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        streamed = events(answer.text)
        kinds = [str(each["type"]) for each in streamed]
        assert kinds[:3] == ["turn.started", "intent.detected", "agent.selected"]
        assert kinds[-2:] == ["usage", "turn.completed"]
        assert set(kinds[3:-2]) == {"text.delta"}
        assert streamed[1]["intent"] == "order_status"
        assert streamed[2]["agent"] == "orders"
        timings = streamed[-1]["timings"]
        assert isinstance(timings, dict)
        stages = {"admission", "authenticate", "intent", "opening", "model", "commit"}
        assert stages <= set(timings)
        shown = client.get(f"/v1/sessions/{streamed[0]['session']}").json()
    assert shown["version"] == 1
    said = "".join(str(each["text"]) for each in streamed if each["type"] == "text.delta")
    assert shown["turns"][0]["messages"][-1]["text"] == said
    with closing(sqlite3.connect(pair.database)) as database:
        found = database.execute(
            "SELECT tenant, subject FROM turns WHERE session = ?", (streamed[0]["session"],)
        ).fetchall()
    assert found == [("acme", "ada")]


def test_the_same_as_one_json_object_with_server_timing(pair: Pair) -> None:
    with pair.client() as client:
        answer = client.post("/v1/turns", json={"text": "How do I get my money back?"})
    body = answer.json()
    assert body["version"] == 1
    assert body["text"].startswith("[")
    assert body["usage"]["completion_tokens"] == 40
    timing = answer.headers["server-timing"]
    assert re.search(r"\bmodel;dur=\d", timing)
    assert re.search(r"\bcommit;dur=\d", timing)


def test_a_conversation_with_tools(pair: Pair) -> None:
    """The demo's conversation, turn by turn, in one session."""
    said = json.loads((ROOT / "examples/store/conversation.json").read_text())["user"]
    session = None
    tools: list[list[tuple[str, bool]]] = []
    with pair.client("visitor") as client:
        for number, text in enumerate(said):
            answer = client.post("/v1/turns", json={"text": text, "session": session}).json()
            assert answer["version"] == number + 1
            session = answer["session"]
            for each in answer.get("approvals", []):
                client.post(each["decide"], json={"decision": "approve"}).raise_for_status()
                streamed = events(client.get(answer["events"]).text)
                assert streamed[-1]["type"] == "turn.completed"
                answer["tool_calls"] = [
                    each for each in streamed if each["type"] == "tool.returned"
                ]
            tools.append([(each["name"], each["failed"]) for each in answer["tool_calls"]])
    assert tools == [
        [("find_user_id_by_email", False), ("get_order_details", False)],
        [("cancel_pending_order", False)],
        [("cancel_pending_order", True)],
    ]


def unnamed(answer: httpx2.Response) -> dict[str, object]:
    """A problem without the id of its request."""
    problem: dict[str, object] = answer.json()
    assert problem.pop("request_id") == answer.headers["x-request-id"]
    return problem


def test_sessions_are_listed_shown_and_deleted_for_their_owner_only(pair: Pair) -> None:
    with pair.client("lister") as client, pair.client("stranger") as outsider:
        sessions = [
            client.post("/v1/turns", json={"text": f"hello {number}"}).json()["session"]
            for number in range(3)
        ]
        page = client.get("/v1/sessions", params={"limit": 2}).json()
        rest = client.get("/v1/sessions", params={"cursor": page["cursor"]}).json()
        listed = [each["session"] for each in page["sessions"] + rest["sessions"]]
        assert listed == sessions[::-1]
        assert rest["cursor"] is None
        assert outsider.get("/v1/sessions").json()["sessions"] == []
        one = sessions[0]
        absent = outsider.get("/v1/sessions/never-was")
        for answer in (
            outsider.get(f"/v1/sessions/{one}"),
            outsider.delete(f"/v1/sessions/{one}"),
            outsider.post("/v1/turns", json={"text": "hi", "session": one}),
        ):
            assert answer.status_code == 404
            assert unnamed(answer) == unnamed(absent)
        assert client.delete(f"/v1/sessions/{one}").status_code == 204
        assert client.get(f"/v1/sessions/{one}").status_code == 404
        gone = client.post("/v1/turns", json={"text": "hi", "session": one})
        assert gone.status_code == 404


def test_an_idempotency_key_gives_the_same_answer_and_asks_no_model(pair: Pair) -> None:
    with pair.client("keyed") as client:
        keyed = {"idempotency-key": "order-7"}
        first = client.post("/v1/turns", json={"text": "hello"}, headers=keyed).json()
        asked = pair.model_stats()["started"]
        again = client.post("/v1/turns", json={"text": "hello"}, headers=keyed).json()
        assert (again["turn"], again["text"]) == (first["turn"], first["text"])
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert pair.model_stats()["started"] == asked
        other = client.post("/v1/turns", json={"text": "something else"}, headers=keyed)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    with pair.client("another") as client:
        theirs = client.post("/v1/turns", json={"text": "something else"}, headers=keyed)
        assert theirs.json()["replayed"] is False


def test_concurrent_turns_of_one_session_run_one_after_another(pair: Pair) -> None:
    with pair.client("racer") as client:
        session = client.post("/v1/turns", json={"text": "hello"}).json()["session"]
        with ThreadPoolExecutor(8) as threads:
            answers = list(
                threads.map(
                    lambda number: client.post(
                        "/v1/turns", json={"text": f"race {number}", "session": session}
                    ),
                    range(8),
                )
            )
        assert [each.status_code for each in answers] == [200] * 8
        assert sorted(each.json()["version"] for each in answers) == list(range(2, 10))
        shown = client.get(f"/v1/sessions/{session}").json()
        assert shown["version"] == 9 == len(shown["turns"])


def test_an_api_key_and_an_agent_by_name(pair: Pair) -> None:
    answer = httpx2.post(
        f"{pair.url}/v1/turns",
        json={"text": "hello", "agent": "returns"},
        headers={"x-api-key": API_KEY},
        timeout=20,
    )
    assert answer.json()["agent"] == "returns"


def test_health_metrics_and_description(pair: Pair) -> None:
    assert httpx2.get(f"{pair.url}/livez").json() == {"status": "alive"}
    assert httpx2.get(f"{pair.url}/readyz").json() == {"status": "ready"}
    described = httpx2.get(f"{pair.url}/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert {"/v1/turns", "/v1/sessions", "/v1/chat/completions"} <= set(described["paths"])
    for path in described["paths"]:  # everything described is there
        answer = httpx2.request("TRACE", f"{pair.url}{path.replace('{session}', 'x')}")
        assert answer.status_code == 405, path


def test_metrics_are_summed_over_the_workers(pair: Pair) -> None:
    def completed() -> float:
        text = httpx2.get(f"{pair.url}/metrics").text
        found = re.findall(
            r"^seawall_turns_total\{[^}]*completed[^}]*\} (\S+)$", text, re.MULTILINE
        )
        return sum(float(each) for each in found)

    before = completed()
    for number in range(12):  # each on a connection of its own, so that both workers get some
        with pair.client("counted") as client:
            assert client.post("/v1/turns", json={"text": f"hi {number}"}).status_code == 200
    assert {completed() for _ in range(6)} == {before + 12}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/v1/turns", 405), ("GET", "/v1/sessions/a/b", 404)],
)
def test_unknown_paths_and_objects(pair: Pair, method: str, path: str, status: int) -> None:
    answer = httpx2.request(method, pair.url + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_responses_without_a_body(pair: Pair) -> None:
    """A server that sends head and body together must not wait for a body that never comes."""
    with pair.client() as client:
        for _ in range(2):
            answer = client.head("/livez")
            assert (answer.status_code, answer.content) == (200, b"")
            assert int(answer.headers["content-length"]) > 0
