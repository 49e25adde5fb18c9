"""Requests and their identifiers: of the request that a task belongs to, of turns and sessions.

Those of turns and sessions are unguessable, and sortable by creation time.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import msgspec
from msgspec import Struct

from seawall.turn import TurnRequest, UserMessage

__all__ = [
    "REQUEST_ID",
    "Request",
    "current_request",
    "fingerprint",
    "new_request",
    "new_session_id",
    "new_turn_id",
    "request_id",
    "session_of",
    "time_of",
]

REQUEST_ID = b"x-request-id"
_safe = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")
_trace = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Request(Struct):
    """One request, shared by all tasks that work on it.

    Attributes:
        id: As in the response header `x-request-id`.
        tenant: Empty until it is verified.
    """

    id: str
    tenant: str = ""


current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)
"""None outside of requests, such as in turns recovered from another process."""


def request_id(headers: Mapping[bytes, bytes], default: str = "") -> str:
    """The id of a request: the client's `x-request-id`, its trace id, or a new one.

    Args:
        headers: Names in lower case. A client's id that is longer than 128 characters, or has
            characters other than letters, digits and `._:@/+=-`, is ignored.
        default: The host's own id, used before a random one.
    """
    if (own := headers.get(REQUEST_ID)) is not None and _safe.match(own):
        return own.decode("ascii")
    if (parent := headers.get(b"traceparent")) is not None and (found := _trace.match(parent)):
        return found[1].decode("ascii")
    return default or os.urandom(16).hex()


def fingerprint(request: TurnRequest) -> str:
    """Digest of a request: the same idempotency key with another digest is refused."""
    session = None if request.opens and not request.named else request.session
    history, sent = request.history, request.attachments
    if attached := [each for each in history if type(each) is UserMessage and each.attachments]:
        sent += tuple(each for message in attached for each in message.attachments)
        history = tuple(
            UserMessage(each.text) if type(each) is UserMessage else each for each in history
        )
    asked = msgspec.json.encode((request.text, session, request.agent, history))
    if request.options is not None:
        asked += msgspec.json.encode(request.options)
    if sent:  # the rest of their ids names the session, which may be new
        asked += msgspec.json.encode([each.id.rpartition(".")[2] for each in sent])
    return hashlib.sha256(asked).hexdigest()


def new_request(
    text: str,
    *,
    session: str | None = None,
    **rest: Any,  # noqa: ANN401 - the other fields of a TurnRequest
) -> TurnRequest:
    """A request with a new id; without a session, for a new session.

    Args:
        text: The user's message.
        session: The session to continue.
        rest: Further fields of `TurnRequest`.
    """
    if session:
        return TurnRequest(id=new_turn_id(session), text=text, session=session, opens=False, **rest)
    name, turn = _new_ids()
    return TurnRequest(id=turn, text=text, session=name, opens=session is None, **rest)


def new_session_id() -> str:
    """48 bits of Unix milliseconds and 80 random bits, as in UUIDv7 (RFC 9562 §5.7)."""
    return "ses_" + _sortable()


def new_turn_id(session: str) -> str:
    """The same, after the session's id: so a turn can be found in a store by its own id alone."""
    return f"trn_{session}.{_sortable()}"


def session_of(turn: str) -> str | None:
    """The session of a turn's id; None if this is not one."""
    prefix, _, rest = turn.partition("_")
    session, _, own = rest.rpartition(".")
    return session if prefix == "trn" and session and own else None


def time_of(turn: str) -> float:
    """When an id was created, in Unix seconds; 0 if it does not say."""
    try:
        return int(turn.rpartition(".")[2][:12], 16) / 1e3
    except ValueError:
        return 0.0


def _new_ids() -> tuple[str, str]:
    """Those of a session and of its first turn, by one call of the system."""
    milliseconds, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(20).hex()
    session = f"ses_{milliseconds}{random[:20]}"
    return session, f"trn_{session}.{milliseconds}{random[20:]}"


def _sortable() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds:012x}{os.urandom(10).hex()}"
