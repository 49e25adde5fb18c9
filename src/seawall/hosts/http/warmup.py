"""A few turns through the whole application before the first customer comes."""

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
_TIMES = 3  # CPython specialises code that has run some times
_TEXT = "Hello, where is my order?"


async def warm_up(orchestrator: Orchestrator) -> None:
    """Streamed and whole, new and continued, repeated by key, and in OpenAI's format.

    What fails here is logged, and otherwise left to fail when it matters.
    """
    try:
        async with asyncio.timeout(_SECONDS), isolated_engine(orchestrator.engine) as engine:
            copy = Orchestrator(orchestrator.settings, engine=engine)
            application = HttpApplication(copy, manage_lifespan=False, warming_up=True)
            for number in range(_TIMES):
                await _turns(application, f"rehearsal-{number}")
    except Exception:  # noqa: BLE001 - no customer has been harmed
        _log.warning("the rehearsal failed; turns are taken all the same", exc_info=True)


async def _turns(application: HttpApplication, key: str) -> None:
    for body in ({"text": _TEXT, "stream": True}, {"text": _TEXT}):
        for _ in range(2):  # the second time, the answer is there
            await _ask(application, "/v1/turns", body, key=f"{key}-{len(body)}")
        await _ask(application, "/v1/turns", body)
    chat = {"model": "auto", "messages": [{"role": "user", "content": _TEXT}], "stream": True}
    session = (await _ask(application, "/v1/chat/completions", chat))["seawall-session"]
    again = {"text": _TEXT, "session": session, "stream": True}
    await _ask(application, "/v1/turns", again)


async def _ask(
    application: HttpApplication, path: str, body: dict[str, Any], key: str = ""
) -> dict[str, str]:
    """The headers of the answer."""
    headers = [(b"host", b"rehearsal"), (b"content-type", b"application/json")]
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
    waiting = [{"type": "http.request", "body": encode(body), "more_body": False}]
    said: dict[str, str] = {}
    gone = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if waiting:
            return waiting.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise RuntimeError(f"{path} answered with status {message['status']}")
            said.update((name.decode(), value.decode()) for name, value in message["headers"])

    await application(scope, receive, send)
    return said
