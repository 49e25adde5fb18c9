"""Classification of provider errors: statuses, error codes and retry hints of HTTP responses."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from seawall.errors import UpstreamFailed, UpstreamRefused, UpstreamThrottled

__all__ = [
    "coded_failure",
    "codes_in",
    "codes_of_body",
    "failure_of",
    "retry_after_of",
    "seconds_until",
]

_LONGEST_SECONDS = 86_400.0
# Request timeout and "too early", where the server suggests a retry; and Bedrock's "failed
# dependency", which is a model that failed.
_RETRYABLE_STATUSES = frozenset({408, 409, 424, 425})
# 529 is Anthropic's "overloaded": https://docs.anthropic.com/en/api/errors
_OVERLOADED = frozenset({429, 529})
# The account has no credit left: no retry helps, whatever the status.
_QUOTA_EXHAUSTED = frozenset(
    {"insufficientquota", "exceededcurrentquota", "billinghardlimitreached"}
    | {"billingnotactive", "insufficientuserquota", "insufficientbalance", "insufficientcredits"}
    | {"insufficientfunds", "creditsexhausted"}
)
# The model wrote what its server cannot parse, which is reported as an invalid request.
_MODEL_FAILED = frozenset({"toolusefailed", "outputparsefailed", "jsonvalidatefailed"})
# Names of errors with the status that they correspond to, without case, underscores and the ending
# "error" or "exception": OpenAI's, Anthropic's, Google's, AWS's and those of common servers.
_STATUS_OF = {
    **dict.fromkeys(("invalidrequest", "invalidprompt", "badrequest", "validation"), 400),
    **dict.fromkeys(("contextlengthexceeded", "invalidargument", "failedprecondition"), 400),
    **dict.fromkeys(("stringabovemaxlength", "unprocessableentity"), 400),
    **dict.fromkeys(("authentication", "invalidapikey", "unauthenticated"), 401),
    "billing": 402,
    **dict.fromkeys(("permission", "permissiondenied", "accessdenied"), 403),
    **dict.fromkeys(("notfound", "modelnotfound", "resourcenotfound"), 404),
    "requesttoolarge": 413,
    **dict.fromkeys(("modelstream", "modelstreamerror"), 424),
    **dict.fromkeys(("ratelimitexceeded", "ratelimit", "toomanyrequests", "throttling"), 429),
    **dict.fromkeys(("resourceexhausted", "ratelimitreached", "servicequotaexceeded"), 429),
    **dict.fromkeys(("server", "internal", "internalserver", "api"), 500),
    **dict.fromkeys(("serviceunavailable", "unavailable", "modelnotready"), 503),
    **dict.fromkeys(("timeout", "deadlineexceeded", "gatewaytimeout", "modeltimeout"), 504),
    **dict.fromkeys(("overloaded", "engineoverloaded", "serveroverloaded"), 529),
}


def failure_of(
    model: str,
    status: int,
    retry_after: float | None = None,
    *,
    midway: bool = False,
    codes: Sequence[object] = (),
) -> UpstreamFailed:
    """Return the problem for a response with this status; it reveals no more than the status.

    Args:
        model: Its name in the configuration.
        status: Of the answer.
        retry_after: Seconds that the response asks to wait.
        midway: The status stands for an error in the middle of an answer.
        codes: Names of the error in the response's body.
    """
    names = frozenset(map(_plain, codes))
    if names & _QUOTA_EXHAUSTED:
        return UpstreamRefused(
            f"The account's quota at the provider of the model '{model}' is used up."
        )
    how = "failed in the middle of its answer, as with" if midway else "answered with"
    detail = f"The model '{model}' {how} status {status}."
    if status in _OVERLOADED:
        return UpstreamThrottled(detail, retry_after=retry_after)
    retryable = status in _RETRYABLE_STATUSES or names & _MODEL_FAILED
    if 400 <= status < 500 and not retryable:
        return UpstreamRefused(detail)
    return UpstreamFailed(detail, retry_after=retry_after)


def coded_failure(model: str, codes: Iterable[object]) -> UpstreamFailed | None:
    """Return the problem for an error in mid-answer, by the first code that is known.

    Args:
        model: Its name in the configuration.
        codes: Statuses, as numbers or digits, and names of errors.
    """
    known = tuple(codes)
    status = next((each for each in map(_status, known) if each is not None), None)
    if status is None and not any(_plain(code) in _QUOTA_EXHAUSTED for code in known):
        return None
    return failure_of(model, status or 429, midway=True, codes=known)


def codes_in(error: object) -> tuple[object, ...]:
    """Return the codes and types in an error object, in the forms that providers use."""
    if not isinstance(error, dict):
        return ()
    inner = error.get("error")
    found = [error.get(key) for key in ("code", "status", "status_code", "type", "error_type")]
    return (*(codes_in(inner) if isinstance(inner, dict) else ()), *found)


def codes_of_body(body: bytes) -> tuple[object, ...]:
    """Return the codes and types in the body of a response; none where it is no JSON."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    return codes_in(decoded)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by the headers of a response; None where they do not say.

    `retry-after-ms` is more exact than `Retry-After` (RFC 9110 §10.2.3), where it is a number.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        try:
            milliseconds = float(headers.get(name, ""))
        except ValueError:
            continue
        if milliseconds >= 0:
            return min(milliseconds / 1_000, _LONGEST_SECONDS)
    return seconds_until(headers.get("retry-after"), now=time.time())


def _status(code: object) -> int | None:
    if isinstance(code, str):
        known = _STATUS_OF.get(_plain(code))
        if known is not None or not (code.isascii() and code.isdigit() and len(code) == 3):
            return known
        code = int(code)
    if isinstance(code, float):
        code = int(code) if code.is_integer() else None
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def _plain(code: object) -> str:
    """Return a name without case, separators and the ending "error" or "exception"."""
    if not isinstance(code, str):
        return ""
    name = code[:64].lower().replace("_", "").replace("-", "").replace(" ", "")
    return name.removesuffix("exception").removesuffix("error")


def seconds_until(retry_after: str | None, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, as a number or a date; None for neither.

    A date in the past is 0; more than a day is a day.

    Args:
        retry_after: The header.
        now: Unix time.
    """
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        import email.utils  # noqa: PLC0415 - rarely needed, and slow to import

        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_SECONDS)
