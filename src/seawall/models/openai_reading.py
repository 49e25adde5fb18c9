"""What servers of OpenAI's chat completions stream, read into an answer.

https://platform.openai.com/docs/api-reference/chat-streaming, and what servers that are not OpenAI
make of it.
"""

from typing import Any

import msgspec
from msgspec import Struct, field

from seawall.models.assembly import Assembly
from seawall.models.failures import codes_in
from seawall.models.lenient import LenientDecoder, count_of
from seawall.models.port import Finish, ToolCalls
from seawall.models.unreadable import UnreadableLog
from seawall.transport.sse import SseParser
from seawall.turn import Usage

__all__ = ["OpenAIReader", "arguments_of"]

_MAX_EVENT_BYTES = 1 << 20
_MAX_EXTRA_BYTES = 65_536
_NO_JSON = msgspec.Raw(b"null")


class _FunctionDelta(Struct):
    name: str | None = None
    arguments: msgspec.Raw = _NO_JSON  # text by the format, an object from some servers


class _CallDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None
    # What Gemini's face and its proxies want back with the call.
    extra_content: msgspec.Raw = _NO_JSON
    thought_signature: msgspec.Raw = _NO_JSON
    provider_specific_fields: msgspec.Raw = _NO_JSON


class _Delta(Struct):
    content: str | list[Any] | dict[str, Any] | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None
    # Reasoning has as many names as there are servers.
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
    # Of an error with nothing around it.
    code: Any = None
    status: Any = None
    type: Any = None
    error_code: Any = None
    errors: Any = None
    detail: Any = None
    x_groq: Any = None


_decode_chunk = LenientDecoder(_Chunk)
_extra_keys = ("extra_content", "thought_signature", "provider_specific_fields")


class OpenAIReader:
    """Reads one streamed completion."""

    __slots__ = ("_parser", "_refused", "assembly")

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        self.assembly = Assembly(model, origin, log)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._refused = False

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
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
        assembly.count(len(text))
        return text

    def rest(self) -> str:
        """See `Reader.rest`; some leave out the blank line behind the last event."""
        return self.feed(b"\n\n")

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
        text = self._read(choice.delta) if choice.delta is not None else ""
        if choice.finish_reason:
            assembly.finish(choice.finish_reason)
        return text

    def _check(self, chunk: _Chunk, data: bytes, *, failed: bool) -> None:
        """Raise what the server says that went wrong, wherever it says so."""
        error = chunk.error or (chunk.choices[0].error if chunk.choices else None)
        if not error and isinstance(chunk.x_groq, dict):
            error = chunk.x_groq.get("error")
        if not (error or failed or chunk.choices):  # it may stand there with nothing around it
            several = chunk.errors if isinstance(chunk.errors, list) else [chunk.errors]
            first = next(iter(several), None)
            error = first or chunk.code or chunk.error_code or chunk.detail
        if error or failed:
            bare = (chunk.code, chunk.error_code, chunk.status, chunk.type)
            raise self.assembly.failed_midway(data, *codes_in(error), *bare)

    def _read(self, delta: _Delta) -> str:
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


def arguments_of(raw: msgspec.Raw) -> str | None:
    """The next piece of a call's arguments: a string's content, or an object as it stands."""
    encoded = bytes(raw)
    if encoded == b"null":
        return None
    if encoded.startswith(b'"'):
        try:
            return msgspec.json.decode(encoded, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            import json  # noqa: PLC0415 - half of a surrogate pair, which msgspec does not read

            text = encoded.decode("utf-8", "replace")
            try:
                said: str = json.loads(text, strict=False)
            except ValueError:
                return text
            return said.encode("utf-8", "replace").decode()
    return encoded.decode("utf-8", "replace")


def _parts(content: object) -> tuple[str, str | None]:
    """The text of a list of parts, and what they say of the model's thinking."""
    text, thought = "", None
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict) and "thinking" in (part.get("type"), *part):
            thought = (thought or "") + _reasoning(part)
        elif isinstance(part, dict) and part.get("type") in (None, "text", "output_text"):
            said = part.get("text")
            text += said if isinstance(said, str) else ""
    return text, thought


def _reasoning(said: object, depth: int = 4) -> str:
    """The text of reasoning in whichever form; empty where it is encrypted."""
    if isinstance(said, str):
        return said
    if isinstance(said, list) and depth:
        return "".join([_reasoning(each, depth - 1) for each in said])
    if isinstance(said, dict) and depth:
        for key in ("text", "thinking", "summary", "content"):
            if said.get(key):
                return _reasoning(said[key], depth - 1)
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
