"""Refusing turns before anything is done for them: no task, no body read, no token verified."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seawall.admission.gate import OVERLOADED_DETAIL
from seawall.config import ServerSettings
from seawall.errors import Overloaded, Problem, Unauthenticated
from seawall.hosts.http.credentials import Client, read_credential
from seawall.hosts.http.exchange import Exchange, encode, problem_body
from seawall.orchestrator import Orchestrator
from seawall.requests import Request, request_id

if TYPE_CHECKING:
    from seawall.hosts.http.cors import Cors

__all__ = [
    "LIVENESS_TARGET",
    "TURN_TARGETS",
    "PreAdmissionCheck",
    "check_capacity",
    "is_public",
    "make_cors",
]

TURN_TARGETS = frozenset((b"/v1/turns", b"/v1/chat/completions"))
LIVENESS_TARGET = b"/livez"
_PUBLIC_TARGETS = frozenset((LIVENESS_TARGET, b"/readyz", b"/metrics", b"/openapi.json"))
_LIVENESS_BODY = encode({"status": "alive"})
# They stand for the seconds and the request's id, until these are known.
_MARK = 4_711.5
_ID_MARK = "the-id-of-the-request"
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_PROBLEM = b"content-type: application/problem+json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_RETRY = b"retry-after: %d\r\n"

DirectResponse = tuple[bytes, bytes]
"""The header lines of an answer, without status line, `Connection` and empty line; its body."""


class PreAdmissionCheck:
    """Answers requests that do not get as far as the application.

    Those for turns that would be refused are answered with bytes made beforehand.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._cors = make_cors(orchestrator.settings.server)
        self._access_log = orchestrator.settings.server.access_log
        body = encode(problem_body(Overloaded(OVERLOADED_DETAIL, retry_after=_MARK), _ID_MARK))
        self._before, rest = body.split(encode(_MARK))
        self._between, self._after = rest.split(_ID_MARK.encode())

    def refusal(
        self, headers: list[tuple[bytes, bytes]], client: Client, target: bytes = b""
    ) -> DirectResponse | None:
        """The answer to a turn that would be refused, or None.

        headers: names in lower case. target: of the request.
        """
        if not (self._orchestrator.ready and self._orchestrator.engine.gate.busy):
            return None
        found = dict(headers)
        seconds = self._orchestrator.engine.gate.refusal(
            lambda: _claimed_tenant(self._orchestrator, found, client)
        )
        if seconds is None:
            return None
        name = request_id(found)
        shown = name.encode()
        body = b"%b%.1f%b%b%b" % (self._before, seconds, self._between, shown, self._after)
        lines = _RETRY % max(1, round(seconds)) + self._cors_lines(found)
        if self._access_log:
            self._log("POST", target, 503, len(body), name)
        return _PROBLEM % (len(body), shown, lines), body

    def error_response(
        self, problem: Problem, headers: list[tuple[bytes, bytes]]
    ) -> DirectResponse:
        """The answer to a request that cannot be read to its end.

        headers: as far as they were read, names in lower case.
        """
        found = dict(headers)
        name = request_id(found)
        body = encode(problem_body(problem, name))
        lines = self._cors_lines(found)
        if problem.retry_after is not None:
            lines += _RETRY % max(1, round(problem.retry_after))
        if self._access_log:
            self._log("-", b"-", problem.status, len(body), name)
        return _PROBLEM % (len(body), name.encode(), lines), body

    def liveness_response(self, headers: list[tuple[bytes, bytes]], method: str) -> DirectResponse:
        """The answer to the question whether this process lives.

        headers: names in lower case. method: GET or HEAD.
        """
        found = dict(headers)
        name = request_id(found)
        if self._access_log:
            self._log(method, LIVENESS_TARGET, 200, len(_LIVENESS_BODY), name)
        return _JSON % (len(_LIVENESS_BODY), name.encode(), self._cors_lines(found)), _LIVENESS_BODY

    def _cors_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Lines by which a page of another origin may read the answer."""
        if self._cors is None:
            return b""
        lines = self._cors.answer(headers.get(b"origin"))
        return b"".join(b"%b: %b\r\n" % line for line in lines)

    def _log(self, method: str, target: bytes, status: int, size: int, name: str) -> None:
        from seawall.hosts.http.access_log import log_access  # noqa: PLC0415 - where switched on

        log_access(method, target, Request(name), status=status, size=size, seconds=0.0)


def is_public(method: bytes, path: bytes) -> bool:
    """Whether a request may be one that needs no credential; `path` as it was sent."""
    return path in _PUBLIC_TARGETS or method == b"OPTIONS" or b"%" in path


def make_cors(settings: ServerSettings) -> "Cors | None":
    """What `[server.cors]` says; None where there is no such section: nothing is imported then."""
    if settings.cors is None:
        return None
    from seawall.hosts.http.cors import Cors  # noqa: PLC0415

    return Cors(settings.cors)


def check_capacity(orchestrator: Orchestrator, exchange: Exchange) -> None:
    """The same for an exchange that was begun, under servers that have no such door.

    Raises:
        Overloaded: there is no room.
    """
    client = exchange.scope.get("client")
    orchestrator.engine.gate.check(lambda: _claimed_tenant(orchestrator, exchange.headers, client))


def _claimed_tenant(
    orchestrator: Orchestrator, headers: Mapping[bytes, bytes], client: Client
) -> str | None:
    """The tenant that is claimed. Nothing of it is verified."""
    try:
        principal = orchestrator.engine.authenticator.unverified_principal(
            read_credential(headers, client)
        )
    except Unauthenticated:
        return None
    return None if principal is None else principal.tenant
