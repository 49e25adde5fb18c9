"""The simulated model: a server that speaks OpenAI's wire protocol with set service times.

It is a simulator for load and tests, not a model. Made to be cheap, so that it can share a
machine with what it loads: protocols by hand, one timer for all streams.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httptools
import msgspec
from msgspec import Struct

from seawall.lab.sim_reply import SimTimes, plan_reply
from seawall.lab.sim_script import Script, tool_calls
from seawall.transport.wheel import Wheel
from seawall.turn import ToolCall

__all__ = ["SimModel", "SimStats"]

_MAX_BODY_BYTES = 8 << 20
_SCRIPT_INTERVAL = 0.01
_PARTS = 3  # of a tool call, see _parts
_LISTENERS = 256
_BACKLOG = 4_096
_encode = msgspec.json.Encoder().encode


class _Message(Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _Options(Struct):
    include_usage: bool = False


class _Request(Struct):
    model: str
    messages: list[_Message]
    stream: bool = False
    stream_options: _Options | None = None


class SimStats(Struct):
    """Counts since the start; `open_streams` is the present."""

    open_streams: int = 0
    peak_streams: int = 0
    started: int = 0
    completed: int = 0
    cancelled: int = 0
    connections: int = 0


class _Reply(Struct):
    """What is to be sent.

    chunks: `count` bodies of data events, the first due after `first` seconds and each next one
    after `interval` more. whole: a JSON body instead, due after `first` seconds.
    """

    first: float
    interval: float = 0.0
    chunks: Iterator[bytes] = iter(())
    count: int = 0
    whole: bytes = b""


class SimModel:
    """A simulated model; `serve` makes it reachable."""

    def __init__(self, *, seed: int, times: SimTimes, script: Script) -> None:
        self.stats = SimStats()
        self.wheel = Wheel()
        self._seed = seed
        self._times = times
        self._script = script

    async def serve(self, host: str, port: int, announce: Callable[[int], None]) -> None:
        """Serve until cancelled; `announce` is told the port.

        On several sockets, because an event loop takes one connection of each a round.
        """
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            for _ in range(_LISTENERS):
                listener = socket.create_server((host, port), reuse_port=True, backlog=_BACKLOG)
                port = listener.getsockname()[1]
                server = await loop.create_server(
                    lambda: _Connection(self), sock=listener, backlog=_BACKLOG
                )
                await stack.enter_async_context(server)
            announce(port)
            await asyncio.Event().wait()

    def reply(self, request: _Request) -> _Reply:
        """Decide the answer to a request."""
        last = max(
            (index for index, each in enumerate(request.messages) if each.role == "user"),
            default=-1,
        )
        message = _text(request.messages[last]) if last >= 0 else ""
        number = sum(each.role == "assistant" for each in request.messages[last + 1 :])
        step = self._script.step(message, number)
        calls: tuple[ToolCall, ...] = ()
        if step is None:
            plan = plan_reply(self._seed, message, self._times)
            pieces, first, interval = plan.chunks, plan.first_token, plan.interval
        else:
            words = step.text.split(" ") if step.text else []
            pieces = tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))
            first = interval = _SCRIPT_INTERVAL
            calls = tool_calls(step, number)
        prompt = sum(len(_text(each)) for each in request.messages) // 4
        written = len(pieces) + 8 * len(calls)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
        head = {"id": f"chatcmpl-sim-{self.stats.started}", "created": 0, "model": request.model}
        if not request.stream:
            return _whole(head, pieces, calls, usage, first + interval * len(pieces))
        with_usage = request.stream_options is not None and request.stream_options.include_usage
        chunks = _chunks(head, pieces, calls, usage if with_usage else None)
        return _Reply(first, interval, chunks, max(1, len(pieces) + _PARTS * len(calls)))


def _whole(
    head: dict[str, Any],
    pieces: Sequence[str],
    calls: Sequence[ToolCall],
    usage: dict[str, int],
    seconds: float,
) -> _Reply:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or None}
    if calls:
        message["tool_calls"] = [_call(each, each.arguments) for each in calls]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    body = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return _Reply(seconds, whole=_encode(body))


def _chunks(
    head: dict[str, Any],
    pieces: Sequence[str],
    calls: Sequence[ToolCall],
    usage: dict[str, int] | None,
) -> Iterator[bytes]:
    """The data events; the end comes together with the last piece, as from real servers.

    Each is put together when it is due: in a crowd, everybody's at once would be a long wait.
    """
    opening = _encode(head | {"object": "chat.completion.chunk"})[:-1]

    def choices(delta: bytes, reason: bytes = b"null") -> bytes:
        return b'data: %b,"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n' % (
            opening,
            delta,
            reason,
        )

    last = b""  # held back until it is known whether another one follows
    for piece in pieces:
        if last:
            yield last
        last = choices(b'{"content":%b}' % _encode(piece))
    for index, call in enumerate(calls):
        for part in _parts(index, call):
            if last:
                yield last
            last = choices(_encode({"tool_calls": [part]}))
    end = choices(b"{}", b'"tool_calls"' if calls else b'"stop"')
    if usage is not None:
        end += b'data: %b,"choices":[],"usage":%b}\n\n' % (opening, _encode(usage))
    yield b"%bdata: [DONE]\n\n" % (last + end)


def _parts(index: int, call: ToolCall) -> list[dict[str, Any]]:
    """A tool call as it is streamed: its head, then its arguments in two halves."""
    half = len(call.arguments) // 2
    return [
        {"index": index, **_call(call, "")},
        {"index": index, "function": {"arguments": call.arguments[:half]}},
        {"index": index, "function": {"arguments": call.arguments[half:]}},
    ]


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""


_decode_request = msgspec.json.Decoder(_Request).decode


class _Connection(asyncio.Protocol):
    """One client connection; one request at a time, as HTTP clients of models send them."""

    __slots__ = ("_body", "_model", "_parser", "_pending", "_transport", "_url")

    def __init__(self, model: SimModel) -> None:
        self._model = model
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._url = b""
        self._body = bytearray()
        self._pending: Iterator[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always
        self._model.stats.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio.Protocol; a stream that was not at its end counts as cancelled."""
        self._model.stats.connections -= 1
        if self._pending is not None:
            self._pending = None
            self._model.stats.open_streams -= 1
            self._model.stats.cancelled += 1

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._answer(400, _error("this is not an HTTP request"))
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body += body
        if len(self._body) > _MAX_BODY_BYTES:
            self._answer(413, _error("the body is too large"))
            self._transport.close()

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        url, body = self._url, bytes(self._body)
        self._url, self._body = b"", bytearray()
        stats = self._model.stats
        if url == b"/sim/stats":
            self._answer(200, _encode(stats))
        elif url.endswith(b"/models"):
            listed = [{"id": "simulated", "object": "model", "created": 0, "owned_by": "sim"}]
            self._answer(200, _encode({"object": "list", "data": listed}))
        elif url.endswith(b"/chat/completions") and self._parser.get_method() == b"POST":
            try:
                request = _decode_request(body)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._answer(400, _error(str(error)))
                return
            self._begin(self._model.reply(request))
        else:
            self._answer(404, _error(f"nothing is at {url.decode('latin-1')}"))

    def _begin(self, reply: _Reply) -> None:
        stats = self._model.stats
        stats.started += 1
        stats.open_streams += 1
        stats.peak_streams = max(stats.peak_streams, stats.open_streams)
        due = asyncio.get_running_loop().time() + reply.first
        if reply.whole:
            self._pending = pending = iter((reply.whole,))
            self._model.wheel.call_at(due, lambda: self._send_whole(pending))
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._pending = pending = reply.chunks

        def send(due: float, left: int) -> None:
            if self._pending is not pending:
                return  # the client has gone
            chunk = next(pending)
            if left == 1:
                self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk))
                self._finish()
                return
            self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            following = due + reply.interval
            self._model.wheel.call_at(following, lambda: send(following, left - 1))

        self._model.wheel.call_at(due, lambda: send(due, reply.count))

    def _send_whole(self, pending: Iterator[bytes]) -> None:
        if self._pending is pending:
            self._answer(200, next(pending))
            self._finish()

    def _finish(self) -> None:
        self._pending = None
        self._model.stats.open_streams -= 1
        self._model.stats.completed += 1

    def _answer(self, status: int, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %d Simulated\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
        )


def _error(message: str) -> bytes:
    return _encode({"error": {"message": message, "type": "invalid_request_error"}})
