"""A reply that goes wrong, step by step: what is written when, and how it ends.

Pure: from a reply and a rule to the steps; `sim_connection` takes them.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from seawall.lab.sim_model.faults import (
    Drop,
    Hang,
    Malformed,
    Reset,
    Rule,
    Slow,
    StreamError,
    Truncate,
)
from seawall.lab.sim_model.wire import Reply, error_body

__all__ = ["End", "Step", "reply_steps"]

End: TypeAlias = Literal["", "complete", "broken", "close", "reset"]
_LAST = b"0\r\n\r\n"


class Step(Struct, frozen=True):
    """What happens after `delay` seconds more: `data` is written, then the exchange may end.

    end: "complete" and "broken" leave the connection open for the next request, "close" and
    "reset" do not. Steps that run out without an end hang.
    """

    delay: float
    data: bytes = b""
    end: End = ""


def reply_steps(reply: Reply, rule: Rule | None, headers: bytes) -> Iterator[Step]:
    """The steps of a reply under a rule that concerns replies; None: all goes well.

    headers: further lines of the head. A reply in one piece is sent in two halves, with a rule
    for streams between them. The last data event is never sent where a rule cuts a stream.
    """
    if reply.whole:
        half = len(reply.whole) // 2
        halves = iter((reply.whole[:half], reply.whole[half:]))
        reply, kind = Reply(reply.first, 0.0, halves, 2), b"application/json"
    else:
        kind = b"text/event-stream"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b\r\n" % (
        kind,
        headers,
    )
    if isinstance(rule, Hang | Drop | Reset):
        end: End = "" if isinstance(rule, Hang) else "close" if isinstance(rule, Drop) else "reset"
        if rule.at == "before-head":
            yield Step(0.0, end=end)
            return
        yield Step(0.0, head)
        if rule.at == "in-stream":
            yield from _beginning(reply, rule.chunks)
        yield Step(reply.interval, end=end)
        return
    yield Step(0.0, head)
    if isinstance(rule, StreamError | Truncate):
        yield from _beginning(reply, rule.chunks)
        said = b""
        if isinstance(rule, StreamError):
            body = error_body("A simulated error in the stream.", "server_error", "")
            said = _framed(b"data: %b\n\n" % body)
        yield Step(reply.interval, said + _LAST, "broken")
        return
    if isinstance(rule, Malformed):
        yield from _beginning(reply, rule.chunks)
        yield Step(reply.interval, _framed(b'data: {"choices":[{"delta":{"content":\xff\xfe\n\n'))
        left = reply.count - min(rule.chunks, reply.count - 1)
        yield from _rest(reply, left, reply.interval, reply.interval)
    elif isinstance(rule, Slow):
        first, interval = reply.first * rule.first_factor, reply.interval * rule.factor
        yield from _rest(reply, reply.count, first, interval)
    else:
        yield from _rest(reply, reply.count, reply.first, reply.interval)


def _beginning(reply: Reply, chunks: int) -> Iterator[Step]:
    for index in range(min(chunks, reply.count - 1)):
        yield Step(reply.interval if index else reply.first, _framed(next(reply.chunks)))


def _rest(reply: Reply, count: int, first: float, interval: float) -> Iterator[Step]:
    for index in range(count):
        data = _framed(next(reply.chunks))
        delay = interval if index else first
        if index == count - 1:
            yield Step(delay, data + _LAST, "complete")
        else:
            yield Step(delay, data)


def _framed(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)
