"""One request to a provider that speaks HTTP, and its streamed answer as events of the port."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from seawall.errors import DeadlineExceeded, UpstreamFailed
from seawall.models.assembly import Reader
from seawall.models.failures import failure_of
from seawall.models.port import ModelEvent, Text, ToolCalls
from seawall.spans import current_span
from seawall.transport.errors import TransportError, TransportTimeout
from seawall.transport.http_client import Endpoint, HttpClient, Response

__all__ = ["Encoded", "stream_answer", "warm_connections"]

_MAX_ERROR_BYTES = 16_384
_WARM_SECONDS = 5.0

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
    try:
        answered = False
        while not answered:
            headers, body = encode()
            if (span := current_span.get()) is not None:
                headers = (*headers, (b"traceparent", span.traceparent))
            exchange = client.stream(
                "POST",
                endpoint,
                headers=headers,
                body=body,
                deadline=deadline,
                replay=False,  # calls cost money: whether to make another is for others to say
            )
            del headers, body
            async with exchange as response:
                if response.status != 200:
                    said = await response.read(limit=_MAX_ERROR_BYTES)
                    if ask_again is None or not ask_again(response, said):
                        raise _refusal(model, response, said)
                    ask_again = None
                    continue
                while received := await response.read_some():
                    if text := reader.feed(received):
                        yield Text(text)
                answered = True
    except TransportTimeout as error:
        raise DeadlineExceeded(f"The model '{model}' did not finish in time.", field="model") from (
            error
        )
    except TransportError as error:
        raise UpstreamFailed(f"The connection to the model '{model}' failed.") from error
    calls, finish = reader.end()
    if calls:
        yield ToolCalls(calls)
    yield finish


async def warm_connections(model: str, client: HttpClient, endpoint: Endpoint, count: int) -> None:
    """Open connections, so that the first turns need not."""
    deadline = asyncio.get_running_loop().time() + _WARM_SECONDS
    try:
        await client.warm(endpoint, count, deadline=deadline)
    except TransportError as error:
        _log.warning("model %s cannot be reached yet: %s", model, error)


def _refusal(model: str, response: Response, said: bytes) -> UpstreamFailed:
    """Log what the provider said; tell the caller no more than the status."""
    _log.warning("model %s answered %d: %r", model, response.status, said[:2_000])
    return failure_of(model, response.status, response.headers.get("retry-after"))
