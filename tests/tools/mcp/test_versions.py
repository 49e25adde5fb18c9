"""Which version is spoken with whom, and what each request then carries."""

import asyncio
from typing import Any

import pytest

from seawall.errors import ConfigError
from seawall.tools.settings import McpSettings, SourceLimits
from seawall.turn import Principal
from tests.tools.mcp.harness import (
    ALICE,
    Asked,
    Reply,
    answer,
    call,
    context,
    events,
    initialized,
    json_reply,
    opened,
    scripted,
    status,
)

TOOL = {"name": "look.up", "inputSchema": {"type": "object"}, "description": "Look."}
DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "resultType": "complete",
    "ttlMs": 0,
    "cacheScope": "public",
}


def modern(request: Asked) -> Reply:
    if request.method == "server/discover":
        return answer(request, DISCOVERED)
    if request.method == "tools/list":
        return answer(request, {"resultType": "complete", "tools": [TOOL]})
    return answer(request, {"resultType": "complete", "content": [{"type": "text", "text": "hi"}]})


def legacy(request: Asked, *, version: str = "2025-11-25", session: str = "") -> Reply:
    match request.method:
        case "initialize":
            return answer(request, initialized(version), session=session)
        case "notifications/initialized" | "DELETE" | "notifications/cancelled":
            return status(202)
        case "tools/list":
            return answer(request, {"tools": [TOOL]})
        case "tools/call":
            return answer(request, {"content": [{"type": "text", "text": "hi"}]})
    return status(400, b"what?")


async def test_a_modern_server_gets_all_of_it_in_each_request() -> None:
    async with scripted(modern) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "look_up", {}, context(key="k7"))
        assert (outcome.content, outcome.failed) == ("hi", False)
    assert [each.method for each in asked] == ["server/discover", "tools/list", "tools/call"]
    for request in asked:
        meta = request.params["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "seawall"
        assert "io.modelcontextprotocol/clientCapabilities" in meta
        assert request.headers["mcp-protocol-version"] == "2026-07-28"
        assert request.headers["mcp-method"] == request.method
        assert "mcp-session-id" not in request.headers
        assert request.headers["accept"] == "application/json, text/event-stream"
    assert asked[-1].headers["mcp-name"] == "look.up"
    assert asked[-1].params["_meta"]["io.github.seawall-project/idempotency-key"] == "k7"


async def test_a_server_that_does_not_speak_its_version_any_more_is_asked_again() -> None:
    replaced = False

    def script(request: Asked) -> Reply:
        if not replaced:
            return modern(request)
        if "mcp-method" not in request.headers:
            return legacy(request)
        data = {"supported": ["2025-11-25"], "requested": "2026-07-28"}
        error = {"code": -32022, "message": "not any more", "data": data}
        return json_reply({"jsonrpc": "2.0", "id": request.body["id"], "error": error}, 400)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        replaced = True
        assert (await call(catalog, "look_up")).content == "hi"


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
async def test_an_older_server_gets_a_handshake_and_its_version_afterwards(version: str) -> None:
    async with (
        scripted(lambda request: legacy(request, version=version)) as (url, asked),
        opened(McpSettings(mcp=url)) as catalog,
    ):
        assert (await call(catalog, "look_up")).content == "hi"
    first, handshake, ready, *others = asked
    assert first.method == "server/discover"
    assert (handshake.method, ready.method) == ("initialize", "notifications/initialized")
    assert handshake.params["protocolVersion"] == "2025-11-25"
    assert "mcp-protocol-version" not in handshake.headers
    for request in others:
        assert request.headers["mcp-protocol-version"] == version
        assert "mcp-method" not in request.headers
        assert "io.modelcontextprotocol/protocolVersion" not in request.params["_meta"]


@pytest.mark.parametrize(
    "refusal",
    [
        status(404),
        status(405),
        status(500, b"oops"),
        json_reply({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no"}}, 400),
        json_reply({"jsonrpc": "2.0", "id": 1, "result": {}}),
        json_reply({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "?"}}),
        json_reply(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "error": {"code": -32022, "message": "?", "data": {"supported": ["2025-06-18"]}},
            },
            400,
        ),
        json_reply(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "result": {**DISCOVERED, "supportedVersions": ["2025-06-18"]},
            }
        ),
        events("data: nonsense\n\n"),
    ],
)
async def test_whatever_is_no_modern_answer_leads_to_the_handshake(refusal: bytes) -> None:
    def script(request: Asked) -> Reply:
        return refusal if request.method == "server/discover" else legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "look_up")).content == "hi"


async def test_no_common_version_is_said() -> None:
    def script(request: Asked) -> Reply:
        error = {"code": -32022, "message": "?", "data": {"supported": ["2031-01-01"]}}
        return json_reply({"jsonrpc": "2.0", "id": request.body["id"], "error": error}, 400)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert catalog.unavailable == {"server"}

    async with (
        scripted(lambda request: legacy(request, version="1999-01-01")) as (url, _),
        opened(McpSettings(mcp=url)) as catalog,
    ):
        assert catalog.unavailable == {"server"}


