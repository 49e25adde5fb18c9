"""Streams, resumption, cancellation and changes over HTTP."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seawall.identity.outbound.settings import StaticAuth
from seawall.tools.settings import McpSettings, OperationSettings, SourceLimits
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
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def message(request: Asked, result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.body["id"], "result": result}


def text(value: str, **more: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}], **more}


def legacy(request: Asked, *tools: dict[str, Any], **capabilities: Any) -> Reply:
    match request.method:
        case "initialize":
            return answer(request, initialized(**capabilities), session="s")
        case "tools/list":
            return answer(request, {"tools": [*tools] or [TOOL]})
        case "server/discover":
            return status(400)
    return status(202)


async def gone(reader: asyncio.StreamReader) -> None:
    """Returns when the client has closed the connection."""
    with suppress(ConnectionError):
        await reader.read()


def event(data: object, head: str = "") -> bytes:
    body = f"{head}data: {msgspec.json.encode(data).decode() if data else ''}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


async def test_an_answer_as_a_stream_with_other_messages_before_it() -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        token = request.params["_meta"]["progressToken"]
        return events(
            ": comment\n\n",
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}},
            {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1},
            },
            "event: other\ndata: not for us\n\n",
            {"jsonrpc": "2.0", "id": 999, "result": text("of another request")},
            {"jsonrpc": "2.0", "id": str(request.body["id"]), "result": text("of another type")},
            message(request, text("mine")),
            message(request, text("a second time")),
        )

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).content == "mine"
        assert (await call(catalog, "act")).content == "mine"


async def test_a_batch_of_the_version_that_had_them() -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
        return json_reply([log, message(request, text("in a batch"))])

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).content == "in a batch"


async def test_requests_of_the_server_are_answered_and_declined() -> None:
    asks = [
        {"jsonrpc": "2.0", "id": "p", "method": "ping"},
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "elicitation/create",
            "params": {"message": "Which size?", "requestedSchema": {"type": "object"}},
        },
        {"jsonrpc": "2.0", "id": 2, "method": "sampling/createMessage", "params": {}},
        {"jsonrpc": "2.0", "id": 3, "method": "roots/list"},
    ]

    def script(request: Asked) -> Reply:
        if request.method == "tools/call":
            return events(*asks, message(request, text("medium then")))
        return legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act")
    assert outcome.content.startswith("medium then\n")
    assert "declined: Which size?" in outcome.content
    answers = {each.body["id"]: each.body for each in asked if each.method == "answer"}
    assert answers["p"]["result"] == {}
    assert answers[1]["result"] == {"action": "decline"}
    assert {answers[2]["error"]["code"], answers[3]["error"]["code"]} == {-32601}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_secret_that_a_server_repeats(*, streamed: bool, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sec/ret+key==")

    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        said = text(f"you are {request.headers['x-key']}")
        if not streamed:
            return answer(request, said)
        return events(message(request, said))

    auth = StaticAuth(secret_file="key", header="X-Key", scheme="")
    async with (
        scripted(script) as (url, asked),
        opened(McpSettings(mcp=url, auth=auth), folder=str(tmp_path)) as catalog,
    ):
        outcome = await call(catalog, "act")
    assert asked[-1].headers["x-key"] == "sec/ret+key=="
    assert outcome.content == "you are redacted"


async def test_a_modern_server_that_asks_for_input_is_declined_in_a_second_round() -> None:
    def script(request: Asked) -> Reply:
        if request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return answer(request, found)
        if request.method == "tools/list":
            return answer(request, {"tools": [TOOL]})
        if "inputResponses" in request.params:
            assert request.params["requestState"] == "opaque"
            return answer(request, text(str(request.params["inputResponses"])))
        ask = {"method": "elicitation/create", "params": {"message": "Where to?"}}
        return answer(
            request,
            {
                "resultType": "input_required",
                "inputRequests": {"a": ask},
                "requestState": "opaque",
            },
        )

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act", {"x": 1})
    first, second = asked[-2:]
    assert first.body["id"] != second.body["id"]
    assert first.params["arguments"] == second.params["arguments"] == {"x": 1}
    assert outcome.content.startswith("{'a': {'action': 'decline'}}")
    assert "declined: Where to?" in outcome.content


async def test_a_stream_that_breaks_off_is_resumed_where_it_was() -> None:
    pending: list[Asked] = []

    def script(request: Asked) -> Reply:
        if request.method == "tools/call":
            pending.append(request)

            async def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(STREAM + event("", "id: e1\nretry: 10\n"))
                await writer.drain()
                writer.close()

            return broken
        if request.verb == "GET":
            return events(message(pending[0], text("at last")))
        return legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        assert (await call(catalog, "act")).content == "at last"
    resumed = [each for each in asked if each.verb == "GET"]
    assert [each.headers["last-event-id"] for each in resumed] == ["e1"]
    assert resumed[0].headers["mcp-session-id"] == "s"
    assert len(pending) == 1


async def test_a_stream_without_ids_that_breaks_off_is_not_repeated() -> None:
    def script(request: Asked) -> Reply:
        return events(": nothing\n\n") if request.method == "tools/call" else legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act")
    assert outcome.failed
    assert outcome.unknown
    assert len([each for each in asked if each.method == "tools/call"]) == 1


@pytest.mark.parametrize("modern", [False, True])
async def test_a_cancelled_call_is_cancelled_at_the_server(*, modern: bool) -> None:
    """A legacy server gets a notification; of a modern one the connection is closed."""
    began = asyncio.Event()
    closed = asyncio.Event()

    def script(request: Asked) -> Reply:
        if request.method == "tools/call":

            async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(STREAM)
                began.set()
                await gone(reader)
                closed.set()

            return never
        if modern and request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return answer(request, found)
        return legacy(request)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        task = asyncio.create_task(call(catalog, "act"))
        await began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await closed.wait()
        number = next(each.body["id"] for each in asked if each.method == "tools/call")
        if not modern:
            await until(lambda: asked[-1].method == "notifications/cancelled")
        if modern:
            assert not [each for each in asked if each.method == "notifications/cancelled"]
        else:
            assert asked[-1].params["requestId"] == number


async def test_a_late_call_is_cancelled_at_the_server_and_unknown() -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)

        async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await gone(reader)

        return never

    async with scripted(script) as (url, asked):
        settings = McpSettings(mcp=url, limits=SourceLimits(answer_seconds=0.1))
        async with opened(settings) as catalog:
            outcome = await call(catalog, "act")
            assert outcome.failed
            assert outcome.unknown
            await until(lambda: asked[-1].method == "notifications/cancelled")


@pytest.mark.parametrize("modern", [False, True])
async def test_tools_are_listed_again_when_the_server_says_so(*, modern: bool) -> None:
    tools = [TOOL]
    listening = asyncio.Event()
    more = asyncio.Event()

    def script(request: Asked) -> Reply:
        if request.verb == "GET" or request.method == "subscriptions/listen":

            async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(STREAM)
                listening.set()
                await more.wait()
                changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
                writer.write(event(changed))
                await gone(reader)

            return listen
        capabilities = {"tools": {"listChanged": True}}
        if modern and request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": capabilities}
            return answer(request, found)
        return legacy(request, *tools, **capabilities)

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        changed = asyncio.Event()
        catalog.start(changed.set)
        await listening.wait()
        tools.append({"name": "new", "inputSchema": {"type": "object"}})
        more.set()
        await changed.wait()
        assert [each.name for each in catalog.tools["server"]] == ["act", "new"]
    opening = next(e for e in asked if e.verb == "GET" or e.method == "subscriptions/listen")
    if modern:
        assert opening.params["notifications"] == {"toolsListChanged": True}
    else:
        assert opening.headers["mcp-session-id"] == "s"


async def test_a_server_without_a_stream_of_changes_is_not_asked_again() -> None:
    def script(request: Asked) -> Reply:
        if request.verb == "GET":
            return status(405)
        return legacy(request, tools={"listChanged": True})

    async with scripted(script) as (url, asked), opened(McpSettings(mcp=url)) as catalog:
        await until(lambda: any(each.verb == "GET" for each in asked))
        assert (await call(catalog, "act")).failed is True  # 202 is no answer
    assert len([each for each in asked if each.verb == "GET"]) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (status(401), "not permitted"),
        (status(403), "not permitted"),
        (status(408), None),
        (status(413), "not available"),
        (status(429, Retry_After="7"), "again in 7 seconds"),
        (status(503, Retry_After="7"), "again in 7 seconds"),
        (status(503), None),  # a proxy's word for a connection that it has lost
        (status(500), None),
        (status(200, b"<html>", "text/html"), None),
        (status(200, b"{", "application/json"), None),
        (status(204), None),
    ],
)
async def test_other_statuses(reply: bytes, kind: str | None) -> None:
    """What has certainly not been executed is said to be so; of the rest it is not known."""

    def script(request: Asked) -> Reply:
        return reply if request.method == "tools/call" else legacy(request)

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act", {}, context(seconds=2.0))
    assert outcome.failed
    assert outcome.unknown is (kind is None), outcome
    assert kind is None or kind in outcome.content


async def test_pages_are_followed() -> None:
    def script(request: Asked) -> Reply:
        if request.method != "tools/list":
            return legacy(request)
        page = int(request.params.get("cursor", 0))
        tools = [{"name": f"t{page}", "inputSchema": {"type": "object"}}]
        more = {"nextCursor": str(page + 1)} if page < 3 else {}
        return answer(request, {"tools": tools, **more})

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        assert [each.name for each in catalog.tools["server"]] == ["t0", "t1", "t2", "t3"]
        assert tool(catalog, "t3").mutating


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_result_that_is_too_long(*, streamed: bool) -> None:
    """The server has done it: an effect is not of unknown outcome, and a read is not repeated."""
    calls: list[Asked] = []

    def script(request: Asked) -> Reply:
        if request.method != "tools/call":
            return legacy(request)
        calls.append(request)
        number = request.body["id"]
        member = "error" if request.params["arguments"].get("bad") else "result"
        long = {"content": [{"type": "text", "text": "x" * 300_000}]}
        value = {"code": -32603, "message": "x" * 300_000} if member == "error" else long
        message = {"jsonrpc": "2.0", "id": number, member: value}
        return events(message) if streamed else json_reply(message)

    async with scripted(script) as (url, _):
        for changes in (True, False):
            settings = McpSettings(
                mcp=url,
                max_response_bytes=65_536,
                overrides={"act": OperationSettings(changes=changes)},
                limits=SourceLimits(backoff_seconds=0.001),
            )
            async with opened(settings) as catalog:
                calls.clear()
                outcome = await call(catalog, "act")
                assert (outcome.failed, outcome.unknown) == (not changes, False)
                assert "more than 65536 bytes" in outcome.content
                assert len(calls) == 1
                if changes:  # an error that is too long says nothing of what was done
                    assert (await call(catalog, "act", {"bad": 1})).unknown
