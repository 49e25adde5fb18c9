"""A client sees that its turn waits for the model's quota, in every protocol."""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest

from tests.hosts.conftest import API_KEY
from tests.servers import running, running_model

# Three calls reserve the whole quota; they return nearly all of it two seconds later.
CONFIG = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "simulated"
quota = "account"
[quotas.account]
tokens_per_minute = 3300
reserve = "input+max_tokens"
[agents.shop]
description = "Answers."
instructions = "Help."
[agents.shop.limits]
call_tokens = 1000
[mcp]
agents = ["shop"]
[server]
workers = 1
"""
AUTH = {"authorization": f"Bearer {API_KEY}"}


class Busy(NamedTuple):
    """The URLs of a server and of its model."""

    url: str
    model: str


@contextmanager
def serving(folder: Path, model: str) -> Iterator[str]:
    """The URL of a server with the configuration in a folder."""
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    environment = {
        "SEAWALL_MODELS__DEFAULT__BASE_URL": model,
        "SEAWALL_SESSIONS__PATH": str(folder / "sessions.db"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_IDENTITY__API_KEYS": (
            f'[{{sha256 = "{digest}", tenant = "acme", subject = "shop"}}]'
        ),
    }
    source = str(folder / "seawall.toml")
    with running("serve", source, "--json", environment=environment) as server:
        yield server.url


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    folder = tmp_path_factory.mktemp("busy")
    (folder / "seawall.toml").write_text(CONFIG)
    limits = ("--tokens-per-minute", "3300", "--reserve", "input+max_tokens")
    times = ("--first-token", "0.1", "--duration", "2", "--chunks", "20")
    with running_model(*times, *limits) as model, serving(folder, model.url) as url:
        yield Busy(url, model.url.removesuffix("/v1"))


async def turn(client: httpx2.AsyncClient, **more: Any) -> list[dict[str, Any]]:
    """The events of a streamed turn, with their ids as `position`."""
    answer = await client.post("/v1/turns", json={"text": "hello", "stream": True} | more)
    assert answer.status_code == 200, answer.text
    return read(answer.text)


def read(text: str) -> list[dict[str, Any]]:
    frames = [
        re.fullmatch(r"event: (\S+)\nid: (\d+)\ndata: (.*)", each) for each in frames_of(text)
    ]
    return [
        msgspec.json.decode(each[3]) | {"position_of_event": int(each[2])}
        for each in frames
        if each is not None
    ]


def frames_of(text: str) -> list[str]:
    return [each for each in text.split("\n\n") if each]


def client_of(pair: Busy) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=pair.url, headers=AUTH, timeout=30)


async def test_streams_of_turns_have_the_event_in_order(busy: Busy) -> None:
    async with client_of(busy) as client:
        turns = await asyncio.gather(*(turn(client) for _ in range(6)))
        refused = (await client.get(busy.model + "/sim/stats")).json()
    assert refused["refused"] == 0
    queued = [[each for each in events if each["type"] == "turn.queued"] for events in turns]
    assert sum(map(bool, queued)) >= 2
    for events in turns:
        kinds = [each["type"] for each in events]
        assert kinds[-1] == "turn.completed"
        positions = [each["position_of_event"] for each in events]
        assert positions == sorted(positions)
        for each in events:
            if each["type"] == "turn.queued":
                assert set(each) - {"type", "position_of_event"} == {
                    *("turn", "waits_for", "position", "seconds")
                }
                assert each["turn"] == events[-1]["turn"]
                assert (each["waits_for"], each["position"] >= 1) == ("quota", True)
        if "turn.queued" in kinds:
            assert kinds.index("agent.selected") < kinds.index("turn.queued")
            assert kinds.index("turn.queued") < kinds.index("text.delta")


async def test_a_background_turn_and_a_json_answer(busy: Busy) -> None:
    async with client_of(busy) as client:
        filling = [asyncio.create_task(turn(client)) for _ in range(3)]
        await asyncio.sleep(0.3)
        accepted = await client.post("/v1/turns", json={"text": "hello", "background": True})
        assert accepted.status_code == 202
        whole, events = await asyncio.gather(
            client.post("/v1/turns", json={"text": "hello"}),
            client.get(accepted.json()["events"]),
        )
        await asyncio.gather(*filling)
        assert (whole.status_code, whole.json()["finish_reason"]) == (200, "stop")
        found = read(events.text)
        assert "turn.queued" in [each["type"] for each in found]
        completed = found[-1]
        assert completed["type"] == "turn.completed"
        again = read((await client.get(accepted.json()["events"])).text)
    assert [each["type"] for each in again if each["type"] == "turn.queued"] == []
    assert again[-1]["position_of_event"] == completed["position_of_event"]


async def test_stock_openai_clients_read_the_stream_as_ever(busy: Busy) -> None:
    import openai  # noqa: PLC0415 - slow to import

    asked: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    async with (
        client_of(busy) as client,
        openai.AsyncOpenAI(base_url=f"{busy.url}/v1", api_key=API_KEY, max_retries=0) as stock,
    ):
        filling = [asyncio.create_task(turn(client)) for _ in range(3)]
        await asyncio.sleep(0.3)

        async def by_stock() -> list[Any]:
            stream = await stock.chat.completions.create(**asked)
            return [chunk async for chunk in stream]

        chunks, raw = await asyncio.gather(
            by_stock(), client.post("/v1/chat/completions", json=asked)
        )
        await asyncio.gather(*filling)
    assert chunks[-1].choices[0].finish_reason == "stop"
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert len(text.split()) == 20
    comments = [each for each in frames_of(raw.text) if each.startswith(": turn.queued ")]
    assert comments
    shown = msgspec.json.decode(comments[0].removeprefix(": turn.queued "))
    assert (shown["waits_for"], shown["position"] >= 1) == ("quota", True)
    assert frames_of(raw.text)[-1] == "data: [DONE]"


async def test_mcp_reports_it_as_progress(busy: Busy) -> None:
    async with client_of(busy) as client:
        filling = [asyncio.create_task(turn(client)) for _ in range(3)]
        await asyncio.sleep(0.3)
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "shop",
                "arguments": {"message": "hello"},
                "_meta": {"progressToken": "p"},
            },
        }
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
        }
        answer = await client.post("/mcp", json=call, headers=headers)
        await asyncio.gather(*filling)
    frames = [each.partition("data: ")[2] for each in frames_of(answer.text)]
    *reports, last = map(msgspec.json.decode, frames)
    messages = [each["params"]["message"] for each in reports]
    assert any(
        re.fullmatch(r"waits at position \d+, for about [\d.]+ s", each) for each in messages
    )
    assert last["result"]["structuredContent"]["status"] == "completed"


async def test_metrics_count_what_waits(busy: Busy) -> None:
    async with client_of(busy) as client:
        filling = [asyncio.create_task(turn(client)) for _ in range(5)]
        await asyncio.sleep(1.2)
        text = (await client.get("/metrics")).text
        await asyncio.gather(*filling)
    assert 'seawall_quota_waiting{quota="account"} 2.0' in text
    assert 'seawall_quota_throttled_total{quota="account"} 0.0' in text


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """One turn at a time."""
    folder = tmp_path_factory.mktemp("crowded")
    quota = CONFIG.partition("[quotas.account]")[0].replace('quota = "account"', "")
    rest = CONFIG.partition("[agents.shop]")[2]
    slots = "[admission]\nin_flight = 1\nmin_in_flight = 1\nwait_seconds = 60.0\n"
    slots += "overload_wait_seconds = 60.0\n"
    (folder / "seawall.toml").write_text(f"{quota}{slots}[agents.shop]{rest}")
    with (
        running_model("--first-token", "0.1", "--duration", "1.2", "--chunks", "20") as model,
        serving(folder, model.url) as url,
    ):
        yield Busy(url, model.url.removesuffix("/v1"))


async def test_waiting_for_a_slot_comes_before_the_start_in_every_stream(crowded: Busy) -> None:
    import openai  # noqa: PLC0415 - slow to import

    asked: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    async with (
        client_of(crowded) as client,
        openai.AsyncOpenAI(base_url=f"{crowded.url}/v1", api_key=API_KEY, max_retries=0) as stock,
    ):

        async def by_stock() -> int:
            stream = await stock.chat.completions.create(**asked)
            chunks = [chunk async for chunk in stream]
            return sum(bool(each.choices and each.choices[0].delta.content) for each in chunks)

        async def behind_all() -> httpx2.Response:
            await asyncio.sleep(0.3)  # so that it has to wait
            asked = {"model": "auto", "input": "hello", "stream": True}
            return await client.post("/v1/responses", json=asked)

        filling = asyncio.create_task(turn(client))
        await asyncio.sleep(0.3)
        keyed_headers = {"idempotency-key": "k"}
        found: list[Any] = await asyncio.gather(
            turn(client),
            *(client.post("/v1/chat/completions", json=asked) for _ in range(2)),
            by_stock(),
            client.post("/v1/chat/completions", json=asked, headers=keyed_headers),
            client.post("/v1/turns", json={"text": "hello"}),
            behind_all(),
        )
        await filling
    events, *chats, pieces, keyed, whole, response = found
    if events[0]["type"] == "turn.queued":  # unless it was the first to wait, for under a second
        assert (events[0]["waits_for"], events[0]["position_of_event"]) == ("slot", 0)
    started = next(each for each in events if each["type"] == "turn.started")
    assert started["turn"] == events[0]["turn"] == events[-1]["turn"]
    assert started["position_of_event"] == 1
    assert pieces >= 1
    assert any(frames_of(each.text)[0].startswith(": turn.queued ") for each in chats)
    for chat in chats:
        assert chat.headers["seawall-session"].startswith("ses_")
        assert frames_of(chat.text)[-1] == "data: [DONE]"
    assert ": turn.queued" not in keyed.text.partition("data: ")[0]
    assert keyed.headers["seawall-session"].startswith("ses_")
    assert whole.status_code == 200
    begun = [each.split("\n")[0] for each in frames_of(response.text)]
    assert begun[:2] == ["event: response.created", "event: response.queued"]
    assert begun[2].startswith(": turn.queued ")
    assert "event: response.in_progress" in begun
    assert begun[-2:] == ["event: response.completed", "data: [DONE]"]


async def test_a_turn_that_waits_in_vain_fails_in_its_stream(tmp_path: Path) -> None:
    (tmp_path / "seawall.toml").write_text(
        CONFIG.replace('quota = "account"\n', "").replace(
            '[quotas.account]\ntokens_per_minute = 3300\nreserve = "input+max_tokens"\n',
            "[admission]\nin_flight = 1\nmin_in_flight = 1\nwait_seconds = 1.3\n",
        )
    )
    with (
        running_model("--first-token", "0.1", "--duration", "4", "--chunks", "4") as model,
        serving(tmp_path, model.url) as url,
    ):
        async with httpx2.AsyncClient(base_url=url, headers=AUTH, timeout=30) as client:
            filling = asyncio.create_task(turn(client))
            await asyncio.sleep(0.3)
            events = await turn(client)
            plain = await client.post("/v1/turns", json={"text": "hello"})
            await filling
    assert [each["type"] for each in events] == ["turn.queued", "turn.failed"]
    assert events[1]["problem"]["code"] == "overloaded"
    assert events[1]["problem"]["retry_after"] >= 1
    assert events[1]["turn"] == events[0]["turn"]
    assert plain.status_code == 503
