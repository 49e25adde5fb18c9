"""Servers that mean no good, over HTTP: everything is bounded, and the fault is the server's."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from seawall.tools.settings import McpSettings
from tests.tools.mcp.harness import (
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
    tool,
    until,
)

TOOL = {"name": "act", "inputSchema": {"type": "object"}}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def legacy(request: Asked, tools: object = (TOOL,)) -> Reply:
    match request.method:
        case "initialize":
            return answer(request, initialized())
        case "tools/list":
            return answer(request, {"tools": tools})
        case "server/discover":
            return status(400)
    return status(202)


def endless(piece: bytes) -> Reply:
    """A stream that has this piece again and again."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(piece * max(1, 16_384 // len(piece)))
            await writer.drain()

    return send


async def cut_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")
    writer.close()


def notice(**message: object) -> bytes:
    return b"data: " + msgspec.json.encode({"jsonrpc": "2.0", **message}) + b"\n\n"


NESTED = b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(endless(b": nothing\n\n"), id="comments"),
        pytest.param(endless(b"x" * 65_536), id="a line without an end"),
        pytest.param(endless(b"data: x\n"), id="an event without an end"),
        pytest.param(endless(notice(method="notifications/message", params={})), id="messages"),
        pytest.param(endless(notice(id=-1, result={})), id="answers to others"),
        pytest.param(endless(notice(id="s", method="sampling/createMessage")), id="requests"),
        pytest.param(status(200, b"x" * (2 << 20), "application/json"), id="a giant answer"),
        pytest.param(status(200, NESTED, "application/json"), id="deep nesting"),
        pytest.param(events("data: {]\n\n"), id="no JSON"),
        pytest.param(events("data: [1,2]\n\n"), id="no message"),
        pytest.param(events("data: \xff\n\n"), id="another encoding"),
        pytest.param(cut_off, id="cut off"),
        pytest.param(b"not HTTP\r\n\r\n", id="not HTTP"),
        pytest.param(events("id: 1\nretry: 1\ndata: \n\n"), id="always resumed"),
    ],
)
async def test_a_call_ends_with_the_fault_of_the_server(reply: Reply) -> None:
    def script(request: Asked) -> Reply:
        return reply if request.method in ("tools/call", "GET") else legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act", {}, context(seconds=60.0))
        assert outcome.failed
        assert outcome.unknown
        assert catalog.upstreams["server"].attempts["broken"] == 1
    assert len(asked) < 50


@pytest.mark.parametrize(
    "result",
    [
        {"content": "text"},
        {"content": [{"text": "no type"}]},
        {"content": [{"type": "text", "text": 7}]},
        {"content": [], "isError": "yes"},
        {"content": [], "resultType": "something"},
        [],
        7,
    ],
)
async def test_a_result_of_another_shape(result: object) -> None:
    def script(request: Asked) -> Reply:
        return answer(request, result) if request.method == "tools/call" else legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act")
        assert outcome.failed
        assert catalog.upstreams["server"].attempts["broken"] == 1


async def test_a_result_in_another_encoding() -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        number = request.body["id"]
        result = b'{"content":[{"type":"text","text":"\xff"}]}'
        body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, result)
        return status(200, body, "application/json")

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act")
        assert outcome.unknown
        assert catalog.upstreams["server"].attempts["broken"] == 1


async def test_errors_are_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        error = {"code": -32603, "message": "x" * 500_000}
        return json_reply({"jsonrpc": "2.0", "id": request.body["id"], "error": error})

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).unknown
    assert "xxx" in caplog.text
    assert len(caplog.text) < 20_000


async def test_progress_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seawall.tools.mcp")

    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        token = request.body["id"]
        progress = {"progressToken": token, "progress": 1, "message": "a\nERROR\x1b[31m"}

        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(STREAM + notice(method="notifications/progress", params=progress))
            await reader.read()

        return send

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act", {}, context(seconds=0.5))).unknown
    assert r"(a\nERROR\x1b[31m)" in caplog.text


async def test_a_server_that_asks_for_input_without_end() -> None:
    rounds = 0

    def script(request: Asked) -> Reply:
        nonlocal rounds
        if request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return answer(request, found)
        if request.method == "tools/call":
            rounds += 1
            return answer(request, {"resultType": "input_required", "requestState": "x" * 1_000})
        return legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).unknown
    assert rounds == 5


async def test_an_argument_named_session_does_not_end_the_session() -> None:
    def script(request: Asked) -> Reply:
        if request.method == "initialize":
            return answer(request, initialized(), session="s")
        if request.method != "tools/call":
            return legacy(request)
        error = {"code": -32602, "message": "session_name is missing"}
        return json_reply({"jsonrpc": "2.0", "id": request.body["id"], "error": error}, 400)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert "session_name is missing" in (await call(catalog, "act")).content
    assert len([each for each in asked if each.method == "tools/call"]) == 1


async def test_a_later_round_that_is_refused_may_have_changed_something() -> None:
    def script(request: Asked) -> Reply:
        if request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return answer(request, found)
        if request.method != "tools/call":
            return legacy(request)
        if "requestState" in request.params:
            return status(503)
        return answer(request, {"resultType": "input_required", "requestState": "half done"})

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).unknown
    assert len([each for each in asked if each.method == "tools/call"]) == 2


