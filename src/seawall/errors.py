"""Errors: one root, few branches, each with what the caller can do.

::

    SeawallError
    ├── ConfigError                 the configuration is wrong: fix it, start again
    └── Problem                     an answer to a request (RFC 9457), with status and code
        ├── InvalidRequest          400 invalid-request     fix the request
        │   ├── InvalidField        422 invalid-field       fix the field that is named
        │   ├── BodyTooLarge        413 body-too-large      send less
        │   ├── HeadersTooLarge     431 headers-too-large   send less
        │   └── UnsupportedEncoding 415 unsupported-encoding    send it plain, or by gzip
        ├── Unauthenticated         401 unauthenticated     send a valid credential
        ├── Forbidden               403 forbidden           another role may
        ├── NotFound                404 not-found           it does not exist for this caller
        │   ├── SessionNotFound     404 session-not-found
        │   ├── TurnNotFound        404 turn-not-found
        │   ├── UnknownAgent        404 unknown-agent
        │   └── UnknownFile         404 unknown-file
        ├── MethodNotAllowed        405 method-not-allowed
        ├── RequestTimeout          408 request-timeout     send the request faster
        ├── SessionConflict         409 session-conflict    load the session, retry
        ├── SessionBusy             409 session-busy        wait for the turn that is running
        ├── TurnIsPaused            409 turn-paused         decide what it waits for
        ├── TurnCancelled           409 turn-cancelled      its caller has ended it
        ├── TurnInterrupted         409 turn-interrupted    its session says what was done
        │   └── ClientAbsent        409 client-absent       its client has not returned results
        ├── EffectUnknown           409 effect-unknown      reconcile the effect that is named
        ├── AlreadyDecided          409 already-decided     another decision was first
        ├── KeyReused               422 idempotency-key-reused   use a new key
        ├── StorageExhausted        413 storage-exhausted   delete files, or sessions with files
        ├── BudgetExhausted         429 budget-exhausted    the tenant's budget is used up; wait
        ├── TurnLimitReached        500 turn-limit-reached  a limit of the agent was met
        ├── InvalidOutput           502 invalid-output      the answer does not match the schema
        ├── InternalError           500 internal-error      report it
        ├── UpstreamFailed          502 upstream-failed     the model failed; retry later
        │   ├── UpstreamRefused     502 upstream-refused    it does not accept this request
        │   ├── UpstreamThrottled   503 upstream-throttled  rate limit of the provider; wait
        │   │   └── QuotaExhausted  429 quota-exhausted     no room in the model's quota; wait
        │   └── UpstreamUnavailable 503 upstream-unavailable    circuit breaker is open; wait
        ├── Overloaded              503 overloaded          wait `retry_after` seconds
        ├── ServerStopping          503 server-stopping     retry on another server
        ├── TurnPostponed           503 turn-postponed      its events say when it is done
        ├── TurnAbandoned           503 turn-abandoned      a background turn could not be done
        ├── IdentityUnavailable     503 identity-unavailable     the issuer's keys are unavailable
        ├── StoreUnavailable        503 store-unavailable   nothing was charged; retry later
        ├── CommitUnknown           503 commit-unknown      it may be stored: retry, same key
        └── DeadlineExceeded        504 deadline-exceeded   a stage took too long
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

__all__ = [
    "AlreadyDecided",
    "BodyTooLarge",
    "BudgetExhausted",
    "ClientAbsent",
    "CommitUnknown",
    "ConfigError",
    "DeadlineExceeded",
    "EffectUnknown",
    "Forbidden",
    "HeadersTooLarge",
    "IdentityUnavailable",
    "InternalError",
    "InvalidField",
    "InvalidOutput",
    "InvalidRequest",
    "KeyReused",
    "MethodNotAllowed",
    "NotFound",
    "Overloaded",
    "Problem",
    "QuotaExhausted",
    "RequestTimeout",
    "SeawallError",
    "ServerStopping",
    "SessionBusy",
    "SessionConflict",
    "SessionNotFound",
    "StorageExhausted",
    "StoreUnavailable",
    "TurnAbandoned",
    "TurnCancelled",
    "TurnInterrupted",
    "TurnIsPaused",
    "TurnLimitReached",
    "TurnNotFound",
    "TurnPostponed",
    "Unauthenticated",
    "UnknownAgent",
    "UnknownFile",
    "UnsupportedEncoding",
    "UpstreamFailed",
    "UpstreamRefused",
    "UpstreamThrottled",
    "UpstreamUnavailable",
    "did_you_mean",
    "problem_from",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "port"?` if one of the known names is close; else nothing."""
    import difflib  # noqa: PLC0415 - only for errors

    close = difflib.get_close_matches(name, list(known), 1)
    return f'; did you mean "{close[0]}"?' if close else ""


