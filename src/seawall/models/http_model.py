"""Base of the HTTP model adapters: one streamed request, its events, warm connections."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct, structs

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.models import (
    ModelEvent,
    ModelRequest,
    OutputFormat,
    Progress,
    Prompt,
    Text,
    TextSink,
)
from seawall.models.assembly import Reader, UnreadableLog
from seawall.models.history import call_origin, has_images, named_only
from seawall.spans import current_span
from seawall.transport.connection import TransportError, TransportTimeout
from seawall.transport.http_client import Endpoint, HttpClient, Response

if TYPE_CHECKING:
    from seawall.models.attachments import LoadedRequest

__all__ = [
    "SSE_HEADERS",
    "Encoded",
    "HttpModel",
    "HttpModelSettings",
    "LenientDecoder",
    "arguments_of",
    "bearer",
    "count_of",
    "encode",
]

SSE_HEADERS = ((b"content-type", b"application/json"), (b"accept", b"text/event-stream"))

_MAX_ERROR_BYTES = 16_384
_ERROR_SECONDS = 2.0
_DRAIN_SECONDS = 0.05  # for the end of the body, after the end of the answer
_WARM_SECONDS = 5.0
_MAX_BLANK_READS = 256
_MOST_TOKENS = 1 << 40
_DOCUMENT_STARTS = (b"{", b"[", b"<")  # a JSON or HTML document instead of a stream

_log = logging.getLogger("seawall.models")

encode = msgspec.json.Encoder().encode

Header = tuple[bytes, bytes]
T = TypeVar("T", bound=Struct)


def bearer(api_key: str) -> tuple[Header, ...]:
    """Return the header that carries an API key; none for an empty key."""
    return ((b"authorization", b"Bearer " + api_key.encode()),) if api_key else ()


class LenientDecoder(Generic[T]):
    """Decodes one event of a stream into a struct whose fields all have defaults.

    Strict decoding is tried first and costs nothing more; see `lenient` for what it refuses.
    """

    __slots__ = ("_decode", "_kind")

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, data: bytes) -> T | None:
        """Return the struct; None for what is no JSON object, and so no part of the answer.

        Raises:
            ValueError: It is an object that cannot be read.
        """
        try:
            return self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            from seawall.models.lenient import decode_leniently  # noqa: PLC0415 - seldom needed

            return decode_leniently(data, self._kind)


def count_of(used: object, *path: str) -> int:
    """Return a count of tokens from a provider's usage report; 0 for what cannot be one.

    Args:
        used: The report, of any shape.
        path: The keys that lead to the count.
    """
    for key in path:
        used = used.get(key) if isinstance(used, dict) else None
    if used is None:
        return 0
    whole = used if type(used) is int else None
    if whole is None:
        from seawall.models.lenient import whole_number  # noqa: PLC0415 - seldom needed

        whole = whole_number(used)
    return whole if whole is not None and 0 <= whole <= _MOST_TOKENS else 0


def arguments_of(raw: msgspec.Raw) -> str | None:
    """Return a piece of a call's arguments: a string's content, or an object as it is."""
    encoded = bytes(raw)
    if encoded == b"null":
        return None
    if encoded.startswith(b'"'):
        try:
            return msgspec.json.decode(encoded, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            import json  # noqa: PLC0415 - an unpaired surrogate, which msgspec refuses

            text = encoded.decode("utf-8", "replace")
            try:
                piece: str = json.loads(text, strict=False)
            except ValueError:
                return text
            return piece.encode("utf-8", "replace").decode()
    return encoded.decode("utf-8", "replace")


class HttpModelSettings(Struct, frozen=True, kw_only=True):
    """Settings that all HTTP adapters share.

    Attributes:
        base_url: URL of the API without the path of the call; empty for the provider's own.
        model: The provider's name of the model.
        api_key: Empty to send none.
        cache: The part of a request for which the provider's prompt cache is used: nothing, the
            part that all turns of an agent share, or the conversation as well.
        schema_in_instructions: Describe the output schema in the instructions, for models that
            do not accept one.
        warm: Connections to open before the first request.
        vision: Whether the model takes images.
        documents: Whether the model takes PDFs.
    """

    base_url: str = ""
    model: str
    api_key: str = ""
    cache: Literal["off", "prefix", "conversation"] = "prefix"
    schema_in_instructions: bool = False
    warm: int = 1
    vision: bool = False
    documents: bool = False


class Encoded(NamedTuple):
    """Headers and body of a request, and when it was signed (Unix seconds), if it was."""

    headers: Sequence[Header]
    body: bytes
    signed_at: float = 0.0


class _Forwarding:
    """Passes text from the connection to a sink, until something else comes.

    Attributes:
        text: Of the last bytes; the sink has not taken it.
        error: Why the last bytes could not be read; None if they could.
    """

    __slots__ = ("_reader", "_sink", "error", "text")

    def __init__(self, reader: Reader, sink: TextSink) -> None:
        self._reader = reader
        self._sink = sink
        self.text = ""
        self.error: Exception | None = None

    def take(self, received: bytes) -> bool:
        """Take received bytes; whether there may be more."""
        try:
            text = self._reader.feed(received)
            assembly = self._reader.assembly
            if assembly.quiet and (not text or self._sink(text)):
                return not assembly.done
        except Exception as error:  # noqa: BLE001 - raised where the answer is read
            self.error = error
            return False
        self.text = text
        return False


class _Ending:
    """Raises failures of the connection as those of the model; releases what was loaded."""

    __slots__ = ("_loaded", "_model")

    def __init__(self, model: str, loaded: "LoadedRequest | None") -> None:
        self._model = model
        self._loaded = loaded

    def __enter__(self) -> None:
        """The block sends the request and reads the answer."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loaded is not None:
            self._loaded.release()
        if isinstance(error, TransportTimeout):
            raise DeadlineExceeded(
                f"The model '{self._model}' did not finish in time.", field="model"
            ) from error
        if isinstance(error, TransportError):
            raise UpstreamFailed(f"The connection to the model '{self._model}' failed.") from error


