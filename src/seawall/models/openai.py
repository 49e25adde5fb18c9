"""A client of any server that speaks OpenAI's chat completions, streaming.

Wire format: https://platform.openai.com/docs/api-reference/chat/create and its streaming page.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.models.failures import failure_of
from seawall.models.port import Finish, ModelEvent, ModelRequest, Prompt, Text, ToolCalls
from seawall.transport.errors import TransportError, TransportTimeout
from seawall.transport.http_client import Endpoint, HttpClient, Response
from seawall.transport.sse import ServerSentEvent, SseParser
from seawall.turn import AssistantMessage, Message, ToolCall, Usage, UserMessage

__all__ = ["OpenAIModel", "OpenAISettings"]

_MAX_EVENT_BYTES = 1 << 20
_MAX_ANSWER_CHARACTERS = 1 << 20
_MAX_ERROR_BYTES = 16_384
_MAX_CALLS = 64

_log = logging.getLogger("seawall.models")


class OpenAISettings(Struct, frozen=True, kw_only=True):
    """Where the endpoint is and how it wants to be asked.

    base_url: up to and without `/chat/completions`. api_key: empty for none.
    length_field: the name under which the server takes the bound on written tokens.
    warm: connections to open ahead.
    """

    base_url: str
    model: str
    api_key: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    warm: int = 1


class _FunctionDelta(Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(Struct):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(Struct):
    content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(Struct):
    delta: _Delta = field(default_factory=_Delta)
    finish_reason: str | None = None


class _WireUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(Struct):
    choices: list[_Choice] = field(default_factory=list)
    usage: _WireUsage | None = None
    error: msgspec.Raw | UnsetType = UNSET


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.Encoder().encode


class OpenAIModel:
    """One model of one OpenAI-compatible endpoint; implements the model port."""

    def __init__(self, name: str, settings: OpenAISettings, client: HttpClient) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse(settings.base_url.rstrip("/") + "/chat/completions")
        headers = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
        if settings.api_key:
            headers.append((b"authorization", b"Bearer " + settings.api_key.encode()))
        self._headers = tuple(headers)
        # Prompts live as long as their agents; each is encoded once.
        self._heads: WeakKeyDictionary[Prompt, bytes] = WeakKeyDictionary()

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        reading = _Reading(self._name)
        try:
            async with self._client.stream(
                "POST",
                self._endpoint,
                headers=self._headers,
                body=self._body(request),
                deadline=deadline,
                replay=False,  # calls cost money: whether to make another is for others to say
            ) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
                while received := await response.read_some():
                    if text := reading.take(parser.feed(received)):
                        yield Text(text)
        except TransportTimeout as error:
            raise DeadlineExceeded(
                f"The model '{self._name}' did not finish in time.", field="model"
            ) from error
        except TransportError as error:
            raise UpstreamFailed(f"The connection to the model '{self._name}' failed.") from error
        calls, finish = reading.end()
        if calls:
            yield ToolCalls(calls)
        yield finish

    async def warm(self) -> None:
        """Open connections, so that the first turns need not."""
        deadline = asyncio.get_running_loop().time() + 5.0
        try:
            await self._client.warm(self._endpoint, self._settings.warm, deadline=deadline)
        except TransportError as error:
            _log.warning("model %s cannot be reached yet: %s", self._name, error)

    async def close(self) -> None:
        """See `Model.close`; the connections belong to the client, which is closed apart."""

    def _body(self, request: ModelRequest) -> bytes:
        head = self._heads.get(request.prompt)
        if head is None:
            head = self._heads[request.prompt] = _head(self._settings.model, request.prompt)
        parts = [head]
        parts.extend(b"," + _encode(_wire_message(message)) for message in request.messages)
        parts.append(b"]")
        if request.max_tokens is not None:
            limit = self._settings.length_field
            parts.append(f',"{limit}":{request.max_tokens}'.encode())
        if request.temperature is not None:
            parts.append(b',"temperature":' + _encode(request.temperature))
        parts.append(b"}")
        return b"".join(parts)

    async def _refusal(self, response: Response) -> UpstreamFailed:
        """Log what the endpoint said; tell the caller no more than the status."""
        said = await response.read(limit=_MAX_ERROR_BYTES)
        _log.warning("model %s answered %d: %r", self._name, response.status, said[:2_000])
        return failure_of(self._name, response.status, response.headers.get("retry-after"))


class _Reading:
    """One streamed completion as it is put together; decides, does no I/O."""

    __slots__ = ("_calls", "_characters", "_model", "_reason", "_usage")

    def __init__(self, model: str) -> None:
        self._model = model
        self._calls: dict[int, tuple[list[str], list[str], list[str]]] = {}
        self._characters = 0
        self._reason: str | None = None
        self._usage = Usage(model_calls=1)

    def take(self, events: Sequence[ServerSentEvent]) -> str:
        """Take the events of one read; the text that they bring."""
        text = ""
        for event in events:
            data = event.data
            if data == b"[DONE]":
                continue
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._failure("sent something that is not a completion chunk") from error
            if chunk.error is not UNSET:
                _log.warning("model %s failed in mid-stream: %r", self._model, data[:2_000])
                raise self._failure("failed in the middle of its answer")
            if chunk.usage is not None:
                used = chunk.usage
                self._usage = Usage(used.prompt_tokens, used.completion_tokens, 1)
            for choice in chunk.choices[:1]:
                if choice.delta.content:
                    text += choice.delta.content
                if choice.delta.tool_calls:
                    self._take_calls(choice.delta.tool_calls)
                if choice.finish_reason:
                    self._reason = choice.finish_reason
        self._count(len(text))
        return text

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """The tool calls and the end; fails when the stream broke off before its end."""
        if self._reason is None:
            raise self._failure("broke off in the middle of its answer")
        calls = tuple(
            ToolCall("".join(ids) or f"call_{index}", "".join(names), "".join(arguments))
            for index, (ids, names, arguments) in sorted(self._calls.items())
        )
        reason = _reasons.get(self._reason, "other")
        return calls, Finish("tool_calls" if calls else reason, self._usage)

    def _take_calls(self, deltas: list[_CallDelta]) -> None:
        for delta in deltas:
            ids, names, arguments = self._calls.setdefault(delta.index, ([], [], []))
            if len(self._calls) > _MAX_CALLS:
                raise self._failure(f"asked for more than {_MAX_CALLS} tool calls at once")
            if delta.id and not ids:
                ids.append(delta.id)
            if delta.function is not None:
                if delta.function.name and not names:
                    names.append(delta.function.name)
                if delta.function.arguments:
                    arguments.append(delta.function.arguments)
                    self._count(len(delta.function.arguments))

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > _MAX_ANSWER_CHARACTERS:
            raise self._failure(f"wrote more than {_MAX_ANSWER_CHARACTERS} characters")

    def _failure(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(f"The model '{self._model}' {what}.")


_Reason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
_reasons: dict[str, _Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def _head(model: str, prompt: Prompt) -> bytes:
    """The request's JSON up to and including the system message, without closing brackets."""
    parts = [b'{"model":', _encode(model), b',"stream":true,"stream_options":']
    parts.append(b'{"include_usage":true}')
    if prompt.tools:
        tools = [{"type": "function", "function": tool} for tool in prompt.tools]
        parts += [b',"tools":', _encode(tools)]
    parts += [b',"messages":[', _encode({"role": "system", "content": prompt.instructions})]
    return b"".join(parts)


def _wire_message(message: Message) -> dict[str, object]:
    if isinstance(message, UserMessage):
        return {"role": "user", "content": message.text}
    if isinstance(message, AssistantMessage):
        wire: dict[str, object] = {"role": "assistant", "content": message.text or None}
        if message.tool_calls:
            wire["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
        return wire
    return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
