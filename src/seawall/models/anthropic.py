"""Adapter for Anthropic's messages API, streaming.

Request: https://platform.claude.com/docs/en/api/messages; stream:
https://platform.claude.com/docs/en/build-with-claude/streaming; errors:
https://platform.claude.com/docs/en/api/errors.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.errors import UpstreamRefused
from seawall.models import Finish, ModelRequest, Prompt, ToolCalls, ToolSpec
from seawall.models.assembly import SseReader, UnreadableLog, as_object
from seawall.models.failures import codes_in
from seawall.models.history import (
    NO_CONTENT,
    WORD_IDS,
    CallIds,
    alternate,
    declared_tools,
    tool_name,
)
from seawall.models.http_model import (
    SSE_HEADERS,
    HttpModel,
    HttpModelSettings,
    LenientDecoder,
    arguments_of,
    count_of,
    encode,
)
from seawall.transport.http_client import HttpClient
from seawall.transport.sse import ServerSentEvent
from seawall.turn import AssistantMessage, Image, Message, Usage, UserMessage

__all__ = ["AnthropicModel", "AnthropicReader", "AnthropicSettings"]

_VERSION = b"2023-06-01"
_BASE_URL = "https://api.anthropic.com/v1"
_DEFAULT_TOKENS = 4_096  # the API requires a limit
_NO_JSON = msgspec.Raw(b"null")
_COUNTS = (
    *("input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)


class _Block(Struct):
    type: str | None = None
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    input: msgspec.Raw = _NO_JSON


class _Delta(Struct):
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: msgspec.Raw = _NO_JSON
    stop_reason: str | None = None


class _Event(Struct):
    type: str | None = None
    index: int | None = 0
    message: Any = None  # a text, in an error
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_decode_event = LenientDecoder(_Event)

# All others are skipped: "your code should handle unknown event types gracefully".
_READ = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "message_delta"}
    | {"message_stop", "error"}
)
_READ_NAMES = frozenset({each.encode() for each in _READ} | {b"message"})


class AnthropicReader(SseReader):
    """Reads one streamed message."""

    __slots__ = ("_tools", "_usage")
    text_key = b"text"

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        super().__init__(model, origin, log)
        self._tools: set[int | None] = set()
        self._usage = dict.fromkeys(_COUNTS, 0)

    def _read(self, received: bytes) -> str:
        text = ""
        for event in self._parser.feed(received):
            if event.name not in _READ_NAMES:
                continue
            data = event.data
            try:
                decoded = _decode_event(data)
            except ValueError as error:
                raise self.assembly.unreadable(data) from error
            failed = event.name == b"error"
            if decoded is None and not failed:
                self.assembly.report_skipped(data)
                continue
            if failed or decoded is None or decoded.error or decoded.type == "error":
                codes = (*codes_in(decoded.error), decoded.type) if decoded is not None else ()
                raise self.assembly.failed_midway(data, *codes)
            kind = decoded.type or event.name.decode()
            if kind in _READ:
                text += self._take(kind, decoded)
            if self.assembly.done:
                break
        return text

    def _text_of(self, event: ServerSentEvent) -> str | None:
        try:
            decoded = _decode_event(event.data)
        except ValueError:
            return None
        if event.name not in _READ_NAMES or decoded is None or decoded.delta is None:
            return None
        text, index = decoded.delta.text, decoded.index
        plain = _Event(type="content_block_delta", index=index, delta=_Delta(text=text))
        return text if decoded == plain and index not in self._tools else None

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        read, written, from_cache, to_cache = self._usage.values()
        self.assembly.usage = Usage(
            read + from_cache + to_cache,  # the API counts the three separately
            written,
            1,
            from_cache,
            to_cache,
        )
        return self.assembly.end()

    def _take(self, kind: str, event: _Event) -> str:
        if kind == "content_block_delta":
            return self._delta(event.index, event.delta) if event.delta is not None else ""
        if kind == "content_block_start":
            return self._begin(event.index, event.content_block or _Block())
        if kind == "message_start" and isinstance(event.message, dict):
            self._count(event.message.get("usage"))
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self.assembly.finish(event.delta.stop_reason)
        elif kind == "message_stop":
            self.assembly.done = True
            if self.assembly.reason is None:
                self.assembly.finish("")
        return ""

    def _delta(self, index: int | None, delta: _Delta) -> str:
        if index in self._tools:
            self.assembly.call(index, arguments=arguments_of(delta.partial_json))
        elif delta.thinking is not None or delta.signature is not None:
            self.assembly.think(delta.thinking or "")
        return delta.text or ""

    def _begin(self, index: int | None, block: _Block) -> str:
        if self._frames is not None:  # they may be of a block of another kind
            self._frames.forget()
        self._tools.discard(index)
        if block.type == "tool_use":
            self._tools.add(index)
            whole = arguments_of(block.input)
            self.assembly.call(
                index,
                call_id=block.id,
                name=block.name,
                arguments=None if whole == "{}" else whole,
                begins=True,
            )
        elif block.type in ("thinking", "redacted_thinking"):
            self.assembly.think(block.thinking or "")
        return (block.text or "") if block.type == "text" else ""

    def _count(self, used: object) -> None:
        """Take the counts, which are cumulative: the last one given is valid."""
        if isinstance(used, dict):
            for name in _COUNTS:
                if used.get(name) is not None:
                    self._usage[name] = count_of(used, name)


class AnthropicSettings(HttpModelSettings, frozen=True, kw_only=True):
    """Settings of Anthropic's API.

    Attributes:
        thinking: The type of thinking to request; empty for the model's default. Thinking counts
            as completion tokens, and is neither shown nor sent back:
            https://platform.claude.com/docs/en/build-with-claude/thinking
    """

    thinking: str = ""


class AnthropicModel(HttpModel[AnthropicSettings]):
    """One model of Anthropic's; implements the model port."""

    reader = AnthropicReader

    def __init__(self, name: str, settings: AnthropicSettings, client: HttpClient) -> None:
        """See `HttpModel`."""
        key = ((b"x-api-key", settings.api_key.encode()),) if settings.api_key else ()
        super().__init__(
            name,
            settings,
            client,
            kind="anthropic",
            base_url=settings.base_url or _BASE_URL,
            path="/messages",
            headers=(*SSE_HEADERS, (b"anthropic-version", _VERSION), *key),
        )

    def _encode_head(self, prompt: Prompt) -> bytes:
        """Encode the JSON that all turns share, without the closing bracket.

        The prompt cache covers tools, then system: the mark at the end of the system covers both.
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching
        """
        settings = self._settings
        parts = [b'{"model":', encode(settings.model), b',"stream":true']
        if settings.thinking:
            parts += [b',"thinking":', encode({"type": settings.thinking})]
        instructions, output = self._split_output(prompt)
        if output is not None:
            from seawall.models.schemas import simplify_schema  # noqa: PLC0415 - only if configured

            wanted = {"type": "json_schema", "schema": simplify_schema(output.schema)}
            parts += [b',"output_config":', encode({"format": wanted})]
        if prompt.tools:
            parts += [b',"tools":', encode([_wire_tool(each) for each in prompt.tools])]
        if instructions.strip():
            system: dict[str, object] = {"type": "text", "text": instructions}
            if settings.cache != "off":
                system["cache_control"] = {"type": "ephemeral"}
            parts += [b',"system":', encode([system])]
        return b"".join(parts)

    def _tool_choice(self, request: ModelRequest) -> dict[str, object]:
        """The choice of tools; empty for the default.

        https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use

        Raises:
            UpstreamRefused: The API does not take it.
        """
        wanted = request.tool_choice
        if wanted == "none":
            return {"type": "none"}
        choice: dict[str, object] = {"type": "auto"}
        if wanted != "auto":
            if self._settings.thinking not in ("", "disabled"):
                raise UpstreamRefused(
                    f"The model '{self._name}' thinks, and can then not be made to call a tool: "
                    "tool_choice must be auto or none."
                )
            required = wanted == "required"
            choice = {"type": "any"} if required else {"type": "tool", "name": wanted}
        if not request.parallel_tool_calls:
            choice["disable_parallel_tool_use"] = True
        return choice if choice != {"type": "auto"} else {}

    def _encode_body(self, head: bytes, request: ModelRequest) -> bytes:
        parts = [head]
        if not request.prompt.tools and (tools := declared_tools(request.prompt, request.messages)):
            parts += [b',"tools":', encode([_wire_tool(each) for each in tools])]
            parts.append(b',"tool_choice":{"type":"none"}')  # declared for the history only
        if request.prompt.tools and (choice := self._tool_choice(request)):
            parts += [b',"tool_choice":', encode(choice)]
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        messages = [
            {"role": role, "content": [block for each in side for block in _blocks(each, ids)]}
            for role, side in alternate(request.messages)
        ]
        if self._settings.cache == "conversation" and messages:
            blocks: list[dict[str, object]] = messages[-1]["content"]  # type: ignore[assignment]
            blocks[-1]["cache_control"] = {"type": "ephemeral"}
        limit = _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        parts += [b',"messages":', encode(messages), b',"max_tokens":%d' % limit]
        if stop := [each for each in request.stop if each.strip()]:  # the API refuses blank ones
            parts += [b',"stop_sequences":', encode(stop)]
        if request.temperature is not None:
            parts.append(b',"temperature":' + encode(request.temperature))
        parts.append(b"}")
        return b"".join(parts)


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    # Its strict tools take a subset of schemas; the arguments are checked here in any case.
    return {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}


