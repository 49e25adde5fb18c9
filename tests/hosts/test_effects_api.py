"""Approvals, reconciliation and cancellation through the turns API."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.hosts.conftest import events
from tests.servers import ServerProcess, running

CALLERS: dict[str, dict[str, Any]] = {
    "ann": {"tenant": "acme", "subject": "ann"},
    "ann-as-manager": {"tenant": "acme", "subject": "ann", "roles": ["manager"]},
    "bob": {"tenant": "acme", "subject": "bob"},
    "meg": {"tenant": "acme", "subject": "meg", "roles": ["manager"]},
    "max": {"tenant": "acme", "subject": "max", "roles": ["manager", "other"]},
    "olga": {"tenant": "acme", "subject": "olga", "roles": ["operator"]},
    "eve": {"tenant": "evil", "subject": "ann", "roles": ["manager", "operator"]},
}
_orders = itertools.count()


def keys_of_callers() -> str:
    entries = [
        {"sha256": hashlib.sha256(f"sw_{name}".encode()).hexdigest(), **caller}
        for name, caller in CALLERS.items()
    ]
    tables = (
        ", ".join(f"{key} = {json.dumps(value)}" for key, value in each.items()) for each in entries
    )
    return "[" + ", ".join(f"{{{each}}}" for each in tables) + "]"


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[ServerProcess]:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": str(workers),
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.effects_app:app"
    with running("serve", source, "--json", environment=environment, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("effects"), 1) as server:
        yield server


class Caller:
    def __init__(self, client: httpx2.AsyncClient, name: str) -> None:
        self._client = client
        self._headers = {"authorization": f"Bearer sw_{name}"}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._client.get(path, headers=self._sent(headers))

    def _sent(self, headers: dict[str, str]) -> dict[str, str]:
        return self._headers | {name.replace("_", "-"): value for name, value in headers.items()}

    async def post(self, path: str, body: object = None, **headers: str) -> httpx2.Response:
        return await self._client.post(path, json=body, headers=self._sent(headers))

    async def ask(self, *steps: object, **more: Any) -> httpx2.Response:
        key = more.pop("key", "")
        headers = {"idempotency_key": key} if key else {}
        return await self.post("/v1/turns", {"text": json.dumps(steps), **more}, **headers)

    async def pause(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A turn that pauses for approval of this call."""
        answer = await self.ask([[tool, arguments]], "done")
        assert answer.status_code == 202, answer.text
        paused: dict[str, Any] = answer.json()
        return paused

    async def decide(self, paused: dict[str, Any], **verdict: Any) -> httpx2.Response:
        return await self.post(paused["approvals"][0]["decide"], verdict)

    async def events(self, turn: dict[str, Any]) -> list[dict[str, Any]]:
        """All events of a turn, when it is over or has paused."""
        answer = await self.get(turn["events"])
        assert answer.status_code == 200, answer.text
        return events(answer.text)

    async def count(self, order: str) -> int:
        answer = await self.ask([["done", {"order": order}]], "done")
        shown = (await self.get(f"/v1/sessions/{answer.json()['session']}")).json()
        (result,) = (each for each in shown["turns"][0]["messages"] if each["role"] == "tool")
        return int(result["content"])


@pytest.fixture
async def callers(server: ServerProcess) -> AsyncIterator[dict[str, Caller]]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
        yield {name: Caller(client, name) for name in CALLERS}


@pytest.fixture
def order() -> str:
    return f"order-{next(_orders)}"


