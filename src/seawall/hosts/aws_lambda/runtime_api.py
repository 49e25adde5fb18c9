"""Client of the Lambda Runtime API (2018-06-01): its connection, invocations and responses to them.

Source: docs.aws.amazon.com/lambda/latest/dg, runtimes-api and runtimes-custom. The HTTP client of
`transport` is not used: it has neither streamed request bodies nor trailers, and imports more.

An invocation has a context, as handlers get it, which log lines name.
"""

import asyncio
import base64
import io
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import httptools
import msgspec
from msgspec import Struct

from seawall.hosts.log_filter import FloodFilter

__all__ = [
    "ApiConnection",
    "ApiError",
    "ApiResponse",
    "InvocationContext",
    "InvocationResponse",
    "context_of",
    "current_invocation",
    "error_body",
    "error_kind",
    "is_request_id",
    "set_up_logs",
    "traceparent_of",
]

_log = logging.getLogger("seawall.lambda")
_LONGEST_SECONDS = 900.0  # the longest timeout: lambda/latest/dg, gettingstarted-limits
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}")
_TRACE_ID = re.compile(r"[!-~ ]{0,1024}")
_ROOT = r"1-([0-9a-f]{8})-([0-9a-f]{24})"
_PARENT = r"[0-9a-f]{16}"


class InvocationContext(Struct, frozen=True):
    """The context of one invocation, with the attributes of AWS's context object.

    Attributes:
        aws_request_id: Of the invocation.
        deadline: Seconds on the event loop's clock.
        invoked_function_arn: With version or alias, if the caller gave one.
        trace_id: X-Ray's tracing header.
        client_context: JSON from AWS's mobile SDK, like `cognito_identity`; empty without it.
        tenant_id: Of Lambda's tenant isolation.
        invocation_id: To be repeated in the response on managed instances.
    """

    aws_request_id: str
    deadline: float
    invoked_function_arn: str = ""
    trace_id: str = ""
    client_context: str = ""
    cognito_identity: str = ""
    tenant_id: str = ""
    invocation_id: str = ""
    function_name: str = ""
    function_version: str = ""
    memory_limit_in_mb: str = ""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function times out, as in AWS's context object."""
        return max(0, int((self.deadline - asyncio.get_running_loop().time()) * 1e3))


current_invocation: ContextVar[InvocationContext | None] = ContextVar(
    "current_invocation", default=None
)
"""The invocation that the current task belongs to, for logs and outgoing calls."""


def context_of(headers: Mapping[str, str], environment: Mapping[str, str]) -> InvocationContext:
    """Read the context of a received invocation.

    The deadline is sent as Unix time, which is correct after a restore, unlike monotonic clocks.
    If it is missing or invalid, the longest timeout of a function is assumed: Lambda ends the
    environment at the real one.

    Args:
        headers: Of `invocation/next`, names in lower case.
        environment: Of the function.
    """
    loop = asyncio.get_running_loop()
    trace_id = headers.get("lambda-runtime-trace-id", "")
    return InvocationContext(
        aws_request_id=headers.get("lambda-runtime-aws-request-id", ""),
        deadline=loop.time() + _seconds_left(headers.get("lambda-runtime-deadline-ms", "")),
        invoked_function_arn=headers.get("lambda-runtime-invoked-function-arn", ""),
        trace_id=trace_id if _TRACE_ID.fullmatch(trace_id) else "",
        client_context=headers.get("lambda-runtime-client-context", ""),
        cognito_identity=headers.get("lambda-runtime-cognito-identity", ""),
        tenant_id=headers.get("lambda-runtime-aws-tenant-id", ""),
        invocation_id=headers.get("lambda-runtime-invocation-id", ""),
        function_name=environment.get("AWS_LAMBDA_FUNCTION_NAME", ""),
        function_version=environment.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
        memory_limit_in_mb=environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""),
    )


