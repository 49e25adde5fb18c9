"""HTTP/1.1 server protocol: one connection, with the limits that a public server needs.

Requests are handled one at a time. Pipelined bytes stay unparsed, up to `READ_BUFFER_BYTES`, and
then in the kernel, so that responses do not depend on how the bytes were split into packets.
"""

import asyncio
from asyncio import BufferedProtocol
from functools import lru_cache
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
    DirectResponse,
    PreAdmissionCheck,
    is_public,
    is_turn,
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
_HIGH_WATER = 16_384  # bytes of a response buffered for a slow reader
_BODY_HIGH_WATER = 65_536  # bytes of a body buffered for the application
_PIPELINED_BYTES = 2_048  # read ahead while a request is being answered
_LINGER_SECONDS = 2.0


@lru_cache(maxsize=2)
def _lines(*headers: tuple[bytes, bytes]) -> bytes:
    """Header lines; those of one second are the same for all responses."""
    return b"".join([b"%b: %b\r\n" % each for each in headers])


class HttpServerProtocol(BufferedProtocol):
    """One connection, bounded in memory and time.

    The head must arrive within `header_seconds` and `max_header_bytes`. A client that leaves a
    response unread for `stall_seconds` is disconnected, which cancels its turn. The rest of a body
    whose request is answered already is read for two seconds at most.

    Attributes:
        transport: Of the connection.
        answering: Whether a request was received whose response is not complete.
        drained: Done when the client has read enough for more to be sent; None if nothing waits.
        idle_since: Event loop time since when the connection is idle; None during a request.
        waiting_since: The same, except that a partly received head counts as idle.
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
        shutdown: Shutdown,
        pre_admission: PreAdmissionCheck,
        connection_limits: ConnectionLimits,
        non_turn_limiter: NonTurnLimiter,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Create the protocol of a new connection.

        Args:
            limits: Of one connection.
            wheel: For the timers of all connections.
            shutdown: Once requested, each response closes its connection.
            pre_admission: Answers turns that would be refused, without calling the application.
            connection_limits: Of all connections together.
            non_turn_limiter: Bounds the time spent on requests that are not turns.
            config: Of uvicorn.
            server_state: Of uvicorn.
            app_state: Of uvicorn; not used.
            _loop: Of uvicorn; the running loop if not given.
        """
        del app_state
        self._limits = limits
        self._wheel = wheel
        self._shutdown = shutdown
        self._pre_admission = pre_admission
        self._connection_limits = connection_limits
        self._non_turn_limiter = non_turn_limiter
        self._state = server_state
        self._app = config.loaded_app
        self._keep_alive_seconds = config.timeout_keep_alive
        self._loop = _loop or asyncio.get_running_loop()
        self._reader = RequestReader(limits.max_header_bytes, _MAX_HEADERS)
        self._head: RequestHead | None = None  # of the current request
        self._cycle: RequestCycle | None = None  # if the application answers it
        self._closing = False  # after the current response
        self._lingering = False
        self._body_bytes = 0  # received of the body
        self._discarded = 0  # bytes received while lingering
        self._after_non_turn = False  # the previous request was not a turn
        self._after_refusal = False  # the previous request was a refused turn
        self._delayed_refusal: DirectResponse | None = None  # sent when the limiter allows it
        self._reported = False
        self._scheduled = False
        self._reading_paused = False
        self.drained: asyncio.Future[None] | None = None  # while the client is not reading
        self._idle_timer: Timer | None = None
        self._awaiting_head = False  # whether the idle timer is for the rest of a head
        self._linger_timer: Timer | None = None
        self._stall_timer: Timer | None = None
        self._peer: tuple[str, int] | None = None
        self.transport: asyncio.Transport
        self.answering = False
        self.idle_since: float | None = None
        self.waiting_since: float | None = None

    # Called by the event loop.

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
        self._start_head_timer()

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
            self._cycle.disconnect()
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
        """The client is not reading: disconnect it after `stall_seconds`."""
        if self.drained is None:
            self.drained = self._loop.create_future()
        if self._cycle is not None:
            self._cycle.ready = False
        if self._stall_timer is None:
            self._stall_timer = self._wheel.call_at(
                self._loop.time() + self._limits.stall_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        """The client is reading again."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._release_senders()
        if self._cycle is not None:
            self._cycle.ready = True
        if not self.answering:
            self._schedule_input()

    # Called by the server.

    def announce_close(self) -> None:
        """Have the current response, if it has not begun, say `Connection: close`."""
        if self.answering and (self._cycle is None or not self._cycle.started):
            self._closing = True

    def shutdown(self) -> None:
        """Called by uvicorn at the end of the shutdown."""
        if self.answering:
            self._closing = True
        else:
            self.transport.close()

    def evict(self) -> bool:
        """See `EvictableConnection`: close, unless the application is answering."""
        if self.transport.is_closing():
            return False
        if self._cycle is not None:
            if self._cycle.body_complete or self._cycle.started:
                return False
            self._fail_body(Overloaded("Too many bodies arrive too slowly.", retry_after=1.0))
        elif self.drained is not None:
            self.transport.abort()
        elif (
            self.idle_since is None
            and not self._lingering
            and (self._head is None or self.answering)
        ):
            self._reject(Overloaded("Too many requests arrive too slowly.", retry_after=1.0))
        else:
            self.transport.close()
        if self.transport.is_closing():
            self.waiting_since = None
        self._reader.clear()
        self._report_buffered(0)
        return True

    def proceed(self) -> None:
        """See `DelayedConnection`: answer the request that was delayed."""
        if self.answering and self._head is not None and not self.transport.is_closing():
            refusal, self._delayed_refusal = self._delayed_refusal, None
            if refusal is None:
                self._dispatch(self._head)
            else:
                self._respond_directly(503, refusal, self._loop.time())
            self._process_input()

    # Called by the request cycle.

    def resume_body(self) -> None:
        """Continue to read the body: the application has taken what was buffered."""
        if self._reading_paused and not self._lingering:
            self._schedule_input()

    def may_keep_alive(self, status: int) -> bool:
        """Whether the connection can be reused after the response that begins now."""
        cycle, head, reader = self._cycle, self._head, self._reader
        keep = (
            not (self._closing or self._shutdown.requested) and head is not None and head.keep_alive
        )
        keep = keep and self._body_bytes <= self._limits.max_body_bytes
        if keep and not reader.complete and cycle is not None:
            keep = cycle.error is None and not cycle.expects_continue and status != 408
        self._closing = not keep
        return keep

    def date_line(self) -> bytes:
        """The header line `Date` (RFC 9110 §6.6.1); uvicorn makes its value once a second."""
        return _lines(*self._state.default_headers)

    def response_written(self, cycle: RequestCycle) -> None:
        """The complete response was written."""
        head = self._head
        if cycle is not self._cycle or head is None:
            return
        non_turn = is_public(head.method, head.path) or cycle.status >= 400
        if non_turn:
            self._non_turn_limiter.record_cost(
                self._loop.time() - cycle.started_at, application=True
            )
        self._after_non_turn = non_turn
        self._after_refusal = False
        self._cycle = None
        self._closing = self._closing or not cycle.keep_alive
        self._finish_response()

    # The states of a request.

    def _process_input(self) -> None:
        """Process the received bytes."""
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
            buffered = reader.buffered + (0 if reader.complete or failed else self._body_bytes)
            if buffered or self._reported:
                self._report_buffered(buffered)
            self._update_reading()

    def _handle_head(self, head: RequestHead) -> None:
        self._stop_idle_timer()
        self.waiting_since = None
        self.answering = True
        self._body_bytes = 0
        # The first request of a connection is never delayed: accepting it has cost more, and
        # probes on new connections must not queue behind a flood on kept ones.
        turn = is_turn(head.path)
        if (
            not self._after_non_turn
            or (turn and self._after_refusal)
            or self._shutdown.requested
            or self._non_turn_limiter.admit(self, turn=turn)
        ):
            self._dispatch(head)

    def _dispatch(self, head: RequestHead) -> None:
        """Answer the request directly, or have the application do it."""
        self._closing = (
            not head.keep_alive
            or self._shutdown.requested
            or (head.length or 0) > self._limits.max_body_bytes
        )
        started_at = self._loop.time()
        if head.path == LIVENESS_TARGET and head.method in (b"GET", b"HEAD"):
            response = self._pre_admission.liveness_response(head.headers, head.method.decode())
            self._respond_directly(200, response, started_at, head_only=head.method == b"HEAD")
            return
        if is_turn(head.path) and head.method == b"POST":
            refusal = self._pre_admission.overload_response(head.headers, self._peer, head.path)
            if refusal is not None:
                if (
                    not self._after_refusal
                    or self._shutdown.requested
                    or self._non_turn_limiter.admit_refusal(self)
                ):
                    self._respond_directly(503, refusal, started_at)
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
        self, status: int, response: DirectResponse, started_at: float, *, head_only: bool = False
    ) -> None:
        """Respond without calling the application."""
        head, reader = self._head, self._reader
        if head is not None and head.expects_continue and not reader.complete:
            self._closing = True  # the body may or may not follow: RFC 9110 §10.1.1
        lines, body = response
        self.transport.write(
            b"%b%b%b%b\r\n%b"
            % (
                STATUS_LINES[status],
                lines,
                self.date_line(),
                b"connection: close\r\n" if self._closing else b"",
                b"" if head_only else body,
            )
        )
        self._non_turn_limiter.record_cost(self._loop.time() - started_at, application=False)
        refused = status == 503
        if self._after_refusal and refused:
            self._non_turn_limiter.charge_refusal()
        elif self._after_non_turn:
            self._non_turn_limiter.charge(application=False)
        self._after_non_turn, self._after_refusal = True, refused
        self._finish_response()

    def _forward_body(self) -> None:
        """Pass received bytes of the body to the application."""
        reader, cycle = self._reader, self._cycle
        if cycle is None:
            if not self.answering:
                self._discard_body()
            return  # otherwise the request is delayed
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
        """Read and discard the rest of a body whose request was answered."""
        self._body_bytes += len(self._reader.read_body())
        if self._body_bytes > self._limits.max_body_bytes:
            self._linger()
        elif self._reader.complete:
            self._finish_request()

    def _finish_response(self) -> None:
        """The response is written: read the rest of the request, then the next one, or close."""
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
        """Response and request body are complete."""
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
            self._schedule_input()  # in the next loop pass: other connections come first
        else:
            self._wait_for_head()
            self._update_reading()

    def _wait_for_head(self) -> None:
        """Start the timer for the rest of a head, or for another request."""
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
        elif self._head is not None:  # already answered; the rest of its body is malformed
            self._linger()
        else:
            self._reject(problem)

    def _fail_body(self, problem: Problem) -> None:
        """Raise the problem to the application where it reads the body."""
        self._closing = True
        if self._cycle is not None:
            self._cycle.error = problem
            self._cycle.wake()

    def _reject(self, problem: Problem) -> None:
        """Answer a request that is not passed to the application, and close."""
        self.answering = False
        self._non_turn_limiter.forget(self)
        seen = self._head.headers if self._head is not None else self._reader.partial_headers()
        lines, body = self._pre_admission.error_response(problem, seen)
        self.transport.write(
            b"%b%b%bconnection: close\r\n\r\n%b"
            % (STATUS_LINES[problem.status], lines, self.date_line(), body)
        )
        self._linger()

    def _linger(self) -> None:
        """Close after a delay: closing at once would reset a client that is still sending."""
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
            self._enable_reading(False)  # the client may still read the response

    # Flow control and timers.

    def _update_reading(self) -> None:
        """Read while there is room; only a little of the next request during the current one."""
        if self._lingering:
            return
        buffered, cycle = self._reader.buffered, self._cycle
        if cycle is not None and not self._reader.complete:
            room = cycle.unread_bytes <= _BODY_HIGH_WATER
        elif self.answering or self._scheduled or self.drained is not None:
            room = buffered < _PIPELINED_BYTES  # of a pipelined request
        else:
            room = True
        if room is self._reading_paused:
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
        self._start_head_timer()

    def _start_head_timer(self) -> None:
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