def _blocks(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        plain = type(message) is UserMessage
        return [{"type": "text", "text": message.text}] if plain else _user_blocks(message)
    if isinstance(message, AssistantMessage):
        blocks: list[dict[str, object]] = []
        if message.text and not message.text.isspace():
            blocks.append({"type": "text", "text": message.text})
        for call in message.tool_calls:
            use = {"type": "tool_use", "id": ids.of_call(call), "name": tool_name(call.name)}
            blocks.append({**use, "input": as_object(call.arguments)})
        return blocks
    content: str | list[dict[str, object]] = (
        message.content if message.content.strip() else NO_CONTENT
    )
    if message.images and not message.failed:  # errors are of text only
        content = [{"type": "text", "text": content}, *map(_wire_image, message.images)]
    result: dict[str, object] = {
        "type": "tool_result",
        "tool_use_id": ids.of_result(message),
        "content": content,
        "is_error": message.failed,
    }
    return [result]


def _user_blocks(message: UserMessage) -> list[dict[str, object]]:
    """A message with files, which stand before its text."""
    from seawall.models.attachments import files_of  # noqa: PLC0415 - only where there are

    blocks: list[dict[str, object]] = []
    for each in files_of(message):
        if isinstance(each, Image):
            blocks.append(_wire_image(each))
        else:
            source = {"type": "base64", "media_type": "application/pdf", "data": each.data}
            title = {"title": each.name} if each.name else {}
            blocks.append({"type": "document", "source": source, **title})
    if message.text.strip():
        blocks.append({"type": "text", "text": message.text})
    return blocks


def _wire_image(image: Image) -> dict[str, object]:
    source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    return {"type": "image", "source": source}
