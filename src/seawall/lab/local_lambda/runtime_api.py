"""The Runtime API of one environment, version 2018-06-01.

Sources: docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html and runtimes-custom.html; the
states, codes and texts that they do not specify are those of AWS's own emulator
(github.com/aws/aws-lambda-runtime-interface-emulator).
"""

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from seawall.lab.local_lambda.http_server import Header, Request, ResponseWriter
from seawall.lab.local_lambda.invocation import FunctionError, Head, Invocation, error_body
from seawall.lab.local_lambda.settings import FunctionSettings

__all__ = ["InitFailed", "RuntimeApi"]

_PREFIX = "/2018-06-01/runtime/"
_JSON = ("content-type", "application/json")
_ERROR_TYPE = "lambda-runtime-function-error-type"
_ERROR_BODY = "lambda-runtime-function-error-body"
_OK = b'{"status":"OK"}\n'
_Poller = tuple["asyncio.Future[Invocation]", ResponseWriter]


class InitFailed(Exception):
    """An environment failed to initialise; `body` is returned to the caller, `kind` its type."""

    def __init__(self, kind: str, body: bytes) -> None:
        super().__init__(f"{kind}: {body[:500].decode('utf-8', 'replace')}")
        self.kind = kind
        self.body = body


class RuntimeApi:
    """The Runtime API of one environment.

    Attributes:
        ready: Done when the environment is initialised or has failed.
        restoring: Done when it is restored from its snapshot or has failed.
    """

    def __init__(self, settings: FunctionSettings, changed: Callable[[], None]) -> None:
        """Create the API.

        Args:
            settings: Of the function.
            changed: Called when the environment asks for an invocation or has answered one.
        """
        self._settings = settings
        self._changed = changed
        self._waiting: deque[_Poller] = deque()
        self._backlog: deque[Invocation] = deque()
        self._in_flight: dict[str, Invocation] = {}
        self._restored = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.restoring: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not settings.snapstart:
            self.restore()

    @property
    def idle(self) -> bool:
        """Whether the environment waits for an invocation and has none."""
        return bool(self._waiting) and not self._in_flight and not self._backlog

    def restore(self) -> None:
        """Answer the request to be restored from the snapshot."""
        self._restored.set()

    def offer(self, invocation: Invocation) -> None:
        """Give the environment an invocation, now or when it asks for one."""
        while self._waiting:
            future, writer = self._waiting.popleft()
            if not future.done() and writer.client_connected:
                self._in_flight[invocation.id] = invocation
                future.set_result(invocation)
                return
        self._backlog.append(invocation)

    def drop(self, invocation: Invocation) -> None:
        """Withdraw an invocation after its deadline; later responses to it are refused."""
        self._in_flight.pop(invocation.id, None)
        with suppress(ValueError):
            self._backlog.remove(invocation)

    def fail(self, kind: str, message: Callable[[str], str]) -> None:
        """Fail the dead environment's invocations; `message` makes the text from a request id."""
        for invocation in self._backlog:
            invocation.return_undelivered()
        for invocation in self._in_flight.values():
            text = message(invocation.id)
            invocation.finish(FunctionError(kind, error_body(kind, text)))
        self._in_flight.clear()
        self._backlog.clear()
        for polled, _ in self._waiting:
            polled.cancel()  # its connection is gone
        self._restored.set()
        for future in (self.ready, self.restoring):
            if not future.done():
                future.set_exception(InitFailed(kind, error_body(kind, message("-"))))
                future.exception()

    async def handle(self, request: Request, writer: ResponseWriter) -> None:
        """Answer a request of the environment."""
        path = request.target.partition("?")[0]
        route = (request.method, path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else "")
        match route:
            case ("GET", "invocation/next"):
                await self._next(writer)
            case ("GET", "restore/next"):
                await self._restore_next(writer)
            case ("POST", "init/error" | "restore/error"):
                await self._init_error(request, writer)
            case ("POST", rest) if rest.startswith("invocation/") and rest.endswith("/response"):
                await self._response(rest.split("/")[1], request, writer)
            case ("POST", rest) if rest.startswith("invocation/") and rest.endswith("/error"):
                await self._error(rest.split("/")[1], request, writer)
            case _:
                await _refuse(writer, 404, "NotFound", f"no such endpoint: {path[:200]}")

    async def _next(self, writer: ResponseWriter) -> None:
        self._waiting = deque(each for each in self._waiting if each[1].client_connected)
        if len(self._waiting) + len(self._in_flight) >= self._settings.max_concurrency:
            await _refuse(writer, 403, "InvalidStateTransition", "an invocation is still in flight")
            return
        for future in (self.ready, self.restoring):
            if not future.done():
                future.set_result(None)
        if self._backlog:
            invocation = self._backlog.popleft()
            self._in_flight[invocation.id] = invocation
        else:
            polled: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
            self._waiting.append((polled, writer))
            self._changed()
            invocation = await polled
        headers: list[Header] = [
            _JSON,
            ("lambda-runtime-aws-request-id", invocation.id),
            ("lambda-runtime-deadline-ms", str(invocation.deadline_ms)),
            ("lambda-runtime-invoked-function-arn", self._settings.arn),
            ("lambda-runtime-trace-id", invocation.trace),
        ]
        if invocation.client_context:
            headers.append(("lambda-runtime-client-context", invocation.client_context))
        await writer.answer(200, invocation.payload, headers)

    async def _restore_next(self, writer: ResponseWriter) -> None:
        if self.ready.done() or self._restored.is_set():
            await _refuse(writer, 403, "InvalidStateTransition", "there is nothing to restore")
            return
        self.ready.set_result(None)
        self._changed()
        await self._restored.wait()
        await writer.answer(200, b"", [_JSON])

    async def _init_error(self, request: Request, writer: ResponseWriter) -> None:
        kind = request.header(_ERROR_TYPE) or "Runtime.Unknown"
        future = self.restoring if request.target.endswith("restore/error") else self.ready
        body = await request.body(self._settings.response_bytes)
        if future.done():
            await _refuse(writer, 403, "InvalidStateTransition", "the initialisation is over")
            return
        future.set_exception(InitFailed(kind, body or error_body(kind, "the error is too long")))
        future.exception()
        await writer.answer(202, _OK, [_JSON])

    async def _response(self, request_id: str, request: Request, writer: ResponseWriter) -> None:
        invocation = self._in_flight.get(request_id)
        if invocation is None or invocation.answering:
            await request.skip()
            await _refuse(writer, 400, "InvalidRequestID", "Invalid request ID")
            return
        invocation.answering = True
        streaming = request.header("lambda-runtime-function-response-mode") == "streaming"
        failed = await (_stream if streaming else _whole)(invocation, request, self._settings)
        invocation.finish(failed)
        self._end(invocation)
        if failed is not None and failed.kind == "Function.ResponseSizeTooLarge":
            await _refuse(writer, 413, "RequestEntityTooLarge", "the answer is too large")
        else:
            await writer.answer(202, _OK, [_JSON])

    async def _error(self, request_id: str, request: Request, writer: ResponseWriter) -> None:
        invocation = self._in_flight.get(request_id)
        body = await request.body(self._settings.response_bytes)
        if invocation is None or invocation.answering:
            await _refuse(writer, 400, "InvalidRequestID", "Invalid request ID")
            return
        kind = request.header(_ERROR_TYPE) or "Runtime.Unknown"
        invocation.finish(FunctionError(kind, body or error_body(kind, "the error is too long")))
        self._end(invocation)
        await writer.answer(202, _OK, [_JSON])

    def _end(self, invocation: Invocation) -> None:
        self._in_flight.pop(invocation.id, None)
        self._changed()


