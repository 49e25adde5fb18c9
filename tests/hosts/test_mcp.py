"""Agents as tools of other agents: `/mcp`, by the protocol's own client and by raw requests."""

import asyncio
import base64
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.auth.utils import (
    build_protected_resource_metadata_discovery_urls,
    extract_resource_metadata_from_www_auth,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import ProtectedResourceMetadata

from tests.hosts.conftest import events
from tests.hosts.test_effects_api import Caller, keys_of_callers
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.servers import ServerProcess, running

STATELESS = "2026-07-28"
HANDSHAKES = ["2025-11-25", "2025-06-18", "2025-03-26"]
ERAS = ["auto", "legacy"]  # of the official client: the stateless version, the latest handshake
TOOLS = ["orders", "reader", "slow", "desk"]
SECRET = "whsec_" + base64.b64encode(b"x" * 32).decode()
PAGE = "https://page.example"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ABLE: dict[str, Any] = {CAPABILITIES: {"elicitation": {}}}
ABLE_BY_PAGE: dict[str, Any] = {CAPABILITIES: {"elicitation": {"url": {}}}}
_ids = itertools.count(1)


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    environment = {
        "SESSIONS__PATH": str(folder / "sessions.db"),
        "SESSIONS__ORPHAN_SCAN_SECONDS": "0.2",
        "SERVER__PORT": "0",
        "SERVER__WORKERS": "1",
        "IDENTITY__API_KEYS": keys_of_callers(),
        **settings,
    }
    prefixed = {f"SEAWALL_{name}": value for name, value in environment.items()}
    with running(
        "serve",
        "tests.hosts.mcp_app:app",
        "--json",
        environment=prefixed | {"DESK_SECRET": SECRET},
        log=folder / "log",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {
        "SERVER__CORS": f'{{origins = ["{PAGE}"]}}',
        "ADMISSION__LAG_SECONDS": "0",  # no call is refused, however slow the machine is
        "ADMISSION__WAIT_SECONDS": "60",
        "ADMISSION__OVERLOAD_WAIT_SECONDS": "60",
    }
    with serving(tmp_path_factory.mktemp("mcp"), **settings) as server:
        yield server


class Peer:
    """A client of the raw protocol; without a handshake, of the stateless version."""

    def __init__(
        self, client: httpx2.AsyncClient, name: str = "ann", version: str = STATELESS
    ) -> None:
        self._client = client
        self.version = version
        self.headers = {
            "authorization": f"Bearer sw_{name}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": version,
        }

    def message(self, method: str, params: dict[str, Any], **meta: Any) -> dict[str, Any]:
        if self.version == STATELESS:
            meta = {
                "io.modelcontextprotocol/protocolVersion": STATELESS,
                CAPABILITIES: {},
            } | meta
        if meta:
            params = params | {"_meta": meta}
        return {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": params}

    async def post(self, body: object, **headers: str) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | self.headers | sent
        return await self._client.post("/mcp", content=content, headers=sent)

    async def send(self, message: dict[str, Any]) -> httpx2.Response:
        mirrored = {"mcp_method": message["method"]}
        if "name" in message["params"]:
            mirrored["mcp_name"] = message["params"]["name"]
        return await self.post(message, **(mirrored if self.version == STATELESS else {}))

    async def ask(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> Any:
        """The result of a request."""
        answer = await self.send(self.message(method, params or {}, **meta))
        assert answer.status_code == 200, answer.text
        response = answer.json()
        assert "result" in response, response
        return response["result"]

    async def call(self, tool: str, message: str, **arguments: Any) -> Any:
        return await self.ask(
            "tools/call", {"name": tool, "arguments": {"message": message, **arguments}}
        )

    async def seen(self, what: str) -> int:
        answer = await self.call("reader", f"seen {what}")
        return int(answer["structuredContent"]["answer"])


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[httpx2.AsyncClient]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        yield client


@pytest.fixture
def ann(client: httpx2.AsyncClient) -> Peer:
    return Peer(client)


@asynccontextmanager
async def stock_client(url: str, name: str = "ann", **options: Any) -> AsyncIterator[Client]:
    """The official client."""
    headers = {"authorization": f"Bearer sw_{name}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http_client,
        Client(streamable_http_client(f"{url}/mcp", http_client=http_client), **options) as client,
    ):
        yield client


def text_of(result: types.CallToolResult) -> str:
    first = result.content[0]
    assert isinstance(first, types.TextContent)
    return first.text


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - it becomes true in another process
            await asyncio.sleep(0.02)


# What the official client sees.


@pytest.mark.parametrize("mode", ERAS)
async def test_agents_are_tools(server: ServerProcess, mode: str) -> None:
    async with stock_client(server.url, mode=mode) as client:
        assert client.protocol_version == (STATELESS if mode == "auto" else HANDSHAKES[0])
        listed = (await client.list_tools()).tools
    by_name = {each.name: each for each in listed}
    assert [each for each in by_name if not each.startswith("test_")] == TOOLS
    assert by_name["reader"].description == "Answers questions; changes nothing."
    hints = {name: by_name[name].annotations for name in ("orders", "reader", "desk")}
    shown = {name: each.read_only_hint for name, each in hints.items() if each is not None}
    assert shown == {"orders": False, "reader": True, "desk": False}
    assert by_name["reader"].input_schema["required"] == ["message"]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_call_is_a_turn_and_continues_a_session(server: ServerProcess, mode: str) -> None:
    async with stock_client(server.url, mode=mode) as client:
        first = await client.call_tool("reader", {"message": "one"})
        session = first.structured_content["session"]
        second = await client.call_tool("reader", {"message": "two", "session": session})
    assert (text_of(first), text_of(second)) == ("one", "one; two")
    content = second.structured_content
    assert content["status"] == "completed"
    assert content["usage"]["model_calls"] == 1
    assert content["agent"] == "reader"
    async with httpx2.AsyncClient(base_url=server.url, timeout=20) as http:
        shown = (await Caller(http, "ann").get(f"/v1/sessions/{session}")).json()
    assert shown["turns"][0]["id"] == content["turn"]
    assert session in str(first.content[1])  # for models that are shown the text only


@pytest.mark.parametrize("mode", ERAS)
async def test_progress_is_reported_to_those_who_ask(server: ServerProcess, mode: str) -> None:
    reports: list[tuple[float, str | None]] = []

    async def take(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        reports.append((progress, message))

    script = json.dumps([[["done", {"order": "none"}]], "There was nothing to do."])
    async with stock_client(server.url, mode=mode) as client:
        result = await client.call_tool("orders", {"message": script}, progress_callback=take)
    assert text_of(result) == "There was nothing to do."
    counts = [count for count, _ in reports]
    assert counts == sorted(set(counts))
    said = [message for _, message in reports]
    assert said[:2] == ["orders answers", "orders uses done"]
    assert "has written" in str(said[-1])


@pytest.mark.parametrize("mode", ERAS)
async def test_a_failed_turn_is_a_failed_result(server: ServerProcess, mode: str) -> None:
    script = json.dumps(["FAIL", mode])
    async with stock_client(server.url, mode=mode) as client:
        await client.list_tools()  # so that results are validated by the schema
        failed = await client.call_tool("orders", {"message": script})
        lost = await client.call_tool("reader", {"message": "on", "session": "ses_unknown"})
        empty = await client.call_tool("reader", {"message": " "})
        odd = await client.call_tool("reader", {"message": "x", "colour": "red"})
    assert failed.is_error
    assert text_of(failed).startswith("upstream-failed: ")
    problems = [each.structured_content["problem"]["code"] for each in (failed, lost, empty, odd)]
    assert problems == ["upstream-failed", "session-not-found", "invalid-field", "invalid-field"]
    assert "colour" in text_of(odd)
    assert "session" not in failed.structured_content  # there is none to go on with


async def test_what_is_no_tool_is_refused(server: ServerProcess) -> None:
    async with stock_client(server.url) as client:
        for name in ("hidden", "unknown", ""):
            with pytest.raises(Exception, match="There is no tool"):
                await client.call_tool(name, {"message": "hello"})
        with pytest.raises(Exception, match="There is no method"):
            await client.list_prompts()


async def test_a_key_makes_a_repeated_call_the_same(ann: Peer) -> None:
    script = json.dumps([[["refund", {"order": "key-1", "amount": 5}]], "refunded"])
    calls = (ann.call("orders", script, idempotency_key="call-1") for _ in range(3))
    first, *others = [each["structuredContent"] for each in await asyncio.gather(*calls)]
    assert all(each["turn"] == first["turn"] for each in others)
    counted = await ann.call("orders", json.dumps([[["done", {"order": "key-1"}]], "read"]))
    async_session = counted["structuredContent"]["session"]
    shown = await ann._client.get(f"/v1/sessions/{async_session}", headers=ann.headers)
    (result,) = (e for e in shown.json()["turns"][0]["messages"] if e["role"] == "tool")
    assert result["content"] == "1"
    other = await ann.call("orders", "other", idempotency_key="call-1")
    assert other["structuredContent"]["problem"]["code"] == "idempotency-key-reused"
    wrong = await ann.call("reader", "x", idempotency_key="ö")
    assert wrong["structuredContent"]["problem"]["field"] == "idempotency_key"


# Whose turn it is.


async def test_sessions_belong_to_their_subject_and_tenant(client: httpx2.AsyncClient) -> None:
    own = (await Peer(client).call("reader", "mine"))["structuredContent"]["session"]
    for name in ("bob", "eve"):  # another subject; the same subject of another tenant
        stolen = await Peer(client, name).call("reader", "yours", session=own)
        assert stolen["structuredContent"]["problem"]["code"] == "session-not-found"
        assert "mine" not in json.dumps(stolen)
    assert (await Peer(client).call("reader", "on", session=own))["content"][0][
        "text"
    ] == "mine; on"


async def test_every_request_needs_a_credential(client: httpx2.AsyncClient, ann: Peer) -> None:
    for method in ("server/discover", "tools/list", "tools/call", "unknown"):
        for header in ("", "Bearer sw_nobody"):
            answer = await ann.post(ann.message(method, {"name": "x"}), authorization=header)
            assert answer.status_code == 401, (method, header)
            assert answer.headers["www-authenticate"] == "Bearer"
    metadata = await client.get("/.well-known/oauth-protected-resource/mcp")
    assert metadata.status_code == 404  # there is no issuer


async def test_an_issuer_is_found_by_clients(tmp_path: Path, issuer: Issuer) -> None:
    (tmp_path / "jwks.json").write_bytes(issuer.key_set())
    address = "https://agents.example.com/team/mcp"
    jwt = {
        "IDENTITY__JWT__ISSUER": ISSUER,
        "IDENTITY__JWT__AUDIENCE": AUDIENCE,
        "IDENTITY__JWT__JWKS_FILE": str(tmp_path / "jwks.json"),
        "MCP__URL": address,
    }
    with serving(tmp_path, **jwt) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            ann = Peer(client)
            asked = ann.message("tools/list", {})
            token = issuer.token("ada")
            answer = await ann.post(asked, authorization=f"Bearer {token}", mcp_method="tools/list")
            assert answer.status_code == 200, answer.text
            ann.headers.pop("authorization")
            refused = await ann.post(asked)
            assert refused.status_code == 401
            known = extract_resource_metadata_from_www_auth(refused)
            assert (
                known == "https://agents.example.com/.well-known/oauth-protected-resource/team/mcp"
            )
            for url in build_protected_resource_metadata_discovery_urls(None, address):
                found = await client.get(urlsplit(url).path)
                metadata = ProtectedResourceMetadata.model_validate_json(found.content)
                assert str(metadata.resource) == address
                assert [str(each) for each in metadata.authorization_servers] == [ISSUER]
            for wrong in (issuer.token("ada", aud="another"), issuer.token("ada", exp=1)):
                answer = await ann.post(asked, authorization=f"Bearer {wrong}")
                assert answer.status_code == 401
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]


# What waits for a decision.


def elicitation(answer: types.ElicitResult, asked: list[str]) -> Any:
    async def ask(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return answer

    return ask


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (types.ElicitResult(action="accept", content={"decision": "approve"}), "1"),
        (types.ElicitResult(action="accept", content={"decision": "reject", "note": "No"}), "0"),
        (types.ElicitResult(action="decline"), "0"),
    ],
)
async def test_the_user_decides_in_the_client(
    server: ServerProcess, answer: types.ElicitResult, count: str
) -> None:
    order = f"asked-{answer.action}-{(answer.content or {}).get('decision')}"
    steps = [[["refund", {"order": order, "amount": 30, "card": "4111"}]], "all done"]
    asked: list[str] = []
    async with stock_client(server.url, elicitation_callback=elicitation(answer, asked)) as client:
        result = await client.call_tool("orders", {"message": json.dumps(steps)})
    assert (result.structured_content["status"], text_of(result)) == ("completed", "all done")
    (message,) = asked
    assert "refund" in message
    assert order in message
    assert "4111" not in message  # is redacted
    async with httpx2.AsyncClient(base_url=server.url, timeout=20) as http:
        assert await Caller(http, "ann").count(order) == int(count)


async def test_a_dismissed_form_is_shown_again_and_the_turn_waits(ann: Peer) -> None:
    script = json.dumps([[["refund", {"order": "dismissed", "amount": 30}]], "all done"])
    params: dict[str, Any] = {"name": "orders", "arguments": {"message": script}}
    first = await ann.ask("tools/call", params, **ABLE)
    assert first["resultType"] == "input_required"
    (call,) = first["inputRequests"]
    params["requestState"] = first["requestState"]
    ignored: list[Any] = [{}, {call: {"action": "cancel"}}, {call: 3}, {"other": {}}, None]
    for responses in ignored:
        params["inputResponses"] = responses
        again = await ann.ask("tools/call", params, **ABLE)
        assert again["inputRequests"] == first["inputRequests"], responses
    assert (await ann.ask("tools/call", params, **ABLE_BY_PAGE))["resultType"] == "complete"
    params["inputResponses"] = {call: {"action": "accept", "content": {"decision": "approve"}}}
    twice = await asyncio.gather(*(ann.ask("tools/call", params, **ABLE) for _ in range(2)))
    assert {each["structuredContent"]["status"] for each in twice} == {"completed"}


async def test_the_state_of_a_paused_call_is_of_use_to_its_owner_only(
    client: httpx2.AsyncClient, ann: Peer
) -> None:
    script = json.dumps([[["refund", {"order": "stolen", "amount": 30}]], "all done"])
    params: dict[str, Any] = {"name": "orders", "arguments": {"message": script}}
    first = await ann.ask("tools/call", params, **ABLE)
    (call,) = first["inputRequests"]
    state = first["requestState"]
    yes = {call: {"action": "accept", "content": {"decision": "approve"}}}
    for peer, sent in (
        (Peer(client, "bob"), state),
        (Peer(client, "eve"), state),
        (ann, state + "x"),
        (ann, 5),
        (ann, "trn_"),
    ):
        tried = params | {"requestState": sent, "inputResponses": yes}
        answer = await peer.send(peer.message("tools/call", tried, **ABLE))
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == -32602
    assert await Caller(client, "ann").count("stolen") == 0


@pytest.mark.parametrize("mode", ERAS)
async def test_what_others_decide_is_said(server: ServerProcess, mode: str) -> None:
    asked: list[str] = []
    answer = types.ElicitResult(action="accept", content={"decision": "approve"})
    script = json.dumps([[["grant", {"order": f"others-{mode}"}]], "all done"])
    async with stock_client(
        server.url, mode=mode, elicitation_callback=elicitation(answer, asked)
    ) as client:
        paused = await client.call_tool("orders", {"message": script})
        desk = await client.call_tool("desk", {"message": "A person!"})
    assert asked == []  # the client's user may not decide this
    assert not paused.is_error
    assert text_of(paused) == "This waits for approval of grant by the role manager."
    assert text_of(desk) == "This waits for a person, who has been notified."
    (wait,) = paused.structured_content["waits"]
    async with httpx2.AsyncClient(base_url=server.url, timeout=20) as http:
        decided = await Caller(http, "meg").post(wait["decide"], {"decision": "approve"})
        assert decided.status_code == 200, decided.text
        happened = await Caller(http, "ann").events(decided.json())
    assert happened[-1]["type"] == "turn.completed"


async def test_a_client_of_a_handshake_is_told_what_its_user_decides(ann: Peer) -> None:
    old = Peer(ann._client, version=HANDSHAKES[0])
    script = json.dumps([[["refund", {"order": "old", "amount": 30}]], "all done"])
    paused = await old.call("orders", script)
    assert paused["structuredContent"]["status"] == "paused"
    assert paused["content"][0]["text"] == "This waits for approval of refund by the user."


# Cancellation.


@pytest.mark.parametrize("mode", ERAS)
async def test_a_cancelled_call_stops_its_turn(server: ServerProcess, ann: Peer, mode: str) -> None:
    before = await ann.seen("slow cancelled")
    started = asyncio.Event()

    async def take(progress: float, total: float | None, message: str | None) -> None:
        del progress, total, message
        started.set()

    async with stock_client(server.url, mode=mode) as client:
        call = asyncio.create_task(
            client.call_tool("slow", {"message": "go"}, progress_callback=take)
        )
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        async def cancelled() -> bool:
            return await ann.seen("slow cancelled") > before

        await until(cancelled)
        assert text_of(await client.call_tool("reader", {"message": "on"})) == "on"


async def test_a_client_that_disconnects_cancels_its_call(ann: Peer) -> None:
    begun, ended = await ann.seen("slow begun"), await ann.seen("slow cancelled")
    call = asyncio.create_task(ann.call("slow", "go"))

    async def grown(what: str, count: int) -> bool:
        return await ann.seen(what) > count

    await until(lambda: grown("slow begun", begun))
    call.cancel()
    await until(lambda: grown("slow cancelled", ended))


async def test_calls_are_cancelled_by_their_own_client_only(client: httpx2.AsyncClient) -> None:
    old, other = Peer(client, version=HANDSHAKES[0]), Peer(client, "bob", version=HANDSHAKES[0])
    start = await old.send(old.message("initialize", {"protocolVersion": HANDSHAKES[0]}))
    session = {"mcp_session_id": start.headers["mcp-session-id"]}
    asked = old.message("tools/call", {"name": "slow", "arguments": {"message": "go"}})
    begun, ended = await old.seen("slow begun"), await old.seen("slow cancelled")
    call = asyncio.create_task(old.post(asked, **session))

    async def is_begun() -> bool:
        return await old.seen("slow begun") > begun

    await until(is_begun)
    notice = {"jsonrpc": "2.0", "method": "notifications/cancelled"}

    def cancelling(request: object) -> dict[str, Any]:
        return notice | {"params": {"requestId": request}}

    for peer, request, headers in (
        (other, asked["id"], session),
        (old, asked["id"], {"mcp_session_id": "0" * 32}),
        (old, asked["id"], {}),
        (old, str(asked["id"]), session),
        (old, {}, session),
    ):
        answer = await peer.post(cancelling(request), **headers)
        assert (answer.status_code, answer.content) == (202, b"")
    assert await old.seen("slow cancelled") == ended
    assert not call.done()
    assert (await old.post(cancelling(asked["id"]), **session)).status_code == 202
    answer = await call
    assert answer.json()["error"]["code"] == -32800
    assert await old.seen("slow cancelled") == ended + 1


async def test_another_client_with_the_same_ids_changes_nothing(client: httpx2.AsyncClient) -> None:
    """Neither its call nor its end keeps the first from being cancelled."""
    old, other = Peer(client, version=HANDSHAKES[0]), Peer(client, "bob", version=HANDSHAKES[0])
    session = {"mcp_session_id": "the same"}
    asked = old.message("tools/call", {"name": "slow", "arguments": {"message": "go"}})
    cancelling = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": asked["id"]},
    }
    calls = []
    for peer in (old, other):
        begun = await old.seen("slow begun")
        calls.append(asyncio.create_task(peer.post(asked, **session)))

        async def is_begun(before: int = begun) -> bool:
            return await old.seen("slow begun") > before

        await until(is_begun)
    for peer, call in zip((old, other), calls, strict=True):
        await peer.post(cancelling, **session)
        assert (await call).json()["error"]["code"] == -32800


async def test_an_effect_in_progress_ends_before_the_call_is_cancelled(
    client: httpx2.AsyncClient, ann: Peer
) -> None:
    script = json.dumps([[["slowly", {"order": "cut", "seconds": 0.5}]], "done"])
    call = asyncio.create_task(ann.call("orders", script))
    await asyncio.sleep(0.25)
    call.cancel()

    async def is_done() -> bool:
        return await Caller(client, "ann").count("cut") == 1

    await until(is_done)


# Versions and envelopes.


@pytest.mark.parametrize("asked", [*HANDSHAKES, "2024-11-05", STATELESS, "1"])
async def test_a_version_is_negotiated(client: httpx2.AsyncClient, asked: str) -> None:
    peer = Peer(client)
    peer.headers.pop("mcp-protocol-version")
    start = {"jsonrpc": "2.0", "id": "a", "method": "initialize"}
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t"}}
    answer = await peer.post(start | {"params": params})
    version = answer.json()["result"]["protocolVersion"]
    assert version == (asked if asked in HANDSHAKES else HANDSHAKES[0])
    assert len(answer.headers["mcp-session-id"]) == 32
    headers = {"mcp_protocol_version": version}
    said = await peer.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **headers)
    assert (said.status_code, said.content) == (202, b"")
    ping = await peer.post({"jsonrpc": "2.0", "id": 2, "method": "ping"}, **headers)
    assert ping.json() == {"jsonrpc": "2.0", "id": 2, "result": {}}
    missing = await peer.post(start | {"params": {}})
    assert missing.json()["error"]["code"] == -32602
    no_prompts = await peer.post({"jsonrpc": "2.0", "id": 3, "method": "prompts/list"}, **headers)
    assert (no_prompts.status_code, no_prompts.json()["error"]["code"]) == (200, -32601)


async def test_what_the_stateless_version_demands(ann: Peer) -> None:
    discovered = await ann.ask("server/discover")
    assert discovered["supportedVersions"] == [STATELESS, *HANDSHAKES]
    assert discovered["resultType"] == "complete"
    assert discovered["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "seawall"
    for method in ("initialize", "ping", "subscriptions/listen", "prompts/list", "x" * 10_000):
        answer = await ann.send(ann.message(method, {}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
        assert len(answer.content) < 500
        assert "mcp-session-id" not in answer.headers
    paged = await ann.send(ann.message("tools/list", {"cursor": "2"}))
    assert (paged.status_code, paged.json()["error"]["code"]) == (400, -32602)
    notice = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
    assert (await ann.post(notice)).status_code == 202
    assert (await ann.post(notice, mcp_protocol_version="2030-01-01")).status_code == 400


async def test_headers_must_repeat_the_body(ann: Peer) -> None:
    named = ann.message("tools/call", {"name": "reader", "arguments": {"message": "hi"}})
    right = {"mcp_method": "tools/call", "mcp_name": "reader"}
    for headers, code in [
        (right, None),
        (right | {"mcp_name": "=?base64?cmVhZGVy?="}, None),
        (right | {"mcp_name": "=?base64?cmVhZGVy"}, -32020),
        (right | {"mcp_name": "=?base64?!!?="}, -32020),
        (right | {"mcp_name": "=?base64?gICA?="}, -32020),
        (right | {"mcp_name": "orders"}, -32020),
        (right | {"mcp_method": "tools/list"}, -32020),
        ({"mcp_method": "tools/call"}, -32020),
        ({"mcp_name": "reader"}, -32020),
        (right | {"mcp_protocol_version": HANDSHAKES[0]}, -32020),
    ]:
        answer = await ann.post(named, **headers)
        assert answer.status_code == (400 if code else 200), headers
        assert answer.json().get("error", {}).get("code") == code, headers
    meta = "io.modelcontextprotocol/protocolVersion"
    newer = ann.message("tools/list", {}, **{meta: "2030-01-01"})
    answer = await ann.post(newer, mcp_method="tools/list", mcp_protocol_version="2030-01-01")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32022)
    assert answer.json()["error"]["data"]["supported"][0] == STATELESS


MALFORMED: list[tuple[bytes, int]] = [
    (b"", -32700),
    (b"{", -32700),
    (b"\xff\xfe", -32700),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "\\ud800"}', -32700),
    (b'{"a":' * 5_000, -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 5_000 + b"1", -32700),
    (b"[" * 100_000 + b"]" * 100_000, -32700),
    (b"[]", -32600),
    (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
    (b"null", -32600),
    (b'"ping"', -32600),
    (b"{}", -32600),
    (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": 1}}', -32602),
]


@pytest.mark.parametrize("version", [STATELESS, HANDSHAKES[0]])
async def test_malformed_messages_are_refused(client: httpx2.AsyncClient, version: str) -> None:
    peer = Peer(client, version=version)
    for body, code in MALFORMED:
        answer = await peer.post(body)
        assert answer.status_code == 400, body[:80]
        assert answer.json()["error"]["code"] == code, body[:80]
        assert answer.headers["content-type"] == "application/json"
        assert len(answer.content) < 1_000
    assert (await peer.call("reader", "still there"))["isError"] is False


@pytest.mark.parametrize("arguments", [None, [], "x", 5, {"message": 1}, {"message": ["a"]}])
async def test_arguments_of_another_kind_are_a_failed_result(ann: Peer, arguments: object) -> None:
    result = await ann.ask("tools/call", {"name": "reader", "arguments": arguments})
    assert result["isError"] is True
    assert result["structuredContent"]["problem"]["code"] == "invalid-field"


@pytest.mark.parametrize("name", [None, [], {}, 5, True])
async def test_names_of_another_kind_are_refused(ann: Peer, name: object) -> None:
    old = Peer(ann._client, version=HANDSHAKES[0])
    answer = await old.post(old.message("tools/call", {"name": name, "arguments": {}}))
    assert answer.json()["error"]["code"] == -32602


async def test_a_response_is_taken_from_clients_of_a_handshake_only(ann: Peer) -> None:
    response = {"jsonrpc": "2.0", "id": 1, "result": {}}
    old = Peer(ann._client, version=HANDSHAKES[0])
    assert (await old.post(response)).status_code == 202
    assert (await ann.post(response)).status_code == 400


# HTTP.


async def test_pages_of_other_origins_are_refused(
    server: ServerProcess, client: httpx2.AsyncClient
) -> None:
    peer = Peer(client)
    host = urlsplit(server.url).netloc
    port = urlsplit(server.url).port
    for origin, sent_host, status in [
        ("https://evil.example", host, 403),
        (f"http://evil.example:{port}", f"evil.example:{port}", 403),  # DNS rebinding
        ("null", host, 403),
        ("", host, 403),
        (f"http://{host}", host, 200),
        (f"http://localhost:{port}", f"localhost:{port}", 200),
        (f"http://localhost:{int(port or 0) + 1}", f"localhost:{port}", 403),
        (PAGE, "agents.example.com", 200),
    ]:
        message = peer.message("tools/list", {})
        answer = await peer.post(message, origin=origin, host=sent_host, mcp_method="tools/list")
        assert answer.status_code == status, (origin, sent_host)
        if status == 403:
            assert "result" not in answer.text
    allowed = await client.options(
        "/mcp",
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "mcp-protocol-version",
        },
    )
    assert "mcp-protocol-version" in allowed.headers["access-control-allow-headers"]


async def test_other_methods_and_contents_are_refused(client: httpx2.AsyncClient) -> None:
    peer = Peer(client)
    for method in ("GET", "DELETE", "PUT"):
        answer = await client.request(method, "/mcp", headers=peer.headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    message = peer.message("tools/list", {})
    for headers, status in [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": ""}, 415),
        ({"content_type": "application/json; charset=utf-8"}, 200),
        ({"accept": "text/event-stream"}, 406),
        ({"accept": "text/html, image/*"}, 406),
        ({"accept": "*/*"}, 200),
        ({"accept": "Application/JSON;q=0.5"}, 200),
    ]:
        answer = await peer.post(message, mcp_method="tools/list", **headers)
        assert answer.status_code == status, headers
    big = peer.message("tools/list", {"x": "a" * 300_000})
    assert (await peer.post(big)).status_code == 413


async def test_progress_needs_a_client_that_reads_streams(ann: Peer) -> None:
    asked = ann.message(
        "tools/call", {"name": "reader", "arguments": {"message": "hi"}}, progressToken="p"
    )
    named = {"mcp_method": "tools/call", "mcp_name": "reader"}
    streamed = await ann.post(asked, **named)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *reports, last = events(streamed.text)
    assert {each["method"] for each in reports} == {"notifications/progress"}
    assert (last["id"], "result" in last) == (asked["id"], True)
    plain = await ann.post(asked, **named, accept="application/json")
    assert plain.headers["content-type"] == "application/json"


async def test_a_full_server_and_a_stalled_body(tmp_path: Path) -> None:
    full = {"ADMISSION__IN_FLIGHT": "1", "ADMISSION__QUEUED": "0", "SERVER__BODY_SECONDS": "0.5"}
    with serving(tmp_path, **full) as server:
        _stall(server)
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            peer = Peer(client)
            message = peer.message(
                "tools/call", {"name": "slow", "arguments": {"message": "go"}}, progressToken=1
            )
            headers = {"content-type": "application/json", **peer.headers}
            headers |= {"mcp-method": "tools/call", "mcp-name": "slow"}
            async with client.stream("POST", "/mcp", json=message, headers=headers) as running_:
                assert running_.status_code == 200
                refused = await peer.send(message | {"id": 2})
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert "overloaded" in refused.text


def _stall(server: ServerProcess) -> None:
    address = urlsplit(server.url)
    head = (
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sw_ann\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4_096).startswith(b"HTTP/1.1 408 ")


async def test_a_thousand_calls_at_once(server: ServerProcess) -> None:
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(_call_alone(server, n) for n in range(1_000)))
    assert [each["answer"] for each in answers] == [f"call {n}" for n in range(1_000)]
    assert len({each["session"] for each in answers}) == 1_000


async def _call_alone(server: ServerProcess, number: int) -> dict[str, Any]:
    """A call on a connection of its own."""
    address = urlsplit(server.url)
    arguments = {"message": f"call {number}"}
    call = {"method": "tools/call", "params": {"name": "reader", "arguments": arguments}}
    body = json.dumps({"jsonrpc": "2.0", "id": number, **call})
    head = (
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sw_ann\r\n"
        "content-type: application/json\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"{head}{body}".encode())
    answered = await reader.read()
    writer.close()
    await writer.wait_closed()
    response = json.loads(answered.partition(b"\r\n\r\n")[2])
    assert "result" in response, response
    content: dict[str, Any] = response["result"]["structuredContent"]
    return content


async def test_without_configuration_there_is_nothing(tmp_path: Path) -> None:
    environment = {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_SERVER__PORT": "0",
        "SEAWALL_SERVER__WORKERS": "1",
        "SEAWALL_IDENTITY__API_KEYS": keys_of_callers(),
    }
    source = "tests.hosts.effects_app:app"
    with running("serve", source, "--json", environment=environment) as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            peer = Peer(client)
            assert (await peer.send(peer.message("tools/list", {}))).status_code == 404
            metadata = await client.get("/.well-known/oauth-protected-resource")
            assert metadata.status_code == 404
