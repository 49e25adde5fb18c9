"""Adapter for OpenAI's chat completions API, and for servers that are compatible with it.

Request and stream: https://platform.openai.com/docs/api-reference/chat/create and
https://platform.openai.com/docs/api-reference/chat-streaming. The reader also accepts what
compatible servers make of that format.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from seawall.models import Finish, ModelRequest, Prompt, ToolCalls
from seawall.models.assembly import SseReader, UnreadableLog, as_object
from seawall.models.history import (
    NINE_CHARACTER_IDS,
    NO_CONTENT,
    CallIds,
    tool_name,
    without_blanks,
)
from seawall.models.http_model import (
    SSE_HEADERS,
    HttpModel,
    HttpModelSettings,
    LenientDecoder,
    arguments_of,
    bearer,
    count_of,
    encode,
)
from seawall.transport.http_client import HttpClient
from seawall.transport.sse import ServerSentEvent
from seawall.turn import (
    AssistantMessage,
    Image,
    Message,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)

__all__ = ["OpenAIModel", "OpenAIReader", "OpenAISettings"]

_MAX_EXTRA_BYTES = 65_536
_NO_JSON = msgspec.Raw(b"null")


class _FunctionDelta(Struct):
    name: str | None = None
    arguments: msgspec.Raw = _NO_JSON  # text by the format, an object from some servers


class _CallDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None
    # Fields that Gemini's compatible API and its proxies expect back with the call.
    extra_content: msgspec.Raw = _NO_JSON
    thought_signature: msgspec.Raw = _NO_JSON
    provider_specific_fields: msgspec.Raw = _NO_JSON


class _Delta(Struct):
    content: str | list[Any] | dict[str, Any] | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None
    # Servers send reasoning under different names.
    reasoning_content: str | list[Any] | dict[str, Any] | None = None
    reasoning: str | list[Any] | dict[str, Any] | None = None
    reasoning_text: str | list[Any] | dict[str, Any] | None = None
    reasoning_details: str | list[Any] | dict[str, Any] | None = None
    thinking: str | list[Any] | dict[str, Any] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = field(default_factory=list)
    usage: Any = None
    error: Any = None
    # Fields of an error without an enclosing object.
    code: Any = None
    status: Any = None
    type: Any = None
    error_code: Any = None
    errors: Any = None
    detail: Any = None
    x_groq: Any = None


_decode_chunk = LenientDecoder(_Chunk)
_extra_keys = ("extra_content", "thought_signature", "provider_specific_fields")


class OpenAIReader(SseReader):
    """Reads one streamed completion."""

    __slots__ = ("_refused",)
    text_key = b"content"

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        super().__init__(model, origin, log)
        self._refused = False

    def _read(self, received: bytes) -> str:
        assembly = self.assembly
        text = ""
        for event in self._parser.feed(received):
            data = event.data
            if not data.startswith(b"{"):
                data = data.strip()
                if data == b"[DONE]":
                    assembly.done = True
                    if assembly.reason is None:
                        assembly.finish("")
                    break
            text += self._take(data, failed=event.name == b"error")
        return text

    def _text_of(self, event: ServerSentEvent) -> str | None:
        try:
            chunk = _decode_chunk(event.data)
        except ValueError:
            return None
        if event.name != b"message" or chunk is None or not chunk.choices:
            return None
        delta = chunk.choices[0].delta
        text = delta.content if delta is not None else None
        if not isinstance(text, str):
            return None
        return text if chunk == _Chunk([_Choice(_Delta(text))]) else None

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        if self._refused and self.assembly.reason == "stop":
            self.assembly.reason = "content_filter"
        return self.assembly.end()

    def _take(self, data: bytes, *, failed: bool) -> str:
        assembly = self.assembly
        try:
            chunk = _decode_chunk(data) if data else None
        except ValueError as error:
            raise assembly.unreadable(data) from error
        if chunk is None and failed:
            raise assembly.failed_midway(data)
        if chunk is None:
            assembly.report_skipped(data)
            return ""
        self._check(chunk, data, failed=failed)
        if chunk.usage is not None:
            assembly.usage = _usage(chunk.usage)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        text = self._read_delta(choice.delta) if choice.delta is not None else ""
        if choice.finish_reason:
            assembly.finish(choice.finish_reason)
        return text

    def _check(self, chunk: _Chunk, data: bytes, *, failed: bool) -> None:
        """Raise the error that the server reports, wherever it does."""
        error = chunk.error or (chunk.choices[0].error if chunk.choices else None)
        if not error and isinstance(chunk.x_groq, dict):
            error = chunk.x_groq.get("error")
        if not (error or failed or chunk.choices):  # an error without an enclosing object
            several = chunk.errors if isinstance(chunk.errors, list) else [chunk.errors]
            first = next(iter(several), None)
            error = first or chunk.code or chunk.error_code or chunk.detail
        if error or failed:
            from seawall.models.failures import codes_in  # noqa: PLC0415 - only for a failure

            bare = (chunk.code, chunk.error_code, chunk.status, chunk.type)
            raise self.assembly.failed_midway(data, *codes_in(error), *bare)

    def _read_delta(self, delta: _Delta) -> str:
        content = delta.content
        text = ""
        if type(content) is str:
            text = content
        elif content:
            text, thought = _parts(content)
            if thought is not None:
                self.assembly.think(thought)
        reasoning = (
            delta.reasoning_content
            or delta.reasoning
            or delta.thinking
            or delta.reasoning_text
            or delta.reasoning_details
        )
        if reasoning:
            self.assembly.think(_reasoning(reasoning))
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._call(call)
        if delta.refusal:
            self._refused = True
            text += delta.refusal
        return text

    def _call(self, call: _CallDelta) -> None:
        function = call.function
        extra = {
            name: raw
            for name in _extra_keys
            if (raw := getattr(call, name)) is not _NO_JSON
            and bytes(raw) != b"null"
            and len(bytes(raw)) <= _MAX_EXTRA_BYTES
        }
        self.assembly.call(
            call.index,
            call_id=call.id,
            name=function.name if function else None,
            arguments=arguments_of(function.arguments) if function else None,
            extra=msgspec.json.encode(extra).decode("utf-8", "replace") if extra else "",
        )


class OpenAISettings(HttpModelSettings, frozen=True, kw_only=True):
    """Settings of a chat completions endpoint.

    `cache` chooses what requests have in common that share a `prompt_cache_key`: the agent, or the
    conversation; not every server knows the key.

    Attributes:
        length_field: The name under which the server accepts the limit on completion tokens.
        stop: Texts that end every answer and are not part of it.
    """

    base_url: str
    cache: Literal["off", "prefix", "conversation"] = "off"
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stop: tuple[str, ...] = ()


class OpenAIModel(HttpModel[OpenAISettings]):
    """One model of an OpenAI-compatible endpoint; implements the model port."""

    reader = OpenAIReader

    def __init__(self, name: str, settings: OpenAISettings, client: HttpClient) -> None:
        """See `HttpModel`."""
        super().__init__(
            name,
            settings,
            client,
            kind="openai",
            base_url=settings.base_url,
            path="/chat/completions",
            headers=(*SSE_HEADERS, *bearer(settings.api_key)),
        )

    def _encode_head(self, prompt: Prompt) -> bytes:
        """Encode the JSON up to and including the system message, without closing brackets."""
        settings = self._settings
        parts = [b'{"model":', encode(settings.model), b',"stream":true,"stream_options":']
        parts.append(b'{"include_usage":true}')
        if prompt.tools:
            tools = [{"type": "function", "function": tool} for tool in prompt.tools]
            parts += [b',"tools":', encode(tools)]
        instructions, output = self._split_output(prompt)
        if output is not None:
            from seawall.models.schemas import is_strict  # noqa: PLC0415 - only if configured

            strict = is_strict(output.schema)
            described = {"name": output.name, "schema": output.schema, "strict": strict}
            wanted = {"type": "json_schema", "json_schema": described}
            parts += [b',"response_format":', encode(wanted)]
        elif prompt.output is not None and not settings.schema_in_instructions:  # any object
            parts.append(b',"response_format":{"type":"json_object"}')
        parts.append(b',"messages":[')
        if instructions.strip():
            parts.append(encode({"role": "system", "content": instructions}))
        return b"".join(parts)

    def _encode_body(self, head: bytes, request: ModelRequest) -> bytes:
        settings = self._settings
        ids = CallIds(request.messages, self._origin, NINE_CHARACTER_IDS)
        messages = _wire_messages(without_blanks(request.messages), ids)
        # The head ends inside the list, which has a first message if there are instructions.
        comma = b"" if head.endswith(b"[") or not messages else b","
        parts = [head, comma, encode(messages)[1:]]
        if request.max_tokens is not None:
            parts.append(f',"{settings.length_field}":{request.max_tokens}'.encode())
        if request.temperature is not None:
            parts.append(b',"temperature":' + encode(request.temperature))
        if stop := (*settings.stop, *request.stop):
            parts += [b',"stop":', encode(stop)]
        if request.prompt.tools:
            parts.append(_tool_fields(request))
        if settings.cache != "off":
            parts.append(b',"prompt_cache_key":' + encode(self._cache_key(head, request)))
        parts.append(b"}")
        return b"".join(parts)


def _tool_fields(request: ModelRequest) -> bytes:
    """The choice of tools, where it is not the default.

    https://platform.openai.com/docs/api-reference/chat/create#chat-create-tool_choice
    """
    choice: object = request.tool_choice
    fields = b""
    if choice not in ("auto", "none", "required"):
        choice = {"type": "function", "function": {"name": choice}}
    if choice != "auto":
        fields = b',"tool_choice":' + encode(choice)
    if not request.parallel_tool_calls:
        fields += b',"parallel_tool_calls":false'
    return fields


def _wire_messages(messages: Sequence[Message], ids: CallIds) -> list[dict[str, object]]:
    """All messages. Results are texts here: their images follow them as a message of the user."""
    wire: list[dict[str, object]] = []
    shown: list[dict[str, object]] = []
    for index, message in enumerate(messages):
        wire.append(_wire_message(message, ids))
        if not isinstance(message, ToolMessage):
            continue
        if message.images:
            shown.append({"type": "text", "text": f"Images of the result of {message.name}:"})
            shown += map(_wire_image, message.images)
        if shown and not isinstance((*messages, None)[index + 1], ToolMessage):
            wire.append({"role": "user", "content": shown})
            shown = []
    return wire


def _wire_image(image: Image) -> dict[str, object]:
    url = f"data:{image.media_type};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _user_parts(message: UserMessage) -> list[dict[str, object]]:
    """A message with files, which stand before its text."""
    from seawall.models.attachments import files_of  # noqa: PLC0415 - only where there are

    parts: list[dict[str, object]] = []
    for each in files_of(message):
        if isinstance(each, Image):
            parts.append(_wire_image(each))
        else:
            data = f"data:application/pdf;base64,{each.data}"
            file = {"filename": each.name or "document.pdf", "file_data": data}
            parts.append({"type": "file", "file": file})
    if message.text.strip():
        parts.append({"type": "text", "text": message.text})
    return parts


def _wire_message(message: Message, ids: CallIds) -> dict[str, object]:
    if isinstance(message, UserMessage):
        plain = type(message) is UserMessage
        return {"role": "user", "content": message.text if plain else _user_parts(message)}
    if isinstance(message, AssistantMessage):
        blank = not message.text or message.text.isspace()
        wire: dict[str, object] = {"role": "assistant", "content": None if blank else message.text}
        if message.tool_calls:
            wire["tool_calls"] = [_wire_call(call, ids) for call in message.tool_calls]
        return wire
    content = message.content if message.content.strip() else NO_CONTENT
    return {"role": "tool", "tool_call_id": ids.of_result(message), "content": content}


def _wire_call(call: ToolCall, ids: CallIds) -> dict[str, object]:
    # Some servers parse the arguments in the history, and refuse what is no JSON object.
    arguments = bytes(as_object(call.arguments)).decode()
    wire: dict[str, object] = {
        "id": ids.of_call(call),
        "type": "function",
        "function": {"name": tool_name(call.name), "arguments": arguments},
    }
    if extra := ids.extra_of(call):
        wire.update(msgspec.json.decode(extra, type=dict[str, msgspec.Raw]))
    return wire


def _parts(content: object) -> tuple[str, str | None]:
    """Return the text of a list of parts, and the reasoning in it; None for none."""
    text, thought = "", None
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict) and "thinking" in (part.get("type"), *part):
            thought = (thought or "") + _reasoning(part)
        elif isinstance(part, dict) and part.get("type") in (None, "text", "output_text"):
            piece = part.get("text")
            text += piece if isinstance(piece, str) else ""
    return text, thought


def _reasoning(value: object, depth: int = 4) -> str:
    """Return the text of reasoning in any form; empty where it is encrypted."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join([_reasoning(each, depth - 1) for each in value])
    if isinstance(value, dict) and depth:
        for key in ("text", "thinking", "summary", "content"):
            if value.get(key):
                return _reasoning(value[key], depth - 1)
    return ""


def _usage(used: object) -> Usage:
    details = "prompt_tokens_details"
    return Usage(
        count_of(used, "prompt_tokens"),
        count_of(used, "completion_tokens"),
        1,
        count_of(used, details, "cached_tokens"),
        count_of(used, details, "cache_write_tokens"),
    )
