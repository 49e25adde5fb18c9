"""Hand-over to a person through the turns API, with a webhook receiver that fails first."""

import asyncio
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2

from seawall.transport.webhook import decode_secret, sign
from tests.hosts.test_effects_api import CALLERS, Caller, keys_of_callers
from tests.pipeline.test_handover import SECRET, Receiver
from tests.servers import ServerProcess, running


def _environment(folder: Path, url: str) -> dict[str, str]:
    return {
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
        "SEAWALL_HANDOVER__URL": url,
        "SEAWALL_HANDOVER__NOTICE": "Please wait.",
        "DESK_SECRET": SECRET,
    }


async def test_a_hand_over_survives_its_server_and_is_answered_once(tmp_path: Path) -> None:
    receiver = Receiver(500)
    async with receiver.open() as url:
        environment = _environment(tmp_path, url)
        with _serving(environment, tmp_path / "first") as server:
            async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
                paused = await Caller(client, "ann").post("/v1/turns", {"text": "A person!"})
                assert paused.status_code == 202, paused.text
                await receiver.until(1)
        with _serving(environment, tmp_path / "second") as server:
            async with asyncio.timeout(30):
                await receiver.until(2)
            async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
                await _hand_back(client, receiver)
                chat = {"model": "only", "messages": [{"role": "user", "content": "A person!"}]}
                said = await Caller(client, "bob").post("/v1/chat/completions", chat)
                message = said.json()["choices"][0]["message"]
                assert message["content"] == "A person has this conversation now."
    for name in ("first", "second"):
        assert SECRET not in (tmp_path / name / "log").read_text()


def _serving(environment: dict[str, str], folder: Path) -> AbstractContextManager[ServerProcess]:
    folder.mkdir()
    source = "tests.hosts.handover_app:app"
    return running("serve", source, "--json", environment=environment, log=folder / "log")


async def _hand_back(client: httpx2.AsyncClient, receiver: Receiver) -> None:
    callers = {name: Caller(client, name) for name in CALLERS}
    (first, _), (headers, body) = receiver.received
    assert headers["webhook-id"] == first["webhook-id"]
    stamp = int(headers["webhook-timestamp"])
    signed = sign(decode_secret(SECRET), headers["webhook-id"], stamp, body)
    assert headers["webhook-signature"] == signed
    notice = json.loads(body)
    assert notice["tenant"] == "acme"
    path = f"/v1/sessions/{notice['session']}/messages"
    answer = {"turn": notice["turn"], "return": True, "text": "Meg has called."}
    for name, status in (("eve", 404), ("bob", 404), ("ann", 403), ("ann-as-manager", 403)):
        refused = await callers[name].post(path, answer)
        assert refused.status_code == status, (name, refused.text)
    for wrong in ({"return": False, "note": "x"}, {"return": False, "text": " "}, {"text": "\0"}):
        invalid = await callers["meg"].post(path, answer | wrong)
        assert invalid.status_code == 422, invalid.text
    await _talk(receiver, callers, notice)
    both = await asyncio.gather(*(callers[each].post(path, answer) for each in ("meg", "max")))
    taken_status, late_status = sorted(each.status_code for each in both)
    assert taken_status == 200, [each.text for each in both]
    assert late_status in (404, 409)  # 404 if the turn has gone on by then
    (taken,) = (each.json() for each in both if each.status_code == 200)
    happened = await callers["ann"].events(taken)
    assert happened[-1]["type"] == "turn.completed"
    read = json.loads(next(each["text"] for each in happened if "text" in each)[len("Read: ") :])
    assert read["result"] == "Meg has called."
    assert [each["text"] for each in read["conversation"]] == [
        "Hello, I am Meg.",
        "It is broken.",
        "Please wait.",
        "Still broken.",
        "Please wait.",
    ]


async def _talk(receiver: Receiver, callers: dict[str, Caller], notice: Any) -> None:
    """A message of the person, and two of the user: one in OpenAI's format."""
    session, turn = notice["session"], notice["turn"]
    said = {"turn": turn, "text": "Hello, I am Meg."}
    path = f"/v1/sessions/{session}/messages"
    both = [await callers["meg"].post(path, said, idempotency_key="m1") for _ in range(2)]
    assert [each.status_code for each in both] == [200, 200], both[0].text
    assert both[0].json() == both[1].json()
    assert both[0].json()["message"]["number"] == 2
    refused = await callers["ann"].post(path, said)
    assert refused.status_code == 403, refused.text
    silent = await callers["ann"].post("/v1/turns", {"text": "It is broken.", "session": session})
    assert silent.status_code == 200, silent.text
    body = silent.json()
    assert (body["text"], body["finish_reason"]) == ("Please wait.", "person")
    assert (body["version"], body["usage"]["model_calls"]) == (3, 0)
    received = next(each for each in await receiver.until(3) if each["type"] == "message.received")
    assert (received["turn"], received["message"]["text"]) == (turn, "It is broken.")
    chat = await callers["ann"].post(
        "/v1/chat/completions",
        {"model": "auto", "messages": [{"role": "user", "content": "Still broken."}]},
        seawall_session=session,
    )
    assert chat.status_code == 200, chat.text
    (choice,) = chat.json()["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "Please wait."},
        "finish_reason": "stop",
    }
    assert chat.json()["seawall"]["status"] == "person"
    shown = (await callers["ann"].get(f"/v1/sessions/{session}")).json()["turns"]
    assert [each.get("during") for each in shown] == [notice["wait"]] * 3 + [None]
    assert shown[2]["messages"] == [{"role": "assistant", "text": "Hello, I am Meg.", "by": "meg"}]
    assert [each["text"] for each in shown[1]["messages"]] == ["It is broken.", "Please wait."]
    assert shown[3]["status"] == "paused"