class SeawallError(Exception):
    """Base class of all errors of Seawall."""


class ConfigError(SeawallError):
    """The configuration is wrong; the message names file, line and key."""


class Problem(SeawallError):
    """An error response (RFC 9457). `str(problem)` is the detail that the caller sees.

    Attributes:
        status: HTTP status.
        code: Stable and machine-readable.
        title: Identical for every occurrence.
        detail: What is wrong, for the caller.
        field: Dotted path of the part of the request at fault, if any.
        retry_after: Seconds after which a retry may succeed, if known.
        effects: What the turn did before it failed: `id`, `tool` and `status` of each effect.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    effects: tuple[dict[str, str], ...] = ()

    def __init__(
        self, detail: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, object]:
        """The RFC 9457 problem details object (https://www.rfc-editor.org/rfc/rfc9457)."""
        body: dict[str, object] = {
            "type": f"urn:seawall:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
        if self.effects:
            body["effects"] = self.effects
        return body


class InvalidRequest(Problem):
    """The request cannot be read."""

    status = 400
    code = "invalid-request"
    title = "Invalid request"


class InvalidField(InvalidRequest):
    """One field of the request is wrong; `field` names it."""

    status = 422
    code = "invalid-field"
    title = "Invalid field"


class BodyTooLarge(InvalidRequest):
    """The body exceeds the configured size."""

    status = 413
    code = "body-too-large"
    title = "Body too large"


class HeadersTooLarge(InvalidRequest):
    """The request's head exceeds the configured size."""

    status = 431
    code = "headers-too-large"
    title = "Headers too large"


class UnsupportedEncoding(InvalidRequest):
    """The body has a content coding that is not supported."""

    status = 415
    code = "unsupported-encoding"
    title = "Unsupported encoding"


class Unauthenticated(Problem):
    """There is no valid credential. The detail reveals nothing that would help an attacker."""

    status = 401
    code = "unauthenticated"
    title = "Unauthenticated"


class Forbidden(Problem):
    """The caller is known, and may not do this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class NotFound(Problem):
    """The resource does not exist or belongs to another caller; the answer is the same."""

    status = 404
    code = "not-found"
    title = "Not found"


class SessionNotFound(NotFound):
    """The session does not exist or belongs to another caller; the answer is the same."""

    code = "session-not-found"
    title = "Session not found"

    def __init__(self) -> None:
        super().__init__("There is no such session.", field="session")


class TurnNotFound(NotFound):
    """The turn does not exist, is unknown here or is another caller's; the answer is the same."""

    code = "turn-not-found"
    title = "Turn not found"

    def __init__(self, detail: str = "There is no such turn.", *, field: str = "turn") -> None:
        super().__init__(detail, field=field)


class UnknownAgent(NotFound):
    """The requested agent is not configured."""

    code = "unknown-agent"
    title = "Unknown agent"


class UnknownFile(NotFound):
    """There is no such file for this caller."""

    code = "unknown-file"
    title = "Unknown file"


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status = 405
    code = "method-not-allowed"
    title = "Method not allowed"


class RequestTimeout(Problem):
    """The request did not arrive in time."""

    status = 408
    code = "request-timeout"
    title = "Request timeout"


class SessionConflict(Problem):
    """Another turn of the same session was committed first; nothing of this one was stored."""

    status = 409
    code = "session-conflict"
    title = "Session conflict"


class SessionBusy(Problem):
    """Another turn of the same session is running; nothing was done for this one."""

    status = 409
    code = "session-busy"
    title = "Session busy"


class TurnIsPaused(Problem):
    """A turn of the session is paused, and no other is accepted until it continues."""

    status = 409
    code = "turn-paused"
    title = "Turn paused"


class TurnCancelled(Problem):
    """The turn's caller has ended it; `effects` names what it did before."""

    status = 409
    code = "turn-cancelled"
    title = "Turn cancelled"


class TurnInterrupted(Problem):
    """The turn ended after an effect without an answer, and later turns have followed."""

    status = 409
    code = "turn-interrupted"
    title = "Turn interrupted"


class ClientAbsent(TurnInterrupted):
    """The turn ended because its client has not returned the results of its tools in time."""

    code = "client-absent"
    title = "Client absent"


class EffectUnknown(Problem):
    """An effect was begun and its outcome is not known; nothing repeats it. `effects` names it."""

    status = 409
    code = "effect-unknown"
    title = "Effect unknown"


class AlreadyDecided(Problem):
    """The call was decided before, or does not wait any more."""

    status = 409
    code = "already-decided"
    title = "Already decided"


class KeyReused(Problem):
    """The idempotency key was used before with another request."""

    status = 422
    code = "idempotency-key-reused"
    title = "Idempotency key reused"


class StorageExhausted(Problem):
    """A file does not fit into what may be stored of its owner, or of all."""

    status = 413
    code = "storage-exhausted"
    title = "Storage exhausted"


class BudgetExhausted(Problem):
    """A budget of the caller's tenant is used up; nothing was spent for this turn.

    `field` names the budget, `retry_after` says when it renews.
    """

    status = 429
    code = "budget-exhausted"
    title = "Budget exhausted"


class TurnLimitReached(Problem):
    """A limit of the agent (steps, tokens, tool calls) was met before there was an answer."""

    code = "turn-limit-reached"
    title = "Turn limit reached"


class InvalidOutput(Problem):
    """The answer does not match the agent's schema, even after a request to repair it."""

    status = 502
    code = "invalid-output"
    title = "Invalid output"


class InternalError(Problem):
    """A defect. Its details are in the log only."""


class UpstreamFailed(Problem):
    """The model endpoint refused, failed, or broke off."""

    status = 502
    code = "upstream-failed"
    title = "Upstream failed"


class UpstreamRefused(UpstreamFailed):
    """The model endpoint refuses this request; a retry would not help."""

    code = "upstream-refused"
    title = "Upstream refused"


class UpstreamThrottled(UpstreamFailed):
    """The model endpoint is rate limited."""

    status = 503
    code = "upstream-throttled"
    title = "Upstream throttled"


class QuotaExhausted(UpstreamThrottled):
    """The quota of the model's account leaves no room before the deadline; it was not called."""

    status = 429
    code = "quota-exhausted"
    title = "Quota exhausted"


class UpstreamUnavailable(UpstreamFailed):
    """The model endpoint has been failing; it was not called (circuit breaker)."""

    status = 503
    code = "upstream-unavailable"
    title = "Upstream unavailable"


class Overloaded(Problem):
    """Admission control refused the turn; nothing was done for it."""

    status = 503
    code = "overloaded"
    title = "Overloaded"


class ServerStopping(Problem):
    """The server is shutting down and ended the turn."""

    status = 503
    code = "server-stopping"
    title = "Server stopping"


class TurnPostponed(Problem):
    """A background turn was interrupted; it is run again later, perhaps by another server."""

    status = 503
    code = "turn-postponed"
    title = "Turn postponed"


class TurnAbandoned(Problem):
    """A background turn was interrupted too often, or for too long."""

    status = 503
    code = "turn-abandoned"
    title = "Turn abandoned"


class IdentityUnavailable(Problem):
    """Callers cannot be authenticated: the identity provider's keys are unavailable."""

    status = 503
    code = "identity-unavailable"
    title = "Identity provider unavailable"


class StoreUnavailable(Problem):
    """The session store is unavailable; nothing was stored or charged."""

    status = 503
    code = "store-unavailable"
    title = "Session store unavailable"


class CommitUnknown(Problem):
    """The store stopped responding during the commit: the turn may be stored, or not.

    With an idempotency key, a retry returns the stored answer or runs the turn, once. Without one,
    the session shows whether the turn is in it.
    """

    status = 503
    code = "commit-unknown"
    title = "Commit unknown"


class DeadlineExceeded(Problem):
    """A stage, or the turn, exceeded its time limit."""

    status = 504
    code = "deadline-exceeded"
    title = "Deadline exceeded"


def problem_from(body: dict[str, Any]) -> Problem:
    """The problem of an object that `Problem.as_dict` made; `InternalError` for unknown codes."""
    known = {each.code: each for each in _below(Problem)}
    kind = known.get(body["code"], InternalError)
    problem = kind.__new__(kind)
    Problem.__init__(
        problem, body["detail"], field=body.get("field"), retry_after=body.get("retry_after")
    )
    problem.effects = tuple(body.get("effects", ()))
    return problem


def _below(kind: type[Problem]) -> Iterator[type[Problem]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)
