"""Dispatcher: recognises the kind of an event and has the target answer it."""

import asyncio
import inspect
import logging
from functools import partial
from typing import Any, Protocol

import msgspec

from seawall.errors import Problem
from seawall.hosts.aws_lambda.http_events import (
    INTEGRATION,
    AsgiApp,
    HttpEvent,
    Message,
    Source,
    http_response,
    is_schedule,
    other_source,
    read_event,
    source_of,
    stream_prelude,
)
from seawall.hosts.aws_lambda.runtime_api import (
    InvocationContext,
    InvocationResponse,
    traceparent_of,
)
from seawall.hosts.aws_lambda.target import Handler, LambdaSettings, Target

__all__ = ["Dispatcher", "HandlerHung", "UnknownEvent"]

_log = logging.getLogger("seawall.lambda")
_MAX_HUNG = 32
_TRACE = b"x-amzn-trace-id"


class UnknownEvent(Exception):
    """The function does not answer events of this kind."""

    code = "Seawall.UnknownEvent"


class HandlerHung(Exception):
    """Too many calls of the handler have not returned; the process must be replaced."""

    code = "Seawall.HandlerHangs"


class ResponseWriter(Protocol):
    """Takes the response to an invocation."""

    async def respond(self, payload: bytes) -> None:
        """Send a complete response."""
        ...

    async def begin(self, content_type: str) -> None:
        """Begin a streamed response."""
        ...

    async def write(self, piece: bytes) -> None:
        """Send a piece of a streamed response."""
        ...

    async def end(self) -> None:
        """End a streamed response."""
        ...


class Dispatcher:
    """Answers invocations by a target."""

    def __init__(self, target: Target, settings: LambdaSettings, concurrency: int = 1) -> None:
        """Create a dispatcher.

        Args:
            target: Answers the events.
            settings: Of the function.
            concurrency: Invocations in flight at most.
        """
        self._target = target
        self._settings = settings
        self.margin_seconds = settings.margin_seconds
        if target.handler is not None:
            from seawall.tools.execution import CallExecutor  # noqa: PLC0415 - only for plain handlers

            # A call that hangs keeps its thread somewhat longer than its invocation.
            self._calls = CallExecutor(
                max_threads=concurrency + _MAX_HUNG,
                max_hung=_MAX_HUNG,
                grace_seconds=settings.margin_seconds / 4,
            )
        identified = settings.authorizer or settings.direct or settings.queue
        if target.orchestrator is not None and not identified:
            identity = target.orchestrator.settings.identity
            if identity.warning:
                _log.warning("%s", identity.warning)

    async def answer(
        self, payload: bytes, context: InvocationContext, answer: InvocationResponse
    ) -> None:
        """Answer one invocation.

        Args:
            payload: The event as JSON.
            context: Of the invocation.
            answer: Takes the response.

        Raises:
            UnknownEvent: The function does not answer events of this kind.
            HandlerHung: The handler cannot be called any more.
            ApiError: The Runtime API did not accept the response.
            Exception: Any that the application raises.
        """
        try:
            event: Any = msgspec.json.decode(payload)
        except (ValueError, RecursionError) as error:
            raise UnknownEvent(f"the event is not JSON: {error}") from error
        if self._target.handler is not None:
            await self._call(self._target.handler, event, context, answer)
        elif self._target.app is not None:
            await self._answer_app(self._target.app, event, context, answer)

    async def finish_background(self, context: InvocationContext) -> None:
        """Finish background work after the response to an invocation."""
        left = context.deadline - self.margin_seconds - asyncio.get_running_loop().time()
        await self._target.finish_background(max(0.0, left))

    async def _answer_app(
        self,
        app: AsgiApp,
        event: Any,  # noqa: ANN401 - JSON of any kind
        context: InvocationContext,
        answer: InvocationResponse,
    ) -> None:
        if (source := source_of(event)) is not None:
            await self._answer_http(app, event, source, context, answer)
            return
        if self._target.orchestrator is None:
            raise UnknownEvent("the function serves an ASGI application: only HTTP events")
        deadline = self._deadline(context)
        if is_schedule(event) and self._target.orchestrator.settings.handover.url:
            await answer.respond(b"null")  # what is due is done after the response
            return
        if other := other_source(event):
            raise UnknownEvent(f"the function answers no events of {other}")
        # Imported here because functions with HTTP events only do not need it.
        from seawall.hosts.aws_lambda import turns  # noqa: PLC0415

        if turns.is_batch(event):
            if not self._settings.queue:
                raise UnknownEvent("turns from SQS are off; SEAWALL_LAMBDA_QUEUE=true enables them")
            await answer.respond(await turns.answer_batch(app, event["Records"], deadline=deadline))
        else:
            if not self._settings.direct:
                raise UnknownEvent("direct turns are off; SEAWALL_LAMBDA_DIRECT=true enables them")
            await answer.respond(
                await turns.answer_direct(
                    app, event, deadline=deadline, request=context.aws_request_id
                )
            )

    async def _answer_http(
        self,
        app: AsgiApp,
        event: dict[str, Any],
        source: Source,
        context: InvocationContext,
        answer: InvocationResponse,
    ) -> None:
        settings = self._settings
        stream = settings.stream == "always" and source in ("url", "rest")
        stream |= settings.stream == "auto" and source == "url"
        try:
            request = read_event(event, source, base_path=settings.base_path)
        except Problem as problem:
            await _reject_http(problem, source, answer, stream=stream, name=context.aws_request_id)
            return
        scope = request.scope
        scope["seawall.request_id"] = context.aws_request_id
        credential = None
        try:
            credential = self._credential(request)
        except Problem as problem:
            scope["seawall.refusal"] = problem
        scope["aws.event"] = event
        scope["aws.context"] = context
        scope["seawall.deadline"] = self._deadline(context)
        if self._target.lifespan is not None:
            scope["state"] = self._target.lifespan.state.copy()
        if context.trace_id and not any(name == _TRACE for name, _ in scope["headers"]):
            scope["headers"].append((_TRACE, context.trace_id.encode("latin-1", "replace")))
        traced = any(name == b"traceparent" for name, _ in scope["headers"])
        if not traced and (traceparent := traceparent_of(context.trace_id)):
            scope["headers"].append((b"traceparent", traceparent))
        if credential is not None:
            scope["seawall.credential"] = credential
        await _run_application(app, request, answer, stream=stream)

    async def _call(
        self,
        handler: Handler,
        event: object,
        context: InvocationContext,
        answer: InvocationResponse,
    ) -> None:
        """Call a plain handler as AWS's runtimes do; an async generator is streamed."""
        if inspect.isasyncgenfunction(handler):
            begun = False
            async for piece in handler(event, context):
                if not begun:
                    begun = True
                    await answer.begin("application/octet-stream")
                await answer.write(piece if isinstance(piece, bytes) else str(piece).encode())
            if not begun:
                await answer.begin("application/octet-stream")
            await answer.end()
            return
        # The runtime ends the invocation before this deadline; then the call is abandoned.
        call, name, deadline = partial(handler, event, context), "handler", context.deadline
        try:
            if inspect.iscoroutinefunction(handler):
                ended = await self._calls.in_task(name, call, deadline)
            else:  # it may block, and the loop must not
                ended = await self._calls.in_thread(name, call, deadline)
        except self._calls.Refused as refusal:
            raise HandlerHung(str(refusal)) from None
        if ended.error is not None:
            raise ended.error
        await answer.respond(msgspec.json.encode(ended.value))

    def _deadline(self, context: InvocationContext) -> float:
        """A deadline before the runtime's own, so that the application can report the timeout."""
        return context.deadline - 2 * self.margin_seconds

    def _credential(self, request: HttpEvent) -> object:
        """The credential from the API's authorizer; None if it has none, or is not used."""
        settings = self._settings
        if not (settings.authorizer and self._target.orchestrator is not None and request.claims):
            return None
        from seawall.hosts.aws_lambda.turns import principal_of  # noqa: PLC0415
        from seawall.identity import Trusted  # noqa: PLC0415

        claims = request.claims
        names = (settings.tenant_claim, settings.subject_claim, settings.roles_claim)
        return Trusted(principal_of(claims, *names))


