"""Pre-admission check: refuses turns before a task is started, a body read or a token verified."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seawall.admission.gate import OVERLOADED_DETAIL
from seawall.errors import Overloaded, Problem
from seawall.hosts.http.cors import Cors
from seawall.hosts.http.exchange import Client, encode, problem_body
from seawall.hosts.http.turns import claimed_tenant
from seawall.requests import Request, request_id

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["LIVENESS_TARGET", "PreAdmissionCheck", "is_public", "is_turn"]

_TURN_TARGETS = frozenset(
    (
        *(b"/v1/turns", b"/v1/chat/completions", b"/v1/responses"),
        *(b"/v1/ui/chat", b"/v1/ag-ui", b"/mcp"),
    )
)
_AG_UI_AGENT = b"/v1/ag-ui/"  # with the name of an agent
LIVENESS_TARGET = b"/livez"
_PUBLIC_TARGETS = frozenset((LIVENESS_TARGET, b"/readyz", b"/metrics", b"/openapi.json"))
_LIVENESS_BODY = encode({"status": "alive"})
# Placeholders for the seconds and the request's id in the prepared body.
_MARK = 4_711.5
_ID_MARK = "the-id-of-the-request"
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_PROBLEM = b"content-type: application/problem+json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
_RETRY = b"retry-after: %d\r\n"

DirectResponse = tuple[bytes, bytes]
"""Header lines of a response, without status line, `Connection` and empty line; and its body."""


class PreAdmissionCheck:
    """Answers requests directly, without the application.

    Turns that admission would refuse are answered with a prepared response.
    """

    def __init__(self, orchestrator: "Orchestrator") -> None:
        """Create the check of a worker.

        Args:
            orchestrator: Its admission gate decides.
        """
        self._orchestrator = orchestrator
        cors = orchestrator.settings.server.cors
        self._cors = Cors(cors) if cors is not None else None
        self._access_log = orchestrator.settings.server.access_log
        body = encode(problem_body(Overloaded(OVERLOADED_DETAIL, retry_after=_MARK), _ID_MARK))
        self._before, rest = body.split(encode(_MARK))
        self._between, self._after = rest.split(_ID_MARK.encode())

    def overload_response(
        self, headers: list[tuple[bytes, bytes]], client: Client, target: bytes = b""
    ) -> DirectResponse | None:
        """The response to a turn that admission would refuse; None if it would not.

        Args:
            headers: Names in lower case.
            client: Address of the peer.
            target: Of the request, for the access log.
        """
        if not (self._orchestrator.ready and self._orchestrator.engine.gate.busy):
            return None
        by_name = dict(headers)
        seconds = self._orchestrator.engine.gate.refusal(
            lambda: claimed_tenant(self._orchestrator, by_name, client)
        )
        if seconds is None:
            return None
        request = request_id(by_name)
        encoded = request.encode()
        body = b"%b%.1f%b%b%b" % (self._before, seconds, self._between, encoded, self._after)
        lines = _RETRY % max(1, round(seconds)) + self._cors_lines(by_name)
        self._log("POST", target, 503, body, request)
        return _PROBLEM % (len(body), encoded, lines), body

    def error_response(
        self, problem: Problem, headers: list[tuple[bytes, bytes]]
    ) -> DirectResponse:
        """The response to a request that cannot be read to its end.

        Args:
            problem: What is wrong with it.
            headers: Those read so far, names in lower case.
        """
        by_name = dict(headers)
        request = request_id(by_name)
        body = encode(problem_body(problem, request))
        lines = self._cors_lines(by_name)
        if problem.retry_after is not None:
            lines += _RETRY % max(1, round(problem.retry_after))
        self._log("-", b"-", problem.status, body, request)
        return _PROBLEM % (len(body), request.encode(), lines), body

    def liveness_response(self, headers: list[tuple[bytes, bytes]], method: str) -> DirectResponse:
        """The response to a liveness probe.

        Args:
            headers: Names in lower case.
            method: GET or HEAD.
        """
        by_name = dict(headers)
        request = request_id(by_name)
        lines = _JSON % (len(_LIVENESS_BODY), request.encode(), self._cors_lines(by_name))
        self._log(method, LIVENESS_TARGET, 200, _LIVENESS_BODY, request)
        return lines, _LIVENESS_BODY

    def _cors_lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Header lines that let a page of another origin read the response."""
        if self._cors is None:
            return b""
        lines = self._cors.answer(headers.get(b"origin"))
        return b"".join(b"%b: %b\r\n" % line for line in lines)

    def _log(self, method: str, target: bytes, status: int, body: bytes, request: str) -> None:
        if not self._access_log:
            return
        from seawall.hosts.http.access_log import log_access  # noqa: PLC0415 - only if switched on

        log_access(method, target, Request(request), status=status, size=len(body), seconds=0.0)


def is_turn(path: bytes) -> bool:
    """Whether a POST request begins or continues a turn that admission decides about.

    Args:
        path: As sent, percent-encoded.
    """
    return path in _TURN_TARGETS or path.startswith(_AG_UI_AGENT)


def is_public(method: bytes, path: bytes) -> bool:
    """Whether a request may be one that needs no credential.

    Args:
        method: Of the request.
        path: As sent, percent-encoded.
    """
    well_known = path.startswith(b"/.well-known/")
    return path in _PUBLIC_TARGETS or well_known or method == b"OPTIONS" or b"%" in path