SettingsT = TypeVar("SettingsT", bound=HttpModelSettings)


class HttpModel(Generic[SettingsT]):
    """Implements the model port over one HTTP endpoint.

    A subclass sets `reader`, and encodes requests in `_encode_head` and `_encode_body`.

    Attributes:
        on_response: Called with the headers of every response; None for none.
    """

    reader: ClassVar[type[Reader]]

    def __init__(
        self,
        name: str,
        settings: SettingsT,
        client: HttpClient,
        *,
        kind: str,
        base_url: str,
        path: str,
        headers: Sequence[Header] = (),
    ) -> None:
        """Create the adapter; opens nothing.

        Args:
            name: Name of the model in the configuration.
            settings: Which model, and how to call it.
            client: Owns the connections.
            kind: Kind of the API, such as "openai"; part of the identity of stored tool calls.
            base_url: URL of the API; also part of that identity.
            path: Path of the call below `base_url`.
            headers: Sent with every request.
        """
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse(base_url.rstrip("/") + path)
        self._origin = call_origin(kind, base_url, settings.model)
        self._unreadable = UnreadableLog(name, f"{kind} at {self._endpoint.authority.decode()}")
        self._headers = tuple(headers)
        self.on_response: Callable[[Mapping[str, str]], None] | None = None
        # A prompt lives as long as its agent and is encoded once.
        self._heads: WeakKeyDictionary[Prompt, bytes] = WeakKeyDictionary()

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        reader = self.reader(self._name, self._origin, self._unreadable)
        assembly = reader.assembly
        may_repeat = True
        answered = False
        loaded = await self._load(request, deadline) if request.contents is not None else None
        with _Ending(self._name, loaded):
            while not answered:
                sent, signed_at = await self._send(
                    request if loaded is None else loaded.request, deadline
                )
                async with sent as response:
                    first = await self._check(response, signed_at, may_repeat=may_repeat)
                    if first is None:
                        may_repeat = False
                        continue
                    if loaded is not None:
                        loaded.release()
                        loaded = None
                    received = True
                    while received and not assembly.done:
                        chunk, first = first or await response.read_some(), b""
                        received = bool(chunk)
                        text = assembly.begin(reader.feed(chunk) if received else reader.rest())
                        if (progress := assembly.take_progress()) is not None:
                            yield progress
                        if text:
                            yield Text(text)
                            for each in await _forward(request, reader, response):
                                yield each
                    if received:
                        await response.drain(seconds=_DRAIN_SECONDS)
                    answered = True
        calls, finish = reader.end()
        if calls is not None:
            yield calls
        yield finish

    async def _load(self, request: ModelRequest, deadline: float) -> "LoadedRequest | None":
        """Load the attachments of a request."""
        from seawall.models.attachments import load_request  # noqa: PLC0415 - only where there are

        settings = self._settings
        return await load_request(
            request, vision=settings.vision, documents=settings.documents, deadline=deadline
        )

    async def warm(self) -> None:
        """See `Model.warm`."""
        deadline = asyncio.get_running_loop().time() + _WARM_SECONDS
        try:
            await self._client.warm(self._endpoint, self._settings.warm, deadline=deadline)
        except TransportError as error:
            _log.warning("model %s cannot be reached yet: %s", self._name, error)

    async def close(self) -> None:
        """See `Model.close`; the connections belong to the client, which is closed separately."""

    def _split_output(self, prompt: Prompt) -> tuple[str, OutputFormat | None]:
        """See `split_output`."""
        if prompt.output is None:
            return prompt.instructions, None
        from seawall.models.schemas import split_output  # noqa: PLC0415 - only if configured

        return split_output(prompt, in_instructions=self._settings.schema_in_instructions)

    def _encode_head(self, prompt: Prompt) -> bytes:
        """Encode the part of a request that all turns of an agent share."""
        raise NotImplementedError

    def _encode_body(self, head: bytes, request: ModelRequest) -> bytes:
        """Encode the body of a request, which begins with `head`."""
        raise NotImplementedError

    async def _encode(self, request: ModelRequest, deadline: float) -> Encoded:  # noqa: ARG002 - to sign
        return Encoded(self._headers, self._body(request))

    def _may_sign_again(self, response: Response, body: bytes, signed_at: float) -> bool:  # noqa: ARG002
        """Return whether a refused request may succeed if it is encoded again."""
        return False

    def _body(self, request: ModelRequest) -> bytes:
        head = self._heads.get(request.prompt)
        if head is None:
            head = self._heads[request.prompt] = self._encode_head(request.prompt)
        if not self._settings.vision and any(map(has_images, request.messages)):
            request = structs.replace(request, messages=named_only(request.messages))
        return self._encode_body(head, request)

    def _cache_key(self, head: bytes, request: ModelRequest) -> str:
        """Return the key by which OpenAI groups requests that share a prefix; reveals no content.

        https://platform.openai.com/docs/guides/prompt-caching
        """
        digest = hashlib.sha256(head)
        if self._settings.cache == "conversation" and request.messages:
            digest.update(encode(request.messages[0]))
        return digest.hexdigest()[:32]

    async def _send(
        self, request: ModelRequest, deadline: float
    ) -> tuple[AbstractAsyncContextManager[Response], float]:
        # Encoded here and not kept: the prompts of thousands of open streams would be most of
        # the memory.
        headers, body, signed_at = await self._encode(request, deadline)
        if (span := current_span.get()) is not None and span.traceparent:
            headers = (*headers, (b"traceparent", span.traceparent))
        sent = self._client.stream(
            "POST",
            self._endpoint,
            headers=headers,
            body=body,
            deadline=deadline,
            replay=False,  # calls cost money: the caller decides about retries
        )
        return sent, signed_at

    async def _check(
        self, response: Response, signed_at: float, *, may_repeat: bool
    ) -> bytes | None:
        """Return the first bytes of a stream: those that had to be read to recognise it.

        None: repeat the request once. Anything else than a stream is logged; the caller of the
        model learns its status only.

        Raises:
            UpstreamFailed: The response is not a stream.
        """
        first = b""
        if self.on_response is not None:
            self.on_response(response.headers)
        if response.status == 200:
            for _ in range(_MAX_BLANK_READS):
                first = await response.read_some()
                if not first.isspace():
                    break
            # Judged by content: some servers label streams as JSON, others errors as streams.
            if not first.lstrip().startswith(_DOCUMENT_STARTS):
                return first
        body = first + await _read_bounded(response)
        if may_repeat and self._may_sign_again(response, body, signed_at):
            return None
        raise self._failure(response, body)

    def _failure(self, response: Response, body: bytes) -> UpstreamFailed:
        """Log a response that is not a stream; return the failure to raise."""
        from seawall.models import failures  # noqa: PLC0415 - only for a failure

        _log.warning("model %s answered %d: %r", self._name, response.status, body[:2_000])
        codes = failures.codes_of_body(body)
        if response.status != 200:
            retry_after = failures.retry_after_of(response.headers)
            return failures.failure_of(self._name, response.status, retry_after, codes=codes)
        return failures.coded_failure(self._name, codes) or UpstreamFailed(
            f"The model '{self._name}' did not answer with a stream."
        )


async def _forward(
    request: ModelRequest, reader: Reader, response: Response
) -> Sequence[Progress | Text]:
    """Pass text to the sink of a request, until it takes no more or something else comes.

    Returns:
        What was read and not taken.
    """
    if request.sink is None or reader.assembly.done:
        return ()
    forwarding = _Forwarding(reader, request.sink)
    await response.forward(forwarding.take)
    if forwarding.error is not None:
        raise forwarding.error
    progress = reader.assembly.take_progress()
    text = Text(forwarding.text) if forwarding.text else None
    return [each for each in (progress, text) if each is not None]


async def _read_bounded(response: Response) -> bytes:
    """Read the beginning of a body, within bounds on bytes and time."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_SECONDS):
            while len(body) < _MAX_ERROR_BYTES and (piece := await response.read_some()):
                body += piece
    except (TimeoutError, TransportError):
        pass  # the status is enough
    return bytes(body[:_MAX_ERROR_BYTES])
