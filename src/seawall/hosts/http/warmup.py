"""Warm-up: a few turns through the whole application before the first client connects."""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from seawall.composition import isolated_engine
from seawall.hosts.http.app import HttpApplication
from seawall.hosts.http.exchange import encode
from seawall.orchestrator import Orchestrator

__all__ = ["warm_up"]

_log = logging.getLogger("seawall.server")
_SECONDS = 10.0
_TIMES = 3  # CPython specialises code after some executions
_TEXT = "Hello, where is my order?"


async def warm_up(orchestrator: Orchestrator) -> None:
    """Run warm-up turns: streamed and not, new and continued, replayed, and in OpenAI's format.

    They have no effect on stores, models or tools. A failure is logged and otherwise ignored.
    """
    try:
        async with asyncio.timeout(_SECONDS), isolated_engine(orchestrator.engine) as engine:
            copy = Orchestrator(orchestrator.settings, engine=engine)
            application = HttpApplication(copy, manage_lifespan=False, warming_up=True)
            for number in range(_TIMES):
                await _turns(application, f"warm-up-{number}")
                if (mcp := orchestrator.settings.mcp) is not None:
                    await _call(application, mcp.agents[0])
    except Exception:  # noqa: BLE001 - no user is affected
        _log.warning("the warm-up failed; turns are accepted nevertheless", exc_info=True)


async def _turns(application: HttpApplication, key: str) -> None:
    for body in ({"text": _TEXT, "stream": True}, {"text": _TEXT}):
        for _ in range(2):  # the second one is replayed
            await _ask(application, "/v1/turns", body, key=f"{key}-{len(body)}")
        await _ask(application, "/v1/turns", body)
    chat = {"model": "auto", "messages": [{"role": "user", "content": _TEXT}], "stream": True}
    session = (await _ask(application, "/v1/chat/completions", chat))["seawall-session"]
    again = {"text": _TEXT, "session": session, "stream": True}
    await _ask(application, "/v1/turns", again)


async def _call(application: HttpApplication, agent: str) -> None:
    """A call of an agent as a tool of the Model Context Protocol."""
    call = {"name": agent, "arguments": {"message": _TEXT}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    await _ask(application, "/mcp", message)


async def _ask(
    application: HttpApplication, path: str, body: dict[str, Any], key: str = ""
) -> dict[str, str]:
    """Send a request; return the headers of its response."""
    headers = [(b"host", b"warm-up"), (b"content-type", b"application/json")]
    if key:
        headers.append((b"idempotency-key", key.encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    messages = [{"type": "http.request", "body": encode(body), "more_body": False}]
    answer: dict[str, str] = {}
    disconnected = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if messages:
            return messages.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise RuntimeError(f"{path} answered with status {message['status']}")
            answer.update((name.decode(), value.decode()) for name, value in message["headers"])

    await application(scope, receive, send)
    return answer
