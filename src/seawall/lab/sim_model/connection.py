"""Connections of the simulated model: HTTP/1.1 requests in, timed replies out.

A plain asyncio protocol and one timing wheel for all streams keep the model cheap enough to share a
machine with the system under load. A reply without faults takes a short path of its own.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

import msgspec
from msgspec import Struct, field

from seawall.errors import ConfigError
from seawall.lab.sim_model.limits import Charge, Limits
from seawall.lab.sim_model.steps import End, Step
from seawall.lab.sim_model.wire import ChatRequest, Refusal, Reply, invalid, parse_request
from seawall.timers import TimingWheel
from seawall.transport.http_request import MalformedRequest, RequestHead, RequestReader

__all__ = [
    "Connection",
    "ModelBackend",
    "SimStats",
    "SteppedReply",
]


class SimStats(Struct):
    """Counters since the start; `open_streams` and `connections` are current values.

    Every request is refused or started; every started one is open, completed, cancelled by the
    client or broken by a fault.

    Attributes:
        requests: Requests for completions.
        accepted: Connections accepted in total.
        models: Requests by model name.
        faults: Injected faults by kind, and refusals by the name of the limit.
    """

    open_streams: int = 0
    peak_streams: int = 0
    requests: int = 0
    refused: int = 0
    started: int = 0
    completed: int = 0
    cancelled: int = 0
    broken: int = 0
    connections: int = 0
    peak_connections: int = 0
    accepted: int = 0
    models: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    def count_started(self) -> None:
        """Count a started reply."""
        self.started += 1
        self.open_streams += 1
        self.peak_streams = max(self.peak_streams, self.open_streams)

    def count_connection(self) -> None:
        """Count an accepted connection."""
        self.accepted += 1
        self.connections += 1
        self.peak_connections = max(self.peak_connections, self.connections)

    def count_fault(self, kind: str) -> None:
        """Count an injected fault or a refusal."""
        self.faults[kind] = self.faults.get(kind, 0) + 1


_MAX_BODY_BYTES = 8 << 20
_MAX_HEAD_BYTES = 65_536
_MAX_HEADERS = 200
_LINGER_OFF = struct.pack("ii", 1, 0)  # closing discards what is unsent and sends RST: tcp(7)
_encode = msgspec.json.Encoder().encode


class SteppedReply(Struct):
    """A reply as a sequence of steps, with the limits of its model, if any.

    Attributes:
        steps: What is sent.
        limits: Of the model.
        charge: What was deducted for it.
        tokens: Completion tokens; of a reply that is cut off, all of them count.
    """

    steps: Iterator[Step]
    limits: Limits | None
    charge: Charge | None = None
    tokens: int = 0


class ModelBackend(Protocol):
    """The part of the model that a connection uses."""

    stats: SimStats
    wheel: TimingWheel
    connections: "set[Connection]"

    def answer(self, request: ChatRequest) -> Reply | SteppedReply | Refusal:
        """Decide the response to a request."""

    def listed(self) -> dict[str, object]:
        """The response to `/v1/models`."""

    def replace_faults(self, script: bytes) -> dict[str, int]:
        """Replace the fault script.

        Raises:
            ConfigError: The script is invalid; the message names the key.
        """


class Connection(asyncio.Protocol):
    """One client connection; it takes one request at a time and aborts on pipelining."""

    __slots__ = ("_body", "_head", "_model", "_pending", "_played", "_reader", "_transport")

    def __init__(self, model: ModelBackend) -> None:
        self._model = model
        self._reader = RequestReader(_MAX_HEAD_BYTES, _MAX_HEADERS)
        self._transport: asyncio.Transport
        self._head: RequestHead | None = None
        self._body = bytearray()
        self._pending: Iterator[bytes] | Iterator[Step] | None = None
        self._played: SteppedReply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always
        self._model.connections.add(self)
        self._model.stats.count_connection()

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio.Protocol; an unfinished stream counts as cancelled."""
        self._model.connections.discard(self)
        self._model.stats.connections -= 1
        if self._pending is not None:
            self._release()
            self._model.stats.cancelled += 1

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._transport.is_closing():
            return
        self._reader.feed(data)
        try:
            while self._read():
                pass
        except MalformedRequest as error:
            self._refuse(invalid(400, str(error)))
            self._transport.close()

    def _read(self) -> bool:
        """Process received bytes; return whether a complete request was handled."""
        reader = self._reader
        if self._head is None:
            self._head = reader.next_head()
            if self._head is None:
                return False
            if self._pending is not None:  # pipelined: not supported
                self._transport.abort()
                return False
            if self._head.expects_continue and not reader.complete:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body += reader.read_body()
        if len(self._body) > _MAX_BODY_BYTES:
            self._refuse(invalid(413, "The body is too large."))
            self._transport.close()
            return False
        if not reader.complete:
            return False
        head, body = self._head, bytes(self._body)
        self._head, self._body = None, bytearray()
        self._answer(head, body)
        return not self._transport.is_closing()

    def _answer(self, head: RequestHead, body: bytes) -> None:
        path = head.path
        if path.endswith(b"/chat/completions") and head.method == b"POST":
            self._complete(body)
        elif path == b"/sim/stats":
            self._write(200, _encode(self._model.stats))
        elif path == b"/sim/faults" and head.method == b"POST":
            self._replace_faults(body)
        elif path.endswith(b"/models"):
            self._write(200, _encode(self._model.listed()))
        else:
            self._refuse(invalid(404, f"No such endpoint: {path.decode('latin-1')}"))

    def interrupt(self) -> None:
        """Start of an outage: reset the open stream, which counts as broken; close an idle one."""
        if self._pending is None:
            self._transport.close()
        else:
            self._end("reset")

    def _reset(self) -> None:
        raw_socket = self._transport.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        self._transport.abort()

    def _complete(self, body: bytes) -> None:
        try:
            request = parse_request(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(invalid(400, str(error)))
            return
        answer = self._model.answer(request)
        if isinstance(answer, Refusal):
            self._refuse(answer)
            return
        self._model.stats.count_started()
        if isinstance(answer, Reply):
            self._send_reply(answer)
        else:
            self._send_steps(answer)

    def _replace_faults(self, body: bytes) -> None:
        try:
            self._write(200, _encode(self._model.replace_faults(body)))
        except ConfigError as error:
            self._refuse(invalid(400, str(error)))

    def _send_reply(self, reply: Reply) -> None:
        """Send a reply without faults."""
        due = asyncio.get_running_loop().time() + reply.first
        if reply.whole:
            self._pending = pending = iter((reply.whole,))
            self._model.wheel.call_at(due, lambda: self._send_whole(pending))
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._pending = reply.chunks
        stream = _Stream(self, reply, due)
        self._model.wheel.call_at(due, stream.send)

    def send_chunk(self, stream: "_Stream") -> None:
        """Send the next chunk of a reply without faults, and have the one after it sent."""
        if self._pending is not stream.chunks:
            return  # the client has disconnected
        chunk = next(stream.chunks)
        stream.left -= 1
        if not stream.left:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk))
            self._end("complete")
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        stream.due += stream.interval
        self._model.wheel.call_at(stream.due, stream.send)

    def _send_whole(self, pending: Iterator[bytes]) -> None:
        if self._pending is pending:
            self._write(200, next(pending))
            self._end("complete")

    def _send_steps(self, played: SteppedReply) -> None:
        """Send a reply step by step; delays stretch with the load of its model."""
        self._pending = pending = played.steps
        self._played, limits = played, played.limits
        if limits is not None:
            limits.open += 1

        def take(step: Step | None, due: float) -> None:
            if step is None or self._pending is not pending:
                return  # it hangs, or the client has disconnected
            if step.data:
                self._transport.write(step.data)
            if step.end:
                self._end(step.end)
                return
            following = next(pending, None)
            if following is None or not following.delay:
                take(following, due)
                return
            later = due + following.delay * _stretch(limits)
            self._model.wheel.call_at(later, lambda: take(following, later))

        take(next(pending, None), asyncio.get_running_loop().time())

    def _end(self, end: End) -> None:
        self._release()
        if end == "complete":
            self._model.stats.completed += 1
            return
        self._model.stats.broken += 1
        if end == "close":
            self._transport.close()
        elif end == "reset":
            self._reset()

    def _release(self) -> None:
        self._pending = None
        self._model.stats.open_streams -= 1
        played, self._played = self._played, None
        if played is not None and played.limits is not None:
            played.limits.open -= 1
            if played.charge is not None:
                now = asyncio.get_running_loop().time()
                played.limits.settle(played.charge, played.tokens, now)

    def _refuse(self, refusal: Refusal) -> None:
        self._write(refusal.status, refusal.body, refusal.headers)

    def _write(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self._transport.write(
            b"HTTP/1.1 %d Simulated\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)
        )


def _stretch(limits: Limits | None) -> float:
    return 1.0 if limits is None else limits.stretch()


class _Stream:
    """What is left of a reply without faults. No closure: that would be a cycle, and never freed.

    Attributes:
        chunks: The data events that follow.
        interval: Seconds between them.
        left: Their number.
        due: When the next one is.
    """

    __slots__ = ("_connection", "chunks", "due", "interval", "left")

    def __init__(self, connection: Connection, reply: Reply, due: float) -> None:
        self._connection = connection
        self.chunks = reply.chunks
        self.interval = reply.interval
        self.left = reply.count
        self.due = due

    def send(self) -> None:
        """The next chunk is due."""
        self._connection.send_chunk(self)
