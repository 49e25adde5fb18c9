"""Refusing turns before anything is done for them: no task, no body read, no token verified."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seawall.admission.gate import DETAIL
from seawall.config import ServerSettings
from seawall.errors import Overloaded, Problem, Unauthenticated
from seawall.hosts.http.credentials import Client, presented
from seawall.hosts.http.exchange import Exchange, encode, problem_body
from seawall.orchestrator import Orchestrator
from seawall.requests import Request, request_id

if TYPE_CHECKING:
    from seawall.hosts.http.cors import Cors

__all__ = ["TURN_TARGETS", "Door", "check_room", "open_cors"]

TURN_TARGETS = frozenset((b"/v1/turns", b"/v1/chat/completions"))
# They stand for the seconds and the request's id, until these are known.
_MARK = 4_711.5
_ID_MARK = "the-id-of-the-request"
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n"
    b"retry-after: %d\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
)


class Door:
    """Answers requests that do not get as far as the application.

    Those for turns that would be refused are answered with bytes made beforehand.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._cors = open_cors(orchestrator.settings.server)
        self._access_log = orchestrator.settings.server.access_log
        body = encode(problem_body(Overloaded(DETAIL, retry_after=_MARK), _ID_MARK))
        self._before, rest = body.split(encode(_MARK))
        self._between, self._after = rest.split(_ID_MARK.encode())

    def refusal(
        self, headers: list[tuple[bytes, bytes]], client: Client, target: bytes = b""
    ) -> tuple[bytes, bytes] | None:
        """The answer to a turn that would be refused, or None: the head but for its end; the body.

        headers: names in lower case. target: of the request.
        """
        if not (self._orchestrator.ready and self._orchestrator.gate.busy):
            return None
        found = dict(headers)
        seconds = self._orchestrator.gate.refusal(
            lambda: _claimed(self._orchestrator, found, client)
        )
        if seconds is None:
            return None
        name = request_id(found)
        shown = name.encode()
        body = b"%b%.1f%b%b%b" % (self._before, seconds, self._between, shown, self._after)
        head = _HEAD % (max(1, round(seconds)), len(body), shown, self._allowing(found))
        if self._access_log:
            self._log("POST", target, 503, len(body), name)
        return head, body

    def rejection(self, problem: Problem, headers: list[tuple[bytes, bytes]]) -> bytes:
        """An answer without its status line, to a request that cannot be read to its end.

        headers: as far as they were read, names in lower case. The connection is closed after it.
        """
        found = dict(headers)
        name = request_id(found)
        body = encode(problem_body(problem, name))
        if self._access_log:
            self._log("-", b"-", problem.status, len(body), name)
        return (
            b"content-type: application/problem+json\r\nconnection: close\r\n"
            b"x-request-id: %b\r\n%bcontent-length: %d\r\n\r\n%b"
        ) % (name.encode(), self._allowing(found), len(body), body)

    def _allowing(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Lines by which a page of another origin may read the answer."""
        if self._cors is None:
            return b""
        lines = self._cors.answer(headers.get(b"origin"))
        return b"".join(b"%b: %b\r\n" % line for line in lines)

    def _log(self, method: str, target: bytes, status: int, size: int, name: str) -> None:
        from seawall.hosts.http.access_log import log_access  # noqa: PLC0415 - where switched on

        log_access(method, target, Request(name), status=status, size=size, seconds=0.0)


def open_cors(settings: ServerSettings) -> "Cors | None":
    """What `[server.cors]` says; None where there is no such section: nothing is imported then."""
    if settings.cors is None:
        return None
    from seawall.hosts.http.cors import Cors  # noqa: PLC0415

    return Cors(settings.cors)


def check_room(orchestrator: Orchestrator, exchange: Exchange) -> None:
    """The same for an exchange that was begun, under servers that have no such door.

    Raises:
        Overloaded: there is no room.
    """
    client = exchange.scope.get("client")
    orchestrator.gate.check(lambda: _claimed(orchestrator, exchange.headers, client))


def _claimed(
    orchestrator: Orchestrator, headers: Mapping[bytes, bytes], client: Client
) -> str | None:
    """The tenant that is claimed. Nothing of it is verified."""
    try:
        principal = orchestrator.authenticator.claimed(presented(headers, client))
    except Unauthenticated:
        return None
    return None if principal is None else principal.tenant
