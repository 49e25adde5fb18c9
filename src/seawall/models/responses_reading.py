"""What OpenAI's responses API streams, read into an answer.

https://platform.openai.com/docs/api-reference/responses-streaming
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
from seawall.transport.sse import ServerSentEvent, SseParser
from seawall.turn import Usage

__all__ = ["ResponsesReader"]

_MAX_EVENT_BYTES = 4 << 20  # the last event repeats the whole response, instructions and all
_NO_JSON = msgspec.Raw(b"null")


class _Item(Struct):
    type: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = _NO_JSON
    status: str | None = None
    content: Any = None


class _Incomplete(Struct):
    reason: str | None = None


class _Response(Struct):
    status: str | None = None
    usage: Any = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    output: list[_Item] | None = None


class _Event(Struct):
    type: str | None = None
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: msgspec.Raw = _NO_JSON
    output_index: int | None = None
    item: _Item | None = None
    response: _Response | None = None
    code: Any = None
    error: Any = None


_decode_event = LenientDecoder(_Event)

_THOUGHT = "response.reasoning_text.delta"
_ENDS = ("response.completed", "response.incomplete", "response.done")
_FAILURES = ("error", "response.failed", "response.error", "response.cancelled")
_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_WHOLE_TEXT = frozenset({"response.output_text.done", "response.refusal.done"})
_READ = frozenset(
    {
        *_WHOLE_TEXT,
        *(_TEXT | {_THOUGHT}),
        *_ENDS,
        *_FAILURES,
        "response.output_item.added",
        "response.output_item.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.reasoning_summary_text.delta",
        "message",  # the name of events without one: what they are stands in their data
    }
)
_READ_NAMES = frozenset(each.encode() for each in _READ)


class ResponsesReader:
    """Reads one streamed response."""

    __slots__ = ("_answered", "_begun", "_parser", "_refused", "_told", "assembly")

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        self.assembly = Assembly(model, origin, log)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._refused = False
        self._begun: set[int | None] = set()  # places of calls that are not yet whole
        self._told = False  # text of the present item came
        self._answered = False  # text or a call came

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = ""
        for event in self._parser.feed(received):
            if event.name not in _READ_NAMES:
                continue
            if (decoded := self._decoded(event)) is None:
                continue
            kind = decoded.type or event.name.decode()
            if kind in _TEXT:
                text += self._say(decoded.delta, refused="refusal" in kind)
            elif kind in _WHOLE_TEXT:
                if not self._told:
                    whole = decoded.refusal or decoded.text
                    text += self._say(whole, refused="refusal" in kind)
            elif kind in _READ:
                text += self._take(kind, decoded, event.data)
            if self.assembly.done:
                break
        self.assembly.count(len(text))
        return text

    def rest(self) -> str:
        """See `Reader.rest`; some leave out the blank line behind the last event."""
        return self.feed(b"\n\n")

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        return self.assembly.end()

    def _decoded(self, event: ServerSentEvent) -> _Event | None:
        data, failed = event.data, event.name == b"error"
        if not data or data.isspace() or data.strip() == b"[DONE]":
            return None
        try:
            decoded = _decode_event(data)
        except ValueError as error:
            raise self.assembly.unreadable(data) from error
        if failed or (decoded is not None and decoded.error):
            codes = (decoded.code, *codes_in(decoded.error), decoded.type) if decoded else ()
            raise self.assembly.failed_midway(data, *codes)
        if decoded is None:
            self.assembly.report_skipped(data)
        return decoded

    def _say(self, text: str | None, *, refused: bool = False) -> str:
        if not text:
            return ""
        self._told = self._answered = True
        self._refused |= refused
        return text

    def _take(self, kind: str, event: _Event, data: bytes) -> str:
        """The text that stands nowhere else."""
        assembly, index = self.assembly, event.output_index
        if kind.startswith("response.reasoning"):
            assembly.think(event.delta or "")
        elif kind == "response.function_call_arguments.delta":
            assembly.call(index, arguments=event.delta)
        elif kind == "response.function_call_arguments.done":
            if arguments := arguments_of(event.arguments):
                assembly.replace_arguments(index, None, arguments)
        elif kind.startswith("response.output_item"):
            if event.item is not None:
                return self._item(index, event.item, done=kind.endswith("done"))
        elif kind in _FAILURES:
            failed = event.response.error if event.response else None
            codes = (event.code, *codes_in(failed), *codes_in(event.error))
            raise assembly.failed_midway(data, *codes)
        elif kind in _ENDS:
            response = event.response or _Response()
            text = ""
            if not self._answered:  # by those who stream nothing but the end
                items = enumerate(response.output or ())
                text = "".join([self._item(place, item, done=True) for place, item in items])
            self._finish(response, complete=kind != "response.incomplete")
            return text
        return ""

    def _item(self, index: int | None, item: _Item, *, done: bool) -> str:
        """An item of the output; its text, where that did not come before."""
        if item.type == "reasoning":
            self.assembly.think("")
        if item.type == "message" and done:
            text = "" if self._told else self._content(item.content)
            self._told = False
            return text
        if item.type != "function_call":
            return ""
        self._answered = True
        arguments = arguments_of(item.arguments)
        known = done and index in self._begun
        self.assembly.call(index, call_id=item.call_id, name=None if known else item.name)
        if done and arguments:  # whole at its end, also from those who do not stream them
            self.assembly.replace_arguments(index, item.call_id, arguments)
        whole = done and item.status != "incomplete"
        (self._begun.discard if whole else self._begun.add)(index)
        return ""

    def _content(self, parts: object) -> str:
        text = ""
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, dict):
                for key in ("text", "refusal"):
                    if isinstance(said := part.get(key), str):
                        text += self._say(said, refused=key == "refusal")
            elif isinstance(part, str):
                text += self._say(part)
        return text

    def _finish(self, response: _Response, *, complete: bool) -> None:
        assembly, used = self.assembly, response.usage
        if used is not None:
            details = "input_tokens_details"
            assembly.usage = Usage(
                count_of(used, "input_tokens"),
                count_of(used, "output_tokens"),
                1,
                count_of(used, details, "cached_tokens"),
                count_of(used, details, "cache_write_tokens"),
            )
        assembly.done = True
        if complete and response.status != "incomplete":
            # A call that was begun and of which no end came is perhaps not the model's whole call.
            status = response.status or "completed"
            if self._begun and status == "completed":
                status = ""
            assembly.finish("refusal" if self._refused else status)
        else:
            why = response.incomplete_details.reason if response.incomplete_details else None
            assembly.finish(why or "max_output_tokens")
