"""A client of Amazon Bedrock's ConverseStream: one API for the models of many makers.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
Requests are signed by `seawall.aws`, or carry a Bedrock API key; answers are a binary event stream.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, Protocol
from urllib.parse import quote
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from seawall.aws.credentials import Credentials, CredentialsError, CredentialsUnavailable
from seawall.aws.endpoints import endpoint_url
from seawall.aws.server_clock import ServerClock
from seawall.aws.signature import Signer
from seawall.errors import UpstreamFailed, UpstreamRefused
from seawall.models.alternation import alternate, declared_tools
from seawall.models.assembly import as_object
from seawall.models.bedrock_reading import BedrockReader
from seawall.models.history import NO_CONTENT, WORD_IDS, CallIds, call_origin, tool_name
from seawall.models.http_model import Encoded, stream_answer, warm_connections
from seawall.models.port import ModelEvent, ModelRequest, Prompt, ToolSpec
from seawall.models.schemas import ANY_OBJECT, schema_instructions, simplify_schema
from seawall.models.unreadable import UnreadableLog
from seawall.transport.http_client import Endpoint, HttpClient, Response
from seawall.turn import AssistantMessage, Message, UserMessage

__all__ = ["BedrockModel", "BedrockSettings", "CredentialProvider"]

_CONTENT_TYPE = "application/json"
_CACHE_POINT: dict[str, object] = {"cachePoint": {"type": "default"}}

_log = logging.getLogger("seawall.models")


class CredentialProvider(Protocol):
    """Gives what requests are signed with; `seawall.aws.credential_cache` has it."""

    async def get(self, *, deadline: float) -> Credentials:
        """See `CredentialCache.get`."""
        ...

    async def close(self) -> None:
        """See `CredentialCache.close`."""
        ...


class BedrockSettings(Struct, frozen=True, kw_only=True):
    """Which model, where, and how it is to be asked.

    model: an id, an inference profile or an ARN. base_url: empty for the region's own endpoint.
    api_key: a Bedrock API key; empty to sign. cache: how much of a request is marked for the prompt
    cache; models that have none refuse the mark. schema_in_words: for models that do not take a
    schema of their output.
    warm: connections to open ahead.
    """

    model: str
    region: str
    base_url: str = ""
    api_key: str = ""
    cache: Literal["off", "prefix", "conversation"] = "off"
    schema_in_instructions: bool = False
    warm: int = 1


class _Refusal(Struct):
    message: str = ""


_encode = msgspec.json.Encoder().encode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


class BedrockModel:
    """One model of one region; implements the model port."""

    def __init__(
        self,
        name: str,
        settings: BedrockSettings,
        client: HttpClient,
        credentials: CredentialProvider | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """credentials: not needed with an API key. clock: Unix time in seconds."""
        self._name = name
        self._settings = settings
        self._client = client
        self._credentials = credentials
        base = settings.base_url.rstrip("/") or endpoint_url("bedrock-runtime", settings.region)
        # An id may have colons, an ARN slashes: all of it is one segment of the path.
        path = f"/model/{quote(settings.model, safe='')}/converse-stream"
        self._endpoint = Endpoint.parse(base + path)
        self._origin = call_origin("bedrock", base, settings.model)
        self._unreadable = UnreadableLog(name, f"bedrock at {self._endpoint.authority.decode()}")
        self._signer = Signer(settings.region, "bedrock")
        self._time = ServerClock(clock)
        # Prompts live as long as their agents; each is encoded once.
        self._heads: WeakKeyDictionary[Prompt, bytes] = WeakKeyDictionary()

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        found = await self._found(deadline)
        signed_at = 0.0

        def encode() -> Encoded:
            nonlocal signed_at
            signed_at = self._time.now()
            return self._encoded(request, found, signed_at)

        answer = stream_answer(
            self._name,
            self._client,
            self._endpoint,
            encode,
            BedrockReader(self._name, self._origin, self._unreadable),
            deadline=deadline,
            ask_again=lambda refused, said: self._should_sign_again(refused, said, signed_at),
        )
        async with aclosing(answer):
            async for event in answer:
                yield event

    async def warm(self) -> None:
        """See `Model.warm`."""
        await warm_connections(self._name, self._client, self._endpoint, self._settings.warm)

    async def close(self) -> None:
        """See `Model.close`; the connections belong to the client, which is closed apart."""
        if self._credentials is not None:
            await self._credentials.close()

    async def _found(self, deadline: float) -> Credentials | None:
        if self._credentials is None:
            return None
        try:
            return await self._credentials.get(deadline=deadline)
        except CredentialsError as error:
            _log.warning("model %s: %s", self._name, error)
            passing = isinstance(error, CredentialsUnavailable)
            kind = UpstreamFailed if passing else UpstreamRefused
            raise kind(f"There are no AWS credentials to ask the model '{self._name}'.") from error

    def _should_sign_again(self, refused: Response, said: bytes, signed_at: float) -> bool:
        code = refused.headers.get("x-amzn-errortype", "").partition(":")[0]
        try:
            message = _decode_refusal(said).message
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = ""
        date = refused.headers.get("date", "")
        return self._time.should_sign_again(code, message, date, signed_at=signed_at)

    def _encoded(
        self, request: ModelRequest, credentials: Credentials | None, at: float
    ) -> Encoded:
        body = self._body(request)
        if credentials is None:
            key = b"Bearer " + self._settings.api_key.encode()
            return [(b"authorization", key), (b"content-type", _CONTENT_TYPE.encode())], body
        headers = self._signer.sign(
            credentials,
            method="POST",
            headers=[
                ("content-type", _CONTENT_TYPE),
                ("host", self._endpoint.authority.decode()),
            ],
            body=body,
            at=at,
            path=self._endpoint.target.decode(),
        )
        headers.append((b"content-type", _CONTENT_TYPE.encode()))
        return headers, body

    def _body(self, request: ModelRequest) -> bytes:
        head = self._heads.get(request.prompt)
        if head is None:
            head = self._heads[request.prompt] = _head(self._settings, request.prompt)
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        messages = [
            {"role": role, "content": [block for each in side for block in _blocks(each, ids)]}
            for role, side in alternate(request.messages)
        ]
        if self._settings.cache == "conversation" and messages:
            blocks: list[dict[str, object]] = messages[-1]["content"]  # type: ignore[assignment]
            blocks.append(_CACHE_POINT)
        parts = [head, _encode(messages)]
        if tools := declared_tools(request.prompt, request.messages):
            parts += [b',"toolConfig":', _encode({"tools": [_wire_tool(each) for each in tools]})]
        bounds: dict[str, object] = {}
        if request.max_tokens is not None:
            bounds["maxTokens"] = request.max_tokens
        if request.temperature is not None:
            bounds["temperature"] = request.temperature
        if stop := [each for each in request.stop if each.strip()]:
            bounds["stopSequences"] = stop
        if bounds:
            parts += [b',"inferenceConfig":', _encode(bounds)]
        parts.append(b"}")
        return b"".join(parts)


def _head(settings: BedrockSettings, prompt: Prompt) -> bytes:
    """The request's JSON up to its messages, without closing brackets.

    The mark at the end of the system covers the tools too, which a cached prompt begins with.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    parts = [b"{"]
    instructions = prompt.instructions
    output = prompt.output
    if output is not None and (settings.schema_in_instructions or output.schema == ANY_OBJECT):
        instructions = f"{instructions}\n\n{schema_instructions(output)}"
    elif output is not None:
        schema = _encode(simplify_schema(output.schema)).decode()  # this API takes it as text
        wanted = {"jsonSchema": {"name": output.name, "schema": schema}}
        text_format = {"type": "json_schema", "structure": wanted}
        parts += [b'"outputConfig":', _encode({"textFormat": text_format}), b","]
    if instructions.strip():
        system: list[dict[str, object]] = [{"text": instructions}]
        if settings.cache != "off":
            system.append(_CACHE_POINT)
        parts += [b'"system":', _encode(system), b","]
    parts.append(b'"messages":')
    return b"".join(parts)


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    spec: dict[str, object] = {"name": tool.name, "inputSchema": {"json": tool.parameters}}
    if tool.description:  # it must not be empty
        spec["description"] = tool.description
    return {"toolSpec": spec}


def _blocks(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        return [{"text": message.text}]
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
    result = {"toolUseId": ids.of_result(message), "content": [{"text": content}]}
    return [{"toolResult": {**result, "status": status}}]
