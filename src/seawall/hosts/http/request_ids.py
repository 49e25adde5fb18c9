"""The id of a request: the client's own, the one of its trace, the host's, or a new one."""

import os
import re
from collections.abc import Mapping

__all__ = ["REQUEST_ID", "request_id"]

REQUEST_ID = b"x-request-id"
_safe = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")
_trace = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(headers: Mapping[bytes, bytes], otherwise: str = "") -> str:
    """The id of a request.

    Args:
        headers: names in lower case. An id of the client's that is too long, or has other
            characters than letters, digits and `._:@/+=-`, is passed over.
        otherwise: the host's own name for it, where it has one.
    """
    if (own := headers.get(REQUEST_ID)) is not None and _safe.match(own):
        return own.decode("ascii")
    if (parent := headers.get(b"traceparent")) is not None and (found := _trace.match(parent)):
        return found[1].decode("ascii")
    return otherwise or os.urandom(16).hex()
