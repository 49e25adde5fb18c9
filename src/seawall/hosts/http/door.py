"""Refusing turns before anything is done for them: no task, no body read, no token verified."""

from collections.abc import Mapping

from seawall.admission.gate import DETAIL
from seawall.errors import Overloaded, Unauthenticated
from seawall.hosts.http.exchange import Exchange, encode, presented, problem_body
from seawall.orchestrator import Orchestrator

__all__ = ["LIVE", "LIVE_TARGET", "OPEN_TARGETS", "TURN_TARGETS", "Door", "check_room"]

TURN_TARGETS = frozenset((b"/v1/turns", b"/v1/chat/completions"))
LIVE_TARGET = b"/livez"
# For which no credential is asked.
OPEN_TARGETS = frozenset((LIVE_TARGET, b"/readyz", b"/metrics", b"/openapi.json"))
_ALIVE = encode({"status": "alive"})
LIVE = (b"content-type: application/json\r\ncontent-length: %d\r\n" % len(_ALIVE), _ALIVE)
_MARK = 4_711.5  # stands for the seconds, until they are known
_HEAD = b"content-type: application/problem+json\r\nretry-after: %d\r\ncontent-length: %d\r\n"

Client = tuple[str, int] | None


class Door:
    """Answers requests for turns that would be refused, with bytes made beforehand."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        body = encode(problem_body(Overloaded(DETAIL, retry_after=_MARK)))
        self._before, self._after = body.split(encode(_MARK))

    def refusal(
        self, headers: list[tuple[bytes, bytes]], client: Client
    ) -> tuple[bytes, bytes] | None:
        """The answer to a turn that would be refused, or None: header lines, and the body.

        headers: names in lower case.
        """
        if not (self._orchestrator.ready and self._orchestrator.gate.busy):
            return None
        seconds = self._orchestrator.gate.refusal(
            lambda: _claimed(self._orchestrator, dict(headers), client)
        )
        if seconds is None:
            return None
        body = b"%b%.1f%b" % (self._before, seconds, self._after)
        return _HEAD % (max(1, round(seconds)), len(body)), body


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
