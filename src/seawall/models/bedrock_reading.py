"""What Bedrock's ConverseStream streams, read into an answer.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import msgspec
from msgspec import Struct

from seawall.aws.event_stream import EventMessage, EventStreamParser
from seawall.models.assembly import Assembly
from seawall.models.port import Finish, FinishReason
from seawall.turn import ToolCall, Usage

__all__ = ["BedrockReader"]


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str | None = None
    name: str | None = None
    input: str = ""


class _Start(Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _Delta(Struct, rename="camel"):
    text: str = ""
    tool_use: _ToolUse | None = None


class _WireUsage(Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0


class _Event(Struct, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: _WireUsage | None = None


_decode_event = msgspec.json.Decoder(_Event).decode

_READ = frozenset({"contentBlockStart", "contentBlockDelta", "messageStop", "metadata"})
# What an exception in the stream would have been as a status, by the API's own model of errors.
_STATUS_OF = {
    "validationException": 400,
    "throttlingException": 429,
    "modelStreamErrorException": 424,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}
_reasons: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class BedrockReader:
    """Reads one streamed answer."""

    __slots__ = ("_assembly", "_parser")

    def __init__(self, model: str) -> None:
        self._assembly = Assembly(model)
        self._parser = EventStreamParser()

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = "".join([self._take(message) for message in self._parser.feed(received)])
        self._assembly.count(len(text))
        return text

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """See `Reader.end`."""
        if self._parser.within:
            raise self._assembly.failure("broke off in the middle of its answer")
        return self._assembly.end()

    def _take(self, message: EventMessage) -> str:
        kind = message.text(":message-type")
        if kind in ("exception", "error"):
            what = message.text(":exception-type") or message.text(":error-code")
            said = message.payload or message.text(":error-message").encode()
            status = _STATUS_OF.get(what[:1].lower() + what[1:])
            raise self._assembly.failed_midway(what.encode() + b" " + said, status)
        if message.text(":event-type") not in _READ:
            return ""
        try:
            event = _decode_event(message.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._assembly.unreadable() from error
        return self._read(event)

    def _read(self, event: _Event) -> str:
        begun = event.start or event.delta
        if begun is not None and (tool := begun.tool_use) is not None:
            self._assembly.call(
                event.content_block_index,
                call_id=tool.tool_use_id,
                name=tool.name,
                arguments=tool.input,
            )
        if event.stop_reason:
            self._assembly.reason = _reasons.get(event.stop_reason, "other")
        if (used := event.usage) is not None:
            cached, written = used.cache_read_input_tokens, used.cache_write_input_tokens
            read = used.input_tokens + cached + written  # the API counts the three apart
            self._assembly.usage = Usage(read, used.output_tokens, 1, cached, written)
        return event.delta.text if event.delta is not None else ""