async def test_a_customer_approves_and_the_turn_goes_on(
    callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    answer = await ann.ask([["refund", {"order": order, "amount": 50, "card": "4711"}]], "done")
    paused = answer.json()
    assert (answer.status_code, paused["status"], paused["version"]) == (202, "paused", 1)
    assert answer.headers["location"] == paused["events"]
    (approval,) = paused["approvals"]
    assert (approval["tool"], approval["role"]) == ("refund", None)
    assert json.loads(approval["arguments"]) == {
        "order": order, "amount": 50, "card": "[redacted]",
    }  # fmt: skip
    assert await ann.count(order) == 0
    last = (await ann.events(paused))[-1]
    assert (last["type"], last["waits"]) == ("turn.paused", [approval["call"]])

    decided = await ann.decide(paused, decision="approve", note="I asked for it")
    assert decided.status_code == 200, decided.text
    body = decided.json()
    assert (body["turn"], body["call"]) == (paused["turn"], approval["call"])
    assert body["decision"] | {"at": 0} == {
        "verdict": "approve", "by": "ann", "at": 0, "note": "I asked for it",
    }  # fmt: skip
    happened = await ann.events(body)
    assert [each["type"] for each in happened[-5:]] == [
        "turn.resumed", "tool.returned", "text.delta", "usage", "turn.completed",
    ]  # fmt: skip
    assert await ann.count(order) == 1
    again = await ann.decide(paused, decision="approve")
    assert (again.status_code, again.json()["code"]) in (
        (409, "already-decided"),
        (404, "turn-not-found"),
    )
    shown = (await ann.get(f"/v1/sessions/{paused['session']}")).json()["turns"][0]
    assert shown["status"] == "completed"
    (effect,) = shown["effects"]
    assert (effect["status"], effect["request"]["decision"]["by"]) == ("done", "ann")
    assert "[redacted]" in effect["arguments"]
    assert "journal" not in shown


async def test_a_small_amount_needs_no_approval(callers: dict[str, Caller], order: str) -> None:
    answer = await callers["ann"].ask([["refund", {"order": order, "amount": 5}]], "done")
    assert (answer.status_code, answer.json()["text"]) == (200, "done")
    assert await callers["ann"].count(order) == 1


async def test_a_rejected_call_is_not_made(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    assert (await ann.decide(paused, decision="reject", note="too much")).status_code == 200
    happened = await ann.events(paused)
    (returned,) = (each for each in happened if each["type"] == "tool.returned")
    assert returned["failed"]
    assert "too much" in str(returned["content"])
    assert happened[-1]["type"] == "turn.completed"
    assert await ann.count(order) == 0


async def test_arguments_are_edited(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    for arguments, field in (
        ({"order": order, "amount": "many"}, "arguments.amount"),
        ({"order": order}, "arguments.amount"),
    ):
        refused = await ann.decide(paused, decision="edit", arguments=arguments)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-field")
        assert refused.json()["field"] == field
    for verdict in (
        {"decision": "edit"},
        {"decision": "approve", "arguments": {}},
        {"decision": "maybe"},
        {"decision": "approve", "note": "x" * 3_000},
        {"decision": "approve", "more": 1},
        {},
    ):
        assert (await ann.decide(paused, **verdict)).status_code == 422, verdict
    new = {"order": order, "amount": 20, "card": "4712"}
    edited = await ann.decide(paused, decision="edit", arguments=new)
    assert edited.status_code == 200, edited.text
    (returned,) = (each for each in await ann.events(paused) if each["type"] == "tool.returned")
    assert "refunded 20 to 4712" in str(returned["content"])
    shown = (await ann.get(f"/v1/sessions/{paused['session']}")).json()["turns"][0]
    assert "4712" not in json.dumps(shown["effects"])
    assert json.loads(shown["effects"][0]["arguments"])["amount"] == 20


async def test_only_who_may_decides(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    for name in ("bob", "meg", "olga", "eve"):
        for path in (paused["approvals"][0]["decide"], f"/v1/turns/{paused['turn']}/cancel"):
            body = {"decision": "approve"} if "approvals" in path else None
            answer = await callers[name].post(path, body)
            assert (answer.status_code, answer.json()["code"]) == (404, "turn-not-found"), name
        assert (await callers[name].get(paused["events"])).status_code == 404
    unknown = await ann.post(f"/v1/turns/{paused['turn']}/approvals/other", {"decision": "approve"})
    assert unknown.status_code == 404

    paused = await ann.pause("grant", order=order)
    assert paused["approvals"][0]["role"] == "manager"
    for name, status in (
        ("ann", 403), ("ann-as-manager", 403), ("bob", 404), ("olga", 404), ("eve", 404),
    ):  # fmt: skip
        answer = await callers[name].decide(paused, decision="approve")
        assert answer.status_code == status, name
    assert (await callers["meg"].decide(paused, decision="approve")).status_code == 200
    assert (await ann.events(paused))[-1]["type"] == "turn.completed"
    assert await ann.count(order) == 1
    paused = await ann.pause("promote", order=order)
    assert (await callers["ann-as-manager"].decide(paused, decision="approve")).status_code == 200


async def test_of_two_decisions_at_once_one_counts(callers: dict[str, Caller], order: str) -> None:
    for number in range(5):
        paused = await callers["ann"].pause("grant", order=f"{order}-{number}")
        answers = await asyncio.gather(
            callers["meg"].decide(paused, decision="approve"),
            callers["max"].decide(paused, decision="reject"),
        )
        assert sorted(each.status_code for each in answers) == [200, 409]
        (first,) = (each for each in answers if each.status_code == 200)
        approved = first.json()["decision"]["verdict"] == "approve"
        assert (await callers["ann"].events(paused))[-1]["type"] == "turn.completed"
        assert await callers["ann"].count(f"{order}-{number}") == int(approved)


async def test_an_approval_expires(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    paused = await ann.pause("expiring", order=order)
    await asyncio.sleep(1.05)
    late = await ann.decide(paused, decision="approve")
    assert late.status_code in (404, 409), late.text
    happened = await ann.events(paused)
    async with asyncio.timeout(15):
        while happened[-1]["type"] != "turn.completed":
            await asyncio.sleep(0.1)
            happened = await ann.events(paused)
    (returned,) = (each for each in happened if each["type"] == "tool.returned")
    assert returned["failed"]
    assert await ann.count(order) == 0


async def test_what_waits_is_listed_for_who_may_decide(
    callers: dict[str, Caller], order: str
) -> None:
    paused = await callers["ann"].pause("grant", order=order)

    async def listed(name: str) -> list[bool]:
        found, path = [], "/v1/approvals?limit=3"
        while True:
            page = (await callers[name].get(path)).json()
            assert len(page["approvals"]) <= 3
            found += [each for each in page["approvals"] if each["turn"] == paused["turn"]]
            if page["cursor"] is None:
                return [each["may_decide"] for each in found]
            path = f"/v1/approvals?limit=3&cursor={page['cursor']}"

    expected = {
        "ann": [False], "ann-as-manager": [False], "meg": [True], "bob": [], "olga": [], "eve": [],
    }  # fmt: skip
    assert {name: await listed(name) for name in expected} == expected
    assert (await callers["meg"].get("/v1/approvals?limit=0")).status_code == 422
    await callers["meg"].decide(paused, decision="reject")
    assert await listed("meg") == []


async def test_a_retry_of_a_paused_turn_has_the_same_answer(
    callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    steps = [["refund", {"order": order, "amount": 50}]], "done"
    first = await ann.ask(*steps, key=order)
    again = await ann.ask(*steps, key=order)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    await ann.decide(first.json(), decision="approve")
    await ann.events(first.json())
    done = await ann.ask(*steps, key=order)
    assert (done.status_code, done.json()["text"], done.json()["replayed"]) == (200, "done", True)
    assert await ann.count(order) == 1


async def test_a_stream_ends_with_the_pause(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    answer = await ann.ask([["refund", {"order": order, "amount": 50}]], "done", stream=True)
    happened = events(answer.text)
    assert answer.status_code == 200
    assert [each["type"] for each in happened[-2:]] == ["approval.requested", "turn.paused"]
    assert happened[-2]["id"] == "c0-0"
    accepted = await ann.ask([["refund", {"order": order, "amount": 50}]], "done", background=True)
    assert accepted.status_code == 202
    assert (await ann.events(accepted.json()))[-1]["type"] == "turn.paused"


async def test_a_retry_continues_an_interrupted_turn(
    callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    steps = [["refund", {"order": order, "amount": 5}]], "FAIL"
    failed = await ann.ask(*steps, key=order)
    assert (failed.status_code, failed.json()["code"]) == (502, "upstream-failed")
    (effect,) = failed.json()["effects"]
    assert (effect["tool"], effect["status"]) == ("refund", "done")
    turn = effect["id"].rpartition(".")[0]
    happened: list[dict[str, Any]] = events((await ann.get(f"/v1/turns/{turn}/events")).text)
    assert happened[-1]["type"] == "turn.failed"
    assert happened[-1]["problem"]["effects"] == [effect]
    done = await ann.ask(*steps, key=order)
    assert (done.status_code, done.json()["turn"]) == (200, turn)
    happened = events((await ann.get(f"/v1/turns/{turn}/events")).text)
    assert [each["type"] for each in happened].count("turn.resumed") == 1
    assert happened[-1]["type"] == "turn.completed"
    assert await ann.count(order) == 1


async def test_an_unknown_effect_is_reconciled_once(callers: dict[str, Caller], order: str) -> None:
    ann, olga = callers["ann"], callers["olga"]
    steps = [["lose", {"order": order}]], "done"
    failed = await ann.ask(*steps, key=order)
    assert (failed.status_code, failed.json()["code"]) == (409, "effect-unknown")
    (effect,) = failed.json()["effects"]
    path = f"/v1/effects/{effect['id']}"

    async def listed(name: str) -> bool:
        page = (await callers[name].get("/v1/effects?limit=200")).json()
        return effect["id"] in [each["effect"] for each in page["effects"]]

    concerned = {"ann": True, "olga": True, "bob": False, "meg": False, "eve": False}
    for name, concerns in concerned.items():
        assert await listed(name) == concerns, name
        shown = await callers[name].get(path)
        assert shown.status_code == (200 if concerns else 404), name
        if name != "olga":
            refused = await callers[name].post(f"{path}/resolution", {"outcome": "done"})
            assert refused.status_code == (403 if concerns else 404), name
    for body in (
        {"outcome": "perhaps"}, {"outcome": "not-done", "result": "x"}, {},
    ):  # fmt: skip
        assert (await olga.post(f"{path}/resolution", body)).status_code == 422
    resolution = {"outcome": "done", "result": "it was done", "note": "seen in the ledger"}
    resolved = await olga.post(f"{path}/resolution", resolution)
    assert resolved.status_code == 200, resolved.text
    assert resolved.json()["decision"]["by"] == "olga"
    assert (await olga.post(f"{path}/resolution", resolution)).status_code in (404, 409)
    assert not await listed("olga")
    done = await ann.ask(*steps, key=order)
    assert (done.status_code, done.json()["text"]) == (200, "done")
    shown = (await ann.get(f"/v1/sessions/{done.json()['session']}")).json()["turns"][0]
    assert "it was done" in json.dumps(shown["messages"])
    assert await ann.count(order) == 1


async def test_a_cancelled_turn_ends_its_effect_and_is_interrupted(
    callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    kinds: tuple[dict[str, Any], ...] = ({"background": True}, {"key": order, "stream": True})
    for number, more in enumerate(kinds):
        name = f"{order}-{number}"
        asking = asyncio.create_task(
            ann.ask([["slow", {"order": name, "seconds": 0.7}]], "done", **more)
        )
        turn = await _running(callers, ann, name, asking)
        assert (await callers["bob"].post(f"/v1/turns/{turn}/cancel")).status_code == 404
        assert (await ann.post(f"/v1/turns/{turn}/cancel")).status_code == 204
        await asking
        assert await ann.count(name) == 1
        happened: list[dict[str, Any]] = events((await ann.get(f"/v1/turns/{turn}/events")).text)
        assert happened[-1]["type"] == "turn.failed"
        assert happened[-1]["problem"]["code"] == "turn-cancelled"
        (effect,) = happened[-1]["problem"]["effects"]
        assert effect["status"] == "done"
        session = happened[0]["session"]
        shown = (await ann.get(f"/v1/sessions/{session}")).json()["turns"][0]
        assert (shown["id"], shown["status"]) == (turn, "interrupted")
        assert (await ann.post(f"/v1/turns/{turn}/cancel")).status_code == 404
        await asyncio.sleep(0.7)  # a scan for turns to continue does not find it
        shown = (await ann.get(f"/v1/sessions/{session}")).json()["turns"][0]
        assert shown["status"] == "interrupted"


async def _running(
    callers: dict[str, Caller], ann: Caller, order: str, asking: "asyncio.Task[httpx2.Response]"
) -> str:
    """The turn whose effect has begun, as the session shows it."""
    del callers
    async with asyncio.timeout(10):
        while True:
            for session in (await ann.get("/v1/sessions?limit=5")).json()["sessions"]:
                shown = (await ann.get(f"/v1/sessions/{session['session']}")).json()
                for turn in shown["turns"]:
                    if turn["status"] == "open" and order in json.dumps(turn["messages"]):
                        return str(turn["id"])
            assert not (asking.done() and asking.result().status_code >= 400)
            await asyncio.sleep(0.05)


async def test_chat_completions_say_what_they_wait_for(
    callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    text = json.dumps([[["refund", {"order": order, "amount": 50}]], "done"])
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    answer = (await ann.post("/v1/chat/completions", body)).json()
    (choice,) = answer["choices"]
    (approval,) = answer["seawall"]["approvals"]
    assert (choice["finish_reason"], answer["seawall"]["status"]) == ("stop", "paused")
    assert approval["decide"] in choice["message"]["content"]
    streamed = await ann.post("/v1/chat/completions", body | {"stream": True})
    lines = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    (approval,) = chunks[-1]["seawall"]["approvals"]
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert approval["decide"] in said
    decided = await ann.post(approval["decide"], {"decision": "approve"})
    assert decided.status_code == 200
    await ann.events(decided.json())
    assert await ann.count(order) == 1


async def test_effects_and_decisions_are_counted(
    server: ServerProcess, callers: dict[str, Caller], order: str
) -> None:
    async def counted() -> dict[str, float]:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    before = await counted()
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    await ann.decide(paused, decision="approve")
    await ann.events(paused)
    await ann.decide(await ann.pause("refund", order=order, amount=50), decision="reject")
    expected = {
        'seawall_effects_total{decision="approve",status="done",tool="refund"}': 1,
        'seawall_effects_total{decision="reject",status="rejected",tool="refund"}': 1,
        'seawall_turns_total{agent="only",outcome="paused"}': 2,
    }
    async with asyncio.timeout(10):
        while True:
            after = await counted()
            found = {name: after.get(name, 0) - before.get(name, 0) for name in expected}
            if found == expected:
                return
            await asyncio.sleep(1.05)  # a scrape is at most a second old


async def test_bodies_are_bounded_and_callers_authenticated(
    server: ServerProcess, callers: dict[str, Caller], order: str
) -> None:
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    path = paused["approvals"][0]["decide"]
    large = {"decision": "edit", "arguments": {"order": "x" * 300_000, "amount": 1}}
    assert (await ann.post(path, large)).status_code == 413
    assert (await ann.post(path, [1])).status_code == 422
    assert (await ann.get(path)).status_code == 405
    async with httpx2.AsyncClient(base_url=server.url) as client:
        anonymous = Caller(client, "unknown")
        for method, at in (
            ("POST", path), ("POST", f"/v1/turns/{paused['turn']}/cancel"),
            ("GET", "/v1/approvals"), ("GET", "/v1/effects"), ("GET", "/v1/effects/x.1"),
            ("POST", "/v1/effects/x.1/resolution"),
        ):  # fmt: skip
            answer = await (anonymous.get(at) if method == "GET" else anonymous.post(at, {}))
            assert answer.status_code == 401, at


async def test_a_stream_is_resumed_after_the_pause(callers: dict[str, Caller], order: str) -> None:
    ann = callers["ann"]
    paused = await ann.pause("refund", order=order, amount=50)
    stream = (await ann.get(paused["events"])).text
    last = [line[4:] for line in stream.splitlines() if line.startswith("id: ")][-1]
    await ann.decide(paused, decision="approve")
    rest = await ann.get(paused["events"], last_event_id=last)
    kinds = [each["type"] for each in events(rest.text)]
    assert (kinds[0], kinds[-1]) == ("turn.resumed", "turn.completed")


async def test_events_of_a_decided_turn_go_on_in_every_process(tmp_path: Path) -> None:
    with serving(tmp_path, 2) as server:
        for number in range(12):
            async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
                ann = Caller(client, "ann")
                paused = await ann.pause("refund", order=f"o{number}", amount=50)
                assert (await ann.decide(paused, decision="approve")).status_code == 200
            async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
                happened = await Caller(client, "ann").events(paused)
                assert happened[-1]["type"] == "turn.completed", happened
