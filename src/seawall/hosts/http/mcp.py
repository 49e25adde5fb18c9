"""Agents as tools of other agents: the Model Context Protocol over streamable HTTP, at `/mcp`.

Nothing is kept between requests, in any version: the id that a handshake returns only says which
request a later `notifications/cancelled` means. Imported only if `[mcp]` is configured.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from seawall.agents.calls import Emit
from seawall.config import Settings
from seawall.errors import (
    AlreadyDecided,
    IdentityUnavailable,
    InvalidField,
    Overloaded,
    Problem,
    ServerStopping,
    TurnNotFound,
    Unauthenticated,
)
from seawall.events import ApprovalRequested, Event
from seawall.hosts.http.exchange import (
    Exchange,
    encode,
    is_loopback,
    problem_body,
    problem_headers,
)
from seawall.hosts.http.mcp_messages import (
    HANDSHAKE_VERSIONS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    REQUEST_CANCELLED,
    VERSIONS,
    Message,
    Rejected,
    RequestId,
    read_message,
)
from seawall.hosts.http.mcp_tools import (
    CallReply,
    JsonObject,
    agent_tool,
    call_request,
    failed_call,
    read_verdicts,
    wait_key,
)
from seawall.hosts.http.sessions import authenticated_owner
from seawall.hosts.http.turns import EVENT_STREAM, check_capacity, run_turn, while_connected
from seawall.pipeline.decisions import Verdict
from seawall.turn import Principal, TurnRequest

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["METADATA_PATH", "McpEndpoint"]

METADATA_PATH = "/.well-known/oauth-protected-resource"

_JSON, _STREAM = b"application/json", b"text/event-stream"
_FRAME = b"event: message\ndata: %b\n\n"
_LIST_MILLISECONDS = 60_000  # how long clients may keep what seldom changes
_MAX_SESSION_ID_BYTES = 128
_RESUME_SECONDS = 5.0  # until a turn that was decided about is continued, here or elsewhere
_RESUME_PAUSE_SECONDS = 0.1
# Problems for which nothing was done, whatever was asked for: the HTTP status says so.
_REFUSALS = (Unauthenticated, IdentityUnavailable, Overloaded, ServerStopping)

Endpoint = Callable[["Orchestrator", Exchange], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


class _Call:
    """A call that runs and can be cancelled.

    task: of its request. cancelled: whether its client has cancelled it.
    """

    __slots__ = ("cancelled", "task")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.cancelled = False


class McpEndpoint:
    """The endpoint: one message a request, answered by JSON or by a stream with its progress."""

    def __init__(self, orchestrator: "Orchestrator") -> None:
        """Prepare what is the same for every client.

        Args:
            orchestrator: It is open.
        """
        settings = orchestrator.settings
        mcp = settings.mcp
        assert mcp is not None  # noqa: S101 - see its only caller
        self._orchestrator = orchestrator
        self._names = mcp.agents
        url = urlsplit(mcp.url)
        self._path, self._origin = url.path, f"{url.scheme}://{url.netloc}"
        self._metadata = _resource_metadata(settings)
        cors = settings.server.cors.origins if settings.server.cors is not None else ()
        self._any_origin = "*" in cors
        self._origins = frozenset(each.encode() for each in (self._origin.lower(), *cors))
        # By who calls, too: clients choose the other parts, and two may choose the same.
        self._calls: dict[tuple[Principal, bytes, RequestId], _Call] = {}

    @cached_property
    def _server(self) -> dict[str, str]:
        from seawall import __version__  # noqa: PLC0415 - looking it up takes time: only if asked

        return {"name": "seawall", "version": __version__}

    def routes(self) -> dict[str, dict[str, Endpoint]]:
        """The endpoints by path and method."""
        routes: dict[str, dict[str, Endpoint]] = {"/mcp": {"POST": self.answer}}
        if self._metadata:
            for path in (METADATA_PATH, METADATA_PATH + self._path):
                routes[path] = {"GET": self.answer_metadata}
        return routes

    async def answer_metadata(self, _: "Orchestrator", exchange: Exchange) -> None:
        """Respond with the protected resource metadata: where clients get tokens (RFC 9728)."""
        await exchange.answer(self._metadata)

    async def answer(self, orchestrator: "Orchestrator", exchange: Exchange) -> None:
        """`POST /mcp`: one message.

        Raises:
            Problem: It was refused before it was read.
        """
        settings = orchestrator.settings.server
        try:
            self._check_head(exchange)
            check_capacity(orchestrator, exchange)  # before the body is read and a token verified
            owner = await authenticated_owner(orchestrator, exchange)
            body = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
            await self._answer_message(exchange, owner, read_message(body, exchange.headers))
        except Rejected as rejected:
            error: JsonObject = {"code": rejected.code, "message": str(rejected)}
            if rejected.data is not None:
                error["data"] = rejected.data
            await _finish(exchange, {"id": rejected.id, "error": error}, status=rejected.status)
        except Unauthenticated as problem:
            await self._challenge(exchange, problem)

    def _check_head(self, exchange: Exchange) -> None:
        """Refuse pages of other origins, and clients that do not speak the protocol.

        Raises:
            Rejected: The request is not one of a client of this protocol.
        """
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is not None and not self._any_origin and origin not in self._origins:
            host = headers.get(b"host", b"").lower()
            if not (is_loopback(host) and origin in (b"http://" + host, b"https://" + host)):
                message = "Web pages of this origin may not call this server."
                raise Rejected(INVALID_REQUEST, message, status=403)
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _JSON:
            raise Rejected(INVALID_REQUEST, "The body must be application/json.", status=415)
        if not _accepts(exchange, _JSON):
            message = "The client must accept application/json and text/event-stream."
            raise Rejected(INVALID_REQUEST, message, status=406)

    async def _challenge(self, exchange: Exchange, problem: Unauthenticated) -> None:
        """Respond with 401, and with where tokens come from."""
        challenge = "Bearer"
        if self._metadata:
            challenge += f' resource_metadata="{self._origin}{METADATA_PATH}{self._path}"'
            if b"authorization" in exchange.headers:
                challenge += ', error="invalid_token"'
        await exchange.answer(
            problem_body(problem, exchange.request.id),
            status=401,
            headers=[(b"www-authenticate", challenge.encode())],
            content_type=b"application/problem+json",
        )

    async def _answer_message(self, exchange: Exchange, owner: Principal, message: Message) -> None:
        if message.kind != "request":
            if message.method == "notifications/cancelled":
                self._cancel(exchange, owner, message.params.get("requestId"))
            await exchange.start(202, [(b"content-length", b"0")])
            await exchange.end()
        elif message.method == "tools/call":
            await self._call(exchange, owner, message)
        else:
            headers = []
            if message.method == "initialize":
                headers.append((b"mcp-session-id", os.urandom(16).hex().encode()))
            await self._respond(exchange, message, self._describe(message), headers)

    def _describe(self, message: Message) -> JsonObject:
        """The result of a request about this server.

        Raises:
            Rejected: There is no such method, or it does not take these parameters.
        """
        method, stateless = message.method, message.stateless
        capabilities: JsonObject = {"tools": {}}
        if method == "tools/list":
            if message.params.get("cursor") is not None:
                raise _invalid(message, "There is one page only: a cursor is not valid.")
            agents, limits = self._orchestrator.engine.agents, self._orchestrator.settings.server
            tools = [agent_tool(agents[name], agents, limits) for name in self._names]
            return self._cacheable(message, {"tools": tools})
        if method == "server/discover" and stateless:
            known = {"supportedVersions": VERSIONS, "capabilities": capabilities}
            return self._cacheable(message, known)
        if method == "ping" and not stateless:
            return {}
        if method == "initialize" and not stateless:
            asked = message.params.get("protocolVersion")
            if not isinstance(asked, str):
                raise _invalid(message, "params.protocolVersion must be a string.")
            return {
                "protocolVersion": asked if asked in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[0],
                "capabilities": capabilities,
                "serverInfo": self._server,
            }
        raise Rejected(
            METHOD_NOT_FOUND,
            f"There is no method {method[:64]!r}.",
            status=404 if stateless else 200,
            id=message.id,
        )

    def _cacheable(self, message: Message, result: JsonObject) -> JsonObject:
        if not message.stateless:
            return result
        return result | {"ttlMs": _LIST_MILLISECONDS, "cacheScope": "private"}

    async def _call(self, exchange: Exchange, owner: Principal, message: Message) -> None:
        """`tools/call`: one turn of the agent, or the continuation of one that has paused."""
        name = message.params.get("name")
        if name not in self._names:
            raise _invalid(message, f"There is no tool {str(name)[:64]!r}.")
        state = message.params.get("requestState") if message.stateless else None
        try:
            arguments = message.params.get("arguments", {})
            request = call_request(name, arguments, self._orchestrator.settings.server)
            async with self._cancellable(exchange, owner, message):
                if state is None:
                    request = exchange.hosted(request)
                    result = await self._run(exchange, message, request)
                else:
                    result = await self._resume(exchange, owner, message, state)
        except InvalidField as problem:
            result = failed_call(problem)  # which the model that called can correct
        except _REFUSALS as problem:
            if isinstance(problem, Unauthenticated):
                raise
            error = {"code": INTERNAL_ERROR, "message": problem.detail, "data": problem.as_dict()}
            body = {"id": message.id, "error": error}
            headers = problem_headers(problem)
            await _finish(exchange, body, status=problem.status, headers=headers)
            return
        await self._respond(exchange, message, result)

    async def _run(self, exchange: Exchange, message: Message, request: TurnRequest) -> JsonObject:
        """Run a turn; the result of its call."""
        reply = CallReply(request.agent or "", request.id)
        emit = _emitter(exchange, message, reply)
        try:
            await run_turn(self._orchestrator, exchange, request, exchange.credential(), emit)
        except _REFUSALS:
            raise
        except Problem as problem:
            return reply.failed(problem)
        return _outcome(message, reply)

    async def _resume(
        self, exchange: Exchange, owner: Principal, message: Message, turn: object
    ) -> JsonObject:
        """Take the decisions for which a paused turn waits, and follow it; the result of its call.

        Raises:
            Rejected: There is no such turn of this caller.
        """
        agent = message.params["name"]
        reply = CallReply(agent, str(turn))
        verdicts = read_verdicts(message.params.get("inputResponses"))
        decided: list[str] = []

        async def resume() -> None:
            nonlocal reply
            await self._follow(owner, str(turn), _emitter(None, message, reply))
            for wait in reply.waits():
                verdict = verdicts.get(wait_key(wait))
                if verdict is not None and await self._decide(owner, wait, verdict):
                    decided.append(wait_key(wait))
            until = asyncio.get_running_loop().time() + _RESUME_SECONDS
            while decided and all(wait_key(each) in decided for each in reply.waits()):
                reply = CallReply(agent, str(turn))
                await self._follow(owner, str(turn), _emitter(exchange, message, reply))
                if not reply.waits() or asyncio.get_running_loop().time() > until:
                    break
                await asyncio.sleep(_RESUME_PAUSE_SECONDS)  # another server continues it

        try:
            await while_connected(exchange, resume())
        except _REFUSALS:
            raise
        except TurnNotFound as problem:
            detail = "params.requestState must be that of an earlier result."
            raise _invalid(message, detail) from problem
        except Problem as problem:
            return reply.failed(problem)
        return _outcome(message, reply, decided)

    async def _decide(self, owner: Principal, wait: ApprovalRequested, verdict: Verdict) -> bool:
        """Take a decision; whether it is one: what does not fit a form is asked again."""
        try:
            await self._orchestrator.engine.pipeline.decide(owner, wait.turn, wait.id, verdict)
        except AlreadyDecided:  # elsewhere, or before this request was repeated
            return True
        except InvalidField:
            return False
        return True

    async def _follow(self, owner: Principal, turn: str, emit: Emit) -> None:
        async with aclosing(self._orchestrator.engine.events(owner, turn)) as events:
            async for _, event in events:
                await emit(event)

    @asynccontextmanager
    async def _cancellable(
        self, exchange: Exchange, owner: Principal, message: Message
    ) -> AsyncGenerator[None, None]:
        """A block that `notifications/cancelled` cancels.

        Raises:
            Rejected: It was cancelled.
        """
        session = _session_id(exchange)
        task = asyncio.current_task()
        if message.stateless or not session or message.id is None or task is None:
            yield  # its client cancels it by closing the connection
            return
        key = (owner, session, message.id)
        call = self._calls[key] = _Call(task)
        try:
            yield
        except asyncio.CancelledError:
            if not call.cancelled:
                raise
            task.uncancel()
            raise Rejected(
                REQUEST_CANCELLED, "Request cancelled", status=200, id=message.id
            ) from None
        finally:
            if self._calls.get(key) is call:
                del self._calls[key]

    def _cancel(self, exchange: Exchange, owner: Principal, request: object) -> None:
        """Cancel a call of the same client, if it runs in this process."""
        if not isinstance(request, str | int):
            return
        call = self._calls.get((owner, _session_id(exchange), request))
        if call is not None and not call.cancelled:
            call.cancelled = True
            call.task.cancel()

    async def _respond(
        self, exchange: Exchange, message: Message, result: JsonObject, headers: Headers = ()
    ) -> None:
        if message.stateless:
            meta = {"io.modelcontextprotocol/serverInfo": self._server}
            result = {"resultType": "complete", "_meta": meta} | result
        await _finish(exchange, {"id": message.id, "result": result}, headers=headers)


async def _finish(
    exchange: Exchange, response: JsonObject, *, status: int = 200, headers: Headers = ()
) -> None:
    """Send a JSON-RPC response: as the end of the stream, if there is one."""
    body = encode({"jsonrpc": "2.0"} | response)
    if exchange.started:
        await exchange.end(_FRAME % body)
    else:
        await exchange.answer(body, status=status, headers=headers)


def _emitter(exchange: Exchange | None, message: Message, reply: CallReply) -> Emit:
    """What takes the events of a call's turn, and reports its progress if the client wants that.

    Args:
        exchange: Of the client; None to report nothing.
        message: The call.
        reply: Takes the events.
    """
    clock = asyncio.get_running_loop().time
    token = message.progress_token
    reports = 0

    async def emit(*events: Event) -> None:
        nonlocal reports
        for event in events:
            said = reply.take(event, clock())
            if not said or token is None or exchange is None or not _accepts(exchange, _STREAM):
                continue
            if not exchange.started:
                await exchange.start(200, EVENT_STREAM)
            reports += 1
            params = {"progressToken": token, "progress": reports, "message": said}
            notification = {"method": "notifications/progress", "params": params}
            await exchange.write(_FRAME % encode({"jsonrpc": "2.0"} | notification))

    return emit


def _outcome(message: Message, reply: CallReply, decided: Sequence[str] = ()) -> JsonObject:
    """The result of a call; one that asks the client's user, if a decision is that user's.

    Args:
        message: The call.
        reply: The events of its turn.
        decided: What was decided, by `wait_key`, and is not asked about again.
    """
    open_waits = [each for each in reply.waits() if wait_key(each) not in decided]
    modes = reply.modes()
    if open_waits and modes and modes <= message.elicits:
        return reply.input_required()
    return reply.result()


def _invalid(message: Message, detail: str) -> Rejected:
    status = 400 if message.stateless else 200
    return Rejected(INVALID_PARAMS, detail, status=status, id=message.id)


def _accepts(exchange: Exchange, kind: bytes) -> bool:
    """Whether the client accepts a content type."""
    accepted = exchange.headers.get(b"accept", b"*/*").lower()
    kinds = {each.partition(b";")[0].strip() for each in accepted.split(b",")}
    return not kinds.isdisjoint((kind, kind.partition(b"/")[0] + b"/*", b"*/*"))


def _session_id(exchange: Exchange) -> bytes:
    """The id from the handshake; empty if there is none."""
    session = exchange.headers.get(b"mcp-session-id", b"")
    return session if len(session) <= _MAX_SESSION_ID_BYTES else b""


def _resource_metadata(settings: Settings) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc9728#section-2; empty if tokens are not configured."""
    jwt, mcp = settings.identity.jwt, settings.mcp
    if jwt is None or mcp is None:
        return b""
    metadata = {
        "resource": mcp.url,
        "authorization_servers": [jwt.issuer],
        "bearer_methods_supported": ["header"],
    }
    return encode(metadata)
