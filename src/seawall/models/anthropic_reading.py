"""What Anthropic's messages API streams, read into an answer.

https://platform.claude.com/docs/en/build-with-claude/streaming; thinking is skipped.
"""

import msgspec
from msgspec import Struct, field

from seawall.models.assembly import Assembly
from seawall.models.port import Finish, FinishReason
from seawall.transport.sse import SseParser
from seawall.turn import ToolCall, Usage

__all__ = ["AnthropicReader"]

_MAX_EVENT_BYTES = 1 << 20


class _Block(Struct):
    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Delta(Struct):
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _WireUsage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Started(Struct):
    usage: _WireUsage = field(default_factory=_WireUsage)


class _Error(Struct):
    type: str = ""


class _Event(Struct):
    type: str
    index: int = 0
    message: _Started | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _WireUsage | None = None
    error: _Error | None = None


_decode_event = msgspec.json.Decoder(_Event).decode

# All others are skipped: "your code should handle unknown event types gracefully".
_READ = frozenset(
    {b"message_start", b"content_block_start", b"content_block_delta", b"message_delta", b"error"}
)
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_reasons: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicReader:
    """Reads one streamed message."""

    __slots__ = ("_assembly", "_parser", "_tools", "_usage")

    def __init__(self, model: str) -> None:
        self._assembly = Assembly(model)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._tools: set[int] = set()
        self._usage = _WireUsage()

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = ""
        for event in self._parser.feed(received):
            if event.name not in _READ:
                continue
            try:
                decoded = _decode_event(event.data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._assembly.unreadable() from error
            if decoded.type == "error":
                status = _STATUS_OF.get(decoded.error.type) if decoded.error else None
                raise self._assembly.failed_midway(event.data, status)
            text += self._take(decoded)
        self._assembly.count(len(text))
        return text

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """See `Reader.end`."""
        used = self._usage
        cached = used.cache_read_input_tokens or 0
        written = used.cache_creation_input_tokens or 0
        self._assembly.usage = Usage(
            (used.input_tokens or 0) + cached + written,  # the API counts the three apart
            used.output_tokens or 0,
            1,
            cached,
            written,
        )
        return self._assembly.end()

    def _take(self, event: _Event) -> str:
        text = ""
        if event.type == "content_block_delta" and event.delta is not None:
            text = event.delta.text
            if event.index in self._tools:
                self._assembly.call(
                    event.index, call_id=None, name=None, arguments=event.delta.partial_json
                )
        elif event.type == "content_block_start" and (block := event.content_block) is not None:
            text = block.text if block.type == "text" else ""
            if block.type == "tool_use":
                self._tools.add(event.index)
                whole = bytes(block.input)
                self._assembly.call(
                    event.index,
                    call_id=block.id,
                    name=block.name,
                    arguments=None if whole == b"{}" else whole.decode(),
                )
        elif event.type == "message_start" and event.message is not None:
            self._count(event.message.usage)
        elif event.type == "message_delta":
            if event.usage is not None:
                self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self._assembly.reason = _reasons.get(event.delta.stop_reason, "other")
        return text

    def _count(self, used: _WireUsage) -> None:
        """The counts are cumulative; the last one that is given holds."""
        for name in used.__struct_fields__:
            if (value := getattr(used, name)) is not None:
                setattr(self._usage, name, value)
