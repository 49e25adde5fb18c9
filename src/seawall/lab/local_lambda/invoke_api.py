"""Lambda's Invoke API, as AWS's SDKs call it: whole responses and event streams.

Sources: docs.aws.amazon.com/lambda/latest/api, API_Invoke and API_InvokeWithResponseStream; the
event stream's frames: smithy.io/2.0/aws/amazon-eventstream.html.
"""

import re
import struct
import zlib

import msgspec

from seawall.lab.local_lambda.function import LocalFunction, PayloadTooLarge, Throttled
from seawall.lab.local_lambda.http_server import Header, Request, ResponseWriter
from seawall.lab.local_lambda.invocation import FunctionError, Invocation

__all__ = ["answer_invoke"]

_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations\Z")
_STREAM = re.compile(r"/2021-11-15/functions/([^/]+)/response-streaming-invocations\Z")
_JSON = ("content-type", "application/json")
_STRING = 7  # a header's type in an event stream


async def answer_invoke(function: LocalFunction, request: Request, writer: ResponseWriter) -> bool:
    """Answer a request if it belongs to this API; return whether it does."""
    path = request.target.partition("?")[0]
    streaming = _STREAM.match(path)
    found = streaming or _INVOKE.match(path)
    if found is None or request.method != "POST":
        return False
    if found[1].rpartition(":")[2] not in (function.settings.name, "$LATEST"):
        await _refuse(writer, 404, "ResourceNotFoundException", f"Function not found: {found[1]}")
        return True
    body = await request.body(function.settings.request_bytes + 1)
    kind = request.header("x-amz-invocation-type") or "RequestResponse"
    try:
        invocation = function.invoke(
            b"{}" if body == b"" else body or b" " * (function.settings.request_bytes + 1),
            client_context=request.header("x-amz-client-context"),
        )
    except Throttled as error:
        await _refuse(
            writer,
            429,
            "TooManyRequestsException",
            "Rate Exceeded.",
            headers=(("retry-after", "1"),),
            Reason=error.reason,
            Type="User",
        )
    except PayloadTooLarge as error:
        await _refuse(writer, 413, "RequestTooLargeException", str(error))
    else:
        if kind == "Event":
            invocation.abandon()
            await writer.answer(202, b"", [("x-amzn-requestid", invocation.id)])
        elif streaming:
            await _stream(invocation, writer)
        else:
            await _whole(invocation, writer)
    return True


async def _whole(invocation: Invocation, writer: ResponseWriter) -> None:
    headers = [_JSON, ("x-amzn-requestid", invocation.id), ("x-amz-executed-version", "$LATEST")]
    try:
        body = await invocation.whole()
    except FunctionError as error:
        body = error.body
        headers.append(("x-amz-function-error", "Unhandled"))
    finally:
        invocation.abandon()
    await writer.answer(200, body, headers)


async def _stream(invocation: Invocation, writer: ResponseWriter) -> None:
    complete: dict[str, object] = {}
    started = False
    try:
        try:
            head = await invocation.head()
            await _start_stream(invocation, writer, head.content_type)
            started = True
            async for piece in invocation.pieces():
                await writer.write(_frame("PayloadChunk", "application/octet-stream", piece))
        except FunctionError as error:
            detail = error.body.decode("utf-8", "replace")
            complete = {"ErrorCode": error.kind, "ErrorDetails": detail}
        if not started:
            await _start_stream(invocation, writer, "application/json")
        ending = msgspec.json.encode(complete)
        await writer.write(_frame("InvokeComplete", "application/json", ending))
        await writer.end()
    finally:
        invocation.abandon()


async def _start_stream(invocation: Invocation, writer: ResponseWriter, content_type: str) -> None:
    headers = [
        ("content-type", "application/vnd.amazon.eventstream"),
        ("x-amzn-requestid", invocation.id),
        ("x-amz-executed-version", "$LATEST"),
        ("x-amzn-remapped-content-type", content_type),
    ]
    await writer.start(200, headers)


def _frame(event: str, content_type: str, payload: bytes) -> bytes:
    """One event stream message: lengths, their checksum, headers, payload, checksum of all."""
    headers = {":message-type": "event", ":event-type": event, ":content-type": content_type}
    encoded = b""
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        encoded += struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
    lengths = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = lengths + struct.pack("!I", zlib.crc32(lengths)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))


async def _refuse(
    writer: ResponseWriter,
    status: int,
    kind: str,
    message: str,
    *,
    headers: tuple[Header, ...] = (),
    **detail: str,
) -> None:
    body = msgspec.json.encode({"message": message, **detail})
    await writer.answer(status, body, [_JSON, ("x-amzn-errortype", kind), *headers])
