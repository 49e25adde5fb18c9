"""The ASGI application: routes an exchange to what answers it, and answers what fails."""

import logging
from collections.abc import Awaitable, Callable

from seawall.errors import (
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Problem,
    ServerStopping,
)
from seawall.hosts.http.chat import answer_chat, answer_models
from seawall.hosts.http.exchange import ClientGone, Exchange, Receive, Scope, Send
from seawall.hosts.http.openapi import openapi_document
from seawall.hosts.http.pace import Pace
from seawall.hosts.http.sessions import delete_session, list_sessions, show_session
from seawall.hosts.http.stop import Stop
from seawall.hosts.http.turn_events import answer_turn_events
from seawall.hosts.http.turns import answer_turn
from seawall.orchestrator import Orchestrator
from seawall.spans import incoming_trace
from seawall.transport.wheel import Wheel

__all__ = ["HttpApplication"]

_log = logging.getLogger("seawall.http")
_DEADLINE_TICK = 0.05
_SESSIONS = "/v1/sessions/"
_TURNS = "/v1/turns/"
_EVENTS = "/events"

Endpoint = Callable[[Orchestrator, Exchange], Awaitable[None]]
Scrape = Callable[[], tuple[bytes, bytes]]


class HttpApplication:
    """An ASGI 3 application over an orchestrator.

    all_ready: whether every worker of the server is ready. scrape: the metrics as
    (content type, text), None where there are none. opens: whether the application opens and
    closes the orchestrator itself, by the ASGI lifespan. stop: how far its end has come, None
    where the server has nothing to say about that.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        *,
        all_ready: Callable[[], bool] | None = None,
        scrape: Scrape | None = None,
        opens: bool = True,
        stop: Stop | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._all_ready = all_ready or (lambda: orchestrator.ready)
        self._scrape = scrape
        self._opens = opens
        self._stop = stop or Stop()
        self._wheel = Wheel(_DEADLINE_TICK)
        self._pace = Pace(
            orchestrator.settings.server.hold_seconds,
            behind=lambda: orchestrator.ready and orchestrator.gate.behind,
        )
        self._openapi = openapi_document()
        # Decided once: a request costs one look-up.
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/v1/turns": {"POST": answer_turn},
            "/v1/chat/completions": {"POST": answer_chat},
            "/v1/models": {"GET": answer_models},
            "/v1/sessions": {"GET": list_sessions},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._describe},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served, not {scope['type']}")
        exchange = Exchange(
            scope, receive, send, pace=self._pace, wheel=self._wheel, stop=self._stop
        )
        # A task may serve one exchange after another, so it is also set where there is none.
        incoming_trace.set(exchange.headers.get(b"traceparent", b""))
        try:
            exchange.check_headers()
            with self._stop.told():
                await self._route(exchange)
        except ClientGone:
            pass
        except Problem as problem:
            await self._fail(exchange, problem)
        except Exception:  # noqa: BLE001 - the last line of defence: a defect is a 500
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await self._fail(exchange, InternalError("Something went wrong here; it is logged."))

    async def _route(self, exchange: Exchange) -> None:
        path, method = exchange.scope["path"], exchange.scope["method"]
        path = path.removeprefix(exchange.scope.get("root_path") or "")
        if method == "HEAD":
            method = "GET"
        endpoints = self._routes.get(path)
        if endpoints is None and path.startswith(_SESSIONS) and "/" not in path[len(_SESSIONS) :]:
            endpoints = _session_endpoints(path[len(_SESSIONS) :])
        if endpoints is None and path.startswith(_TURNS) and path.endswith(_EVENTS):
            turn = path.removeprefix(_TURNS).removesuffix(_EVENTS)
            endpoints = {"GET": lambda app, exchange: answer_turn_events(app, exchange, turn)}
        if endpoints is None:
            raise NotFound(f"There is nothing at {path[:200]!r}.")
        endpoint = endpoints.get(method)
        if endpoint is None:
            raise MethodNotAllowed(f"Allowed here: {', '.join(endpoints)}.")
        await endpoint(self._orchestrator, exchange)

    async def _fail(self, exchange: Exchange, problem: Problem) -> None:
        if exchange.started:
            raise problem  # the server cuts the connection, so that nobody takes it for whole
        await exchange.problem(problem)

    async def _livez(self, _: Orchestrator, exchange: Exchange) -> None:
        await exchange.answer({"status": "alive"})

    async def _readyz(self, orchestrator: Orchestrator, exchange: Exchange) -> None:
        if self._stop.leaving:
            raise ServerStopping("This server is stopping.", retry_after=1.0)
        if not (orchestrator.ready and self._all_ready()):
            raise Overloaded("Not ready.", retry_after=1.0)
        await exchange.answer({"status": "ready"})

    async def _metrics(self, _: Orchestrator, exchange: Exchange) -> None:
        if self._scrape is None:
            raise NotFound("This host has no metrics.")
        content_type, text = self._scrape()
        await exchange.answer(text, content_type=content_type)

    async def _describe(self, _: Orchestrator, exchange: Exchange) -> None:
        await exchange.answer(self._openapi)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup" and self._opens:
                await self._orchestrator.open()
            elif event == "lifespan.shutdown" and self._opens:
                await self._orchestrator.close()
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return


def _session_endpoints(session: str) -> dict[str, Endpoint]:
    return {
        "GET": lambda orchestrator, exchange: show_session(orchestrator, exchange, session),
        "DELETE": lambda orchestrator, exchange: delete_session(orchestrator, exchange, session),
    }