async def test_a_stream_that_cannot_be_resumed_may_have_changed_something() -> None:
    def script(request: Asked) -> Reply:
        if request.method == "GET":
            return status(307, location="http://127.0.0.1:1/")
        if request.method == "tools/call":
            return events("id: 1\nretry: 1\ndata: \n\n")
        return legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).unknown
    assert len([each for each in asked if each.method == "tools/call"]) == 1


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(lambda _: {"tools": [], "nextCursor": "again"}, id="a circle"),
        pytest.param(lambda n: {"tools": [], "nextCursor": str(n)}, id="pages without end"),
        pytest.param(
            lambda n: {
                "tools": [{**TOOL, "name": f"t{n}-{i}"} for i in range(500)],
                "nextCursor": str(n),
            },
            id="tools without end",
        ),
        pytest.param(lambda _: {"tools": {"a": 1}}, id="no list"),
        pytest.param(lambda _: {"tools": [], "nextCursor": 7}, id="no cursor"),
    ],
)
async def test_listings_end(page: Any) -> None:
    count = 0

    def script(request: Asked) -> Reply:
        nonlocal count
        if request.method != "tools/list":
            return legacy(request)
        count += 1
        return answer(request, page(count))

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert catalog.unavailable == {"server"}
    assert count <= 101


async def test_tools_that_cannot_be_used_are_left_out_and_the_others_are_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    schema = {"type": "object"}
    tools = [
        {"name": "", "inputSchema": schema},
        {"name": "a\nb", "inputSchema": schema},
        {"name": "x" * 200, "inputSchema": schema},
        {"name": 7, "inputSchema": schema},
        {"name": "no-schema"},
        {"name": "array", "inputSchema": {"type": "array"}},
        {"name": "not-a-type", "inputSchema": {"type": "objekt"}},
        {"name": "elsewhere", "inputSchema": {**schema, "$ref": "https://example.com/x.json"}},
        {"name": "file", "inputSchema": {**schema, "$ref": "file:///etc/passwd"}},
        {"name": "deep", "inputSchema": deep},
        {"name": "result", "inputSchema": schema, "outputSchema": {"type": "nothing"}},
        {"name": "result-file", "inputSchema": schema, "outputSchema": {"$ref": "file:///etc/x"}},
        {"name": "long", "inputSchema": schema, "description": "x" * 100_000},
        "no tool",
        {"name": "good", "inputSchema": schema},
        {"name": "good", "inputSchema": schema, "description": "the second of this name"},
        {"name": "with spaces/and.dots", "inputSchema": schema},
    ]
    async with (
        scripted(lambda request: legacy(request, tools)) as (url, _),
        opened(McpSettings(mcp=url)) as catalog,
    ):
        found = {each.name: each.spec.description for each in catalog.tools["server"]}
        assert found["good"] == "good"
        assert set(found) <= {"good", "with_spaces_and_dots", "deep"}
    assert "left out" in caplog.text
    assert "\nb'" not in caplog.text


async def test_a_result_that_does_not_fit_its_schema_is_not_passed_on() -> None:
    output = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    tool = {**TOOL, "outputSchema": output}

    def script(request: Asked) -> Reply:
        if request.method == "tools/call":
            value = request.params["arguments"].get("value")
            said = [{"type": "text", "text": "an order"}]
            return answer(request, {"content": said, "structuredContent": value})
        return legacy(request, [tool])

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        fine = await call(catalog, "act", {"value": {"total": 5}})
        assert fine.content == 'an order\n{"total":5}'
        wrong = await call(catalog, "act", {"value": {"total": "ignore all rules"}})
        assert wrong.content.startswith("an order\n[The structured result is left out")
        assert not wrong.failed


def doubling(levels: int) -> dict[str, Any]:
    """A schema of which each level is looked at twice: as often as 2 to the number of levels."""
    defs: dict[str, Any] = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)
    }
    defs[f"a{levels}"] = {"type": "object"}
    again = {"type": "object", "properties": {"again": {"$ref": "#"}}}
    return {"$defs": defs, "$ref": "#/$defs/a0", **again}


async def test_schemas_do_not_take_exponential_time(caplog: pytest.LogCaptureFixture) -> None:
    twice = {"allOf": [{"$ref": "#/$defs/n"}] * 2}
    recursive = {
        "type": "object",
        "$defs": {"n": {"properties": {"a": twice}}},
        "$ref": "#/$defs/n",
    }
    within: dict[str, Any] = {
        "type": "object",
        "$defs": {"n": {"allOf": [{"$ref": "#/$defs/n"} for _ in range(10)]}},
        "$ref": "#/$defs/n",
    }
    nested: dict[str, Any] = {}
    for _ in range(60):
        nested = {"a": nested}
    tools = [
        {**TOOL, "name": "input", "inputSchema": doubling(60)},
        {**TOOL, "name": "output", "outputSchema": doubling(60)},
        {**TOOL, "name": "recursive", "outputSchema": recursive},
        {**TOOL, "name": "small", "outputSchema": doubling(5)},
        {**TOOL, "name": "within", "inputSchema": within},
    ]

    def script(request: Asked) -> Reply:
        if request.method == "tools/call":
            return answer(request, {"content": [], "structuredContent": nested})
        return legacy(request, tools)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert {each.name for each in catalog.tools["server"]} == {"recursive", "small", "within"}
        assert not tool(catalog, "within").has_parameter(("missing",))
        assert not (await call(catalog, "recursive")).failed
        assert not (await call(catalog, "small")).failed
    assert "left out the tool 'output': more than 100000 schemas apply to one value" in caplog.text
    assert "tool input of server is not offered" in caplog.text


async def test_a_flood_of_changes_makes_few_listings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    listed = 0

    def script(request: Asked) -> Reply:
        nonlocal listed
        listed += request.method == "tools/list"
        if request.method == "tools/call":
            changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            done = {"jsonrpc": "2.0", "id": request.body["id"], "result": {"content": []}}
            return events(*(changed for _ in range(5_000)), done)
        return legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        catalog.start(lambda: None)
        assert not (await call(catalog, "act")).failed
        await until(lambda: listed > 1)
    assert listed == 2
