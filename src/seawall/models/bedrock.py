"""Adapter for Amazon Bedrock's ConverseStream: one API for the models of many makers.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
Requests are signed by `seawall.aws`, or carry a Bedrock API key; answers are a binary event stream.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Struct

from seawall.aws import (
    Credentials,
    CredentialsError,
    CredentialsUnavailable,
    ServerClock,
    Signer,
    endpoint_url,
)
from seawall.aws.event_stream import EventMessage, EventStreamParser
from seawall.errors import UpstreamFailed, UpstreamRefused
from seawall.models import Finish, ModelRequest, Prompt, ToolCalls, ToolSpec
from seawall.models.assembly import Reader, UnreadableLog, as_object
from seawall.models.history import (
    NO_CONTENT,
    WORD_IDS,
    CallIds,
    alternate,
    declared_tools,
    tool_name,
)
from seawall.models.http_model import (
    Encoded,
    HttpModel,
    HttpModelSettings,
    LenientDecoder,
    arguments_of,
    bearer,
    count_of,
    encode,
)
from seawall.transport.http_client import HttpClient, Response
from seawall.turn import AssistantMessage, Image, Message, Usage, UserMessage

__all__ = ["BedrockModel", "BedrockReader", "BedrockSettings", "CredentialProvider"]

_CONTENT_TYPE = "application/json"
_CACHE_POINT: dict[str, object] = {"cachePoint": {"type": "default"}}
_NO_JSON = msgspec.Raw(b"null")

_log = logging.getLogger("seawall.models")


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


class BedrockReader(Reader):
    """Reads one streamed answer."""

    __slots__ = ("_parser",)

    def __init__(self, model: str, origin: str = "", log: UnreadableLog | None = None) -> None:
        super().__init__(model, origin, log)
        self._parser = EventStreamParser()

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = "".join([self._take(message) for message in self._parser.feed(received)])
        self.assembly.count(len(text), len(received))
        return text

    def rest(self) -> str:
        """See `Reader.rest`; an incomplete message carries nothing."""
        return ""

    def end(self) -> tuple[ToolCalls | None, Finish]:
        """See `Reader.end`."""
        if self._parser.mid_message:
            raise self.assembly.failure("broke off in the middle of its answer")
        return self.assembly.end()

    def _take(self, message: EventMessage) -> str:
        kind = message.text(":message-type")
        if kind in ("exception", "error"):
            code = message.text(":exception-type") or message.text(":error-code")
            detail = message.payload or message.text(":error-message").encode()
            raise self.assembly.failed_midway(code.encode() + b" " + detail, code)
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
            # The API counts the three separately.
            read = count_of(used, "inputTokens") + cached + written
            assembly.usage = Usage(read, count_of(used, "outputTokens"), 1, cached, written)
        assembly.done = event_type == "metadata" and assembly.reason is not None
        return (delta.text or "") if delta is not None else ""


class CredentialProvider(Protocol):
    """Provides what requests are signed with; implemented by `CredentialCache`."""

    async def get(self, *, deadline: float) -> Credentials:
        """See `CredentialCache.get`."""
        ...

    async def close(self) -> None:
        """See `CredentialCache.close`."""
        ...


class BedrockSettings(HttpModelSettings, frozen=True, kw_only=True):
    """Settings of one model of one region.

    `model` is an id, an inference profile or an ARN; `api_key` a Bedrock API key, empty to sign
    requests. Models without a prompt cache refuse the mark that `cache` sets.

    Attributes:
        region: AWS region, such as "eu-west-1".
    """

    region: str
    cache: Literal["off", "prefix", "conversation"] = "off"


class _Refusal(Struct):
    message: str = ""


_decode_refusal = msgspec.json.Decoder(_Refusal).decode


class BedrockModel(HttpModel[BedrockSettings]):
    """One model of one region; implements the model port."""

    reader = BedrockReader

    def __init__(
        self,
        name: str,
        settings: BedrockSettings,
        client: HttpClient,
        credentials: CredentialProvider | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the adapter; opens nothing.

        Args:
            name: Name of the model in the configuration.
            settings: Which model, and how to call it.
            client: Owns the connections.
            credentials: Sign the requests; None with an API key.
            clock: Unix time in seconds.
        """
        super().__init__(
            name,
            settings,
            client,
            kind="bedrock",
            base_url=settings.base_url.rstrip("/")
            or endpoint_url("bedrock-runtime", settings.region),
            # An id may have colons, an ARN slashes: all of it is one segment of the path.
            path=f"/model/{quote(settings.model, safe='')}/converse-stream",
            headers=(
                *bearer(settings.api_key),
                (b"content-type", _CONTENT_TYPE.encode()),
            ),
        )
        self._credentials = credentials
        self._signer = Signer(settings.region, "bedrock")
        self._clock = ServerClock(clock)

    async def close(self) -> None:
        """See `Model.close`."""
        if self._credentials is not None:
            await self._credentials.close()

    async def _encode(self, request: ModelRequest, deadline: float) -> Encoded:
        if self._credentials is None:
            return await super()._encode(request, deadline)
        try:
            credentials = await self._credentials.get(deadline=deadline)
        except CredentialsError as error:
            _log.warning("model %s: %s", self._name, error)
            temporary = isinstance(error, CredentialsUnavailable)
            kind = UpstreamFailed if temporary else UpstreamRefused
            raise kind(f"There are no AWS credentials to call the model '{self._name}'.") from error
        body = self._body(request)
        signed_at = self._clock.now()
        signature = self._signer.sign(
            credentials,
            method="POST",
            headers=[
                ("content-type", _CONTENT_TYPE),
                ("host", self._endpoint.authority.decode()),
            ],
            body=body,
            at=signed_at,
            path=self._endpoint.target.decode(),
        )
        return Encoded((*signature, *self._headers), body, signed_at)

    def _may_sign_again(self, response: Response, body: bytes, signed_at: float) -> bool:
        code = response.headers.get("x-amzn-errortype", "").partition(":")[0]
        try:
            message = _decode_refusal(body).message
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = ""
        date = response.headers.get("date", "")
        return self._clock.should_sign_again(code, message, date, signed_at=signed_at)

    def _encode_head(self, prompt: Prompt) -> bytes:
        """Encode the JSON up to the messages, without closing brackets.

        The mark at the end of the system covers the tools too, which a cached prompt begins with.
        https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
        """
        settings = self._settings
        parts = [b"{"]
        instructions, output = self._split_output(prompt)
        if output is not None:
            from seawall.models.schemas import simplify_schema  # noqa: PLC0415 - only if configured

            schema = encode(simplify_schema(output.schema)).decode()  # this API takes it as text
            wanted = {"jsonSchema": {"name": output.name, "schema": schema}}
            text_format = {"type": "json_schema", "structure": wanted}
            parts += [b'"outputConfig":', encode({"textFormat": text_format}), b","]
        if instructions.strip():
            system: list[dict[str, object]] = [{"text": instructions}]
            if settings.cache != "off":
                system.append(_CACHE_POINT)
            parts += [b'"system":', encode(system), b","]
        parts.append(b'"messages":')
        return b"".join(parts)

    def _encode_body(self, head: bytes, request: ModelRequest) -> bytes:
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        messages = [
            {"role": role, "content": [block for each in side for block in _blocks(each, ids)]}
            for role, side in alternate(request.messages)
        ]
        if self._settings.cache == "conversation" and messages:
            blocks: list[dict[str, object]] = messages[-1]["content"]  # type: ignore[assignment]
            blocks.append(_CACHE_POINT)
        parts = [head, encode(messages)]
        if tools := _declared(request):
            config: dict[str, object] = {"tools": [_wire_tool(each) for each in tools]}
            if request.prompt.tools and request.tool_choice not in ("auto", "none"):
                required = request.tool_choice == "required"
                config["toolChoice"] = (
                    {"any": {}} if required else {"tool": {"name": request.tool_choice}}
                )
            parts += [b',"toolConfig":', encode(config)]
        bounds: dict[str, object] = {}
        if request.max_tokens is not None:
            bounds["maxTokens"] = request.max_tokens
        if request.temperature is not None:
            bounds["temperature"] = request.temperature
        if stop := [each for each in request.stop if each.strip()]:
            bounds["stopSequences"] = stop
        if bounds:
            parts += [b',"inferenceConfig":', encode(bounds)]
        parts.append(b"}")
        return b"".join(parts)


