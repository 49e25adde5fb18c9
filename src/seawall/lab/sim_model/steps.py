"""Replies with faults as steps: what is written when, and how the exchange ends."""

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
    """After `delay` more seconds `data` is written; then the exchange ends if `end` says so.

    "complete" and "broken" leave the connection open for the next request, "close" and "reset" do
    not. If the steps run out without an end, the exchange hangs.
    """

    delay: float
    data: bytes = b""
    end: End = ""


def reply_steps(reply: Reply, rule: Rule | None, headers: bytes) -> Iterator[Step]:
    """The steps of a reply under a rule.

    A reply that is not streamed is sent in two halves, and treated as a stream of two. A rule that
    ends a stream ends it before the last data event.

    Args:
        reply: The reply without faults.
        rule: The fault; None for none.
        headers: Further lines of the response head.
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
        event = b""
        if isinstance(rule, StreamError):
            body = error_body("A simulated error in the stream.", "server_error", "")
            event = _framed(b"data: %b\n\n" % body)
        yield Step(reply.interval, event + _LAST, "broken")
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
