"""Applications and handlers that our runtime serves in tests."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from seawall.hosts.aws_lambda.runtime_api import current_invocation

_starts = 0


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    global _starts  # noqa: PLW0603 - how often it starts is what is tested
    _starts += 1
    yield {"starts": _starts, "loop": id(asyncio.get_running_loop())}


async def echo(request: Request) -> Response:
    body = await request.body()
    invocation = current_invocation.get()
    assert invocation is not None
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "headers": [list(each) for each in request.headers.items()],
            "cookies": request.cookies,
            "body": body.decode("latin-1"),
            "starts": request.state.starts,
            "same_loop": request.state.loop == id(asyncio.get_running_loop()),
            "request": invocation.aws_request_id,
            "pid": os.getpid(),
            "client": request.client.host if request.client else None,
        },
        headers={"x-kind": "echo"},
    )


async def stream(request: Request) -> Response:
    """Pieces at intervals; `fail` breaks off after so many."""
    count = int(request.query_params.get("count", "3"))
    fail = int(request.query_params.get("fail", "-1"))
    pause = float(request.query_params.get("pause", "0.05"))

    async def pieces() -> AsyncIterator[bytes]:
        for index in range(count):
            if index == fail:
                raise ValueError("in the middle")
            yield f"piece {index}\n".encode()
            await asyncio.sleep(pause)

    answer = StreamingResponse(pieces(), 203, media_type="text/plain")
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


async def large(request: Request) -> Response:
    return PlainTextResponse("x" * int(request.query_params["bytes"]))


async def fail(_: Request) -> Response:
    raise LookupError("before anything was said")


async def sleep(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params["seconds"]))
    return PlainTextResponse("awake")


_waiting: list[asyncio.Event] = []


async def meet(request: Request) -> Response:
    """Answers once so many are in flight."""
    _waiting.append(asyncio.Event())
    here = _waiting[-1]
    if len(_waiting) == int(request.query_params["many"]):
        for each in _waiting:
            each.set()
    await here.wait()
    return PlainTextResponse("met")


async def die(_: Request) -> Response:
    os._exit(9)


routes = [
    Route("/echo/{rest:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "HEAD"]),
    Route("/stream", stream),
    Route("/large", large),
    Route("/fail", fail),
    Route("/sleep", sleep),
    Route("/die", die),
    Route("/meet", meet),
]
app = Starlette(routes=[*routes, Mount("/mounted", routes=routes)], lifespan=lifespan)


async def bare(scope: dict[str, Any], _: Any, send: Any) -> None:
    """An application without lifespan support."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bare"})


def plain(event: Any, context: Any) -> Any:
    return {"event": event, "request": context.aws_request_id}


async def awaited(event: Any, context: Any) -> Any:
    await asyncio.sleep(0)
    return {"event": event, "left": context.get_remaining_time_in_millis()}


async def streamed(_: Any, __: Any) -> AsyncIterator[bytes]:
    for index in range(3):
        yield json.dumps(index).encode()
        await asyncio.sleep(0.01)


async def slow_stream(event: Any, __: Any) -> AsyncIterator[bytes]:
    """Pieces at intervals; `fail` raises before so many."""
    for index in range(event.get("count", 5)):
        if index == event.get("fail", -1):
            raise ValueError(f"at piece {index}")
        yield f"{index}".encode()
        await asyncio.sleep(event.get("pause", 0.1))


async def slow(event: Any, _: Any) -> Any:
    await asyncio.sleep(0.5)
    return {"event": event}


def sized(event: Any, _: Any) -> Any:
    """As many bytes of JSON as asked for, or how many came."""
    return "x" * (event["bytes"] - 2) if "bytes" in event else len(event["filling"])


async def mute(scope: dict[str, Any], _: Any, __: Any) -> None:
    """An application that raises before it has sent anything, and sends no response."""
    assert scope["type"] == "http"
    raise LookupError("before anything was said")


def broken() -> None:
    raise RuntimeError("never called")


def raising(_: Any, __: Any) -> None:
    raise KeyError("x")


async def blocked(event: Any, _: Any) -> str:
    time.sleep(event["block"])  # noqa: ASYNC251 - what must not be done is what is tested
    return "done"


async def failing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def misbehaving(event: Any, _: Any) -> Any:
    """Raises what is asked for, or hangs."""
    if "raise" in event:
        raise {"SystemExit": SystemExit(3), "BaseException": BaseException("b")}[event["raise"]]
    if "hang" in event:
        threading.Event().wait()
    return os.getpid()


async def misbehaving_later(event: Any, context: Any) -> Any:
    """As `misbehaving`; ignores its cancellation when it hangs."""
    while "hang" in event:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(3_600)
    return misbehaving(event, context)
