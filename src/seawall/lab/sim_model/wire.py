"""OpenAI's chat completions protocol on the server side: requests, replies, errors.

Format: https://platform.openai.com/docs/api-reference/chat and its streaming page; limits and
their headers: https://platform.openai.com/docs/guides/rate-limits.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.lab.sim_model.faults import Error
from seawall.lab.sim_model.limits import LimitExceeded, Quota
from seawall.turn import ToolCall

__all__ = [
    "ChatRequest",
    "Refusal",
    "Reply",
    "error_refusal",
    "invalid",
    "limit_refusal",
    "parse_request",
    "quota_headers",
    "stream_reply",
    "text_of",
    "throttle_refusal",
    "whole_reply",
]

_PARTS = 3  # of a tool call, see _parts
_LONGEST_SECONDS = 86_400.0  # Retry-After of a request that exceeds the capacity of the quota
_encode = msgspec.json.Encoder().encode


class Message(Struct):
    """A message of the conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class _Options(Struct):
    include_usage: bool = False


class ChatRequest(Struct):
    """A request for a completion."""

    model: str
    messages: list[Message]
    stream: bool = False
    stream_options: _Options | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def limit(self) -> int:
        """Limit of completion tokens; 0 for none."""
        return self.max_completion_tokens or self.max_tokens or 0


parse_request = msgspec.json.Decoder(ChatRequest).decode


class Reply(Struct):
    """A reply to send: either `count` data events, or `whole`.

    Attributes:
        first: Seconds until the first data event, or until `whole`.
        interval: Seconds between data events.
        chunks: The data events.
        count: Their number.
        whole: A JSON body, if the reply is not streamed.
        tokens: Completion tokens.
    """

    first: float
    interval: float = 0.0
    chunks: Iterator[bytes] = iter(())
    count: int = 0
    whole: bytes = b""
    tokens: int = 0


class Refusal(Struct, frozen=True):
    """An error response; `headers` are lines, each with its line end."""

    status: int
    body: bytes
    headers: bytes = b""


def text_of(message: Message) -> str:
    """The text of all parts of a message."""
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""


def whole_reply(
    head: dict[str, Any],
    pieces: Sequence[str],
    calls: Sequence[ToolCall],
    usage: dict[str, int],
    seconds: float,
) -> Reply:
    """A completion that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or None}
    if calls:
        message["tool_calls"] = [_call(each, each.arguments) for each in calls]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    body = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return Reply(seconds, whole=_encode(body))


def stream_reply(
    head: dict[str, Any],
    pieces: Sequence[str],
    calls: Sequence[ToolCall],
    usage: dict[str, int] | None,
    times: tuple[float, float],
) -> Reply:
    """A streamed completion; `times`: seconds until the first chunk, and between chunks."""
    count = max(1, len(pieces) + _PARTS * len(calls))
    return Reply(*times, _chunks(head, pieces, calls, usage), count)


def _chunks(
    head: dict[str, Any],
    pieces: Sequence[str],
    calls: Sequence[ToolCall],
    usage: dict[str, int] | None,
) -> Iterator[bytes]:
    """The data events; finish_reason and [DONE] are sent with the last one, as real servers do.

    Each is encoded when it is due: encoding all replies of a crowd at once would delay them.
    """
    opening = _encode(head | {"object": "chat.completion.chunk"})[:-1]

    def choices(delta: bytes, reason: bytes = b"null") -> bytes:
        return b'data: %b,"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n' % (
            opening,
            delta,
            reason,
        )

    before, _, after = choices(b'{"content":"the piece"}').rpartition(b'"the piece"')
    last = b""  # sent when it is known whether another one follows
    for piece in pieces:
        if last:
            yield last
        last = before + _encode(piece) + after
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
    """A streamed tool call: its name, then its arguments in two halves."""
    half = len(call.arguments) // 2
    return [
        {"index": index, **_call(call, "")},
        {"index": index, "function": {"arguments": call.arguments[:half]}},
        {"index": index, "function": {"arguments": call.arguments[half:]}},
    ]


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def invalid(status: int, message: str) -> Refusal:
    """An error response for an invalid request."""
    return Refusal(status, error_body(message, "invalid_request_error", ""))


def error_body(message: str, kind: str, code: str) -> bytes:
    """OpenAI's error object."""
    error = {"message": message, "type": kind, "param": None, "code": code or None}
    return _encode({"error": error})


def throttle_refusal(model: str, seconds: float) -> Refusal:
    """The 429 of a `throttle` rule."""
    return _limited(f"Rate limit reached for {model}.", "requests", seconds)


def limit_refusal(model: str, refused: LimitExceeded) -> Refusal:
    """The 429 of an exceeded limit."""
    kind = "tokens" if refused.limit == "tokens-per-minute" else "requests"
    message = f"Rate limit reached for {model} on {refused.limit.replace('-', ' ')}."
    return _limited(message, kind, min(refused.seconds, _LONGEST_SECONDS))


def _limited(message: str, kind: str, seconds: float) -> Refusal:
    body = error_body(
        f"{message} Please try again in {_duration(seconds)}.", kind, "rate_limit_exceeded"
    )
    return Refusal(429, body, _retry_after(seconds))


def error_refusal(rule: Error) -> Refusal:
    """The response of an `error` rule."""
    kind = "server_error" if rule.status >= 500 else "invalid_request_error"
    if rule.status == 529:  # Anthropic's, https://docs.anthropic.com/en/api/errors
        kind = "overloaded_error"
    body = error_body(f"A simulated error {rule.status}.", kind, rule.code)
    headers = b"" if rule.retry_after is None else _retry_after(rule.retry_after)
    return Refusal(rule.status, body, headers)


def _retry_after(seconds: float) -> bytes:
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (
        math.ceil(seconds),
        math.ceil(seconds * 1e3),
    )


def quota_headers(quotas: Mapping[str, Quota]) -> bytes:
    """The `x-ratelimit-*` header lines."""
    lines = (
        f"x-ratelimit-limit-{name}: {quota.limit}\r\n"
        f"x-ratelimit-remaining-{name}: {quota.remaining}\r\n"
        f"x-ratelimit-reset-{name}: {_duration(quota.reset)}\r\n"
        for name, quota in quotas.items()
    )
    return "".join(lines).encode()


def _duration(seconds: float) -> str:
    """A duration as OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1e3)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    whole = math.ceil(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{whole % 60}s"
