"""The server's side of an HTTP/1.1 connection, with the limits that a public server needs.

One request at a time: what comes behind it is held unread, up to `READ_BUFFER_BYTES`, and then waits in
the kernel. So the same requests get the same answers however their bytes are cut.
"""

import asyncio
from asyncio import BufferedProtocol
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.server import ServerState

from seawall.config import ServerSettings
from seawall.errors import (
    HeadersTooLarge,
    InvalidRequest,
    Overloaded,
    Problem,
    RequestTimeout,
)
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import (
    LIVENESS_TARGET,
    TURN_TARGETS,
    DirectResponse,
    PreAdmissionCheck,
    is_public,
)
from seawall.hosts.http.request_cycle import STATUS_LINES, RequestCycle
from seawall.hosts.http.shutdown import Shutdown
from seawall.timers import Timer, TimingWheel
from seawall.transport.http_request import (
    HeadTooLarge,
    MalformedRequest,
    RequestHead,
    RequestReader,
)

__all__ = ["HttpServerProtocol"]

_MAX_HEADERS = 100
_HIGH_WATER = 16_384  # bytes of an answer that wait for a slow reader
_BODY_HIGH_WATER = 65_536  # bytes of a body that wait for the application
_PIPELINED_BYTES = 2_048  # that are read while an answer is under way
_LINGER_SECONDS = 2.0


