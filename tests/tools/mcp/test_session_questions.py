"""Questions of servers that mean no good, or that do not say of which call they are."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from seawall.tools.port import ToolContext, ToolOutcome
from seawall.tools.settings import McpSettings
from tests.tools.mcp.harness import (
    Asked,
    Reply,
    answer,
    call,
    context,
    initialized,
    opened,
    scripted,
    status,
    until,
)

TOOL = {"name": "act", "inputSchema": {"type": "object"}}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
FORM = {"type": "object", "properties": {"size": {"type": "string"}}}


def asking(**changes: Any) -> ToolContext:
    return structs.replace(context(), may_ask=True, may_repeat=True, **changes)


class SessionServer:
    """A legacy server with sessions. A call ends when it is let go; questions are the session's."""

    def __init__(self) -> None:
        self.streams: list[asyncio.StreamWriter] = []
        self.calls: list[asyncio.Event] = []
        self.answers: list[str] = []

    def script(self, request: Asked) -> Reply:
        match request.method:
            case "server/discover":
                return status(400)
            case "initialize":
                return answer(request, initialized(), session="s1")
            case "tools/list":
                return answer(request, {"tools": [TOOL]})
            case "answer":
                self.answers.append(request.body["result"]["action"])
            case "GET":
                return self._stream
            case "tools/call":
                return self._held(request)
        return status(202)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        await writer.drain()
        self.streams.append(writer)
        await reader.read()  # until the client leaves

    def _held(self, request: Asked) -> Reply:
        let_go = asyncio.Event()
        self.calls.append(let_go)

        async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with asyncio.timeout(10):
                await let_go.wait()
            writer.write(answer(request, {"content": [{"type": "text", "text": "done"}]}))
            await writer.drain()

        return send

    def ask(self) -> None:
        params = {"message": "Size?", "requestedSchema": FORM}
        question = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params}
        self.streams[-1].write(b"data: " + msgspec.json.encode(question) + b"\n\n")


@pytest.mark.parametrize("beside", ["nothing", "a call that may not ask", "one that was given up"])
async def test_a_question_of_a_session_is_that_of_a_call_only_if_it_cannot_be_of_another(
    beside: str,
) -> None:
    server = SessionServer()

    async def ended(task: asyncio.Task[ToolOutcome], index: int) -> ToolOutcome:
        server.calls[index].set()
        return await task

    async with (
        scripted(server.script) as (url, _),
        opened(McpSettings(mcp=url, elicitation=True)) as catalog,
    ):
        others = []
        if beside != "nothing":
            turn = context() if beside == "a call that may not ask" else asking()
            others.append(asyncio.create_task(call(catalog, "act", {"n": 0}, turn)))
            await until(lambda: len(server.calls) == 1)
        if beside == "one that was given up":
            others.pop().cancel()
            await asyncio.sleep(0.01)
        mine = asyncio.create_task(call(catalog, "act", {"n": 1}, asking()))
        await until(lambda: len(server.calls) == len(others) + 1 + (beside[:3] == "one"))
        await until(lambda: bool(server.streams))
        server.ask()
        async with asyncio.timeout(5):
            await until(lambda: bool(server.answers))
        outcome = await ended(mine, -1)
        for each in others:
            assert (await ended(each, 0)).content == "done"
        for let_go in server.calls:
            let_go.set()
        await asyncio.sleep(0.05)
    if beside == "nothing":
        assert server.answers == ["cancel"]
        assert outcome.asks is not None
    else:
        assert server.answers == ["decline"]
        assert (outcome.asks, outcome.content) == (None, "done")


@pytest.mark.parametrize(
    ("name", "state", "asked"),
    [
        ("k" * 256, "s" * 16_384, True),
        ("k" * 257, "s", False),
        ("k", "s" * 16_385, False),
        ("k", "é" * 8_193, False),
    ],
)
async def test_what_is_kept_of_a_round_is_bounded(name: str, state: str, asked: bool) -> None:
    def script(request: Asked) -> Reply:
        if request.method == "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return answer(request, found)
        if request.method == "tools/list":
            return answer(request, {"tools": [TOOL]})
        if "inputResponses" in request.params:
            assert request.params["inputResponses"] == {name: {"action": "decline"}}
            return answer(request, {"content": [{"type": "text", "text": "done"}]})
        ask = {
            "method": "elicitation/create",
            "params": {"message": "Size?", "requestedSchema": FORM},
        }
        rest = {"inputRequests": {name: ask}, "requestState": state}
        return answer(request, {"resultType": "input_required", **rest})

    async with scripted(script) as (url, _), opened(McpSettings(mcp=url)) as catalog:
        outcome = await call(catalog, "act", {}, asking())
    assert (outcome.asks is not None) == asked
    if not asked:
        assert outcome.content.startswith("done\n")
        assert "declined: Size?" in outcome.content
