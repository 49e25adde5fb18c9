"""Dispatcher: recognises the kind of an event and passes it to the target."""

import asyncio
import inspect
import logging
from functools import partial
from typing import Any

import msgspec

from seawall.errors import Problem
from seawall.hosts.aws_lambda.asgi import AsgiApp, answer_http, reject_http
from seawall.hosts.aws_lambda.context import InvocationContext, traceparent_of
from seawall.hosts.aws_lambda.http_events import (
    HttpEvent,
    Source,
    other_source,
    read_event,
    source_of,
)
from seawall.hosts.aws_lambda.runtime_api import InvocationResponse
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
            await reject_http(problem, source, answer, stream=stream, name=context.aws_request_id)
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
        await answer_http(app, request, answer, stream=stream)

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
        from seawall.identity.port import Trusted  # noqa: PLC0415

        claims = request.claims
        return Trusted(principal_of(claims, settings.tenant_claim, settings.subject_claim))