async def _run_application(
    app: AsgiApp, event: HttpEvent, writer: ResponseWriter, *, stream: bool
) -> None:
    """Have the application answer one request.

    Args:
        app: The application.
        event: The request.
        writer: Takes the response.
        stream: Whether the response is streamed.

    Raises:
        RuntimeError: The application ended before its response was complete, or sent messages in
            the wrong order.
        Exception: Any that it raises.
    """
    exchange = _Exchange(event, writer, stream=stream)
    await app(event.scope, exchange.receive, exchange.send)
    if not exchange.complete:
        raise RuntimeError("the application ended before its response was complete")


async def _reject_http(
    problem: Problem, source: Source, writer: ResponseWriter, *, stream: bool, name: str
) -> None:
    """Answer a request with a problem, without calling the application.

    Args:
        problem: What is wrong.
        source: Of the event.
        writer: Takes the response.
        stream: Whether the response is streamed.
        name: The id of the request.
    """
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"x-request-id", name.encode("ascii", "replace")),
    ]
    body = msgspec.json.encode(problem.as_dict() | {"request_id": name})
    if not stream:
        await writer.respond(http_response(problem.status, headers, body, source))
        return
    await writer.begin(INTEGRATION)
    await writer.write(stream_prelude(problem.status, headers, source) + body)
    await writer.end()


class _Exchange:
    def __init__(self, event: HttpEvent, writer: ResponseWriter, *, stream: bool) -> None:
        self._event = event
        self._writer = writer
        self._stream = stream
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._read = False
        self._over = asyncio.Event()
        self._head_only = event.scope["method"] == "HEAD"
        self.complete = False

    async def receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._event.body, "more_body": False}
        await self._over.wait()  # Lambda does not report that a client has disconnected
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self._status:
            self._status = message["status"]
            self._headers = [
                (bytes(name), bytes(value)) for name, value in message.get("headers", ())
            ]
            if self._stream:
                await self._writer.begin(INTEGRATION)
                head = stream_prelude(self._status, self._headers, self._event.source)
                await self._writer.write(head)
        elif kind == "http.response.body" and self._status and not self.complete:
            piece = b"" if self._head_only else message.get("body", b"")
            last = not message.get("more_body", False)
            if self._stream:
                if piece:
                    await self._writer.write(piece)
                if last:
                    self.complete = True
                    await self._writer.end()
            else:
                self._body.append(piece)
                if last:
                    self.complete = True
                    await self._writer.respond(
                        http_response(
                            self._status, self._headers, b"".join(self._body), self._event.source
                        )
                    )
            if last:
                self._over.set()
        else:
            raise RuntimeError(f"the application sent an unexpected {kind!r}")