@pytest.mark.parametrize("refusals", [1, 2])
async def test_a_version_that_is_refused_but_named_is_tried_once_more(refusals: int) -> None:
    left = refusals

    def script(request: Asked) -> Reply:
        nonlocal left
        if request.method == "server/discover" and left:
            left -= 1
            error = {"code": -32022, "message": "?", "data": {"supported": ["2026-07-28"]}}
            return json_reply({"jsonrpc": "2.0", "id": request.body["id"], "error": error}, 400)
        return modern(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert catalog.unavailable == ({"server"} if refusals == 2 else set())
    assert "initialize" not in [each.method for each in asked]


async def test_a_server_that_becomes_another_one_is_asked_again() -> None:
    """A modern server is replaced by an older version of itself."""
    replaced = False

    def script(request: Asked) -> Reply:
        if not replaced:
            return modern(request)
        return status(400, b"?") if "mcp-method" in request.headers else legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "look_up")).content == "hi"
        replaced = True
        assert (await call(catalog, "look_up")).content == "hi"


async def test_each_subject_has_a_session_of_its_own() -> None:
    number = 0

    def script(request: Asked) -> Reply:
        nonlocal number
        number += request.method == "initialize"
        return legacy(request, session=f"s{number}")

    bob = Principal("tenant", "bob")
    namesake = Principal("another", "alice")
    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        for principal in (ALICE, bob, ALICE, namesake, bob):
            await call(catalog, "look_up", {}, context(principal))
        used = [each.headers["mcp-session-id"] for each in asked if each.method == "tools/call"]
        assert used == ["s2", "s3", "s2", "s4", "s3"]  # s1 is that of the listing
    ended = {each.headers["mcp-session-id"] for each in asked if each.method == "DELETE"}
    assert ended == {"s1", "s2", "s3", "s4"}


async def test_calls_of_many_subjects_at_once_never_meet_in_a_session() -> None:
    number = 0

    def script(request: Asked) -> Reply:
        nonlocal number
        number += request.method == "initialize"
        if request.method == "tools/call":
            session = request.headers["mcp-session-id"]
            return answer(request, {"content": [{"type": "text", "text": session}]})
        return legacy(request, session=f"s{number}")

    subjects = [Principal("tenant", f"subject{each}") for each in range(50)]
    limits = SourceLimits(concurrency=64, wait_seconds=30.0, answer_seconds=30.0)
    async with (
        scripted(script) as (url, _),
        opened(McpSettings(mcp=url, limits=limits)) as catalog,
    ):
        calls = [
            call(catalog, "look_up", {}, context(subject, seconds=60.0))
            for _ in range(10)
            for subject in subjects
        ]
        sessions = [each.content for each in await asyncio.gather(*calls)]
    of_subjects = [set(sessions[index::50]) for index in range(50)]
    assert all(len(each) == 1 for each in of_subjects)
    assert len(set(sessions)) == 50


async def test_a_lost_session_is_replaced_and_the_call_made_once_more() -> None:
    live: set[str] = set()
    executed: list[str] = []
    number = 0

    def script(request: Asked) -> Reply:
        nonlocal number
        session = request.headers.get("mcp-session-id", "")
        if session and session not in live:
            return json_reply(
                {"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "?"}}, 404
            )
        if request.method == "initialize":
            number += 1
            live.add(f"s{number}")
        if request.method == "tools/call":
            executed.append(session)
        return legacy(request, session=f"s{number}")

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        await call(catalog, "look_up")
        live.clear()  # the server was restarted
        outcome = await call(catalog, "look_up")
        assert (outcome.content, outcome.failed) == ("hi", False)
    assert executed == ["s2", "s3"]


async def test_a_server_with_sessions_is_refused_where_processes_come_and_go() -> None:
    async with scripted(lambda request: legacy(request, session="s")) as (url, _):
        with pytest.raises(ConfigError, match="keeps sessions"):
            async with opened(McpSettings(mcp=url), stateless=True):
                pass
    async with (
        scripted(legacy) as (url, _),
        opened(McpSettings(mcp=url), stateless=True) as catalog,
    ):
        assert (await call(catalog, "look_up")).content == "hi"
    with pytest.raises(ConfigError, match="cannot run in a function"):
        async with opened(McpSettings(command=("true",)), stateless=True):
            pass


async def test_arguments_are_mirrored_in_headers_for_modern_servers_only() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "place": {
                "type": "object",
                "properties": {"floor": {"type": "integer", "x-mcp-header": "Floor"}},
            },
            "fast": {"type": "boolean", "x-mcp-header": "Fast"},
        },
    }
    bad = {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}}
    tools = [
        {"name": "query", "inputSchema": schema},
        {"name": "bad", "inputSchema": bad},
    ]

    def listed(request: Asked) -> Reply:
        if request.method == "tools/list":
            return answer(request, {"tools": tools})
        return modern(request)

    async with scripted(listed) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert [each.name for each in catalog.tools["server"]] == ["query"]
        await call(catalog, "query", {"region": "Zürich", "place": {"floor": -2}, "fast": True})
        headers = asked[-1].headers
        assert headers["mcp-param-region"] == "=?base64?WsO8cmljaA==?="
        assert (headers["mcp-param-floor"], headers["mcp-param-fast"]) == ("-2", "true")
        await call(catalog, "query", {})
        assert not [name for name in asked[-1].headers if name.startswith("mcp-param")]

    def old(request: Asked) -> Reply:
        if request.method == "tools/list":
            return answer(request, {"tools": tools})
        return legacy(request)

    async with scripted(old) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        await call(catalog, "query", {"region": "x"})
        assert not [name for name in asked[-1].headers if name.startswith("mcp-param")]
        assert [each.name for each in catalog.tools["server"]] == ["query", "bad"]
