"""What Anthropic's messages API streams, read into an answer.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Struct

from seawall.models.assembly import Assembly
from seawall.models.failures import codes_in
from seawall.models.lenient import LenientDecoder, count_of
from seawall.models.openai_reading import arguments_of
from seawall.models.port import Finish, ToolCalls
from seawall.models.unreadable import UnreadableLog
from seawall.transport.sse import SseParser
from seawall.turn import Usage

__all__ = ["AnthropicReader"]

_MAX_EVENT_BYTES = 1 << 20
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


class AnthropicReader:
    """Reads one streamed message."""

    __slots__ = ("_parser", "_tools", "_usage", "assembly")

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        self.assembly = Assembly(model, origin, log)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._tools: set[int | None] = set()
        self._usage = dict.fromkeys(_COUNTS, 0)

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
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
        self.assembly.count(len(text))
        return text

    def rest(self) -> str:
        """See `Reader.rest`; some leave out the blank line behind the last event."""
        return self.feed(b"\n\n")

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        read, written, from_cache, to_cache = self._usage.values()
        self.assembly.usage = Usage(
            read + from_cache + to_cache,  # the API counts the three apart
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
        """The counts are cumulative; the last one that is given holds."""
        if isinstance(used, dict):
            for name in _COUNTS:
                if used.get(name) is not None:
                    self._usage[name] = count_of(used, name)
