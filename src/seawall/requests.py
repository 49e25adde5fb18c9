"""Request context: the id and tenant of the request that a task belongs to."""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar

from msgspec import Struct

__all__ = ["REQUEST_ID", "Request", "current_request", "request_id"]

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
