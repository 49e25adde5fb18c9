"""A client of any server that speaks OpenAI's chat completions, streaming.

Wire format: https://platform.openai.com/docs/api-reference/chat/create and its streaming page.
"""

from collections.abc import AsyncGenerator
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from seawall.models.assembly import Assembly
from seawall.models.caching import cache_key
from seawall.models.exchange import Encoded, stream_answer, warm_connections
from seawall.models.port import Finish, FinishReason, ModelEvent, ModelRequest, Prompt
from seawall.models.schemas import ANY_OBJECT, in_words, is_strict
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.sse import SseParser
from seawall.turn import AssistantMessage, Message, ToolCall, Usage, UserMessage

__all__ = ["OpenAIModel", "OpenAISettings"]

_MAX_EVENT_BYTES = 1 << 20


class OpenAISettings(Struct, frozen=True, kw_only=True):
    """Where the endpoint is and how it wants to be asked.

    base_url: up to and without `/chat/completions`. api_key: empty for none.
    length_field: the name under which the server takes the bound on written tokens.
    cache: what requests have in common that are to meet in one prompt cache, by
    `prompt_cache_key`: the agent, or the conversation; not every server knows the key.
    schema_in_words: for servers that do not take a schema of the output. stop: texts that end an
    answer and are not part of it.
    warm: connections to open ahead.
    """

    base_url: str
    model: str
    api_key: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    cache: Literal["off", "prefix", "conversation"] = "off"
    schema_in_words: bool = False
    warm: int = 1
    stop: tuple[str, ...] = ()


class _FunctionDelta(Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(Struct):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(Struct):
    delta: _Delta = field(default_factory=_Delta)
    finish_reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _WireUsage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


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

    def stream(self, request: ModelRequest, *, deadline: float) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        return stream_answer(
            self._name,
            self._client,
            self._endpoint,
            lambda: self._encoded(request),
            OpenAIReader(self._name),
            deadline=deadline,
        )

    async def warm(self) -> None:
        """See `Model.warm`."""
        await warm_connections(self._name, self._client, self._endpoint, self._settings.warm)

    async def close(self) -> None:
        """See `Model.close`; the connections belong to the client, which is closed apart."""

    def _encoded(self, request: ModelRequest) -> Encoded:
        head = self._heads.get(request.prompt)
        if head is None:
            head = self._heads[request.prompt] = _head(self._settings, request.prompt)
        parts = [head]
        parts.extend(b"," + _encode(_wire_message(message)) for message in request.messages)
        parts.append(b"]")
        if request.max_tokens is not None:
            limit = self._settings.length_field
            parts.append(f',"{limit}":{request.max_tokens}'.encode())
        if request.temperature is not None:
            parts.append(b',"temperature":' + _encode(request.temperature))
        if stop := (*self._settings.stop, *request.stop):
            parts += [b',"stop":', _encode(stop)]
        if self._settings.cache != "off":
            conversation = self._settings.cache == "conversation"
            key = cache_key(head, request.messages if conversation else ())
            parts.append(b',"prompt_cache_key":' + _encode(key))
        parts.append(b"}")
        return self._headers, b"".join(parts)


class OpenAIReader:
    """Reads one streamed completion."""

    __slots__ = ("_assembly", "_parser", "_refused")

    def __init__(self, model: str) -> None:
        self._assembly = Assembly(model)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._refused = False

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = ""
        for event in self._parser.feed(received):
            data = event.data
            if data == b"[DONE]":
                continue
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._assembly.unreadable() from error
            if chunk.error is not UNSET:
                raise self._assembly.failed_midway(data)
            if chunk.usage is not None:
                self._assembly.usage = _usage(chunk.usage)
            for choice in chunk.choices[:1]:
                text += self._take(choice)
        self._assembly.count(len(text))
        return text

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """See `Reader.end`."""
        if self._refused and self._assembly.reason == "stop":
            self._assembly.reason = "content_filter"
        return self._assembly.end()

    def _take(self, choice: _Choice) -> str:
        delta = choice.delta
        for call in delta.tool_calls or ():
            function = call.function
            self._assembly.call(
                call.index,
                call_id=call.id,
                name=function.name if function else None,
                arguments=function.arguments if function else None,
            )
        if choice.finish_reason:
            self._assembly.reason = _reasons.get(choice.finish_reason, "other")
        if delta.refusal:
            self._refused = True
            return (delta.content or "") + delta.refusal
        return delta.content or ""


def _usage(used: _WireUsage) -> Usage:
    details = used.prompt_tokens_details or _PromptDetails()
    return Usage(
        used.prompt_tokens,
        used.completion_tokens,
        1,
        details.cached_tokens or 0,
        details.cache_write_tokens or 0,
    )


_reasons: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def _head(settings: OpenAISettings, prompt: Prompt) -> bytes:
    """The request's JSON up to and including the system message, without closing brackets."""
    parts = [b'{"model":', _encode(settings.model), b',"stream":true,"stream_options":']
    parts.append(b'{"include_usage":true}')
    if prompt.tools:
        tools = [{"type": "function", "function": tool} for tool in prompt.tools]
        parts += [b',"tools":', _encode(tools)]
    instructions = prompt.instructions
    if (output := prompt.output) is not None and settings.schema_in_words:
        instructions = f"{instructions}\n\n{in_words(output)}"
    elif output is not None and output.schema == ANY_OBJECT:
        instructions = f"{instructions}\n\n{in_words(output)}"  # it must be spoken of, too
        parts.append(b',"response_format":{"type":"json_object"}')
    elif output is not None:
        strict = is_strict(output.schema)
        asked = {"name": output.name, "schema": output.schema, "strict": strict}
        wanted = {"type": "json_schema", "json_schema": asked}
        parts += [b',"response_format":', _encode(wanted)]
    parts += [b',"messages":[', _encode({"role": "system", "content": instructions})]
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
