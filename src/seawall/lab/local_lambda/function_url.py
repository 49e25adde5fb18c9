"""Function URL: HTTP requests to events of payload format 2.0, and results to HTTP responses.

Source: docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html; prelude of a streamed answer:
configuration-response-streaming, runtimes-custom.
"""

import base64
import re
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec

from seawall.lab.local_lambda.function import LocalFunction, PayloadTooLarge, Throttled
from seawall.lab.local_lambda.http_server import Header, Request, ResponseWriter
from seawall.lab.local_lambda.invocation import FunctionError, Invocation

__all__ = ["answer_url", "build_event"]

_INTEGRATION = "application/vnd.awslambda.http-integration-response"
_DOMAIN = "local.lambda-url.us-east-1.on.aws"
_SEPARATOR = b"\0" * 8
_MAX_PRELUDE_BYTES = 16_384
_JSON = ("content-type", "application/json")
_TEXTUAL = ("text/", "application/json", "application/javascript", "application/xml")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = frozenset(("connection", "content-length", "transfer-encoding", "keep-alive"))


class _Malformed(Exception):
    """The function's result cannot be sent as an HTTP response."""


async def answer_url(function: LocalFunction, request: Request, writer: ResponseWriter) -> None:
    """Answer a request at the function's URL."""
    # As an event a body may grow by a third; AWS limits the event.
    body = await request.body(function.settings.request_bytes)
    if body is None:
        await _send_message(writer, 413, "Request Too Long")
        return
    event = msgspec.json.encode(build_event(request, body))
    try:
        invocation = function.invoke(event, trace=request.header("x-amzn-trace-id"))
    except Throttled:
        await _send_message(writer, 429, "Rate Exceeded.")
        return
    except PayloadTooLarge:
        await _send_message(writer, 413, "Request Too Long")
        return
    try:
        if function.settings.invoke_mode == "RESPONSE_STREAM":
            await _streamed(invocation, writer)
        else:
            await _buffered(invocation, writer)
    except (FunctionError, _Malformed):
        if writer.started:
            writer.abort()
        else:
            await _send_message(writer, 502, "Internal Server Error", invocation)
    finally:
        invocation.abandon()


def build_event(request: Request, body: bytes) -> dict[str, Any]:
    """The event of a request, payload format 2.0."""
    path, _, query = request.target.partition("?")
    headers: dict[str, str] = {}
    for name, value in request.headers:
        if name not in ("cookie", "connection", "transfer-encoding"):
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    headers |= {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    cookies = [
        each.strip()
        for name, value in request.headers
        if name == "cookie"
        for each in value.split(";")
        if each.strip()
    ]
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": _DOMAIN,
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": request.header("user-agent"),
            },
            "requestId": str(uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now * 1e3),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if parameters:
        event["queryStringParameters"] = parameters
    if body:
        try:
            if not request.header("content-type").startswith(_TEXTUAL):
                raise ValueError
            event["body"] = body.decode()
        except ValueError:
            event["isBase64Encoded"] = True
            event["body"] = base64.b64encode(body).decode()
    return event


async def _buffered(invocation: Invocation, writer: ResponseWriter) -> None:
    status, headers, body = _parse_answer(await invocation.whole())
    await writer.answer(status, body, [*headers, _request_id(invocation)])


async def _streamed(invocation: Invocation, writer: ResponseWriter) -> None:
    head = await invocation.head()
    if not head.streaming or head.content_type != _INTEGRATION:
        # Without a prelude the payload is the body. A result that is not streamed is handled as in
        # the buffered mode.
        if not head.streaming:
            await _buffered(invocation, writer)
            return
        content_type = ("content-type", head.content_type or "application/octet-stream")
        await writer.start(200, [content_type, _request_id(invocation)])
        async for piece in invocation.pieces():
            await writer.write(piece)
        await writer.end()
        return
    pieces = invocation.pieces()
    prelude, first = await _prelude(pieces)
    status, headers, _ = _parse_answer(prelude, with_body=False)
    await writer.start(status, [*headers, _request_id(invocation)])
    await writer.write(first)
    async for piece in pieces:
        await writer.write(piece)
    await writer.end()


async def _prelude(pieces: AsyncGenerator[bytes, None]) -> tuple[bytes, bytes]:
    """The JSON before the eight NUL bytes, and the start of the body."""
    gathered = b""
    async for piece in pieces:
        gathered += piece
        before, found, after = gathered.partition(_SEPARATOR)
        if found:
            return before, after
        if len(gathered) > _MAX_PRELUDE_BYTES:
            break
    raise _Malformed("the stream has no prelude")


def _parse_answer(payload: bytes, *, with_body: bool = True) -> tuple[int, list[Header], bytes]:
    """Status, headers and body of a function's result; without `statusCode` it is a JSON body."""
    try:
        result = msgspec.json.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _Malformed("the result is not JSON") from error
    if not isinstance(result, dict) or "statusCode" not in result:
        if not with_body and isinstance(result, dict):
            result = {"statusCode": 200, **result}
        else:
            return 200, [_JSON], payload
    headers: list[Header] = []
    try:
        status = int(result["statusCode"])
        if not 200 <= status <= 599:
            raise ValueError(f"the status {status}")
        for name, value in (result.get("headers") or {}).items():
            if name.lower() not in _HOP_BY_HOP:
                headers.append((name.lower(), str(value)))
        headers += [("set-cookie", str(each)) for each in result.get("cookies") or []]
        text = result.get("body") or ""
        body = base64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise _Malformed(str(error)) from error
    if not all(_TOKEN.fullmatch(name) and not _CONTROL.search(value) for name, value in headers):
        raise _Malformed("a header is not valid in HTTP")
    if not any(name == "content-type" for name, _ in headers):
        headers.append(_JSON)
    return status, headers, body


def _request_id(invocation: Invocation) -> Header:
    return ("x-amzn-requestid", invocation.id)


async def _send_message(
    writer: ResponseWriter, status: int, message: str, invocation: Invocation | None = None
) -> None:
    headers = [_JSON] if invocation is None else [_JSON, _request_id(invocation)]
    await writer.answer(status, msgspec.json.encode({"Message": message}), headers)