class HttpServerProtocol(BufferedProtocol):
    """One connection. A stranger cannot make it hold more, or longer, than configured.

    The head must arrive within `header_seconds` and `max_header_bytes`; a client that leaves an
    answer unread for `stall_seconds` is cut off, which cancels its turn. The rest of a body whose
    request was answered already is read for two seconds at most.

    drained: is done when the client has read enough for more to be sent; None where it has.
    idle_since: from when on nothing has been asked here, on the loop's clock; None while
    something is. waiting_since: the same, but what has come of a head does not count.

    Args:
        limits: What a stranger may send.
        wheel: The timers of all connections.
        stop: When that is asked for, each answer closes its connection.
        door: Answers turns for which there is no room, right here.
        intake: What all connections may take together.
        share: The part of the worker's time that is for other requests than turns.
    """

    __slots__ = (
        "_after_non_turn",
        "_after_refusal",
        "_app",
        "_awaiting_head",
        "_body_bytes",
        "_closing",
        "_connection_limits",
        "_cycle",
        "_delayed_refusal",
        "_discarded",
        "_head",
        "_idle_timer",
        "_keep_alive_seconds",
        "_limits",
        "_linger_timer",
        "_lingering",
        "_loop",
        "_non_turn_limiter",
        "_peer",
        "_pre_admission",
        "_reader",
        "_reading_paused",
        "_reported",
        "_scheduled",
        "_shutdown",
        "_stall_timer",
        "_state",
        "_wheel",
        "answering",
        "drained",
        "idle_since",
        "transport",
        "waiting_since",
    )

    def __init__(
        self,
        *,
        limits: ServerSettings,
        wheel: TimingWheel,
        stop: Shutdown,
        door: PreAdmissionCheck,
        intake: ConnectionLimits,
        share: NonTurnLimiter,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        del app_state
        self._limits = limits
        self._wheel = wheel
        self._shutdown = stop
        self._pre_admission = door
        self._connection_limits = intake
        self._non_turn_limiter = share
        self._state = server_state
        self._app = config.loaded_app
        self._keep_alive_seconds = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_running_loop()
        self._reader = RequestReader(limits.max_header_bytes, _MAX_HEADERS)
        self._head: RequestHead | None = None  # of the request that waits, or is answered
        self._cycle: RequestCycle | None = None  # where the application answers it
        self._closing = False  # after the answer under way
        self._lingering = False
        self._body_bytes = 0  # that have come of the body
        self._discarded = 0  # bytes that came after the last answer
        self._after_non_turn = False  # the last answer here was not of a turn
        self._after_refusal = False  # it was a turn's refusal
        self._delayed_refusal: DirectResponse | None = None  # the limiter decides when
        self._reported = False
        self._scheduled = False
        self._reading_paused = False
        self.drained: asyncio.Future[None] | None = None  # while the client does not read
        self._idle_timer: Timer | None = None
        self._awaiting_head = False  # the timer is for the rest of a head, else for another request
        self._linger_timer: Timer | None = None
        self._stall_timer: Timer | None = None
        self._peer: tuple[str, int] | None = None
        self.transport: asyncio.Transport
        self.answering = False  # a request has come whose answer is not out
        self.idle_since: float | None = None
        self.waiting_since: float | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]  # a stream transport, always
        connections = cast("set[HttpServerProtocol]", self._state.connections)
        connections.add(self)
        self.idle_since = self.waiting_since = self._loop.time()
        descriptor = transport.get_extra_info("socket").fileno()
        if not self._connection_limits.admit_connection(descriptor, connections, len(connections)):
            self.transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self._peer = (str(peer[0]), int(peer[1])) if peer else None
        self.transport.set_write_buffer_limits(_HIGH_WATER)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self._state.connections.discard(self)
        for timer in (self._idle_timer, self._stall_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._stall_timer = self._linger_timer = None
        self._non_turn_limiter.forget(self)
        self._reader.clear()
        self._report_buffered(0)
        self._release_senders()
        if self._cycle is not None:
            self._cycle.disconnected = True
            self._cycle.wake()
            self._cycle = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        del sizehint
        if self._scheduled or (self.answering and self._reader.complete):
            return self._connection_limits.read_buffer[:_PIPELINED_BYTES]
        return self._connection_limits.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        if self._lingering:
            self._discard_input(nbytes)
            return
        self.idle_since = None
        self._reader.feed(self._connection_limits.read_buffer[:nbytes])
        if self._scheduled:
            self._update_reading()
        else:
            self._process_input()

    def pause_writing(self) -> None:
        """The client does not read: it has `stall_seconds`."""
        if self.drained is None:
            self.drained = self._loop.create_future()
        if self._stall_timer is None:
            self._stall_timer = self._wheel.call_at(
                self._loop.time() + self._limits.stall_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        """It reads again."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._release_senders()
        if not self.answering:
            self._schedule_input()

    # What the server calls.

    def announce_close(self) -> None:
        """The answer under way, if its head is not out, is to say that it is the last."""
        if self.answering and (self._cycle is None or not self._cycle.started):
            self._closing = True

    def shutdown(self) -> None:
        """See uvicorn, which calls it when all is over."""
        if self.answering:
            self._closing = True
        else:
            self.transport.close()

    def evict(self) -> bool:
        """See `ConnectionLimits`: close, unless the application is answering."""
        if self.transport.is_closing():
            return False
        if self._cycle is not None:
            if self._cycle.body_complete or self._cycle.started:
                return False
            self._fail_body(Overloaded("Too many bodies come in too slowly.", retry_after=1.0))
        elif self.drained is not None:
            self.transport.abort()
        elif (
            self.idle_since is None
            and not self._lingering
            and (self._head is None or self.answering)
        ):
            self._reject(Overloaded("Too many requests come in too slowly.", retry_after=1.0))
        else:
            self.transport.close()
        if self.transport.is_closing():
            self.waiting_since = None
        self._reader.clear()
        self._report_buffered(0)
        return True

    def proceed(self) -> None:
        """See `NonTurnLimiter`: answer the request that had to wait for it."""
        if self.answering and self._head is not None and not self.transport.is_closing():
            refusal, self._delayed_refusal = self._delayed_refusal, None
            if refusal is None:
                self._dispatch(self._head)
            else:
                self._respond_directly(503, refusal, self._loop.time())
            self._process_input()

    # What the application's answer calls.

    def resume_body(self) -> None:
        """The application reads on."""
        if self._reading_paused and not self._lingering:
            self._schedule_input()

    def may_keep_alive(self, status: int) -> bool:
        """Whether the connection can be used again after the answer that begins."""
        cycle, head, reader = self._cycle, self._head, self._reader
        keep = (
            not (self._closing or self._shutdown.requested) and head is not None and head.keep_alive
        )
        keep = keep and self._body_bytes <= self._limits.max_body_bytes
        if keep and not reader.complete and cycle is not None:
            keep = cycle.error is None and not cycle.expects_continue and status != 408
        self._closing = not keep
        return keep

    def response_written(self, cycle: RequestCycle) -> None:
        """The whole answer was written."""
        head = self._head
        if cycle is not self._cycle or head is None:
            return
        open_to_all = is_public(head.method, head.path)
        if open_to_all or cycle.status >= 400:
            self._non_turn_limiter.record_cost(
                self._loop.time() - cycle.started_at, application=True
            )
        self._after_non_turn = open_to_all or cycle.status >= 400
        self._after_refusal = False
        self._cycle = None
        self._closing = self._closing or not cycle.keep_alive
        self._finish_response()

    # The course of a request.

    def _process_input(self) -> None:
        """Do what can be done with the bytes that have come."""
        self._scheduled = False
        if self._lingering or self.transport.is_closing():
            return
        reader = self._reader
        try:
            if self._head is None and self.drained is None:
                self._head = reader.next_head()
                if self._head is not None:
                    self._handle_head(self._head)
            if self._head is None:
                if not self._scheduled and self.drained is None:
                    self._wait_for_head()
            elif not reader.complete:
                self._forward_body()
        except MalformedRequest as error:
            self._reject_malformed(error)
            return
        if not self._lingering:
            failed = self._cycle is not None and self._cycle.error is not None
            self._report_buffered(
                reader.buffered + (0 if reader.complete or failed else self._body_bytes)
            )
            self._update_reading()

    def _handle_head(self, head: RequestHead) -> None:
        self._stop_idle_timer()
        self.waiting_since = None
        self.answering = True
        self._body_bytes = 0
        # The first request of a connection never waits: to accept that has cost more, and those
        # of an orchestrator's probes must not stand in line with a stranger's thousand connections.
        turn = head.path in TURN_TARGETS
        if (
            not self._after_non_turn
            or (turn and self._after_refusal)
            or self._shutdown.requested
            or self._non_turn_limiter.admit(self, turn=turn)
        ):
            self._dispatch(head)

    def _dispatch(self, head: RequestHead) -> None:
        """Answer the request, here or by the application."""
        self._closing = (
            not head.keep_alive
            or self._shutdown.requested
            or (head.length or 0) > self._limits.max_body_bytes
        )
        begun = self._loop.time()
        if head.path == LIVENESS_TARGET and head.method in (b"GET", b"HEAD"):
            liveness_response = self._pre_admission.liveness_response(
                head.headers, head.method.decode()
            )
            self._respond_directly(200, liveness_response, begun, head_only=head.method == b"HEAD")
            return
        if head.path in TURN_TARGETS and head.method == b"POST":
            refusal = self._pre_admission.refusal(head.headers, self._peer, head.path)
            if refusal is not None:
                if (
                    not self._after_refusal
                    or self._shutdown.requested
                    or self._non_turn_limiter.admit_refusal(self)
                ):
                    self._respond_directly(503, refusal, begun)
                else:
                    self._delayed_refusal = refusal
                return
        if self._after_non_turn and not self._after_refusal:
            self._non_turn_limiter.charge(application=True)
        cycle = RequestCycle(
            self._scope(head), self, http_1_0=not head.minor, expects_continue=head.expects_continue
        )
        self._cycle = cycle
        if self._reader.complete:
            cycle.body_complete = True
        task = self._loop.create_task(cycle.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _respond_directly(
        self, status: int, answer: DirectResponse, begun: float, *, head_only: bool = False
    ) -> None:
        """Answer past the application."""
        head, reader = self._head, self._reader
        if head is not None and head.expects_continue and not reader.complete:
            self._closing = True  # the body may follow or not: RFC 9110 §10.1.1
        lines, body = answer
        self.transport.write(
            b"%b%b%b\r\n%b"
            % (
                STATUS_LINES[status],
                lines,
                b"connection: close\r\n" if self._closing else b"",
                b"" if head_only else body,
            )
        )
        self._non_turn_limiter.record_cost(self._loop.time() - begun, application=False)
        refused = status == 503
        if self._after_refusal and refused:
            self._non_turn_limiter.charge_refusal()
        elif self._after_non_turn:
            self._non_turn_limiter.charge(application=False)
        self._after_non_turn, self._after_refusal = True, refused
        self._finish_response()

    def _forward_body(self) -> None:
        """Pass on what has come of the body."""
        reader, cycle = self._reader, self._cycle
        if cycle is None:
            if not self.answering:
                self._discard_body()
            return  # else it waits for its share
        if cycle.error is not None:
            reader.clear()
            return
        while not reader.complete and cycle.unread_bytes <= _BODY_HIGH_WATER:
            data = reader.read_body()
            if not data:
                break
            self._body_bytes += len(data)
            cycle.feed_body(data)
        if reader.complete:
            cycle.body_complete = True
            cycle.wake()

    def _discard_body(self) -> None:
        """The rest of the body of a request that was answered is not wanted."""
        self._body_bytes += len(self._reader.read_body())
        if self._body_bytes > self._limits.max_body_bytes:
            self._linger()
        elif self._reader.complete:
            self._finish_request()

    def _finish_response(self) -> None:
        """The answer is written: what is left of the request, then the next one, or the end."""
        self.answering = False
        self._state.total_requests += 1
        if self._reader.complete:
            self._finish_request()
        elif self._closing:
            self._linger()
        else:
            self._linger_timer = self._wheel.call_at(
                self._loop.time() + _LINGER_SECONDS, self._linger
            )
            self._schedule_input()

    def _finish_request(self) -> None:
        """Answer and body are over."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        if self._closing:
            if self._reader.buffered:
                self._linger()
            else:
                self.transport.close()
            return
        self._head = None
        self.waiting_since = self._loop.time()
        if self._reader.buffered:
            self._schedule_input()  # in the next round: the other connections come first
        else:
            self._wait_for_head()
            self._update_reading()

    def _wait_for_head(self) -> None:
        """Wait for the rest of a head, or for another request; empty lines are neither."""
        if self._reader.buffered:
            if not self._awaiting_head:
                self._expect_head()
        elif self.idle_since is None and self.waiting_since is not None:
            self.idle_since = self.waiting_since
            if self._idle_timer is None:
                self._idle_timer = self._wheel.call_at(
                    self.waiting_since + self._keep_alive_seconds, self.transport.close
                )

    def _reject_malformed(self, error: MalformedRequest) -> None:
        kind = HeadersTooLarge if isinstance(error, HeadTooLarge) else InvalidRequest
        problem = kind(str(error), field=error.header)
        if self.answering:
            self._fail_body(problem)
        elif self._head is not None:  # it is answered; this is the rest of its body
            self._linger()
        else:
            self._reject(problem)

    def _fail_body(self, problem: Problem) -> None:
        """The body cannot be had whole: the application is informed where it reads it."""
        self._closing = True
        if self._cycle is not None:
            self._cycle.error = problem
            self._cycle.wake()

    def _reject(self, problem: Problem) -> None:
        """Answer what is not a request, and close."""
        self.answering = False
        self._non_turn_limiter.forget(self)
        seen = self._head.headers if self._head is not None else self._reader.partial_headers()
        lines, body = self._pre_admission.error_response(problem, seen)
        self.transport.write(
            b"%b%bconnection: close\r\n\r\n%b" % (STATUS_LINES[problem.status], lines, body)
        )
        self._linger()

    def _linger(self) -> None:
        """Close, but let the client read the answer before: closing resets what it still sends."""
        if self._lingering or self.transport.is_closing():
            return
        self._lingering = True
        self.waiting_since = self._loop.time()
        self._stop_idle_timer()
        self._reader.clear()
        self._report_buffered(0)
        self._discarded = 0
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._linger_timer = self._wheel.call_at(
            self._loop.time() + _LINGER_SECONDS, self.transport.close
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._enable_reading(True)

    def _discard_input(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._limits.max_body_bytes:
            self._enable_reading(False)  # the rest of the time is for reading the answer

    # Reading, timers.

    def _update_reading(self) -> None:
        """Read while there is room for it; never a second request far ahead of the first."""
        if self._lingering:
            return
        buffered, cycle = self._reader.buffered, self._cycle
        if cycle is not None and not self._reader.complete:
            room = cycle.unread_bytes <= _BODY_HIGH_WATER
        elif self.answering or self._scheduled or self.drained is not None:
            room = buffered < _PIPELINED_BYTES  # of a request whose turn has not come
        else:
            room = True
        self._enable_reading(room)

    def _enable_reading(self, wanted: bool) -> None:
        if wanted and self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        elif not wanted and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _schedule_input(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._process_input)

    def _report_buffered(self, size: int) -> None:
        if size or self._reported:
            self._reported = size > 0
            self._connection_limits.set_buffered(self, size)

    def _expect_head(self) -> None:
        self._stop_idle_timer()
        self._awaiting_head = True
        self._idle_timer = self._wheel.call_at(
            self._loop.time() + self._limits.header_seconds, self._on_head_timeout
        )

    def _stop_idle_timer(self) -> None:
        self._awaiting_head = False
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _on_head_timeout(self) -> None:
        self._idle_timer = None
        if not self.transport.is_closing():
            self._reject(
                RequestTimeout(f"The head did not arrive within {self._limits.header_seconds:g} s.")
            )

    def _release_senders(self) -> None:
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)
        self.drained = None

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        path = head.path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if head.minor else "1.0",
            "server": self.transport.get_extra_info("sockname"),
            "client": self._peer,
            "scheme": "http",
            "method": head.method.decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
            "headers": head.headers,
        }
