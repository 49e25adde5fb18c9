"""ASGI application: routes requests to their endpoints and answers errors."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from seawall.errors import (
    InternalError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Problem,
    ServerStopping,
)
from seawall.hosts.http.exchange import (
    ClientDisconnected,
    Exchange,
    Output,
    Receive,
    Scope,
    Send,
)
from seawall.hosts.http.shutdown import Shutdown
from seawall.hosts.http.turns import answer_turn
from seawall.requests import Request, current_request
from seawall.spans import incoming_trace
from seawall.timers import TimingWheel

if TYPE_CHECKING:
    from seawall.console.service import ConsoleService
    from seawall.hosts.http.console import ConsoleEndpoints
    from seawall.hosts.http.routes import Endpoint
    from seawall.orchestrator import Orchestrator

__all__ = ["HttpApplication"]

_log = logging.getLogger("seawall.http")
_DEADLINE_TICK = 0.05
_MCP_PATHS = ("/mcp", "/.well-known/oauth-protected-resource")
_REFERENCE = "/docs/"
_CONSOLE = "/console"
_RECORD = b"seawall-record"
"""Header of a request whose turn the console is to show, however many others there are."""
_SCRAPE_SECONDS = 1.0

Scrape = Callable[[], Awaitable[tuple[bytes, bytes]]]


class HttpApplication:
    """The ASGI 3 application of an orchestrator: turns, OpenAI-compatible API, health, metrics.

    Attributes:
        console_service: What the console shows; set by a worker of the server, once it is open.
    """

    def __init__(
        self,
        orchestrator: "Orchestrator",
        *,
        all_ready: Callable[[], bool] | None = None,
        scrape: Scrape | None = None,
        manage_lifespan: bool = True,
        shutdown: Shutdown | None = None,
        warming_up: bool = False,
        in_worker: bool = False,
    ) -> None:
        """Create the application.

        Args:
            orchestrator: Runs the turns.
            all_ready: Whether every worker of the server is ready; the orchestrator alone if not
                given.
            scrape: Produces the metrics as (content type, text); without it there are none.
            manage_lifespan: Open and close the orchestrator by the ASGI lifespan.
            shutdown: State of the server's shutdown, if it has one.
            warming_up: Requests are warm-up turns and do not appear in the access log.
            in_worker: A worker of the server sets `console_service`: there is no console before.
        """
        self._orchestrator = orchestrator
        self._all_ready = all_ready or (lambda: orchestrator.ready)
        self._scrape = scrape
        self._manage_lifespan = manage_lifespan
        self._shutdown = shutdown or Shutdown()
        self._wheel = TimingWheel(_DEADLINE_TICK)
        self._openapi = b""
        self._in_worker = in_worker
        self.console_service: ConsoleService | None = None
        self._console: ConsoleEndpoints | None = None
        settings = orchestrator.settings.server
        self._cors = None
        if settings.cors is not None:
            from seawall.hosts.http.cors import Cors  # noqa: PLC0415 - only if configured

            self._cors = Cors(settings.cors)
        self._access_log = settings.access_log and not warming_up
        if self._access_log:
            from seawall.hosts.http.access_log import enable_access_log  # noqa: PLC0415 - rare

            enable_access_log()
        self._scraping = asyncio.Lock()
        self._scraped: tuple[bytes, bytes] = (b"", b"")
        self._scraped_at = float("-inf")
        # Built once: a request costs one dictionary access.
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/v1/turns": {"POST": answer_turn},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi_document},
            "/": {"GET": self._root},
        }

    @property
    def answer(self) -> Callable[[Scope, Receive, Send], Awaitable[object]]:
        """What `__call__` awaits for a request of HTTP."""
        return self._logged if self._access_log else self._answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served, not {scope['type']}")
        await self.answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Request:
        exchange = Exchange(
            scope,
            receive,
            send,
            wheel=self._wheel,
            shutdown=self._shutdown,
            cors=self._cors,
        )
        # Always set: a task may serve one exchange after another.
        incoming_trace.set(exchange.headers.get(b"traceparent", b""))
        current_request.set(exchange.request)
        try:
            exchange.check_headers()
            with self._shutdown.translate_cancellation():
                await self._endpoint(exchange)(self._orchestrator, exchange)
        except ClientDisconnected:
            pass
        except Problem as problem:
            await self._fail(exchange, problem)
        except Exception:  # noqa: BLE001 - the last line of defence: a defect is a 500
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await self._fail(
                exchange, InternalError("Internal error; the details are in the log of the server.")
            )
        return exchange.request

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        from seawall.hosts.http.access_log import (  # noqa: PLC0415 - only if switched on
            CLIENT_GONE,
            RecordingSend,
            log_access,
        )

        clock = asyncio.get_running_loop().time
        started_at = clock()
        output: Output | None = scope.get("seawall.output")
        recording = RecordingSend(send)
        request = Request("")
        try:
            request = await self._answer(scope, receive, recording)
        except BaseException:
            request = current_request.get() or request
            raise
        finally:
            target = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
            log_access(
                scope["method"],
                target,
                request,
                status=recording.status if output is None else output.status or CLIENT_GONE,
                size=recording.size if output is None else output.size,
                seconds=clock() - started_at,
            )

    def _endpoint(self, exchange: Exchange) -> "Endpoint":
        """The endpoint that answers a request.

        Raises:
            Problem: There is none, or the host refuses the request.
        """
        refusal: Problem | None = exchange.scope.get("seawall.refusal")
        if refusal is not None:  # set by the Lambda host
            raise refusal
        path, method = exchange.scope["path"], exchange.scope["method"]
        path = path.removeprefix(exchange.scope.get("root_path") or "")
        if method == "OPTIONS" and self._cors is not None:
            headers = self._cors.preflight(exchange.headers)
            if headers is not None:
                return lambda _, exchange: exchange.no_content(headers, readable=False)
        endpoints = self._endpoints(path)
        if endpoints is None:
            raise NotFound(f"There is no resource at {path[:200]!r}.")
        endpoint = endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is not None:
            if _RECORD in exchange.headers and self._has_console:
                return self._console_pages().recorded(endpoint)
            return endpoint
        allowed = ", ".join([*endpoints, *(["HEAD"] if "GET" in endpoints else []), "OPTIONS"])
        allow = [(b"allow", allowed.encode())]
        if method == "OPTIONS":
            return lambda _, exchange: exchange.no_content(allow)
        problem = MethodNotAllowed(f"Allowed here: {allowed}.")
        return lambda _, exchange: exchange.problem(problem, allow)

    def _endpoints(self, path: str) -> "dict[str, Endpoint] | None":
        """The endpoints of a path by method; None if there are none."""
        if (endpoints := self._routes.get(path)) is not None:
            return endpoints
        if path.startswith(_MCP_PATHS):
            self._import_mcp()
            return self._routes.get(path)
        if path.startswith(_CONSOLE) and self._has_console_once_open:
            return self._console_endpoints(path.removeprefix(_CONSOLE))
        if (path + "/").startswith(_REFERENCE) and self._has_console:
            return _reference_endpoints(path)
        if path == "*":  # the server as a whole, RFC 9110 §9.3.7
            return {"GET": _server_wide, "POST": _server_wide, "DELETE": _server_wide}
        from seawall.hosts.http.routes import find_endpoints  # noqa: PLC0415 - not on a cold start

        return find_endpoints(path)

    def _import_mcp(self) -> None:
        """Add the endpoint of the Model Context Protocol, if it is configured and not there yet."""
        if self._orchestrator.settings.mcp is not None and "/mcp" not in self._routes:
            from seawall.hosts.http.mcp import McpEndpoint  # noqa: PLC0415 - as above

            self._routes |= McpEndpoint(self._orchestrator).routes()

    @property
    def _has_console(self) -> bool:
        """Whether it is on; it is not in a process that may be frozen between requests."""
        return self._orchestrator.ready and self._has_console_once_open

    @property
    def _has_console_once_open(self) -> bool:
        """The same.

        Raises:
            Overloaded: That is not known yet: the orchestrator is not open.
        """
        orchestrator = self._orchestrator
        return orchestrator.settings.has_console and orchestrator.engine.recorder is not None

    def _console_endpoints(self, path: str) -> "dict[str, Endpoint] | None":
        """The endpoints of the console; pages of other origins may not read their answers."""
        endpoints = self._console_pages().find(path)
        if endpoints is None:
            return None

        def same_origin(endpoint: "Endpoint") -> "Endpoint":
            async def answer(orchestrator: "Orchestrator", exchange: Exchange) -> None:
                exchange.cors = None
                await endpoint(orchestrator, exchange)

            return answer

        return {method: same_origin(each) for method, each in endpoints.items()}

    def _console_pages(self) -> "ConsoleEndpoints":
        if self._console is None:
            from seawall.console.service import open_service  # noqa: PLC0415 - as above
            from seawall.hosts.http.console import ConsoleEndpoints  # noqa: PLC0415 - as above

            service = self.console_service
            if service is None:
                if self._in_worker:
                    raise Overloaded("The console is not open yet.", retry_after=1.0)
                service = open_service(self._orchestrator)
            self._console = ConsoleEndpoints(self._orchestrator, service, self._endpoints)
        return self._console

    async def _root(self, _: "Orchestrator", exchange: Exchange) -> None:
        """`GET /`: the console where there is one, else where the API is described."""
        if self._has_console:
            await exchange.start(307, [(b"location", b"console/"), (b"content-length", b"0")])
            await exchange.end()
        else:
            await exchange.answer({"name": "Seawall", "api": "openapi.json", "health": "readyz"})

    async def _fail(self, exchange: Exchange, problem: Problem) -> None:
        if exchange.started:
            raise problem  # the server closes the connection: the response is incomplete
        await exchange.problem(problem)

    async def _livez(self, _: "Orchestrator", exchange: Exchange) -> None:
        await exchange.answer({"status": "alive"})

    async def _readyz(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        if self._shutdown.requested:
            raise ServerStopping("This server is stopping.", retry_after=1.0)
        if not (orchestrator.ready and self._all_ready()):
            raise Overloaded("Not ready.", retry_after=1.0)
        await exchange.answer({"status": "ready"})

    async def _metrics(self, _: "Orchestrator", exchange: Exchange) -> None:
        if self._scrape is None:
            raise NotFound("This host has no metrics.")
        clock = asyncio.get_running_loop().time
        async with self._scraping:  # one at a time; concurrent requests share the result
            if clock() - self._scraped_at >= _SCRAPE_SECONDS:
                self._scraped = await self._scrape()
                self._scraped_at = clock()
        content_type, text = self._scraped
        await exchange.answer(text, content_type=content_type)

    async def _openapi_document(self, _: "Orchestrator", exchange: Exchange) -> None:
        if not self._openapi:  # built on demand: rarely requested, and a cold start would wait
            from seawall.hosts.http.openapi import openapi_document  # noqa: PLC0415

            settings = self._orchestrator.settings
            self._openapi = openapi_document(
                settings.server,
                settings.memory,
                mcp=settings.mcp is not None,
                files=settings.attachments if settings.blobs is not None else None,
                console=self._has_console,
            )
        await exchange.answer(self._openapi)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            if event == "lifespan.startup" and self._manage_lifespan:
                await self._orchestrator.open()
            elif event == "lifespan.shutdown" and self._manage_lifespan:
                await self._orchestrator.close()
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return


async def _server_wide(_: "Orchestrator", __: Exchange) -> None:
    raise NotFound("Only OPTIONS is available for the server as a whole.")


def _reference_endpoints(path: str) -> "dict[str, Endpoint] | None":
    from seawall.hosts.http.reference import show_reference  # noqa: PLC0415 - likewise

    return {"GET": lambda _, exchange: show_reference(exchange, path)}
