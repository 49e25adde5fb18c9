"""What every server answers: to GET an object, to POST a stream of `PIECES` events."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PIECES = 40
TOKEN = "k" * 600
EVENTS = [
    b"event: turn.started\nid: 1\ndata: %b\n\n" % (b"x" * 300),
    *(b'event: text.delta\nid: %d\ndata: {"text":"word"}\n\n' % each for each in range(PIECES)),
    b"event: turn.completed\nid: 99\ndata: %b\n\n" % (b"x" * 300),
]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-request-id", b"0123456789abcdef"),
]
OBJECT = json.dumps({"id": "ses_1", "turns": [], "version": 1}).encode()
OBJECT_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(OBJECT)).encode()),
    (b"x-request-id", b"0123456789abcdef"),
]
AUTHORIZATION = f"Bearer {TOKEN}".encode()

Message = MutableMapping[str, Any]


def check(headers: dict[bytes, bytes]) -> None:
    """Fail without the token."""
    if headers.get(b"authorization") != AUTHORIZATION:
        raise PermissionError


async def asgi_answer(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """The same as an ASGI application, which ends a stream when its client has gone."""
    if scope["type"] != "http":
        return
    check(dict(scope["headers"]))
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": OBJECT_HEADERS})
        await send({"type": "http.response.body", "body": OBJECT})
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    json.loads(body)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ConnectionError

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        for event in EVENTS[:-1]:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(0)
        watching.cancel()
    await send({"type": "http.response.body", "body": EVENTS[-1]})
