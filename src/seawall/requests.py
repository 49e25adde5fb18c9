"""Request context: the id and tenant of the request that a task works on."""

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
        id: As in the header `x-request-id` of the response.
        tenant: Empty until it is authenticated.
    """

    id: str
    tenant: str = ""


current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)
"""None outside of requests, such as in turns recovered from another process."""


def request_id(headers: Mapping[bytes, bytes], otherwise: str = "") -> str:
    """The id of a request: from its headers, else from the host, else random.

    Args:
        headers: With names in lower case. A client's id that is too long, or has other characters
            than letters, digits and `._:@/+=-`, is ignored.
        otherwise: The host's own id, if it has one.
    """
    if (own := headers.get(REQUEST_ID)) is not None and _safe.match(own):
        return own.decode("ascii")
    if (parent := headers.get(b"traceparent")) is not None and (found := _trace.match(parent)):
        return found[1].decode("ascii")
    return otherwise or os.urandom(16).hex()
