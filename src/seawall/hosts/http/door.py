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

__all__ = ["LIVE_TARGET", "TURN_TARGETS", "Door", "check_room", "is_open", "open_cors"]

TURN_TARGETS = frozenset((b"/v1/turns", b"/v1/chat/completions"))
LIVE_TARGET = b"/livez"
_OPEN_TARGETS = frozenset((LIVE_TARGET, b"/readyz", b"/metrics", b"/openapi.json"))
_ALIVE = encode({"status": "alive"})
# They stand for the seconds and the request's id, until these are known.
_MARK = 4_711.5
_ID_MARK = "the-id-of-the-request"
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_PROBLEM = b"content-type: application/problem+json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_RETRY = b"retry-after: %d\r\n"

Lines = tuple[bytes, bytes]
"""The header lines of an answer, without status line, `Connection` and empty line; its body."""


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
    ) -> Lines | None:
        """The answer to a turn that would be refused, or None.

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
        lines = _RETRY % max(1, round(seconds)) + self._allowing(found)
        if self._access_log:
            self._log("POST", target, 503, len(body), name)
        return _PROBLEM % (len(body), shown, lines), body

    def rejection(self, problem: Problem, headers: list[tuple[bytes, bytes]]) -> Lines:
        """The answer to a request that cannot be read to its end.

        headers: as far as they were read, names in lower case.
        """
        found = dict(headers)
        name = request_id(found)
        body = encode(problem_body(problem, name))
        lines = self._allowing(found)
        if problem.retry_after is not None:
            lines += _RETRY % max(1, round(problem.retry_after))
        if self._access_log:
            self._log("-", b"-", problem.status, len(body), name)
        return _PROBLEM % (len(body), name.encode(), lines), body

    def alive(self, headers: list[tuple[bytes, bytes]], method: str) -> Lines:
        """The answer to the question whether this process lives.

        headers: names in lower case. method: GET or HEAD.
        """
        found = dict(headers)
        name = request_id(found)
        if self._access_log:
            self._log(method, LIVE_TARGET, 200, len(_ALIVE), name)
        return _JSON % (len(_ALIVE), name.encode(), self._allowing(found)), _ALIVE

    def _allowing(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Lines by which a page of another origin may read the answer."""
        if self._cors is None:
            return b""
        lines = self._cors.answer(headers.get(b"origin"))
        return b"".join(b"%b: %b\r\n" % line for line in lines)

    def _log(self, method: str, target: bytes, status: int, size: int, name: str) -> None:
        from seawall.hosts.http.access_log import log_access  # noqa: PLC0415 - where switched on

        log_access(method, target, Request(name), status=status, size=size, seconds=0.0)


def is_open(method: bytes, path: bytes) -> bool:
    """Whether a request may be one that needs no credential; `path` as it was sent."""
    return path in _OPEN_TARGETS or method == b"OPTIONS" or b"%" in path


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
