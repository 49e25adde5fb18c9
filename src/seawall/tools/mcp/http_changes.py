"""The stream on which a server says that its tools have changed; it is kept open."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from seawall.resilience import full_jitter
from seawall.tools.mcp.http_exchange import (
    BOTH,
    EVENTS,
    HttpExchanges,
    Session,
    is_stream,
    version_headers,
)
from seawall.tools.mcp.jsonrpc import RpcError, encode_request
from seawall.tools.remote_http import RemoteHttp
from seawall.tools.upstream import UpstreamFault
from seawall.transport.connection import TransportError

__all__ = ["HttpChanges"]

_STREAM_SECONDS = 3_600.0  # then a new one is opened
_OPEN_SECONDS = 30.0
_QUIET_SECONDS = 60.0  # a stream that lasted longer was in order
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 60.0
_METHOD = "subscriptions/listen"

_log = logging.getLogger("seawall.tools.mcp")


class _NotOffered(Exception):
    """The server has no such stream."""


class HttpChanges:
    """Listens to one server, from `start` to `close`."""

    def __init__(
        self,
        http: RemoteHttp,
        url: str,
        exchanges: HttpExchanges,
        *,
        opened: Callable[[float], Awaitable[Session]],
        lost: Callable[[Session], None],
    ) -> None:
        """Create it.

        Args:
            http: Makes the requests.
            url: The server's endpoint.
            exchanges: Read the stream.
            opened: The session of no turn, by a deadline.
            lost: Forgets a session.
        """
        self._http = http
        self._url = url
        self._exchanges = exchanges
        self._opened = opened
        self._lost = lost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, if it does not yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_listening())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_listening(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began = loop.time()
            try:
                await self._listen(began, again=attempt > 0)
            except _NotOffered:
                return
            except (UpstreamFault, TransportError, RpcError) as error:
                _log.debug("the stream of changes of %s ended: %s", self._url, error)
            attempt = 1 if loop.time() - began > _QUIET_SECONDS else attempt + 1
            base = _FIRST_PAUSE_SECONDS
            chance = random.random()  # noqa: S311 - a pause
            pause = full_jitter(attempt, base=base, cap=_MAX_PAUSE_SECONDS, chance=chance)
            await asyncio.sleep(base + pause)

    async def _listen(self, now: float, *, again: bool) -> None:
        session = await self._opened(now + _OPEN_SECONDS)
        exchange = self._exchanges.begin(session, session.version, None, now + _STREAM_SECONDS)
        headers = version_headers(session.version, session.id)
        if session.modern:
            meta = self._exchanges.meta
            params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
            body = encode_request(exchange.number, _METHOD, params)
            headers = [*BOTH, *headers, (b"Mcp-Method", _METHOD.encode("ascii"))]
        else:
            body, headers = b"", [*EVENTS, *headers]
        async with self._http.stream(
            "POST" if session.modern else "GET",
            self._url,
            headers=headers,
            body=body,
            context=None,
            deadline=exchange.deadline,
        ) as (response, exchange.credentials):
            if is_stream(response):
                if again:
                    self._exchanges.changed()  # what changed meanwhile was not heard
                await self._exchanges.read_stream(response, exchange)
            elif session.id and response.status == 404:
                self._lost(session)
            elif response.status < 500:
                raise _NotOffered
