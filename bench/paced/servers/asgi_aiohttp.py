"""A proxy of model streams without a framework: ASGI and aiohttp."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]
MODEL = os.environ["MODEL_URL"] + "/chat/completions"
HEADERS = {"content-type": "application/json"}
clients: list[aiohttp.ClientSession] = []


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Pass a request on, and the answer back as it comes."""
    if scope["type"] != "http":
        return
    if not clients:  # needs the running loop
        clients.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    async with clients[0].post(MODEL, data=body, headers=HEADERS) as response:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        async for data in response.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
