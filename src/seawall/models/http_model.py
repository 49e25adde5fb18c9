"""One request to a provider that speaks HTTP, and its streamed answer as events of the port."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.models.assembly import Reader
from seawall.models.failures import (
    coded_failure,
    codes_of_body,
    failure_of,
    retry_after_of,
)
from seawall.models.port import ModelEvent, Text
from seawall.spans import current_span
from seawall.transport.errors import TransportError, TransportTimeout
from seawall.transport.http_client import Endpoint, HttpClient, Response

__all__ = ["Encoded", "stream_answer", "warm_connections"]

_MAX_ERROR_BYTES = 16_384
_ERROR_SECONDS = 2.0
_SETTLE_SECONDS = 0.05  # for the end of the body, behind the end of the answer
_WARM_SECONDS = 5.0
_MAX_BLANK_READS = 256
_NO_STREAM = (b"{", b"[", b"<")  # a document of JSON or HTML

_log = logging.getLogger("seawall.models")

Encoded = tuple[Sequence[tuple[bytes, bytes]], bytes]
"""Headers and body of a request."""


async def stream_answer(
    model: str,
    client: HttpClient,
    endpoint: Endpoint,
    encode: Callable[[], Encoded],
    reader: Reader,
    *,
    deadline: float,
    ask_again: Callable[[Response, bytes], bool] | None = None,
) -> AsyncGenerator[ModelEvent, None]:
    """Ask, and yield what `Model.stream` yields; raises what it raises.

    encode: makes the request when it is sent, because nobody keeps it then: of thousands that are
    being answered the prompts would be most of the memory. ask_again: whether a refusal, of which
    it is given the body, may be an answer when the request is encoded anew; followed once.
    """
    assembly = reader.assembly
    try:
        answered = False
        while not answered:
            async with _request(client, endpoint, encode, deadline) as response:
                first = await _check_response(model, response, ask_again)
                if first is None:
                    ask_again = None
                    continue
                received = True
                while received and not assembly.done:
                    got, first = first or await response.read_some(), b""
                    received = bool(got)
                    assembly.receive(len(got))
                    text = assembly.begin(reader.feed(got) if received else reader.rest())
                    if (progress := assembly.take_progress()) is not None:
                        yield progress
                    if text:
                        yield Text(text)
                if received:
                    await response.drain(seconds=_SETTLE_SECONDS)
                answered = True
    except TransportTimeout as error:
        raise DeadlineExceeded(f"The model '{model}' did not finish in time.", field="model") from (
            error
        )
    except TransportError as error:
        raise UpstreamFailed(f"The connection to the model '{model}' failed.") from error
    calls, finish = reader.end()
    if calls is not None:
        yield calls
    yield finish


def _request(
    client: HttpClient, endpoint: Endpoint, encode: Callable[[], Encoded], deadline: float
) -> AbstractAsyncContextManager[Response]:
    headers, body = encode()
    if (span := current_span.get()) is not None:
        headers = (*headers, (b"traceparent", span.traceparent))
    return client.stream(
        "POST",
        endpoint,
        headers=headers,
        body=body,
        deadline=deadline,
        replay=False,  # calls cost money: whether to make another is for others to say
    )


async def warm_connections(model: str, client: HttpClient, endpoint: Endpoint, count: int) -> None:
    """Open connections, so that the first turns need not."""
    deadline = asyncio.get_running_loop().time() + _WARM_SECONDS
    try:
        await client.warm(endpoint, count, deadline=deadline)
    except TransportError as error:
        _log.warning("model %s cannot be reached yet: %s", model, error)


async def _check_response(
    model: str, response: Response, ask_again: Callable[[Response, bytes], bool] | None
) -> bytes | None:
    """The beginning of the answer, if it had to be looked at to know that it is one.

    None where the request is to be made once more. What the provider said instead of an answer is
    logged; the caller learns the status.

    Raises:
        UpstreamFailed: It is not.
    """
    first = b""
    if response.status == 200:
        for _ in range(_MAX_BLANK_READS):
            first = await response.read_some()
            if not first.isspace():
                break
        # By what it is: some call their streams JSON, others their errors streams.
        if not first.lstrip().startswith(_NO_STREAM):
            return first
    said = first + await _read_bounded(response)
    if ask_again is not None and ask_again(response, said):
        return None
    _log.warning("model %s answered %d: %r", model, response.status, said[:2_000])
    codes = codes_of_body(said)
    if response.status != 200:
        wait = retry_after_of(response.headers)
        raise failure_of(model, response.status, wait, codes=codes)
    raise coded_failure(model, codes) or UpstreamFailed(
        f"The model '{model}' answered with something else than a stream."
    )


async def _read_bounded(response: Response) -> bytes:
    """What came of a body within a bound on its bytes and on the time for it."""
    said = bytearray()
    try:
        async with asyncio.timeout(_ERROR_SECONDS):
            while len(said) < _MAX_ERROR_BYTES and (piece := await response.read_some()):
                said += piece
    except (TimeoutError, TransportError):
        pass  # the status says enough
    return bytes(said[:_MAX_ERROR_BYTES])
