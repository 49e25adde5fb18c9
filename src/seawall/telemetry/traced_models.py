"""Tracing of model calls, by OpenTelemetry's semantic conventions for GenAI.

A call of the agent loop is a span `chat MODEL` that covers retries and fallbacks; each attempt at
an endpoint is a span under it, and the upstream gets the attempt as the parent of its spans.
https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import msgspec
from msgspec import Struct, structs

from seawall.models import Finish, Model, ModelEvent, ModelRequest, Text, ToolCalls
from seawall.settings import ModelSettings
from seawall.spans import Span, current_span, error_type
from seawall.telemetry.histograms import Distributions, Key
from seawall.turn import AssistantMessage, Message, ToolCall, UserMessage

__all__ = ["AttemptTracingModel", "ChatTracingModel", "ModelIdentity", "identify_model"]

_PROVIDERS = {
    "openai": "openai",
    "responses": "openai",
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "local": "llama.cpp",
}


class ModelIdentity(Struct, frozen=True):
    """How telemetry names a model; address and port of its endpoint are empty and 0 if unknown."""

    provider: str
    model: str
    address: str = ""
    port: int = 0


def identify_model(name: str, settings: ModelSettings | None) -> ModelIdentity:
    """Name a model by its settings; one that was registered in code has none."""
    if settings is None:
        return ModelIdentity("custom", name)
    provider = _PROVIDERS[settings.kind]
    if not settings.base_url:
        return ModelIdentity(provider, settings.model or name)
    from urllib.parse import urlsplit  # noqa: PLC0415 - once at start

    parts = urlsplit(settings.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return ModelIdentity(provider, settings.model or name, parts.hostname or "", port)


class _CallResult(Struct):
    """A finished call. `events` only if content is exported; `first`: seconds to the first one."""

    last: ModelEvent | None
    events: list[ModelEvent]
    seconds: float
    first: float | None
    error: str | None


class _TracedModel:
    """A model around another; subclasses begin and end the span of a call."""

    def __init__(self, model: Model, identity: ModelIdentity, *, content: bool = False) -> None:
        self._model = model
        self._identity = identity
        self._content = content

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        clock = asyncio.get_running_loop().time
        began = clock()
        parent = current_span.get()
        span = self._begin(parent, request) if parent is not None else None
        if self._content and request.sink is not None:  # all of it is exported
            request = structs.replace(request, sink=None)
        received: list[ModelEvent] = []
        first: float | None = None
        last: ModelEvent | None = None
        error: str | None = "cancelled"  # unless it ends in another way
        try:
            async with aclosing(self._model.stream(request, deadline=deadline)) as events:
                while True:
                    # Only while the model runs: a generator shares its caller's context.
                    current_span.set(span)
                    last = await events.__anext__()
                    current_span.set(parent)
                    if first is None:
                        first = clock() - began
                    if self._content:
                        received.append(last)
                    yield last
        except StopAsyncIteration:
            error = None
        except Exception as failure:
            error = error_type(failure)
            raise
        finally:
            current_span.set(parent)
            seconds = clock() - began
            self._end(
                span,
                request,
                _CallResult(last, received, seconds=seconds, first=first, error=error),
            )

    async def warm(self) -> None:
        """See `Model.warm`."""
        await self._model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._model.close()

    def _begin(self, parent: Span, request: ModelRequest) -> Span:
        raise NotImplementedError

    def _end(self, span: Span | None, request: ModelRequest, result: _CallResult) -> None:
        raise NotImplementedError

    def _put_server_address(self, span: Span) -> None:
        if self._identity.address:
            span.put("server.address", self._identity.address)
            span.put("server.port", self._identity.port)


class AttemptTracingModel(_TracedModel):
    """Traces one attempt at one endpoint."""

    def __init__(self, name: str, model: Model, identity: ModelIdentity) -> None:
        super().__init__(model, identity)
        self._name = name

    def _begin(self, parent: Span, request: ModelRequest) -> Span:  # noqa: ARG002
        span = parent.child(f"attempt {self._name}", "client")
        span.put("seawall.model", self._name)
        self._put_server_address(span)
        return span

    def _end(self, span: Span | None, request: ModelRequest, result: _CallResult) -> None:  # noqa: ARG002
        if span is None:
            return
        if result.first is not None:
            span.put("gen_ai.response.time_to_first_chunk", result.first)
        span.end(result.error)


class ChatTracingModel(_TracedModel):
    """Traces and measures a call of the agent loop; `content`: export prompts and answers."""

    def __init__(
        self, model: Model, identity: ModelIdentity, distributions: Distributions, *, content: bool
    ) -> None:
        super().__init__(model, identity, content=content)
        self._distributions = distributions
        key: list[tuple[str, str | bool]] = [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", identity.provider),
            ("gen_ai.request.model", identity.model),
        ]
        self._key: Key = tuple(key)

    def _begin(self, parent: Span, request: ModelRequest) -> Span:
        span = parent.child(f"chat {self._identity.model}", "client")
        span.put("gen_ai.operation.name", "chat")
        span.put("gen_ai.provider.name", self._identity.provider)
        span.put("gen_ai.request.model", self._identity.model)
        span.put("gen_ai.request.stream", True)
        self._put_server_address(span)
        if request.max_tokens is not None:
            span.put("gen_ai.request.max_tokens", request.max_tokens)
        if request.temperature is not None:
            span.put("gen_ai.request.temperature", request.temperature)
        if request.prompt.output is not None:
            span.put("gen_ai.output.type", "json")
        return span

    def _end(self, span: Span | None, request: ModelRequest, result: _CallResult) -> None:
        finish = result.last if type(result.last) is Finish else None
        self._measure(finish, result)
        if span is None:
            return
        if result.first is not None:
            span.put("gen_ai.response.time_to_first_chunk", result.first)
        if finish is not None:
            usage = finish.usage
            span.put("gen_ai.response.finish_reasons", [finish.reason])
            span.put("gen_ai.usage.input_tokens", usage.prompt_tokens)
            span.put("gen_ai.usage.output_tokens", usage.completion_tokens)
            if usage.cached_prompt_tokens:
                span.put("gen_ai.usage.cache_read.input_tokens", usage.cached_prompt_tokens)
            if usage.cache_write_tokens:
                span.put("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens)
        if span.content:
            _put_content(span, request, result.events)
        span.end(result.error)

    def _measure(self, finish: Finish | None, result: _CallResult) -> None:
        measured = self._distributions
        key = self._key if result.error is None else (*self._key, ("error.type", result.error))
        measured.model_call_seconds.record(result.seconds, key)
        if result.first is not None:
            measured.model_first_chunk_seconds.record(result.first, self._key)
        if finish is not None and (finish.usage.prompt_tokens or finish.usage.completion_tokens):
            for kind, tokens in (
                ("input", finish.usage.prompt_tokens),
                ("output", finish.usage.completion_tokens),
            ):
                measured.tokens.record(tokens, (*self._key, ("gen_ai.token.type", kind)))


def _put_content(span: Span, request: ModelRequest, received: list[ModelEvent]) -> None:
    """Export prompts and answers in the form of the conventions, as JSON."""
    instructions = [{"type": "text", "content": request.prompt.instructions}]
    span.put("gen_ai.system_instructions", _json(instructions))
    span.put("gen_ai.input.messages", _json([_message(each) for each in request.messages]))
    text = "".join(each.text for each in received if isinstance(each, Text))
    requested = next((each for each in received if isinstance(each, ToolCalls)), ToolCalls(()))
    calls = requested.calls + requested.unfinished
    answer = _message(AssistantMessage(text, calls))
    reasons = [each.reason for each in received if isinstance(each, Finish)]
    if reasons:
        answer["finish_reason"] = reasons[0]
    span.put("gen_ai.output.messages", _json([answer]))


def _message(message: Message) -> dict[str, object]:
    if isinstance(message, UserMessage):
        return {"role": "user", "parts": [{"type": "text", "content": message.described}]}
    if isinstance(message, AssistantMessage):
        parts: list[Mapping[str, object]] = []
        if message.text:
            parts.append({"type": "text", "content": message.text})
        parts.extend(_call(each) for each in message.tool_calls)
        return {"role": "assistant", "parts": parts}
    part = {"type": "tool_call_response", "id": message.call_id, "result": message.content}
    return {"role": "tool", "parts": [part]}


def _call(call: ToolCall) -> Mapping[str, object]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