def is_request_id(text: str) -> bool:
    """Whether an invocation with this id can be answered: the id becomes part of a path."""
    return _REQUEST_ID.fullmatch(text) is not None


def traceparent_of(header: str) -> bytes:
    """X-Ray's tracing header as the W3C header `traceparent`; empty if AWS does not trace.

    Without tracing by AWS, the header names a trace that is not sampled; then sampling is our own
    decision. https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
    """
    fields = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    if fields.get("Sampled") != "1":
        return b""
    root = re.fullmatch(_ROOT, fields.get("Root", ""))
    parent = fields.get("Parent", "")
    if root is None or not re.fullmatch(_PARENT, parent):
        return b""
    return f"00-{root[1]}{root[2]}-{parent}-01".encode()


def _seconds_left(deadline_ms: str) -> float:
    if len(deadline_ms) <= 20:
        try:
            return min(_LONGEST_SECONDS, int(deadline_ms) / 1e3 - time.time())
        except ValueError:
            pass
    _log.warning("the invocation's deadline cannot be read: %.40r", deadline_ms)
    return _LONGEST_SECONDS


_LEVELS = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        invocation = current_invocation.get()
        request = invocation.aws_request_id if invocation is not None else ""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = f"[{record.levelname}]\t{at}.{int(record.msecs):03}Z\t{request}\t"
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _invocation_fields() -> dict[str, object]:
    invocation = current_invocation.get()
    if invocation is None:
        return {}
    fields: dict[str, object] = {"requestId": invocation.aws_request_id}
    if invocation.tenant_id:
        fields["tenantId"] = invocation.tenant_id
    return fields


