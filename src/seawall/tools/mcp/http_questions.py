"""The stream on which a legacy server asks the user, open while calls are in progress.

Servers may send a question on the stream of the call, or on that of the session. The latter does
not say which call it is of: it is declined unless one call is in progress in the session, and none
was given up before, on which the server may still work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from seawall.tools.mcp.elicitation import Elicitations
from seawall.tools.mcp.http_exchange import (
    EVENTS,
    HttpExchanges,
    Session,
    is_stream,
    version_headers,
)
from seawall.tools.port import ToolContext
from seawall.tools.remote_http import RemoteHttp
from seawall.tools.upstream import UpstreamFault
from seawall.transport.connection import TransportError

__all__ = ["HttpQuestions"]

_OPEN_SECONDS = 2.0
_STREAM_SECONDS = 3_600.0
_PAUSE_SECONDS = 0.05
_CONFLICT = 409  # there is one already: the server has not noticed yet that it was closed

_log = logging.getLogger("seawall.tools.mcp")


class HttpQuestions:
    """Listens to the sessions of one server."""

    def __init__(self, http: RemoteHttp, url: str, exchanges: HttpExchanges) -> None:
        """Create it.

        Args:
            http: Makes the requests.
            url: The server's endpoint.
            exchanges: Read the streams.
        """
        self._http = http
        self._url = url
        self._exchanges = exchanges

    @asynccontextmanager
    async def heard(
        self,
        session: Session,
        elicitations: Elicitations,
        context: ToolContext | None,
        deadline: float,
    ) -> AsyncGenerator[None, None]:
        """A block in which what the server asks is heard, if it has such a stream.

        Args:
            session: Of the call.
            elicitations: Of the call.
            context: The turn.
            deadline: Of the call, on the event loop's clock.
        """
        session.asking.append(elicitations)
        if session.listener is None:
            opened = asyncio.Event()
            session.listener = asyncio.create_task(self._listen(session, context, opened))
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + _OPEN_SECONDS)):
                    await opened.wait()
            except TimeoutError:
                _log.debug("%s: the stream of a session is not open in time", self._url)
        try:
            yield
        finally:
            session.asking.remove(elicitations)
            if not session.asking:
                listener, session.listener = session.listener, None
                if listener is not None:
                    listener.cancel()

    async def _listen(
        self, session: Session, context: ToolContext | None, opened: asyncio.Event
    ) -> None:
        """Listen until the stream ends; set `opened` when it is open, or is known not to be."""

        def asking() -> Elicitations:
            alone = session.active == len(session.asking) == 1 and not session.abandoned
            return session.asking[0] if alone else Elicitations()

        try:
            deadline = asyncio.get_running_loop().time() + _STREAM_SECONDS
            exchange = self._exchanges.begin(session, session.version, context, deadline)
            exchange.elicitations = asking
            headers = (*EVENTS, *version_headers(session.version, session.id))
            while True:
                async with self._http.stream(
                    "GET", self._url, headers=headers, context=context, deadline=deadline
                ) as (response, exchange.credentials):
                    if is_stream(response):
                        opened.set()
                        await self._exchanges.read_stream(response, exchange)
                        return
                    if response.status != _CONFLICT:
                        return
                await asyncio.sleep(_PAUSE_SECONDS)
        except (UpstreamFault, TransportError) as error:
            _log.debug("%s: the stream of a session ended: %s", self._url, error)
        finally:
            opened.set()
