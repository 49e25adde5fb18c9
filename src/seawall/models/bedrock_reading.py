"""What Bedrock's ConverseStream streams, read into an answer.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from typing import Any

import msgspec
from msgspec import Struct

from seawall.aws.event_stream import EventMessage, EventStreamParser
from seawall.models.assembly import Assembly
from seawall.models.lenient import LenientDecoder, count_of
from seawall.models.openai_reading import arguments_of
from seawall.models.port import Finish, ToolCalls
from seawall.models.unreadable import UnreadableLog
from seawall.turn import Usage

__all__ = ["BedrockReader"]

_NO_JSON = msgspec.Raw(b"null")


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NO_JSON


class _Reasoning(Struct, rename="camel"):
    text: str | None = None


class _Start(Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _Delta(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Event(Struct, rename="camel"):
    content_block_index: int | None = None
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: Any = None


_decode_event = LenientDecoder(_Event)

_READ = frozenset({"contentBlockStart", "contentBlockDelta", "messageStop", "metadata"})


class BedrockReader:
    """Reads one streamed answer."""

    __slots__ = ("_parser", "assembly")

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        self.assembly = Assembly(model, origin, log)
        self._parser = EventStreamParser()

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = "".join([self._take(message) for message in self._parser.feed(received)])
        self.assembly.count(len(text))
        return text

    def rest(self) -> str:
        """See `Reader.rest`; a message that is not whole says nothing."""
        return ""

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        if self._parser.mid_message:
            raise self.assembly.failure("broke off in the middle of its answer")
        return self.assembly.end()

    def _take(self, message: EventMessage) -> str:
        kind = message.text(":message-type")
        if kind in ("exception", "error"):
            what = message.text(":exception-type") or message.text(":error-code")
            said = message.payload or message.text(":error-message").encode()
            raise self.assembly.failed_midway(what.encode() + b" " + said, what)
        event_type = message.text(":event-type")
        if event_type not in _READ:
            return ""
        try:
            event = _decode_event(message.payload)
        except ValueError as error:
            raise self.assembly.unreadable(message.payload) from error
        if event is None:
            self.assembly.report_skipped(message.payload)
            return ""
        return self._read(event_type, event)

    def _read(self, event_type: str, event: _Event) -> str:
        assembly, delta = self.assembly, event.delta
        if event.start is not None and (tool := event.start.tool_use) is not None:
            assembly.call(
                event.content_block_index,
                call_id=tool.tool_use_id,
                name=tool.name,
                arguments=arguments_of(tool.input),
                begins=True,
            )
        elif delta is not None and (tool := delta.tool_use) is not None:
            assembly.call(event.content_block_index, arguments=arguments_of(tool.input))
        elif delta is not None and delta.reasoning_content is not None:
            assembly.think(delta.reasoning_content.text or "")
        if event_type == "messageStop":
            assembly.finish(event.stop_reason or "")
        if (used := event.usage) is not None:
            cached = count_of(used, "cacheReadInputTokens")
            written = count_of(used, "cacheWriteInputTokens")
            read = count_of(used, "inputTokens") + cached + written  # the API counts them apart
            assembly.usage = Usage(read, count_of(used, "outputTokens"), 1, cached, written)
        assembly.done = event_type == "metadata" and assembly.reason is not None
        return (delta.text or "") if delta is not None else ""