def set_up_logs(environment: Mapping[str, str]) -> None:
    """Log to standard output, with the format and level of the function's configuration."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a lone surrogate must not lose the line
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(FloodFilter())
    if environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
        from seawall.hosts.json_lines import JsonFormatter  # noqa: PLC0415 - only if configured

        handler.setFormatter(JsonFormatter(_invocation_fields))
    else:
        handler.setFormatter(_TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = _LEVELS.get(level, level)
    if level in logging.getLevelNamesMapping():
        root.setLevel(level)


_PATH = "/2018-06-01/runtime/"
_CONNECT_SECONDS = 5.0
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_MAX_TRAILER_BYTES = 32_768
_MAX_ANSWER_BYTES = 16 << 20
_MAX_HEAD_BYTES = 256 << 10
_MAX_TYPE_CHARACTERS = 256
_MAX_MESSAGE_CHARACTERS = 10_000
_MAX_FRAMES = 50
_FAIL_SECONDS = 5.0


class ApiError(Exception):
    """The Runtime API has closed the connection, or does not speak HTTP."""


class ApiResponse(Struct, frozen=True):
    """A response of the Runtime API. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ApiConnection(asyncio.Protocol):
    """A connection for one exchange at a time; opened when first used and again after a loss."""

    def __init__(self, address: str) -> None:
        """Create a connection.

        Args:
            address: Host and port, as in AWS_LAMBDA_RUNTIME_API.
        """
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[ApiResponse] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._host = b"host: " + address.encode("ascii") + b"\r\n"
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0

    # Called by the runtime.

    async def get(self, path: str) -> ApiResponse:
        """Send a GET request and wait without a timeout: the process may be frozen meanwhile.

        Raises:
            ApiError: The connection could not be made, or was closed.
        """
        transport = await self._open()
        answer = self._begin()
        transport.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (_target(path), self._host))
        return await self._received(answer)

    async def post(
        self, path: str, body: bytes, *, error_type: str = "", invocation_id: str = ""
    ) -> ApiResponse:
        """Send a POST request.

        Raises:
            ApiError: The connection could not be made, or was closed.
        """
        transport = await self._open()
        answer = self._begin()
        head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        if error_type:
            kind = _value(error_type[:_MAX_TYPE_CHARACTERS])
            head += b"%b: %b\r\n" % (_ERROR_TYPE.encode(), kind)
        head += _invocation(invocation_id)
        transport.write(b"POST %b HTTP/1.1\r\n%b%b\r\n" % (_target(path), self._host, head))
        transport.write(body)
        return await self._received(answer)

    async def begin_stream(self, path: str, content_type: str, invocation_id: str = "") -> None:
        """Begin a POST request whose body is streamed.

        Raises:
            ApiError: The connection could not be made.
        """
        transport = await self._open()
        _ = self._begin()
        transport.write(
            b"POST %b HTTP/1.1\r\n%bcontent-type: %b\r\n"
            b"lambda-runtime-function-response-mode: streaming\r\n"
            b"transfer-encoding: chunked\r\ntrailer: %b\r\ntrailer: %b\r\n%b\r\n"
            % (
                _target(path),
                self._host,
                _value(content_type),
                _ERROR_TYPE.encode(),
                _ERROR_BODY.encode(),
                _invocation(invocation_id),
            )
        )

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body; waits for a slow receiver.

        Raises:
            ApiError: The stream was refused, or the connection closed.
        """
        transport = self._transport
        answer = self._answer
        if transport is None or answer is None or answer.done():
            raise ApiError("the Runtime API does not accept the response any more")
        if piece:
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if self._writable is not None:
            waited: list[asyncio.Future[Any]] = [self._writable, answer]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    async def end_stream(self, *, error_type: str = "", error: bytes = b"") -> ApiResponse:
        """End the body; with error trailers if it is incomplete.

        Raises:
            ApiError: The connection was closed.
        """
        if self._transport is None or self._answer is None:
            raise ApiError("the Runtime API has closed the connection")
        trailers = b""
        if error_type:
            encoded = base64.b64encode(error[:_MAX_TRAILER_BYTES])
            trailers = b"%b: %b\r\n%b: %b\r\n" % (
                _ERROR_TYPE.encode(),
                _value(error_type[:_MAX_TYPE_CHARACTERS]),
                _ERROR_BODY.encode(),
                encoded,
            )
        self._transport.write(b"0\r\n%b\r\n" % trailers)
        return await self._received(self._answer)

    def close(self) -> None:
        """Close the connection; a pending exchange fails."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _received(self, answer: "asyncio.Future[ApiResponse]") -> ApiResponse:
        """Wait for the response; if cancelled, the connection is closed."""
        try:
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise

    async def _open(self) -> asyncio.Transport:
        if self._transport is not None and not self._transport.is_closing():
            return self._transport
        host, _, port = self._address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, _ = await loop.create_connection(lambda: self, host, int(port))
        except (OSError, ValueError) as error:
            raise ApiError(f"the Runtime API at {self._address}: {error}") from error
        return transport

    def _begin(self) -> "asyncio.Future[ApiResponse]":
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ApiError(f"the Runtime API does not speak HTTP/1.1: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self.resume_writing()
        self._fail(ApiError(f"the Runtime API closed the connection{f': {exc}' if exc else ''}"))

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _fail(self, error: ApiError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # marks it as retrieved, in case it is never awaited

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._head_size += len(name) + len(value)
        if self._head_size > _MAX_HEAD_BYTES:
            self._fail(ApiError(f"the Runtime API sent more than {_MAX_HEAD_BYTES} bytes of head"))
            self.close()
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._size += len(body)
        if self._size <= _MAX_ANSWER_BYTES:
            self._body.append(body)
        else:
            self._fail(ApiError(f"the Runtime API sent more than {_MAX_ANSWER_BYTES} bytes"))
            self.close()

    def on_message_complete(self) -> None:
        """See httptools."""
        answer = self._answer
        status = self._parser.get_status_code()
        if status < 200:  # informational: the response follows
            self._headers, self._body, self._size = {}, [], 0
            return
        if answer is None or answer.done():
            self.close()  # a response without a request
            return
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
            self._transport = None
        answer.set_result(ApiResponse(status, self._headers, b"".join(self._body)))


class InvocationResponse:
    """A response: complete, streamed, or an error. Implements `asgi.ResponseWriter`."""

    __slots__ = ("_begun", "_connection", "_context", "_done")

    def __init__(self, connection: ApiConnection, context: InvocationContext) -> None:
        self._connection = connection
        self._context = context
        self._begun = False
        self._done = False

    async def respond(self, payload: bytes) -> None:
        """Send a complete response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        self._done = True
        self._check(
            await self._connection.post(
                f"invocation/{self._context.aws_request_id}/response",
                payload,
                invocation_id=self._context.invocation_id,
            )
        )

    async def begin(self, content_type: str) -> None:
        """Begin a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        self._begun = True
        await self._connection.begin_stream(
            f"invocation/{self._context.aws_request_id}/response",
            content_type,
            self._context.invocation_id,
        )

    async def write(self, piece: bytes) -> None:
        """Send a piece of a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        await self._connection.write(piece)

    async def end(self) -> None:
        """End a streamed response.

        Raises:
            ApiError: The Runtime API did not accept it.
        """
        self._check_open()
        self._done = True
        self._check(await self._connection.end_stream())

    async def fail(self, kind: str, error: BaseException) -> None:
        """Report that the invocation failed; by trailers if a response has begun.

        Nothing can be added to the response afterwards.

        Args:
            kind: The type of the error.
            error: Its message and traceback are reported.
        """
        if self._done:
            self._connection.close()  # a response that was being sent is incomplete
            return
        self._done = True
        body = error_body(kind, error)
        try:
            async with asyncio.timeout(_FAIL_SECONDS):
                if self._begun:
                    self._check(await self._connection.end_stream(error_type=kind, error=body))
                else:
                    self._check(
                        await self._connection.post(
                            f"invocation/{self._context.aws_request_id}/error",
                            body,
                            error_type=kind,
                            invocation_id=self._context.invocation_id,
                        )
                    )
        except (ApiError, TimeoutError) as failure:
            _log.error("the failure could not be reported to Lambda: %s", failure)
            self._connection.close()

    def _check_open(self) -> None:
        if self._done:
            raise ApiError("the invocation was answered already")

    def _check(self, answer: ApiResponse) -> None:
        if answer.status >= 300:
            text = answer.body[:500].decode("utf-8", "replace")
            raise ApiError(f"the Runtime API answered with {answer.status}: {text}")


def error_kind(error: BaseException) -> str:
    """The type by which an error is reported: its code, if it has one, else its class."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code else type(error).__name__


def error_body(kind: str, error: BaseException) -> bytes:
    """An error in the format of AWS's runtime."""
    try:
        message = str(error)[:_MAX_MESSAGE_CHARACTERS]
    except Exception:  # noqa: BLE001 - user code may raise anything
        message = type(error).__name__
    trace = traceback.format_tb(error.__traceback__, limit=-_MAX_FRAMES)
    return msgspec.json.encode(
        {
            "errorMessage": _encodable(message),
            "errorType": _encodable(kind[:_MAX_TYPE_CHARACTERS]),
            "stackTrace": [_encodable(each) for each in trace],
        }
    )


def _encodable(text: str) -> str:
    """Escape lone surrogates, which JSON in UTF-8 cannot contain."""
    return text.encode("utf-8", "backslashreplace").decode()


def _target(path: str) -> bytes:
    return (_PATH + path).encode("ascii")


def _value(text: str) -> bytes:
    """A header value as one line of visible ASCII."""
    return "".join(each if " " <= each <= "~" else "?" for each in text).encode("ascii")


def _invocation(invocation_id: str) -> bytes:
    with suppress(UnicodeEncodeError):
        if invocation_id:
            return b"lambda-runtime-invocation-id: %b\r\n" % invocation_id.encode("ascii")
    return b""
