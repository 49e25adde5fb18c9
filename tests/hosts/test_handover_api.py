"""Hand-over to a person through the turns API, with a webhook receiver that fails first."""

import asyncio
import json
from contextlib import AbstractContextManager
from pathlib import Path

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
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
        "SEAWALL_HANDOVER__URL": url,
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
        assert len(receiver.received) == 1
        with _serving(environment, tmp_path / "second") as server:
            async with asyncio.timeout(30):
                await receiver.again.wait()
            async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
                await _hand_back(client, receiver)
                chat = {"model": "only", "messages": [{"role": "user", "content": "A person!"}]}
                said = await Caller(client, "bob").post("/v1/chat/completions", chat)
                message = said.json()["choices"][0]["message"]
                assert message["content"] == "A person was asked to take over."
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
    invalid = await callers["meg"].post(path, answer | {"return": False})
    assert invalid.status_code == 422, invalid.text
    both = await asyncio.gather(*(callers[each].post(path, answer) for each in ("meg", "max")))
    taken_status, late_status = sorted(each.status_code for each in both)
    assert taken_status == 200, [each.text for each in both]
    assert late_status in (404, 409)  # 404 if the turn has gone on by then
    (taken,) = (each.json() for each in both if each.status_code == 200)
    happened = await callers["ann"].events(taken)
    assert happened[-1]["type"] == "turn.completed"
    assert any("Meg has called." in each.get("text", "") for each in happened)
