"""Access log: one line for each request. Imported only if it is switched on."""

import logging

from seawall.hosts.http.exchange import Scope, Send
from seawall.requests import Request

__all__ = ["CLIENT_GONE", "RecordingSend", "enable_access_log", "log_access"]

_log = logging.getLogger("seawall.access")
_MAX_PATH_CHARACTERS = 500
CLIENT_GONE = 499
"""Status where the client disconnected before a response, as in nginx."""


def enable_access_log() -> None:
    """Enable the access log independently of the level of other logs."""
    _log.setLevel(logging.INFO)


def log_access(
    method: str, target: bytes, request: Request, *, status: int, size: int, seconds: float
) -> None:
    """Write a line.

    Args:
        method: Of the request.
        target: Of the request; the query is not logged.
        request: Its id and tenant.
        status: Of the response.
        size: Of the response body in bytes.
        seconds: From the head of the request to the end of the response.
    """
    path = target.partition(b"?")[0].decode("latin-1").encode("unicode_escape").decode()
    fields: dict[str, object] = {
        "method": method,
        "path": path[:_MAX_PATH_CHARACTERS],
        "status": status,
        "bytes": size,
        "seconds": round(seconds, 4),
    }
    _log.info(
        "%s %s %d %d bytes %.4f s request=%s tenant=%r",
        *fields.values(),
        request.id,
        request.tenant,
        extra=fields | {"request_id": request.id, "tenant": request.tenant},
    )


class RecordingSend:
    """An ASGI `send` that records status and size for the access log."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = CLIENT_GONE
        self.size = 0

    async def __call__(self, message: Scope) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)