def _declared(request: ModelRequest) -> tuple[ToolSpec, ...]:
    """The tools that a request declares.

    This API has no choice "none" (API_runtime_ToolChoice.html): then only those that were called
    before are declared, as not available.
    """
    if request.tool_choice == "none":
        return declared_tools(Prompt(""), request.messages)
    return declared_tools(request.prompt, request.messages)


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    spec: dict[str, object] = {"name": tool.name, "inputSchema": {"json": tool.parameters}}
    if tool.description:  # it must not be empty
        spec["description"] = tool.description
    return {"toolSpec": spec}


def _wire_image(image: Image) -> dict[str, object]:
    kind = image.media_type.partition("/")[2]
    return {"image": {"format": kind, "source": {"bytes": image.data}}}


def _user_blocks(message: UserMessage) -> list[dict[str, object]]:
    """A message with files, which stand before its text.

    Names of documents are ours: this API accepts few characters in them, and each name once. A
    text is required beside a document.
    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
    """
    from seawall.models.attachments import files_of  # noqa: PLC0415 - only where there are

    blocks: list[dict[str, object]] = []
    for each in files_of(message):
        if isinstance(each, Image):
            blocks.append(_wire_image(each))
        else:
            document = {"format": "pdf", "name": f"file {each.id}", "source": {"bytes": each.data}}
            blocks.append({"document": document})
    blocks.append({"text": message.text if message.text.strip() else NO_CONTENT})
    return blocks


def _blocks(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        return [{"text": message.text}] if type(message) is UserMessage else _user_blocks(message)
    if isinstance(message, AssistantMessage):
        blocks: list[dict[str, object]] = []
        if message.text and not message.text.isspace():
            blocks.append({"text": message.text})
        for call in message.tool_calls:
            use = {"toolUseId": ids.of_call(call), "name": tool_name(call.name)}
            blocks.append({"toolUse": {**use, "input": as_object(call.arguments)}})
        return blocks
    status = "error" if message.failed else "success"
    content = message.content if message.content.strip() else NO_CONTENT
    parts: list[dict[str, object]] = [{"text": content}]
    parts += map(_wire_image, message.images)
    result = {"toolUseId": ids.of_result(message), "content": parts}
    return [{"toolResult": {**result, "status": status}}]
