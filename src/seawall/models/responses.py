"""Adapter for OpenAI's responses API, streaming and stateless.

Request: https://platform.openai.com/docs/api-reference/responses; stream:
https://platform.openai.com/docs/api-reference/responses-streaming. Nothing is stored at the
provider (`store` is false): each request has the whole conversation, tool calls and their outputs
as items of it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.models import ModelRequest, Prompt, ToolSpec
from seawall.models.assembly import SseReader, UnreadableLog, as_object
from seawall.models.failures import codes_in
from seawall.models.history import NO_CONTENT, WORD_IDS, CallIds, tool_name, without_blanks
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
from seawall.turn import AssistantMessage, Image, Message, Usage, UserMessage

__all__ = ["ResponsesModel", "ResponsesReader", "ResponsesSettings"]

_BASE_URL = "https://api.openai.com/v1"
_LEAST_TOKENS = 16  # the API accepts no smaller limit
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
        "message",  # the default name of events: their type is in the data
    }
)
_READ_NAMES = frozenset(each.encode() for each in _READ)


class ResponsesReader(SseReader):
    """Reads one streamed response."""

    __slots__ = ("_answered", "_incomplete", "_item_has_text", "_refused")
    max_event_bytes = 4 << 20  # the last event repeats the whole response, instructions included

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        super().__init__(model, origin, log)
        self._refused = False
        self._incomplete: set[int | None] = set()  # indexes of calls that are not yet complete
        self._item_has_text = False
        self._answered = False  # text or a call came

    def _read(self, received: bytes) -> str:
        text = ""
        for event in self._parser.feed(received):
            if event.name not in _READ_NAMES:
                continue
            if (decoded := self._decoded(event)) is None:
                continue
            kind = decoded.type or event.name.decode()
            if kind in _TEXT:
                text += self._add_text(decoded.delta, refused="refusal" in kind)
            elif kind in _WHOLE_TEXT:
                if not self._item_has_text:
                    whole = decoded.refusal or decoded.text
                    text += self._add_text(whole, refused="refusal" in kind)
            elif kind in _READ:
                text += self._take(kind, decoded, event.data)
            if self.assembly.done:
                break
        return text

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

    def _add_text(self, text: str | None, *, refused: bool = False) -> str:
        if not text:
            return ""
        self._item_has_text = self._answered = True
        self._refused |= refused
        return text

    def _take(self, kind: str, event: _Event, data: bytes) -> str:
        """Take an event that is no text; return text that no other event has."""
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
            if not self._answered:  # some servers stream nothing but the end
                items = enumerate(response.output or ())
                text = "".join([self._item(at, item, done=True) for at, item in items])
            self._finish(response, complete=kind != "response.incomplete")
            return text
        return ""

    def _item(self, index: int | None, item: _Item, *, done: bool) -> str:
        """Take an item of the output; return its text, unless that came before."""
        if item.type == "reasoning":
            self.assembly.think("")
        if item.type == "message" and done:
            text = "" if self._item_has_text else self._content(item.content)
            self._item_has_text = False
            return text
        if item.type != "function_call":
            return ""
        self._answered = True
        arguments = arguments_of(item.arguments)
        known = done and index in self._incomplete
        self.assembly.call(index, call_id=item.call_id, name=None if known else item.name)
        if done and arguments:  # complete at the end, also where they are not streamed
            self.assembly.replace_arguments(index, item.call_id, arguments)
        whole = done and item.status != "incomplete"
        (self._incomplete.discard if whole else self._incomplete.add)(index)
        return ""

    def _content(self, parts: object) -> str:
        text = ""
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, dict):
                for key in ("text", "refusal"):
                    if isinstance(piece := part.get(key), str):
                        text += self._add_text(piece, refused=key == "refusal")
            elif isinstance(part, str):
                text += self._add_text(part)
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
            # A call without an end may be incomplete.
            status = response.status or "completed"
            if self._incomplete and status == "completed":
                status = ""
            assembly.finish("refusal" if self._refused else status)
        else:
            why = response.incomplete_details.reason if response.incomplete_details else None
            assembly.finish(why or "max_output_tokens")


ResponsesSettings = HttpModelSettings


class ResponsesModel(HttpModel[ResponsesSettings]):
    """One model of an endpoint of the responses API; implements the model port."""

    reader = ResponsesReader

    def __init__(self, name: str, settings: ResponsesSettings, client: HttpClient) -> None:
        """See `HttpModel`."""
        super().__init__(
            name,
            settings,
            client,
            kind="responses",
            base_url=settings.base_url or _BASE_URL,
            path="/responses",
            headers=(*SSE_HEADERS, *bearer(settings.api_key)),
        )

    def _encode_head(self, prompt: Prompt) -> bytes:
        """Encode the JSON that all turns share, without the closing bracket."""
        settings = self._settings
        parts = [b'{"model":', encode(settings.model), b',"stream":true,"store":false']
        if prompt.tools:
            parts += [b',"tools":', encode([_wire_tool(each) for each in prompt.tools])]
        instructions, output = self._split_output(prompt)
        if output is not None:
            from seawall.models.schemas import is_strict  # noqa: PLC0415 - only if configured

            wanted = {
                "type": "json_schema",
                "name": output.name,
                "schema": output.schema,
                "strict": is_strict(output.schema),
            }
            parts += [b',"text":', encode({"format": wanted})]
        parts += [b',"instructions":', encode(instructions)]
        return b"".join(parts)

    def _encode_body(self, head: bytes, request: ModelRequest) -> bytes:
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        messages = without_blanks(request.messages)
        items = [item for message in messages for item in _items(message, ids)]
        parts = [head, b',"input":', encode(items)]
        if request.max_tokens is not None:
            parts.append(b',"max_output_tokens":%d' % max(_LEAST_TOKENS, request.max_tokens))
        if request.temperature is not None:
            parts.append(b',"temperature":' + encode(request.temperature))
        if request.prompt.tools:
            parts.append(_tool_fields(request))
        if self._settings.cache != "off":
            parts.append(b',"prompt_cache_key":' + encode(self._cache_key(head, request)))
        parts.append(b"}")
        return b"".join(parts)


def _tool_fields(request: ModelRequest) -> bytes:
    """The choice of tools, where it is not the default.

    https://platform.openai.com/docs/api-reference/responses/create#responses-create-tool_choice
    """
    choice: object = request.tool_choice
    fields = b""
    if choice not in ("auto", "none", "required"):
        choice = {"type": "function", "name": choice}
    if choice != "auto":
        fields = b',"tool_choice":' + encode(choice)
    if not request.parallel_tool_calls:
        fields += b',"parallel_tool_calls":false'
    return fields


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    # Strict is this API's default, and refuses schemas with optional parameters.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _user_parts(message: UserMessage) -> list[dict[str, object]]:
    """A message with files, which stand before its text."""
    from seawall.models.attachments import files_of  # noqa: PLC0415 - only where there are

    parts: list[dict[str, object]] = []
    for each in files_of(message):
        if isinstance(each, Image):
            parts.append(_wire_image(each))
        else:
            data = f"data:application/pdf;base64,{each.data}"
            name = each.name or "document.pdf"
            parts.append({"type": "input_file", "filename": name, "file_data": data})
    if message.text.strip():
        parts.append({"type": "input_text", "text": message.text})
    return parts


def _items(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        plain = type(message) is UserMessage
        return [{"role": "user", "content": message.text if plain else _user_parts(message)}]
    if isinstance(message, AssistantMessage):
        items: list[dict[str, object]] = []
        if message.text and not message.text.isspace():
            items.append({"role": "assistant", "content": message.text})
        for call in message.tool_calls:
            arguments = bytes(as_object(call.arguments)).decode()
            item = {"name": tool_name(call.name), "arguments": arguments}
            items.append({"type": "function_call", "call_id": ids.of_call(call), **item})
        return items
    content = message.content if message.content.strip() else NO_CONTENT
    output: str | list[dict[str, object]] = content
    if message.images:
        output = [{"type": "input_text", "text": content}, *map(_wire_image, message.images)]
    result = {"call_id": ids.of_result(message), "output": output}
    return [{"type": "function_call_output", **result}]


def _wire_image(image: Image) -> dict[str, object]:
    url = f"data:{image.media_type};base64,{image.data}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}