async def _whole(
    invocation: Invocation, request: Request, settings: FunctionSettings
) -> FunctionError | None:
    limit = settings.response_bytes
    body = await request.body(limit)
    if body is None:
        kind = "Function.ResponseSizeTooLarge"
        text = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
        return FunctionError(kind, error_body(kind, text))
    invocation.begin(Head(request.header("content-type"), streaming=False))
    await invocation.put(body)
    return None


async def _stream(
    invocation: Invocation, request: Request, settings: FunctionSettings
) -> FunctionError | None:
    invocation.begin(Head(request.header("content-type"), streaming=True))
    size = 0
    try:
        async for piece in request.pieces():
            size += len(piece)
            if size > settings.streamed_bytes:
                await request.skip()
                kind = "Function.ResponseSizeTooLarge"
                text = f"the stream has more than {settings.streamed_bytes} bytes"
                return FunctionError(kind, error_body(kind, text))
            if size > settings.response_bytes:
                await asyncio.sleep(len(piece) / settings.bandwidth)
            await invocation.put(piece)
    except asyncio.IncompleteReadError:
        kind = "Runtime.TruncatedResponse"
        return FunctionError(kind, error_body(kind, "the stream was interrupted"))
    kind = request.trailers.get(_ERROR_TYPE, "")
    if not kind:
        return None
    return FunctionError(kind, _error_from_trailer(request.trailers.get(_ERROR_BODY, ""), kind))


def _error_from_trailer(encoded: str, kind: str) -> bytes:
    """The error in a trailer, which is in base64."""
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return error_body(kind, "the error's body cannot be read")


async def _refuse(writer: ResponseWriter, status: int, kind: str, message: str) -> None:
    body = msgspec.json.encode({"errorType": kind, "errorMessage": message})
    await writer.answer(status, body, [_JSON])
